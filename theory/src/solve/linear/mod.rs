//! Minimum-norm linear algebra over nalgebra; the feature `lapack` adds a second route to hold it against.
//!
//! Which directions count as zero decides every rank-deficient answer, so the cutoffs are stated once, here.

mod jacobi;
#[cfg(feature = "lapack")]
pub mod lapack;

use crate::error::{self, InputError};
use nalgebra::DMatrix;
use ndarray::{Array1, Array2};

/// Eigenvalues of a positive semi-definite matrix below this times the largest count as zero.
pub const EIGENVALUE_CUTOFF: f64 = 1e-10;

/// Singular values of a design below this times the largest count as zero.
pub const SINGULAR_CUTOFF: f64 = 1e-7;

/// Rounds after which a decomposition is given up; usual problems take a few times their size.
const MAX_ROUNDS: usize = 100_000;

/// The solution of least norm `[k]`, and the rank of what was solved.
#[derive(Debug, Clone, PartialEq)]
pub struct MinNorm {
    /// The solution `[k]`.
    pub solution: Array1<f64>,
    /// Number of directions that were not cut off.
    pub rank: usize,
}

/// Eigenvalues `[k]`, in no particular order, and eigenvectors as columns `[k, k]` of a symmetric matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    /// Eigenvalues `[k]`.
    pub values: Array1<f64>,
    /// Eigenvectors, one a column `[k, k]`.
    pub vectors: Array2<f64>,
}

/// A thin singular value decomposition $$ U\,\mathrm{diag}(s)\,V^\top $$ with `u` `[n, m]`, `s` `[m]`, `vt` `[m, k]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Singular {
    /// Left vectors, one a column `[n, m]`.
    pub u: Array2<f64>,
    /// Singular values `[m]`.
    pub s: Array1<f64>,
    /// Right vectors, one a row `[m, k]`.
    pub vt: Array2<f64>,
}

/// The spectrum of a symmetric matrix `[k, k]`; `argument` names it in errors.
pub fn spectrum(argument: &'static str, matrix: &Array2<f64>) -> Result<Spectrum, InputError> {
    error::finite(argument, matrix)?;
    let failed = InputError::NoConvergence { argument };
    let eigen = nalgebra::SymmetricEigen::try_new(to_nalgebra(matrix), f64::EPSILON, MAX_ROUNDS).ok_or(failed)?;
    Ok(Spectrum { values: eigen.eigenvalues.iter().copied().collect(), vectors: to_ndarray(&eigen.eigenvectors) })
}

/// The singular value decomposition of a design `[n, k]`; `argument` names it in errors.
pub fn singular(argument: &'static str, design: &Array2<f64>) -> Result<Singular, InputError> {
    error::finite(argument, design)?;
    let failed = || InputError::NoConvergence { argument };
    let largest = design.fold(0.0, |m: f64, v| m.max(v.abs()));
    if largest > 0.0 && !(1e-100..1e100).contains(&largest) {
        // Squares of such entries leave the range of f64.
        let Singular { u, s, vt } = singular(argument, &(design / largest))?;
        return Ok(Singular { u, s: s * largest, vt });
    }
    let matrix = to_nalgebra(design);
    if matrix.nrows() >= matrix.ncols() {
        let (u, s, v) = jacobi::decompose(matrix).ok_or_else(failed)?;
        return Ok(Singular { u: to_ndarray(&u), s: s.into(), vt: to_ndarray(&v.transpose()) });
    }
    let (v, s, u) = jacobi::decompose(matrix.transpose()).ok_or_else(failed)?;
    Ok(Singular { u: to_ndarray(&u), s: s.into(), vt: to_ndarray(&v.transpose()) })
}

/// The pseudo-inverse of a positive semi-definite matrix applied to a vector, $$ F^+ b $$ with `F` `[k, k]`, `b` `[k]`.
pub fn pseudo_solve(spectrum: &Spectrum, b: &Array1<f64>) -> MinNorm {
    let largest = spectrum.values.fold(0.0, |m: f64, &v| m.max(v));
    pseudo_solve_above(spectrum, b, EIGENVALUE_CUTOFF * largest)
}

/// As [`pseudo_solve`], counting eigenvalues at or below `cutoff` as zero: for one block of a larger matrix.
pub fn pseudo_solve_above(spectrum: &Spectrum, b: &Array1<f64>, cutoff: f64) -> MinNorm {
    let kept = spectrum.values.mapv(|v| if v > cutoff { 1.0 / v } else { 0.0 });
    let coefficients = spectrum.vectors.t().dot(b) * &kept;
    MinNorm { solution: spectrum.vectors.dot(&coefficients), rank: kept.iter().filter(|&&k| k > 0.0).count() }
}

/// The pseudo-inverse $$ F^+ $$ of a positive semi-definite matrix `[k, k]`, under the cutoff of [`pseudo_solve`].
pub fn pseudo_inverse(spectrum: &Spectrum) -> Array2<f64> {
    let cutoff = EIGENVALUE_CUTOFF * spectrum.values.fold(0.0, |m: f64, &v| m.max(v));
    let kept = spectrum.values.mapv(|v| if v > cutoff { 1.0 / v } else { 0.0 });
    (&spectrum.vectors * &kept).dot(&spectrum.vectors.t())
}

/// The minimum-norm least-squares solution of a decomposed design, $$ V\,\mathrm{diag}(s)^+U^\top t $$ for `target` `[n]`.
pub fn least_squares_of(svd: &Singular, target: &Array1<f64>) -> MinNorm {
    let cutoff = SINGULAR_CUTOFF * svd.s.fold(0.0, |m: f64, &v| m.max(v));
    let kept = svd.s.mapv(|s| if s > cutoff { 1.0 / s } else { 0.0 });
    let coefficients = svd.u.t().dot(target) * &kept;
    MinNorm { solution: svd.vt.t().dot(&coefficients), rank: kept.iter().filter(|&&k| k > 0.0).count() }
}

/// The least-squares solution of least norm, $$ \arg\min_w\|Uw-t\|^2 $$ for a design `U` `[n, k]` and target `t` `[n]`.
///
/// A design without rows has the solution zero and rank zero.
pub fn least_squares(design: &Array2<f64>, target: &Array1<f64>) -> Result<MinNorm, InputError> {
    error::shape("target", target.shape(), &[design.nrows()])?;
    if design.nrows() == 0 {
        return Ok(MinNorm { solution: Array1::zeros(design.ncols()), rank: 0 });
    }
    Ok(least_squares_of(&singular("design", design)?, target))
}

fn to_nalgebra(matrix: &Array2<f64>) -> DMatrix<f64> {
    DMatrix::from_row_iterator(matrix.nrows(), matrix.ncols(), matrix.iter().copied())
}

fn to_ndarray(matrix: &DMatrix<f64>) -> Array2<f64> {
    Array2::from_shape_fn(matrix.shape(), |index| matrix[index])
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    #[test]
    fn tiny_and_huge_designs_have_the_decomposition_of_moderate_ones() {
        let design = array![[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]];
        let s = singular("design", &design).unwrap().s;
        for scale in [1e-170, 1e170] {
            let scaled = singular("design", &(&design * scale)).unwrap().s;
            assert!(scaled.iter().zip(&s).all(|(a, b)| (a / (b * scale) - 1.0).abs() < 1e-13), "{scaled}");
        }
    }

    #[test]
    fn pseudo_inverse_of_singular_matrix_equals_number_by_hand() {
        let f = array![[2.0, 2.0], [2.0, 2.0]]; // F^+ = F/16
        let got = pseudo_solve(&spectrum("F", &f).unwrap(), &array![3.0, 1.0]);
        assert_abs_diff_eq!(got.solution, array![0.5, 0.5], epsilon = 1e-14);
        assert_eq!(got.rank, 1);
        assert_abs_diff_eq!(pseudo_inverse(&spectrum("F", &f).unwrap()), &f / 16.0, epsilon = 1e-15);
    }

    #[test]
    fn underdetermined_system_gets_solution_of_least_norm() {
        let got = least_squares(&array![[1.0, 2.0, 2.0]], &array![9.0]).unwrap();
        assert_abs_diff_eq!(got.solution, array![1.0, 2.0, 2.0], epsilon = 1e-14);
        assert_eq!(got.rank, 1);
    }

    #[test]
    fn overdetermined_system_gets_least_squares() {
        let design = array![[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]];
        let got = least_squares(&design, &array![0.0, 1.0, 5.0]).unwrap(); // mean 2, slope 5/2
        assert_abs_diff_eq!(got.solution, array![-0.5, 2.5], epsilon = 1e-13);
        assert_eq!(got.rank, 2);
    }

    #[test]
    fn design_of_zeros_or_of_no_rows_has_solution_zero() {
        assert_eq!(least_squares(&Array2::zeros((3, 2)), &array![1.0, 2.0, 3.0]).unwrap().rank, 0);
        assert_eq!(least_squares(&Array2::zeros((0, 2)), &array![]).unwrap().solution, array![0.0, 0.0]);
    }

    #[test]
    fn matrix_that_is_not_finite_is_refused() {
        assert!(spectrum("F", &array![[f64::NAN]]).is_err());
        assert!(least_squares(&array![[f64::INFINITY]], &array![1.0]).is_err());
    }

    #[cfg(not(feature = "lapack"))]
    #[test]
    #[ignore = "needs --features lapack"]
    fn lapack_agrees_with_nalgebra() {}
}
