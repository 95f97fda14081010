//! Where the program computes: how a device is named, and what is said when it is not there.

use assert_cmd::Command;
use std::path::{Path, PathBuf};

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/hf")
}

/// Exit code and standard error of `rebel vectors run` on a small case.
fn run(device: Option<&str>, variable: &str) -> (i32, String) {
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rebel"));
    command.env("REBEL_DEVICE", variable);
    command.args(["vectors", "run"]).arg(vectors().join("lm/neox_sequential")).arg("--out").arg(out.path());
    command.args(device.iter().flat_map(|name| ["--device", name]));
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_gpu_that_is_not_there_is_one_line_that_says_who_asked_for_it() {
    // No machine has a GPU of this number, with CUDA or without.
    for (device, variable, who) in [(Some("cuda:1023"), "", "--device"), (None, "cuda:1023", "REBEL_DEVICE")] {
        let (code, said) = run(device, variable);
        assert!(said.starts_with(&format!("rebel: {who}: cuda:1023: ")) && said.lines().count() == 1, "{said}");
        assert_eq!(code, 1, "{said}");
    }
}

#[test]
fn the_argument_wins_over_the_variable_and_names_that_are_none_are_wrong_usage() {
    assert_eq!(run(Some("cpu"), "cuda:1023"), (0, String::new()));
    assert_eq!(run(None, ""), (0, String::new()));
    let (code, said) = run(None, "gpu");
    assert_eq!((code, said.as_str()), (2, "rebel: REBEL_DEVICE: \"gpu\": expected cpu, cuda or cuda:N\n"));
    assert_eq!(run(Some("gpu"), "").0, 2);
}

#[test]
fn every_case_of_a_set_is_computed_and_a_broken_one_stops_none() {
    let (root, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["a_broken", "neox_sequential"] {
        let case = root.path().join("lm").join(name);
        std::fs::create_dir_all(&case).unwrap();
        for file in std::fs::read_dir(vectors().join("lm/neox_sequential")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), case.join(file.file_name())).unwrap();
        }
    }
    std::fs::write(root.path().join("lm/a_broken/config.json"), "{}").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rebel"));
    let output = command.args(["vectors", "run-all"]).arg(root.path()).arg("--out").arg(out.path()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(lines.len() == 3 && lines[2] == "1 of 2 cases computed", "{said}");
    assert!(lines[0].starts_with("lm/a_broken") && lines[0].contains("config.json: "), "{said}");
    assert!(lines[1].starts_with("lm/neox_sequential") && lines[1].ends_with(" s"), "{said}");
    assert!(out.path().join("lm/neox_sequential/got.safetensors").is_file());
    assert!(!out.path().join("lm/a_broken").exists());
}
