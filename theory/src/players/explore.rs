//! The plainest of all: query uniformly, then commit to what looks best.

use super::lin_ucb::with_intercepts;
use super::{Player, first_maximum};
use crate::bandit::Policy;
use crate::solve::linear::{pseudo_solve, spectrum};
use crate::solve::pairs::PredictorClass;
use ndarray::{Array1, Array2, Array3, Axis, s};

/// Queries every response as often as any other and keeps the best of a least-squares fit of the rewards, with one
/// intercept a context; over a table of predictors that is the best empirical mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Explore {
    features: Array3<f64>, // [x, y, k]
    normal: Array2<f64>,   // [k, k]
    moment: Array1<f64>,   // [k]
}

impl Explore {
    /// Before the first query, fitting the predictors of `class`.
    pub fn new(class: &PredictorClass) -> Self {
        let features = with_intercepts(class);
        let k = features.dim().2;
        Self { features, normal: Array2::zeros((k, k)), moment: Array1::zeros(k) }
    }
}

impl Player for Explore {
    fn choose(&mut self, _: usize, u: f64) -> usize {
        let responses = self.features.dim().1;
        ((u * responses as f64) as usize).min(responses - 1)
    }

    fn observe(&mut self, x: usize, y: usize, reward: f64) {
        let z = self.features.slice(s![x, y, ..]);
        for (mut row, &a) in self.normal.outer_iter_mut().zip(&z).filter(|(_, a)| **a != 0.0) {
            row.scaled_add(a, &z);
        }
        self.moment.scaled_add(reward, &z);
    }

    fn recommend(&self) -> Policy {
        let spectrum = spectrum("Z^T Z", &self.normal).expect("a finite normal matrix of moderate size");
        let weights = pseudo_solve(&spectrum, &self.moment).solution;
        let best: Vec<usize> = self.features.axis_iter(Axis(0)).map(|z| first_maximum(z.dot(&weights))).collect();
        Policy::pure(&best, self.features.dim().1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_empirical_mean_is_kept_and_queries_are_uniform() {
        let mut player = Explore::new(&PredictorClass::tabular(1, 3));
        assert_eq!([0.0, 0.34, 0.999, 1.0].map(|u| player.choose(0, u)), [0, 1, 2, 2]);
        for (arm, reward) in [(0, 1.0), (0, 0.0), (1, 1.0), (1, 1.0), (1, 0.0), (2, 0.0)] {
            player.observe(0, arm, reward);
        }
        assert_eq!(player.recommend(), Policy::pure(&[1], 3)); // 1/2, 2/3, 0
    }
}
