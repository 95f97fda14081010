//! Rewards compose: a score of the finished trajectory, then what is done to it, in a stated order.

use crate::Result;
use crate::world::Trajectory;

/// Judges finished trajectories: a table, a reward model, a known rule.
pub trait Score<R> {
    /// The score of each trajectory, in order.
    fn score(&mut self, trajectories: &[&Trajectory<R>]) -> Result<Vec<f64>>;

    /// How many trajectories it has judged so far: what experiments are charged for.
    fn queries(&self) -> u64;
}

/// What is done to a score before it is a reward.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Recipe {
    /// Replaces the score of a trajectory that did not end by itself (-1 in the published language runs).
    pub missing_eos: Option<f64>,
    /// Takes off this many times the trajectory's own estimate of `KL(pi_t || pi_ref)`; 0.05 in the published TL;DR runs.
    pub kl: f64,
}

/// A reward and how it came about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rewarded {
    /// What the scorer said.
    pub raw: f64,
    /// The same after the replacement for a missing EOS.
    pub score: f64,
    /// The trajectory's log-ratio to the reference, nats.
    pub kl: f64,
    /// `score - coefficient * kl`: what is regressed on.
    pub reward: f64,
}

impl Recipe {
    /// The reward of `trajectory`, whose scorer said `raw`.
    pub fn apply<R>(&self, raw: f64, trajectory: &Trajectory<R>) -> Rewarded {
        let score = self.missing_eos.filter(|_| !trajectory.ended).unwrap_or(raw);
        let kl = trajectory.kl();
        Rewarded { raw, score, kl, reward: score - self.kl * kl }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trajectory(ended: bool) -> Trajectory<()> {
        let (old, reference) = (vec![-1.0, -2.0], vec![-1.5, -3.5]);
        Trajectory { prompt: 0, sample: 0, record: (), steps: 2, old, reference, ended }
    }

    #[test]
    fn missing_eos_replaces_the_score_and_kl_is_taken_off_afterwards() {
        let recipe = Recipe { missing_eos: Some(-1.0), kl: 0.05 };
        let done = recipe.apply(3.0, &trajectory(true));
        assert_eq!((done.raw, done.score, done.kl), (3.0, 3.0, 2.0));
        assert!((done.reward - 2.9).abs() < 1e-15);
        let cut = recipe.apply(3.0, &trajectory(false));
        assert!((cut.reward + 1.1).abs() < 1e-15);
    }
}
