//! The exact variance of three gradient estimators from one pair of on-policy responses (theory 3.1).
//!
//! All three are unbiased for the policy gradient: REINFORCE without a baseline, REINFORCE less the exact value of the
//! context, and REBEL's paired gradient, which is RLOO's with two responses. Whether pairs reduce variance is a matter of
//! where zero is on the reward's scale.

use crate::bandit::{Bandit, Policy};
use crate::error::{self, InputError};
use crate::solve::natural::policy_gradient;
use ndarray::{Array1, Array2, ArrayView3, Axis, Zip};

/// What the variance of a gradient depends on, context by context; norms are $$ |g|^2_W=g^\top W g $$
#[derive(Debug, Clone, PartialEq)]
pub struct GradientVariance {
    weights: Array1<f64>,
    /// $$ V=E_\pi r $$ `[x]`.
    value: Array1<f64>,
    /// $$ \sigma^2=\mathrm{Var}_\pi r $$ `[x]`.
    spread: Array1<f64>,
    /// $$ \tau=E_\pi|g|^2_W $$ `[x]`.
    tau: Array1<f64>,
    /// $$ \kappa=E_\pi[A\,|g|^2_W] $$ `[x]`.
    kappa: Array1<f64>,
    /// $$ q=E_\pi[A^2\,|g|^2_W] $$ `[x]`.
    q: Array1<f64>,
    /// $$ |G_x|^2_W $$ of the context's gradient $$ G_x=E_\pi[g\,A] $$ `[x]`.
    steepness: Array1<f64>,
    /// How the gradient varies between contexts: $$ B=E_x|G_x|^2_W-|\nabla J|^2_W $$
    between: f64,
}

impl GradientVariance {
    /// For scores `g` `[x, y, k]` of `pi` and a metric `W` `[k, k]`, symmetric: the identity for the trace of the covariance,
    /// the pseudo-inverse of the Fisher matrix for the natural norm.
    pub fn new(
        bandit: &Bandit,
        pi: &Policy,
        scores: ArrayView3<f64>,
        metric: &Array2<f64>,
    ) -> Result<Self, InputError> {
        let (contexts, responses, k) = scores.dim();
        error::shape("W", metric.shape(), &[k, k])?;
        error::shape("pi", pi.prob().shape(), &[contexts, responses])?;
        error::shape("r", bandit.reward().shape(), &[contexts, responses])?;
        let square = |v: &Array1<f64>| v.dot(&metric.dot(v));
        let advantage = bandit.advantage(pi); // [x, y]
        let mut norms = Array2::zeros((contexts, responses)); // [x, y]
        let mut steepness = Array1::zeros(contexts);
        for (x, rows) in scores.outer_iter().enumerate() {
            norms.row_mut(x).assign(&(&rows.dot(metric) * &rows).sum_axis(Axis(1)));
            steepness[x] = square(&(&pi.prob().row(x) * &advantage.row(x)).dot(&rows));
        }
        let squares = &advantage * &advantage;
        let gradient = policy_gradient(bandit, pi, scores);
        Ok(Self {
            value: pi.expectation(bandit.reward()),
            spread: pi.expectation(&squares),
            tau: pi.expectation(&norms),
            kappa: pi.expectation(&(&advantage * &norms)),
            q: pi.expectation(&(&squares * &norms)),
            between: bandit.average(&steepness) - square(&gradient),
            steepness,
            weights: bandit.weights().clone(),
        })
    }

    fn average(&self, value: &Array1<f64>) -> f64 {
        crate::bandit::average(&self.weights, value)
    }

    /// Of REINFORCE without a baseline, `offset` added to all rewards; `V` includes the offset:
    ///
    /// $$ \tfrac12E_x\big[q+2V\kappa+V^2\tau-|G_x|^2\big]+B $$
    pub fn reinforce(&self, offset: f64) -> f64 {
        let level = |&v: &f64, &tau: &f64, &kappa: &f64| (v + offset) * (2.0 * kappa + (v + offset) * tau);
        let level = Zip::from(&self.value).and(&self.tau).and(&self.kappa).map_collect(level);
        self.true_baseline() + 0.5 * self.average(&level)
    }

    /// Of REINFORCE less the exact value of the context, whatever the offset: $$ \tfrac12E_x\big[q-|G_x|^2\big]+B $$
    pub fn true_baseline(&self) -> f64 {
        0.5 * self.average(&(&self.q - &self.steepness)) + self.between
    }

    /// Of the paired gradient, whatever the offset: $$ \tfrac12E_x\big[q+\sigma^2\tau\big]+B $$
    pub fn paired(&self) -> f64 {
        0.5 * self.average(&(&self.q + &(&self.spread * &self.tau))) + self.between
    }

    /// REINFORCE's variance less that of pairs as a polynomial of the offset, highest power first:
    ///
    /// $$ \tfrac12E_x\tau\;c^2+E_x[V\tau+\kappa]\;c+\tfrac12E_x\big[V^2\tau+2V\kappa-\sigma^2\tau-|G_x|^2\big] $$
    pub fn difference(&self) -> [f64; 3] {
        let Self { value, spread, tau, kappa, steepness, .. } = self;
        let constant = value * value * tau + value * kappa * 2.0 - spread * tau - steepness;
        [0.5 * self.average(tau), self.average(&(value * tau + kappa)), 0.5 * self.average(&constant)]
    }

    /// The offsets between which pairs do not reduce the variance of REINFORCE: the real roots of [`Self::difference`],
    /// ascending. None if it has none, or is no parabola.
    pub fn no_reduction(&self) -> Option<(f64, f64)> {
        let [a, b, c] = self.difference();
        let discriminant = b * b - 4.0 * a * c;
        // Equal rewards make it zero; what rounding leaves of that is no missing root.
        if a <= 0.0 || discriminant < -1e-13 * b * b {
            return None;
        }
        // The root that adds two numbers of one sign first; the other by Vieta, without cancellation.
        let sum = -0.5 * (b + b.signum() * discriminant.max(0.0).sqrt());
        let (one, other) = (sum / a, if sum == 0.0 { 0.0 } else { c / sum });
        Some((one.min(other), one.max(other)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    /// Two equally likely responses with scores -1/2 and 1/2 and these rewards.
    fn even(rewards: [f64; 2]) -> GradientVariance {
        let bandit = Bandit::new(array![1.0], array![rewards]).unwrap();
        let scores = array![[[-0.5], [0.5]]];
        GradientVariance::new(&bandit, &Policy::uniform(1, 2), scores.view(), &array![[1.0]]).unwrap()
    }

    #[test]
    fn variances_of_two_arms_equal_numbers_by_hand() {
        // gradients of a pair, rewards 0 and 2: REINFORCE 0, 1/2, 1/2, 1; paired 0, 1, 1, 0
        let variance = even([0.0, 2.0]);
        assert_eq!((variance.reinforce(0.0), variance.true_baseline(), variance.paired()), (0.125, 0.0, 0.25));
        assert_eq!(variance.reinforce(-1.0), 0.0);
        assert_eq!(variance.difference(), [0.125, 0.25, -0.125]);
        let (low, high) = variance.no_reduction().unwrap();
        assert!((low + 1.0 + 2f64.sqrt()).abs() < 1e-15 && (high + 1.0 - 2f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn interval_shrinks_to_the_value_without_spread_and_is_missing_without_scores() {
        let (low, high) = even([3.0, 3.0]).no_reduction().unwrap();
        assert_eq!((low, high), (-3.0, -3.0));
        let bandit = Bandit::new(array![1.0], array![[1.0, 2.0]]).unwrap();
        let none =
            GradientVariance::new(&bandit, &Policy::uniform(1, 2), array![[[0.0], [0.0]]].view(), &array![[1.0]]);
        assert_eq!(none.unwrap().no_reduction(), None);
    }

    #[test]
    fn contexts_of_very_different_value_leave_no_offset_at_which_pairs_lose() {
        let bandit = Bandit::new(array![0.5, 0.5], array![[10.0, 11.0], [-10.0, -11.0]]).unwrap();
        let scores = array![[[-0.5], [0.5]], [[-0.5], [0.5]]];
        let variance = GradientVariance::new(&bandit, &Policy::uniform(2, 2), scores.view(), &array![[1.0]]).unwrap();
        assert_eq!(variance.no_reduction(), None);
        assert!(variance.paired() < variance.reinforce(0.0));
    }

    #[test]
    fn metric_of_another_size_is_refused() {
        let bandit = Bandit::new(array![1.0], array![[1.0, 2.0]]).unwrap();
        let scores = array![[[-0.5], [0.5]]];
        let error = GradientVariance::new(&bandit, &Policy::uniform(1, 2), scores.view(), &Array2::eye(2)).unwrap_err();
        assert_eq!(error.to_string(), "W: shape [2, 2] (expected [1, 1])");
    }
}
