//! Games with a name: the cycle, what is dominated by it, a utility, and an order without one.

use super::Game;
use crate::error::InputError;
use ndarray::{Array1, Array2, array, s};

/// The cycle of three responses in which 0 beats 1 by the first weight, 1 beats 2 by the second, 2 beats 0 by the third.
///
/// Its winner plays each response by the weight of the edge between the two others.
pub fn rock_paper_scissors(weights: [f64; 3]) -> Result<Game, InputError> {
    let [a, b, c] = weights;
    Game::single(array![[0.0, a, -c], [-a, 0.0, b], [c, -b, 0.0]])
}

/// The first context of `game` with `count` responses added at its end, which tie with each other and lose to all others
/// by `margin`.
pub fn with_dominated(game: &Game, count: usize, margin: f64) -> Result<Game, InputError> {
    let (old, all) = (game.responses(), game.responses() + count);
    let mut table = Array2::zeros((all, all));
    table.slice_mut(s![..old, ..old]).assign(&game.margin().slice(s![0, .., ..]));
    table.slice_mut(s![..old, old..]).fill(margin);
    table.slice_mut(s![old.., ..old]).fill(-margin);
    Game::single(table)
}

/// The game of a utility `[y]`, by Bradley and Terry: $$ P(y\succ y^\prime)=\sigma(u_y-u_{y^\prime}) $$
pub fn bradley_terry_game(utility: &Array1<f64>) -> Result<Game, InputError> {
    let margin = |(y, z)| (0.5 * (utility[y] - utility[z])).tanh();
    Game::single(Array2::from_shape_fn((utility.len(), utility.len()), margin))
}

/// Three responses in a strict order that no utility gives: the first beats both others by .1, the second the third by .9.
pub fn order_without_utility() -> Result<Game, InputError> {
    Game::single(array![[0.0, 0.1, 0.1], [-0.1, 0.0, 0.9], [-0.1, -0.9, 0.0]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_equal_numbers_by_hand() {
        let game = with_dominated(&rock_paper_scissors([0.9, 0.45, 0.225]).unwrap(), 2, 0.6).unwrap();
        let first = game.margin().slice(s![0, 0, ..]);
        assert_eq!(first, array![0.0, 0.9, -0.225, 0.6, 0.6]);
        assert_eq!(game.margin().slice(s![0, 4, ..]), array![-0.6, -0.6, -0.6, 0.0, 0.0]);
        let game = bradley_terry_game(&array![1.0, 0.0]).unwrap();
        assert!((game.probability(0, 0, 1) - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-15);
    }
}
