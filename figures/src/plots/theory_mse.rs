//! The mean squared error of preconditioned steps against the number of pairs (experiment E3.2), and their limits against
//! the spread of the value between contexts (E3.3).
//!
//! With a reward that the features express, REBEL's step is exact as soon as the pairs have full rank: matrix and gradient
//! are made of the same differences. Every other way to put the same samples together scatters as 1/N.

use ndarray::Array1;
use rebel_theory::experiments::linear::{LinearProblem, Size};
use rebel_theory::experiments::step_error::{Curve, Estimator, curves};
use rebel_theory::experiments::value_spread::{ValueSpread, value_spread};
use serde::{Deserialize, Serialize};

use crate::chart::{Interval, Plot};
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::{Dash, Ink, Marker, Role};

/// One line.
pub const SHOWS: &str = "mean squared error of preconditioned steps against the number of pairs";
/// The claims it shows.
pub const CLAIMS: &[&str] = &["realisable-exactness", "finite-sample-npg"];
/// Seeds of the samples.
pub const SEEDS: u64 = 300;

const SIZE: Size = Size { contexts: 5, responses: 8, features: 4 };
const PAIRS: [usize; 7] = [20, 40, 80, 160, 320, 640, 1280];
const ESTIMATORS: [Estimator; 5] = [
    Estimator::Reinforce(10.0),
    Estimator::Reinforce(1.0),
    Estimator::Reinforce(0.0),
    Estimator::PairedSeparate,
    Estimator::Paired,
];

/// What the figure shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Numbers of pairs.
    pub pairs: Vec<usize>,
    /// A reward that the features express.
    pub realisable: Vec<Curve>,
    /// One they do not, by a pair error of 1.
    pub misspecified: Vec<Curve>,
    /// Limits against the spread of the value.
    pub spread: ValueSpread,
}

/// Samples both problems and computes the limits.
pub fn data() -> Data {
    let sampled = |floor: f64| {
        let problem = LinearProblem::new(SIZE, floor, 0).expect("room for a misfit");
        curves(&problem, &ESTIMATORS, &PAIRS, 0.0, SEEDS as usize, 0).expect("a problem of this size")
    };
    let problem =
        LinearProblem::new(Size { contexts: 8, responses: 10, features: 4 }, 1.0, 0).expect("room for a misfit");
    let pattern = Array1::from_shape_fn(8, |x| x as f64);
    let levels: Vec<f64> = (0..=40).map(|i| f64::from(i) / 20.0).collect();
    Data {
        pairs: PAIRS.to_vec(),
        realisable: sampled(0.0),
        misspecified: sampled(1.0),
        spread: value_spread(&problem, &pattern, &levels).expect("a problem of this size"),
    }
}

fn look(estimator: Estimator) -> (Ink, String) {
    let reinforce = Role::Reinforce.ink();
    match estimator {
        Estimator::Paired => (Role::Rebel.ink(), "REBEL".into()),
        Estimator::Reinforce(0.0) => (reinforce, "NPG, REINFORCE".into()),
        Estimator::Reinforce(offset) if offset < 5.0 => {
            (reinforce.marker(Marker::Up).dash(Dash::Dashed), format!("NPG, rewards + {offset}"))
        }
        Estimator::Reinforce(offset) => {
            (reinforce.marker(Marker::Down).dash(Dash::Dotted), format!("NPG, rewards + {offset}"))
        }
        _ => (Role::RlooTwo.ink(), "NPG, RLOO k = 2".into()),
    }
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let panel = |title: &str| {
        Plot::new("pairs N", "squared error of the step").title(title).log_x().log_y().x_range(16.0, 1600.0)
    };
    let add = |plot: Plot, curves: &[Curve], limits: bool| {
        curves.iter().fold(plot, |plot, curve| {
            let (ink, name) = look(curve.estimator);
            let at: Vec<(f64, f64)> = data.pairs.iter().zip(&curve.error).map(|(&n, e)| (n as f64, e.value)).collect();
            let bars: Vec<Interval> = at
                .iter()
                .zip(&curve.error)
                .map(|(&at, e)| Interval { at, x: (at.0, at.0), y: (e.low.max(1e-40), e.high) })
                .collect();
            // The names stand in the left panel.
            let plot = plot.bars(ink, &bars).marked_line(ink, if limits { "" } else { &name }, &at);
            match (limits, curve.limit) {
                (true, Some(limit)) => {
                    let line: Vec<(f64, f64)> = [16.0, 1600.0].map(|n| (n, limit / n)).to_vec();
                    plot.line(Role::Bound, "exact limit over N", &line)
                }
                _ => plot,
            }
        })
    };
    let left = add(panel("Realisable reward").y_range(1e-32, 1e4), &data.realisable, false);
    let middle = add(panel("Misspecified reward").y_range(1e-3, 1e2), &data.misspecified, true);
    let scaled = |values: &[f64]| -> Vec<(f64, f64)> {
        data.spread.spread.iter().zip(values).map(|(&s, v)| (s, v / data.spread.paired[0])).collect()
    };
    let right = Plot::new("std of V(x) / residual", "N × variance (REBEL = 1)")
        .title("Spread of the value")
        .legend_above()
        .y_range(0.0, 3.0)
        .line(Role::Rebel, "REBEL", &scaled(&data.spread.paired))
        .line(Role::Reinforce, "NPG, best constant baseline", &scaled(&data.spread.constant))
        .points(
            Role::Control.ink().marker(Marker::Circle).hollow(),
            &format!("crossing, {:.2}", data.spread.crossing),
            &[(data.spread.crossing, 1.0)],
        );
    let note = format!(
        "Squared distance of the step (step size 1) to the population's; {} contexts, {} responses, d = {} features; means over \
         {} seeds with 95% t intervals. NPG: matrix of single scores of the same samples, gradient as named. Left: REBEL's matrix \
         and gradient share their differences, and the step is exact (rounding, 1e−29). Middle: the same estimators, a misfit of pair error 1; black: \
         the limit of N times the error, in closed form, over N. Right: exact limits, no sampling: a constant baseline wins by \
         about 2 where V(x) is constant and loses where it varies.",
        SIZE.contexts, SIZE.responses, SIZE.features, SEEDS
    );
    Sheet::row(vec![left, middle, right]).title("Where REBEL's step gains: shared differences").note(&note).draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rebels_step_is_exact_and_only_with_a_realisable_reward() {
        let recorded: serde_json::Value =
            serde_json::from_str(include_str!("../../data/theory_mse.json")).expect("committed numbers");
        let data: Data = serde_json::from_value(recorded["data"].clone()).expect("committed numbers");
        for (curve, misfit) in data.realisable.iter().zip(&data.misspecified) {
            let exact = curve.error.iter().all(|e| e.value < 1e-20);
            assert_eq!(exact, curve.estimator == Estimator::Paired);
            assert!(misfit.error.iter().all(|e| e.value > 1e-4));
        }
    }
}
