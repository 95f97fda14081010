//! LinUCB: upper confidence bounds of a ridge regression (Li, Chu, Langford and Schapire 2010).

use super::{Player, first_maximum};
use crate::bandit::Policy;
use crate::error::{self, InputError};
use crate::solve::pairs::PredictorClass;
use ndarray::{Array1, Array2, Array3, Axis, s};

/// LinUCB on the features of a class, with one intercept a context: queries the largest
/// $$ z^\top\hat w+\alpha\sqrt{z^\top A^{-1}z},\qquad A=\lambda I+\sum zz^\top $$ and keeps the largest $$ z^\top\hat w $$
#[derive(Debug, Clone, PartialEq)]
pub struct LinUcb {
    features: Array3<f64>, // [x, y, k], intercepts last
    alpha: f64,
    inverse: Array2<f64>, // [k, k]
    moment: Array1<f64>,  // [k]
    weights: Array1<f64>, // [k]
}

/// The features of a class with an indicator of each context after them `[x, y, k + |X|]`: pairs do not see intercepts,
/// single rewards do.
pub(super) fn with_intercepts(class: &PredictorClass) -> Array3<f64> {
    let (features, contexts) = (class.features(), class.contexts());
    let k = features.dim().2;
    let mut all = Array3::zeros((contexts, class.responses(), k + contexts));
    all.slice_mut(s![.., .., ..k]).assign(&features);
    (0..contexts).for_each(|x| all.slice_mut(s![x, .., k + x]).fill(1.0));
    all
}

impl LinUcb {
    /// Before the first query, with confidence `alpha >= 0` and `ridge > 0`.
    pub fn new(class: &PredictorClass, alpha: f64, ridge: f64) -> Result<Self, InputError> {
        if !(alpha >= 0.0 && alpha.is_finite()) {
            return Err(InputError::Domain {
                argument: "alpha",
                value: alpha,
                expected: "a finite number, at least 0",
            });
        }
        let features = with_intercepts(class);
        let k = features.dim().2;
        let inverse = Array2::eye(k) / error::positive("ridge", ridge)?;
        Ok(Self { features, alpha, inverse, moment: Array1::zeros(k), weights: Array1::zeros(k) })
    }
}

impl Player for LinUcb {
    fn choose(&mut self, x: usize, _: f64) -> usize {
        let z = self.features.index_axis(Axis(0), x); // [y, k]
        let (mean, spread) = (z.dot(&self.weights), z.dot(&self.inverse)); // [y], [y, k]
        let rows = z.outer_iter().zip(spread.outer_iter());
        let upper = rows.zip(&mean).map(|((z, s), mean)| mean + self.alpha * z.dot(&s).max(0.0).sqrt());
        first_maximum(upper)
    }

    fn observe(&mut self, x: usize, y: usize, reward: f64) {
        let z = self.features.slice(s![x, y, ..]);
        let column = self.inverse.dot(&z); // Sherman and Morrison's update of the inverse
        let scale = 1.0 / (1.0 + z.dot(&column));
        let outer = column.view().insert_axis(Axis(1)).dot(&column.view().insert_axis(Axis(0)));
        self.inverse.scaled_add(-scale, &outer);
        self.moment.scaled_add(reward, &z);
        self.weights = self.inverse.dot(&self.moment);
    }

    fn recommend(&self) -> Policy {
        let best = |rows: ndarray::ArrayView2<f64>| first_maximum(rows.dot(&self.weights));
        let best: Vec<usize> = self.features.outer_iter().map(best).collect();
        Policy::pure(&best, self.features.dim().1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn inverse_is_that_of_the_normal_matrix() {
        let class = PredictorClass::linear(array![[[1.0], [2.0]], [[-1.0], [0.5]]]).unwrap();
        let mut player = LinUcb::new(&class, 1.0, 2.0).unwrap();
        let mut normal = Array2::eye(3) * 2.0;
        for (x, y) in [(0, 0), (1, 1), (0, 1), (0, 1)] {
            player.observe(x, y, 1.0);
            let z = player.features.slice(s![x, y, ..]).insert_axis(Axis(1)).to_owned();
            normal += &z.dot(&z.t());
        }
        let unit = normal.dot(&player.inverse);
        assert!((unit - Array2::<f64>::eye(3)).iter().all(|e| e.abs() < 1e-14));
        assert_eq!(player.features.slice(s![1, 0, ..]), array![-1.0, 0.0, 1.0]);
        assert!(LinUcb::new(&class, 1.0, 0.0).is_err() && LinUcb::new(&class, f64::NAN, 1.0).is_err());
    }
}
