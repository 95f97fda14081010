//! Where pairs win (E3.3): the limit of the step's scatter against how far the value varies between contexts. A constant
//! baseline cannot remove that variation, differences do.

use super::linear::LinearProblem;
use crate::error::InputError;
use crate::solve::limit::Limit;
use ndarray::{Array1, Axis};
use serde::{Deserialize, Serialize};

/// Limits of the pairs times the trace of the covariance, for values that vary between contexts by each of `spread`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValueSpread {
    /// The standard deviation over contexts of the value, in units of the residual's root mean square.
    pub spread: Vec<f64>,
    /// REBEL's step.
    pub paired: Vec<f64>,
    /// The natural gradient by REINFORCE with the best constant baseline.
    pub constant: Vec<f64>,
    /// The spread from which on pairs scatter less.
    pub crossing: f64,
}

/// Replaces the value of the contexts of `problem` by multiples of `pattern` `[x]`, and compares the limits. The problem
/// must have a residual, the pattern must vary over the contexts.
pub fn value_spread(problem: &LinearProblem, pattern: &Array1<f64>, spread: &[f64]) -> Result<ValueSpread, InputError> {
    let LinearProblem { bandit, pi, scores, .. } = problem;
    let scale = Limit::new(bandit, pi, scores.view())?.residual_rms();
    let centre = pattern - bandit.average(pattern);
    let unit = &centre / bandit.average(&centre.mapv(|c| c * c)).sqrt() * scale; // [x]
    let advantage = bandit.advantage(pi); // [x, y]
    let at = |spread: f64| -> Result<(f64, f64), InputError> {
        let reward = &advantage + &(&unit * spread).insert_axis(Axis(1));
        let limit = Limit::new(&bandit.with_reward(reward)?, pi, scores.view())?;
        Ok((limit.paired(), limit.reinforce_estimated(limit.best_offset())))
    };
    let (paired, constant) = spread.iter().map(|&s| at(s)).collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    // The constant baseline's limit starts lower and grows without bound.
    let (mut low, mut high) = (0.0, 1.0);
    let pairs_win = |(paired, constant): (f64, f64)| paired < constant;
    while !pairs_win(at(high)?) && high < 1e6 {
        (low, high) = (high, 2.0 * high);
    }
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if pairs_win(at(middle)?) { high = middle } else { low = middle }
    }
    Ok(ValueSpread { spread: spread.to_vec(), paired, constant, crossing: 0.5 * (low + high) })
}
