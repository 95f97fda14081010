//! The finite contextual bandit of section 2 of the paper: contexts `x ~ rho`, responses `y`, a reward `r(x,y)`.
//!
//! A response is one arm, however many tokens it has. Everything here is enumerated, so every expectation is exact.
//! [`Bandit`] and [`Policy`] are checked when they are made; what takes them never checks again.

use crate::error::{self, InputError};
use crate::kernels::{Level, ln_in_place, normalise_row};
use ndarray::{Array1, Array2, Zip};

/// A finite contextual bandit: context weights `rho` `[x]`, rewards `r` `[x, y]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Bandit {
    weights: Array1<f64>, // [x]
    reward: Array2<f64>,  // [x, y]
}

/// A table of distributions over responses, one row a context: a policy, or any other sampling law `mu(y|x)`.
///
/// It keeps log-probabilities beside the probabilities, so that a KL between two nearly deterministic policies stays
/// exact where the probabilities themselves underflow. A response of probability zero has log-probability `-inf`.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    prob: Array2<f64>, // [x, y]
    log: Array2<f64>,  // [x, y]
}

/// The average over contexts with `weights` `[x]` of a value per context `[x]`: $$ E_{x\sim\rho}\,v(x) $$
/// A context of weight zero contributes nothing, even where its value is infinite.
pub fn average(weights: &Array1<f64>, value: &Array1<f64>) -> f64 {
    Zip::from(weights).and(value).fold(0.0, |sum, &w, &v| if w > 0.0 { sum + w * v } else { sum })
}

/// The index of the largest entry of each row of a table `[x, y]`; among equal maxima the first.
pub fn best_responses(table: &Array2<f64>) -> Vec<usize> {
    let first_maximum = |row: ndarray::ArrayView1<f64>| {
        row.iter().enumerate().fold(0, |best, (y, &r)| if r > row[best] { y } else { best })
    };
    table.rows().into_iter().map(first_maximum).collect()
}

impl Bandit {
    /// A bandit with context weights `rho` `[x]` (a distribution) and rewards `[x, y]` (finite).
    pub fn new(weights: Array1<f64>, reward: Array2<f64>) -> Result<Self, InputError> {
        error::distribution("rho", &[], weights.view())?;
        error::finite("r", &reward)?;
        error::shape("r", reward.shape(), &[weights.len(), reward.ncols()])?;
        Ok(Self { weights, reward })
    }

    /// Number of contexts, `|X|`.
    pub fn contexts(&self) -> usize {
        self.reward.nrows()
    }

    /// Number of responses, `|Y|`.
    pub fn responses(&self) -> usize {
        self.reward.ncols()
    }

    /// Context weights `rho` `[x]`.
    pub fn weights(&self) -> &Array1<f64> {
        &self.weights
    }

    /// Rewards `r` `[x, y]`.
    pub fn reward(&self) -> &Array2<f64> {
        &self.reward
    }

    /// The same contexts with another reward `[x, y]`.
    pub fn with_reward(&self, reward: Array2<f64>) -> Result<Self, InputError> {
        error::shape("r", reward.shape(), self.reward.shape())?;
        Self::new(self.weights.clone(), reward)
    }

    /// The average over contexts of a value per context `[x]`, see [`average`].
    pub fn average(&self, value: &Array1<f64>) -> f64 {
        average(&self.weights, value)
    }

    /// The value of a policy: $$ J(\pi)=E_{x\sim\rho}E_{y\sim\pi(\cdot|x)}\,r(x,y) $$
    pub fn value(&self, pi: &Policy) -> f64 {
        self.average(&pi.expectation(&self.reward))
    }

    /// The best response of each context `[x]`; among equal maxima the first.
    pub fn best(&self) -> Vec<usize> {
        best_responses(&self.reward)
    }

    /// The value of the best policy: $$ J^*=E_x\max_y r(x,y) $$
    pub fn optimum(&self) -> f64 {
        let best = self.best();
        self.average(&Array1::from_shape_fn(self.contexts(), |x| self.reward[[x, best[x]]]))
    }

    /// The advantage under `pi` `[x, y]`: $$ A(x,y)=r(x,y)-E_{y'\sim\pi(\cdot|x)}\,r(x,y') $$
    pub fn advantage(&self, pi: &Policy) -> Array2<f64> {
        let mean = pi.expectation(&self.reward).insert_axis(ndarray::Axis(1)); // [x, 1]
        &self.reward - &mean
    }

    /// The largest reward range of any context: $$ \Delta=\max_x\big(\max_y r(x,y)-\min_y r(x,y)\big) $$
    pub fn range(&self) -> f64 {
        let spread = |row: ndarray::ArrayView1<f64>| {
            row.fold(f64::NEG_INFINITY, |m, &r| m.max(r)) - row.fold(f64::INFINITY, |m, &r| m.min(r))
        };
        self.reward.rows().into_iter().map(spread).fold(0.0, f64::max)
    }

    /// The average over contexts of a divergence: $$ E_x\,\mathrm{KL}(p(\cdot|x)\,\|\,q(\cdot|x)) $$ in nats.
    pub fn kl(&self, p: &Policy, q: &Policy) -> f64 {
        self.average(&p.kl(q))
    }
}

impl Policy {
    /// A policy from its probabilities `[x, y]`; `argument` is the name an error carries.
    pub fn new(argument: &'static str, prob: Array2<f64>) -> Result<Self, InputError> {
        error::distributions(argument, prob.view())?;
        Ok(Self::of_probabilities(prob))
    }

    fn of_probabilities(prob: Array2<f64>) -> Self {
        let mut log = prob.as_standard_layout().into_owned();
        ln_in_place(log.as_slice_mut().expect("standard layout"));
        Self { prob, log }
    }

    /// A policy of log-probabilities and probabilities that were normalised together, `[x, y]`.
    pub(crate) fn from_parts(log: Array2<f64>, prob: Array2<f64>) -> Self {
        Self { prob, log }
    }

    /// The softmax of logits `[x, y]`: $$ \pi(y|x)\propto e^{s(x,y)} $$
    /// A logit of `-inf` is a response of probability zero; each row needs one finite logit, and none `+inf` or NaN.
    pub fn from_logits(logits: &Array2<f64>) -> Self {
        let mut log = logits.as_standard_layout().into_owned();
        let mut prob = Array2::zeros(log.dim());
        let level = Level::best();
        for (mut log, mut prob) in log.rows_mut().into_iter().zip(prob.rows_mut()) {
            let contiguous = "standard layout";
            normalise_row(level, log.as_slice_mut().expect(contiguous), prob.as_slice_mut().expect(contiguous));
        }
        Self { prob, log }
    }

    /// The uniform policy over `responses` in each of `contexts`.
    pub fn uniform(contexts: usize, responses: usize) -> Self {
        Self::from_logits(&Array2::zeros((contexts, responses)))
    }

    /// The deterministic policy that plays `response[x]` among `responses`.
    pub fn pure(response: &[usize], responses: usize) -> Self {
        let log = Array2::from_shape_fn((response.len(), responses), |(x, y)| match y == response[x] {
            true => 0.0,
            false => f64::NEG_INFINITY,
        });
        Self { prob: log.mapv(f64::exp), log }
    }

    /// The mixture $$ (1-a)\,p+a\,q $$ of two policies, `a` in `[0, 1]`.
    pub fn mixture(&self, other: &Policy, a: f64) -> Self {
        Self::of_probabilities(&self.prob * (1.0 - a) + &other.prob * a)
    }

    /// Probabilities `[x, y]`.
    pub fn prob(&self) -> &Array2<f64> {
        &self.prob
    }

    /// Log-probabilities `[x, y]`, nats.
    pub fn log(&self) -> &Array2<f64> {
        &self.log
    }

    /// The expectation of `f` `[x, y]` in each context `[x]`: $$ E_{y\sim\pi(\cdot|x)} f(x,y) $$
    /// Responses of probability zero contribute nothing.
    pub fn expectation(&self, f: &Array2<f64>) -> Array1<f64> {
        let terms = Zip::from(&self.prob).and(f).map_collect(|&p, &v| if p > 0.0 { p * v } else { 0.0 });
        terms.sum_axis(ndarray::Axis(1))
    }

    /// The divergence of each context `[x]`, nats: $$ \mathrm{KL}(p\|q)=\sum_y p(y)\ln\frac{p(y)}{q(y)} $$
    /// Infinite where `q` misses a response of `p`.
    pub fn kl(&self, other: &Policy) -> Array1<f64> {
        let term = |&p: &f64, &lp: &f64, &lq: &f64| if p > 0.0 { p * (lp - lq) } else { 0.0 };
        let terms = Zip::from(&self.prob).and(&self.log).and(&other.log).map_collect(term);
        terms.sum_axis(ndarray::Axis(1))
    }

    /// The total variation of each context `[x]`: $$ \tfrac12\sum_y|p(y)-q(y)| $$
    pub fn total_variation(&self, other: &Policy) -> Array1<f64> {
        (&self.prob - &other.prob).mapv(f64::abs).sum_axis(ndarray::Axis(1)) / 2.0
    }

    /// The largest difference of two probabilities anywhere.
    pub fn distance(&self, other: &Policy) -> f64 {
        (&self.prob - &other.prob).fold(0.0, |worst, d| f64::max(worst, d.abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    fn two_contexts() -> Bandit {
        Bandit::new(array![0.25, 0.75], array![[1.0, 3.0], [2.0, -2.0]]).unwrap()
    }

    #[test]
    fn value_optimum_and_advantage_equal_numbers_by_hand() {
        let pi = Policy::new("pi", array![[0.5, 0.5], [0.25, 0.75]]).unwrap();
        assert_abs_diff_eq!(two_contexts().value(&pi), 0.25 * 2.0 - 0.75, epsilon = 1e-15);
        assert_abs_diff_eq!(two_contexts().optimum(), 0.25 * 3.0 + 0.75 * 2.0, epsilon = 1e-15);
        assert_abs_diff_eq!(two_contexts().advantage(&pi), array![[-1.0, 1.0], [3.0, -1.0]], epsilon = 1e-15);
        assert_eq!(two_contexts().range(), 4.0);
    }

    #[test]
    fn divergence_of_half_from_quarter_is_half_ln_four_thirds() {
        let p = Policy::new("p", array![[0.5, 0.5]]).unwrap();
        let q = Policy::new("q", array![[0.25, 0.75]]).unwrap();
        assert_abs_diff_eq!(p.kl(&q)[0], 0.5 * (4.0f64 / 3.0).ln(), epsilon = 1e-15);
        assert_abs_diff_eq!(p.total_variation(&q)[0], 0.25, epsilon = 1e-15);
    }

    #[test]
    fn zero_probability_counts_nothing_in_one_direction_and_infinity_in_the_other() {
        let sure = Policy::pure(&[1], 2);
        let even = Policy::uniform(1, 2);
        assert_abs_diff_eq!(sure.kl(&even)[0], 2.0f64.ln(), epsilon = 1e-15);
        assert_eq!(even.kl(&sure)[0], f64::INFINITY);
        assert_eq!(sure.kl(&sure)[0], 0.0);
    }

    #[test]
    fn context_of_weight_zero_contributes_nothing() {
        let bandit = Bandit::new(array![0.0, 1.0], array![[9.0, 9.0], [1.0, 0.0]]).unwrap();
        assert_eq!(bandit.optimum(), 1.0);
        assert_eq!(bandit.kl(&Policy::pure(&[0, 0], 2), &Policy::pure(&[1, 0], 2)), 0.0);
    }

    #[test]
    fn first_of_equal_maxima_is_best() {
        let bandit = Bandit::new(array![1.0], array![[0.0, 2.0, 2.0]]).unwrap();
        assert_eq!(bandit.best(), [1]);
    }

    #[test]
    fn constructor_refuses_what_is_no_bandit() {
        assert!(Bandit::new(array![0.5, 0.4], array![[1.0], [1.0]]).is_err());
        assert!(Bandit::new(array![1.0], array![[f64::INFINITY]]).is_err());
        let error = Bandit::new(array![1.0], array![[1.0], [1.0]]).unwrap_err();
        assert_eq!(error.to_string(), "r: shape [2, 1] (expected [1, 1])");
        assert!(Bandit::new(array![1.0], Array2::zeros((1, 0))).is_err());
    }
}
