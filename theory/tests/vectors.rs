//! The theory vectors, computed and judged: the committed copies always, the whole set where it is at hand.

use rebel_theory::vectors::compare::{Tolerance, differences};
use rebel_theory::vectors::run;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Topics whose every operation is computed.
#[rustfmt::skip]
const TOPICS: &[&str] = &[
    "md",
    "claim1",
    "claim2",
    "example1",
    "theorem1",
    "preferences",
    "baselines",
    "autoreg",
    "estimation",
    "selfplay",
    "bandit",
];

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The file without what a program must not look at.
fn stripped(file: &Value) -> Value {
    let mut file = file.clone();
    for case in file["cases"].as_array_mut().expect("cases") {
        let case = case.as_object_mut().expect("a case");
        case.retain(|key, _| !["expected", "note", "tol"].contains(&key.as_str()));
    }
    file
}

/// Every difference in one file, each prefixed by its case.
fn judge(file: &Value) -> Vec<String> {
    let got = run(&stripped(file)).unwrap_or_else(|e| panic!("{e}"));
    let results = got["results"].as_array().expect("results");
    let mut wrong = Vec::new();
    for case in file["cases"].as_array().expect("cases") {
        let Some(answer) = results.iter().find(|r| r["id"] == case["id"]) else {
            wrong.push(format!("{}: no answer", case["id"]));
            continue;
        };
        let number = |key: &str| case["tol"][key].as_f64().expect("a tolerance");
        let tolerance = Tolerance { rel: number("rel"), abs: number("abs") };
        let found = differences(&case["expected"], &answer["output"], tolerance);
        wrong.extend(found.into_iter().map(|d| format!("{}: {d}", case["id"])));
    }
    wrong
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

#[test]
fn committed_vectors_are_reproduced() {
    for topic in TOPICS {
        let file = read(&workspace().join(format!("tests/vectors/theory/{topic}.json")));
        assert_eq!(judge(&file), [""; 0], "{topic}");
    }
}

#[test]
fn whole_set_of_vectors_is_reproduced() {
    let set = std::env::var_os("REBEL_VECTORS").map_or(workspace().join("../shared/vectors"), PathBuf::from);
    if !set.join("theory").is_dir() {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "the set of vectors is missing (set REBEL_VECTORS)"
        );
        println!("skipped: no set of vectors beside the checkout (set REBEL_VECTORS)");
        return;
    }
    for topic in TOPICS {
        assert_eq!(judge(&read(&set.join(format!("theory/{topic}.json")))), [""; 0], "{topic}");
    }
}

#[test]
fn answers_do_not_depend_on_expected_values() {
    let file = read(&workspace().join("tests/vectors/theory/claim1.json"));
    assert_eq!(run(&file).unwrap(), run(&stripped(&file)).unwrap());
}

#[test]
fn changed_expectation_is_noticed() {
    let mut file = read(&workspace().join("tests/vectors/theory/md.json"));
    let star = &mut file["cases"][0]["expected"]["J_star"];
    *star = (star.as_f64().unwrap() * (1.0 + 1e-7)).into();
    assert_eq!(judge(&file).len(), 1);
}
