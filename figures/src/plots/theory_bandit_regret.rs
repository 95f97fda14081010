//! REBEL as a bandit algorithm (experiment E5.7): the regret of the policy it ends with, and of everything it queried,
//! against the number of rewards queried, beside algorithms made for bandits.
//!
//! REBEL has no optimism: UCB1, and even uniform queries followed by the best mean, end no worse. With the second response
//! uniform half of what that law loses is paid for ever. Features matter more than the update, as long as they fit.

use rebel_theory::bandit::Policy;
use rebel_theory::experiments::equal_queries::{Algorithm, Point, Task};
use rebel_theory::experiments::sampled_regret::Problem;
use rebel_theory::statistics::Estimate;
use serde::{Deserialize, Serialize};

use crate::chart::{Interval, Plot};
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::{Colour, Dash, Ink, Marker, Role};

/// One line.
pub const SHOWS: &str = "last and paid regret against reward queries, REBEL beside bandit algorithms";
/// The claims it shows.
pub const CLAIMS: &[&str] = &["bandit-regret"];
/// Runs of each point.
pub const SEEDS: u64 = 100;

const QUERIES: [usize; 6] = [400, 1000, 2000, 4000, 8000, 16_000];
/// The least regret shown: what is below has left the panel.
const FLOOR: f64 = 1e-4;

/// One algorithm on one problem.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Which.
    pub algorithm: Algorithm,
    /// Its regrets at each number of queries.
    pub points: Vec<Point>,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Panel {
    /// What it is.
    pub name: String,
    /// The regret of uniform queries.
    pub uniform: f64,
    /// The regret that REBEL without noise converges to, where the class does not hold the reward.
    pub floor: Option<f64>,
    /// The algorithms.
    pub curves: Vec<Curve>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// The problems.
    pub panels: Vec<Panel>,
}

/// Runs every algorithm on every problem.
pub fn data() -> Data {
    use Algorithm::{Exp3, Explore, LinUcb, RebelOnPolicy, RebelUniform, Rloo, RlooOnePair, Ucb1};
    let arms = [RebelUniform, RebelOnPolicy, Rloo, RlooOnePair, Ucb1, Exp3, Explore].as_slice();
    let contextual = [RebelUniform, RebelOnPolicy, Rloo, Ucb1, Exp3, LinUcb, Explore].as_slice();
    let panel = |name: &str, task: std::result::Result<Task, _>, algorithms: &[Algorithm], misfit: bool| {
        let task: Task = task.expect("a bandit of known numbers");
        let curve = |&algorithm: &Algorithm| Curve {
            algorithm,
            points: task.curve(algorithm, &QUERIES, (SEEDS, 0)).expect("batches that fit the bandit"),
        };
        let class = &task.problem.class;
        Panel {
            name: name.into(),
            uniform: task.problem.env.regret(&Policy::uniform(class.contexts(), class.responses())),
            floor: misfit.then(|| noiseless_regret(&task.problem)),
            curves: algorithms.iter().map(curve).collect(),
        }
    };
    Data {
        panels: vec![
            panel("10 arms, one better by .2", Task::arms(10, 0.2), arms, false),
            panel("50 arms, one better by .2", Task::arms(50, 0.2), arms, false),
            panel("contextual, linear rewards", Task::contextual(0.0), contextual, false),
            panel("contextual, nonlinear rewards", Task::contextual(0.15), contextual, true),
        ],
    }
}

/// The regret after 400 population steps of size 1, the second response uniform.
fn noiseless_regret(problem: &Problem) -> f64 {
    let (bandit, class) = (problem.env.bandit(), &problem.class);
    let mu = Policy::uniform(class.contexts(), class.responses());
    let mut logits = mu.log().clone();
    for _ in 0..400 {
        let step = class.population(bandit, &Policy::from_logits(&logits), &mu).expect("finite features");
        logits += &class.predict(&step);
    }
    problem.env.regret(&Policy::from_logits(&logits))
}

/// Policies that learn from batches in their own colours, algorithms made for bandits in greys.
fn look(algorithm: Algorithm) -> (Ink, &'static str) {
    let grey =
        |level: u8, marker: Marker, dash: Dash| Ink { colour: Colour(level, level, level), marker, hollow: true, dash };
    match algorithm {
        Algorithm::RebelUniform => (Role::Rebel.ink(), "REBEL, μ uniform"),
        Algorithm::RebelOnPolicy => (Role::Rebel.ink().dash(Dash::Dashed).hollow(), "REBEL, μ = π"),
        Algorithm::Rloo => (Role::RlooTwo.ink(), "RLOO, same batches"),
        Algorithm::RlooOnePair => (Role::RlooTwo.ink().dash(Dash::Dotted).hollow(), "RLOO, one pair"),
        Algorithm::Ucb1 => (grey(0x20, Marker::Square, Dash::Solid), "UCB1"),
        Algorithm::Exp3 => (grey(0x90, Marker::Up, Dash::Solid), "EXP3"),
        Algorithm::LinUcb => (grey(0x20, Marker::Star, Dash::Dashed), "LinUCB"),
        Algorithm::Explore => (grey(0x70, Marker::Down, Dash::Dotted), "uniform, then commit"),
    }
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let rows = data.panels.iter().enumerate().map(|(i, panel)| {
        // which algorithms there are differs between arms and contexts only
        let named = |label: &'static str| if i % 2 == 0 { label } else { "" };
        let column = |y: &str, title: &str, value: fn(&Point) -> Estimate, low: f64| {
            let plot = Plot::new("rewards queried", y).title(title).log_x().log_y();
            let plot = plot.x_range(350.0, 18_500.0).y_range(low, 0.6).legend_above();
            panel.curves.iter().fold(plot, |plot, curve| {
                let (ink, label) = look(curve.algorithm);
                let shown = |v: f64| v.max(1e-3 * FLOOR); // a logarithm needs more than nothing
                let bar = |p: &Point| {
                    let (x, y) = (p.queries as f64, value(p));
                    Interval { at: (x, shown(y.value)), x: (x, x), y: (shown(y.low), shown(y.high)) }
                };
                let bars: Vec<Interval> = curve.points.iter().map(bar).collect();
                let points: Vec<(f64, f64)> = bars.iter().map(|bar| bar.at).collect();
                let inside: Vec<Interval> = bars.iter().copied().filter(|bar| bar.at.1 >= low).collect();
                plot.bars(ink, &inside).marked_line(ink, named(label), &points)
            })
        };
        let last = column("regret of the last policy", &format!("Last: {}", panel.name), |p| p.last, FLOOR);
        let last = match panel.floor {
            Some(floor) => last.level(Role::Bound, floor, "misfit"),
            None => last,
        };
        let paid = column("mean regret of all queries", &format!("Paid: {}", panel.name), |p| p.paid, 3e-3);
        vec![last, paid.level(Role::Bound, panel.uniform / 2.0, "half of\nuniform")]
    });
    let rows: Vec<Vec<Plot>> = rows.collect();
    let note = format!(
        "Bernoulli rewards, means of {SEEDS} seeds with 95% t intervals (bars). Arms: mean .4, the best .6; contextual: 5 contexts, 20 \
         responses, 4 normal features, means filling .1 to .9, in the lowest row moved by .15 N(0, 1). Batches of 50 pairs (100 for 50 \
         arms). Step sizes of REBEL (.1 to 10) and RLOO (1 to 100; one pair .1 to 10) are the best of five in hindsight, for each panel and \
         number of queries by itself; EXP3, UCB1 and LinUCB as published, the first two in each context. Dashed: half the regret of \
         uniform queries, which a uniform μ pays for ever; what REBEL without noise converges to. A curve that leaves at the bottom is \
         below {FLOOR}.",
    );
    Sheet::grid(rows).title("REBEL as a bandit algorithm, at equal reward queries").note(&note).draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_second_response_pays_half_its_regret_and_others_less() {
        let text = include_str!("../../data/theory_bandit_regret.json");
        let data: Data = crate::Recorded::read("theory_bandit_regret", text).unwrap().data;
        for panel in &data.panels {
            let of = |algorithm: Algorithm| {
                let curve = panel.curves.iter().find(|curve| curve.algorithm == algorithm).unwrap();
                *curve.points.last().unwrap()
            };
            assert!(of(Algorithm::RebelUniform).paid.value > 0.49 * panel.uniform, "{}", panel.name);
            assert!(of(Algorithm::Rloo).paid.value < 0.49 * panel.uniform, "{}", panel.name);
            assert!((of(Algorithm::Explore).paid.value / panel.uniform - 1.0).abs() < 0.02, "{}", panel.name);
        }
    }
}
