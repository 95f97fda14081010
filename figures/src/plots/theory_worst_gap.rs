//! The fast rate is a supremum over gaps (experiment E1.2): $$ \eta T\,(J^*-J(\pi_T))\le W_0((K-1)/e) $$ from a uniform
//! start over K responses, attained for every T by a gap chosen for that T; on any fixed gap the decay is exponential.

use ndarray::Array2;
use rebel_theory::bandit::Policy;
use rebel_theory::solve::mirror::tilt;
use rebel_theory::solve::rates::worst_case_rate;
use serde::{Deserialize, Serialize};

use crate::chart::Plot;
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::{Dash, Marker, Role};

/// One line.
pub const SHOWS: &str = "the 1/T rate as a supremum over gaps";
/// The claims it shows.
pub const CLAIMS: &[&str] = &["fast-rate"];
/// Seeds: nothing is random.
pub const SEEDS: u64 = 0;

const ARMS: [usize; 3] = [2, 10, 1000];
const ETA: f64 = 0.5;

/// One number of responses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Number of responses, K.
    pub responses: usize,
    /// The constant W0((K-1)/e).
    pub constant: f64,
    /// eta T regret after T steps, with the gap that is worst for this T, `[T]`.
    pub worst: Vec<f64>,
    /// The same with the gap that is worst for [`Data::fixed_at`] steps, `[T]`.
    pub fixed: Vec<f64>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Step size.
    pub eta: f64,
    /// Numbers of steps, `[T]`.
    pub steps: Vec<usize>,
    /// The number of steps for which the fixed gap is the worst one.
    pub fixed_at: usize,
    /// A curve for each number of responses.
    pub curves: Vec<Curve>,
}

/// Regrets after 0, 1, ..., `steps` exact steps from a uniform start, the first response better than the others by `gap`.
fn regrets(responses: usize, gap: f64, eta: f64, steps: usize) -> Vec<f64> {
    let mut reward = Array2::zeros((1, responses));
    reward[[0, 0]] = gap;
    // not optimum minus value: that difference of nearly equal numbers would lose the tail
    let regret = |policy: &Policy| gap * policy.prob().iter().skip(1).sum::<f64>();
    let mut policy = Policy::uniform(1, responses);
    let mut regrets = vec![regret(&policy)];
    for _ in 0..steps {
        policy = tilt(&policy, &reward, eta);
        regrets.push(regret(&policy));
    }
    regrets
}

/// Runs exact mirror descent, step by step, for every number of steps and its worst gap, and on one fixed gap.
pub fn data() -> Data {
    let steps: Vec<usize> = vec![1, 2, 3, 5, 7, 10, 14, 20, 30, 50, 70, 100, 140, 200, 300, 500, 700, 1000];
    let fixed_at = 20;
    let curve = |responses: usize| {
        let constant = worst_case_rate(1.0 / responses as f64);
        let gap = |steps: usize| (1.0 + constant) / (ETA * steps as f64);
        let scaled = |regret: f64, t: usize| ETA * t as f64 * regret;
        let fixed = regrets(responses, gap(fixed_at), ETA, steps[steps.len() - 1]);
        Curve {
            responses,
            constant,
            worst: steps.iter().map(|&t| scaled(regrets(responses, gap(t), ETA, t)[t], t)).collect(),
            fixed: steps.iter().map(|&t| scaled(fixed[t], t)).collect(),
        }
    };
    Data { eta: ETA, curves: ARMS.map(curve).to_vec(), steps, fixed_at }
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let panel =
        |title: &str| Plot::new("steps T", "step size × T × regret").title(title).log_x().log_y().x_range(0.9, 1300.0);
    let range = (1e-3, 20.0);
    let mut worst = panel("Worst gap for each T: exactly 1/T").y_range(range.0, range.1);
    let mut fixed =
        panel(&format!("Gap fixed (worst at T = {}): exponential", data.fixed_at)).y_range(range.0, range.1);
    let looks = [(Marker::Circle, Dash::Solid), (Marker::Square, Dash::Dashed), (Marker::Diamond, Dash::Dotted)];
    for (curve, (marker, dash)) in data.curves.iter().zip(looks) {
        let ink = Role::Measured.ink().marker(marker).dash(dash);
        let label = format!("K = {}", curve.responses);
        let points = |values: &[f64]| -> Vec<(f64, f64)> {
            data.steps.iter().zip(values).map(|(&t, &v)| (t as f64, v)).collect()
        };
        worst = worst.points(ink, &label, &points(&curve.worst));
        worst = worst.level(Role::Bound, curve.constant, &format!("{:.3}", curve.constant));
        fixed = fixed.marked_line(ink, &label, &points(&curve.fixed));
        fixed = fixed.level(Role::Bound, curve.constant, &format!("{:.3}", curve.constant));
    }
    let note = format!(
        "Exact mirror descent, step by step, from the uniform policy over K responses, step size {}; one response is better than \
         all others by the gap. Dashed: W₀((K − 1)/e), the sharp constant of the 1/T bound. Computed, not sampled: no seeds.",
        data.eta
    );
    Sheet::row(vec![worst, fixed]).title("The 1/T rate is a supremum over gaps").note(&note).draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worst_gap_attains_the_constant_at_every_t() {
        for curve in data().curves {
            for value in &curve.worst {
                assert!((value / curve.constant - 1.0).abs() < 1e-9, "K = {}: {value}", curve.responses);
            }
        }
    }

    #[test]
    fn fixed_gap_touches_the_constant_once_and_then_decays_faster_than_any_power() {
        let data = data();
        let at = data.steps.iter().position(|&t| t == data.fixed_at).unwrap();
        for curve in &data.curves {
            assert!((curve.fixed[at] / curve.constant - 1.0).abs() < 1e-9);
            assert!(curve.fixed.iter().enumerate().all(|(i, v)| i == at || *v < curve.constant));
            assert!(curve.fixed[data.steps.len() - 1] < 1e-12, "K = {}", curve.responses);
        }
    }
}
