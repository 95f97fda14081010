//! Products of a matrix with a vector and with itself.
//!
//! Matrices lie row by row in a slice, each row `width` long, a multiple of [`WIDTH`]; what is beyond a row's own columns
//! is zero.

use super::{Level, wide};

/// Numbers of a register at the widest level: row lengths are multiples of it.
pub const WIDTH: usize = 8;

/// The length of a row of `columns` numbers.
pub fn padded(columns: usize) -> usize {
    columns.next_multiple_of(WIDTH)
}

/// `sum += factor * row`, for one block.
#[inline(always)]
pub(super) fn add_block(sum: &mut [f64; WIDTH], factor: f64, row: &[f64; WIDTH]) {
    for i in 0..WIDTH {
        sum[i] = factor.mul_add(row[i], sum[i]);
    }
}

/// `N` blocks of a combination of rows, from column `c` on, summed in registers.
#[inline(always)]
fn combine_blocks<const N: usize>(factors: &[f64], rows: &[f64], c: usize, sum: &mut [f64]) {
    let mut sums = [[0.0; WIDTH]; N];
    for (&factor, row) in factors.iter().zip(rows.chunks_exact(sum.len())) {
        let blocks: &[[f64; WIDTH]; N] = row[c..].as_chunks().0.first_chunk().expect("N blocks");
        for (sum, block) in sums.iter_mut().zip(blocks) {
            add_block(sum, factor, block);
        }
    }
    sum[c..][..N * WIDTH].copy_from_slice(sums.as_flattened());
}

wide! {
    /// The combination of rows $$ \sum_j v_j M_j $$ with `factors` `[m]`, `rows` `[m, width]`, into `sum` `[width]`. Each
    /// entry is one chain of fused multiply-adds in ascending `j`.
    ///
    /// Limited by the rate at which the matrix comes out of its cache: every entry is used once.
    pub fn combine_rows(factors: &[f64], rows: &[f64], sum: &mut [f64]) {
        let width = sum.len();
        assert!(width.is_multiple_of(WIDTH) && rows.len() == width * factors.len(), "whole rows");
        let mut c = 0;
        while c < width {
            c += WIDTH * match (width - c) / WIDTH {
                1 => {
                    combine_blocks::<1>(factors, rows, c, sum);
                    1
                }
                2 | 3 => {
                    combine_blocks::<2>(factors, rows, c, sum);
                    2
                }
                _ => {
                    combine_blocks::<4>(factors, rows, c, sum);
                    4
                }
            };
        }
    }
}

/// Adds one row's part to a tile of `R` by [`WIDTH`] sums.
#[inline(always)]
fn add_products<const R: usize>(sums: &mut [[f64; WIDTH]; R], left: &[f64; R], right: &[f64; WIDTH]) {
    for (sums, &left) in sums.iter_mut().zip(left) {
        add_block(sums, left, right);
    }
}

/// Adds (`NEGATE`: subtracts) the products of columns `i..i + R` and `j..j + WIDTH` of `rows` to that tile of `gram`.
#[inline(always)]
fn add_tile<const R: usize, const NEGATE: bool>(rows: &[f64], width: usize, i: usize, j: usize, gram: &mut [f64]) {
    let mut sums = [[0.0; WIDTH]; R];
    for (r, sums) in sums.iter_mut().enumerate() {
        sums.copy_from_slice(&gram[(i + r) * width + j..][..WIDTH]);
    }
    for row in rows.chunks_exact(width) {
        let mut left: [f64; R] = *row[i..].first_chunk().expect("R columns");
        let right: &[f64; WIDTH] = row[j..].first_chunk().expect("WIDTH columns");
        if NEGATE {
            for value in &mut left {
                *value = -*value;
            }
        }
        add_products(&mut sums, &left, right);
    }
    for (r, sums) in sums.iter().enumerate() {
        gram[(i + r) * width + j..][..WIDTH].copy_from_slice(sums);
    }
}

/// Adds (`NEGATE`: subtracts) the products of the columns from `first` on to the tiles of `gram` on and above its diagonal.
/// `R` is [`WIDTH`], or half of it where registers are scarce.
#[inline(always)]
pub(super) fn add_gram<const R: usize, const NEGATE: bool>(rows: &[f64], width: usize, first: usize, gram: &mut [f64]) {
    let start = first / WIDTH * WIDTH;
    for j in (start..width).step_by(WIDTH) {
        for i in (start..j + WIDTH).step_by(R) {
            add_tile::<R, NEGATE>(rows, width, i, j, gram);
        }
    }
}

wide! {
    fn gram_by_eight(rows: &[f64], width: usize, gram: &mut [f64]) {
        add_gram::<8, false>(rows, width, 0, gram);
    }
}

wide! {
    fn gram_by_four(rows: &[f64], width: usize, gram: &mut [f64]) {
        add_gram::<4, false>(rows, width, 0, gram);
    }
}

/// Adds the Gram matrix $$ U^\top U $$ of `rows` `[n, width]` to the entries on and above the diagonal of `gram` `[width,
/// width]`; entries below it, in the blocks of [`WIDTH`] on it, are written too, and are no part of the result. Each entry is
/// one chain of fused multiply-adds over the rows in order, so rows may come in portions.
///
/// Limited by multiplications: it runs at the machine's peak, of which it wastes the lower halves of the blocks on the
/// diagonal (1 in 8 at 56 columns).
pub fn gram_of_rows(level: Level, rows: &[f64], width: usize, gram: &mut [f64]) {
    assert!(
        width.is_multiple_of(WIDTH) && rows.len().is_multiple_of(width) && gram.len() == width * width,
        "whole rows"
    );
    match level.is_widest() {
        true => gram_by_eight(level, rows, width, gram),
        false => gram_by_four(level, rows, width, gram),
    }
}

wide! {
    /// The differences of `pairs` of rows of a table `[n, width]`, first less second, into `differences` `[pairs, width]`.
    pub fn row_differences(table: &[f64], width: usize, pairs: &[[usize; 2]], differences: &mut [f64]) {
        assert!(width.is_multiple_of(WIDTH), "whole blocks");
        for (&[first, second], row) in pairs.iter().zip(differences.chunks_exact_mut(width)) {
            let (first, second) = (&table[first * width..][..width], &table[second * width..][..width]);
            let blocks = first.as_chunks::<WIDTH>().0.iter().zip(second.as_chunks::<WIDTH>().0);
            for (place, (first, second)) in row.as_chunks_mut::<WIDTH>().0.iter_mut().zip(blocks) {
                let mut difference = *first;
                for i in 0..WIDTH {
                    difference[i] -= second[i];
                }
                *place = difference;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::scattered;
    use super::*;

    /// Every entry as one chain of fused multiply-adds, which the kernels must give to the bit.
    fn chain(terms: impl Iterator<Item = (f64, f64)>) -> f64 {
        terms.fold(0.0, |sum, (a, b)| a.mul_add(b, sum))
    }

    #[test]
    fn combination_of_rows_is_the_plain_chain_at_every_level() {
        for (m, width) in [(0, 8), (1, 8), (7, 16), (8, 8), (21, 24), (100, 104)] {
            let (factors, rows) = (scattered(m), scattered(m * width));
            for level in Level::available() {
                let mut sum = vec![f64::NAN; width];
                combine_rows(level, &factors, &rows, &mut sum);
                for (c, &got) in sum.iter().enumerate() {
                    assert_eq!(got, chain((0..m).map(|j| (factors[j], rows[j * width + c]))), "{level:?} {m} {c}");
                }
            }
        }
    }

    #[test]
    fn gram_matrix_is_the_plain_chain_at_every_level_and_in_portions() {
        for (n, width) in [(0, 8), (1, 16), (37, 24), (100, 56)] {
            let rows = scattered(n * width);
            for level in Level::available() {
                let mut gram = vec![0.0; width * width];
                rows.chunks(16 * width).for_each(|portion| gram_of_rows(level, portion, width, &mut gram));
                for i in 0..width {
                    for j in i..width {
                        let want = chain((0..n).map(|k| (rows[k * width + i], rows[k * width + j])));
                        assert_eq!(gram[i * width + j], want, "{level:?} {n} {i} {j}");
                    }
                }
            }
        }
    }
}
