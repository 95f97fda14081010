//! What changes no byte of a run: the seed kept, the number of threads, being killed and resumed, stages one by one.

use crate::{FIRST, LORA, SMALL, digest, metrics, rebel, succeeded, tensors, train};
use std::path::Path;
use tempfile::TempDir;

fn same_results(a: &Path, b: &Path) {
    assert_eq!(metrics(a), metrics(b));
    for stage in ["pretrain", "sft", "reward", "online"] {
        let weights = match a.join("checkpoints").join(stage).join("adapter_config.json").is_file() {
            true => "adapter_model.safetensors",
            false => "model.safetensors",
        };
        for file in [weights, "optimizer.safetensors"] {
            let of = |run: &Path| digest(run.join("checkpoints").join(stage).join(file));
            assert_eq!(of(a), of(b), "{stage}/{file}");
        }
    }
    assert_eq!(digest(a.join("samples.jsonl")), digest(b.join("samples.jsonl")));
    assert_eq!(digest(a.join("eval.json")), digest(b.join("eval.json")));
}

#[test]
fn two_runs_of_one_seed_write_the_same_bytes_and_another_seed_does_not() {
    let folder = TempDir::new().unwrap();
    for (name, seed) in [("a", "1"), ("b", "1"), ("c", "2")] {
        succeeded(&train(folder.path(), name, &["--seed", seed]));
    }
    let at = |name: &str| folder.path().join(name);
    // the online stage must have something to learn from, or these tests would compare nothing
    let norms = metrics(&at("a")).into_iter().filter(|r| r["stage"] == "rebel").map(|r| r["gradient_norm"].as_f64());
    assert!(norms.clone().count() == 4 && norms.flatten().all(|norm| norm > 1e-3));
    same_results(&at("a"), &at("b"));
    assert_ne!(metrics(&at("a")), metrics(&at("c")));
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let folder = TempDir::new().unwrap();
    for (part, more) in [("full", &[][..]), ("lora", &LORA[..])] {
        let runs = folder.path().join(part);
        for threads in ["1", "2", "3"] {
            succeeded(&train(&runs, threads, &[more, &["--threads", threads]].concat()));
        }
        same_results(&runs.join("1"), &runs.join("2"));
        same_results(&runs.join("1"), &runs.join("3"));
    }
}

#[test]
fn the_instructions_of_the_processor_change_no_byte() {
    let folder = TempDir::new().unwrap();
    let listed = rebel().args(["bench", "--list-instructions"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let names: Vec<&str> = listed.lines().collect();
    assert_eq!(names.last(), Some(&"portable"));
    for (part, more) in [("full", &[][..]), ("lora", &LORA[..])] {
        let runs = folder.path().join(part);
        for name in &names {
            succeeded(&train(&runs, name, &[more, &["--instructions", name]].concat()));
            same_results(&runs.join(names[0]), &runs.join(name));
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_byte_at_the_presets_own_size() {
    let folder = TempDir::new().unwrap();
    let sets = [
        "world.corpus=300",
        "world.train=64",
        "world.validation=16",
        "world.comparisons=48",
        "world.comparisons_validation=8",
        "world.comparisons_of_samples=20",
        "pretrain.updates=2",
        "pretrain.warmup=0",
        "sft.updates=1",
        "reward.updates=2",
        "online.iterations=2",
        "online.epochs=2",
        "eval.prompts=8",
    ];
    for threads in ["1", "2"] {
        let mut command = rebel();
        command.args(["train", "--name", threads, "--threads", threads, "--runs"]).arg(folder.path());
        succeeded(&command.args(sets.iter().flat_map(|set| ["--set", set])).output().unwrap());
    }
    same_results(&folder.path().join("1"), &folder.path().join("2"));
}

#[test]
fn the_micro_batch_changes_gradients_by_less_than_a_millionth() {
    let folder = TempDir::new().unwrap();
    // after one step Adam's first moment is a tenth of the gradient
    let one_step = ["--set", "online.iterations=1", "--set", "online.epochs=1"];
    for size in ["1", "3", "8"] {
        let set = format!("online.micro_batch={size}");
        succeeded(&train(folder.path(), size, &[&one_step[..], &["--set", &set]].concat()));
    }
    let moments =
        |name: &str| tensors(folder.path().join(name).join("checkpoints/online/optimizer.safetensors"), FIRST);
    let whole = moments("8");
    assert!(whole.len() > 10, "{:?}", whole.keys());
    // Relative to the whole gradient: some of its parts (the bias of attention's keys) are zero but for rounding.
    let norm = |of: &mut dyn Iterator<Item = f32>| of.fold(0.0, |sum, x| sum + f64::from(x) * f64::from(x)).sqrt();
    let size_of_whole = norm(&mut whole.values().flat_map(|g| g.iter().copied()));
    assert!(size_of_whole > 0.0);
    for size in ["1", "3"] {
        let cut = moments(size);
        let differences = cut.iter().zip(&whole).flat_map(|((_, a), (_, b))| a.iter().zip(b).map(|(a, b)| a - b));
        let relative = norm(&mut differences.into_iter()) / size_of_whole;
        assert!(relative <= 1e-6, "micro-batch {size}: {relative:e}");
    }
}

#[test]
fn recomputing_blocks_changes_no_byte_of_a_run() {
    let folder = TempDir::new().unwrap();
    for (name, recompute) in [("kept", "train.recompute=false"), ("again", "train.recompute=true")] {
        succeeded(&train(folder.path(), name, &["--set", recompute]));
    }
    same_results(&folder.path().join("kept"), &folder.path().join("again"));
}

/// Kills a run with `more` settings after so many lines of metrics, each time resumes it, and compares it with one that was
/// left alone.
fn kill_and_resume(folder: &Path, more: &[&str], kill_after: &[usize]) {
    succeeded(&train(folder, "whole", more));
    for &kill_after in kill_after {
        let name = format!("killed-{kill_after}");
        let run = folder.join(&name);
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_rebel"));
        child.args(["train", "--name", &name, "--runs"]).arg(folder);
        child.args(SMALL.iter().flat_map(|set| ["--set", set])).args(more);
        let mut child = child.stderr(std::process::Stdio::null()).spawn().unwrap();
        loop {
            let lines = std::fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
            if lines >= kill_after {
                child.kill().unwrap(); // SIGKILL
                child.wait().unwrap();
                break;
            }
            assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be killed");
        }
        succeeded(&train(folder, &name, &[more, &["--resume"]].concat()));
        same_results(&folder.join("whole"), &run);
    }
}

#[test]
fn killed_and_resumed_run_equals_uninterrupted_run_byte_for_byte() {
    let folder = TempDir::new().unwrap();
    kill_and_resume(folder.path(), &[], &[1, 4, 9, 10]);
}

#[test]
fn killed_and_resumed_training_of_an_adapter_and_of_last_blocks_loses_no_byte() {
    for more in [&LORA[..], &["--set", "train.part=last-blocks", "--set", "train.recompute=true"]] {
        let folder = TempDir::new().unwrap();
        kill_and_resume(folder.path(), more, &[8, 10]);
    }
}

#[test]
fn stages_run_one_by_one_give_what_they_give_together() {
    let folder = TempDir::new().unwrap();
    succeeded(&train(folder.path(), "together", &[]));
    for stage in ["world", "pretrain", "sft", "reward", "online"] {
        succeeded(&train(folder.path(), "apart", &["--stage", stage]));
    }
    same_results(&folder.path().join("together"), &folder.path().join("apart"));
}

#[test]
fn a_world_that_was_interrupted_is_made_again() {
    let folder = TempDir::new().unwrap();
    succeeded(&train(folder.path(), "whole", &[]));
    succeeded(&train(folder.path(), "broken", &["--stage", "world"]));
    let data = folder.path().join("broken/data");
    std::fs::remove_file(data.join("manifest.json")).unwrap(); // written last
    std::fs::remove_file(data.join("tokenizer_config.json")).unwrap();
    succeeded(&train(folder.path(), "broken", &["--resume"]));
    same_results(&folder.path().join("whole"), &folder.path().join("broken"));
}
