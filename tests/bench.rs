//! `rebel bench` as a person uses it: numbers for every workload, and one line for sizes that are none.

use assert_cmd::Command;
use serde_json::Value;
use std::process::Output;

/// A model whose step takes no time to speak of.
const TINY: [&str; 14] = [
    "--layers", "2", "--hidden", "16", "--heads", "2", "--vocab", "40", "--seq", "10", "--batch", "3", "--repeat", "2",
];

fn bench(more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rebel")).arg("bench").args(more).output().unwrap()
}

fn printed(more: &[&str]) -> String {
    let output = bench(&[&TINY, more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn rows(more: &[&str]) -> Vec<Value> {
    printed(more).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key} of {row}"))
}

#[test]
fn every_workload_has_numbers_that_fit_together() {
    let rows = rows(&["--json", "--threads", "2"]);
    let modes: Vec<&str> = rows.iter().map(|row| row["mode"].as_str().unwrap()).collect();
    assert_eq!(modes, ["sft", "rebel", "rebel-unshared", "sample"]);
    for (row, (tokens, repeats)) in rows.iter().zip([(30.0, 2.0), (60.0, 2.0), (60.0, 2.0), (15.0, 3.0)]) {
        assert!(number(row, "value").is_finite());
        assert_eq!((number(row, "tokens_per_step"), number(row, "repeats")), (tokens, repeats));
        let (step, best) = (number(row, "step_s"), number(row, "step_s_min"));
        assert!(best > 0.0 && step >= best, "{row}");
        assert!((number(row, "tokens_per_s") * step / tokens - 1.0).abs() < 0.05, "{row}");
        assert!(number(row, "step_cpu_s_min") > 0.0);
        assert_eq!((number(row, "threads"), number(row, "layers"), number(row, "seq")), (2.0, 2.0, 10.0));
        // two embeddings of 40 x 16, two blocks, the last norm
        let block = 4.0 * 16.0 + (48.0 + 16.0 + 64.0 + 64.0) * 16.0 + 48.0 + 16.0 + 64.0 + 16.0;
        assert_eq!(number(row, "parameters"), 2.0 * 40.0 * 16.0 + 2.0 * block + 32.0);
        if cfg!(target_os = "linux") {
            let peak = number(row, "peak_rss_mb");
            assert!(peak > 1.0 && peak < 1000.0, "{row}");
        }
    }
}

#[test]
fn a_table_has_a_line_for_every_workload_and_says_what_was_measured() {
    let text = printed(&["--threads", "1"]);
    assert!(text.contains("2 layers of width 16, 2 heads, vocabulary 40") && text.contains("1 thread,"), "{text}");
    for mode in ["sft ", "rebel ", "rebel-unshared ", "sample "] {
        let line = text.lines().find(|line| line.starts_with(mode)).unwrap_or_else(|| panic!("{mode}: {text}"));
        let numbers: Vec<f64> = line.split_whitespace().skip(1).take(3).map(|n| n.parse().unwrap()).collect();
        assert!(numbers.iter().all(|&n| n.is_finite()), "{line}");
    }
    assert_eq!(printed(&["--mode", "sample"]).lines().count(), 4);
}

#[test]
fn losses_are_the_same_whether_a_workload_runs_alone_or_among_all() {
    let all = rows(&["--json"]);
    for row in &all {
        let alone = rows(&["--json", "--mode", row["mode"].as_str().unwrap()]);
        assert_eq!(alone[0]["value"], row["value"]);
    }
    // A shared prompt is another batch than prompts of one's own.
    assert_ne!(all[1]["value"], all[2]["value"]);
}

#[test]
fn every_listed_instruction_set_can_be_asked_for_and_no_other() {
    let listed = String::from_utf8(bench(&["--list-instructions"]).stdout).unwrap();
    assert!(listed.lines().count() > 0);
    for name in listed.lines() {
        let rows = rows(&["--json", "--mode", "sft", "--instructions", name]);
        assert_eq!(rows[0]["instructions"], name);
    }
    let output = bench(&["--instructions", "sse"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn sizes_that_are_none_are_one_line() {
    for (wrong, code, part) in [
        (vec!["--layers", "0"], 2, "--layers: 0 (expected"),
        (vec!["--heads", "7"], 2, "--heads: 7 does not divide --hidden 256"),
        (vec!["--hidden", "99999999999"], 2, "--hidden: 99999999999 (expected"),
        (vec!["--seq", "1"], 2, "--seq: 1 (expected"),
        (vec!["--batch", "0", "--mode", "sample"], 2, "--batch: 0 (expected"),
        (vec!["--vocab", "0"], 2, "--vocab: 0 (expected"),
        (vec!["--repeat", "0"], 2, "--repeat: 0 (expected"),
        (vec!["--micro-batch", "0"], 2, "--micro-batch: 0 (expected"),
        (vec!["--layers", "4096", "--hidden", "65536", "--heads", "512"], 1, "sft: a step takes more than"),
    ] {
        if code == 1 && !cfg!(target_os = "linux") {
            continue; // nobody says there how much memory is free
        }
        let output = bench(&wrong);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.lines().count() == 1 && said.starts_with("rebel: ") && said.contains(part), "{said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_comparison_has_a_row_for_every_workload_and_instruction_set_and_writes_what_it_shows() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("numbers.json");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bench_lm.py");
    let mut command = Command::new("python3");
    command.args([script, "--rebel", env!("CARGO_BIN_EXE_rebel"), "--rounds", "2", "--write"]).arg(&file).args(TINY);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let numbers: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(numbers["command"].as_str().unwrap().starts_with("make bench BENCH=lm WRITE=1"));
    let sets = String::from_utf8(bench(&["--list-instructions"]).stdout).unwrap();
    let rows = numbers["data"].as_array().unwrap();
    assert_eq!(rows.len(), 4 * sets.lines().count());
    for row in rows {
        let (workload, who) = (row["workload"].as_str().unwrap(), row["who"].as_str().unwrap());
        let rounds = if who == "portable" { 1 } else { 2 }; // it is slow, and runs in the first alone
        assert_eq!(row["step_s_rounds"].as_array().unwrap().len(), rounds);
        let shown = said.lines().find(|line| line.split_whitespace().take(2).eq([workload, who]));
        assert!(shown.is_some_and(|line| line.contains(&format!("{:.1}", 1e3 * number(row, "step_s")))), "{said}");
        assert!(row["wall_ratio"].is_null()); // nobody to compare with
    }
}
