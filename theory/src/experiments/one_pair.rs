//! What a batch buys (experiment N5.5): iterations and reward queries until one better arm is found, by tabular REBEL and by
//! the plain policy gradient on the same batches.
//!
//! Rewards are seen without noise. With one pair an iteration REBEL *is* RLOO with two responses; only a batch that covers
//! the arms lets it solve for their rewards, and a batch costs queries.

use crate::bandit::Policy;
use crate::error::{self, InputError};
use crate::sample::Sampler;
use ndarray::{Array1, Axis};
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Reward of the better arm.
const HIGH: f64 = 0.75;
/// Reward of every other arm.
const LOW: f64 = 0.25;
/// Regret at which the arm counts as found.
const GOAL: f64 = 0.1;
/// Iterations after which a run is given up.
const PATIENCE: usize = 100_000;

/// How a batch of pairs `(y, y')`, `y ~ pi_t`, becomes a change of the logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Learner {
    /// REBEL's regression, `y' ~ pi_t`: the least-norm solution of the batch's reward differences.
    RebelOnPolicy,
    /// The same with `y'` uniform over the arms.
    RebelUniform,
    /// RLOO with two responses: the mean of $$ \tfrac12(r-r')(e_y-e_{y'}) $$, `y' ~ pi_t`.
    Rloo,
}

/// When a run arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Batches drawn.
    pub iterations: usize,
    /// Rewards asked for: two a pair.
    pub queries: usize,
}

/// The race: one arm of `arms` pays .75, the others .25; the logits start equal and move by `eta` times what the learner makes
/// of each batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Race {
    arms: usize,
    learner: Learner,
    pairs: usize,
    eta: f64,
}

impl Race {
    /// A race of at least two arms, with at least one pair a batch.
    pub fn new(arms: usize, learner: Learner, pairs: usize, eta: f64) -> Result<Self, InputError> {
        if arms < 2 {
            return Err(InputError::Domain { argument: "arms", value: arms as f64, expected: "at least two arms" });
        }
        if pairs == 0 {
            return Err(InputError::Empty { argument: "pairs" });
        }
        Ok(Self { arms, learner, pairs, eta: error::positive("eta", eta)? })
    }

    /// Runs until the regret of the policy is at most .1.
    pub fn run(&self, rng: &mut impl Rng) -> Arrival {
        let mut logits = Array1::zeros(self.arms);
        let mut iterations = 0;
        while (HIGH - LOW) * (1.0 - chance_of_first(&logits)) > GOAL && iterations < PATIENCE {
            let pairs = self.draw(&logits, rng);
            logits += &(self.change(&pairs) * self.eta);
            iterations += 1;
        }
        Arrival { iterations, queries: 2 * self.pairs * iterations }
    }

    fn draw(&self, logits: &Array1<f64>, rng: &mut impl Rng) -> Vec<(usize, usize)> {
        let sampler = Sampler::new(&Policy::from_logits(&logits.view().insert_axis(Axis(0)).to_owned()));
        let pair = |_| {
            let y = sampler.draw(0, rng);
            let other = match self.learner {
                Learner::RebelUniform => rng.random_range(0..self.arms),
                Learner::RebelOnPolicy | Learner::Rloo => sampler.draw(0, rng),
            };
            (y, other)
        };
        (0..self.pairs).map(pair).collect()
    }

    /// What a batch changes, for `eta = 1` `[y]`.
    fn change(&self, pairs: &[(usize, usize)]) -> Array1<f64> {
        match self.learner {
            Learner::RebelOnPolicy | Learner::RebelUniform => least_norm(self.arms, pairs),
            Learner::Rloo => {
                let mut gradient = Array1::zeros(self.arms);
                for &(y, z) in pairs {
                    let difference = (reward(y) - reward(z)) / 2.0;
                    gradient[y] += difference;
                    gradient[z] -= difference;
                }
                gradient / pairs.len() as f64
            }
        }
    }
}

fn reward(y: usize) -> f64 {
    if y == 0 { HIGH } else { LOW }
}

fn chance_of_first(logits: &Array1<f64>) -> f64 {
    let top = logits.fold(f64::NEG_INFINITY, |m, &s| m.max(s));
    let total: f64 = logits.iter().map(|s| (s - top).exp()).sum();
    (logits[0] - top).exp() / total
}

/// The solution of least norm of $$ w_y-w_{y'}=r(y)-r(y') $$ over the pairs `[y]`.
///
/// The equations are consistent, so it is the reward minus its mean within each group of arms that pairs connect, and zero
/// for an arm that none touches.
fn least_norm(arms: usize, pairs: &[(usize, usize)]) -> Array1<f64> {
    let mut group: Vec<usize> = (0..arms).collect();
    for &(y, z) in pairs {
        let (a, b) = (root(&mut group, y), root(&mut group, z));
        group[a] = b;
    }
    let roots: Vec<usize> = (0..arms).map(|y| root(&mut group, y)).collect();
    let (mut sum, mut size) = (vec![0.0; arms], vec![0.0; arms]);
    for (y, &root) in roots.iter().enumerate() {
        sum[root] += reward(y);
        size[root] += 1.0;
    }
    Array1::from_shape_fn(arms, |y| reward(y) - sum[roots[y]] / size[roots[y]])
}

/// The arm that stands for the group of `y`, paths shortened on the way.
fn root(group: &mut [usize], mut y: usize) -> usize {
    while group[y] != y {
        group[y] = group[group[y]];
        y = group[y];
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::linear::least_squares;
    use approx::assert_abs_diff_eq;
    use ndarray::Array2;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn group_means_solve_the_regression_of_a_batch() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for pairs in 1..9 {
            let race = Race::new(6, Learner::RebelUniform, pairs, 1.0).unwrap();
            let batch = race.draw(&Array1::zeros(6), &mut rng);
            let mut design = Array2::zeros((pairs, 6));
            let mut target = Array1::zeros(pairs);
            for (i, &(y, z)) in batch.iter().enumerate() {
                design[[i, y]] += 1.0;
                design[[i, z]] -= 1.0;
                target[i] = reward(y) - reward(z);
            }
            let expected = least_squares(&design, &target).unwrap().solution;
            assert_abs_diff_eq!(race.change(&batch), expected, epsilon = 1e-12);
        }
    }

    #[test]
    fn one_pair_of_rebel_is_one_pair_of_rloo() {
        let run = |learner| Race::new(8, learner, 1, 0.7).unwrap().run(&mut ChaCha8Rng::seed_from_u64(9));
        assert_eq!(run(Learner::RebelOnPolicy), run(Learner::Rloo));
        let batch = [(0, 3)];
        let change = |learner| Race::new(8, learner, 1, 0.7).unwrap().change(&batch);
        assert_abs_diff_eq!(change(Learner::RebelOnPolicy), change(Learner::Rloo), epsilon = 1e-16);
    }

    #[test]
    fn race_that_cannot_be_run_is_refused() {
        assert!(Race::new(1, Learner::Rloo, 1, 1.0).is_err() && Race::new(2, Learner::Rloo, 0, 1.0).is_err());
        assert!(Race::new(2, Learner::Rloo, 1, -1.0).is_err());
    }
}
