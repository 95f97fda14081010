//! Softmax policies with parameters: a table of logits, a log-linear form, a small network.
//!
//! Each gives its logits and their Jacobian; probabilities and scores follow in one place:
//! $$ \pi_\theta(y|x)\propto e^{s_\theta(x,y)},\qquad
//! g(x,y)=\nabla_\theta\ln\pi_\theta(y|x)=\nabla s_\theta(x,y)-E_{y'\sim\pi_\theta}\nabla s_\theta(x,y') $$

mod autoregressive;
mod log_linear;
mod mlp;
mod tabular;

pub use autoregressive::{Autoregressive, MAX_SEQUENCES, PrefixValues};
pub use log_linear::LogLinear;
pub use mlp::Mlp;
pub use tabular::{Tabular, one_hot};

use crate::bandit::Policy;
use ndarray::{Array1, Array2, Array3, ArrayView1};

/// A softmax policy at one value of its parameters.
pub trait Softmax: Sized + Sync {
    /// The parameters `theta` `[k]`, in the family's documented order.
    fn parameters(&self) -> Array1<f64>;

    /// The same family at other parameters `[k]`. Panics if their number differs.
    fn at(&self, theta: ArrayView1<f64>) -> Self;

    /// Logits `[x, y]`.
    fn logits(&self) -> Array2<f64>;

    /// The Jacobian of the logits `[x, y, k]`.
    fn logit_jacobian(&self) -> Array3<f64>;

    /// The distribution over responses of each context.
    fn policy(&self) -> Policy {
        Policy::from_logits(&self.logits())
    }

    /// Scores `[x, y, k]`: the gradient of the log-probability, $$ g(x,y)=\nabla_\theta\ln\pi_\theta(y|x) $$
    fn scores(&self) -> Array3<f64> {
        centred(self.logit_jacobian(), &self.policy())
    }

    /// The policy displaced by `delta` `[k]`.
    fn moved(&self, delta: &Array1<f64>) -> Self {
        self.at((self.parameters() + delta).view())
    }
}

/// Features minus their mean under `pi`, `[x, y, k]`: $$ \phi(x,y)-E_{y'\sim\pi}\phi(x,y') $$
///
/// What subtraction leaves of a feature that does not depend on the response is rounding, and is set to zero: else a
/// matrix of such features alone would seem to have rank, every relative cutoff being relative to the rounding itself.
pub fn centred(mut features: Array3<f64>, pi: &Policy) -> Array3<f64> {
    const ROUNDING: f64 = 8.0 * f64::EPSILON;
    for (mut rows, prob) in features.outer_iter_mut().zip(pi.prob().rows()) {
        for mut column in rows.columns_mut() {
            let mean = prob.dot(&column);
            let largest = column.fold(0.0, |m: f64, f| m.max(f.abs()));
            // Equal for every response, it is its mean, however the probabilities round.
            let (low, high) = column.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &f| (a.min(f), b.max(f)));
            let constant = high - low <= ROUNDING * largest;
            column.mapv_inplace(|f| if constant || (f - mean).abs() <= ROUNDING * largest { 0.0 } else { f - mean });
        }
    }
    features
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ndarray::{Axis, array};

    #[test]
    fn feature_of_the_context_alone_has_score_zero_though_probabilities_round() {
        let pi = Policy::new("pi", array![[0.1, 0.2, 0.7 + 1e-10]]).unwrap();
        let scores = centred(array![[[0.3], [0.3], [0.3]]], &pi);
        assert!(scores.iter().all(|&g| g == 0.0));
    }

    #[test]
    fn feature_of_the_context_alone_has_score_zero() {
        let pi = Policy::new("pi", array![[0.1, 0.2, 0.7]]).unwrap();
        let features = array![[[0.3, 1.0], [0.3, 0.0], [0.3, 0.0]]];
        let scores = centred(features, &pi);
        assert!(scores.index_axis(Axis(2), 0).iter().all(|&g| g == 0.0));
        assert!((scores[[0, 0, 1]] - 0.9).abs() < 1e-15);
    }

    /// Central differences of the log-probabilities in each parameter `[x, y, k]`.
    pub(crate) fn numeric_scores<P: Softmax>(policy: &P) -> Array3<f64> {
        let theta = policy.parameters();
        let h = 1e-5;
        let mut jacobian = Array3::zeros((policy.logits().nrows(), policy.logits().ncols(), theta.len()));
        for k in 0..theta.len() {
            let step = Array1::from_shape_fn(theta.len(), |i| if i == k { h } else { 0.0 });
            let up = policy.moved(&step).policy().log().clone();
            let down = policy.moved(&-step).policy().log().clone();
            jacobian.index_axis_mut(Axis(2), k).assign(&((up - down) / (2.0 * h)));
        }
        jacobian
    }
}
