//! REBEL as a bandit algorithm: regret against reward queries, beside algorithms made for bandits (theory 5.2 (ii), (iii);
//! E5.7, N5.5 to N5.7).
//!
//! Every algorithm is charged for each reward it queries. The step sizes of REBEL and RLOO are chosen in hindsight from five
//! values, once for the regret of the last policy and once for the paid regret; the others are as published.

use super::sampled_regret::Problem;
use super::stream;
use crate::bandit::Policy;
use crate::error::InputError;
use crate::players::batch::{BatchPlayer, Rloo};
use crate::players::{Exp3, Explore, LinUcb, Play, Regrets, Ucb1, play};
use crate::solve::trajectory::{Rebel, SecondLaw};
use crate::statistics::{Estimate, mean, mean_interval};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The algorithms compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// REBEL, the second response uniform.
    RebelUniform,
    /// REBEL, both responses on policy.
    RebelOnPolicy,
    /// Policy gradient on the same batches.
    Rloo,
    /// Policy gradient with one pair an iteration.
    RlooOnePair,
    /// EXP3 in each context.
    Exp3,
    /// UCB1 in each context.
    Ucb1,
    /// LinUCB.
    LinUcb,
    /// Uniform queries, then the best of the fit.
    Explore,
}

impl Algorithm {
    /// The step sizes it is tuned over; one number that means nothing for those without.
    pub fn steps(self) -> &'static [f64] {
        match self {
            Self::RebelUniform | Self::RebelOnPolicy | Self::RlooOnePair => &[0.1, 0.3, 1.0, 3.0, 10.0],
            Self::Rloo => &[1.0, 3.0, 10.0, 30.0, 100.0],
            _ => &[1.0],
        }
    }
}

/// A problem and how many pairs a batch has.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The bandit and the predictors.
    pub problem: Problem,
    /// Pairs an iteration of REBEL and RLOO.
    pub pairs: usize,
}

impl Task {
    /// `arms` arms of mean .4, one better by `gap`; at least 50 and at least two pairs an arm.
    pub fn arms(arms: usize, gap: f64) -> Result<Self, InputError> {
        Ok(Self { problem: Problem::arms(arms, 0.4, gap)?, pairs: 50.max(2 * arms) })
    }

    /// The contextual problem of [`Problem::contextual`], 50 pairs.
    pub fn contextual(misfit: f64) -> Result<Self, InputError> {
        Ok(Self { problem: Problem::contextual(misfit)?, pairs: 50 })
    }

    /// The regrets of one run at each of the increasing `checkpoints`, with step size `eta` where the algorithm has one.
    pub fn regrets(
        &self,
        algorithm: Algorithm,
        eta: f64,
        checkpoints: &[usize],
        rng: &ChaCha8Rng,
    ) -> Result<Vec<Regrets>, InputError> {
        let Problem { env, class } = &self.problem;
        let (contexts, arms) = (class.contexts(), class.responses());
        let start = || Play::new(env, rng.clone());
        let rebel = |second: &SecondLaw| {
            let rebel = Rebel::new(env.bandit().weights(), class, second, eta, 0.0)?;
            BatchPlayer::rebel(rebel, self.pairs).play(&mut start(), checkpoints)
        };
        let rloo = |pairs| BatchPlayer::rloo(Rloo::new(class, eta)?, pairs).play(&mut start(), checkpoints);
        match algorithm {
            Algorithm::RebelUniform => rebel(&self.problem.uniform()),
            Algorithm::RebelOnPolicy => rebel(&SecondLaw::Current),
            Algorithm::Rloo => rloo(self.pairs),
            Algorithm::RlooOnePair => rloo(1),
            Algorithm::Ucb1 => Ok(play(&mut Ucb1::new(contexts, arms), &mut start(), checkpoints)),
            Algorithm::LinUcb => Ok(play(&mut LinUcb::new(class, 1.0, 1.0)?, &mut start(), checkpoints)),
            Algorithm::Explore => Ok(play(&mut Explore::new(class), &mut start(), checkpoints)),
            // Its step depends on when it will stop: a run for each checkpoint.
            Algorithm::Exp3 => checkpoints
                .iter()
                .map(|&checkpoint| {
                    let pulls = checkpoint as f64 / contexts as f64;
                    let eta = (2.0 * (arms as f64).ln() / (pulls * arms as f64)).sqrt();
                    Ok(play(&mut Exp3::new(contexts, arms, eta)?, &mut start(), &[checkpoint])[0])
                })
                .collect(),
        }
    }

    /// As [`Self::regrets`] for `runs` runs of seed `seed`, `[run][checkpoint]`.
    pub fn all_regrets(
        &self,
        algorithm: Algorithm,
        eta: f64,
        checkpoints: &[usize],
        (runs, seed): (u64, u64),
    ) -> Result<Vec<Vec<Regrets>>, InputError> {
        (0..runs).into_par_iter().map(|n| self.regrets(algorithm, eta, checkpoints, &stream(seed, n))).collect()
    }

    /// The regrets of `runs` runs at each of the increasing `checkpoints`, the step size chosen in hindsight for each
    /// number by itself.
    pub fn curve(
        &self,
        algorithm: Algorithm,
        checkpoints: &[usize],
        (runs, seed): (u64, u64),
    ) -> Result<Vec<Point>, InputError> {
        let of_step = |&eta: &f64| self.all_regrets(algorithm, eta, checkpoints, (runs, seed));
        let by_step: Vec<_> = algorithm.steps().iter().map(of_step).collect::<Result<_, _>>()?;
        let least = |c: usize, number: fn(&Regrets) -> f64| {
            let sample = |all: &Vec<Vec<Regrets>>| all.iter().map(|run| number(&run[c])).collect::<Vec<f64>>();
            let samples = by_step.iter().map(sample);
            let best = samples.min_by(|a, b| mean(a).total_cmp(&mean(b))).expect("at least one step size");
            mean_interval(&best)
        };
        let point = |(c, &queries): (usize, &usize)| Point {
            queries,
            last: least(c, |regrets| regrets.last),
            paid: least(c, |regrets| regrets.paid),
        };
        Ok(checkpoints.iter().enumerate().map(point).collect())
    }
}

/// Regrets at a number of queries, means over runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Rewards queried.
    pub queries: usize,
    /// Regret of the last policy.
    pub last: Estimate,
    /// Mean gap of all responses queried.
    pub paid: Estimate,
}

/// A way to spend queries until the regret is small (N5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// REBEL with one on-policy pair an iteration, which is RLOO with one pair.
    OnePair,
    /// RLOO with `2 K ln K` pairs.
    RlooBatch,
    /// REBEL with `2 K ln K` pairs, the second response uniform.
    RebelUniform,
    /// REBEL with `K` pairs, both on policy.
    RebelOnPolicy,
}

/// Iterations, and queries, until the regret of the policy is at most .1, for steps of size 1 on `arms` arms of which one
/// pays .75 and the others .25 (N5.5); without noise a query answers with the mean. Gives up after 100 000 iterations.
pub fn iterations_to_reach(arms: usize, way: Way, noisy: bool, rng: ChaCha8Rng) -> Result<(usize, usize), InputError> {
    let problem = Problem::arms(arms, 0.25, 0.5)?;
    let Problem { env, class } = &problem;
    let many = (2.0 * arms as f64 * (arms as f64).ln()).round() as usize;
    let (second, pairs) = match way {
        Way::OnePair => (SecondLaw::Current, 1),
        Way::RlooBatch => (SecondLaw::Current, many),
        Way::RebelUniform => (problem.uniform(), many),
        Way::RebelOnPolicy => (SecondLaw::Current, arms),
    };
    let mut player = match way {
        Way::RlooBatch => BatchPlayer::rloo(Rloo::new(class, 1.0)?, pairs),
        _ => BatchPlayer::rebel(Rebel::new(env.bandit().weights(), class, &second, 1.0, 0.0)?, pairs),
    };
    let mut play = if noisy { Play::new(env, rng) } else { Play::noiseless(env, rng) };
    let mut iterations = 0;
    while env.regret(player.policy()) > 0.1 && iterations < 100_000 {
        player.iterate(&mut play)?;
        iterations += 1;
    }
    Ok((iterations, play.queries()))
}

/// The share of `runs` runs of tabular REBEL whose most likely arm after `iterations` iterations is not the best of 10
/// arms, a gap of .2 above the others (N5.6): with `second` on policy and large steps it commits before it knows.
pub fn wrong_share(
    (pairs, eta): (usize, f64),
    on_policy: bool,
    iterations: usize,
    (runs, seed): (u64, u64),
) -> Result<f64, InputError> {
    let problem = Problem::arms(10, 0.4, 0.2)?;
    let second = if on_policy { SecondLaw::Current } else { problem.uniform() };
    let one = |n: u64| {
        let rebel = Rebel::new(problem.env.bandit().weights(), &problem.class, &second, eta, 0.0)?;
        let mut player = BatchPlayer::rebel(rebel, pairs);
        let mut play = Play::new(&problem.env, stream(seed, n));
        (0..iterations).try_for_each(|_| player.iterate(&mut play))?;
        Ok::<_, InputError>(crate::bandit::best_responses(player.policy().prob()) != problem.env.bandit().best())
    };
    let wrong: Vec<bool> = (0..runs).into_par_iter().map(one).collect::<Result<_, _>>()?;
    Ok(wrong.iter().filter(|w| **w).count() as f64 / runs as f64)
}

/// Smallest and last regret of a run of on-policy REBEL with exact regression on noisy rewards (N5.7).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trap {
    /// Smallest regret of any policy of the run.
    pub best: f64,
    /// Regret of the last.
    pub last: f64,
}

/// `runs` runs of `queries` queries on the contextual problem with 50 pairs an iteration: as the policy concentrates, the
/// directions no longer sampled are left to the noise, unless a `ridge` holds them or `second` covers them.
pub fn concentration_trap(
    second: &SecondLaw,
    eta: f64,
    ridge: f64,
    queries: usize,
    (runs, seed): (u64, u64),
) -> Result<Vec<Trap>, InputError> {
    let Problem { env, class } = Problem::contextual(0.0)?;
    let one = |n: u64| {
        let rebel = Rebel::new(env.bandit().weights(), &class, second, eta, ridge)?;
        let mut player = BatchPlayer::rebel(rebel, 50);
        let mut play = Play::new(&env, stream(seed, n));
        let regret = |pi: &Policy| env.regret(pi);
        let mut best = regret(player.policy());
        while play.queries() < queries {
            player.iterate(&mut play)?;
            best = best.min(regret(player.policy()));
        }
        Ok(Trap { best, last: regret(player.policy()) })
    };
    (0..runs).into_par_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_is_charged_for_as_many_queries_as_it_was_given() {
        let task = Task::arms(5, 0.2).unwrap();
        for algorithm in [Algorithm::RebelUniform, Algorithm::Rloo, Algorithm::Exp3, Algorithm::Explore] {
            let curve = task.curve(algorithm, &[200, 400], (4, 0)).unwrap();
            assert_eq!(curve.iter().map(|p| p.queries).collect::<Vec<_>>(), [200, 400]);
            // the mean gap of a uniform query is .16
            assert!(curve.iter().all(|p| p.paid.value > 0.01 && p.paid.value < 0.18), "{algorithm:?}: {curve:?}");
        }
    }

    #[test]
    fn one_pair_takes_more_iterations_and_fewer_queries() {
        let reach = |way| iterations_to_reach(16, way, false, stream(1, 0)).unwrap();
        let (one, rebel) = (reach(Way::OnePair), reach(Way::RebelUniform));
        assert!(one.0 > 2 * rebel.0 && 2 * one.1 < rebel.1, "{one:?} {rebel:?}");
        assert_eq!(one.1, 2 * one.0);
    }
}
