//! Identity preference optimisation, online: regressing the log-ratio's differences on the preference itself.

use super::Game;
use crate::bandit::Policy;
use crate::solve::laplacian::laplacian_solve;
use ndarray::{Array1, Array2, ArrayView1, s};

/// The population step of online IPO over all policies, for `y ~ pi` and `y' ~ mu` with `pi` as the reference:
///
/// $$ \min_h E_{y\sim\pi_t,y^\prime\sim\mu}\big(h(y)-h(y^\prime)-\eta\,l(y,y^\prime)\big)^2,\qquad\pi_{t+1}\propto\pi_t\,e^h $$
///
/// With `mu = pi` it is self-play's step, a tilt by $$ L\pi_t $$. A response of probability zero keeps it, and pairs with it
/// are left out.
pub fn ipo_step(game: &Game, pi: &Policy, mu: &Policy, eta: f64) -> Policy {
    let mut logits = pi.log().clone();
    for (x, mut row) in logits.rows_mut().into_iter().enumerate() {
        let weights = pair_weights(pi.prob().row(x), mu.prob().row(x));
        let pull = &weights * &game.margin().slice(s![x, .., ..]) * eta; // [y, y]
        let sums: Array1<f64> = pull.sum_axis(ndarray::Axis(1));
        row += &laplacian_solve(&weights, &sums).value;
    }
    Policy::from_logits(&logits)
}

/// How often two responses of the policy's support meet, in either order `[y, y]`: $$ \pi_y\mu_z+\mu_y\pi_z $$
fn pair_weights(pi: ArrayView1<f64>, mu: ArrayView1<f64>) -> Array2<f64> {
    let weight = |(y, z): (usize, usize)| {
        let alive = y != z && pi[y] > 0.0 && pi[z] > 0.0;
        if alive { pi[y] * mu[z] + mu[y] * pi[z] } else { 0.0 }
    };
    Array2::from_shape_fn((pi.len(), pi.len()), weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::game::named::rock_paper_scissors;
    use crate::game::selfplay::exact_step;
    use crate::solve::linear::least_squares;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    #[test]
    fn on_policy_step_is_self_play() {
        let game = rock_paper_scissors([0.9, 0.45, 0.225]).unwrap();
        for prob in [array![[0.5, 0.3, 0.2]], array![[0.6, 0.0, 0.4]]] {
            let pi = Policy::new("pi", prob).unwrap();
            assert!(ipo_step(&game, &pi, &pi, 1.5).distance(&exact_step(&game, &pi, 1.5)) < 1e-15);
        }
    }

    #[test]
    fn step_equals_weighted_least_squares_over_all_pairs() {
        let game = rock_paper_scissors([0.9, 0.45, 0.225]).unwrap();
        let pi = Policy::new("pi", array![[0.5, 0.3, 0.2]]).unwrap();
        let mu = Policy::new("mu", array![[0.1, 0.0, 0.9]]).unwrap();
        let (mut design, mut target) = (Array2::<f64>::zeros((9, 3)), Array1::zeros(9));
        for (n, (y, z)) in (0..3).flat_map(|y| (0..3).map(move |z| (y, z))).enumerate() {
            let root = (pi.prob()[[0, y]] * mu.prob()[[0, z]]).sqrt();
            design[[n, y]] += root;
            design[[n, z]] -= root;
            target[n] = 0.7 * root * game.margin()[[0, y, z]];
        }
        let h = least_squares(&design, &target).unwrap().solution.insert_axis(ndarray::Axis(0));
        let wanted = Policy::from_logits(&(pi.log() + &h));
        assert_abs_diff_eq!(ipo_step(&game, &pi, &mu, 0.7).prob(), wanted.prob(), epsilon = 1e-14);
    }
}
