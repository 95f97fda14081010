//! Cholesky's factorisation of small positive definite matrices, with right-hand sides carried along.
//!
//! A system of order `n` is a square `[width, width]`, `width` a multiple of [`WIDTH`] and above `n`: the matrix on and above
//! the diagonal in its first `n` rows and columns, right-hand sides in columns from `n` on. What lies below the diagonal or
//! in the rows from `n` on is never read, and may be overwritten.

use super::product::{WIDTH, add_block, add_gram};
use super::{Level, wide};

/// Factorises one panel, the rows of `panel`, whose first diagonal entry is in column `start`.
#[inline(always)]
fn factor_panel(panel: &mut [f64], start: usize, width: usize) -> bool {
    for k in 0..panel.len() / width {
        let (done, rest) = panel.split_at_mut(k * width);
        let row = &mut rest[start..width];
        for earlier in done.chunks_exact(width) {
            let factor = -earlier[start + k];
            for (value, &above) in row.iter_mut().zip(&earlier[start..]) {
                *value = factor.mul_add(above, *value);
            }
        }
        let pivot = row[k];
        if pivot.is_nan() || pivot <= 0.0 {
            return false;
        }
        let scale = 1.0 / pivot.sqrt();
        for value in row {
            *value *= scale;
        }
    }
    true
}

/// Panels of [`WIDTH`] rows, each subtracted from all rows below it by [`add_gram`], in tiles of `R` rows.
#[inline(always)]
fn factor_by<const R: usize>(system: &mut [f64], n: usize, width: usize) -> bool {
    let mut copy = vec![0.0; WIDTH * width];
    for start in (0..n).step_by(WIDTH) {
        let end = (start + WIDTH).min(n);
        let panel = &mut system[start * width..end * width];
        if !factor_panel(panel, start, width) {
            return false;
        }
        if end < n {
            copy.copy_from_slice(panel);
            add_gram::<R, true>(&copy, width, end, system);
        }
    }
    true
}

wide! {
    fn factor_by_eight(system: &mut [f64], n: usize, width: usize) -> bool {
        factor_by::<8>(system, n, width)
    }
}

wide! {
    fn factor_by_four(system: &mut [f64], n: usize, width: usize) -> bool {
        factor_by::<4>(system, n, width)
    }
}

/// Factorises $$ A=R^\top R $$ in place, `R` above the diagonal; a right-hand side `b` becomes the solution of
/// $$ R^\top c=b $$ Whether every pivot was positive; where one was not, the system is spoilt.
///
/// Limited by multiplications for orders of a hundred, by the roots and divisions of the panels for smaller ones.
pub fn factor(level: Level, system: &mut [f64], n: usize, width: usize) -> bool {
    assert!(width.is_multiple_of(WIDTH) && n < width && system.len() == width * width, "a square with room for b");
    match level.is_widest() {
        true => factor_by_eight(level, system, n, width),
        false => factor_by_four(level, system, n, width),
    }
}

/// The inner product, in [`WIDTH`] partial sums.
#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a_blocks, a_tail), (b_blocks, b_tail)) = (a.as_chunks::<WIDTH>(), b.as_chunks::<WIDTH>());
    let mut sums = [0.0; WIDTH];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for i in 0..WIDTH {
            sums[i] = a[i].mul_add(b[i], sums[i]);
        }
    }
    for (i, (a, &b)) in a_tail.iter().zip(b_tail).enumerate() {
        sums[i] = a.mul_add(b, sums[i]);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

wide! {
    /// The solution `[n]` of $$ Rx=c $$ for a factored system and its column `column`: of $$ Ax=b $$ for what was there.
    pub fn solve_factored(system: &[f64], width: usize, column: usize, solution: &mut [f64]) {
        let n = solution.len();
        for k in (0..n).rev() {
            let row = &system[k * width..(k + 1) * width];
            solution[k] = (row[column] - dot(&row[k + 1..n], &solution[k + 1..])) / row[k];
        }
    }
}

wide! {
    /// The trace of the inverse of a factored matrix, $$ \mathrm{tr}\,A^{-1}=\|R^{-1}\|_F^2\ge1/\lambda_{\min}(A) $$
    ///
    /// With the trace of `A`, which is at least its largest eigenvalue, it bounds the condition number.
    pub fn inverse_trace(system: &[f64], n: usize, width: usize) -> f64 {
        /// Blocks of columns of the inverse that are solved side by side.
        const SIDE: usize = 4;
        let mut total = [[0.0; WIDTH]; SIDE];
        let mut inverse = vec![[[0.0; WIDTH]; SIDE]; n]; // SIDE * WIDTH columns of the inverse of R^T, by rows
        for first in (0..n).step_by(SIDE * WIDTH) {
            for k in first..n {
                let mut row = [[0.0; WIDTH]; SIDE];
                if let Some(one) = row.as_flattened_mut().get_mut(k - first) {
                    *one = 1.0;
                }
                for (j, done) in inverse.iter().enumerate().take(k).skip(first) {
                    let factor = -system[j * width + k];
                    for (block, done) in row.iter_mut().zip(done) {
                        add_block(block, factor, done);
                    }
                }
                let scale = 1.0 / system[k * width + k];
                for (block, total) in row.iter_mut().zip(&mut total) {
                    for i in 0..WIDTH {
                        block[i] *= scale;
                        total[i] = block[i].mul_add(block[i], total[i]);
                    }
                }
                inverse[k] = row;
            }
        }
        total.as_flattened().iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::scattered;
    use super::*;
    use nalgebra::{DMatrix, DVector};

    /// A positive definite matrix, a right-hand side, and both as a system whose lower part is NaN.
    fn system(n: usize) -> (DMatrix<f64>, DVector<f64>, Vec<f64>, usize) {
        let root = DMatrix::from_row_slice(n + 3, n, &scattered((n + 3) * n));
        let matrix = root.transpose() * &root;
        let b = DVector::from_vec(scattered(n));
        let width = super::super::padded(n + 1);
        let mut system = vec![f64::NAN; width * width];
        for i in 0..n {
            system[i * width..(i + 1) * width].fill(0.0);
            (i..n).for_each(|j| system[i * width + j] = matrix[(i, j)]);
            (0..i).for_each(|j| system[i * width + j] = f64::NAN);
            system[i * width + n] = b[i];
        }
        (matrix, b, system, width)
    }

    #[test]
    fn solution_and_inverse_trace_equal_those_of_nalgebra() {
        for n in [1, 2, 7, 8, 9, 16, 23, 50, 99] {
            let (matrix, b, mut system, width) = system(n);
            assert!(factor(Level::best(), &mut system, n, width));
            let mut solution = vec![0.0; n];
            solve_factored(Level::best(), &system, width, n, &mut solution);
            let inverse = matrix.try_inverse().unwrap();
            let apart = (&inverse * b - DVector::from_vec(solution)).amax();
            assert!(apart < 1e-9 * inverse.amax(), "{n}: {apart}");
            let trace = inverse_trace(Level::best(), &system, n, width);
            assert!((trace / inverse.trace() - 1.0).abs() < 1e-9, "{n}: {trace}");
        }
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        for n in [1, 9, 50] {
            let at = |level: Level| {
                let (_, _, mut system, width) = system(n);
                assert!(factor(level, &mut system, n, width));
                let mut solution = vec![0.0; n];
                solve_factored(level, &system, width, n, &mut solution);
                solution.push(inverse_trace(level, &system, n, width));
                solution.into_iter().map(f64::to_bits).collect::<Vec<_>>()
            };
            Level::available().into_iter().for_each(|level| assert_eq!(at(level), at(Level::best()), "{level:?} {n}"));
        }
    }

    #[test]
    fn matrix_that_is_not_positive_definite_is_noticed() {
        let factors = |diagonal: [f64; 2]| {
            let mut system = vec![0.0; 64];
            (system[0], system[9]) = (diagonal[0], diagonal[1]);
            factor(Level::best(), &mut system, 2, 8)
        };
        assert!(factors([1.0, 2.0]));
        assert!(!factors([1.0, 0.0]) && !factors([1.0, -1.0]) && !factors([f64::NAN, 1.0]));
    }
}
