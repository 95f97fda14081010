//! The mean squared error of preconditioned steps against the number of pairs (E3.2): REBEL's step, whose matrix and
//! gradient share their differences, beside natural gradients that put the same samples together otherwise.

use super::linear::{LinearProblem, normals, stream};
use crate::error::InputError;
use crate::solve::finite_sample::Batch;
use crate::solve::limit::Limit;
use crate::solve::linear::{pseudo_solve, spectrum};
use crate::solve::natural::second_moment;
use crate::statistics::{Estimate, log_log_slope_over_seeds, mean_interval};
use ndarray::Array1;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How matrix and gradient are made of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// REBEL: both of the same differences.
    Paired,
    /// The paired gradient (RLOO) with the exact Fisher matrix.
    PairedExact,
    /// The paired gradient with the matrix of single scores.
    PairedSeparate,
    /// REINFORCE with this constant added to all rewards and the matrix of single scores.
    Reinforce(f64),
    /// REINFORCE less the exact value of the context, with the matrix of single scores.
    KnownValue,
}

/// The squared distance of one estimator's steps (step size 1) to the population's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The estimator.
    pub estimator: Estimator,
    /// Its mean squared error for each number of pairs, with 95% t-intervals over seeds.
    pub error: Vec<Estimate>,
    /// Its log-log slope in the number of pairs, with a seed-bootstrap interval; none where the error is rounding.
    pub slope: Option<Estimate>,
    /// What the pairs times the error tend to; none where that is not known in closed form.
    pub limit: Option<f64>,
}

/// Errors below this are rounding, and have no slope.
const ROUNDING: f64 = 1e-20;

/// Draws `seeds` batches of each of these numbers of `pairs`, with reward noise of standard deviation `sigma` on every
/// query, and compares each estimator's step with the population's.
pub fn curves(
    problem: &LinearProblem,
    estimators: &[Estimator],
    pairs: &[usize],
    sigma: f64,
    seeds: usize,
    seed: u64,
) -> Result<Vec<Curve>, InputError> {
    let LinearProblem { bandit, pi, scores, .. } = problem;
    let limit = Limit::new(bandit, pi, scores.view())?;
    let fisher = spectrum("F", &second_moment(bandit, pi, scores.view()))?;
    let one_seed = |repetition: usize| -> Result<Vec<Vec<f64>>, InputError> {
        let mut rng = stream(seed, repetition as u64 + 1);
        let mut errors = vec![Vec::with_capacity(pairs.len()); estimators.len()];
        for &n in pairs {
            let sample = problem.pairs(n, &mut rng);
            let noise: Array1<f64> = normals(2 * n, &mut rng) * sigma;
            let batch = Batch::new(&sample, scores.view(), bandit.reward(), pi)?.noisy(&noise)?;
            for (estimator, errors) in estimators.iter().zip(&mut errors) {
                let step = match estimator {
                    Estimator::Paired => batch.paired_step(1.0)?.delta,
                    Estimator::PairedExact => pseudo_solve(&fisher, &batch.paired_gradient()).solution,
                    Estimator::PairedSeparate => batch.separate_step(batch.paired_gradient(), 1.0)?.delta,
                    Estimator::Reinforce(offset) => {
                        let gradient = batch.reinforce_gradient(&batch.constant_baseline(-offset));
                        batch.separate_step(gradient, 1.0)?.delta
                    }
                    Estimator::KnownValue => {
                        batch.separate_step(batch.reinforce_gradient(batch.true_baseline()), 1.0)?.delta
                    }
                };
                let off = step - limit.direction();
                errors.push(off.dot(&off));
            }
        }
        Ok(errors)
    };
    let all = (0..seeds).into_par_iter().map(one_seed).collect::<Result<Vec<_>, _>>()?; // [seeds][estimators][pairs]
    let sizes: Vec<f64> = pairs.iter().map(|&n| n as f64).collect();
    let curve = |(e, &estimator): (usize, &Estimator)| {
        let own: Vec<Vec<f64>> = all.iter().map(|seed| seed[e].clone()).collect();
        let error: Vec<Estimate> =
            (0..pairs.len()).map(|i| mean_interval(&own.iter().map(|curve| curve[i]).collect::<Vec<_>>())).collect();
        let sampled = error.iter().all(|e| e.value > ROUNDING);
        let slope = sampled.then(|| log_log_slope_over_seeds(&sizes, &own, 1000, seed)).transpose()?;
        Ok(Curve { estimator, error, slope, limit: limit_of(estimator, &limit, sigma) })
    };
    estimators.iter().enumerate().map(curve).collect()
}

/// What the number of pairs times the mean squared error tends to. With noise it is known for what shares its samples.
fn limit_of(estimator: Estimator, limit: &Limit, sigma: f64) -> Option<f64> {
    match estimator {
        Estimator::Paired => Some(limit.paired() + limit.label_noise(sigma)),
        Estimator::PairedExact if sigma == 0.0 => Some(limit.paired_exact()),
        Estimator::Reinforce(offset) => Some(limit.reinforce_estimated(offset) + limit.label_noise(sigma) / 2.0),
        _ => None,
    }
}
