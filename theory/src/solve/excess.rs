//! Example 1 of the paper: REBEL's regression as ordinary least squares on sampled pairs, and its error on fresh ones.
//!
//! For a log-linear policy the regression is linear in `w = (theta' - theta)/eta`, with one row
//! $$ u=\phi(x,y)-\phi(x,y') $$ a pair. What Assumption 1 calls $$ \epsilon $$ is the error of the fit on fresh pairs of the same
//! law, $$ (\hat w-w)^\top\Sigma(\hat w-w) $$ with $$ \Sigma=E[u\,u^\top] $$; the training loss is another number.

use crate::bandit::{Bandit, Policy};
use crate::error::{self, InputError};
use crate::policy::centred;
use crate::solve::linear::{SINGULAR_CUTOFF, Singular, singular};
use crate::solve::natural::second_moment;
use ndarray::{Array1, Array2, Array3, ArrayView2, Axis};

/// The second moment of differences of features `[x, y, k]` over independent `y ~ pi`, `y' ~ mu`, `[k, k]`:
///
/// $$ \Sigma=E\big[(\phi-\phi')(\phi-\phi')^\top\big]=2\,E_{(\pi+\mu)/2}[g\,g^\top] $$ with `g` the features centred under `pi`.
pub fn pair_covariance(bandit: &Bandit, pi: &Policy, mu: &Policy, features: &Array3<f64>) -> Array2<f64> {
    let scores = centred(features.clone(), pi);
    second_moment(bandit, &pi.mixture(mu, 0.5), scores.view()) * 2.0
}

/// A sampled design `U` `[n, k]`, decomposed: one row of feature differences a pair, possibly none.
#[derive(Debug, Clone, PartialEq)]
pub struct Design {
    rows: Array2<f64>,  // [n, k]
    left: Array2<f64>,  // [n, rank]
    kept: Array1<f64>,  // [rank], singular values
    right: Array2<f64>, // [rank, k]
}

impl Design {
    /// Decomposes the rows `[n, k]`; directions below [`SINGULAR_CUTOFF`] count as absent.
    pub fn new(rows: Array2<f64>) -> Result<Self, InputError> {
        let (n, k) = rows.dim();
        if n == 0 || k == 0 {
            let (left, right) = (Array2::zeros((n, 0)), Array2::zeros((0, k)));
            return Ok(Self { rows, left, kept: Array1::zeros(0), right });
        }
        let Singular { u, s, vt } = singular("design", &rows)?;
        let cutoff = SINGULAR_CUTOFF * s.fold(0.0, |m: f64, &v| m.max(v));
        let kept: Vec<usize> = (0..s.len()).filter(|&i| s[i] > cutoff).collect();
        let (left, right) = (u.select(Axis(1), &kept), vt.select(Axis(0), &kept));
        Ok(Self { rows, left, kept: s.select(Axis(0), &kept), right })
    }

    /// The rows `[n, k]`.
    pub fn rows(&self) -> &Array2<f64> {
        &self.rows
    }

    /// Number of pairs.
    pub fn pairs(&self) -> usize {
        self.rows.nrows()
    }

    /// Number of directions the pairs determine.
    pub fn rank(&self) -> usize {
        self.kept.len()
    }

    /// The minimum-norm least-squares fit `[k]` to `labels` `[n]`: $$ \hat w=U^+z $$
    pub fn fit(&self, labels: &Array1<f64>) -> Result<Array1<f64>, InputError> {
        error::shape("labels", labels.shape(), &[self.pairs()])?;
        Ok(self.right.t().dot(&(self.left.t().dot(labels) / &self.kept)))
    }

    /// The part of a vector `[n]` that the design can express, $$ H v $$ with the hat matrix $$ H=UU^+ $$
    pub fn projected(&self, v: &Array1<f64>) -> Array1<f64> {
        self.left.dot(&self.left.t().dot(v))
    }

    /// An orthonormal basis of what the design can express, `[n, rank]`.
    pub fn basis(&self) -> ArrayView2<'_, f64> {
        self.left.view()
    }

    /// The pseudo-inverse's rows as sensitivities of the fit to each label, `[k, n]`: $$ U^+ $$
    pub fn sensitivity(&self) -> Array2<f64> {
        (&self.right.t() / &self.kept).dot(&self.left.t())
    }

    /// How far independent label noise of variance 1 is carried into a quadratic error: $$ \mathrm{tr}\,\Sigma(U^\top U)^+ $$
    pub fn amplification(&self, sigma: &Array2<f64>) -> f64 {
        let carried = (&self.right.dot(sigma) * &self.right).sum_axis(Axis(1)); // [rank]
        (&carried / &self.kept.mapv(|s| s * s)).sum()
    }

    /// The expected error of the fit on fresh pairs given the design, for labels $$ U w+e $$ with independent noise `e` of
    /// variance `label_variance` (twice that of one reward query):
    ///
    /// $$ E\,\epsilon=((I-P)w)^\top\Sigma\,(I-P)w+s^2\,\mathrm{tr}\,\Sigma(U^\top U)^+,\qquad P=U^+U $$
    pub fn expected_excess(&self, sigma: &Array2<f64>, w: &Array1<f64>, label_variance: f64) -> Excess {
        let missed = self.right.t().dot(&self.right.dot(w)) - w; // [k]
        Excess { bias: quadratic(sigma, &missed), variance: label_variance * self.amplification(sigma) }
    }
}

/// $$ v^\top\Sigma\,v $$ for a positive semi-definite `Sigma` `[k, k]`.
pub fn quadratic(sigma: &Array2<f64>, v: &Array1<f64>) -> f64 {
    v.dot(&sigma.dot(v))
}

/// The expected error of a fit given its design.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Excess {
    /// What the pairs do not determine.
    pub bias: f64,
    /// What label noise adds.
    pub variance: f64,
}

impl Excess {
    /// $$ E\,\epsilon $$
    pub fn total(&self) -> f64 {
        self.bias + self.variance
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    #[test]
    fn covariance_of_pairs_equals_number_by_hand() {
        let bandit = Bandit::new(array![1.0], array![[0.0, 0.0]]).unwrap();
        let (pi, mu) = (Policy::new("pi", array![[0.25, 0.75]]).unwrap(), Policy::pure(&[0], 2));
        // the pair differs with probability 3/4, by (2, 0)
        let got = pair_covariance(&bandit, &pi, &mu, &array![[[0.0, 7.0], [2.0, 7.0]]]);
        assert_abs_diff_eq!(got, array![[3.0, 0.0], [0.0, 0.0]], epsilon = 1e-15);
    }

    #[test]
    fn fit_error_and_amplification_equal_numbers_by_hand() {
        let design = Design::new(array![[2.0, 0.0], [1.0, 0.0]]).unwrap();
        assert_eq!((design.rank(), design.pairs()), (1, 2));
        assert_abs_diff_eq!(design.fit(&array![1.0, 3.0]).unwrap(), array![1.0, 0.0], epsilon = 1e-14);
        assert_abs_diff_eq!(design.projected(&array![1.0, 3.0]), array![2.0, 1.0], epsilon = 1e-14);
        assert_abs_diff_eq!(design.sensitivity(), array![[0.4, 0.2], [0.0, 0.0]], epsilon = 1e-14);
        let excess = design.expected_excess(&array![[3.0, 1.0], [1.0, 2.0]], &array![5.0, 4.0], 0.5);
        assert_abs_diff_eq!(excess.bias, 32.0, epsilon = 1e-12); // only the second coefficient is missed
        assert_abs_diff_eq!(excess.variance, 0.3, epsilon = 1e-14); // 3 over 5, halved
        assert_eq!(excess.total(), excess.bias + excess.variance);
    }

    #[test]
    fn design_without_rows_fits_zero_and_misses_everything() {
        let design = Design::new(Array2::zeros((0, 2))).unwrap();
        assert_eq!(design.fit(&array![]).unwrap(), array![0.0, 0.0]);
        let excess = design.expected_excess(&Array2::eye(2), &array![3.0, 4.0], 1.0);
        assert_eq!((excess.bias, excess.variance), (25.0, 0.0));
        let zeros = Design::new(Array2::zeros((3, 2))).unwrap();
        assert_eq!((zeros.rank(), zeros.fit(&array![1.0, 2.0, 3.0]).unwrap()), (0, array![0.0, 0.0]));
        assert!(zeros.fit(&array![1.0]).is_err());
    }
}
