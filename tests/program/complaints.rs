//! What the program says to bad input and on a bad machine: one line that names the place, and nothing spoilt.

use crate::{SMALL, complaint, rebel, succeeded, text, train};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

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
