//! Where the held-out loss misleads (N4.2): each failure with the number it gives and the number that is right.

use super::linear::{LinearProblem, normals, stream};
use super::pair_loss::{Setup, fitted, held_out};
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::policy::Softmax;
use crate::solve::decomposition::pair_error;
use crate::solve::estimation::{DrawnPairs, HeldOut};
use crate::solve::excess::{Design, pair_covariance};
use crate::solve::mirror::tilt;
use crate::solve::regression::{PairLaw, gauss_newton_step};
use crate::statistics::{Estimate, mean, mean_interval, standard_error};
use ndarray::{Array1, Array2};
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// A number that is read and the number it should be; means over seeds with 95% t-intervals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// What the mistake gives.
    pub wrong: Estimate,
    /// What the remedy gives.
    pub right: Estimate,
    /// What both estimate.
    pub truth: Estimate,
}

/// Means of `wrong`, `right`, `truth` over seeds.
fn reading(all: &[[f64; 3]]) -> Reading {
    let over_seeds = |i: usize| mean_interval(&all.iter().map(|seed| seed[i]).collect::<Vec<_>>());
    Reading { wrong: over_seeds(0), right: over_seeds(1), truth: over_seeds(2) }
}

/// (i) Noise with correlation `q` between the two responses of a pair, as of one noisy scorer call a prompt: it cancels in
/// differences. Subtracting twice the noise of a single query misses the error; two labels a pair do not.
pub fn shared_noise(problem: &LinearProblem, pairs: usize, q: f64, setup: Setup) -> Result<Reading, InputError> {
    let single = setup.sigma * setup.sigma;
    let label_variance = 2.0 * single * (1.0 - q);
    let one_seed = |repetition: usize| {
        let mut rng = stream(setup.seed, repetition as u64 + 1);
        let (w, ..) = fitted(problem, pairs, label_variance, &mut rng)?;
        let outside = held_out(problem, &w, setup.held_out, label_variance, &mut rng);
        Ok([outside.loss - 2.0 * single, outside.two_labels, problem.error(&w)])
    };
    Ok(reading(&(0..setup.seeds).into_par_iter().map(one_seed).collect::<Result<Vec<_>, InputError>>()?))
}

/// (ii) Errors against a frozen reward model and against the reward it stands for, of the population's fits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FrozenError {
    /// A table's error against the model: what held-out labels of the model show.
    pub table_seen: f64,
    /// The same table's error against the true reward: that of the model itself.
    pub table_true: f64,
    /// A log-linear fit's error against the model.
    pub linear_seen: f64,
    /// The same fit's error against the true reward.
    pub linear_true: f64,
}

/// (ii) The reward model errs by `scale` times a standard normal number on each context and response, for ever. What
/// labels of the model show has nothing to do with the error against the true reward, in either direction.
pub fn frozen_model(problem: &LinearProblem, scale: f64, seed: u64) -> Result<FrozenError, InputError> {
    let LinearProblem { bandit, policy, pi, scores, .. } = problem;
    let wrong: Array2<f64> = normals(bandit.reward().raw_dim(), &mut stream(seed, 1)) * scale;
    let model = bandit.with_reward(bandit.reward() + &wrong)?;
    let law = PairLaw::independent(pi, pi);
    let fit = policy.at(gauss_newton_step(&model, &law, scores.view(), 1.0)?.solution.view()).logits();
    let error = |predictor: &Array2<f64>, truth: &Bandit| {
        pair_error(bandit.weights(), pi, pi, &(predictor - truth.reward())).total()
    };
    Ok(FrozenError {
        table_seen: error(model.reward(), &model),
        table_true: error(model.reward(), bandit),
        linear_seen: error(&fit, &model),
        linear_true: error(&fit, bandit),
    })
}

/// (iii) All pairs of `k` draws a prompt: what that does to both losses and to standard errors.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SharedDraws {
    /// The training loss over $$ s^2(1-d/(n(k-1))) $$, with noise averaged out: 1 exactly.
    pub in_sample_identity: f64,
    /// The expected error over $$ \tfrac k2s^2\,\mathrm{tr}\,\Sigma(U^\top U)^+ $$: 1 exactly.
    pub excess_identity: f64,
    /// The training loss over $$ s^2(1-d/N) $$ with `N` all pairs: below 1.
    pub in_sample_naive: f64,
    /// The standard deviation over seeds of the held-out loss about $$ s^2+\epsilon $$.
    pub deviation: f64,
    /// The mean of its standard error as if pairs were independent.
    pub naive_error: f64,
    /// The mean of its standard error clustered by prompt.
    pub clustered_error: f64,
    /// The held-out loss less $$ s^2+\epsilon $$: still 0 in expectation.
    pub unexplained: Estimate,
}

/// `k` draws of each of `n` prompts in all pairs.
fn prompts(problem: &LinearProblem, n: usize, k: usize, rng: &mut impl rand::Rng) -> Result<DrawnPairs, InputError> {
    let (mut x, mut y, mut i, mut j) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for prompt in 0..n {
        let context = problem.context(rng);
        for first in 0..k {
            x.push(context);
            y.push(problem.response(context, rng));
            for second in first + 1..k {
                i.push(prompt * k + first);
                j.push(prompt * k + second);
            }
        }
    }
    DrawnPairs::new(&x, &y, i, j, problem.bandit.reward().dim())
}

/// (iii) Trains and holds out `train` and `setup.held_out` prompts with all pairs of `k` draws. The reward must be one that
/// the features express.
pub fn shared_draws(problem: &LinearProblem, train: usize, k: usize, setup: Setup) -> Result<SharedDraws, InputError> {
    let LinearProblem { bandit, policy, pi, .. } = problem;
    let label_variance = 2.0 * setup.sigma * setup.sigma;
    let covariance = pair_covariance(bandit, pi, pi, policy.features());
    let one_seed = |repetition: usize| {
        let mut rng = stream(setup.seed, repetition as u64 + 1);
        let sample = prompts(problem, train, k, &mut rng)?;
        let design = Design::new(sample.pairs().design(policy.features().view()))?;
        let clean = sample.pairs().differences(bandit.reward());
        let noise = |pairs: &DrawnPairs, rng: &mut rand_chacha::ChaCha8Rng| {
            pairs.differences(&(normals::<usize>(pairs.draws(), rng) * setup.sigma))
        };
        let w = design.fit(&(&clean + &noise(&sample, &mut rng)?))?;
        let (pairs, rank) = (design.pairs() as f64, design.rank() as f64);
        let effective = (train * (k - 1)) as f64;
        let in_sample = sample.in_sample_expected(&design, &clean, setup.sigma);
        let excess = sample.noise_excess(&design, &covariance, setup.sigma);
        let fresh = prompts(problem, setup.held_out, k, &mut rng)?;
        let errors = fresh.pairs().differences(&problem.deviation(&w)) - noise(&fresh, &mut rng)?;
        let outside = HeldOut::new(&errors, &errors, &fresh.clusters());
        Ok([
            in_sample / (label_variance * (1.0 - rank / effective)),
            excess / (0.5 * k as f64 * label_variance * design.amplification(&covariance)),
            in_sample / (label_variance * (1.0 - rank / pairs)),
            outside.loss - label_variance - problem.error(&w),
            outside.naive_error,
            outside.clustered_error,
        ])
    };
    let all = (0..setup.seeds).into_par_iter().map(one_seed).collect::<Result<Vec<_>, InputError>>()?;
    let of = |i: usize| all.iter().map(|seed| seed[i]).collect::<Vec<_>>();
    // Of the ratios that are 1 exactly, the one that is not the most.
    let farthest =
        |i: usize| of(i).into_iter().fold(1.0, |m: f64, v| if (v - 1.0).abs() > (m - 1.0).abs() { v } else { m });
    let unexplained = of(3);
    Ok(SharedDraws {
        in_sample_identity: farthest(0),
        excess_identity: farthest(1),
        in_sample_naive: mean(&of(2)),
        deviation: standard_error(&unexplained) * (setup.seeds as f64).sqrt(),
        naive_error: mean(&of(4)),
        clustered_error: mean(&of(5)),
        unexplained: mean_interval(&unexplained),
    })
}

/// (iv) Splits the pairs of `n` prompts of `k` draws into two random halves, so that draws, and their noise, stand on both
/// sides: the held-out loss is too low. Splitting prompts is right. The truth is $$ s^2+\epsilon $$ of the wrong split's fit;
/// the right one's loss is given relative to its own.
pub fn split_pairs(problem: &LinearProblem, n: usize, k: usize, setup: Setup) -> Result<Reading, InputError> {
    let LinearProblem { bandit, policy, .. } = problem;
    let label_variance = 2.0 * setup.sigma * setup.sigma;
    let one_seed = |repetition: usize| {
        let mut rng = stream(setup.seed, repetition as u64 + 1);
        let sample = prompts(problem, n, k, &mut rng)?;
        let design = sample.pairs().design(policy.features().view());
        let noise = normals::<usize>(sample.draws(), &mut rng) * setup.sigma;
        let labels = sample.pairs().differences(bandit.reward()) + sample.differences(&noise)?;
        let count = labels.len();
        let mut order: Vec<usize> = (0..count).collect();
        order.shuffle(&mut rng);
        let by_pair = half_and_half(&design, &labels, &order)?;
        let by_prompt = half_and_half(&design, &labels, &(0..count).collect::<Vec<_>>())?;
        let truth = |w: &Array1<f64>| label_variance + problem.error(w);
        let shifted = by_prompt.1 - truth(&by_prompt.0) + truth(&by_pair.0);
        Ok([by_pair.1, shifted, truth(&by_pair.0)])
    };
    Ok(reading(&(0..setup.seeds).into_par_iter().map(one_seed).collect::<Result<Vec<_>, InputError>>()?))
}

/// Fits the first half of the pairs in this order: the coefficients, and the loss on the other half.
fn half_and_half(
    design: &Array2<f64>,
    labels: &Array1<f64>,
    order: &[usize],
) -> Result<(Array1<f64>, f64), InputError> {
    let (train, fresh) = order.split_at(order.len() / 2);
    let rows = |of: &[usize]| design.select(ndarray::Axis(0), of);
    let values = |of: &[usize]| labels.select(ndarray::Axis(0), of);
    let w = Design::new(rows(train))?.fit(&values(train))?;
    let error = rows(fresh).dot(&w) - values(fresh);
    let loss = error.dot(&error) / fresh.len() as f64;
    Ok((w, loss))
}

/// (v) Errors of a fit to `pairs` noisy pairs on the pairs it was fitted for and on pairs of the policy it makes, `[2]`, one
/// a seed; no sampling but the fit's.
pub fn after_the_update(
    problem: &LinearProblem,
    pairs: usize,
    eta: f64,
    setup: Setup,
) -> Result<Vec<[f64; 2]>, InputError> {
    let label_variance = 2.0 * setup.sigma * setup.sigma;
    let one_seed = |repetition: usize| {
        let (w, ..) = fitted(problem, pairs, label_variance, &mut stream(setup.seed, repetition as u64 + 1))?;
        let next = problem.policy.moved(&(&w * eta)).policy();
        let after = pair_error(problem.bandit.weights(), &next, &next, &problem.deviation(&w)).total();
        Ok([problem.error(&w), after])
    };
    (0..setup.seeds).into_par_iter().map(one_seed).collect()
}

/// (vi) The lowest of `checkpoints` held-out losses of one fit to `pairs` pairs, each on fresh pairs, beside a single one:
/// the truth is $$ s^2+\epsilon $$.
pub fn lowest_checkpoint(
    problem: &LinearProblem,
    pairs: usize,
    checkpoints: usize,
    setup: Setup,
) -> Result<Reading, InputError> {
    let label_variance = 2.0 * setup.sigma * setup.sigma;
    let one_seed = |repetition: usize| {
        let mut rng = stream(setup.seed, repetition as u64 + 1);
        let (w, ..) = fitted(problem, pairs, label_variance, &mut rng)?;
        let mut loss = || held_out(problem, &w, setup.held_out, label_variance, &mut rng).loss;
        let first = loss();
        let lowest = (1..checkpoints).map(|_| loss()).fold(first, f64::min);
        Ok([lowest, first, label_variance + problem.error(&w)])
    };
    Ok(reading(&(0..setup.seeds).into_par_iter().map(one_seed).collect::<Result<Vec<_>, InputError>>()?))
}

/// The null loss $$ E(r-r')^2 $$ on pairs of the policy after each number of exact steps of size `eta`, `[steps+1]`: it falls
/// because the policy concentrates, with a predictor that learned nothing.
pub fn null_loss_along_tilts(bandit: &Bandit, start: &Policy, eta: f64, steps: usize) -> Vec<f64> {
    let mut pi = start.clone();
    let mut losses = Vec::with_capacity(steps + 1);
    for step in 0..=steps {
        losses.push(pair_error(bandit.weights(), &pi, &pi, bandit.reward()).total());
        if step < steps {
            pi = tilt(&pi, bandit.reward(), eta);
        }
    }
    losses
}
