//! A weighted Laplacian equation on a graph of responses: what a Newton step on comparison counts and a population fit of
//! preferences come to.
//!
//! Responses that no chain of positive weights joins are not compared at all; each such group gets mean zero, which is the
//! solution of least norm. [`pair_graph`](super::pair_graph) is the case of equal weights on a list of pairs, and faster.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::pair_graph::pair_least_squares;
    use approx::assert_abs_diff_eq;
    use ndarray::array;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// The weights `[y, y]` and the right-hand side of least squares on differences with these targets.
    fn equation(n: usize, pairs: &[(usize, usize, f64)]) -> (Array2<f64>, Array1<f64>) {
        let (mut weights, mut b) = (Array2::zeros((n, n)), Array1::zeros(n));
        for &(y, z, target) in pairs {
            weights[[y, z]] += 1.0;
            weights[[z, y]] += 1.0;
            b[y] += target;
            b[z] -= target;
        }
        (weights, b)
    }

    #[test]
    fn chain_of_two_pairs_equals_number_by_hand() {
        let (weights, b) = equation(3, &[(0, 1, 2.0), (1, 2, 1.0)]); // h = (3, 1, 0) less 4/3
        assert_abs_diff_eq!(laplacian_solve(&weights, &b).value, array![5.0, -1.0, -4.0] / 3.0, epsilon = 1e-15);
    }

    #[test]
    fn response_without_pairs_and_separate_groups_have_mean_zero() {
        let (weights, b) = equation(5, &[(0, 3, 1.0), (1, 4, 3.0), (2, 2, 9.0)]);
        assert_eq!(laplacian_solve(&weights, &b).value, array![0.5, 1.5, 0.0, -0.5, -1.5]);
        let potential = laplacian_solve(&Array2::zeros((3, 3)), &Array1::zeros(3));
        assert_eq!((potential.groups(), potential.value), (3, array![0.0, 0.0, 0.0]));
    }

    #[test]
    fn equal_weights_give_the_least_squares_of_the_pairs_graph() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for n in [0, 1, 2, 4, 9, 40] {
            let k = rng.random_range(1..8);
            let mut pair = || (rng.random_range(0..k), rng.random_range(0..k), rng.random_range(-2.0..2.0));
            let pairs: Vec<_> = (0..n).map(|_| pair()).collect();
            let (edges, targets): (Vec<_>, Vec<_>) = pairs.iter().map(|&(y, z, target)| ([y, z], target)).unzip();
            let wanted = pair_least_squares(&edges, &targets, k).unwrap();
            let (weights, b) = equation(k, &pairs);
            let got = laplacian_solve(&weights, &b);
            assert_abs_diff_eq!(got.value, wanted.solution, epsilon = 1e-13);
            assert_eq!(k - got.groups(), wanted.rank);
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
}
