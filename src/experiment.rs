//! The full form of the tiny experiment: several seeds, intervals, and what is committed of them.

use crate::train;
use anyhow::{Context, Result};
use rebel_figures::{Provenance, Written};
use rebel_theory::statistics::mean_interval;
use rebel_trainer::files;
use rebel_trainer::nn::Place;
use rebel_trainer::run::Mode;
use rebel_trainer::run::config::Config;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Its name in `rebel figures --make NAME` and in `figures/data`.
pub const NAME: &str = "tldr_tiny";

/// What it shows.
pub const SHOWS: &str = "the tiny TL;DR experiment, three seeds; it trains them, about 20 minutes";

const PRESET: &str = "tldr-tiny";
const SEEDS: [u64; 3] = [1, 2, 3];

/// Trains every seed, writes what figures need of them to `figures/data`, and draws.
///
/// # Errors
/// When a run fails, or a file cannot be written.
pub fn make(root: &Path, out: &Path) -> Result<Vec<Written>> {
    let data = root.join("figures/data");
    let mut results = vec![];
    let mut runs = vec![];
    for seed in SEEDS {
        let config = Config::resolve(PRESET, None, &[format!("seed={seed}")])?;
        let folder = PathBuf::from(format!("runs/{PRESET}-seed-{seed}"));
        // never on top of an earlier run: the commit that is recorded must be the one that made all of it
        train::train(&folder, config, Mode::Overwrite, None, &Place::HOST)?;
        results.push(files::read_json(&folder.join("eval.json"))?);
        runs.push((folder, data.join(NAME).join(format!("seed-{seed}"))));
    }
    for (folder, at) in &runs {
        keep(folder, at)?;
    }
    let provenance = Provenance::here(&format!("rebel figures --make {NAME}"), root);
    let provenance = Provenance { seeds: SEEDS.to_vec(), ..provenance };
    rebel_figures::record(&data.join(format!("{NAME}.json")), provenance, summary(&results)?)?;
    let kept: Vec<PathBuf> = runs.into_iter().map(|(_, at)| at).collect();
    Ok(rebel_figures::from_run(&kept, out)?)
}

/// What is committed of a run: every line of the method's stage, the measured ones of the others, and the last evaluation.
fn keep(run: &Path, at: &Path) -> Result<()> {
    let file = run.join("metrics.jsonl");
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let mut lines = vec![];
    for line in text.lines() {
        let mut record: Value = serde_json::from_str(line)?;
        let map = record.as_object_mut().context("metrics.jsonl: a line is not an object")?;
        map.retain(|key, _| !key.starts_with("time/"));
        if map["stage"] == "rebel" || map.keys().any(|key| key.contains("validation") || key.starts_with("eval/")) {
            lines.push(record.to_string());
        }
    }
    files::write_whole(&at.join("metrics.jsonl"), |out| writeln!(out, "{}", lines.join("\n")))?;
    files::write_json(&at.join("eval.json"), &files::read_json(&run.join("eval.json"))?)?;
    Ok(())
}

/// Means over seeds with their two-sided 95% t intervals.
fn summary(results: &[Value]) -> Result<Value> {
    let over = |f: &dyn Fn(&Value) -> Option<f64>| -> Result<Value> {
        let values: Option<Vec<f64>> = results.iter().map(f).collect();
        let values = values.context("eval.json: a number is missing")?;
        let interval = mean_interval(&values);
        Ok(json!({ "mean": interval.value, "low": interval.low, "high": interval.high, "seeds": values }))
    };
    let mut all = json!({ "gap_closed": over(&|e| e["gap_closed"].as_f64())? });
    for who in ["sft", "policy", "reference"] {
        for what in ["gold", "scores"] {
            all[format!("{who}/{what}")] = over(&|e| e[who][what].as_f64())?;
        }
    }
    for what in ["kl", "length"] {
        all[format!("policy/{what}")] = over(&|e| e["policy"][what].as_f64())?;
    }
    Ok(all)
}
