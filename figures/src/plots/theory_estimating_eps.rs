//! Training loss, held-out pair loss and the error itself against the number of training pairs (experiment E4.3), and how
//! well held-out labels estimate the error.
//!
//! The training loss starts at zero and rises to the noise while the error falls; the held-out loss is noise plus error,
//! whatever the class.

use rebel_theory::experiments::linear::{LinearProblem, Size};
use rebel_theory::experiments::pair_loss::{Row, Scatter, Setup, scatter, table};
use rebel_theory::statistics::Estimate;
use serde::{Deserialize, Serialize};

use crate::chart::{Interval, Plot};
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::{Dash, Ink, Marker, Role};

/// One line.
pub const SHOWS: &str = "training loss, held-out pair loss and the error of the regression against training pairs";
/// The claims it shows.
pub const CLAIMS: &[&str] = &["estimating-eps"];
/// Seeds of the samples.
pub const SEEDS: u64 = 400;

const SIZE: Size = Size { contexts: 20, responses: 20, features: 10 };
const SETUP: Setup = Setup { sigma: 1.0, held_out: 1000, seeds: SEEDS as usize, seed: 0 };
const FLOOR: f64 = 0.4685;

/// What the figure shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Variance of a pair's label.
    pub label_variance: f64,
    /// The error of the best coefficients on the misspecified problem.
    pub floor: f64,
    /// A reward that the features express.
    pub realisable: Vec<Row>,
    /// One they do not.
    pub misspecified: Vec<Row>,
    /// Estimates of one fit's error.
    pub scatter: Vec<Scatter>,
}

/// Samples both problems.
pub fn data() -> Data {
    let pairs = [15, 20, 28, 40, 60, 100, 200, 400, 800, 1600];
    let sampled = |floor: f64| {
        let problem = LinearProblem::new(SIZE, floor, 0).expect("room for a misfit");
        table(&problem, &pairs, SETUP).expect("a problem of this size")
    };
    let problem = LinearProblem::new(SIZE, 0.0, 0).expect("a size");
    let labels = [50, 100, 200, 400, 800, 1600, 3200];
    Data {
        label_variance: 2.0 * SETUP.sigma * SETUP.sigma,
        floor: FLOOR,
        realisable: sampled(0.0),
        misspecified: sampled(FLOOR),
        scatter: scatter(&problem, 100, &labels, SETUP).expect("a problem of this size"),
    }
}

fn losses(title: &str, rows: &[Row], label_variance: f64, floor: f64) -> Plot {
    let plot = Plot::new("training pairs N", "squared reward").title(title).log_x().log_y().x_range(13.5, 1800.0);
    let add = |plot: Plot, ink: Ink, name: &str, of: &dyn Fn(&Row) -> Estimate| {
        let at: Vec<(f64, f64)> = rows.iter().map(|row| (row.pairs as f64, of(row).value)).collect();
        let bars: Vec<Interval> = rows
            .iter()
            .map(|row| (row.pairs as f64, of(row)))
            .map(|(n, e)| Interval { at: (n, e.value), x: (n, n), y: (e.low.max(1e-4), e.high) })
            .collect();
        plot.bars(ink, &bars).marked_line(ink, name, &at)
    };
    // The names stand in the left panel.
    let name = |text: &'static str| if floor > 0.0 { "" } else { text };
    let plot = add(plot.y_range(6e-3, 30.0), Role::Measured.ink(), name("held-out loss"), &|row| row.held_out);
    let plot = add(plot, Role::Control.ink().dash(Dash::Solid), name("training loss"), &|row| row.in_sample);
    let plot = add(plot, Role::Rebel.ink().marker(Marker::Square), name("error ε"), &|row| row.error);
    let labels: Vec<(f64, f64)> = rows.iter().map(|row| (row.pairs as f64, row.two_labels.value)).collect();
    let plot = plot.points(Role::Ppo.ink().marker(Marker::Diamond).hollow(), name("ε by two labels"), &labels);
    if floor > 0.0 {
        return plot.level(Role::Bound, label_variance + floor, "s² + floor").level(
            Role::Bound.ink().dash(Dash::Dotted),
            floor,
            "floor",
        );
    }
    let expected: Vec<(f64, f64)> = (135..=1800)
        .step_by(5)
        .map(|n| f64::from(n) / 10.0)
        .chain([400.0, 1800.0])
        .map(|n| (n, label_variance * (1.0 - SIZE.features as f64 / n)))
        .collect();
    plot.line(Role::Bound, "s²(1 − d/N)", &expected).level(Role::Bound.ink().dash(Dash::Dotted), label_variance, "s²")
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let left = losses("Realisable reward", &data.realisable, data.label_variance, 0.0).legend_above();
    let middle = losses("Misspecified reward", &data.misspecified, data.label_variance, data.floor);
    let points = |of: fn(&Scatter) -> f64| -> Vec<(f64, f64)> {
        data.scatter.iter().map(|s| (s.labels as f64, of(s))).collect()
    };
    let right = Plot::new("held-out labels", "standard error / (s²d/N)")
        .title("Seeing ε through label noise")
        .log_x()
        .log_y()
        .y_range(0.2, 4.0)
        .legend_above()
        .points(Role::Measured, "held-out loss − s²", &points(|s| s.known_noise[0]))
        .line(Role::Measured, "", &points(|s| s.known_noise[1]))
        .points(Role::Ppo.ink().marker(Marker::Diamond).hollow(), "two labels a pair", &points(|s| s.two_labels[0]))
        .line(Role::Ppo.ink().dash(Dash::Dashed), "", &points(|s| s.two_labels[1]))
        .line(Role::Bound, "rule (N/d)√(2/labels)", &points(|s| s.rule));
    let note = format!(
        "Log-linear fits, {} contexts, {} responses, d = {} features, label noise s² = {}; means over {SEEDS} seeds with 95% t \
         intervals, {} held-out pairs a fit. The held-out loss is s² + ε in both classes; the training loss rises to the noise \
         (middle: noise plus floor {}) whatever ε is. Right: estimates of one \
         fit's ε, N = 100, over {SEEDS} held-out samples; lines: the exact standard errors.",
        SIZE.contexts, SIZE.responses, SIZE.features, data.label_variance, SETUP.held_out, data.floor
    );
    Sheet::row(vec![left, middle, right]).title("The training loss says nothing about the error").note(&note).draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_loss_is_noise_plus_error_and_training_loss_rises_as_the_error_falls() {
        let recorded: serde_json::Value =
            serde_json::from_str(include_str!("../../data/theory_estimating_eps.json")).expect("committed numbers");
        let data: Data = serde_json::from_value(recorded["data"].clone()).expect("committed numbers");
        for row in data.realisable.iter().chain(&data.misspecified) {
            let off = row.unexplained.value.abs() / (0.5 * (row.unexplained.high - row.unexplained.low));
            assert!(off < 2.0, "N = {}: {:?}", row.pairs, row.unexplained);
        }
        for pair in data.realisable.windows(2) {
            assert!(pair[0].in_sample.value < pair[1].in_sample.value && pair[0].error.value > pair[1].error.value);
        }
    }
}
