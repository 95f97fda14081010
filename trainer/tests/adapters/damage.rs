//! Adapters that are damaged, hostile or for another model: an error of one line that names file and field, no panic.

use candle_core::{DType, Device, Tensor};
use rand::RngCore;
use rebel_trainer::files;
use rebel_trainer::models::peft::{self, LoraConfig};
use rebel_trainer::models::{DecoderConfig, hf, tensors};
use rebel_trainer::nn::{Purpose, Streams};
use serde_json::json;

use crate::odd::odd_values;
use crate::{error_at, families, folders, neox, store};

#[test]
fn a_bad_setting_is_named_by_file_and_field() {
    let (folder, _) = folders(&neox(), LoraConfig::new(2, 4.0));
    let file = folder.path().join("adapter").join(peft::CONFIG);
    let whole = files::read_json(&file).unwrap();
    let a = "gpt_neox.layers.0.attention.query_key_value.lora_A.weight";
    for (key, value, part) in [
        ("r", json!(0), "r: 0 is not a width (expected at least 1)"),
        (
            "r",
            json!(1_000_000_000),
            "lora_A.weight: shape [2, 18] (expected [1000000000, 18] by adapter_config.json and",
        ),
        ("r", json!(u64::MAX), "lora_A.weight: shape [2, 18]"),
        ("r", json!("8"), "r: \"8\" is not a width"),
        ("lora_alpha", json!([]), "lora_alpha: [] (expected a number)"),
        ("lora_dropout", json!(1.0), "lora_dropout: 1 (expected a share from 0 to below 1)"),
        ("target_modules", json!(["q_proj"]), "target_modules: no linear map of the model is meant (it has "),
        ("target_modules", json!(["embed_in"]), "target_modules: gpt_neox.embed_in is no linear map"),
        ("target_modules", json!([1]), "target_modules: [1] (expected a list of strings)"),
        ("target_modules", json!(7), "target_modules: 7 (expected a list of names or a pattern)"),
        ("target_modules", json!("all-linear"), "lora_A.weight: missing tensor"),
        ("target_modules", json!("(["), "target_modules: \"([\" is not a pattern"),
        ("layers_to_transform", json!([0, 1]), "layers.2.attention.query_key_value.lora_A.weight: unknown tensor"),
        ("layers_to_transform", json!(-1), "layers_to_transform: -1 (expected a layer or a list of them)"),
        ("rank_pattern", json!({"query_key_value": 3}), "lora_A.weight: shape [2, 18] (expected [3, 18]"),
        ("rank_pattern", json!({"query_key_value": 0.5}), "rank_pattern.query_key_value: 0.5 is not a rank"),
        ("rank_pattern", json!([1]), "rank_pattern: [1] (expected an object)"),
        ("alpha_pattern", json!({"x": "y"}), "alpha_pattern.x: \"y\" (expected a number)"),
        ("modules_to_save", json!(["score"]), "modules_to_save: \"score\" is no module of the model"),
        ("bias", json!("all"), "bias: all is not supported (expected none)"),
        ("peft_type", json!("IA3"), "peft_type: IA3 is not supported (expected LORA)"),
        ("peft_type", json!(null), "peft_type: missing"),
        ("task_type", json!("SEQ_CLS"), "task_type: SEQ_CLS is not supported"),
        ("init_lora_weights", json!("pissa"), "init_lora_weights: pissa is not supported"),
        ("fan_in_fan_out", json!(true), "fan_in_fan_out: true is not supported (expected plain LoRA)"),
        ("use_dora", json!(true), "use_dora: true is not supported"),
        ("use_qalora", json!(true), "use_qalora: true is not supported"),
        ("loftq_config", json!({"loftq_bits": 4}), "loftq_config: {\"loftq_bits\":4} is not supported"),
        ("layer_replication", json!([[0, 1]]), "layer_replication: [[0,1]] is not supported"),
        ("use_rslora", json!(3), "use_rslora: 3 (expected true or false)"),
        ("base_model_name_or_path", json!({}), "base_model_name_or_path: {} (expected a string)"),
    ] {
        let mut json = whole.clone();
        json[key] = value.clone();
        std::fs::write(&file, json.to_string()).unwrap();
        let error = error_at(folder.path());
        assert!(error.contains("/adapter/adapter_") && error.contains(part), "{key} = {value}: {error}");
    }
    let mut json = whole.clone();
    json["base_model_name_or_path"] = json!("meta-llama/nowhere");
    std::fs::write(&file, json.to_string()).unwrap();
    let error = peft::open(&folder.path().join("adapter"), None, DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(!error.contains('\n'));
    assert!(error.contains("base_model_name_or_path: meta-llama/nowhere: no such folder"), "{error}");

    std::fs::write(&file, whole.to_string()).unwrap();
    let weights = folder.path().join("adapter/adapter_model.safetensors");
    let tensors = tensors::load(&weights).unwrap();
    let name = format!("base_model.model.{a}");
    for missing in [name.clone(), name.replace("lora_A", "lora_B")] {
        let mut without = tensors.clone();
        without.remove(&missing);
        tensors::save(&weights, &without).unwrap();
        assert!(error_at(folder.path()).ends_with(&format!("adapter_model.safetensors: {missing}: missing tensor")));
    }
    let mut more = tensors.clone();
    more.insert(name.replace("lora_A", "lora_magnitude_vector"), Tensor::zeros(54, DType::F32, &Device::Cpu).unwrap());
    tensors::save(&weights, &more).unwrap();
    assert!(error_at(folder.path()).contains("lora_magnitude_vector.weight: unknown tensor"));
    std::fs::remove_file(&weights).unwrap();
    assert!(error_at(folder.path()).ends_with("adapter_model.safetensors: missing (nor is there adapter_model.bin)"));
}

#[test]
fn an_adapter_for_another_model_is_refused_and_leaves_the_model_as_it_was() {
    let (folder, _) = folders(&neox(), LoraConfig::new(2, 4.0));
    for other in [DecoderConfig::neox(37, 24, 3, 3, 64), DecoderConfig { layers: 2, ..neox() }, families()[1].clone()] {
        let mut store = store(&other);
        let error = peft::load(&folder.path().join("adapter"), &other, &mut store).unwrap_err().to_string();
        assert!(error.contains("/adapter/adapter_") && !error.contains('\n'), "{error}");
        assert_eq!(store.trainable().count(), store.names().count());
    }
}

/// Fields one by one become odd values, bytes of both files change: each folder loads or fails in one line that names a file
/// of it.
#[test]
fn no_damage_to_an_adapter_panics_or_goes_unnamed() {
    let (folder, _) = folders(&neox(), LoraConfig::new(2, 4.0));
    let (at, base) = (folder.path().join("adapter"), folder.path().join("base"));
    let (config, file) = (hf::config(&base).unwrap(), at.join(peft::CONFIG));
    let base = hf::load(&base, DType::F32, &Device::Cpu).unwrap().1;
    let tried = std::cell::Cell::new(0);
    let attempt = |what: &str| {
        tried.set(tried.get() + 1);
        if let Err(error) = peft::load(&at, &config, &mut base.base()) {
            let error = error.to_string();
            assert!(error.starts_with(&*at.to_string_lossy()) && !error.contains('\n'), "{what}: {error}");
        }
    };
    let whole = files::read_json(&file).unwrap();
    let odd = [odd_values(), vec![json!({"query_key_value": 1e300, "(": {}}), json!(".*")]].concat();
    for name in whole.as_object().unwrap().keys() {
        for value in &odd {
            let mut json = whole.clone();
            json[name] = value.clone();
            std::fs::write(&file, json.to_string()).unwrap();
            attempt(&format!("{name} = {value}"));
        }
    }
    let mut stream = Streams::new(1).stream(Purpose("damage"), 0, 0, 0);
    let files = [(file.clone(), whole.to_string().into_bytes()), {
        let weights = at.join("adapter_model.safetensors");
        (weights.clone(), std::fs::read(&weights).unwrap())
    }];
    for (path, bytes) in &files {
        for (path, bytes) in &files {
            std::fs::write(path, bytes).unwrap();
        }
        for i in 0..400 {
            let mut damaged = bytes.clone();
            let span = damaged.len().min(1200); // the headers
            for _ in 0..1 + stream.next_u32() % 3 {
                damaged[stream.next_u64() as usize % span] = stream.next_u32() as u8;
            }
            if i % 8 == 0 {
                damaged.truncate(stream.next_u64() as usize % bytes.len());
            }
            std::fs::write(path, &damaged).unwrap();
            attempt(&format!("damage {i} to {}", path.display()));
        }
    }
    assert!(tried.get() > 1000, "{}", tried.get());
}
