//! Every figure, drawn from files of results.
//!
//! A figure is made of [`Plot`]s on a [`Sheet`] and becomes a [`Figure`]: an SVG and a PNG that need no font and are the
//! same bytes for the same data. [`from_run`] draws what the metrics of training runs allow, [`from_committed`] the
//! figures whose numbers are part of the program, and [`make`] computes those numbers again. A [`page::Page`] carries
//! figures, tables and formulas in one file; [`report`] makes such pages of results.

mod canvas;
mod chart;
pub mod data;
mod error;
mod layout;
mod legend;
pub mod page;
mod panel;
pub mod paper;
pub mod plots;
mod recorded;
mod render;
pub mod report;
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
use plots::{fig5_reward_kl, fig6_regression_loss, training_curves};
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
    /// Whether its numbers take more than a few seconds to make.
    pub long: bool,
}

/// A figure whose numbers are computed by the theory: how they are made, and how they are drawn.
struct Computed {
    name: &'static str,
    shows: &'static str,
    claims: &'static [&'static str],
    seeds: u64,
    /// Whether the numbers take more than a few seconds to make.
    long: bool,
    committed: &'static str,
    data: fn() -> serde_json::Value,
    draw: fn(&str) -> Result<(Figure, Provenance)>,
}

/// The entry of a module of [`plots`] that has `SHOWS`, `CLAIMS`, `SEEDS`, `data` and `draw`; its numbers are committed in
/// `figures/data` under the module's name.
macro_rules! computed {
    ($module:ident, long: $long:literal) => {
        Computed {
            name: stringify!($module),
            shows: plots::$module::SHOWS,
            claims: plots::$module::CLAIMS,
            seeds: plots::$module::SEEDS,
            long: $long,
            committed: include_str!(concat!("../data/", stringify!($module), ".json")),
            data: || serde_json::to_value(plots::$module::data()).expect("numbers and names"),
            draw: |text| {
                let recorded = Recorded::read(stringify!($module), text)?;
                Ok((plots::$module::draw(&recorded.data)?, recorded.provenance))
            },
        }
    };
}

/// Every computed figure, in the order in which the theory's notes list them.
const COMPUTED: &[Computed] = &[
    // estimation
    computed!(theory_gradient_variance, long: false),
    computed!(theory_mse, long: true),
    computed!(theory_excess_error, long: true),
    computed!(theory_estimating_eps, long: true),
    // regret
    computed!(theory_coverage_cost, long: false),
    computed!(theory_regret_rate, long: false),
    computed!(theory_hitting_time, long: false),
    computed!(theory_worst_of_n, long: false),
    // games
    computed!(theory_selfplay_orbit, long: false),
    computed!(theory_preference_queries, long: true),
    // baselines
    computed!(theory_inner_steps, long: true),
    computed!(theory_tilt_distance, long: false),
    // tokens
    // bandits
    computed!(theory_bandit_regret, long: true),
    computed!(theory_selfplay_decomposition, long: true),
    // mirror descent
    computed!(theory_conservativity, long: false),
    computed!(theory_worst_gap, long: false),
];

/// Every figure there is.
pub fn names() -> Vec<Name> {
    let name = |name, shows, from_runs| Name { name, shows, from_runs, long: false };
    let mut names = vec![
        name("fig5_reward_kl", "learned and gold reward against KL during training (the paper's Figure 5)", true),
        name("fig6_regression_loss", "regression loss, held-out pair loss and null loss (the paper's Figure 6)", true),
        name("training_curves", "supervised loss, reward-model accuracy, reward and KL against queries", true),
    ];
    names.extend(COMPUTED.iter().map(|figure| Name { long: figure.long, ..name(figure.name, figure.shows, false) }));
    names
}

/// The computed figures that show a claim, by the claim's id, with their names.
///
/// # Errors
/// A figure that cannot be drawn from its committed numbers.
pub fn of_claim(id: &str) -> Result<Vec<(&'static str, Figure)>> {
    let shown = COMPUTED.iter().filter(|figure| figure.claims.contains(&id));
    shown.map(|figure| Ok((figure.name, (figure.draw)(figure.committed)?.0))).collect()
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
    let figure = computed(name)?;
    Ok((figure.draw)(figure.committed)?.0)
}

/// Computes a figure's numbers, writes them to `root/figures/data/NAME.json` with how they were made, and draws the
/// figure into `out`. `root` is a checkout of the repository.
///
/// # Errors
/// No figure with computed numbers has this name; a file cannot be written.
pub fn make(name: &str, root: &Path, out: &Path) -> Result<Written> {
    let figure = computed(name)?;
    let provenance = Provenance::here(&format!("rebel figures --make {name}"), root);
    let provenance = Provenance { seeds: (0..figure.seeds).collect(), ..provenance };
    let path = root.join("figures/data").join(format!("{name}.json"));
    let recorded = Recorded { provenance, data: (figure.data)() };
    recorded.write(&path)?;
    let text = serde_json::to_string(&recorded).expect("numbers and names");
    let mut files = (figure.draw)(&text)?.0.save(out.join(name))?.to_vec();
    files.push(path);
    Ok(Written::Drawn { name: figure.name, files })
}

fn computed(name: &str) -> Result<&'static Computed> {
    let known = || COMPUTED.iter().map(|figure| figure.name).collect::<Vec<_>>().join(", ");
    COMPUTED
        .iter()
        .find(|figure| figure.name == name)
        .ok_or_else(|| Error::Unknown { name: name.into(), known: known() })
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
        for figure in COMPUTED {
            let committed: serde_json::Value = serde_json::from_str(figure.committed).unwrap();
            assert!(figure.long || same(&(figure.data)(), &committed["data"]), "{}", figure.name);
            for key in ["command", "commit", "machine", "date"] {
                assert!(committed[key].as_str().is_some_and(|text| !text.is_empty()), "{}: {key}", figure.name);
            }
        }
        assert!(!same(&serde_json::json!([1.0]), &serde_json::json!([1.0 + 1e-6])));
    }

    #[test]
    fn every_figure_shows_a_claim_that_there_is() {
        let ids: Vec<&str> = rebel_theory::claims::all().iter().map(|claim| claim.id).collect();
        for figure in COMPUTED {
            assert!(!figure.claims.is_empty() && figure.claims.iter().all(|id| ids.contains(id)), "{}", figure.name);
        }
    }

    #[test]
    fn every_committed_figure_is_drawn_and_an_unknown_one_is_named() {
        for name in names().iter().filter(|name| !name.from_runs) {
            assert!(!committed(name.name).unwrap().touches_edge(2.0).unwrap(), "{}", name.name);
        }
        let error = committed("fig99").unwrap_err().to_string();
        assert!(error.starts_with("no figure is called `fig99` (there are: "), "{error}");
        assert!(error.contains("theory_worst_gap"), "{error}");
    }
}
