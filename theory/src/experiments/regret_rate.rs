//! How regret falls with the number of iterations (experiments E5.1 and E5.4): the rate belongs to the step size and to the
//! instance, not to the regression.

use crate::bandit::{Bandit, Policy};
use crate::bounds::{Constants, Worst, overestimates, theorem1_constant_eta, theorem1_paper, theorem1_sharp};
use crate::distribution::Law;
use crate::error::{self, InputError};
use crate::policy::{LogLinear, Softmax};
use crate::solve::decomposition::{Decomposition, decompose};
use crate::solve::mirror::mirror_descent;
use crate::solve::population::{Rebel, Step};
use crate::solve::rates::worst_case_rate;
use ndarray::{Array1, Array2, Array3};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// How the step size depends on the number of iterations T.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum StepSize {
    /// The paper's analysis, for predictors bounded by 1: $$ \eta=\sqrt{\ln|Y|/T} $$
    Paper,
    /// The paper's practice: the same for every T.
    Constant(f64),
}

/// How much better the one good response is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Gap {
    /// The same for every T.
    Fixed(f64),
    /// What makes the regret after T steps largest: $$ \frac{1+W_0((|Y|-1)/e)}{\eta T} $$
    Worst,
}

/// The regret of the last of `steps >= 1` iterates $$ \pi_0..\pi_{T-1} $$ of exact mirror descent from the uniform policy over
/// `responses`, one of which is better than all others by `gap`.
pub fn last_regret(responses: usize, steps: usize, size: StepSize, gap: Gap) -> Result<f64, InputError> {
    if steps == 0 || responses < 2 {
        return Err(InputError::Empty { argument: if steps == 0 { "steps" } else { "responses" } });
    }
    let eta = match size {
        StepSize::Paper => ((responses as f64).ln() / steps as f64).sqrt(),
        StepSize::Constant(eta) => error::positive("eta", eta)?,
    };
    let gap = match gap {
        Gap::Fixed(gap) => error::positive("gap", gap)?,
        Gap::Worst => (1.0 + worst_case_rate(1.0 / responses as f64)) / (eta * steps as f64),
    };
    let mut reward = Array2::zeros((1, responses));
    reward[[0, 0]] = gap;
    let bandit = Bandit::new(Array1::ones(1), reward)?;
    let run = mirror_descent(&bandit, &Policy::uniform(1, responses), eta, steps - 1);
    // Not optimum minus value: that difference of nearly equal numbers would lose the tail.
    Ok(gap * run.last.prob().iter().skip(1).sum::<f64>())
}

/// A run of T iterations with its regret and the bounds on it, all averages over the iterations so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Iterations.
    pub steps: usize,
    /// $$ J^*-J $$ averaged over $$ \pi_0..\pi_{T-1} $$.
    pub regret: f64,
    /// What mirror descent with the fitted predictors paid of it, exactly.
    pub mirror_descent: f64,
    /// What misfit cost, exactly.
    pub approximation: f64,
    /// Theorem 1 with sharp constants.
    pub sharp: f64,
    /// The same for $$ \pi_1..\pi_T $$, without the price of large steps; none where some iteration over-estimates too much.
    pub constant_eta: Option<f64>,
    /// Theorem 1 with the paper's constants.
    pub paper: f64,
}

/// E5.1: population REBEL with a log-linear policy that cannot represent the reward, `y ~ pi_t`, `y'` uniform, measured after
/// each of these numbers of iterations (ascending, at least 1). The instance is made from `seed`: 12 contexts, 6 responses,
/// 2 features, the reward linear in them plus as much that is not.
pub fn misspecified_run(seed: u64, eta: f64, at: &[usize]) -> Result<Vec<Progress>, InputError> {
    const SHAPE: (usize, usize, usize) = (12, 6, 2); // contexts, responses, features
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = || -> f64 { StandardNormal.sample(&mut rng) };
    let features = Array3::from_shape_simple_fn(SHAPE, &mut normal);
    let truth = Array1::from_shape_simple_fn(SHAPE.2, &mut normal);
    let linear = LogLinear::new(features.clone(), truth)?;
    let unrelated = Array2::from_shape_simple_fn((SHAPE.0, SHAPE.1), &mut normal);
    let reward = (linear.logits() / (SHAPE.2 as f64).sqrt() + unrelated) * 0.25;
    let bandit = Bandit::new(Array1::from_elem(SHAPE.0, 1.0 / SHAPE.0 as f64), reward)?;
    let start = LogLinear::new(features, Array1::zeros(SHAPE.2))?;
    let second = Law::Offline(Policy::uniform(SHAPE.0, SHAPE.1));
    let comparator = Policy::pure(&bandit.best(), SHAPE.1);
    let mut run = Rebel::new(&bandit, start, (Law::OnPolicy, second), eta)?;
    let steps = run.steps(at.iter().copied().max().unwrap_or(0))?;
    at.iter().map(|&t| progress(&bandit, &steps[..t], &comparator, eta)).collect()
}

fn progress(bandit: &Bandit, steps: &[Step], comparator: &Policy, eta: f64) -> Result<Progress, InputError> {
    let Some(first) = steps.first() else { return Err(InputError::Empty { argument: "at" }) };
    let weights = bandit.weights();
    let iterations: Vec<_> = steps.iter().map(|s| s.iteration.clone()).collect();
    let Decomposition { mirror_descent, approximation, .. } = decompose(weights, &iterations, comparator, eta);
    let measured: Vec<Constants> = steps
        .iter()
        .map(|s| Constants::measure(weights, &s.iteration, (&s.first, &s.second), comparator, eta))
        .collect();
    let divergence = bandit.kl(comparator, &first.iteration.policy);
    let values: f64 = iterations.iter().map(|i| bandit.value(&i.policy)).sum();
    Ok(Progress {
        steps: steps.len(),
        regret: bandit.value(comparator) - values / steps.len() as f64,
        mirror_descent,
        approximation,
        sharp: theorem1_sharp(divergence, eta, &measured).total(),
        constant_eta: (!overestimates(eta, &measured))
            .then(|| theorem1_constant_eta(divergence, eta, &measured).total()),
        paper: theorem1_paper(bandit.responses(), eta, steps.len(), Worst::of(&measured)).total(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regret_of_the_uniform_policy_is_the_gap_times_the_chance_to_miss() {
        let got = last_regret(4, 1, StepSize::Constant(1.0), Gap::Fixed(0.8)).unwrap();
        assert!((got - 0.6).abs() < 1e-15);
        assert!(last_regret(4, 0, StepSize::Paper, Gap::Worst).is_err());
        assert!(last_regret(1, 3, StepSize::Paper, Gap::Worst).is_err());
        assert!(last_regret(4, 3, StepSize::Constant(0.0), Gap::Worst).is_err());
    }

    #[test]
    fn regret_of_a_misspecified_run_is_its_two_terms_and_below_every_bound() {
        for run in misspecified_run(3, 0.5, &[1, 4, 20]).unwrap() {
            assert!((run.regret - run.mirror_descent - run.approximation).abs() < 1e-12, "{run:?}");
            assert!(run.regret <= run.sharp && run.sharp <= run.paper, "{run:?}");
        }
        assert!(misspecified_run(3, 0.5, &[0]).is_err());
    }
}
