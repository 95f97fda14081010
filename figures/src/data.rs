//! Results of training: `metrics.jsonl`, one JSON object a line, and `eval.json` where there is one.
//!
//! Every line has `stage` (`pretrain`, `sft`, `reward`, or a method such as `rebel`) and `step`, and any of the metrics of
//! [`METRICS`]; other keys are ignored. `eval.json` may hold the levels that figures mark:
//! `{"sft": {"scores": .., "gold": ..}, "reference": {"scores": .., "gold": ..}}`, mean rewards of the supervised policy
//! and of the human references.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::style::Role;

/// The metrics that figures read, with TRL's names. In a method's stage: KL is the mean over sequences of the summed
/// log-ratio to the reference policy (nats, at the rollout temperature); `scores` is the learned reward, `gold` the known
/// one of tiny worlds; losses are in squared reward units; `queries` counts reward evaluations so far.
pub const METRICS: [&str; 21] = [
    "objective/kl",
    "objective/scores",
    "objective/gold",
    "objective/rlhf_reward",
    "objective/entropy",
    "loss/regression",
    "loss/first",
    "loss/last",
    "loss/train",
    "loss/validation",
    "heldout/pair_loss",
    "heldout/null_loss",
    "heldout/stderr",
    "eval/gold",
    "eval/scores",
    "eval/kl",
    "eval/accuracy",
    "queries",
    "lr",
    "policy/approxkl_avg",
    "policy/clipfrac_avg",
];

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Stage of training.
    pub stage: String,
    /// Step within the stage.
    pub step: u64,
    /// The metrics it holds.
    pub values: BTreeMap<String, f64>,
}

/// One run, that is one seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The name of its folder.
    pub name: String,
    /// Its metrics, in the file's order.
    pub rows: Vec<Row>,
    /// Mean rewards by policy (`sft`, `reference`) and reward (`scores`, `gold`), from `eval.json`.
    pub levels: BTreeMap<(String, String), f64>,
}

impl Run {
    /// Reads a run's folder.
    ///
    /// # Errors
    /// `metrics.jsonl` is missing, empty, or has a line that is not such an object (named by its number); `eval.json` is
    /// there and is not what the module says.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("metrics.jsonl");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::file(&path, e))?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let rows = lines
            .map(|(i, line)| row(line).map_err(|what| Error::line(&path, i + 1, what)))
            .collect::<Result<Vec<Row>>>()?;
        if rows.is_empty() {
            return Err(Error::content(&path, "there is no line in it (expected one JSON object a line)"));
        }
        let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
        let eval = folder.join("eval.json");
        let levels = if eval.exists() { levels(&eval)? } else { BTreeMap::new() };
        Ok(Self { name, rows, levels })
    }

    /// Reads several, one a seed.
    ///
    /// # Errors
    /// Those of [`Run::read`].
    pub fn read_all(folders: &[PathBuf]) -> Result<Vec<Self>> {
        folders.iter().map(|folder| Self::read(folder)).collect()
    }

    /// `(step, value)` of a metric in a stage.
    pub fn series(&self, stage: &str, metric: &str) -> Vec<(f64, f64)> {
        let rows = self.rows.iter().filter(|row| row.stage == stage);
        rows.filter_map(|row| Some((row.step as f64, *row.values.get(metric)?))).collect()
    }

    /// The methods whose training it holds, each with its stage's name.
    pub fn methods(&self) -> BTreeMap<Role, String> {
        self.rows.iter().filter_map(|row| Some((Role::from_stage(&row.stage)?, row.stage.clone()))).collect()
    }

    /// The mean reward of a policy: `eval.json`'s, or for the supervised policy that of the method's evaluation at step 0.
    pub fn level(&self, policy: &str, reward: &str, stage: &str) -> Option<f64> {
        let stated = self.levels.get(&(policy.to_string(), reward.to_string())).copied();
        let start = || self.series(stage, &format!("eval/{reward}")).into_iter().find(|p| p.0 == 0.0).map(|p| p.1);
        stated.or_else(|| if policy == "sft" { start() } else { None })
    }
}

/// Reads one line; the error says what is wrong and what was expected.
fn row(line: &str) -> std::result::Result<Row, String> {
    let value: Value = serde_json::from_str(line).map_err(|e| {
        let column = e.column();
        format!("column {column}: not JSON (expected one object a line; was the file cut?)")
    })?;
    let object = value.as_object().ok_or_else(|| format!("{value} is not an object"))?;
    let stage = match object.get("stage") {
        Some(Value::String(stage)) => stage.clone(),
        Some(other) => return Err(format!("stage: {other} is not a name (expected \"rebel\" or another stage)")),
        None => return Err("stage: missing (expected \"rebel\" or another stage)".into()),
    };
    let step = match object.get("step") {
        Some(step) => step.as_u64().ok_or_else(|| format!("step: {step} is not a whole number"))?,
        None => return Err("step: missing (expected a whole number)".into()),
    };
    let mut values = BTreeMap::new();
    for metric in METRICS {
        match object.get(metric) {
            None | Some(Value::Null) => {}
            Some(value) => {
                let number = value.as_f64().ok_or_else(|| format!("{metric}: {value} is not a number"))?;
                values.insert(metric.to_string(), number);
            }
        }
    }
    Ok(Row { stage, step, values })
}

/// Reads `eval.json`.
fn levels(path: &Path) -> Result<BTreeMap<(String, String), f64>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| Error::line(path, e.line(), "not JSON"))?;
    let object = value.as_object().ok_or_else(|| Error::content(path, "expected an object"))?;
    let mut levels = BTreeMap::new();
    for policy in ["sft", "reference"] {
        let Some(rewards) = object.get(policy) else { continue };
        for reward in ["scores", "gold"] {
            match rewards.get(reward) {
                None | Some(Value::Null) => {}
                Some(value) => {
                    let number = value
                        .as_f64()
                        .ok_or_else(|| Error::content(path, format!("{policy}.{reward}: {value} is not a number")))?;
                    levels.insert((policy.to_string(), reward.to_string()), number);
                }
            }
        }
    }
    Ok(levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(metrics: &str, eval: Option<&str>) -> Result<Run> {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("seed0");
        std::fs::create_dir(&run).unwrap();
        std::fs::write(run.join("metrics.jsonl"), metrics).unwrap();
        if let Some(eval) = eval {
            std::fs::write(run.join("eval.json"), eval).unwrap();
        }
        Run::read(&run)
    }

    const GOOD: &str = "{\"stage\":\"rebel\",\"step\":0,\"eval/gold\":0.25,\"time\":\"12:00\"}\n\
                        {\"stage\":\"rebel\",\"step\":5,\"eval/gold\":0.5,\"objective/kl\":null}\n";

    #[test]
    fn rows_keep_known_metrics_and_ignore_other_keys_and_nulls() {
        let run = read(GOOD, None).unwrap();
        assert_eq!(run.series("rebel", "eval/gold"), [(0.0, 0.25), (5.0, 0.5)]);
        assert_eq!(run.series("rebel", "objective/kl"), []);
        assert_eq!(run.rows[0].values.len(), 1);
        assert_eq!(run.methods().into_keys().collect::<Vec<_>>(), [Role::Rebel]);
    }

    #[test]
    fn a_bad_line_is_named_by_file_and_number() {
        for (bad, says) in [
            ("{\"stage\":\"rebel\",\"ste", "not JSON"),
            ("{\"step\":1}", "stage: missing"),
            ("{\"stage\":\"rebel\",\"step\":1.5}", "step: 1.5 is not a whole number"),
            ("{\"stage\":\"rebel\",\"step\":1,\"lr\":\"high\"}", "lr: \"high\" is not a number"),
            ("[1]", "is not an object"),
        ] {
            let error = read(&format!("{GOOD}{bad}\n"), None).unwrap_err().to_string();
            assert!(error.contains("metrics.jsonl:3: ") && error.contains(says), "{error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn a_missing_file_and_an_empty_one_are_named() {
        let error = Run::read(Path::new("no-such-run")).unwrap_err().to_string();
        assert!(error.starts_with("no-such-run/metrics.jsonl: ") || error.contains("metrics.jsonl"), "{error}");
        assert!(read("\n", None).unwrap_err().to_string().contains("metrics.jsonl: there is no line"));
    }

    #[test]
    fn stated_level_wins_over_the_evaluation_at_step_zero() {
        assert_eq!(read(GOOD, None).unwrap().level("sft", "gold", "rebel"), Some(0.25));
        let stated = read(GOOD, Some("{\"sft\":{\"gold\":0.3},\"reference\":{\"gold\":0.9}}")).unwrap();
        assert_eq!(stated.level("sft", "gold", "rebel"), Some(0.3));
        assert_eq!(stated.level("reference", "gold", "rebel"), Some(0.9));
        assert_eq!(stated.level("reference", "scores", "rebel"), None);
        let bad = read(GOOD, Some("{\"sft\":{\"gold\":\"x\"}}")).unwrap_err().to_string();
        assert!(bad.ends_with("eval.json: sft.gold: \"x\" is not a number"), "{bad}");
    }
}
