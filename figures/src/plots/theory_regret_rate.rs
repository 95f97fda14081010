//! Where the rate of Theorem 1 comes from (experiments E5.1 and E5.4): the step size and the gap decide between 1/sqrt(T), 1/T and
//! exponential decay; what a misspecified regression adds is a floor, and the bounds on both.

use rebel_theory::experiments::regret_rate::{Gap, Progress, StepSize, last_regret, misspecified_run};
use serde::{Deserialize, Serialize};

use crate::chart::Plot;
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::{Dash, Marker, Role};

/// One line.
pub const SHOWS: &str = "regret against iterations by step size and gap, and a misspecified run under its bounds";
/// The claims it shows.
pub const CLAIMS: &[&str] = &["slow-rate", "theorem1"];
/// Seeds: the one that makes the misspecified instance; nothing is sampled from it.
pub const SEEDS: u64 = 1;

const ARMS: usize = 10;
const ETA: f64 = 0.5;

/// What the figure shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Number of responses of the left panel.
    pub arms: usize,
    /// Numbers of iterations, `[T]`.
    pub steps: Vec<usize>,
    /// Regret of the last iterate at the worst gap of each T, the paper's step size, `[T]`.
    pub worst_paper: Vec<f64>,
    /// The same with step size 1, `[T]`.
    pub worst_constant: Vec<f64>,
    /// Gap .5, the paper's step size, `[T]`.
    pub fixed_paper: Vec<f64>,
    /// Gap .5, step size 1, `[T]`.
    pub fixed_constant: Vec<f64>,
    /// Step size of the misspecified run.
    pub eta: f64,
    /// The misspecified run.
    pub run: Vec<Progress>,
}

/// Numbers of iterations, evenly spread on a logarithmic axis.
fn spread(largest: usize, per_decade: usize) -> Vec<usize> {
    let places = (0..).map(|i| 10f64.powf(f64::from(i) / per_decade as f64).round() as usize);
    let mut steps: Vec<usize> = places.take_while(|&t| t <= largest).collect();
    steps.dedup();
    steps
}

/// Runs exact mirror descent for every T, and one misspecified run.
pub fn data() -> Data {
    let steps = spread(3200, 6);
    let curve =
        |size, gap| -> Vec<f64> { steps.iter().map(|&t| last_regret(ARMS, t, size, gap).expect("a race")).collect() };
    Data {
        arms: ARMS,
        worst_paper: curve(StepSize::Paper, Gap::Worst),
        worst_constant: curve(StepSize::Constant(1.0), Gap::Worst),
        fixed_paper: curve(StepSize::Paper, Gap::Fixed(0.5)),
        fixed_constant: curve(StepSize::Constant(1.0), Gap::Fixed(0.5)),
        eta: ETA,
        run: misspecified_run(0, ETA, &spread(1000, 8)).expect("a run"),
        steps,
    }
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let points =
        |values: &[f64]| -> Vec<(f64, f64)> { data.steps.iter().zip(values).map(|(&t, &v)| (t as f64, v)).collect() };
    let paper = Role::Measured.ink().marker(Marker::Square).dash(Dash::Dashed);
    let rates = Plot::new("iterations T", "regret of the last iterate")
        .title("Exact regression: the step size sets the rate")
        .log_x()
        .log_y()
        .y_range(1e-5, 3.0)
        .legend_above()
        .marked_line(paper, "step ∝ 1/√T, worst gap: ∝ 1/√T", &points(&data.worst_paper))
        .marked_line(Role::Rebel, "step 1, worst gap: ∝ 1/T", &points(&data.worst_constant))
        .marked_line(Role::Control.ink().dash(Dash::Dashed), "step ∝ 1/√T, gap 0.5", &points(&data.fixed_paper))
        .marked_line(
            Role::Control.ink().marker(Marker::Diamond).dash(Dash::Solid),
            "step 1, gap 0.5",
            &points(&data.fixed_constant),
        );
    let of = |value: fn(&Progress) -> f64| -> Vec<(f64, f64)> {
        data.run.iter().map(|p| (p.steps as f64, value(p))).collect()
    };
    let constant_eta: Vec<(f64, f64)> =
        data.run.iter().filter_map(|p| Some((p.steps as f64, p.constant_eta?))).collect();
    let bound = Role::Bound.ink();
    let misfit = Plot::new("iterations T", "average regret so far")
        .title("Misspecified features: a floor, and its bounds")
        .log_x()
        .y_range(-0.25, 3.75)
        .legend_above()
        .line(bound.dash(Dash::Dotted), "Theorem 1, the paper's constants", &of(|p| p.paper))
        .line(bound, "sharp constants", &of(|p| p.sharp))
        .line(bound.dash(Dash::Solid), "sharp, from π₁ on", &constant_eta)
        .line(Role::Rebel, "regret", &of(|p| p.regret))
        .line(Role::Measured.ink().dash(Dash::Dashed), "of it misfit", &of(|p| p.approximation))
        .line(Role::Reinforce.ink().dash(Dash::Dotted), "of it mirror descent", &of(|p| p.mirror_descent));
    let note = format!(
        "Left: exact mirror descent from the uniform policy over {} responses, one better by the gap; worst: the gap that makes the \
         regret after T steps largest, chosen anew for each T. Right: log-linear REBEL, all expectations exact, 12 contexts, 6 \
         responses, 2 features, step size {}; regret = mirror descent + misfit, exactly; its mirror-descent part goes below 0 where the class drives out the best response. Computed, not sampled.",
        data.arms, data.eta
    );
    Sheet::row(vec![rates, misfit]).title("How regret falls with the number of iterations").note(&note).draw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rebel_theory::statistics::log_log_slope;

    #[test]
    fn rates_are_a_half_and_one_and_the_run_stays_below_its_bounds() {
        let data = data();
        let steps: Vec<f64> = data.steps.iter().map(|&t| t as f64).collect();
        let late = steps.iter().position(|&t| t >= 30.0).unwrap();
        let slope = |values: &[f64]| log_log_slope(&steps[late..], &values[late..]).value;
        assert!((slope(&data.worst_paper) + 0.5).abs() < 0.05 && (slope(&data.worst_constant) + 1.0).abs() < 0.05);
        let hundred = data.steps.iter().position(|&t| t == 100).unwrap();
        assert!(data.fixed_constant[hundred] < 1e-15 && data.worst_constant[hundred] > 1e-2);
        for p in &data.run {
            assert!((p.regret - p.mirror_descent - p.approximation).abs() < 1e-10, "{p:?}");
            assert!(p.regret < p.sharp && p.sharp < p.paper, "{p:?}");
            assert!(p.constant_eta.is_some_and(|bound| bound < p.sharp), "{p:?}");
        }
    }
}
