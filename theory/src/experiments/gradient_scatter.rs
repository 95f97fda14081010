//! Gradients of single pairs, sampled (E3.1): how far they scatter about the policy gradient under each baseline.

use super::linear::{LinearProblem, stream};
use crate::error::InputError;
use crate::solve::finite_sample::{Batch, Pairs};
use crate::solve::natural::policy_gradient;
use crate::statistics::{Estimate, mean_interval};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The trace of the covariance of one pair's gradient, sampled, with 95% t-intervals over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scatter {
    /// Added to all rewards.
    pub offset: f64,
    /// REINFORCE without a baseline.
    pub reinforce: Estimate,
    /// REBEL's paired gradient.
    pub paired: Estimate,
}

/// Draws `pairs` pairs for each of `seeds` seeds and averages the squared distance of their gradients to the exact one.
pub fn scatter(
    problem: &LinearProblem,
    offsets: &[f64],
    pairs: usize,
    seeds: usize,
    seed: u64,
) -> Result<Vec<Scatter>, InputError> {
    let LinearProblem { bandit, pi, scores, .. } = problem;
    let exact = policy_gradient(bandit, pi, scores.view());
    let one_seed = |repetition: usize| -> Result<Vec<[f64; 2]>, InputError> {
        let sample = problem.pairs(pairs, &mut stream(seed, repetition as u64 + 1));
        let one_offset = |offset: &f64| {
            let reward = bandit.reward() + *offset;
            let mut sums = [0.0; 2];
            for (x, y, z) in sample.iter() {
                let one = Pairs::new(vec![x], vec![y], vec![z], reward.dim())?;
                let one = Batch::new(&one, scores.view(), &reward, pi)?;
                let plain = one.reinforce_gradient(&one.constant_baseline(0.0)) - &exact;
                let paired = one.paired_gradient() - &exact;
                sums[0] += plain.dot(&plain);
                sums[1] += paired.dot(&paired);
            }
            Ok(sums.map(|sum| sum / pairs as f64))
        };
        offsets.iter().map(one_offset).collect()
    };
    let all = (0..seeds).into_par_iter().map(one_seed).collect::<Result<Vec<_>, _>>()?;
    let over_seeds = |i: usize, of: usize| mean_interval(&all.iter().map(|seed| seed[i][of]).collect::<Vec<_>>());
    let summary = |(i, &offset)| Scatter { offset, reinforce: over_seeds(i, 0), paired: over_seeds(i, 1) };
    Ok(offsets.iter().enumerate().map(summary).collect())
}
