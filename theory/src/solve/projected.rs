//! Gradient ascent on the probabilities themselves, projected back onto the simplex (theory 1.7): the other "gradient ascent"
//! that mirror descent may be compared with.

use crate::bandit::{Bandit, Policy};
use ndarray::{Array1, ArrayView1};

/// The distribution nearest to `v` `[y]` in the Euclidean norm: $$ \max(v-\tau,0),\quad\tau\text{ such that it sums to }1 $$
pub fn nearest_distribution(v: ArrayView1<f64>) -> Array1<f64> {
    let mut sorted = v.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    // The threshold is that of the longest prefix, in descending order, whose last entry stays positive.
    let (mut sum, mut threshold) = (0.0, 0.0);
    for (i, &value) in sorted.iter().enumerate() {
        sum += value;
        let candidate = (sum - 1.0) / (i + 1) as f64;
        if value <= candidate {
            break;
        }
        threshold = candidate;
    }
    v.mapv(|value| (value - threshold).max(0.0))
}

/// `steps` of projected gradient ascent on the probabilities of each context: the values `[steps+1]` and the last policy.
///
/// $$ \pi_{t+1}(\cdot|x)=\Pi_{simplex}\big(\pi_t(\cdot|x)+\eta\,r(x,\cdot)\big) $$
///
/// A context's own gradient, without its weight: a context of weight zero moves as the others do.
pub fn projected_gradient_run(bandit: &Bandit, start: &Policy, eta: f64, steps: usize) -> (Vec<f64>, Policy) {
    let mut pi = start.clone();
    let mut values = vec![bandit.value(&pi)];
    for _ in 0..steps {
        let mut prob = pi.prob() + &(bandit.reward() * eta);
        for mut row in prob.rows_mut() {
            let nearest = nearest_distribution(row.view());
            row.assign(&nearest);
        }
        pi = Policy::new("pi", prob).expect("projected onto the simplex");
        values.push(bandit.value(&pi));
    }
    (values, pi)
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::{Array2, array};

    #[test]
    fn projection_equals_numbers_by_hand() {
        assert_abs_diff_eq!(nearest_distribution(array![0.5, 0.8].view()), array![0.35, 0.65], epsilon = 1e-15);
        assert_abs_diff_eq!(nearest_distribution(array![3.0, 0.0, 1.0].view()), array![1.0, 0.0, 0.0], epsilon = 1e-15);
        assert_abs_diff_eq!(nearest_distribution(array![-2.0, -2.0].view()), array![0.5, 0.5], epsilon = 1e-15);
        assert_eq!(nearest_distribution(array![7.0].view()), array![1.0]);
    }

    #[test]
    fn one_better_arm_gains_the_same_at_every_step() {
        let mut reward = Array2::zeros((1, 5));
        reward[[0, 2]] = 0.5;
        let bandit = Bandit::new(array![1.0], reward).unwrap();
        let (values, last) = projected_gradient_run(&bandit, &Policy::uniform(1, 5), 0.1, 21);
        for (t, value) in values.iter().enumerate() {
            let p = (0.2 + 0.8 * 0.05 * t as f64).min(1.0);
            assert_abs_diff_eq!(*value, 0.5 * p, epsilon = 1e-12);
        }
        assert_abs_diff_eq!(last.prob()[[0, 2]], 1.0, epsilon = 1e-12);
    }
}
