//! The same decompositions by LAPACK: a second, independent route, used to check the first.

use super::{Singular, Spectrum};
use crate::error::{self, InputError};
use ndarray::Array2;
use ndarray_linalg::{Eigh, JobSvd, SVDDC, UPLO};

/// As [`super::spectrum`], by LAPACK's `dsyev`.
pub fn spectrum(argument: &'static str, matrix: &Array2<f64>) -> Result<Spectrum, InputError> {
    error::finite(argument, matrix)?;
    let (values, vectors) = matrix.eigh(UPLO::Lower).map_err(|_| InputError::NoConvergence { argument })?;
    Ok(Spectrum { values, vectors })
}

/// As [`super::singular`], by LAPACK's `dgesdd`.
pub fn singular(argument: &'static str, design: &Array2<f64>) -> Result<Singular, InputError> {
    error::finite(argument, design)?;
    let (u, s, vt) = design.svddc(JobSvd::Some).map_err(|_| InputError::NoConvergence { argument })?;
    let (u, vt) = u.zip(vt).expect("both sides were asked for");
    Ok(Singular { u, s, vt })
}

#[cfg(test)]
mod tests {
    use super::super as native;
    use approx::assert_abs_diff_eq;
    use ndarray::{Array, Array1, Array2};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, StandardNormal};

    /// A random `[n, k]` matrix of rank at most `rank`.
    fn random(rng: &mut ChaCha8Rng, n: usize, k: usize, rank: usize) -> Array2<f64> {
        let mut normal =
            |shape: (usize, usize)| Array::from_shape_simple_fn(shape, || StandardNormal.sample(&mut *rng));
        let left: Array2<f64> = normal((n, rank));
        left.dot(&normal((rank, k)))
    }

    #[test]
    fn lapack_agrees_with_nalgebra() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (n, k, rank) in [(1, 1, 1), (5, 3, 3), (3, 7, 3), (40, 12, 5), (6, 6, 2), (200, 21, 20), (9, 9, 9)] {
            for _ in 0..20 {
                let design = random(&mut rng, n, k, rank);
                let target: Array1<f64> = random(&mut rng, n, 1, 1).column(0).to_owned();
                let ours = native::least_squares_of(&native::singular("design", &design).unwrap(), &target);
                let theirs = native::least_squares_of(&super::singular("design", &design).unwrap(), &target);
                assert_eq!((ours.rank, theirs.rank), (rank, rank));
                let scale = theirs.solution.fold(1.0, |m: f64, v| m.max(v.abs()));
                assert_abs_diff_eq!(ours.solution, theirs.solution, epsilon = 1e-10 * scale);

                let fisher = design.t().dot(&design);
                let b = design.t().dot(&target);
                let ours = native::pseudo_solve(&native::spectrum("F", &fisher).unwrap(), &b);
                let theirs = native::pseudo_solve(&super::spectrum("F", &fisher).unwrap(), &b);
                assert_eq!((ours.rank, theirs.rank), (rank, rank));
                assert_abs_diff_eq!(ours.solution, theirs.solution, epsilon = 1e-8 * scale);
            }
        }
    }
}
