//! The program as a person uses it: what it prints, what it leaves behind, what it says to bad input.

mod commands;
mod complaints;
mod parts;
mod same_bytes;

use assert_cmd::Command;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

/// Adam's first moments, as checkpoints name them.
const FIRST: &str = ".exp_avg";

/// A run of every stage in a second or two.
const SMALL: [&str; 27] = [
    "world.corpus=60",
    "world.train=24",
    "world.validation=6",
    "world.comparisons=16",
    "world.comparisons_validation=6",
    "world.comparisons_of_samples=10",
    "world.vocabulary=300",
    "world.prompt_length=180",
    "model.hidden=16",
    "model.layers=2",
    "model.heads=2",
    "model.intermediate=32",
    "pretrain.updates=3",
    "pretrain.batch=4",
    "pretrain.eval_every=2",
    "sft.updates=2",
    "sft.batch=4",
    "reward.updates=2",
    "reward.batch=4",
    "online.iterations=4",
    "online.prompts=8",
    "online.micro_batch=4",
    "online.response_length=120",
    "online.checkpoint_every=1",
    "online.epochs=2",
    "eval.every=2",
    "eval.prompts=4",
];

/// Settings that train an adapter on every linear map.
const LORA: [&str; 6] =
    ["--set", "train.part=lora", "--set", "train.lora.rank=4", "--set", "train.lora.targets=[\"all-linear\"]"];

fn rebel() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rebel"))
}

/// `rebel train` with the small settings into `runs/NAME`, then `more`.
fn train(runs: &Path, name: &str, more: &[&str]) -> Output {
    let mut command = rebel();
    command.args(["train", "--name", name, "--runs"]).arg(runs);
    command.args(SMALL.iter().flat_map(|set| ["--set", set]));
    command.args(more).output().unwrap()
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The one line that an error prints, and its exit code.
fn complaint(output: &Output) -> (i32, String) {
    let stderr = text(&output.stderr);
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("rebel: ")).collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    (output.status.code().unwrap(), lines[0].to_string())
}

/// Metrics without the keys that two equal runs may differ in.
fn metrics(run: &Path) -> Vec<Value> {
    let lines = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let timeless = |line: &str| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        record.as_object_mut().unwrap().retain(|key, _| !key.starts_with("time/"));
        record
    };
    lines.lines().map(timeless).collect()
}

/// Every tensor of a safetensors file whose name ends in `part`, as numbers.
fn tensors(file: PathBuf, part: &str) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(file).unwrap();
    let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |data: &[u8]| data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    all.tensors()
        .into_iter()
        .filter(|(name, view)| name.ends_with(part) && view.dtype() == safetensors::Dtype::F32)
        .map(|(name, view)| (name, numbers(view.data())))
        .collect()
}

fn digest(file: PathBuf) -> String {
    format!("{:x}", Sha256::digest(std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))))
}
