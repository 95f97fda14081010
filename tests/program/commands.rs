//! The subcommands beside `train`: help, `verify`, `vectors`, `figures`.

use crate::{complaint, rebel, succeeded, train};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

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
