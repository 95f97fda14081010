//! One logit for every context and response.

use super::Softmax;
use crate::error::{self, InputError};
use ndarray::{Array1, Array2, Array3, ArrayView1};

/// The tabular softmax policy: logits `theta` `[x, y]`, parameters in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Tabular {
    theta: Array2<f64>, // [x, y]
}

impl Tabular {
    /// The policy with finite logits `theta` `[x, y]`.
    pub fn new(theta: Array2<f64>) -> Result<Self, InputError> {
        error::finite("theta", &theta)?;
        Ok(Self { theta })
    }
}

impl Softmax for Tabular {
    fn parameters(&self) -> Array1<f64> {
        self.theta.iter().copied().collect()
    }

    fn at(&self, theta: ArrayView1<f64>) -> Self {
        let theta = theta.iter().copied().collect::<Vec<_>>();
        Self { theta: Array2::from_shape_vec(self.theta.raw_dim(), theta).expect("one parameter a logit") }
    }

    fn logits(&self) -> Array2<f64> {
        self.theta.clone()
    }

    fn logit_jacobian(&self) -> Array3<f64> {
        one_hot(self.theta.nrows(), self.theta.ncols())
    }
}

/// One-hot features `[x, y, x*|Y|+y]`: the Jacobian of tabular logits.
pub fn one_hot(contexts: usize, responses: usize) -> Array3<f64> {
    let own = |(x, y, k)| if k == x * responses + y { 1.0 } else { 0.0 };
    Array3::from_shape_fn((contexts, responses, contexts * responses), own)
}

#[cfg(test)]
mod tests {
    use super::super::tests::numeric_scores;
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    #[test]
    fn score_is_indicator_minus_probability() {
        let policy = Tabular::new(array![[0.0, 3f64.ln()]]).unwrap(); // probabilities 1/4, 3/4
        assert_abs_diff_eq!(policy.scores(), array![[[0.75, -0.75], [-0.25, 0.25]]], epsilon = 1e-15);
    }

    #[test]
    fn scores_equal_numeric_gradient() {
        let policy = Tabular::new(array![[0.3, -0.2, 1.0], [0.0, 0.5, -1.5]]).unwrap();
        assert_abs_diff_eq!(policy.scores(), numeric_scores(&policy), epsilon = 1e-9);
    }
}
