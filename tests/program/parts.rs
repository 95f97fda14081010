//! Training a part of the policy: which weights move, and what an adapter is as files.

use crate::{FIRST, LORA, digest, metrics, rebel, succeeded, tensors, train};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

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
