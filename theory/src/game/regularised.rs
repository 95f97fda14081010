//! Self-play held to a reference policy: its last iterate converges, to a point near the minimax winner, and with a reference
//! that moves, to the winner itself (theory 6.10).

use super::Game;
use crate::bandit::{Policy, average};
use crate::error::{self, InputError};
use nalgebra::{DMatrix, DVector};
use ndarray::{Array1, ArrayView1, ArrayView2, Axis, Zip, s};

/// A preference game whose players pay $$ \tau\,\mathrm{KL}(\pi\|\mathrm{ref}) $$
#[derive(Debug, Clone, PartialEq)]
pub struct Regularised<'a> {
    game: &'a Game,
    reference: Policy,
    tau: f64,
}

impl<'a> Regularised<'a> {
    /// The game with a price of `tau > 0` a nat for leaving `reference`.
    pub fn new(game: &'a Game, reference: Policy, tau: f64) -> Result<Self, InputError> {
        error::shape("ref", reference.prob().shape(), &[game.contexts(), game.responses()])?;
        Ok(Self { game, reference, tau: error::positive("tau", tau)? })
    }

    /// The largest step size for which every step is known to contract: $$ \eta\le\frac\tau{l^2+\tau^2},\qquad l=\max|L| $$
    pub fn largest_eta(&self) -> f64 {
        let l = self.game.largest_margin();
        self.tau / (l * l + self.tau * self.tau)
    }

    /// REBEL's exact step on the reward $$ r_t-\tau\ln(\pi_t/\mathrm{ref}) $$ that is
    ///
    /// $$ \pi_{t+1}\propto\pi_t^{1-\eta\tau}\,\mathrm{ref}^{\eta\tau}\,e^{\eta L\pi_t} $$
    ///
    /// A response that the policy or the reference misses keeps probability zero.
    pub fn step(&self, pi: &Policy, eta: f64) -> Policy {
        let kept = eta * self.tau;
        let mix = |&log: &f64, &reference: &f64, &reward: &f64| {
            let alive = log > f64::NEG_INFINITY && reference > f64::NEG_INFINITY;
            if alive { (1.0 - kept) * log + kept * reference + eta * reward } else { f64::NEG_INFINITY }
        };
        let reward = self.game.reward(pi);
        Policy::from_logits(&Zip::from(pi.log()).and(self.reference.log()).and(&reward).map_collect(mix))
    }

    /// The only point that [`Regularised::step`] leaves where it is, for every step size; the fixed point of IPO with this
    /// reference at `eta = 1/tau`:
    ///
    /// $$ \pi_\tau\propto\mathrm{ref}\;e^{L\pi_\tau/\tau} $$
    pub fn fixed_point(&self) -> Result<Policy, InputError> {
        let mut logits = self.reference.log().clone();
        for (x, mut row) in logits.rows_mut().into_iter().enumerate() {
            row += &tilt_at_rest(self.game.margin().slice(s![x, .., ..]), self.reference.log().row(x), self.tau)?;
        }
        Ok(Policy::from_logits(&logits))
    }

    /// The duality gap of the fixed point, in terms of how far it went from the reference:
    ///
    /// $$ \mathrm{DG}(\pi_\tau)=2\tau\,E_x\Big[\max_y\ln\frac{\pi_\tau}{\mathrm{ref}}-\mathrm{KL}(\pi_\tau\|\mathrm{ref})\Big] $$
    ///
    /// for a reference of full support; else of play within it.
    pub fn gap_of_fixed_point(&self, fixed: &Policy) -> f64 {
        let ratio = Zip::from(fixed.log()).and(self.reference.log()).map_collect(|&log, &reference| {
            if reference > f64::NEG_INFINITY { log - reference } else { f64::NEG_INFINITY }
        });
        let largest = ratio.map_axis(Axis(1), |row| row.fold(f64::NEG_INFINITY, |m, &v| m.max(v)));
        2.0 * self.tau * average(self.game.weights(), &(largest - fixed.kl(&self.reference)))
    }

    /// What that is at most: $$ 2\tau\,E_x\Big[\ln\frac1{\min_y\mathrm{ref}}-\mathrm{KL}(\pi_\tau\|\mathrm{ref})\Big] $$ infinite if the
    /// reference misses a response.
    pub fn gap_bound(&self, fixed: &Policy) -> f64 {
        let rarest = self.reference.log().map_axis(Axis(1), |row| row.fold(0.0, |m: f64, &log| m.max(-log)));
        2.0 * self.tau * average(self.game.weights(), &(rarest - fixed.kl(&self.reference)))
    }

    /// The same game with its fixed point as the reference: one step of the proximal point method.
    pub fn with_fixed_point_as_reference(&self) -> Result<Self, InputError> {
        Ok(Self { reference: self.fixed_point()?, ..self.clone() })
    }

    /// The reference policy.
    pub fn reference(&self) -> &Policy {
        &self.reference
    }
}

/// The exponents `[y]` of the fixed point of one context: $$ h=\tfrac1\tau L\,\pi(h),\qquad\pi(h)\propto\mathrm{ref}\,e^h $$
///
/// Newton's iteration along doubling `1/tau`. The Jacobian $$ 1-\tfrac1\tau L\,(\mathrm{diag}\,\pi-\pi\pi^\top) $$ is never singular, its
/// second part having imaginary eigenvalues only, so a step can always be made short enough to lower the residual.
fn tilt_at_rest(margin: ArrayView2<f64>, reference: ArrayView1<f64>, tau: f64) -> Result<Array1<f64>, InputError> {
    let largest = margin.fold(0.0, |m: f64, l| m.max(l.abs()));
    let mut h = Array1::zeros(reference.len());
    let last = 1.0 / tau;
    let mut weight = last.min(1.0 / largest);
    loop {
        let residual = newton(&margin, &reference, weight, &mut h);
        let scale = (weight * largest).max(1.0);
        let settled = residual <= 1e-10 * scale; // false for NaN
        if !settled {
            return Err(InputError::Unsolved { argument: "L", error: residual });
        }
        if weight == last {
            return Ok(h);
        }
        weight = (2.0 * weight).min(last);
    }
}

/// Improves `h` `[y]` until rounding stops it; the residual that is left.
fn newton(margin: &ArrayView2<f64>, reference: &ArrayView1<f64>, weight: f64, h: &mut Array1<f64>) -> f64 {
    const ROUNDS: usize = 200;
    let n = h.len();
    let play = |h: &Array1<f64>| -> Array1<f64> {
        let policy = Policy::from_logits(&(reference + h).insert_axis(Axis(0)));
        policy.prob().row(0).to_owned()
    };
    let norm = |v: &Array1<f64>| v.dot(v).sqrt();
    let mut pi = play(h);
    let mut residual = &*h - &(margin.dot(&pi) * weight);
    for _ in 0..ROUNDS {
        let against = margin.dot(&pi); // [y]
        let jacobian = DMatrix::from_fn(n, n, |i, j| {
            let unit = if i == j { 1.0 } else { 0.0 };
            unit - weight * pi[j] * (margin[[i, j]] - against[i])
        });
        let Some(step) = jacobian.lu().solve(&DVector::from_iterator(n, residual.iter().copied())) else { break };
        let step: Array1<f64> = step.iter().copied().collect();
        let mut share = 1.0;
        let better = loop {
            let candidate = &*h - &(&step * share);
            let moved = play(&candidate);
            let left = &candidate - &(margin.dot(&moved) * weight);
            if norm(&left) < (1.0 - 1e-4 * share) * norm(&residual) {
                break Some((candidate, moved, left));
            }
            share *= 0.5;
            if share < 1e-9 {
                break None;
            }
        };
        let Some((candidate, moved, left)) = better else { break };
        (*h, pi, residual) = (candidate, moved, left);
    }
    norm(&residual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::game::minimax::minimax_winner;
    use crate::game::named::rock_paper_scissors;
    use ndarray::array;

    fn game() -> Game {
        rock_paper_scissors([0.9, 0.45, 0.225]).unwrap()
    }

    #[test]
    fn fixed_point_of_two_responses_solves_its_equation() {
        // one beats the other by 1/2: h differ by 1/(2 tau) whatever is played
        let game = Game::single(array![[0.0, 0.5], [-0.5, 0.0]]).unwrap();
        let held = Regularised::new(&game, Policy::new("ref", array![[0.2, 0.8]]).unwrap(), 0.25).unwrap();
        let odds = 0.25 * 2f64.exp();
        assert!((held.fixed_point().unwrap().prob()[[0, 0]] - odds / (1.0 + odds)).abs() < 1e-15);
    }

    #[test]
    fn fixed_point_stays_and_is_reached_down_to_a_tiny_price() {
        let reference = Policy::new("ref", array![[0.2, 0.7, 0.1]]).unwrap();
        for tau in [1e3, 1.0, 0.1, 1e-3, 1e-6] {
            let game = game();
            let held = Regularised::new(&game, reference.clone(), tau).unwrap();
            let fixed = held.fixed_point().unwrap();
            assert!(held.step(&fixed, held.largest_eta()).distance(&fixed) < 1e-10, "tau = {tau}");
            assert!((held.gap_of_fixed_point(&fixed) - game.duality_gap(&fixed)).abs() < 1e-12);
        }
    }

    #[test]
    fn small_price_approaches_the_winner_and_a_large_one_the_reference() {
        let (game, reference) = (game(), Policy::new("ref", array![[0.2, 0.7, 0.1]]).unwrap());
        let winner = minimax_winner(&game).unwrap().policy;
        let fixed = |tau| Regularised::new(&game, reference.clone(), tau).unwrap().fixed_point().unwrap();
        assert!(fixed(1e-6).distance(&winner) < 1e-4 && fixed(1e6).distance(&reference) < 1e-6);
    }

    #[test]
    fn response_that_the_reference_misses_is_never_played() {
        let game = game();
        let held = Regularised::new(&game, Policy::new("ref", array![[0.5, 0.5, 0.0]]).unwrap(), 0.1).unwrap();
        assert_eq!(held.fixed_point().unwrap().prob()[[0, 2]], 0.0);
        assert_eq!(held.step(&Policy::uniform(1, 3), 0.5).prob()[[0, 2]], 0.0);
        assert_eq!(held.gap_bound(&held.fixed_point().unwrap()), f64::INFINITY);
        // at eta tau = 1 the old policy has no weight left, but what it misses stays missed
        assert_eq!(held.step(&Policy::pure(&[0], 3), 10.0).prob(), &array![[1.0, 0.0, 0.0]]);
    }

    #[test]
    fn constructor_refuses_another_shape_and_a_price_of_zero() {
        let game = game();
        assert!(Regularised::new(&game, Policy::uniform(1, 2), 0.1).is_err());
        assert!(Regularised::new(&game, Policy::uniform(1, 3), 0.0).is_err());
    }
}
