//! Every figure, drawn from files of results.
//!
//! A figure is made of [`Plot`]s on a [`Sheet`] and becomes a [`Figure`]: an SVG and a PNG that need no font and are the
//! same bytes for the same data. [`from_run`] draws what the metrics of training runs allow, [`from_committed`] the
//! figures whose numbers are part of the program, and [`make`] computes those numbers again.

mod canvas;
mod chart;
pub mod data;
mod error;
mod layout;
mod legend;
mod panel;
pub mod paper;
pub mod plots;
mod recorded;
mod render;
mod scale;
pub mod seeds;
mod style;

use std::path::{Path, PathBuf};

pub use chart::{Interval, Plot};
pub use error::{Error, Result};
pub use layout::Sheet;
pub use recorded::{Provenance, record};
pub use render::Figure;
pub use style::{Colour, Dash, Ink, LEAST_DISTANCE, Marker, Role, THEME, Theme};

use data::Run;
use plots::{fig5_reward_kl, fig6_regression_loss, theory_conservativity, theory_worst_gap, training_curves};
use recorded::Recorded;

/// A figure by name and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It was drawn.
    Drawn {
        /// Its name.
        name: &'static str,
        /// The SVG, the PNG, and for [`make`] the data.
        files: Vec<PathBuf>,
    },
    /// The data did not allow it.
    Skipped {
        /// Its name.
        name: &'static str,
        /// What is missing.
        reason: String,
    },
}

/// A figure's name, what it shows, and whether it is drawn from runs (or else from committed data).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// As in file names and `--make`.
    pub name: &'static str,
    /// One line.
    pub shows: &'static str,
    /// From runs, or from committed data.
    pub from_runs: bool,
}

const CONSERVATIVITY: &str = "theory_conservativity";
const WORST_GAP: &str = "theory_worst_gap";

/// Every figure there is.
pub fn names() -> Vec<Name> {
    let name = |name, shows, from_runs| Name { name, shows, from_runs };
    vec![
        name("fig5_reward_kl", "learned and gold reward against KL during training (the paper's Figure 5)", true),
        name("fig6_regression_loss", "regression loss, held-out pair loss and null loss (the paper's Figure 6)", true),
        name("training_curves", "supervised loss, reward-model accuracy, reward and KL against queries", true),
        name(CONSERVATIVITY, "KL of one exact step against its sharp bound", false),
        name(WORST_GAP, "the 1/T rate as a supremum over gaps", false),
    ]
}

/// Draws every figure that these runs (folders with `metrics.jsonl`, one a seed) allow, into `out`.
///
/// # Errors
/// A run that cannot be read, a value that cannot be drawn, a figure that cannot be written. What the runs have no data
/// for is skipped, with a reason.
pub fn from_run(run_dirs: &[PathBuf], out: &Path) -> Result<Vec<Written>> {
    let runs = Run::read_all(run_dirs)?;
    let figures = [
        ("fig5_reward_kl", fig5_reward_kl::data(&runs).map(|data| fig5_reward_kl::draw(&data))),
        ("fig6_regression_loss", fig6_regression_loss::data(&runs).map(|data| fig6_regression_loss::draw(&data))),
        ("training_curves", training_curves::data(&runs).map(|data| training_curves::draw(&data))),
    ];
    let mut written = Vec::new();
    for (name, figure) in figures {
        written.push(match figure {
            Ok(figure) => Written::Drawn { name, files: figure?.save(out.join(name))?.to_vec() },
            Err(reason) => Written::Skipped { name, reason },
        });
    }
    Ok(written)
}

/// Draws every figure whose numbers are committed, into `out`.
///
/// # Errors
/// A figure that cannot be written.
pub fn from_committed(out: &Path) -> Result<Vec<Written>> {
    let mut written = Vec::new();
    for Name { name, .. } in names().into_iter().filter(|name| !name.from_runs) {
        written.push(Written::Drawn { name, files: committed(name)?.save(out.join(name))?.to_vec() });
    }
    Ok(written)
}

/// One figure from its committed numbers.
///
/// # Errors
/// No figure with committed numbers has this name.
pub fn committed(name: &str) -> Result<Figure> {
    let conservativity = include_str!("../data/theory_conservativity.json");
    let worst_gap = include_str!("../data/theory_worst_gap.json");
    match name {
        CONSERVATIVITY => theory_conservativity::draw(&Recorded::read(name, conservativity)?.data),
        WORST_GAP => theory_worst_gap::draw(&Recorded::read(name, worst_gap)?.data),
        _ => Err(unknown(name)),
    }
}

/// Computes a figure's numbers, writes them to `root/figures/data/NAME.json` with how they were made, and draws the
/// figure into `out`. `root` is a checkout of the repository.
///
/// # Errors
/// No figure with computed numbers has this name; a file cannot be written.
pub fn make(name: &str, root: &Path, out: &Path) -> Result<Written> {
    let provenance = Provenance::here(&format!("rebel figures --make {name}"), root);
    let path = root.join("figures/data").join(format!("{name}.json"));
    let (name, figure) = match name {
        CONSERVATIVITY => {
            let provenance = Provenance { seeds: (0..theory_conservativity::SEEDS).collect(), ..provenance };
            let recorded = Recorded { provenance, data: theory_conservativity::data() };
            recorded.write(&path)?;
            (CONSERVATIVITY, theory_conservativity::draw(&recorded.data)?)
        }
        WORST_GAP => {
            let recorded = Recorded { provenance, data: theory_worst_gap::data() };
            recorded.write(&path)?;
            (WORST_GAP, theory_worst_gap::draw(&recorded.data)?)
        }
        _ => return Err(unknown(name)),
    };
    let mut files = figure.save(out.join(name))?.to_vec();
    files.push(path);
    Ok(Written::Drawn { name, files })
}

fn unknown(name: &str) -> Error {
    let computed = names().into_iter().filter(|name| !name.from_runs).map(|name| name.name);
    Error::Unknown { name: name.into(), known: computed.collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of exponentials may differ in the last digits between machines.
    fn same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
        use serde_json::Value::{Array, Object};
        match (a, b) {
            (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            (Object(a), Object(b)) => a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|b| same(v, b))),
            _ => match (a.as_f64(), b.as_f64()) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-9),
                _ => a == b,
            },
        }
    }

    #[test]
    fn committed_numbers_equal_those_computed_now() {
        let now = [
            serde_json::to_value(theory_conservativity::data()).unwrap(),
            serde_json::to_value(theory_worst_gap::data()).unwrap(),
        ];
        let committed =
            [include_str!("../data/theory_conservativity.json"), include_str!("../data/theory_worst_gap.json")];
        for (now, committed) in now.iter().zip(committed) {
            let committed: serde_json::Value = serde_json::from_str(committed).unwrap();
            assert!(same(now, &committed["data"]));
            for key in ["command", "commit", "machine", "date"] {
                assert!(committed[key].as_str().is_some_and(|text| !text.is_empty()), "{key}");
            }
        }
        assert!(!same(&serde_json::json!([1.0]), &serde_json::json!([1.0 + 1e-6])));
    }

    #[test]
    fn every_committed_figure_is_drawn_and_an_unknown_one_is_named() {
        for name in names().iter().filter(|name| !name.from_runs) {
            assert!(!committed(name.name).unwrap().touches_edge(2.0).unwrap(), "{}", name.name);
        }
        let error = committed("fig99").unwrap_err().to_string();
        assert_eq!(error, "no figure is called `fig99` (there are: theory_conservativity, theory_worst_gap)");
    }
}
