//! Logits linear in the parameters: the policies of Example 1 and Claim 1 at their simplest.

use super::Softmax;
use crate::error::{self, InputError};
use ndarray::{Array1, Array2, Array3, ArrayView1};

/// The log-linear policy $$ \pi_\theta(y|x)\propto e^{\phi(x,y)^\top\theta} $$ with features `phi` `[x, y, k]` and
/// parameters `theta` `[k]`.
#[derive(Debug, Clone, PartialEq)]
pub struct LogLinear {
    features: Array3<f64>, // [x, y, k]
    theta: Array1<f64>,    // [k]
}

impl LogLinear {
    /// The policy with features `phi` `[x, y, k]` at parameters `theta` `[k]`, all finite.
    pub fn new(features: Array3<f64>, theta: Array1<f64>) -> Result<Self, InputError> {
        error::finite("phi", &features)?;
        error::finite("theta", &theta)?;
        error::shape("theta", theta.shape(), &features.shape()[2..])?;
        Ok(Self { features, theta })
    }

    /// Features `phi` `[x, y, k]`.
    pub fn features(&self) -> &Array3<f64> {
        &self.features
    }
}

impl Softmax for LogLinear {
    fn parameters(&self) -> Array1<f64> {
        self.theta.clone()
    }

    fn at(&self, theta: ArrayView1<f64>) -> Self {
        assert_eq!(theta.len(), self.theta.len(), "one parameter a feature");
        Self { features: self.features.clone(), theta: theta.to_owned() }
    }

    fn logits(&self) -> Array2<f64> {
        let (contexts, responses, _) = self.features.dim();
        let mut logits = Array2::zeros((contexts, responses));
        for (mut row, phi) in logits.outer_iter_mut().zip(self.features.outer_iter()) {
            row.assign(&phi.dot(&self.theta)); // [y]
        }
        logits
    }

    fn logit_jacobian(&self) -> Array3<f64> {
        self.features.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::numeric_scores;
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    #[test]
    fn probability_and_score_equal_numbers_by_hand() {
        let policy = LogLinear::new(array![[[0.0], [1.0]]], array![3f64.ln()]).unwrap();
        assert_abs_diff_eq!(policy.policy().prob(), &array![[0.25, 0.75]], epsilon = 1e-15);
        assert_abs_diff_eq!(policy.scores(), array![[[-0.75], [0.25]]], epsilon = 1e-15);
    }

    #[test]
    fn scores_equal_numeric_gradient() {
        let features = array![[[1.0, 0.2], [-0.5, 1.1], [0.3, -0.7]], [[0.4, 0.0], [0.9, -1.0], [-0.2, 0.6]]];
        let policy = LogLinear::new(features, array![0.5, -1.0]).unwrap();
        assert_abs_diff_eq!(policy.scores(), numeric_scores(&policy), epsilon = 1e-9);
    }

    #[test]
    fn constructor_refuses_one_parameter_too_many() {
        let error = LogLinear::new(array![[[0.0], [1.0]]], array![1.0, 2.0]).unwrap_err();
        assert_eq!(error.to_string(), "theta: shape [2] (expected [1])");
    }
}
