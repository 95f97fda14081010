//! The figures, one file each: `data` gathers or computes the numbers, `draw` makes the picture of them.

use std::collections::BTreeMap;

use rebel_theory::statistics::Estimate;

use crate::chart::{Interval, Plot};
use crate::data::Run;
use crate::seeds::across;
use crate::style::{Ink, Role};

pub mod fig5_reward_kl;
pub mod fig6_regression_loss;
pub mod theory_bandit_regret;
pub mod theory_conservativity;
pub mod theory_coverage_cost;
pub mod theory_estimating_eps;
pub mod theory_excess_error;
pub mod theory_gradient_variance;
pub mod theory_hitting_time;
pub mod theory_inner_steps;
pub mod theory_mse;
pub mod theory_preference_queries;
pub mod theory_regret_rate;
pub mod theory_selfplay_decomposition;
pub mod theory_selfplay_orbit;
pub mod theory_tilt_distance;
pub mod theory_worst_gap;
pub mod theory_worst_of_n;
pub mod training_curves;

/// Points of a curve, `(x, y)`.
pub type Curve = Vec<(f64, f64)>;

/// The same quantity over several runs (seeds) of one method.
#[derive(Debug, Clone, PartialEq)]
pub struct Track {
    /// The method, or what else gives the curve its ink.
    pub role: Role,
    /// One curve a run.
    pub seeds: Vec<Curve>,
    /// Means at the steps that all runs have, with 95% intervals in both coordinates.
    pub mean: Vec<Interval>,
}

/// More points than this get no markers.
const MARKED: usize = 45;

/// The runs of each method, each with the name of the method's stage.
type Methods<'a> = BTreeMap<Role, Vec<(&'a Run, String)>>;

fn by_method(runs: &[Run]) -> Methods<'_> {
    let mut methods = Methods::new();
    for run in runs {
        for (role, stage) in run.methods() {
            methods.entry(role).or_default().push((run, stage));
        }
    }
    methods
}

/// A metric against the step. None if a run lacks it.
fn against_step(role: Role, runs: &[(&Run, String)], metric: &str) -> Option<Track> {
    let seeds: Vec<Curve> = runs.iter().map(|(run, stage)| run.series(stage, metric)).collect();
    let mean: Vec<Interval> = across(&seeds).into_iter().map(|(step, s)| interval((step, step, step), s)).collect();
    (!mean.is_empty()).then_some(Track { role, seeds, mean })
}

/// One metric against another at the steps that have both, averaged over blocks of `block` such steps. None if a run lacks
/// one of them.
fn against(role: Role, runs: &[(&Run, String)], x: &str, y: &str, block: usize) -> Option<Track> {
    let (mut xs, mut ys) = (Vec::new(), Vec::new());
    for (run, stage) in runs {
        let x_values: BTreeMap<u64, f64> = run.series(stage, x).into_iter().map(|(t, v)| (t as u64, v)).collect();
        let both: Vec<(f64, f64, f64)> = run
            .series(stage, y)
            .into_iter()
            .filter_map(|(step, y)| Some((step, *x_values.get(&(step as u64))?, y)))
            .collect();
        let both: Vec<(f64, f64, f64)> = both.chunks(block).map(block_mean).collect();
        xs.push(both.iter().map(|p| (p.0, p.1)).collect::<Curve>());
        ys.push(both.iter().map(|p| (p.0, p.2)).collect::<Curve>());
    }
    let pairs = across(&xs).into_iter().zip(across(&ys));
    let mean: Vec<Interval> = pairs.map(|((_, x), (_, y))| interval((x.value, x.low, x.high), y)).collect();
    let join = |(x, y): (&Curve, &Curve)| x.iter().zip(y).map(|(x, y)| (x.1, y.1)).collect();
    let seeds = xs.iter().zip(&ys).map(join).collect();
    (!mean.is_empty()).then_some(Track { role, seeds, mean })
}

/// The first step of a block, and both metrics' means over it.
fn block_mean(block: &[(f64, f64, f64)]) -> (f64, f64, f64) {
    let mean = |of: fn(&(f64, f64, f64)) -> f64| block.iter().map(of).sum::<f64>() / block.len() as f64;
    (block[0].0, mean(|p| p.1), mean(|p| p.2))
}

fn interval((x, low, high): (f64, f64, f64), y: Estimate) -> Interval {
    Interval { at: (x, y.value), x: (low, high), y: (y.low, y.high) }
}

/// Adds a track: every seed as a faint line, its mean on top, intervals as a band where x is the same for all seeds and
/// as crossed bars where it is not.
fn add_track(plot: Plot, track: &Track, ink: Ink, label: &str) -> Plot {
    let mean: Curve = track.mean.iter().map(|m| m.at).collect();
    let mut plot = plot;
    if track.seeds.len() > 1 {
        let common_x = track.mean.iter().all(|m| m.x.0 == m.x.1);
        if common_x {
            let band: Vec<(f64, f64, f64)> = track.mean.iter().map(|m| (m.at.0, m.y.0, m.y.1)).collect();
            plot = plot.band(ink, &band);
        } else {
            plot = track.seeds.iter().fold(plot, |plot, seed| plot.faint_line(ink, seed)).bars(ink, &track.mean);
        }
    }
    match mean.len() {
        1 => plot.points(ink, label, &mean),
        2..=MARKED => plot.marked_line(ink, label, &mean),
        _ => plot.line(ink, label, &mean),
    }
}

/// What the note says of the runs a figure was drawn from.
fn source<'a>(runs: impl IntoIterator<Item = &'a Run>) -> String {
    let names: Vec<&str> = runs.into_iter().map(|run| run.name.as_str()).collect();
    match names.as_slice() {
        [one] => format!("Source: run {one}; one seed, so no interval."),
        many => format!(
            "Source: {} runs ({}). Means over a method's runs with 95% t intervals.",
            many.len(),
            many.join(", ")
        ),
    }
}
