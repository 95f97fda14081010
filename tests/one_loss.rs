//! The trainer holds no second copy of a loss: every objective is `rebel_theory::objective`'s.

use std::path::Path;

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Words that a loss would need: the trainer has them in none of its sources.
const LOSSES: [&str; 8] =
    ["log_sigmoid", "softplus", "logsigmoid", "cross_entropy(", "cross_entropy_with", "nll_loss", "/ eta", "/ o.eta"];

#[test]
fn the_trainer_computes_no_loss_of_its_own() {
    let mut found = vec![];
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("trainer/src"), &mut found);
    assert!(found.len() > 20);
    for (path, text) in found {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for word in LOSSES.iter().filter(|word| line.contains(**word)) {
                assert!(line.contains("objective::"), "{path}: a second {word}: {line}");
            }
        }
    }
}

#[test]
fn every_objective_the_trainer_uses_is_called_through_theory() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("trainer/src/algorithm");
    for (file, call) in [
        ("rebel.rs", "objective::rebel("),
        ("rloo.rs", "objective::rloo("),
        ("sft.rs", "objective::cross_entropy("),
        ("bradley_terry.rs", "objective::bradley_terry("),
    ] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        assert!(text.contains(call), "{file} does not call {call}");
    }
}
