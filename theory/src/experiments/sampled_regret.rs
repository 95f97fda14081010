//! What noise costs REBEL on a bandit: sampled runs whose regret is taken apart (theory 5.1, 5.2 (i); E5.5, E5.7).
//!
//! Every run is analysed exactly, so beside the regret stand its three terms, the errors of the fits, and the bound of
//! Theorem 1 with each of its constants measured.

use super::stream;
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::players::batch::{BatchPlayer, draw_pairs};
use crate::players::{Bernoulli, Play};
use crate::sample::Sampler;
use crate::solve::decomposition::pair_error;
use crate::solve::mirror::tilt;
use crate::solve::pairs::PredictorClass;
use crate::solve::rates::worst_case_rate;
use crate::solve::trajectory::{Rebel, SecondLaw, Trajectory, run};
use crate::statistics::{Estimate, mean, mean_interval};
use ndarray::{Array1, Array2, Array3, Axis};
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// A Bernoulli bandit and the predictors that are fitted to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The bandit.
    pub env: Bernoulli,
    /// The predictors.
    pub class: PredictorClass,
}

impl Problem {
    /// One context of `arms` arms with mean `base`, the last better by `gap`; every table is a predictor.
    pub fn arms(arms: usize, base: f64, gap: f64) -> Result<Self, InputError> {
        let mut means = Array2::from_elem((1, arms), base);
        if let Some(best) = means.last_mut() {
            *best += gap;
        }
        let env = Bernoulli::new(Bandit::new(Array1::ones(1), means)?)?;
        Ok(Self { env, class: PredictorClass::tabular(1, arms) })
    }

    /// The contextual bandit of theory 5.2: 5 equally likely contexts, 20 responses, 4 normal features, means linear in them
    /// and filling `[.1, .9]`; `misfit` times a normal number is added to each, and the sum clipped to `[.02, .98]`.
    pub fn contextual(misfit: f64) -> Result<Self, InputError> {
        const INSTANCE: u64 = 6;
        let mut rng = ChaCha8Rng::seed_from_u64(INSTANCE);
        let mut normal = || -> f64 { StandardNormal.sample(&mut rng) };
        let features = Array3::from_shape_simple_fn((5, 20, 4), &mut normal);
        let direction = Array1::from_shape_simple_fn(4, &mut normal);
        let class = PredictorClass::linear(features)?;
        let linear = class.predict(&direction);
        let (low, high) = linear.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
        let means = linear.mapv(|v| 0.1 + 0.8 * (v - low) / (high - low));
        let means = match misfit {
            0.0 => means,
            _ => means.mapv(|m| (m + misfit * normal()).clamp(0.02, 0.98)),
        };
        let env = Bernoulli::new(Bandit::new(Array1::from_elem(5, 0.2), means)?)?;
        Ok(Self { env, class })
    }

    /// The uniform law of the second response.
    pub fn uniform(&self) -> SecondLaw {
        SecondLaw::Fixed(Policy::uniform(self.class.contexts(), self.class.responses()))
    }

    /// The best policy.
    pub fn best(&self) -> Policy {
        let bandit = self.env.bandit();
        Policy::pure(&bandit.best(), bandit.responses())
    }

    /// One run of `steps` iterations of REBEL from the uniform policy, `pairs` fresh pairs each, and its paid regret.
    pub fn run(
        &self,
        second: &SecondLaw,
        eta: f64,
        steps: usize,
        pairs: usize,
        rng: impl Rng,
    ) -> Result<(Trajectory, f64), InputError> {
        let bandit = self.env.bandit();
        let rebel = Rebel::new(bandit.weights(), &self.class, second, eta, 0.0)?;
        let mut play = Play::new(&self.env, rng);
        let start = Array1::zeros(self.class.parameters());
        let trajectory = run(
            &rebel,
            start,
            steps,
            |_| bandit.reward().clone(),
            |_, pi, mu| draw_pairs(&mut play, &Sampler::new(pi), &Sampler::new(mu), pairs),
        )?;
        Ok((trajectory, play.paid_regret()))
    }
}

/// One analysed run against the best policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Analysed {
    /// Mean regret of the policies before each step.
    pub average: f64,
    /// Mean regret of the policies after each step.
    pub average_after: f64,
    /// Smallest regret of any policy before a step.
    pub best: f64,
    /// Regret of the last policy.
    pub last: f64,
    /// Mean gap of all responses queried.
    pub paid: f64,
    /// What mirror descent with the fits pays.
    pub mirror_descent: f64,
    /// What the class's misfit costs.
    pub approximation: f64,
    /// What sampling costs.
    pub sampling: f64,
    /// Mean of $$ \epsilon_t $$.
    pub eps: f64,
    /// Largest $$ |\epsilon_t-\epsilon_t^{approx}-\epsilon_t^{sampling}| $$.
    pub pythagoras: f64,
    /// The bound on the mirror-descent term.
    pub mirror_bound: f64,
    /// What Theorem 1 charges for the errors.
    pub coverage_term: f64,
    /// The bound of theory 5.1 on [`Self::average_after`], in expectation: $$ \mathrm{KL}/(\eta T)+(e-2)\,\eta\,\overline{a_t} $$
    pub after_bound: f64,
    /// The largest $$ \eta\,(\Delta_t-E_{\pi_t}\Delta_t) $$: that bound needs at most 1.
    pub overestimate: f64,
}

impl Analysed {
    /// The bound of Theorem 1 with every constant measured.
    pub fn bound(&self) -> f64 {
        self.mirror_bound + self.coverage_term
    }

    /// The error of the decomposition.
    pub fn identity(&self) -> f64 {
        (self.mirror_descent + self.approximation + self.sampling - self.average).abs()
    }
}

/// Takes a run with steps `eta` apart; it needs an iteration.
pub fn analyse(problem: &Problem, trajectory: &Trajectory, eta: f64, paid: f64) -> Analysed {
    let best = problem.best();
    let regrets: Vec<f64> = trajectory.policies().map(|pi| problem.env.regret(pi)).collect();
    let steps = regrets.len() - 1;
    let terms = trajectory.decomposition(&best);
    let fits = trajectory.fits();
    let mean_of = |values: Vec<f64>| mean(&values);
    let weights = problem.env.bandit().weights();
    let first = &trajectory.iterations()[0].policy;
    let divergence = crate::bandit::average(weights, &best.kl(first)) / (eta * steps as f64);
    let over = trajectory.iterations().iter().map(|one| {
        let delta = &one.fit - &one.reward;
        let mean = one.policy.expectation(&delta).insert_axis(Axis(1)); // [x, 1]
        (delta - &mean).fold(0.0, |worst: f64, &d| worst.max(d))
    });
    let split = |fit: &crate::solve::trajectory::Fit| (fit.error.total() - fit.approximation - fit.sampling).abs();
    Analysed {
        average: mean(&regrets[..steps]),
        average_after: mean(&regrets[1..]),
        best: regrets[..steps].iter().fold(f64::INFINITY, |m, &r| m.min(r)),
        last: regrets[steps],
        paid,
        mirror_descent: terms.mirror_descent,
        approximation: terms.approximation,
        sampling: terms.sampling,
        eps: mean_of(fits.iter().map(|fit| fit.error.total()).collect()),
        pythagoras: fits.iter().map(split).fold(0.0, f64::max),
        mirror_bound: trajectory.mirror_bound(&best),
        coverage_term: trajectory.coverage_term(&best),
        after_bound: divergence
            + (std::f64::consts::E - 2.0) * eta * mean_of(fits.iter().map(|fit| fit.error.var_first).collect()),
        overestimate: eta * over.fold(0.0, f64::max),
    }
}

/// `runs` analysed runs of seed `seed`, in order.
pub fn analysed_runs(
    problem: &Problem,
    second: &SecondLaw,
    eta: f64,
    (steps, pairs): (usize, usize),
    runs: u64,
    seed: u64,
) -> Result<Vec<Analysed>, InputError> {
    let one = |n: u64| {
        let (trajectory, paid) = problem.run(second, eta, steps, pairs, stream(seed, n))?;
        Ok(analyse(problem, &trajectory, eta, paid))
    };
    (0..runs).into_par_iter().map(one).collect()
}

/// The mean of a quantity over analysed runs, with its interval.
pub fn over_runs(runs: &[Analysed], quantity: fn(&Analysed) -> f64) -> Estimate {
    mean_interval(&runs.iter().map(quantity).collect::<Vec<_>>())
}

/// The mean regret of `steps` iterations of REBEL on `arms` tabular arms with the gap that is worst for so many exact
/// steps of size 1, the second response uniform, one number a run: theory's E5.7 at the worst gap.
pub fn worst_gap_regrets(
    arms: usize,
    pairs: usize,
    steps: usize,
    runs: u64,
    seed: u64,
) -> Result<Vec<f64>, InputError> {
    let gap = (1.0 + worst_case_rate(1.0 / arms as f64)) / steps as f64;
    let problem = Problem::arms(arms, 0.5 - gap / 2.0, gap)?;
    let second = problem.uniform();
    let one = |n: u64| {
        let rebel = Rebel::new(problem.env.bandit().weights(), &problem.class, &second, 1.0, 0.0)?;
        let mut player = BatchPlayer::rebel(rebel, pairs);
        let mut play = Play::new(&problem.env, stream(seed, n));
        let mut sum = 0.0;
        for _ in 0..steps {
            sum += problem.env.regret(player.policy());
            player.iterate(&mut play)?;
        }
        Ok(sum / steps as f64)
    };
    (0..runs).into_par_iter().map(one).collect()
}

/// The same error, made once and for all or made afresh: regrets and what Theorem 1 charges (E5.5).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ErrorKinds {
    /// $$ \sqrt{C\,\epsilon} $$ of the systematic error.
    pub charged: f64,
    /// Regret of the last policy under the systematic error: the class merges all arms and the policy never moves.
    pub systematic: f64,
    /// Mean of $$ \sqrt{C\,\epsilon} $$ over the iterations with independent errors, realised.
    pub charged_independent: f64,
    /// Regret of the last policy under independent errors of the same expected size.
    pub independent: f64,
}

/// One run of `steps` steps of size 1 on `arms` arms, the last better by `gap`, `mu(y*) = 1/coverage` and the rest of `mu`
/// uniform. The systematic error merges the arms; the independent ones are normal, fresh at each iteration, and scaled so
/// that the expected error on pairs is at every iteration what it is with merged arms.
pub fn error_kinds(
    arms: usize,
    gap: f64,
    coverage: f64,
    steps: usize,
    rng: &mut impl Rng,
) -> Result<ErrorKinds, InputError> {
    let mut reward = Array2::zeros((1, arms));
    reward[[0, arms - 1]] = gap;
    let bandit = Bandit::new(Array1::ones(1), reward)?;
    let mut mu = Array2::from_elem((1, arms), (1.0 - 1.0 / coverage) / (arms - 1) as f64);
    mu[[0, arms - 1]] = 1.0 / coverage;
    let mu = Policy::new("mu", mu)?;
    let start = Policy::uniform(1, arms);
    let eps = pair_error(bandit.weights(), &start, &mu, bandit.reward()).total();
    let (mut policy, mut charged) = (start.clone(), 0.0);
    for _ in 0..steps {
        let overlap = (policy.prob() * mu.prob()).sum();
        let scale = (eps / (2.0 - 2.0 * overlap)).sqrt(); // E(noise - noise')^2 = 2 scale^2 unless y = y'
        let noise = Array2::from_shape_simple_fn((1, arms), || -> f64 { StandardNormal.sample(rng) }) * scale;
        charged += (coverage * pair_error(bandit.weights(), &policy, &mu, &noise).total()).sqrt() / steps as f64;
        policy = tilt(&policy, &(bandit.reward() + &noise), 1.0);
    }
    let regret = |pi: &Policy| bandit.optimum() - bandit.value(pi);
    Ok(ErrorKinds {
        charged: (coverage * eps).sqrt(),
        systematic: regret(&start),
        charged_independent: charged,
        independent: regret(&policy),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contextual_rewards_are_in_the_class_unless_misfitted() {
        let floor = |misfit: f64| {
            let problem = Problem::contextual(misfit).unwrap();
            let (pi, bandit) = (Policy::uniform(5, 20), problem.env.bandit());
            let w = problem.class.population(bandit, &pi, &pi).unwrap();
            pair_error(bandit.weights(), &pi, &pi, &(problem.class.predict(&w) - bandit.reward())).total()
        };
        assert!(floor(0.0) < 1e-28 && floor(0.15) > 0.02);
    }

    #[test]
    fn independent_errors_are_charged_as_much_as_the_systematic_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let kinds = error_kinds(20, 1.0, 16.0, 200, &mut rng).unwrap();
        assert!((kinds.charged_independent / kinds.charged - 1.0).abs() < 0.1, "{kinds:?}");
    }
}
