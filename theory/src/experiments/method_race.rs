//! All methods on one bandit, from the same random numbers: regret and the length of each step (theory 7, E7.3).

use super::methods::{Draws, Method, Round, Settings, bradley_terry};
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::policy::{Softmax, Tabular};
use crate::sample::Sampler;
use crate::solve::rates::tilt_bound;
use ndarray::{Array1, Array2, Array3, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Sizes of a race.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// Number of responses.
    pub arms: usize,
    /// Outer iterations.
    pub iterations: usize,
    /// Pairs drawn in each.
    pub pairs: usize,
    /// Inner steps of gradient descent on them.
    pub inner: usize,
    /// Rewards are uniform between 0 and this.
    pub scale: f64,
}

/// One method's run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lap {
    /// The method.
    pub method: Method,
    /// Regret of each policy, `[iterations + 1]`, in units of the reward's range.
    pub regret: Vec<f64>,
    /// $$ \mathrm{KL}(\pi_{t+1}\|\pi_t) $$ of each iteration, nats, `[iterations]`.
    pub divergence: Vec<f64>,
    /// What an exact step of the same `eta` can at most spend ([`tilt_bound`]), nats.
    pub bound: f64,
}

impl Lap {
    /// The longest step of the run, nats.
    pub fn longest(&self) -> f64 {
        self.divergence.iter().fold(0.0, |m: f64, &kl| m.max(kl))
    }
}

/// Runs every method from the uniform policy on one random bandit, all from the same uniform numbers: where two methods
/// hold the same policy, they draw the same pairs.
///
/// The rate of the methods that do not regress is that of the settings over the reward's range, as a learning rate is that
/// was tuned, or an optimiser that divides by the size of the gradient: else smaller rewards would only be slower. The rate
/// of a regression is bound by its curvature.
pub fn race(methods: &[Method], course: Course, settings: &Settings, seed: u64) -> Result<Vec<Lap>, InputError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let reward = Array2::from_shape_simple_fn((1, course.arms), || course.scale * rng.random::<f64>());
    let bandit = Bandit::new(Array1::ones(1), reward)?;
    // [iteration, pair, (first, second, outcome)]
    let uniform = Array3::from_shape_simple_fn((course.iterations, course.pairs, 3), || rng.random::<f64>());
    methods.iter().map(|&method| lap(method, &bandit, course, settings, &uniform)).collect()
}

fn lap(
    method: Method,
    bandit: &Bandit,
    course: Course,
    settings: &Settings,
    uniform: &Array3<f64>,
) -> Result<Lap, InputError> {
    let range = bandit.range();
    let regresses = matches!(method, Method::Rebel | Method::Apa | Method::Sppo | Method::SampledDpo);
    let settings = Settings { rate: settings.rate / if regresses { 1.0 } else { range }, ..*settings };
    let regret = |pi: &Policy| (bandit.optimum() - bandit.value(pi)) / range;
    let mut policy = Tabular::new(Array2::zeros((1, course.arms)))?;
    let bound = tilt_bound(settings.eta.get() * range).sharp;
    let mut lap = Lap { method, regret: vec![regret(&policy.policy())], divergence: vec![], bound };
    for iteration in uniform.outer_iter() {
        let pi = policy.policy();
        let sampler = Sampler::new(&pi);
        let responses = iteration.slice(s![.., ..2]).mapv(|u| sampler.at(0, u)); // [pairs, 2]
        let won = |(row, &u): (ndarray::ArrayView1<usize>, &f64)| u < bradley_terry(bandit, 0, row[0], row[1]);
        let first_won = responses.outer_iter().zip(iteration.column(2)).map(won).collect();
        let draws = Draws { contexts: vec![0; course.pairs], responses, first_won };
        let round = Round::drawn(method, bandit, &pi, draws)?;
        for _ in 0..course.inner {
            policy = round.step(&policy, &settings)?;
        }
        let new = policy.policy();
        lap.divergence.push(new.kl(&pi)[0]);
        lap.regret.push(regret(&new));
    }
    Ok(lap)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COURSE: Course = Course { arms: 5, iterations: 3, pairs: 8, inner: 4, scale: 2.0 };

    #[test]
    fn race_is_a_function_of_its_seed_and_no_runner_disturbs_another() {
        let settings = Settings::standard(1.0).unwrap();
        let run = |methods: &[Method], seed| race(methods, COURSE, &settings, seed).unwrap();
        let both = run(&[Method::Rebel, Method::Ppo], 3);
        assert_eq!(both[1..], run(&[Method::Ppo], 3)[..]);
        assert_ne!(both, run(&[Method::Rebel, Method::Ppo], 4));
        assert_eq!((both[0].regret.len(), both[0].divergence.len()), (4, 3));
        assert_eq!(both[0].regret[0], both[1].regret[0]);
    }

    #[test]
    fn regret_of_the_uniform_policy_is_the_mean_gap_over_the_range() {
        let settings = Settings::standard(1.0).unwrap();
        let laps = race(&[Method::Rloo], Course { iterations: 0, ..COURSE }, &settings, 1).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let reward: Vec<f64> = (0..5).map(|_| 2.0 * rng.random::<f64>()).collect();
        let (high, low) = reward.iter().fold((0.0f64, 2.0f64), |(h, l), &r| (h.max(r), l.min(r)));
        let expected = (high - reward.iter().sum::<f64>() / 5.0) / (high - low);
        assert!((laps[0].regret[0] - expected).abs() < 1e-14 && laps[0].longest() == 0.0);
    }
}
