//! Operations on every row of the last dimension with weights that all rows share: rows in parallel, and sums over rows that no
//! number of threads changes.

use rayon::prelude::*;

use crate::nn::real::Real;

/// Rows of one task and of one partial sum: fixed, so that threads change no bit.
const ROWS: usize = 64;

/// `rows(x, y)` on blocks of rows of `width`, into a new array as long as `x`.
pub(super) fn forward<T: Real>(x: &[T], width: usize, rows: impl Fn(&[T], &mut [T]) + Sync) -> Vec<T> {
    let mut y = vec![T::zero(); x.len()];
    y.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width)).for_each(|(y, x)| rows(x, y));
    y
}

/// `rows(x, dy, dx, sums)` on blocks of rows of `width`: `dx` behind which stand the blocks' sums, `shared` numbers each, added
/// in the order of the blocks.
pub(super) fn backward<T: Real>(
    x: &[T],
    dy: &[T],
    width: usize,
    shared: usize,
    rows: impl Fn(&[T], &[T], &mut [T], &mut [T]) + Sync,
) -> Vec<T> {
    let mut out = vec![T::zero(); x.len() + shared];
    let (dx, totals) = out.split_at_mut(x.len());
    let partial: Vec<Vec<T>> = dx
        .par_chunks_mut(ROWS * width)
        .zip(x.par_chunks(ROWS * width).zip(dy.par_chunks(ROWS * width)))
        .map(|(dx, (x, dy))| {
            let mut sums = vec![T::zero(); shared];
            rows(x, dy, dx, &mut sums);
            sums
        })
        .collect();
    for sums in partial {
        totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
    out
}
