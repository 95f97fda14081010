//! The singular value decomposition by one-sided Jacobi rotations.
//!
//! Rotations keep small singular values accurate relative to themselves and have no special case for repeated or zero
//! ones. The bidiagonal iteration of nalgebra 0.35 was tried first: on square matrices of low rank it returned factors
//! whose product is another matrix, which the comparison with LAPACK showed.

use nalgebra::DMatrix;

/// Columns closer to orthogonal than this are left alone; columns this much shorter than the longest count as zero.
const NEGLIGIBLE: f64 = 1e-14;

/// Sweeps after which the iteration is given up; a dozen are usual.
const MAX_SWEEPS: usize = 80;

/// Factors `(u, s, v)` of a matrix `[n, k]` with `n >= k`: `u` `[n, k]`, `s` `[k]`, `v` `[k, k]`; columns of `u` whose
/// singular value is zero are zero. `None` if the rotations do not settle.
pub(super) fn decompose(matrix: DMatrix<f64>) -> Option<(DMatrix<f64>, Vec<f64>, DMatrix<f64>)> {
    let k = matrix.ncols();
    // A tall matrix is first reduced to its triangle: the same singular values, far shorter columns to rotate.
    let (q, mut u) = match matrix.nrows() > k {
        true => {
            let qr = matrix.qr();
            (Some(qr.q()), qr.r())
        }
        false => (None, matrix),
    };
    let mut v = DMatrix::identity(k, k);
    let mut settled = false;
    for _ in 0..MAX_SWEEPS {
        settled = true;
        let longest = u.column_iter().map(|c| c.norm_squared()).fold(0.0, f64::max);
        for i in 0..k {
            for j in i + 1..k {
                settled &= !orthogonalise(&mut u, &mut v, i, j, NEGLIGIBLE * NEGLIGIBLE * longest);
            }
        }
        if settled {
            break;
        }
    }
    let mut s = Vec::with_capacity(k);
    for mut column in u.column_iter_mut() {
        let length = column.norm();
        s.push(length);
        if length > 0.0 {
            column /= length;
        }
    }
    let u = match q {
        Some(q) => q * u,
        None => u,
    };
    settled.then_some((u, s, v))
}

/// Rotates columns `i` and `j` of `u`, and of `v` alike, until they are orthogonal in `u`; whether that took a rotation.
fn orthogonalise(u: &mut DMatrix<f64>, v: &mut DMatrix<f64>, i: usize, j: usize, negligible: f64) -> bool {
    let (a, b) = (u.column(i).norm_squared(), u.column(j).norm_squared());
    let inner = u.column(i).dot(&u.column(j));
    if a.min(b) <= negligible || inner.abs() <= NEGLIGIBLE * (a * b).sqrt() {
        return false;
    }
    let zeta = (b - a) / (2.0 * inner);
    let t = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    for matrix in [u, v] {
        for row in 0..matrix.nrows() {
            let (p, q) = (matrix[(row, i)], matrix[(row, j)]);
            matrix[(row, i)] = c * (p - t * q);
            matrix[(row, j)] = c * (t * p + q);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_multiply_to_the_matrix_at_every_rank() {
        for rank in 0..=6 {
            let left = DMatrix::from_fn(6, rank, |i, j| ((i * 7 + j * 3) as f64).sin());
            let matrix = &left * DMatrix::from_fn(rank, 6, |i, j| ((i * 5 + j * 2) as f64).cos());
            let (u, s, v) = decompose(matrix.clone()).unwrap();
            let product = u * DMatrix::from_diagonal(&s.clone().into()) * v.transpose();
            assert!((product - matrix).amax() < 1e-13, "rank {rank}");
            assert!((v.transpose() * &v - DMatrix::identity(6, 6)).amax() < 1e-13);
            assert!(s.iter().filter(|&&s| s > 1e-8).count() <= rank);
        }
    }

    #[test]
    fn singular_values_of_diagonal_matrix_are_its_entries() {
        let (_, mut s, _) = decompose(DMatrix::from_diagonal(&vec![1e-9, 3.0, -2.0].into())).unwrap();
        s.sort_by(f64::total_cmp);
        assert_eq!(s, [1e-9, 2.0, 3.0]);
    }
}
