//! How the preconditioned step scatters when the batch grows (theory 3.2): `N` times the covariance of the direction
//! (step size 1) tends to a limit, whose trace is here for each estimator.
//!
//! With a reward that the features can express, the limit of REBEL's own step is zero: it is exact from full rank on.

use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::solve::gradient_variance::GradientVariance;
use crate::solve::linear::{pseudo_inverse, pseudo_solve, spectrum};
use crate::solve::natural::{policy_gradient, second_moment};
use ndarray::{Array1, Array2, Array3, ArrayView3, Axis};

/// The population direction of on-policy pairs (`y, y' ~ pi`, both independent) and what the limits are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    bandit: Bandit,
    pi: Policy,
    direction: Array1<f64>,
    residual: Array2<f64>, // [x, y]
    inverse: Array2<f64>,  // [k, k]
    applied: Array3<f64>,  // [x, y, k], F^+ g
    exact: GradientVariance,
    rank: usize,
}

impl Limit {
    /// For scores `g` `[x, y, k]` of `pi`.
    pub fn new(bandit: &Bandit, pi: &Policy, scores: ArrayView3<f64>) -> Result<Self, InputError> {
        let (contexts, responses, k) = scores.dim();
        let spectrum = spectrum("F", &second_moment(bandit, pi, scores))?;
        let inverse = pseudo_inverse(&spectrum);
        let fit = pseudo_solve(&spectrum, &policy_gradient(bandit, pi, scores));
        let mut residual = bandit.advantage(pi);
        let mut applied = Array3::zeros((contexts, responses, k));
        for (x, rows) in scores.outer_iter().enumerate() {
            let mut own = residual.row_mut(x);
            own -= &rows.dot(&fit.solution);
            applied.index_axis_mut(Axis(0), x).assign(&rows.dot(&inverse));
        }
        Ok(Self {
            exact: GradientVariance::new(bandit, pi, scores, &inverse.dot(&inverse))?,
            bandit: bandit.clone(),
            pi: pi.clone(),
            direction: fit.solution,
            residual,
            inverse,
            applied,
            rank: fit.rank,
        })
    }

    /// The population direction `[k]`: $$ w^*=F^+\nabla J $$
    pub fn direction(&self) -> &Array1<f64> {
        &self.direction
    }

    /// What the features cannot express of the advantage, `[x, y]`: $$ \xi=A-g^\top w^* $$
    pub fn residual(&self) -> &Array2<f64> {
        &self.residual
    }

    /// The rank of the Fisher matrix.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The root mean square of the residual: $$ \sqrt{E\,\xi^2} $$
    pub fn residual_rms(&self) -> f64 {
        self.bandit.average(&self.pi.expectation(&(&self.residual * &self.residual))).sqrt()
    }

    /// $$ E_\pi|F^+g|^2f $$ for `f` `[x, y]`, `[x]`.
    fn weighted_norm(&self, f: &Array2<f64>) -> Array1<f64> {
        let norms = (&self.applied * &self.applied).sum_axis(Axis(2)); // [x, y]
        self.pi.expectation(&(&norms * f))
    }

    /// $$ |E_\pi[F^+g\,f]|^2 $$ for `f` `[x, y]`, `[x]`.
    fn mean_norm(&self, f: &Array2<f64>) -> Array1<f64> {
        let mean = |(x, rows): (usize, ndarray::ArrayView2<f64>)| {
            let mean = (&self.pi.prob().row(x) * &f.row(x)).dot(&rows); // [k]
            mean.dot(&mean)
        };
        self.applied.outer_iter().enumerate().map(mean).collect()
    }

    /// Of REBEL's step, `F` and gradient from the same differences: the trace of
    ///
    /// $$ (2F)^+E\big[(\xi-\xi')^2(g-g')(g-g')^\top\big](2F)^+ $$
    ///
    /// which is $$ E_x\big[\tfrac12E|F^+g|^2\xi^2+\tfrac12E|F^+g|^2\,E\,\xi^2+|E\,F^+g\,\xi|^2\big] $$ since scores and residuals
    /// have mean zero in each context.
    pub fn paired(&self) -> f64 {
        let squares = &self.residual * &self.residual;
        let ones = Array2::ones(squares.raw_dim());
        let together = self.weighted_norm(&squares);
        let apart = self.weighted_norm(&ones) * &self.pi.expectation(&squares);
        self.bandit.average(&((together + apart) / 2.0 + self.mean_norm(&self.residual)))
    }

    /// Of a natural gradient by REINFORCE less the baseline `-offset`, with `F` estimated from the same single scores: the trace of
    ///
    /// $$ F^+\big[\tfrac12E(z^2gg^\top)+\tfrac12E_x\,mm^\top\big]F^+,\qquad z=\xi+V+c,\quad m=E_\pi[g\,z|x] $$
    pub fn reinforce_estimated(&self, offset: f64) -> f64 {
        let level = (self.pi.expectation(self.bandit.reward()) + offset).insert_axis(Axis(1)); // [x, 1]
        let z = &self.residual + &level;
        self.bandit.average(&(self.weighted_norm(&(&z * &z)) + self.mean_norm(&z))) / 2.0
    }

    /// The constant added to all rewards that makes [`Self::reinforce_estimated`] smallest; 0 where none does.
    pub fn best_offset(&self) -> f64 {
        // A parabola through three points.
        let [low, middle, high] = [-1.0, 0.0, 1.0].map(|c| self.reinforce_estimated(c));
        let curvature = low + high - 2.0 * middle;
        if curvature > 0.0 { 0.5 * (low - high) / curvature } else { 0.0 }
    }

    /// Of a natural gradient by REINFORCE with the exact `F`, `offset` added to all rewards.
    pub fn reinforce_exact(&self, offset: f64) -> f64 {
        self.exact.reinforce(offset)
    }

    /// Of a natural gradient by pairs (RLOO with two responses) with the exact `F`.
    pub fn paired_exact(&self) -> f64 {
        self.exact.paired()
    }

    /// What independent noise of standard deviation `sigma` on every reward query adds to REBEL's step:
    /// $$ \sigma^2\,\mathrm{tr}\,F^+ $$ A natural gradient less the exact value of the context pays half of it.
    pub fn label_noise(&self, sigma: f64) -> f64 {
        sigma * sigma * self.inverse.diag().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    fn two_arms(rewards: [f64; 2]) -> Limit {
        let bandit = Bandit::new(array![1.0], array![rewards]).unwrap();
        Limit::new(&bandit, &Policy::uniform(1, 2), array![[[-0.5], [0.5]]].view()).unwrap()
    }

    #[test]
    fn limits_of_two_arms_equal_numbers_by_hand() {
        let limit = two_arms([0.0, 2.0]); // F = 1/4, w* = 2, no residual
        assert_abs_diff_eq!(limit.direction(), &array![2.0], epsilon = 1e-14);
        assert_eq!((limit.rank(), limit.paired()), (1, 0.0));
        assert_abs_diff_eq!(limit.reinforce_exact(0.0), 2.0, epsilon = 1e-13); // 16 times 1/8
        assert_abs_diff_eq!(limit.paired_exact(), 4.0, epsilon = 1e-13); // 16 times 1/4
        // z = V = 1 and m = 0: E z^2 |F^+ g|^2 / 2 = 4/2
        assert_abs_diff_eq!(limit.reinforce_estimated(0.0), 2.0, epsilon = 1e-13);
        assert_abs_diff_eq!(limit.best_offset(), -1.0, epsilon = 1e-12);
        assert_abs_diff_eq!(limit.label_noise(0.5), 1.0, epsilon = 1e-14);
    }

    #[test]
    fn scores_without_rank_give_limits_of_zero() {
        let bandit = Bandit::new(array![1.0], array![[1.0, 2.0]]).unwrap();
        let limit = Limit::new(&bandit, &Policy::uniform(1, 2), Array3::zeros((1, 2, 2)).view()).unwrap();
        assert_eq!((limit.rank(), limit.paired(), limit.reinforce_estimated(3.0)), (0, 0.0, 0.0));
        assert_eq!((limit.best_offset(), limit.residual_rms()), (0.0, 0.5));
    }
}
