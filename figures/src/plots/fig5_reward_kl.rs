//! The paper's Figure 5 (left): reward against KL to the reference policy while training.
//!
//! The learned reward, which the method regresses on, and the gold reward, which it never sees, have a panel each over
//! the same KL: where the first goes on rising and the second turns down, the learned reward is over-optimised.

use super::{Track, add_track, against, by_method, source};
use crate::chart::Plot;
use crate::data::Run;
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::Role;

/// Rollouts of more iterations than this are averaged over blocks of them: single ones are too noisy to follow.
const POINTS: usize = 30;

/// One reward.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// `scores` (learned) or `gold`.
    pub reward: &'static str,
    /// Reward against KL, a track for each method.
    pub tracks: Vec<Track>,
    /// Mean reward of the supervised policy.
    pub sft: Option<f64>,
    /// Mean reward of the human references.
    pub reference: Option<f64>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Data {
    /// Learned reward, then gold reward, as far as they were measured.
    pub panels: Vec<Panel>,
    /// Whether the points are evaluations on held-out prompts, or else the rollouts of training.
    pub evaluated: bool,
    /// Iterations that a point is the mean of; 1 for evaluations.
    pub block: usize,
    /// The runs.
    pub source: String,
}

/// Gathers KL and rewards from the runs: the evaluations (`eval/*`) where every run has two of them, else the rollouts of
/// training (`objective/*`).
///
/// # Errors
/// The reason why these runs give no such figure.
pub fn data(runs: &[Run]) -> std::result::Result<Data, String> {
    let methods = by_method(runs);
    let enough = |(run, stage): &(&Run, String)| run.series(stage, "eval/kl").len() >= 2;
    let evaluated = !methods.is_empty() && methods.values().flatten().all(enough);
    let prefix = if evaluated { "eval" } else { "objective" };
    let rollouts = methods.values().flatten().map(|(run, stage)| run.series(stage, "objective/kl").len()).max();
    let block = if evaluated { 1 } else { rollouts.unwrap_or(0).div_ceil(POINTS).max(1) };
    let mut panels = Vec::new();
    for reward in ["scores", "gold"] {
        let (kl, metric) = (format!("{prefix}/kl"), format!("{prefix}/{reward}"));
        let tracks: Vec<Track> =
            methods.iter().filter_map(|(&role, runs)| against(role, runs, &kl, &metric, block)).collect();
        let level = |policy: &str| {
            let all = methods.values().flatten().filter_map(|(run, stage)| run.level(policy, reward, stage));
            let levels: Vec<f64> = all.collect();
            (!levels.is_empty()).then(|| levels.iter().sum::<f64>() / levels.len() as f64)
        };
        if !tracks.is_empty() {
            panels.push(Panel { reward, tracks, sft: level("sft"), reference: level("reference") });
        }
    }
    if panels.is_empty() {
        return Err("no run has both a KL and a reward (eval/kl or objective/kl, with scores or gold)".into());
    }
    Ok(Data { panels, evaluated, block, source: source(runs) })
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let panels = data.panels.iter().map(|panel| {
        let (title, y) = match panel.reward {
            "gold" => ("Gold reward (not seen in training)", "gold reward"),
            _ => ("Learned reward (trained on)", "learned reward"),
        };
        let mut plot = Plot::new("KL to reference (nats per sequence)", y).title(title);
        for track in &panel.tracks {
            plot = add_track(plot, track, track.role.ink(), track.role.label());
        }
        if let Some(sft) = panel.sft {
            plot = plot.level(Role::Sft, sft, "SFT");
        }
        if let Some(reference) = panel.reference {
            plot = plot.level(Role::Human, reference, "human\nreference");
        }
        plot
    });
    let points = match data.block {
        _ if data.evaluated => "evaluations on held-out prompts".to_string(),
        1 => "the rollouts of training".to_string(),
        block => format!("means over {block} iterations' rollouts"),
    };
    let note = format!("Points: {points}, in the order of training along each line. {}", data.source);
    Sheet::row(panels.collect()).title("Reward against KL during training").note(&note).draw()
}
