//! What to log (E4.3): training loss, held-out pair loss and the error itself against the number of training pairs, and the
//! estimators of the error that held-out labels allow.

use super::linear::{LinearProblem, normals, stream};
use crate::error::InputError;
use crate::solve::estimation::{ErrorMoments, HeldOut, corrected_by_training};
use crate::solve::excess::Design;
use crate::statistics::{Estimate, mean_interval};
use ndarray::Array1;
use rand::Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// A row of the table: means over seeds with 95% t-intervals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Training pairs, `N`.
    pub pairs: usize,
    /// Training loss.
    pub in_sample: Estimate,
    /// Its expectation for a reward that the class expresses: $$ s^2(1-d/N) $$
    pub in_sample_expected: f64,
    /// Held-out loss.
    pub held_out: Estimate,
    /// The error on fresh pairs, exact for each fit.
    pub error: Estimate,
    /// Held-out loss less $$ s^2+\epsilon $$ of the same fit: 0 in expectation.
    pub unexplained: Estimate,
    /// The estimate of the error by two labels a pair.
    pub two_labels: Estimate,
    /// The estimate by both losses; none where the fit interpolates.
    pub corrected: Option<Estimate>,
}

/// Draws that every row shares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setup {
    /// Standard deviation of the noise of one reward query; $$ s^2=2\sigma^2 $$
    pub sigma: f64,
    /// Held-out pairs a fit.
    pub held_out: usize,
    /// Repetitions.
    pub seeds: usize,
    /// Of the random streams.
    pub seed: u64,
}

/// Fits `problem` to each of these numbers of `pairs` and reads every loss.
pub fn table(problem: &LinearProblem, pairs: &[usize], setup: Setup) -> Result<Vec<Row>, InputError> {
    let label_variance = 2.0 * setup.sigma * setup.sigma;
    let one_seed = |repetition: usize| -> Result<Vec<[f64; 6]>, InputError> {
        let mut rng = stream(setup.seed, repetition as u64 + 1);
        let one_size = |&n: &usize| {
            let (w, in_sample, rank) = fitted(problem, n, label_variance, &mut rng)?;
            let outside = held_out(problem, &w, setup.held_out, label_variance, &mut rng);
            let error = problem.error(&w);
            let corrected = corrected_by_training(outside.loss, in_sample, rank, n).unwrap_or(f64::NAN);
            let unexplained = outside.loss - label_variance - error;
            Ok([in_sample, outside.loss, error, unexplained, outside.two_labels, corrected])
        };
        pairs.iter().map(one_size).collect()
    };
    let all = (0..setup.seeds).into_par_iter().map(one_seed).collect::<Result<Vec<_>, _>>()?;
    let row = |(i, &pairs): (usize, &usize)| {
        let over_seeds = |of: usize| mean_interval(&all.iter().map(|seed| seed[i][of]).collect::<Vec<_>>());
        let degrees = (1.0 - problem.w.len() as f64 / pairs as f64).max(0.0);
        let corrected = over_seeds(5);
        Row {
            pairs,
            in_sample: over_seeds(0),
            in_sample_expected: label_variance * degrees,
            held_out: over_seeds(1),
            error: over_seeds(2),
            unexplained: over_seeds(3),
            two_labels: over_seeds(4),
            corrected: (!corrected.value.is_nan()).then_some(corrected),
        }
    };
    Ok(pairs.iter().enumerate().map(row).collect())
}

/// A fit to `n` noisy pairs: its coefficients `[k]`, training loss and rank.
pub(super) fn fitted(
    problem: &LinearProblem,
    n: usize,
    label_variance: f64,
    rng: &mut impl Rng,
) -> Result<(Array1<f64>, f64, usize), InputError> {
    let sample = problem.pairs(n, rng);
    let noise: Array1<f64> = normals(n, rng) * label_variance.sqrt();
    let labels = sample.differences(problem.bandit.reward()) + noise;
    let design = Design::new(sample.design(problem.policy.features().view()))?;
    let w = design.fit(&labels)?;
    let residual = design.rows().dot(&w) - &labels;
    Ok((w, residual.dot(&residual) / n as f64, design.rank()))
}

/// What `m` fresh disjoint pairs with two noisy labels each say of the predictor with coefficients `w` `[k]`.
pub(super) fn held_out(
    problem: &LinearProblem,
    w: &Array1<f64>,
    m: usize,
    label_variance: f64,
    rng: &mut impl Rng,
) -> HeldOut {
    let errors = problem.pairs(m, rng).differences(&problem.deviation(w));
    let mut label = || -> Array1<f64> { &errors - &(normals::<usize>(m, rng) * label_variance.sqrt()) };
    let (first, second) = (label(), label());
    HeldOut::new(&first, &second, &(0..m).collect::<Vec<_>>())
}

/// How the estimates of the error scatter near the floor, for a reward that the features express.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scatter {
    /// Held-out labels paid for.
    pub labels: usize,
    /// The standard error by the known noise in units of the error to be expected, $$ s^2d/N $$: of the estimates over seeds,
    /// and by the formula for this fit.
    pub known_noise: [f64; 2],
    /// The same by two labels a pair, half as many pairs.
    pub two_labels: [f64; 2],
    /// The rule of thumb for both: $$ (N/d)\sqrt{2/\text{labels}} $$
    pub rule: f64,
}

/// Fits once to `pairs` pairs and estimates that fit's error `setup.seeds` times from each number of `labels`.
pub fn scatter(
    problem: &LinearProblem,
    pairs: usize,
    labels: &[usize],
    setup: Setup,
) -> Result<Vec<Scatter>, InputError> {
    let label_variance = 2.0 * setup.sigma * setup.sigma;
    let (w, _, rank) = fitted(problem, pairs, label_variance, &mut stream(setup.seed, 0))?;
    let moments = ErrorMoments::new(problem.bandit.weights(), &problem.pi, &problem.pi, &problem.deviation(&w));
    let one_count = |(i, &labels): (usize, &usize)| {
        let one_seed = |repetition: usize| {
            let mut rng = stream(setup.seed.wrapping_add(i as u64 + 1), repetition as u64 + 1);
            let known = held_out(problem, &w, labels, label_variance, &mut rng).loss;
            (known, held_out(problem, &w, labels / 2, label_variance, &mut rng).two_labels)
        };
        let (known, two): (Vec<f64>, Vec<f64>) = (0..setup.seeds).into_par_iter().map(one_seed).unzip();
        let deviation = |sample: &[f64]| crate::statistics::standard_error(sample) * (sample.len() as f64).sqrt();
        let relative = |error: f64| error / (label_variance * rank as f64 / pairs as f64);
        Scatter {
            labels,
            known_noise: [deviation(&known), moments.known_noise_error(label_variance, labels)].map(relative),
            two_labels: [deviation(&two), moments.two_label_error(label_variance, labels / 2)].map(relative),
            rule: pairs as f64 / rank as f64 * (2.0 / labels as f64).sqrt(),
        }
    };
    Ok(labels.iter().enumerate().map(one_count).collect())
}
