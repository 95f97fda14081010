//! Self-play on a weighted rock, paper, scissors (experiments E6.1 to E6.4): the last iterate spirals away from the winner, the
//! average of the iterates goes to it, within $$ 2\,[\ln|Y|/(\eta T)+\eta/2] $$
//!
//! Coin flips in the place of exact preferences change little: their errors average out along the run. The control is the last
//! iterate, which would be returned if the theorem were about it.

use ndarray::{Array2, array};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rebel_theory::bandit::Policy;
use rebel_theory::game::Game;
use rebel_theory::game::minimax::minimax_winner;
use rebel_theory::game::named::rock_paper_scissors;
use rebel_theory::game::selfplay::{Run, average_gap_bound, best_eta, coin_step, exact_step};
use rebel_theory::statistics::{Estimate, mean_interval};
use serde::{Deserialize, Serialize};

use crate::chart::Plot;
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::{Dash, Marker, Role};

/// One line.
pub const SHOWS: &str = "self-play's orbit around the minimax winner, and the duality gap of its average";
/// The claims it shows.
pub const CLAIMS: &[&str] = &["selfplay-average"];
/// Seeds of the coin flips.
pub const SEEDS: u64 = 100;

const WEIGHTS: [f64; 3] = [0.9, 0.45, 0.225];
const START: [f64; 3] = [0.4, 0.15, 0.45];
const ETA: f64 = 0.2;
const STEPS: usize = 1000;
const FLIPS: usize = 4;

/// The gap of the average of a whole run, for one number of steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Horizon {
    /// Steps, T.
    pub steps: usize,
    /// With exact preferences.
    pub exact: f64,
    /// With [`Data::flips`] coin flips a response and step, over seeds.
    pub coins: Estimate,
    /// The bound.
    pub bound: f64,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// The winner's probabilities `[y]`.
    pub winner: Vec<f64>,
    /// Step size of the orbit.
    pub eta: f64,
    /// Probabilities of the first and second response, step by step, `[t]`.
    pub orbit: Vec<(f64, f64)>,
    /// The same for the average so far, `[t]`.
    pub average: Vec<(f64, f64)>,
    /// Steps at which the gaps of the orbit are given, `[t]`.
    pub times: Vec<usize>,
    /// Duality gap of the last iterate, `[t]`.
    pub last_gap: Vec<f64>,
    /// Duality gap of the average, `[t]`.
    pub average_gap: Vec<f64>,
    /// The bound on it, `[t]`.
    pub bound: Vec<f64>,
    /// Coin flips a response and step.
    pub flips: usize,
    /// Whole runs, each with the best step size for its length.
    pub horizons: Vec<Horizon>,
}

/// Whole numbers from `low` to `high`, about evenly spaced in their logarithm, `count` a decade.
fn grid(low: f64, high: f64, count: i32) -> Vec<usize> {
    let decades = (high / low).log10();
    let steps = (f64::from(count) * decades).round() as i32;
    let mut all: Vec<usize> =
        (0..=steps).map(|k| (low * 10f64.powf(decades * f64::from(k) / f64::from(steps))).round() as usize).collect();
    all.dedup();
    all
}

fn two(policy: &Policy) -> (f64, f64) {
    (policy.prob()[[0, 0]], policy.prob()[[0, 1]])
}

/// The gap of the average of `steps` steps from the uniform policy, each made by `step` from a policy and a step size.
fn gap_of_run(game: &Game, steps: usize, mut step: impl FnMut(&Policy, f64) -> Policy) -> f64 {
    let eta = best_eta(game.responses(), steps);
    let mut run = Run::new(Policy::uniform(1, game.responses()));
    for _ in 0..steps {
        let next = step(run.last(), eta);
        run.advance(next);
    }
    game.duality_gap(&run.average())
}

/// Runs self-play, exactly and on coin flips.
pub fn data() -> Data {
    let game = rock_paper_scissors(WEIGHTS).expect("a skew table");
    let winner = minimax_winner(&game).expect("a game of three").policy;
    let start = Policy::new("start", array![START]).expect("a distribution");
    let times = grid(1.0, STEPS as f64, 40);
    let mut data = Data {
        winner: winner.prob().iter().copied().collect(),
        eta: ETA,
        orbit: vec![two(&start)],
        average: Vec::new(),
        last_gap: Vec::new(),
        average_gap: Vec::new(),
        bound: Vec::new(),
        flips: FLIPS,
        horizons: Vec::new(),
        times,
    };
    let mut run = Run::new(start.clone());
    while run.steps() < STEPS {
        let next = exact_step(&game, run.last(), ETA);
        run.advance(next);
        data.orbit.push(two(run.last()));
        data.average.push(two(&run.average()));
        if data.times.contains(&run.steps()) {
            data.last_gap.push(game.duality_gap(run.last()));
            data.average_gap.push(game.duality_gap(&run.average()));
            data.bound.push(average_gap_bound(&start, ETA, run.steps(), 1.0));
        }
    }
    for steps in grid(10.0, 3000.0, 6) {
        let coins = |seed: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            gap_of_run(&game, steps, |pi, eta| coin_step(&game, pi, eta, FLIPS, &mut rng))
        };
        data.horizons.push(Horizon {
            steps,
            exact: gap_of_run(&game, steps, |pi, eta| exact_step(&game, pi, eta)),
            coins: mean_interval(&(0..SEEDS).map(coins).collect::<Vec<_>>()),
            bound: average_gap_bound(&Policy::from_logits(&Array2::zeros((1, 3))), best_eta(3, steps), steps, 1.0),
        });
    }
    data
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let (rebel, measured) = (Role::Rebel.ink(), Role::Measured.ink());
    let orbit = Plot::new("probability of rock", "probability of scissors")
        .title("Orbit around the winner")
        .x_range(0.0, 1.0)
        .y_range(0.0, 1.0)
        .line(Role::Bound.ink().dash(Dash::Dotted), "", &[(0.0, 1.0), (1.0, 0.0)])
        .line(Role::Control.ink().dash(Dash::Solid), "last iterate", &data.orbit)
        .line(rebel, "average", &data.average)
        .points(Role::Bound.ink().marker(Marker::Star), "winner", &[(data.winner[0], data.winner[1])]);

    let over =
        |values: &[f64]| -> Vec<(f64, f64)> { data.times.iter().zip(values).map(|(&t, &v)| (t as f64, v)).collect() };
    let along = Plot::new("step t", "duality gap")
        .title("Along this orbit")
        .log_x()
        .log_y()
        .y_range(0.003, 100.0)
        .line(Role::Bound, "bound", &over(&data.bound))
        .line(Role::Control.ink().dash(Dash::Solid), "last iterate", &over(&data.last_gap))
        .line(rebel, "average", &over(&data.average_gap));

    let runs = |of: fn(&Horizon) -> f64| -> Vec<(f64, f64)> {
        data.horizons.iter().map(|h| (h.steps as f64, of(h))).collect()
    };
    let band: Vec<(f64, f64, f64)> =
        data.horizons.iter().map(|h| (h.steps as f64, h.coins.low, h.coins.high)).collect();
    let whole = Plot::new("steps T", "duality gap of the average")
        .title("Best step size for each T")
        .log_x()
        .log_y()
        .y_range(0.003, 100.0)
        .line(Role::Bound, "bound, 2√(2 ln 3 / T)", &runs(|h| h.bound))
        .band(measured, &band)
        .marked_line(measured, &format!("{} coin flips a response", data.flips), &runs(|h| h.coins.value))
        .marked_line(rebel.hollow(), "exact preferences", &runs(|h| h.exact));
    let note = format!(
        "Rock beats scissors by .9, scissors beat paper by .45, paper beats rock by .225; the winner plays rock, scissors, paper \
         2 : 1 : 4. Left and middle: step size {}, {} exact steps. Right: from the uniform policy; coin flips are the mean of {SEEDS} \
         seeds with its 95% t interval. The last iterate spirals outwards, the average of the iterates goes in.",
        data.eta,
        data.orbit.len() - 1
    );
    Sheet::row(vec![orbit, along, whole])
        .title("Self-play: the average approaches the minimax winner, the last iterate leaves it")
        .note(&note)
        .draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_keeps_below_its_bound_and_ends_far_below_the_last_iterate() {
        let data = data();
        assert!(data.average_gap.iter().zip(&data.bound).all(|(gap, bound)| gap <= bound));
        assert!(data.horizons.iter().all(|h| h.exact <= h.bound && h.coins.low > 0.0));
        let end = data.times.len() - 1;
        assert!(data.last_gap[end] > 5.0 * data.average_gap[end]);
    }

    #[test]
    fn grid_ends_where_it_should_and_has_no_step_twice() {
        let grid = grid(1.0, 1000.0, 12);
        assert_eq!((grid[0], grid[grid.len() - 1]), (1, 1000));
        assert!(grid.windows(2).all(|w| w[0] < w[1]));
    }
}
