//! Where self-play's duality gap comes from (experiment E6.7): the gap of the average policy is regret plus misfit plus
//! noise, exactly; here are the three against the number of iterations, and the gap beside the bounds of Theorem 2.
//!
//! Noise averages out along the run, although the bounds charge for all of it; misfit does not, and more iterations can
//! make it worse. A table of predictors has none: it is the control.

use rebel_theory::experiments::selfplay_decomposition::{Row, SelfPlay, row, splits};
use rebel_theory::statistics::Estimate;
use serde::{Deserialize, Serialize};

use crate::chart::Plot;
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::{Colour, Dash, Ink, Marker, Role};

/// One line.
pub const SHOWS: &str = "the duality gap of self-play split into regret, misfit and noise";
/// The claims it shows.
pub const CLAIMS: &[&str] = &["theorem2", "binary-feedback"];
/// Runs of each point.
pub const SEEDS: u64 = 100;

const STEPS: [usize; 6] = [25, 50, 100, 200, 400, 800];
const PAIRS: usize = 80;

/// One game and class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Panel {
    /// What is played by what.
    pub name: String,
    /// Means for each number of iterations.
    pub rows: Vec<Row>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// The three games.
    pub panels: Vec<Panel>,
}

/// Runs self-play on every game for every number of iterations.
pub fn data() -> Data {
    let tasks = [
        ("table of predictors", SelfPlay::tabular()),
        ("three features", SelfPlay::log_linear()),
        ("three contexts, six features", SelfPlay::contexts()),
    ];
    let panel = |(name, task): (&str, std::result::Result<SelfPlay, _>)| {
        let task = task.expect("a game of known numbers");
        let rows = STEPS.map(|steps| {
            let splits = splits(&task, steps, PAIRS, (SEEDS, 0)).expect("batches that fit the game");
            row(steps, PAIRS, &splits)
        });
        Panel { name: name.into(), rows: rows.to_vec() }
    };
    Data { panels: tasks.map(panel).into() }
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let measured = Role::Measured.ink();
    let regret = Role::Rebel.ink().marker(Marker::Up);
    let misfit = Role::Control.ink().dash(Dash::Solid).marker(Marker::Square);
    let noise = Ink { colour: Colour(0x8a, 0x8a, 0x8a), marker: Marker::Cross, hollow: false, dash: Dash::Dashed };
    let (mut upper, mut lower) = (Vec::new(), Vec::new());
    for (i, panel) in data.panels.iter().enumerate() {
        let line = |plot: Plot, ink: Ink, label: &str, value: fn(&Row) -> Estimate| {
            let points: Vec<(f64, f64)> = panel.rows.iter().map(|r| (r.steps as f64, value(r).value)).collect();
            let band: Vec<(f64, f64, f64)> =
                panel.rows.iter().map(|r| (r.steps as f64, value(r).low, value(r).high)).collect();
            plot.band(ink, &band).marked_line(ink, label, &points)
        };
        // an ink means the same in all panels of a row: each is named once, where there is room
        let named_in = |at: usize, label: &'static str| if i == at { label } else { "" };
        let terms = Plot::new("iterations T", if i == 0 { "part of the duality gap" } else { "" })
            .title(&capitalised(&panel.name))
            .log_x()
            .x_range(22.0, 910.0)
            .y_range(-0.8, 1.5);
        let terms = line(terms, regret, named_in(0, "regret"), |r| r.regret);
        let terms = line(terms, misfit, named_in(0, "misfit"), |r| r.approximation);
        let terms = line(terms, noise, named_in(0, "noise"), |r| r.sampling);
        let terms = line(terms, measured, named_in(0, "their sum: the gap"), |r| r.gap_average);
        upper.push(terms);
        let gaps = Plot::new("iterations T", if i == 0 { "duality gap" } else { "" })
            .log_x()
            .log_y()
            .x_range(22.0, 910.0)
            .y_range(0.08, 8.0)
            .legend_above();
        let gaps = line(gaps, Role::Bound.ink().marker(Marker::Diamond), named_in(0, "Theorem 2"), |r| r.bound);
        let sharp = Role::Bound.ink().marker(Marker::Diamond).dash(Dash::Dotted).hollow();
        let gaps = line(gaps, sharp, named_in(0, "its sharp form"), |r| r.sharp);
        let gaps =
            line(gaps, measured.marker(Marker::Down).dash(Dash::Dashed).hollow(), named_in(1, "last policy"), |r| {
                r.gap_last
            });
        let gaps = line(gaps, measured, named_in(1, "average policy"), |r| r.gap_average);
        lower.push(gaps);
    }
    let note = format!(
        "Self-play REBEL from binary feedback, targets 2(o − o′) with a shared opponent, second response uniform, N = {PAIRS} pairs an \
         iteration, step size ½√(2 ln 6 / T). The game: rock, paper, scissors with margins .9, .45, .225 and three options that lose to \
         each by .6; on the right three contexts, each with the options in another order. Features are normal. Means of {SEEDS} seeds with \
         95% t intervals (bands). The three terms add up to the gap of the average policy exactly; both bounds measure all their constants.",
    );
    Sheet::grid(vec![upper, lower]).title("Self-play: noise averages out, misfit does not").note(&note).draw()
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_add_up_and_bounds_hold_in_the_committed_numbers() {
        let text = include_str!("../../data/theory_selfplay_decomposition.json");
        let data: Data = crate::Recorded::read("theory_selfplay_decomposition", text).unwrap().data;
        for row in data.panels.iter().flat_map(|panel| &panel.rows) {
            let sum = row.regret.value + row.approximation.value + row.sampling.value;
            assert!((sum - row.gap_average.value).abs() < 1e-12, "{row:?}");
            assert!(row.gap_average.value < row.sharp.value && row.sharp.value < row.bound.value, "{row:?}");
            assert_eq!(row.runs as u64, SEEDS);
        }
        let misfit =
            |panel: usize| data.panels[panel].rows.iter().map(|row| row.approximation.value).fold(0.0, f64::max);
        assert!(misfit(0) < 1e-12 && misfit(1) > 0.3 && misfit(2) > 0.1);
    }
}
