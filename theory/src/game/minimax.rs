//! The minimax winner: the policy that no other is preferred to, by linear programming.

use super::Game;
use crate::bandit::Policy;
use crate::error::InputError;
use crate::solve::linear::singular;
use microlp::{ComparisonOp, OptimizationDirection, Problem};
use ndarray::{Array1, Array2, ArrayView2};

/// Margins within this of zero, relative to the game's largest, count as zero; so do probabilities.
const TOLERANCE: f64 = 1e-9;

/// A loss that is rounding, relative to the game's largest margin: no refinement is asked for.
const EXACT: f64 = 1e-14;

/// What a winner may lose at most to its best response, relative to the game's largest margin.
const LARGEST_LOSS: f64 = 1e-7;

/// The minimax winner of every context.
#[derive(Debug, Clone, PartialEq)]
pub struct Winner {
    /// The winning policy $$ \pi^*=\arg\max_p\min_q l(p,q) $$
    pub policy: Policy,
    /// What it is sure of in each context `[x]`: $$ \min_y l(\pi^*,y) $$ The value of the game, 0, up to rounding.
    pub value: Array1<f64>,
    /// Whether it is the only one, in each context `[x]`.
    pub unique: Vec<bool>,
}

/// A minimax winner of `game`, context by context; where it is not unique, a corner of the set of winners.
///
/// It minimises `v` subject to `l(y, p) <= v` for every `y`, on margins scaled to a largest of one. Fails where the solver
/// does, or where its answer loses more than 1e-7 of the largest margin to some response.
pub fn minimax_winner(game: &Game) -> Result<Winner, InputError> {
    let mut prob = Array2::zeros((game.contexts(), game.responses()));
    let mut value = Array1::zeros(game.contexts());
    let mut unique = Vec::with_capacity(game.contexts());
    for (x, margin) in game.margin().outer_iter().enumerate() {
        let largest = margin.fold(0.0, |m: f64, l| m.max(l.abs()));
        let scaled = if largest > 0.0 { &margin / largest } else { margin.to_owned() };
        let winner = solve(&scaled)?;
        let losses = scaled.dot(&winner); // [y] what each response gains against the winner
        let loss = losses.fold(0.0, |m: f64, &l| m.max(l));
        if loss > LARGEST_LOSS {
            return Err(InputError::Unsolved { argument: "L", error: loss * largest });
        }
        unique.push(is_unique(scaled.view(), &winner, &losses)?);
        value[x] = -loss * largest;
        prob.row_mut(x).assign(&winner);
    }
    Ok(Winner { policy: Policy::new("winner", prob)?, value, unique })
}

/// An optimal mixed strategy `[y]` of a game with margins of at most one `[y, y]`.
///
/// The solver stops within tolerances of about 1e-8, so its answer is refined: what is still lost, magnified to one, is the
/// same kind of problem for a correction of the answer, and is solved as well as the first one was.
fn solve(margin: &Array2<f64>) -> Result<Array1<f64>, InputError> {
    const ROUNDS: usize = 4;
    let mut best = (f64::INFINITY, Array1::zeros(margin.nrows()));
    let (mut from, mut scale) = (best.1.clone(), 1.0);
    for _ in 0..ROUNDS {
        let step = match correction(margin, &from, scale) {
            Ok(step) => step,
            Err(_) if best.0 <= LARGEST_LOSS => break,
            Err(error) => return Err(error),
        };
        let moved = &from + &(step * scale);
        // What rounding leaves below zero or just above it is no play, nor is a trace on a response that loses. A trace that was
        // meant comes back with the next correction.
        let gains = margin.dot(&moved);
        let played = |(&p, &gain): (&f64, &f64)| p > 1e-12 && (p > TOLERANCE || gain > -TOLERANCE);
        let play: Array1<f64> = moved.iter().zip(&gains).map(|pair| if played(pair) { *pair.0 } else { 0.0 }).collect();
        let play = &play / play.sum();
        let loss = margin.dot(&play).fold(0.0, |m: f64, &l| m.max(l));
        if loss >= best.0 {
            break;
        }
        best = (loss, play.clone());
        if loss <= EXACT {
            break;
        }
        (from, scale) = (play, loss);
    }
    Ok(best.1)
}

/// The correction `d` `[y]` after which `from + scale d` loses least: minimise `v` subject to
/// $$ L\,\mathrm{from}/\mathrm{scale}+L\,d\le v,\qquad d\ge-\mathrm{from}/\mathrm{scale},\qquad \sum_yd_y=(1-\sum_y\mathrm{from}_y)/\mathrm{scale} $$
fn correction(margin: &Array2<f64>, from: &Array1<f64>, scale: f64) -> Result<Array1<f64>, InputError> {
    let unsolved = InputError::Unsolved { argument: "L", error: f64::INFINITY };
    let mut problem = Problem::new(OptimizationDirection::Minimize);
    let steps: Vec<_> = from.iter().map(|p| problem.add_var(0.0, (-p / scale, f64::INFINITY))).collect();
    let value = problem.add_var(1.0, (0.0, f64::INFINITY));
    let lost = margin.dot(from) / scale;
    for (row, lost) in margin.rows().into_iter().zip(&lost) {
        let mut gain: Vec<_> = steps.iter().copied().zip(row.iter().copied()).filter(|term| term.1 != 0.0).collect();
        gain.push((value, -1.0));
        problem.add_constraint(gain, ComparisonOp::Le, -lost);
    }
    let total: Vec<_> = steps.iter().map(|&step| (step, 1.0)).collect();
    problem.add_constraint(total, ComparisonOp::Eq, (1.0 - from.sum()) / scale);
    let outcome = problem.solve().map_err(|_| unsolved.clone())?;
    if !outcome.is_optimal() {
        return Err(unsolved);
    }
    let solution = outcome.into_solution().map_err(|_| unsolved)?;
    Ok(steps.iter().map(|&step| solution.var_value(step)).collect())
}

/// Whether a winner is the only one.
///
/// Of all winners, one inside their set plays every response that is not strictly worse against it (Goldman and Tucker
/// 1956), so a lone winner does. Given that, winners near it differ by what the margins within its support `S` send to
/// zero: it is alone exactly if $$ \mathrm{rank}\,L_{SS}=|S|-1 $$ A skew matrix has even rank: the support is odd.
fn is_unique(margin: ArrayView2<f64>, winner: &Array1<f64>, losses: &Array1<f64>) -> Result<bool, InputError> {
    let support: Vec<usize> = (0..winner.len()).filter(|&y| winner[y] > TOLERANCE).collect();
    let strict = winner.iter().zip(losses).all(|(&p, &l)| p > TOLERANCE || l < -TOLERANCE);
    if !strict || support.len().is_multiple_of(2) {
        return Ok(false);
    }
    let within = Array2::from_shape_fn((support.len(), support.len()), |(i, j)| margin[[support[i], support[j]]]);
    let rank = singular("L", &within)?.s.iter().filter(|&&s| s > TOLERANCE).count();
    Ok(rank + 1 == support.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::game::named::rock_paper_scissors;
    use approx::assert_abs_diff_eq;
    use ndarray::array;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn winner(margin: Array2<f64>) -> (Array2<f64>, bool) {
        let game = Game::single(margin).unwrap();
        let found = minimax_winner(&game).unwrap();
        assert!(game.duality_gap(&found.policy) <= 1e-12);
        assert_abs_diff_eq!(found.value[0], 0.0, epsilon = 1e-12);
        (found.policy.prob().clone(), found.unique[0])
    }

    #[test]
    fn weighted_cycle_is_won_by_the_weights_of_the_opposite_edges() {
        let game = rock_paper_scissors([0.9, 0.45, 0.225]).unwrap();
        let found = minimax_winner(&game).unwrap();
        assert_abs_diff_eq!(found.policy.prob(), &(array![[2.0, 1.0, 4.0]] / 7.0), epsilon = 1e-14);
        assert_eq!(found.unique, [true]);
    }

    #[test]
    fn pure_winner_is_unique_and_a_tie_is_not() {
        assert_eq!(winner(array![[0.0, 0.3], [-0.3, 0.0]]), (array![[1.0, 0.0]], true));
        assert_eq!(winner(array![[0.0]]), (array![[1.0]], true));
        assert!(!winner(Array2::zeros((2, 2))).1);
        // two responses that tie and beat the third
        assert!(!winner(array![[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [-0.5, -0.5, 0.0]]).1);
        // the winner never loses, but a response it ties with may be mixed in
        assert!(!winner(array![[0.0, 0.0, 0.1], [0.0, 0.0, -0.1], [-0.1, 0.1, 0.0]]).1);
    }

    #[test]
    fn copy_of_a_response_makes_many_winners() {
        let l = array![[0.0, 1.0, -1.0, -1.0], [-1.0, 0.0, 1.0, 1.0], [1.0, -1.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0]];
        assert!(!winner(l).1);
    }

    #[test]
    fn five_cycle_has_one_winner_though_each_response_meets_a_tie() {
        // y beats y+1 and loses to y-1, and ties with the others
        let l = Array2::from_shape_fn((5, 5), |(y, z)| match (z + 5 - y) % 5 {
            1 => 1.0,
            4 => -1.0,
            _ => 0.0,
        });
        let (p, unique) = winner(l);
        assert_abs_diff_eq!(p, Array2::from_elem((1, 5), 0.2), epsilon = 1e-14);
        assert!(unique);
    }

    #[test]
    fn correction_undoes_an_error_far_below_the_solvers_tolerance() {
        let margin = array![[0.0, 1.0, -0.25], [-1.0, 0.0, 0.5], [0.25, -0.5, 0.0]];
        let exact = array![2.0, 1.0, 4.0] / 7.0;
        let off = &exact + &array![3e-11, -1e-11, -2e-11];
        let back = &off + &(correction(&margin, &off, 1e-11).unwrap() * 1e-11);
        assert_abs_diff_eq!(back, exact, epsilon = 1e-16);
    }

    #[test]
    fn game_at_which_the_solver_stops_early_is_still_solved() {
        // of six thousand random games the one whose first answer loses 1.2e-8
        let mut rng = ChaCha8Rng::seed_from_u64(2_560_528_273_385_757_111);
        let half = Array2::from_shape_simple_fn((25, 25), || rng.random_range(-0.5..0.5));
        assert!(winner(&half - &half.t()).1);
    }

    #[test]
    fn margins_of_one_in_a_million_are_as_well_solved_as_margins_of_one() {
        let game = rock_paper_scissors([0.9e-6, 0.45e-6, 0.225e-6]).unwrap();
        let found = minimax_winner(&game).unwrap();
        assert_abs_diff_eq!(found.policy.prob(), &(array![[2.0, 1.0, 4.0]] / 7.0), epsilon = 1e-12);
    }
}
