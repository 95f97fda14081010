//! The language-model, adapter and reward-model cases of the Python libraries' vectors, judged by the rules of their own judge: the same keys, types and
//! shapes; integers and texts exactly; floats within the case's tolerances where the mask is 1.
#![allow(clippy::neg_cmp_op_on_partial_ord)] // `!(error <= tolerance)`: a NaN must fail

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use rebel_trainer::files;
use rebel_trainer::models::tensors;
use rebel_trainer::vectors;
use serde_json::Value;

/// How a key is compared: tolerance (none: exactly) and the mask that says where.
struct Rule {
    tolerance: Option<f64>,
    mask: Option<&'static str>,
}

/// The rule of a tensor of a language-model case; none for inputs.
fn lm_rule(key: &str, tolerance: &Value) -> Option<Rule> {
    let at = |name: &str, by: f64| Some(tolerance[name].as_f64().unwrap() * by);
    let rule = |tolerance, mask| Some(Rule { tolerance, mask });
    match key {
        "input_ids" | "gen.prompt_ids" => None,
        "position_ids" => rule(None, Some("attention_mask")),
        "logits" => rule(at("logits", 1.0), Some("attention_mask")),
        "gen.step_logits" => rule(at("logits", 1.0), None),
        "token_logprobs" => rule(at("token_logprobs", 1.0), Some("response_mask")),
        // Dividing logits by 0.7 stretches their errors.
        "token_logprobs_t07" => rule(at("token_logprobs", 1.0 / 0.7), Some("response_mask")),
        "seq_logprob" => rule(at("seq_logprob", 1.0), None),
        "seq_logprob_t07" => rule(at("seq_logprob", 1.0 / 0.7), None),
        "token_entropy" => rule(at("token_logprobs", 2.0), Some("response_mask")),
        key if key.starts_with("hidden_states.") => rule(at("hidden", 1.0), Some("attention_mask")),
        _ => rule(None, None),
    }
}

/// The rule of a tensor of an adapter's case.
fn lora_rule(key: &str, tolerance: &Value) -> Option<Rule> {
    let rule = |by: f64, mask| Some(Rule { tolerance: tolerance.as_f64().map(|t| t * by), mask });
    match key {
        "logits_adapter" | "token_logprobs_adapter" => rule(1.0, Some("attention_mask")),
        "seq_logprob_adapter" => rule(5.0, None),
        key if key.starts_with("merged.") => Some(Rule { tolerance: Some(1e-6), mask: None }),
        _ => None,
    }
}

/// The rule of a tensor of a reward model's case. Only the scalar model's has two sides.
fn rm_rule(key: &str, tolerance: &Value) -> Option<Rule> {
    let (mask, name) = match key.split_once('.') {
        Some(("left_padded", name)) => ("left_padded.attention_mask", name),
        Some((_, name)) => ("right_padded.attention_mask", name),
        None => ("attention_mask", key),
    };
    let t = tolerance.as_f64();
    match name {
        "input_ids" => None,
        "values" | "hidden_last" => Some(Rule { tolerance: t, mask: Some(mask) }),
        "attention_mask" | "model_input_ids" | "reward_position" | "gating_position" => {
            Some(Rule { tolerance: None, mask: None })
        }
        _ => Some(Rule { tolerance: t, mask: None }),
    }
}

fn wide(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn compare(
    key: &str,
    want: &Tensor,
    got: Option<&Tensor>,
    rule: &Rule,
    all: &BTreeMap<String, Tensor>,
) -> Result<(), String> {
    let got = got.ok_or_else(|| format!("{key}: missing"))?;
    if got.dims() != want.dims() || got.dtype() != want.dtype() {
        return Err(format!(
            "{key}: {:?} {:?}, expected {:?} {:?}",
            got.dtype(),
            got.dims(),
            want.dtype(),
            want.dims()
        ));
    }
    let (g, w) = (wide(got), wide(want));
    let live: Vec<f64> = match rule.mask {
        Some(mask) => {
            // Responses are the last columns.
            let (mask, columns) = (&all[mask], want.dims()[1]);
            let mask = wide(&mask.narrow(1, mask.dims()[1] - columns, columns).unwrap());
            let per = w.len() / mask.len();
            mask.into_iter().flat_map(|m| std::iter::repeat_n(m, per)).collect()
        }
        None => vec![1.0; w.len()],
    };
    let tolerance = rule.tolerance.unwrap_or(0.0);
    for i in (0..w.len()).filter(|&i| live[i] != 0.0) {
        let within = (g[i] - w[i]).abs() <= tolerance; // a NaN is not
        if !within {
            return Err(format!("{key}[{i}]: {}, expected {} (tolerance {tolerance})", g[i], w[i]));
        }
    }
    Ok(())
}

/// Runs a case and gives what is wrong with the results.
fn judge(case: &Path) -> Vec<String> {
    let out = tempfile::tempdir().unwrap();
    if let Err(error) = vectors::run_case(case, out.path(), &Device::Cpu) {
        return vec![error.to_string()];
    }
    judge_results(case, out.path())
}

fn judge_results(case: &Path, out: &Path) -> Vec<String> {
    let mut file = case.join("expected.json");
    let mut json = files::read_json(&file).unwrap();
    if let Some(other) = json["expected_in"].as_str() {
        file = case.join("../..").join(other).join("expected.json");
        json = files::read_json(&file).unwrap();
    }
    let want = tensors::load(&file.with_file_name("expected.safetensors")).unwrap();
    let got = tensors::load(&out.join("got.safetensors")).unwrap();
    let got_json = files::read_json(&out.join("got.json")).unwrap();
    let rule_of = match json["kind"].as_str().unwrap() {
        "causal_lm" => lm_rule,
        "lora" => lora_rule,
        _ => rm_rule,
    };
    let mut wrong = Vec::new();
    for (key, tensor) in &want {
        if let Some(rule) = rule_of(key, &json["tolerance"]) {
            wrong.extend(compare(key, tensor, got.get(key), &rule, &want).err());
        }
    }
    for key in ["nll_response_tokens_mean", "nll_all_real_tokens_mean"] {
        if let Some(want) = json[key].as_f64() {
            let off = (got_json[key].as_f64().unwrap_or(f64::NAN) - want).abs();
            let within = off <= json["tolerance"]["token_logprobs"].as_f64().unwrap(); // a NaN is not
            if !within {
                wrong.push(format!("{key}: {}, expected {want}", got_json[key]));
            }
        }
    }
    if json["kind"] == "lora" {
        for key in ["scaling", "adapted_modules_layer0"] {
            let same = match (got_json[key].as_f64(), json[key].as_f64()) {
                (Some(got), Some(want)) => (got - want).abs() <= 1e-6 * want.max(1.0),
                _ => got_json[key] == json[key],
            };
            if !same {
                wrong.push(format!("{key}: {}, expected {}", got_json[key], json[key]));
            }
        }
    }
    if case.join("tokenizer.json").is_file() {
        for key in ["prompts_text", "greedy_text", "ids"] {
            if !json[key].is_null() && json[key] != got_json[key] {
                wrong.push(format!("{key}: {}, expected {}", got_json[key], json[key]));
            }
        }
    }
    wrong
}

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/hf")
}

#[test]
fn committed_language_model_cases_hold() {
    for case in ["llama3_bf16", "neox_bin", "neox_f16_legacy", "neox_sequential"] {
        let wrong = judge(&committed().join("lm").join(case));
        assert!(wrong.is_empty(), "{case}: {wrong:#?}");
    }
}

#[test]
fn a_committed_adapter_case_holds() {
    let wrong = judge(&committed().join("lora/neox_all_linear"));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn committed_reward_model_cases_hold() {
    for case in ["armorm", "fsfairx_seqcls", "starling", "tldr_scalar"] {
        let wrong = judge(&committed().join("rm").join(case));
        assert!(wrong.is_empty(), "{case}: {wrong:#?}");
    }
}

#[test]
fn every_case_of_a_model_in_the_whole_set_holds() {
    let root = match std::env::var_os("REBEL_VECTORS") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
    };
    let root = if root.join("hf").is_dir() { root.join("hf") } else { root };
    if !root.join("lm").is_dir() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "the vectors are missing; name them in REBEL_VECTORS");
        println!("skipped: every_case_of_a_model_in_the_whole_set_holds (no vectors; name them in REBEL_VECTORS)");
        return;
    }
    let mut judged = 0;
    for kind in ["lm", "lm_v5", "lora", "lora_v5", "rm"] {
        let Ok(folder) = std::fs::read_dir(root.join(kind)) else { continue };
        for entry in folder {
            let case = entry.unwrap().path();
            let name = case.file_name().unwrap().to_string_lossy().into_owned();
            let wrong = judge(&case);
            assert!(wrong.is_empty(), "{kind}/{name}: {wrong:#?}");
            judged += 1;
        }
    }
    assert!(judged >= 21, "{judged} cases");
}

#[test]
fn the_judge_sees_a_logit_off_by_three_tolerances_and_a_missing_key() {
    let case = committed().join("lm/neox_bin");
    let out = tempfile::tempdir().unwrap();
    vectors::run_case(&case, out.path(), &Device::Cpu).unwrap();
    let file = out.path().join("got.safetensors");
    let mut got = tensors::load(&file).unwrap();
    let mask = wide(&got["attention_mask"]);
    let vocab = got["logits"].dims()[2];
    let live = mask.iter().position(|&m| m == 1.0).unwrap() * vocab;
    let mut logits = got["logits"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    logits[live] += 9e-5;
    got.insert("logits".into(), Tensor::from_vec(logits, got["logits"].shape(), &Device::Cpu).unwrap());
    got.remove("gen.new_ids");
    tensors::save(&file, &got).unwrap();
    let wrong = judge_results(&case, out.path());
    assert_eq!(wrong.len(), 2, "{wrong:?}");
}

#[test]
fn another_architecture_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["expected.json", "expected.safetensors"] {
        std::fs::copy(committed().join("lm/neox_bin").join(file), folder.path().join(file)).unwrap();
    }
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    let error = vectors::run_case(folder.path(), &folder.path().join("out"), &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("config.json: model_type: bert"), "{error}");
}
