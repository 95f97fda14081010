//! The program as a person uses it: what it prints, what it leaves behind, what it says to bad input.

use assert_cmd::Command;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;

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

fn digest(file: PathBuf) -> String {
    format!("{:x}", Sha256::digest(std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))))
}

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

/// Settings that train an adapter on every linear map.
const LORA: [&str; 6] =
    ["--set", "train.part=lora", "--set", "train.lora.rank=4", "--set", "train.lora.targets=[\"all-linear\"]"];

#[test]
fn killed_and_resumed_training_of_an_adapter_and_of_last_blocks_loses_no_byte() {
    for more in [&LORA[..], &["--set", "train.part=last-blocks", "--set", "train.recompute=true"]] {
        let folder = TempDir::new().unwrap();
        kill_and_resume(folder.path(), more, &[8, 10]);
    }
}

#[test]
fn a_trained_adapter_is_a_small_folder_and_merged_it_is_an_ordinary_model() {
    let folder = TempDir::new().unwrap();
    succeeded(&train(folder.path(), "run", &[&LORA[..], &["--set", "train.merge=true"]].concat()));
    let run = folder.path().join("run");
    let online = run.join("checkpoints/online");
    assert!(!online.join("model.safetensors").exists() && !online.join("config.json").exists());
    let adapter: Value =
        serde_json::from_str(&std::fs::read_to_string(online.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(adapter["base_model_name_or_path"], "../sft");
    assert_eq!((&adapter["r"], &adapter["lora_alpha"]), (&4.into(), &32.into()));
    let targets = serde_json::json!(["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"]);
    assert_eq!(adapter["target_modules"], targets);
    let up = tensors(online.join("adapter_model.safetensors"), ".lora_B.weight");
    assert!(up.len() == 8 && up.values().all(|values| values.iter().any(|&x| x != 0.0)), "{:?}", up.keys());
    assert_eq!(tensors(online.join("optimizer.safetensors"), FIRST).len(), 16);
    // scored as it is, and as one model with its base
    let rows = folder.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"prompt\": \"a post\", \"completion\": \" a summary of it\"}\n").unwrap();
    let score = |model: &Path| {
        let output = rebel().arg("score").arg("--model").arg(model).arg(&rows).output().unwrap();
        let row: Value = serde_json::from_str(&succeeded(&output)).unwrap();
        row["logprob"].as_f64().unwrap_or_else(|| panic!("{row}"))
    };
    let (adapted, merged, base) = (score(&online), score(&run.join("merged")), score(&run.join("checkpoints/sft")));
    assert!((adapted - merged).abs() < 1e-3 && adapted != base, "{adapted} {merged} {base}");
    // the reference is the model with the adapter off: at first the policy itself, then what it moves away from
    let steps = metrics(&run).into_iter().filter(|r| r["stage"] == "rebel");
    let kl: Vec<f64> = steps.map(|r| r["objective/kl"].as_f64().unwrap()).collect();
    assert!(kl[0] == 0.0 && kl[1..].iter().all(|&kl| kl != 0.0), "{kl:?}");
    // merged: every adapted weight has moved, every other is the base's
    let (base, merged) = (tensors(run.join("checkpoints/sft/model.safetensors"), ""), run.join("merged"));
    let mut convert = rebel();
    convert.arg("convert").arg(run.join("checkpoints/online")).arg(folder.path().join("converted"));
    succeeded(&convert.output().unwrap());
    for file in ["model.safetensors", "config.json", "tokenizer.json"] {
        assert_eq!(digest(folder.path().join("converted").join(file)), digest(merged.join(file)), "{file}");
    }
    let moved = tensors(merged.join("model.safetensors"), "");
    assert!(merged.join("tokenizer.json").is_file() && base.keys().eq(moved.keys()));
    for (name, values) in &base {
        let adapted = up.contains_key(&format!("base_model.model.{}", name.replace(".weight", ".lora_B.weight")));
        assert_eq!(*values != moved[name], adapted, "{name}");
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

#[test]
fn last_blocks_alone_move() {
    let folder = TempDir::new().unwrap();
    succeeded(&train(folder.path(), "run", &["--set", "train.part=last-blocks"]));
    let weights =
        |stage: &str| tensors(folder.path().join("run/checkpoints").join(stage).join("model.safetensors"), "");
    let (before, after) = (weights("sft"), weights("online"));
    for (name, values) in &before {
        let last = ["gpt_neox.layers.1.", "gpt_neox.final_layer_norm.", "embed_out."];
        let trained = last.iter().any(|begin| name.starts_with(begin));
        assert_eq!(*values != after[name], trained, "{name}");
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
fn figures_are_drawn_from_a_run() {
    let folder = TempDir::new().unwrap();
    succeeded(&train(folder.path(), "run", &[]));
    let out = folder.path().join("out");
    let output = rebel().args(["figures", "--run"]).arg(folder.path().join("run")).arg("--out").arg(&out).output();
    succeeded(&output.unwrap());
    for name in ["fig5_reward_kl", "fig6_regression_loss", "training_curves", "theory_conservativity"] {
        for kind in ["svg", "png"] {
            assert!(out.join(format!("{name}.{kind}")).metadata().unwrap().len() > 2000, "{name}.{kind}");
        }
    }
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

#[test]
fn a_run_in_use_is_not_touched() {
    let folder = TempDir::new().unwrap();
    succeeded(&train(folder.path(), "run", &["--stage", "world"]));
    let held = std::fs::File::create(folder.path().join("run/.lock")).unwrap();
    held.lock().unwrap();
    for mode in ["--resume", "--overwrite"] {
        let (code, line) = complaint(&train(folder.path(), "run", &[mode]));
        assert_eq!(code, 1);
        assert!(line.contains("in use by another process"), "{line}");
    }
    assert!(folder.path().join("run/data/manifest.json").exists());
}

#[test]
fn a_run_is_not_overwritten_unless_asked() {
    let folder = TempDir::new().unwrap();
    succeeded(&train(folder.path(), "run", &["--stage", "world"]));
    let (code, line) = complaint(&train(folder.path(), "run", &[]));
    assert_eq!(code, 1);
    assert!(line.contains("exists already"), "{line}");
    let (_, line) = complaint(&train(folder.path(), "run", &["--resume", "--seed", "9"]));
    assert!(line.contains("config.toml: made with other settings"), "{line}");
    // a folder that is no run is never removed
    std::fs::create_dir(folder.path().join("mine")).unwrap();
    std::fs::write(folder.path().join("mine/thesis.txt"), "years of work").unwrap();
    let (_, line) = complaint(&train(folder.path(), "mine", &["--overwrite"]));
    assert!(line.contains("not a run"), "{line}");
    assert!(folder.path().join("mine/thesis.txt").exists());
    // nor is what a run has not written
    std::fs::write(folder.path().join("mine/config.toml"), "[build]").unwrap();
    assert!(complaint(&train(folder.path(), "mine", &["--overwrite"])).1.contains("not a run"));
    std::fs::write(folder.path().join("run/notes.md"), "mine").unwrap();
    succeeded(&train(folder.path(), "run", &["--overwrite", "--stage", "world"]));
    assert!(folder.path().join("run/notes.md").exists());
    for name in ["", ".", "..", "../out", "a/b"] {
        assert_eq!(complaint(&train(folder.path(), name, &["--overwrite"])).0, 2, "{name}");
    }
    assert_eq!(complaint(&train(folder.path(), "run", &["--overwrite", "--stage", "sft"])).0, 2);
    assert!(folder.path().join("run/data/manifest.json").exists());
}

#[test]
fn damaged_model_folders_are_one_line_that_names_file_and_field() {
    let folder = TempDir::new().unwrap();
    for stage in ["world", "pretrain"] {
        succeeded(&train(folder.path(), "run", &["--stage", stage]));
    }
    let model = folder.path().join("run/checkpoints/pretrain");
    let (weights, config) = (model.join("model.safetensors"), model.join("config.json"));
    let (good_weights, good_config) = (std::fs::read(&weights).unwrap(), std::fs::read_to_string(&config).unwrap());
    let next = || complaint(&train(folder.path(), "run", &["--stage", "sft"]));

    std::fs::remove_file(&weights).unwrap();
    let (code, line) = next();
    assert_eq!(code, 1);
    assert!(line.contains("model.safetensors: missing"), "{line}");

    for keep in [0, 5, 100, good_weights.len() - 1] {
        std::fs::write(&weights, &good_weights[..keep]).unwrap();
        let (code, line) = next();
        assert_eq!(code, 1);
        assert!(line.contains("model.safetensors"), "{keep} bytes: {line}");
    }
    std::fs::write(&weights, &good_weights).unwrap();

    for (from, to, part) in [
        ("\"gpt_neox\"", "\"bert\"", "config.json: model_type: bert"),
        ("\"gpt_neox\"", "\"llama\"", "model.safetensors: embed_out.weight: unknown tensor"),
        ("\"hidden_size\": 16", "\"hidden_size\": 0", "config.json: hidden_size: 0 is not a width"),
        ("\"hidden_size\": 16", "\"hidden_size\": 18", "(expected"),
    ] {
        assert!(good_config.contains(from), "{good_config}");
        std::fs::write(&config, good_config.replace(from, to)).unwrap();
        let (code, line) = next();
        assert_eq!(code, 1);
        assert!(line.contains(part), "{line}");
    }
    assert!(!folder.path().join("run/checkpoints/sft").exists());
    std::fs::write(&config, good_config).unwrap();
    succeeded(&train(folder.path(), "run", &["--stage", "sft"]));
}

#[test]
fn a_misspelt_key_names_the_nearest_one() {
    let folder = TempDir::new().unwrap();
    let (code, line) = complaint(&train(folder.path(), "run", &["--set", "online.etta=1"]));
    assert_eq!((code, line.as_str()), (2, "rebel: --set: online.etta: unknown key (did you mean online.eta?)"));
    let file = folder.path().join("mine.toml");
    std::fs::write(&file, "[online]\nlearning_rte = 1e-3\n").unwrap();
    let (code, line) = complaint(&rebel().args(["train", "--config"]).arg(&file).output().unwrap());
    assert_eq!(code, 1);
    assert!(
        line.ends_with("mine.toml: online.learning_rte: unknown key (did you mean online.learning_rate?)"),
        "{line}"
    );
    let (code, _) = complaint(&rebel().args(["train", "--preset", "tldr-tyni"]).output().unwrap());
    assert_eq!(code, 2);
    assert!(!folder.path().join("run").exists());
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.clone());
        if path.is_dir() {
            walk(&path, found);
        }
    }
}

/// A full disk, as a limit on the size of files in a child that ignores SIGXFSZ: writing fails with EFBIG.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_one_line_and_leaves_nothing_half_written() {
    use std::os::unix::process::CommandExt;
    let folder = TempDir::new().unwrap();
    for stage in ["world", "pretrain"] {
        succeeded(&train(folder.path(), "run", &["--stage", stage]));
    }
    for (stage, limit, spoiled) in
        [("world", 20_000, "data"), ("sft", 30_000, "checkpoints/sft"), ("sft", 1_150, "checkpoints/sft")]
    {
        let name = if stage == "world" { "fresh" } else { "run" };
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_rebel"));
        child.args(["train", "--name", name, "--stage", stage, "--runs"]).arg(folder.path());
        child.args(SMALL.iter().flat_map(|set| ["--set", set]));
        // SAFETY: between fork and exec only two system calls are made, both async-signal-safe.
        unsafe {
            child.pre_exec(move || {
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
                match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let (code, line) = complaint(&child.output().unwrap());
        assert_eq!(code, 1);
        assert!(line.contains("File too large"), "{line}");
        let run = folder.path().join(name);
        assert!(!run.join(spoiled).join("manifest.json").exists() && !run.join(spoiled).join("state.json").exists());
        let mut files = vec![];
        walk(&run, &mut files);
        for file in files {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            assert!(!name.starts_with(".partial") && !name.starts_with(".replaced"), "{}", file.display());
            if name.ends_with(".jsonl") {
                let text = std::fs::read_to_string(&file).unwrap();
                assert!(text.is_empty() || text.ends_with('\n'), "{} ends in half a line", file.display());
            }
        }
    }
    succeeded(&train(folder.path(), "run", &["--stage", "sft"]));
}

#[test]
fn help_is_the_manual_of_what_works() {
    let help = succeeded(&rebel().arg("--help").output().unwrap());
    for part in ["reproduce", "verify", "train", "figures", "vectors", "Examples:", "Exit codes:"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    assert_eq!(rebel().arg("--colour").output().unwrap().status.code(), Some(2));
    let shown = succeeded(&rebel().args(["train", "--dry-run", "--set", "online.eta=0.25"]).output().unwrap());
    assert!(shown.contains("eta = 0.25"), "{shown}");
}

#[test]
fn a_reader_that_stops_reading_is_no_fault_and_a_full_one_is_one_line() {
    let command = |out: &str| {
        let program = env!("CARGO_BIN_EXE_rebel");
        std::process::Command::new("sh").args(["-c", &format!("{program} verify --list {out}")]).output().unwrap()
    };
    let stopped = command("| head -c 1");
    assert!(stopped.status.success() && stopped.stderr.is_empty(), "{}", text(&stopped.stderr));
    let (code, line) = complaint(&command("> /dev/full"));
    assert_eq!(code, 1);
    assert!(line.starts_with("rebel: standard output: "), "{line}");
}

#[test]
fn verify_reports_a_claim_and_its_control_to_machines() {
    let output = rebel().args(["verify", "--claim", "md-equivalence", "--instances", "50", "--json"]).output().unwrap();
    let report: Value = serde_json::from_str(&succeeded(&output)).unwrap();
    let claim = &report["claims"][0];
    assert_eq!(claim["id"], "md-equivalence");
    assert_eq!(claim["verdict"], "verified");
    assert!(!claim["controls"].as_array().unwrap().is_empty());
    let (code, line) = complaint(&rebel().args(["verify", "--claim", "md"]).output().unwrap());
    assert_eq!(code, 2);
    assert!(line.contains("md-equivalence"), "{line}");
}

#[test]
fn verify_writes_a_page_that_is_the_same_twice_and_names_a_folder_given_for_a_file() {
    let folder = TempDir::new().unwrap();
    let page = |name: &str| {
        let file = folder.path().join(name);
        let arguments = ["verify", "--claim", "token-npg", "--instances", "20", "--html"];
        let said = succeeded(&rebel().args(arguments).arg(&file).output().unwrap());
        assert!(said.contains(&file.display().to_string()), "{said}");
        std::fs::read_to_string(file).unwrap()
    };
    let (first, second) = (page("first.html"), page("deep/second.html"));
    assert_eq!(first, second);
    assert!(first.contains("rebel verify --claim token-npg --seed 0 --instances 20"));
    let taken =
        rebel().args(["verify", "--claim", "token-npg", "--instances", "1", "--html"]).arg(folder.path()).output();
    let (code, line) = complaint(&taken.unwrap());
    assert_eq!(code, 2);
    assert!(line.contains(&folder.path().display().to_string()), "{line}");
}

#[test]
fn theory_vectors_are_answered_and_an_unknown_operation_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("v.json");
    let case = r#"{"id":"a","op":"kl_tilt_sharp","input":{"s":[1.0]}},{"id":"b","op":"fly","input":{}}"#;
    std::fs::write(&file, format!("{{\"schema\":\"rebel-theory-vectors/1\",\"topic\":\"md\",\"cases\":[{case}]}}"))
        .unwrap();
    let output = rebel().args(["vectors", "run"]).arg(&file).output().unwrap();
    let answer: Value = serde_json::from_str(&succeeded(&output)).unwrap();
    assert_eq!(answer["results"][0]["id"], "a");
    assert_eq!(answer["results"].as_array().unwrap().len(), 1);
    assert!(answer["skipped"].to_string().contains("fly"), "{answer}");
    std::fs::write(&file, "{\"cases\": [").unwrap();
    let (code, line) = complaint(&rebel().args(["vectors", "run"]).arg(&file).output().unwrap());
    assert_eq!(code, 1);
    assert!(line.contains("v.json"), "{line}");
}

#[test]
fn a_model_case_is_written_where_it_is_wanted() {
    let folder = TempDir::new().unwrap();
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/hf/lm/neox_bin");
    let output = rebel().args(["vectors", "run"]).arg(&case).arg("--out").arg(folder.path()).output().unwrap();
    succeeded(&output);
    assert!(folder.path().join("got.safetensors").metadata().unwrap().len() > 1000);
    let (code, _) = complaint(&rebel().args(["vectors", "run"]).arg(&case).output().unwrap());
    assert_eq!(code, 2);
}
