//! Preference games (section 4 of the paper): two policies answer the same context, and one answer is preferred.
//!
//! A [`Game`] holds equation (12), $$ l(x,y,y')=2P(y\succ y'|x)-1 $$, skew-symmetric; its value is 0 and its solution the
//! minimax winner.
//!
//! * [`minimax`]: the winner, and whether it is the only one;
//! * [`selfplay`]: REBEL against itself, exact and sampled, and the average it returns;
//! * [`regularised`]: self-play held to a reference;
//! * [`ipo`]: regressing on the preference itself;
//! * [`bradley_terry`]: the reward model, what it can fit and what not;
//! * [`named`]: games to try them on.

pub mod bradley_terry;
pub mod ipo;
pub mod minimax;
pub mod named;
pub mod regularised;
pub mod selfplay;

pub mod fast;

use crate::bandit::{Policy, average, best_responses};
use crate::error::{self, InputError};
use ndarray::{Array1, Array2, Array3, Axis, s};

/// How far a preference table may be from skew-symmetric.
pub const SKEW_TOLERANCE: f64 = 1e-9;

/// A preference game: context weights `rho` `[x]` and margins $$ l(x,y,y') $$ `[x, y, y']`, skew-symmetric in each context.
#[derive(Debug, Clone, PartialEq)]
pub struct Game {
    weights: Array1<f64>, // [x]
    margin: Array3<f64>,  // [x, y, y']
}

impl Game {
    /// A game with context weights `rho` `[x]` (a distribution) and margins `L` `[x, y, y']` (finite, skew-symmetric).
    pub fn new(weights: Array1<f64>, margin: Array3<f64>) -> Result<Self, InputError> {
        error::distribution("rho", &[], weights.view())?;
        error::finite("L", &margin)?;
        let responses = margin.dim().1;
        error::shape("L", margin.shape(), &[weights.len(), responses, responses])?;
        for ((x, y, z), &value) in margin.indexed_iter() {
            if (value + margin[[x, z, y]]).abs() > SKEW_TOLERANCE {
                let index = vec![x, y, z];
                return Err(InputError::NotSkew { argument: "L", index, value, mirrored: margin[[x, z, y]] });
            }
        }
        Ok(Self { weights, margin })
    }

    /// A game of one context with margins `L` `[y, y']`.
    pub fn single(margin: Array2<f64>) -> Result<Self, InputError> {
        Self::new(Array1::ones(1), margin.insert_axis(Axis(0)))
    }

    /// Number of contexts, `|X|`.
    pub fn contexts(&self) -> usize {
        self.margin.dim().0
    }

    /// Number of responses, `|Y|`.
    pub fn responses(&self) -> usize {
        self.margin.dim().1
    }

    /// Context weights `rho` `[x]`.
    pub fn weights(&self) -> &Array1<f64> {
        &self.weights
    }

    /// Margins $$ l(x,y,y') $$ `[x, y, y']`, equation (12).
    pub fn margin(&self) -> &Array3<f64> {
        &self.margin
    }

    /// The largest margin of any pair: $$ \max|l| $$
    pub fn largest_margin(&self) -> f64 {
        self.margin.fold(0.0, |m: f64, l| m.max(l.abs()))
    }

    /// The probability that `y` is preferred to `z` in context `x`: $$ P=(1+l)/2 $$
    pub fn probability(&self, x: usize, y: usize, z: usize) -> f64 {
        0.5 + 0.5 * self.margin[[x, y, z]]
    }

    /// The reward of self-play against `opponent` `[x, y]`: $$ r_t(x,y)=E_{y''\sim\pi_t}\,l(x,y,y'') $$
    /// Its mean under `opponent` itself is zero.
    pub fn reward(&self, opponent: &Policy) -> Array2<f64> {
        let mut reward = Array2::zeros((self.contexts(), self.responses()));
        for (x, mut row) in reward.rows_mut().into_iter().enumerate() {
            row.assign(&self.margin.slice(s![x, .., ..]).dot(&opponent.prob().row(x)));
        }
        reward
    }

    /// The margin of one policy over another: $$ l(p,q)=E_xE_{y\sim p,y'\sim q}\,l(x,y,y') $$
    pub fn margin_of(&self, p: &Policy, q: &Policy) -> f64 {
        average(&self.weights, &p.expectation(&self.reward(q)))
    }

    /// The average over contexts of a divergence: $$ E_x\,\mathrm{KL}(p(\cdot|x)\,\|\,q(\cdot|x)) $$ in nats.
    pub fn kl(&self, p: &Policy, q: &Policy) -> f64 {
        average(&self.weights, &p.kl(q))
    }

    /// The best response to `opponent` in each context `[x]`; among equals the first.
    pub fn best_response(&self, opponent: &Policy) -> Vec<usize> {
        best_responses(&self.reward(opponent))
    }

    /// The duality gap, what the two best responses gain together against `pi`:
    ///
    /// $$ \mathrm{DG}(\pi)=\max_p l(p,\pi)-\min_q l(\pi,q)=2\,E_x\max_y (L_x\pi_x)(y) $$
    pub fn duality_gap(&self, pi: &Policy) -> f64 {
        let best = self.reward(pi).map_axis(Axis(1), |row| row.fold(f64::NEG_INFINITY, |m, &r| m.max(r)));
        2.0 * average(&self.weights, &best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn rock_paper_scissors() -> Game {
        Game::single(array![[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]).unwrap()
    }

    #[test]
    fn uniform_play_of_rock_paper_scissors_cannot_be_exploited_and_pure_play_can() {
        let game = rock_paper_scissors();
        assert_eq!(game.duality_gap(&Policy::uniform(1, 3)), 0.0);
        let rock = Policy::pure(&[0], 3);
        assert_eq!((game.duality_gap(&rock), game.best_response(&rock)), (2.0, vec![1]));
        assert_eq!(game.margin_of(&Policy::pure(&[1], 3), &rock), 1.0);
        assert_eq!((game.probability(0, 1, 0), game.probability(0, 0, 0)), (1.0, 0.5));
    }

    #[test]
    fn reward_against_oneself_has_mean_zero() {
        let pi = Policy::new("pi", array![[0.2, 0.5, 0.3]]).unwrap();
        assert!(pi.expectation(&rock_paper_scissors().reward(&pi))[0].abs() < 1e-16);
    }

    #[test]
    fn table_that_is_not_skew_is_refused_by_its_index() {
        let error = Game::single(array![[0.0, 0.5], [0.5, 0.0]]).unwrap_err();
        assert_eq!(error.to_string(), "L[0, 0, 1]: 0.5 and its mirror image 0.5 do not add up to 0");
        assert!(Game::single(array![[0.1, 0.0], [0.0, 0.0]]).is_err());
        assert!(Game::new(array![1.0], Array3::zeros((1, 2, 3))).is_err());
    }
}
