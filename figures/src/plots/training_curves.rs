//! A run at a glance: supervised fine-tuning, the reward model, then reward and KL against the queries spent.

use super::{Methods, Track, add_track, against, against_step, by_method, source};
use crate::chart::Plot;
use crate::data::Run;
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::{Dash, Marker, Role};

/// One panel: its curves with their names.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Title.
    pub title: &'static str,
    /// What x is.
    pub x: &'static str,
    /// What y is.
    pub y: &'static str,
    /// The curves, with the name each has in the legend, and whether it is the second quantity of its method.
    pub curves: Vec<(Track, String, bool)>,
    /// A horizontal line and its name.
    pub level: Option<(f64, &'static str)>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Data {
    /// Only those that the runs have data for.
    pub panels: Vec<Panel>,
    /// The runs.
    pub source: String,
}

/// Gathers what the runs have of: SFT losses, reward-model accuracy, rewards and KL against queries (or iterations where
/// queries were not counted).
///
/// # Errors
/// The reason why these runs give no such figure.
pub fn data(runs: &[Run]) -> std::result::Result<Data, String> {
    let stage = |stage: &str| -> Vec<(&Run, String)> {
        let with = runs.iter().filter(|run| run.rows.iter().any(|row| row.stage == stage));
        with.map(|run| (run, stage.to_string())).collect()
    };
    let (sft, reward) = (stage("sft"), stage("reward"));
    let of_stage = |runs: &[(&Run, String)], role: Role, metrics: &[(&str, &str)]| -> Vec<(Track, String, bool)> {
        let curves = metrics.iter().enumerate().filter_map(|(second, &(metric, name))| {
            Some((against_step(role, runs, metric)?, name.to_string(), second == 1))
        });
        curves.collect()
    };
    let losses = of_stage(&sft, Role::Sft, &[("loss/train", "training"), ("loss/validation", "held out")]);
    let accuracy = of_stage(&reward, Role::Measured, &[("eval/accuracy", "")]);

    let methods = by_method(runs);
    let counted = methods.values().flatten().all(|(run, stage)| !run.series(stage, "queries").is_empty());
    let x = if counted { "reward queries" } else { "iteration" };
    let panels = [
        Panel { title: "Supervised fine-tuning", x: "step", y: "loss (nats per token)", curves: losses, level: None },
        Panel {
            title: "Reward model",
            x: "step",
            y: "held-out pair accuracy",
            curves: accuracy,
            level: Some((0.5, "chance")),
        },
        Panel { title: "KL to the reference", x, y: "KL (nats)", curves: spent(&methods, counted, "kl"), level: None },
        Panel { title: "Learned reward", x, y: "mean score", curves: spent(&methods, counted, "scores"), level: None },
        Panel { title: "Gold reward", x, y: "mean reward", curves: spent(&methods, counted, "gold"), level: None },
        Panel { title: "Entropy", x, y: "nats per sequence", curves: spent(&methods, counted, "entropy"), level: None },
    ];
    let panels: Vec<Panel> = panels.into_iter().filter(|panel| !panel.curves.is_empty()).collect();
    if panels.is_empty() {
        return Err("no run has losses, accuracies, rewards or KL".into());
    }
    Ok(Data { panels, source: source(runs) })
}

/// A metric of each method against the queries spent (or the iteration): of the evaluations where there are any, else of
/// the rollouts.
fn spent(methods: &Methods, counted: bool, metric: &str) -> Vec<(Track, String, bool)> {
    let mut curves = Vec::new();
    for (&role, runs) in methods {
        let track = |prefix: &str| {
            let name = format!("{prefix}/{metric}");
            if counted { against(role, runs, "queries", &name, 1) } else { against_step(role, runs, &name) }
        };
        let best = track("eval").filter(|t| t.mean.len() > 1).or_else(|| track("objective"));
        curves.extend(best.map(|track| (track, role.label().to_string(), false)));
    }
    curves
}

/// Draws it: three panels a row, or two where there are no more than four.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let mut plots = Vec::new();
    for panel in &data.panels {
        let mut plot = Plot::new(panel.x, panel.y).title(panel.title);
        for (track, name, second) in &panel.curves {
            let ink = track.role.ink().dash(Dash::Solid);
            let ink = if *second { ink.dash(Dash::Dashed).hollow().marker(Marker::Diamond) } else { ink };
            plot = add_track(plot, track, ink, name);
        }
        if let Some((level, name)) = panel.level {
            plot = plot.level(Role::Control, level, name);
        }
        plots.push(plot);
    }
    let rows = plots.chunks(if plots.len() > 4 { 3 } else { 2 }).map(<[Plot]>::to_vec).collect();
    Sheet::grid(rows).title("Training, stage by stage").note(&data.source).draw()
}
