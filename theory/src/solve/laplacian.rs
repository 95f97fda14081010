//! Least squares over differences of responses: the fit of a table to pairs is an equation in a graph's Laplacian.
//!
//! Every pair that compares `y` with `z` is an edge between them. Responses that no chain of pairs joins are not
//! compared at all; each such group is fitted with mean zero, which is the solution of least norm.

use crate::error::{self, InputError};
use ndarray::{Array1, Array2};

/// The solution of least norm of a Laplacian equation.
#[derive(Debug, Clone, PartialEq)]
pub struct Potential {
    /// The solution `[y]`; its mean over each group is zero.
    pub value: Array1<f64>,
    /// The group of each response `[y]`: responses joined by a chain of positive weights share a number.
    pub group: Vec<usize>,
}

impl Potential {
    /// The number of groups; the Laplacian's rank is the number of responses less this.
    pub fn groups(&self) -> usize {
        self.group.iter().max().map_or(0, |last| last + 1)
    }
}

/// Solves $$ \sum_z w_{yz}(h_y-h_z)=b_y $$ for symmetric `weights` of at least 0 `[y, y]` (the diagonal does not count)
/// and `b` `[y]`, which sums to zero over each group.
///
/// Responses are eliminated one by one, each replaced by edges between its neighbours (a star by a mesh). No step
/// subtracts weights, so weights of any spread keep their digits, and a group without edges left is known exactly.
pub fn laplacian_solve(weights: &Array2<f64>, b: &Array1<f64>) -> Potential {
    let n = b.len();
    assert_eq!(weights.dim(), (n, n), "one row and one column a response");
    let (mut w, mut b) = (weights.clone(), b.clone());
    let mut strength = vec![0.0; n]; // weight of what is left of each response's edges when its turn comes
    for k in 0..n {
        strength[k] = (k + 1..n).map(|j| w[[k, j]]).sum();
        for i in k + 1..n {
            let share = if w[[k, i]] > 0.0 { w[[k, i]] / strength[k] } else { continue };
            b[i] += share * b[k];
            for j in k + 1..n {
                if i != j {
                    w[[i, j]] += share * w[[k, j]];
                }
            }
        }
    }
    let (mut value, mut group, mut sizes) = (Array1::zeros(n), vec![0; n], Vec::<(f64, f64)>::new());
    for k in (0..n).rev() {
        match (k + 1..n).find(|&j| w[[k, j]] > 0.0) {
            Some(neighbour) => {
                let inflow: f64 = (k + 1..n).map(|j| w[[k, j]] * value[j]).sum();
                value[k] = (b[k] + inflow) / strength[k];
                group[k] = group[neighbour];
            }
            None => {
                group[k] = sizes.len();
                sizes.push((0.0, 0.0));
            }
        }
        let (count, sum) = &mut sizes[group[k]];
        *count += 1.0;
        *sum += value[k];
    }
    for (h, &g) in value.iter_mut().zip(&group) {
        *h -= sizes[g].1 / sizes[g].0;
    }
    Potential { value, group }
}

/// Two responses to one context, and what their difference should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The context.
    pub context: usize,
    /// The first response.
    pub first: usize,
    /// The second response; a pair of equal responses says nothing.
    pub second: usize,
    /// The wanted value of the first less that of the second.
    pub target: f64,
}

/// The table of least norm `[x, y]` among the minimisers of the squared error over pairs, REBEL's tabular fit:
///
/// $$ \min_h\sum_n\big(h(x_n,y_n)-h(x_n,y^\prime_n)-z_n\big)^2 $$
///
/// Fails on an index outside `contexts` or `responses`, and on a target that is not finite.
pub fn fit_pairs(contexts: usize, responses: usize, pairs: &[Pair]) -> Result<Array2<f64>, InputError> {
    let mut weights = vec![Array2::zeros((responses, responses)); contexts]; // [x][y, y]
    let mut sums = Array2::<f64>::zeros((contexts, responses));
    for (n, pair) in pairs.iter().enumerate() {
        error::below("x", &[n], pair.context, contexts)?;
        error::below("y", &[n], pair.first, responses)?;
        error::below("y2", &[n], pair.second, responses)?;
        if !pair.target.is_finite() {
            return Err(InputError::NotFinite { argument: "target", index: vec![n], value: pair.target });
        }
        let Pair { context, first, second, target } = *pair;
        weights[context][[first, second]] += 1.0;
        weights[context][[second, first]] += 1.0;
        sums[[context, first]] += target;
        sums[[context, second]] -= target;
    }
    for (mut row, weights) in sums.rows_mut().into_iter().zip(&weights) {
        let fit = laplacian_solve(weights, &row.to_owned()).value;
        row.assign(&fit);
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::linear::least_squares;
    use approx::assert_abs_diff_eq;
    use ndarray::array;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn pair(first: usize, second: usize, target: f64) -> Pair {
        Pair { context: 0, first, second, target }
    }

    #[test]
    fn chain_of_two_pairs_equals_number_by_hand() {
        let got = fit_pairs(1, 3, &[pair(0, 1, 2.0), pair(1, 2, 1.0)]).unwrap(); // h = (3, 1, 0) less 4/3
        assert_abs_diff_eq!(got, array![[5.0, -1.0, -4.0]] / 3.0, epsilon = 1e-15);
    }

    #[test]
    fn response_without_pairs_and_separate_groups_have_mean_zero() {
        let pairs = [pair(0, 3, 1.0), pair(1, 4, 3.0), pair(2, 2, 9.0)];
        assert_eq!(fit_pairs(1, 5, &pairs).unwrap(), array![[0.5, 1.5, 0.0, -0.5, -1.5]]);
        let potential = laplacian_solve(&Array2::zeros((3, 3)), &Array1::zeros(3));
        assert_eq!((potential.groups(), potential.value), (3, array![0.0, 0.0, 0.0]));
    }

    #[test]
    fn fit_equals_least_squares_of_least_norm_by_singular_values() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for n in [0, 1, 2, 4, 9, 40] {
            let k = rng.random_range(1..8);
            let pairs: Vec<Pair> = (0..n)
                .map(|_| pair(rng.random_range(0..k), rng.random_range(0..k), rng.random_range(-2.0..2.0)))
                .collect();
            let mut design = Array2::<f64>::zeros((n, k));
            for (mut row, pair) in design.rows_mut().into_iter().zip(&pairs) {
                row[pair.first] += 1.0;
                row[pair.second] -= 1.0;
            }
            let target = pairs.iter().map(|pair| pair.target).collect();
            let wanted = least_squares(&design, &target).unwrap().solution;
            assert_abs_diff_eq!(fit_pairs(1, k, &pairs).unwrap().row(0), wanted, epsilon = 1e-13);
        }
    }

    #[test]
    fn weights_of_any_spread_keep_their_digits() {
        // a chain whose links weigh 1, 1e-200, 1e-100: the differences are b over the link
        let weights =
            array![[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1e-200, 0.0], [0.0, 1e-200, 0.0, 1e-100], [0.0, 0.0, 1e-100, 0.0]];
        let got = laplacian_solve(&weights, &array![1.0, 1e-200 - 1.0, 1e-100 - 1e-200, -1e-100]).value;
        for (y, wanted) in [(0, 1.0), (2, 1.0)] {
            assert!((got[y] - got[y + 1] - wanted).abs() < 1e-15, "{got}");
        }
    }

    #[test]
    fn index_outside_the_table_is_named() {
        let error = fit_pairs(1, 2, &[pair(0, 1, 1.0), pair(0, 2, 1.0)]).unwrap_err();
        assert_eq!(error.to_string(), "y2[1]: 2 (expected an index below 2)");
        assert!(fit_pairs(1, 2, &[pair(0, 1, f64::NAN)]).is_err());
    }
}
