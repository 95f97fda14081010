//! Random preference games, and numbers with intervals: what the claims of section 6 are measured on and by.

use super::{Draw, Quantity};
use crate::bandit::Policy;
use crate::error::InputError;
use crate::game::Game;
use crate::statistics::Estimate;
use ndarray::{Array1, Array2, Array3};

/// A game of 1 to `contexts` contexts and 2 to `responses` responses (twice that in a thorough run). Margins are uniform,
/// one game in four has margins of 1 only; some have a context of weight zero.
pub(super) fn random_game(draw: &mut Draw, contexts: usize, responses: usize) -> Result<Game, InputError> {
    let bandit = draw.bandit(contexts, responses);
    let (contexts, responses) = (bandit.contexts(), bandit.responses());
    let certain = draw.chance(0.25);
    let mut margin = Array3::zeros((contexts, responses, responses));
    for x in 0..contexts {
        for y in 0..responses {
            for z in 0..y {
                let l = draw.uniform(-1.0, 1.0);
                let l = if certain { l.signum() } else { l };
                (margin[[x, y, z]], margin[[x, z, y]]) = (l, -l);
            }
        }
    }
    Game::new(bandit.weights().clone(), margin)
}

/// A game of one context and `responses` responses, at least 3, whose winner plays all of them, and that winner.
///
/// With `p` the winner and `S` any skew matrix, $$ L=(1-\mathbf 1p^\top)\,S\,(1-p\mathbf 1^\top) $$ sends `p` to zero.
pub(super) fn interior_game(draw: &mut Draw, responses: usize) -> Result<(Game, Policy), InputError> {
    let winner = Policy::from_logits(&draw.normals((1, responses)));
    let raw: Array2<f64> = draw.normals((responses, responses));
    let skew = &raw - &raw.t();
    let p = winner.prob().row(0).to_owned();
    let row: Array1<f64> = p.dot(&skew); // [z] p^T S
    let margin = Array2::from_shape_fn((responses, responses), |(y, z)| skew[[y, z]] - row[z] + row[y]);
    let largest = margin.fold(0.0, |m: f64, l| m.max(l.abs()));
    Ok((Game::single(margin / largest)?, winner))
}

/// A policy of full support for a game.
pub(super) fn policy_for(draw: &mut Draw, game: &Game) -> Policy {
    Policy::from_logits(&draw.normals((game.contexts(), game.responses())))
}

/// A sampled number with its interval, of which the end nearer to the limit must keep it.
pub(super) fn sampled_at_most(name: &str, estimate: Estimate, limit: f64) -> Quantity {
    let holds = estimate.high <= limit;
    Quantity { interval: Some((estimate.low, estimate.high)), holds, ..Quantity::at_most(name, estimate.value, limit) }
}

/// As [`sampled_at_most`], from below.
pub(super) fn sampled_at_least(name: &str, estimate: Estimate, limit: f64) -> Quantity {
    let holds = estimate.low >= limit;
    Quantity { interval: Some((estimate.low, estimate.high)), holds, ..Quantity::at_least(name, estimate.value, limit) }
}

/// The seeds of sampled experiments: a hundred, other ones at another seed of the run, twice as many in a thorough run.
pub(super) fn seeds(settings: &super::Settings) -> std::ops::Range<u64> {
    let first = settings.seed.wrapping_mul(1_000_000) >> 1;
    first..first + if settings.thorough { 200 } else { 100 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::{Settings, Trials};

    #[test]
    fn interior_game_sends_its_winner_to_zero() {
        let trials = Trials::new("test", Settings::default());
        let gap = |draw: &mut Draw| {
            let (game, winner) = interior_game(draw, 3 + draw.instance() % 6)?;
            Ok(game.duality_gap(&winner))
        };
        assert!(trials.each("interior", 50, gap).unwrap().iter().all(|gap| gap.abs() < 1e-14));
    }

    #[test]
    fn sampled_quantity_holds_only_if_its_whole_interval_does() {
        let estimate = Estimate { value: 1.0, low: 0.9, high: 1.1 };
        assert!(sampled_at_most("", estimate, 1.1).holds && !sampled_at_most("", estimate, 1.05).holds);
        assert!(sampled_at_least("", estimate, 0.9).holds && !sampled_at_least("", estimate, 0.95).holds);
    }
}
