//! What best-of-N and worst-of-N cover (experiment N5.3): the best response ever better, the policy ever worse.

use ndarray::Array2;
use rebel_theory::bandit::Policy;
use rebel_theory::bounds::coverage;
use rebel_theory::distribution::{best_of, worst_of};
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;

use crate::chart::Plot;
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::{Dash, Marker, Role};

/// One line.
pub const SHOWS: &str = "coverage by best-of-N and worst-of-N against N";
/// The claims it shows.
pub const CLAIMS: &[&str] = &["worst-of-n"];
/// Seeds: nothing is random.
pub const SEEDS: u64 = 0;

const DRAWS: [usize; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
const TOP: [f64; 3] = [0.05, 0.2, 0.9];
const RESPONSES: usize = 20;

/// One policy: `RESPONSES` responses with distinct rewards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Probability of the top response; the others share the rest evenly.
    pub top: f64,
    /// Coverage of the top response by best-of-N, `[N]`.
    pub best: Vec<f64>,
    /// Coverage of the policy by worst-of-N, `[N]`.
    pub worst: Vec<f64>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Number of responses.
    pub responses: usize,
    /// Numbers of draws, `[N]`.
    pub draws: Vec<usize>,
    /// A curve a policy.
    pub curves: Vec<Curve>,
}

/// Computes every coverage from the laws themselves.
pub fn data() -> Data {
    let reward = Array2::from_shape_fn((1, RESPONSES), |(_, y)| -(y as f64));
    let star = Policy::pure(&[0], RESPONSES);
    let curve = |top: f64| {
        let rest = (1.0 - top) / (RESPONSES - 1) as f64;
        let prob = Array2::from_shape_fn((1, RESPONSES), |(_, y)| if y == 0 { top } else { rest });
        let pi = Policy::new("pi", prob).expect("a policy");
        let over = |measure: &dyn Fn(NonZeroUsize) -> f64| -> Vec<f64> {
            DRAWS.iter().filter_map(|&n| NonZeroUsize::new(n)).map(measure).collect()
        };
        Curve {
            top,
            best: over(&|n| coverage(&star, &best_of(&pi, &reward, n))),
            worst: over(&|n| coverage(&pi, &worst_of(&pi, &reward, n))),
        }
    };
    Data { responses: RESPONSES, draws: DRAWS.to_vec(), curves: TOP.map(curve).to_vec() }
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let mut best =
        Plot::new("draws N", "C of the top response").title("Best-of-N covers the best: 1/(1 − (1 − p)ᴺ)").log_y();
    let mut worst = Plot::new("draws N", "max π / worst-of-N").title("Worst-of-N loses the policy: p⁻⁽ᴺ⁻¹⁾").log_y();
    let looks = [(Marker::Circle, Dash::Solid), (Marker::Square, Dash::Dashed), (Marker::Diamond, Dash::Dotted)];
    for (curve, (marker, dash)) in data.curves.iter().zip(looks) {
        let ink = Role::Measured.ink().marker(marker).dash(dash);
        let lost = Role::Control.ink().marker(marker).dash(dash);
        let label = format!("p = {}", curve.top);
        let points = |values: &[f64]| -> Vec<(f64, f64)> {
            data.draws.iter().zip(values).map(|(&n, &v)| (n as f64, v)).collect()
        };
        best = best.marked_line(ink, &label, &points(&curve.best));
        worst = worst.marked_line(lost, &label, &points(&curve.worst));
    }
    let note = format!(
        "{} responses with distinct rewards; p: probability of the top one (p = 0.05 is the uniform policy), the others share the rest. \
         The top response is the worst of N draws only if all N are it. As the policy concentrates on the top the price falls. \
         Computed, not sampled: no seeds.",
        data.responses
    );
    Sheet::row(vec![best, worst]).title("What best-of-N and worst-of-N cover").note(&note).draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverages_are_their_closed_forms() {
        for curve in data().curves {
            for (i, &n) in DRAWS.iter().enumerate() {
                let best = 1.0 / (1.0 - (1.0 - curve.top).powi(n as i32));
                let worst = curve.top.powi(1 - n as i32);
                assert!((curve.best[i] / best - 1.0).abs() < 1e-9 && (curve.worst[i] / worst - 1.0).abs() < 1e-9);
            }
        }
        let uniform = &data().curves[0];
        assert!((uniform.worst[4] - 160_000.0).abs() < 1e-3); // |Y| = 20, N = 5
    }
}
