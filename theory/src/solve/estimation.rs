//! What can be measured of the error of a fitted predictor (theory 4.1): held out, in sample, with one label or two.
//!
//! A pair is made of two *draws*, a response and its noisy reward each; pairs that share a draw share its noise. With
//! $$ s^2=2\sigma^2 $$ the variance of a pair's label, the held-out loss of any predictor is $$ s^2+\epsilon $$ in expectation, and the
//! training loss is $$ s^2(1-d/N) $$ where the class can express the reward: it says nothing about $$ \epsilon $$.

use crate::bandit::Policy;
use crate::error::{self, InputError};
use crate::solve::decomposition::pair_error;
use crate::solve::excess::{Design, quadratic};
use crate::solve::finite_sample::Pairs;
use crate::statistics::{clustered_standard_error, mean, standard_error};
use ndarray::{Array1, Array2};

/// Pairs of draws: each draw is a response to a context, each pair two draws of one context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawnPairs {
    pairs: Pairs,
    first: Vec<usize>,  // [m], the pair's first draw
    second: Vec<usize>, // [m]
    draws: usize,
}

impl DrawnPairs {
    /// Draws in contexts `x` of responses `y` `[n]`, paired as `i` and `j` `[m]`, of a bandit with `shape` contexts and
    /// responses. Refuses a pair across contexts.
    pub fn new(
        x: &[usize],
        y: &[usize],
        i: Vec<usize>,
        j: Vec<usize>,
        shape: (usize, usize),
    ) -> Result<Self, InputError> {
        error::shape("y", &[y.len()], &[x.len()])?;
        error::shape("j", &[j.len()], &[i.len()])?;
        error::indices("x", x, shape.0)?;
        error::indices("y", y, shape.1)?;
        error::indices("i", &i, x.len())?;
        error::indices("j", &j, x.len())?;
        if let Some(m) = (0..i.len()).find(|&m| x[i[m]] != x[j[m]]) {
            let (index, found, paired) = (vec![m], x[j[m]], x[i[m]]);
            return Err(InputError::AcrossContexts { argument: "j", index, found, expected: paired });
        }
        let at = |of: &[usize], draws: &[usize]| draws.iter().map(|&d| of[d]).collect();
        let pairs = Pairs::new(at(x, &i), at(y, &i), at(y, &j), shape)?;
        Ok(Self { pairs, first: i, second: j, draws: x.len() })
    }

    /// The pairs without their draws.
    pub fn pairs(&self) -> &Pairs {
        &self.pairs
    }

    /// Number of draws.
    pub fn draws(&self) -> usize {
        self.draws
    }

    /// The difference over each pair, `[m]`, of a number per draw `[n]`: $$ B\,v $$ with the incidence matrix `B`.
    pub fn differences(&self, v: &Array1<f64>) -> Result<Array1<f64>, InputError> {
        error::shape("noise", v.shape(), &[self.draws])?;
        Ok(self.first.iter().zip(&self.second).map(|(&i, &j)| v[i] - v[j]).collect())
    }

    /// $$ |B^\top a|^2 $$ for each column `a` of a table `[m, c]`, summed: what noise of variance 1 on every draw adds
    /// to a quadratic form with that square root.
    fn incidence_norm(&self, columns: &Array2<f64>) -> f64 {
        let mut gathered = Array2::<f64>::zeros((self.draws, columns.ncols()));
        for (row, (&i, &j)) in columns.rows().into_iter().zip(self.first.iter().zip(&self.second)) {
            gathered.row_mut(i).scaled_add(1.0, &row);
            gathered.row_mut(j).scaled_add(-1.0, &row);
        }
        gathered.iter().map(|v| v * v).sum()
    }

    /// The cluster of each pair `[m]`: pairs that share a draw, directly or through others, are in one.
    pub fn clusters(&self) -> Vec<usize> {
        let mut parent: Vec<usize> = (0..self.draws).collect();
        for (&i, &j) in self.first.iter().zip(&self.second) {
            let (a, b) = (root(&mut parent, i), root(&mut parent, j));
            parent[a] = b;
        }
        self.first.iter().map(|&i| root(&mut parent, i)).collect()
    }

    /// The expected training loss given the design, for labels of mean `b` `[m]` and noise of standard deviation `sigma` on
    /// every draw:
    ///
    /// $$ \tfrac1N\Big[|(I-H)b|^2+\sigma^2\,\mathrm{tr}\,(I-H)BB^\top\Big] $$
    ///
    /// For disjoint pairs this is $$ 2\sigma^2(1-d/N)+|(I-H)b|^2/N $$. Of no pairs it is NaN.
    pub fn in_sample_expected(&self, design: &Design, b: &Array1<f64>, sigma: f64) -> f64 {
        let misfit = b - &design.projected(b);
        let total = 2.0 * self.first.iter().zip(&self.second).filter(|(i, j)| i != j).count() as f64; // tr BB'
        let explained = self.incidence_norm(&design.basis().to_owned()); // tr HBB'
        (misfit.dot(&misfit) + sigma * sigma * (total - explained)) / self.first.len() as f64
    }

    /// What noise of standard deviation `sigma` on every draw adds to the expected error of the fit on fresh pairs with
    /// feature covariance `Sigma` `[k, k]`:
    ///
    /// $$ \sigma^2\,\mathrm{tr}\,{U^+}^\top\Sigma\,U^+BB^\top $$
    pub fn noise_excess(&self, design: &Design, covariance: &Array2<f64>, sigma: f64) -> f64 {
        let sensitivity = design.sensitivity(); // [k, m]
        let mut gathered = Array2::<f64>::zeros((sensitivity.nrows(), self.draws)); // U^+ B
        for (m, (&i, &j)) in self.first.iter().zip(&self.second).enumerate() {
            let column = sensitivity.column(m);
            gathered.column_mut(i).scaled_add(1.0, &column);
            gathered.column_mut(j).scaled_add(-1.0, &column);
        }
        let carried = gathered.columns().into_iter().map(|c| quadratic(covariance, &c.to_owned()));
        sigma * sigma * carried.sum::<f64>()
    }
}

fn root(parent: &mut [usize], mut at: usize) -> usize {
    while parent[at] != at {
        parent[at] = parent[parent[at]]; // halving the path keeps the next walks short
        at = parent[at];
    }
    at
}

/// Moments of a predictor's error `delta = f - r` `[x, y]` over fresh pairs, $$ \delta=\Delta(y)-\Delta(y') $$
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorMoments {
    /// $$ \epsilon=E\,\delta^2 $$
    pub second: f64,
    /// $$ E\,\delta^4 $$
    pub fourth: f64,
}

impl ErrorMoments {
    /// Under contexts of these `weights` `[x]` and independent `y ~ first`, `y' ~ second`.
    pub fn new(weights: &Array1<f64>, first: &Policy, second: &Policy, delta: &Array2<f64>) -> Self {
        let mut fourth = 0.0;
        for (x, &weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
            let (p, q) = (first.prob().row(x), second.prob().row(x));
            for (&p, &one) in p.iter().zip(delta.row(x)).filter(|(p, _)| **p > 0.0) {
                let term = |(&q, &other): (&f64, &f64)| q * (one - other).powi(4);
                fourth += weight * p * q.iter().zip(delta.row(x)).map(term).sum::<f64>();
            }
        }
        Self { second: pair_error(weights, first, second, delta).total(), fourth }
    }

    /// The variance of the squared error itself: $$ E\,\delta^4-\epsilon^2 $$
    fn own(&self) -> f64 {
        (self.fourth - self.second * self.second).max(0.0)
    }

    /// The standard error of $$ L_{out}-s^2 $$ from `pairs` disjoint held-out pairs with Gaussian label noise of known variance
    /// $$ s^2 $$: $$ \sqrt{[E\delta^4-\epsilon^2+4s^2\epsilon+2s^4]/M} $$ With $$ s=0 $$ that of the held-out loss of a
    /// deterministic reward.
    pub fn known_noise_error(&self, label_variance: f64, pairs: usize) -> f64 {
        let s2 = label_variance;
        ((self.own() + 4.0 * s2 * self.second + 2.0 * s2 * s2) / pairs as f64).sqrt()
    }

    /// The standard error of the product estimator, mean of $$ (p-z_1)(p-z_2) $$ with two independent labels a pair:
    /// $$ \sqrt{[E\delta^4-\epsilon^2+2s^2\epsilon+s^4]/M} $$
    pub fn two_label_error(&self, label_variance: f64, pairs: usize) -> f64 {
        let s2 = label_variance;
        ((self.own() + 2.0 * s2 * self.second + s2 * s2) / pairs as f64).sqrt()
    }
}

/// What held-out pairs measure of a predictor; a mean of nothing, and a standard error of one, are NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldOut {
    /// The held-out loss, mean of $$ (p-z)^2 $$
    pub loss: f64,
    /// The mean of $$ (p-z_1)(p-z_2) $$: an estimate of $$ \epsilon $$ that needs no $$ s^2 $$
    pub two_labels: f64,
    /// The standard error of the loss as if all pairs were independent.
    pub naive_error: f64,
    /// The same, pairs that share draws taken together.
    pub clustered_error: f64,
    /// The clustered standard error of the product estimator.
    pub two_labels_error: f64,
}

impl HeldOut {
    /// From the errors `predicted - label` of each pair, under its first and under its second label, `[m]` each, and the
    /// pairs' clusters `[m]`.
    pub fn new(error: &Array1<f64>, again: &Array1<f64>, clusters: &[usize]) -> Self {
        let squares: Vec<f64> = error.iter().map(|e| e * e).collect();
        let products: Vec<f64> = error.iter().zip(again).map(|(a, b)| a * b).collect();
        Self {
            loss: mean(&squares),
            two_labels: mean(&products),
            naive_error: standard_error(&squares),
            clustered_error: clustered_standard_error(&squares, clusters),
            two_labels_error: clustered_standard_error(&products, clusters),
        }
    }
}

/// The estimation part of $$ \epsilon $$ from both losses, $$ L_{out}-L_{in}/(1-d/N) $$: blind to what the class cannot express.
/// None where the fit interpolates (rank `d = N`) and the training loss says nothing at all.
pub fn corrected_by_training(held_out: f64, in_sample: f64, rank: usize, pairs: usize) -> Option<f64> {
    (rank < pairs).then(|| held_out - in_sample / (1.0 - rank as f64 / pairs as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    /// All three pairs of three draws of one context.
    fn triangle() -> DrawnPairs {
        DrawnPairs::new(&[0, 0, 0], &[0, 1, 1], vec![0, 0, 1], vec![1, 2, 2], (1, 2)).unwrap()
    }

    #[test]
    fn shared_noise_leaves_the_training_loss_that_is_computed_by_hand() {
        // rows 1, 1, 0: H = diag-block of halves; BB' = [[2,1,-1],[1,2,1],[-1,1,2]], tr HBB' = (2+1+1+2)/2 = 3
        let design = Design::new(array![[1.0], [1.0], [0.0]]).unwrap();
        let b = array![1.0, 3.0, 2.0]; // (I-H)b = (-1, 1, 2)
        assert_abs_diff_eq!(triangle().in_sample_expected(&design, &b, 2.0), (6.0 + 4.0 * 3.0) / 3.0, epsilon = 1e-13);
        // U^+ = (1/2, 1/2, 0), U^+ B = (1, -1/2, -1/2)
        assert_abs_diff_eq!(triangle().noise_excess(&design, &array![[3.0]], 2.0), 4.0 * 4.5, epsilon = 1e-13);
    }

    #[test]
    fn pairs_that_share_a_draw_are_one_cluster() {
        let chain = DrawnPairs::new(&[0; 7], &[0; 7], vec![0, 1, 3, 5], vec![1, 2, 4, 3], (1, 1)).unwrap();
        let clusters = chain.clusters();
        assert_eq!((clusters[0], clusters[2]), (clusters[1], clusters[3]));
        assert_ne!(clusters[0], clusters[2]);
        assert_eq!(triangle().differences(&array![1.0, 2.0, 4.0]).unwrap(), array![-1.0, -3.0, -2.0]);
    }

    #[test]
    fn pair_across_contexts_is_refused() {
        let error = DrawnPairs::new(&[0, 0, 1], &[0, 0, 0], vec![0, 1], vec![1, 2], (2, 1)).unwrap_err();
        assert_eq!(error.to_string(), "j[1]: is a draw of context 1, its pair of context 0 (expected one context)");
        assert!(DrawnPairs::new(&[0], &[0], vec![0], vec![1], (1, 1)).is_err());
        assert!(triangle().differences(&array![1.0]).is_err());
    }

    #[test]
    fn moments_and_standard_errors_equal_numbers_by_hand() {
        let (even, weights) = (Policy::uniform(1, 2), array![1.0]);
        let moments = ErrorMoments::new(&weights, &even, &even, &array![[0.0, 2.0]]); // delta 0 or +-2, even odds
        assert_eq!((moments.second, moments.fourth), (2.0, 8.0));
        assert_eq!(moments.known_noise_error(0.0, 4), 1.0);
        assert_abs_diff_eq!(moments.known_noise_error(3.0, 1), (4.0f64 + 24.0 + 18.0).sqrt(), epsilon = 1e-14);
        assert_abs_diff_eq!(moments.two_label_error(3.0, 1), (4.0f64 + 12.0 + 9.0).sqrt(), epsilon = 1e-14);
    }

    #[test]
    fn training_loss_of_an_interpolating_fit_corrects_nothing() {
        assert_eq!(corrected_by_training(5.0, 0.0, 3, 3), None);
        assert_eq!(corrected_by_training(5.0, 2.0, 5, 10), Some(1.0));
    }
}
