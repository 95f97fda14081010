//! The paper's Figure 6: the regression loss while training, with what it cannot show beside it.
//!
//! The training loss is not the error of Theorem 1: it is taken on the pairs that were fitted, and contains their
//! noise. The held-out pair loss (fresh pairs of the same law, after the update) estimates that error, up to the label
//! noise; the null loss is that of a predictor that sees no difference in any pair. A falling training loss may
//! only mean a falling null loss: the policy concentrates and its pairs differ less.

use super::{Curve, Track, add_track, against_step, by_method, source};
use crate::chart::{Interval, Plot};
use crate::data::Run;
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::seeds::across;
use crate::style::{Dash, Marker, Role};

/// What the figure shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Data {
    /// Mean pair loss of each update, on the pairs it was fitted to, reward units squared.
    pub training: Track,
    /// Pair loss on fresh pairs.
    pub held_out: Option<Track>,
    /// Loss of the predictor 0 on the same pairs.
    pub null: Option<Track>,
    /// 1 - held-out / null: the part of the reward differences that was learned.
    pub explained: Option<Track>,
    /// The runs.
    pub source: String,
}

/// Gathers REBEL's losses. With one run, the held-out loss's interval is two of its standard errors to either side.
///
/// # Errors
/// The reason why these runs give no such figure.
pub fn data(runs: &[Run]) -> std::result::Result<Data, String> {
    let methods = by_method(runs);
    let rebel = methods.get(&Role::Rebel).ok_or("no run has a stage `rebel`")?;
    let track = |metric: &str| {
        let mut track = against_step(Role::Rebel, rebel, metric)?;
        // a squared error is not negative; the t interval of a few seeds does not know
        track.mean.iter_mut().for_each(|point| point.y.0 = point.y.0.max(0.0));
        Some(track)
    };
    let training = track("loss/regression").ok_or("a `rebel` stage has no loss/regression")?;
    let mut held_out = track("heldout/pair_loss");
    if let ([(run, stage)], Some(track)) = (rebel.as_slice(), &mut held_out) {
        let errors = run.series(stage, "heldout/stderr");
        for point in &mut track.mean {
            if let Some((_, error)) = errors.iter().find(|(step, _)| *step == point.at.0) {
                point.y = ((point.at.1 - 2.0 * error).max(0.0), point.at.1 + 2.0 * error);
            }
        }
    }
    let null = track("heldout/null_loss");
    let explained = held_out.as_ref().zip(null.as_ref()).and_then(|(held_out, null)| explained(held_out, null));
    Ok(Data { training, held_out, null, explained, source: source(rebel.iter().map(|(run, _)| *run)) })
}

/// 1 - held-out / null, run by run.
fn explained(held_out: &Track, null: &Track) -> Option<Track> {
    let ratio = |(held_out, null): (&Curve, &Curve)| -> Curve {
        let null_at = |step: f64| null.iter().find(|p| p.0 == step).map(|p| p.1).filter(|&v| v > 0.0);
        held_out.iter().filter_map(|&(step, loss)| Some((step, 1.0 - loss / null_at(step)?))).collect()
    };
    let seeds: Vec<Curve> = held_out.seeds.iter().zip(&null.seeds).map(ratio).collect();
    let point = |(step, s): (f64, rebel_theory::statistics::Estimate)| Interval {
        at: (step, s.value),
        x: (step, step),
        y: (s.low, s.high),
    };
    let mean: Vec<Interval> = across(&seeds).into_iter().map(point).collect();
    (!mean.is_empty()).then_some(Track { role: Role::Rebel, seeds, mean })
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let rebel = Role::Rebel.ink();
    let mut losses =
        Plot::new("iteration", "pair loss (reward units squared)").title("Regression loss").y_includes(0.0);
    losses = add_track(losses, &data.training, rebel, "training pairs");
    if let Some(held_out) = &data.held_out {
        let ink = rebel.marker(Marker::Diamond).hollow().dash(Dash::Dashed);
        if held_out.seeds.len() == 1 {
            let band: Vec<(f64, f64, f64)> = held_out.mean.iter().map(|m| (m.at.0, m.y.0, m.y.1)).collect();
            losses = losses.band(ink, &band);
        }
        losses = add_track(losses, held_out, ink, "held-out pairs");
    }
    if let Some(null) = &data.null {
        losses = add_track(losses, null, Role::Control.ink(), "null: predict no difference");
    }
    let mut panels = vec![losses];
    if let Some(explained) = &data.explained {
        let plot = Plot::new("iteration", "1 \u{2212} held-out / null").title("Reward differences explained");
        let plot = add_track(plot, explained, rebel.marker(Marker::Diamond).hollow(), "").y_includes(1.0);
        panels.push(plot.level(Role::Control, 0.0, "nothing\nlearned"));
    }
    let mut note =
        "The training loss is not the error of Theorem 1: it is measured on the pairs that were fitted.".to_string();
    if let Some(held_out) = &data.held_out {
        note += " Held-out: fresh pairs, after the update.";
        if held_out.seeds.len() == 1 {
            note += " Band: two standard errors to either side.";
        }
    }
    if data.null.is_some() {
        note += " Where the null loss falls, so does the training loss, whatever was learned.";
    }
    let note = format!("{note} {}", data.source);
    Sheet::row(panels).title("REBEL's regression while training").note(&note).draw()
}
