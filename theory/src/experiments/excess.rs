//! Example 1 sampled: the error of REBEL's regression against pairs, features and noise (E4.1), through the threshold where
//! the pairs just determine the coefficients (E4.2), and for Gaussian designs, where it is known in closed form.

use super::linear::{LinearProblem, normals, stream};
use crate::error::InputError;
use crate::solve::excess::{Design, pair_covariance};
use crate::statistics::{Estimate, median, stratified_bootstrap};
use ndarray::{Array1, Array2};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The error of one fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// The error on fresh pairs, $$ \epsilon $$.
    pub error: f64,
    /// Its expectation over the noise, given the design.
    pub expected: f64,
    /// That expectation without noise: what the pairs leave undetermined.
    pub bias: f64,
    /// The training loss.
    pub training: f64,
    /// The number of coefficients the pairs determine.
    pub rank: usize,
}

/// Fits of `seeds` samples of each of these numbers of `pairs` with reward noise `sigma` a query, `[seeds][pairs]`.
pub fn fits(
    problem: &LinearProblem,
    pairs: &[usize],
    sigma: f64,
    seeds: usize,
    seed: u64,
) -> Result<Vec<Vec<Fit>>, InputError> {
    let LinearProblem { bandit, policy, pi, w, .. } = problem;
    let covariance = pair_covariance(bandit, pi, pi, policy.features());
    let label_variance = 2.0 * sigma * sigma;
    let one_seed = |repetition: usize| {
        let mut rng = stream(seed, repetition as u64 + 1);
        let one_size = |&n: &usize| {
            let sample = problem.pairs(n, &mut rng);
            let design = Design::new(sample.design(policy.features().view()))?;
            let noise: Array1<f64> = normals(n, &mut rng) * label_variance.sqrt();
            let labels = sample.differences(bandit.reward()) + noise;
            let fit = design.fit(&labels)?;
            let residual = design.rows().dot(&fit) - &labels;
            let excess = design.expected_excess(&covariance, w, label_variance);
            let (training, rank) = (residual.dot(&residual) / n as f64, design.rank());
            Ok(Fit { error: problem.error(&fit), expected: excess.total(), bias: excess.bias, training, rank })
        };
        pairs.iter().map(one_size).collect()
    };
    (0..seeds).into_par_iter().map(one_seed).collect()
}

/// The expected error of a fit to `pairs` standard normal rows of `features` entries with label noise of variance 1, given
/// each of `seeds` designs; its mean is $$ d/(N-d-1) $$ for `N > d + 1`.
pub fn gaussian_design(features: usize, pairs: usize, seeds: usize, seed: u64) -> Result<Vec<f64>, InputError> {
    let identity = Array2::eye(features);
    let one_seed = |repetition: usize| {
        let rows = normals((pairs, features), &mut stream(seed, repetition as u64 + 1));
        Ok(Design::new(rows)?.amplification(&identity))
    };
    (0..seeds).into_par_iter().map(one_seed).collect()
}

/// The share of the squared length of coefficients that fewer Gaussian rows than features leave undetermined, for each of
/// `seeds` designs; its mean is $$ 1-N/d $$.
pub fn undetermined(features: usize, pairs: usize, seeds: usize, seed: u64) -> Result<Vec<f64>, InputError> {
    let identity = Array2::eye(features);
    let one_seed = |repetition: usize| {
        let mut rng = stream(seed, repetition as u64 + 1);
        let design = Design::new(normals((pairs, features), &mut rng))?;
        let w: Array1<f64> = normals(features, &mut rng);
        Ok(design.expected_excess(&identity, &w, 0.0).bias / w.dot(&w))
    };
    (0..seeds).into_par_iter().map(one_seed).collect()
}

/// One number of pairs on the way through the threshold: medians over designs, whose mean is infinite at the threshold
/// itself, with 95% bootstrap intervals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// Number of pairs.
    pub pairs: usize,
    /// The expected error with noise.
    pub noisy: Estimate,
    /// The error without noise, of the fit that was run.
    pub noise_free: Estimate,
    /// The share of designs that determine every coefficient.
    pub determined: f64,
}

/// The errors of [`fits`] with and without noise against the number of pairs, through the number of features.
pub fn threshold(
    problem: &LinearProblem,
    pairs: &[usize],
    sigma: f64,
    seeds: usize,
    seed: u64,
) -> Result<Vec<Threshold>, InputError> {
    let noisy = fits(problem, pairs, sigma, seeds, seed)?;
    let clean = fits(problem, pairs, 0.0, seeds, seed)?;
    let middle = |all: &[Vec<Fit>], i: usize, number: fn(&Fit) -> f64| {
        let values = all.iter().map(|seed| number(&seed[i])).collect::<Vec<_>>();
        stratified_bootstrap(&[values], |strata| median(&strata[0]), 1000, seed)
    };
    let summary = |(i, &pairs): (usize, &usize)| {
        let full = clean.iter().filter(|seed| seed[i].rank == problem.w.len()).count();
        Ok(Threshold {
            pairs,
            noisy: middle(&noisy, i, |fit| fit.expected)?,
            noise_free: middle(&clean, i, |fit| fit.error)?,
            determined: full as f64 / seeds as f64,
        })
    };
    pairs.iter().enumerate().map(summary).collect()
}
