//! A network of one hidden layer: the smallest policy whose log-ratio is not affine in its parameters.

use super::Softmax;
use crate::error::{self, InputError};
use ndarray::{Array1, Array2, Array3, ArrayView1, s};

/// The network $$ s(x,y)=w_2^\top\tanh(W_1\phi(x,y)+b_1)+b_2 $$ under a softmax over responses.
///
/// Parameters in the order `W1` row-major, `b1`, `w2`, `b2`: `h*d + 2h + 1` of them. The output bias `b2` never moves
/// a probability, so the Fisher matrix is always singular.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    features: Array3<f64>, // [x, y, d]
    w1: Array2<f64>,       // [h, d]
    b1: Array1<f64>,       // [h]
    w2: Array1<f64>,       // [h]
    b2: f64,
}

impl Mlp {
    /// The network on features `[x, y, d]` with first layer `w1` `[h, d]`, `b1` `[h]` and output layer `w2` `[h]`, `b2`.
    pub fn new(
        features: Array3<f64>,
        w1: Array2<f64>,
        b1: Array1<f64>,
        w2: Array1<f64>,
        b2: f64,
    ) -> Result<Self, InputError> {
        error::finite("feat", &features)?;
        error::finite("W1", &w1)?;
        error::finite("b1", &b1)?;
        error::finite("w2", &w2)?;
        error::finite("b2", &Array1::from_elem(1, b2))?;
        error::shape("W1", w1.shape(), &[w1.nrows(), features.dim().2])?;
        error::shape("b1", b1.shape(), &[w1.nrows()])?;
        error::shape("w2", w2.shape(), &[w1.nrows()])?;
        Ok(Self { features, w1, b1, w2, b2 })
    }

    /// Hidden activations at one context and response `[h]`: $$ \tanh(W_1\phi+b_1) $$
    fn hidden(&self, feature: ArrayView1<f64>) -> Array1<f64> {
        (self.w1.dot(&feature) + &self.b1).mapv(f64::tanh)
    }
}

impl Softmax for Mlp {
    fn parameters(&self) -> Array1<f64> {
        let bias = std::iter::once(&self.b2);
        self.w1.iter().chain(&self.b1).chain(&self.w2).chain(bias).copied().collect()
    }

    fn at(&self, theta: ArrayView1<f64>) -> Self {
        let (h, d) = self.w1.dim();
        assert_eq!(theta.len(), h * d + 2 * h + 1, "as many parameters as the network has");
        let w1 = theta.slice(s![..h * d]).iter().copied().collect::<Vec<_>>();
        Self {
            features: self.features.clone(),
            w1: Array2::from_shape_vec((h, d), w1).expect("h times d entries"),
            b1: theta.slice(s![h * d..h * d + h]).to_owned(),
            w2: theta.slice(s![h * d + h..h * d + 2 * h]).to_owned(),
            b2: theta[h * d + 2 * h],
        }
    }

    fn logits(&self) -> Array2<f64> {
        let (contexts, responses, _) = self.features.dim();
        Array2::from_shape_fn((contexts, responses), |(x, y)| {
            self.w2.dot(&self.hidden(self.features.slice(s![x, y, ..]))) + self.b2
        })
    }

    fn logit_jacobian(&self) -> Array3<f64> {
        let (contexts, responses, d) = self.features.dim();
        let h = self.w1.nrows();
        let mut jacobian = Array3::zeros((contexts, responses, h * d + 2 * h + 1));
        for ((x, y), _) in Array2::<()>::default((contexts, responses)).indexed_iter() {
            let feature = self.features.slice(s![x, y, ..]);
            let active = self.hidden(feature); // [h]
            let back = &self.w2 * &active.mapv(|a| 1.0 - a * a); // [h], derivative in b1
            let mut row = jacobian.slice_mut(s![x, y, ..]);
            for i in 0..h {
                row.slice_mut(s![i * d..(i + 1) * d]).assign(&(&feature * back[i]));
            }
            row.slice_mut(s![h * d..h * d + h]).assign(&back);
            row.slice_mut(s![h * d + h..h * d + 2 * h]).assign(&active);
            row[h * d + 2 * h] = 1.0;
        }
        jacobian
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::numeric_scores;
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    fn network() -> Mlp {
        let features = array![[[1.0, 0.2], [-0.5, 1.1], [0.3, -0.7]]];
        Mlp::new(features, array![[0.4, -0.3], [0.8, 0.1]], array![0.1, -0.2], array![1.5, -0.6], 0.3).unwrap()
    }

    #[test]
    fn logit_equals_number_by_hand() {
        let tiny = Mlp::new(array![[[2.0]]], array![[0.5]], array![-1.0], array![3.0], 0.25).unwrap();
        assert_eq!(tiny.logits(), array![[0.25]]); // tanh(0.5 * 2 - 1) = 0
        assert_eq!(tiny.logit_jacobian(), array![[[6.0, 3.0, 0.0, 1.0]]]);
    }

    #[test]
    fn scores_equal_numeric_gradient() {
        assert_abs_diff_eq!(network().scores(), numeric_scores(&network()), epsilon = 1e-9);
    }

    #[test]
    fn output_bias_has_no_score() {
        assert!(network().scores().slice(s![.., .., 8]).iter().all(|g| g.abs() < 1e-15));
    }

    #[test]
    fn parameters_round_trip() {
        assert_eq!(network().at(network().parameters().view()), network());
    }
}
