//! Folders of models as files: what is saved is what the library would have written, and what is damaged, hostile or for
//! another model is an error of one line that names file and field.

#[path = "shared/odd.rs"]
mod odd;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use rand::RngCore;
use rebel_trainer::files;
use rebel_trainer::models::shards::{Format, Precision};
use rebel_trainer::models::tensors::{self, Weights};
use rebel_trainer::models::{DecoderConfig, hf, parameters};
use rebel_trainer::nn::{Purpose, Rope, Store, Streams};
use serde_json::{Value, json};

use odd::odd_values;

fn config() -> DecoderConfig {
    let neox = DecoderConfig::neox(37, 18, 2, 3, 64);
    DecoderConfig { rope: Rope { dims: 6, ..neox.rope }, ..neox }
}

fn store(config: &DecoderConfig) -> Store {
    parameters::initial(config, &Streams::new(3), DType::F32, &Device::Cpu).unwrap()
}

fn committed(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/hf/lm").join(case)
}

/// The `config.json` of a small Llama, Mistral or Qwen.
fn llama_json(model_type: &str) -> Value {
    json!({
        "model_type": model_type,
        "hidden_size": 12,
        "intermediate_size": 10,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "vocab_size": 11,
        "max_position_embeddings": 64,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": null,
        "tie_word_embeddings": false,
        "sliding_window": 8,
        "use_sliding_window": false,
        "max_window_layers": 1,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "torch_dtype": "bfloat16",
        "initializer_range": 0.02,
        "attention_bias": false,
    })
}

/// Names that transformers writes and no decoder here depends on.
const IGNORED: [&str; 6] = [
    "_attn_implementation_autoset",
    "classifier_dropout",
    "partial_rotary_factor",
    "pretraining_tp",
    "rope_theta",
    "transformers_version",
];

#[test]
fn what_is_saved_has_the_names_shapes_and_settings_of_the_librarys_files() {
    for case in ["llama3_bf16", "neox_f16_legacy", "neox_sequential"] {
        let case = committed(case);
        let (config, store) = hf::load(&case, DType::F32, &Device::Cpu).unwrap();
        let folder = tempfile::tempdir().unwrap();
        hf::save(folder.path(), &config, &store).unwrap();
        let shapes = |folder: &Path| {
            let mut shapes = Weights::open(&folder.join("model.safetensors")).unwrap().shapes();
            shapes.retain(|name, _| !name.ends_with("attention.bias") && !name.ends_with("masked_bias"));
            shapes.retain(|name, _| !name.ends_with("inv_freq"));
            shapes
        };
        assert_eq!(shapes(folder.path()), shapes(&case));
        for file in ["config.json", "generation_config.json"] {
            let read = |folder: &Path| files::read_json(&folder.join(file)).unwrap();
            let (ours, theirs) = (read(folder.path()), read(&case));
            for (name, value) in theirs.as_object().unwrap() {
                let same = match (value.as_f64(), ours[name].as_f64()) {
                    (Some(a), Some(b)) => a == b,
                    _ => ours.get(name) == Some(value),
                };
                let ignored = IGNORED.contains(&name.as_str()) && ours.get(name).is_none();
                // Parameters are saved as they are trained, in f32.
                let dtype = name == "torch_dtype" && ours[name] == "float32";
                let missing = name == "architectures" && theirs.get(name).is_none();
                assert!(same || ignored || dtype || missing, "{}: {name}: {value}, not {}", case.display(), ours[name]);
            }
        }
    }
}

/// The error of a folder: one line.
fn error_at(folder: &Path) -> String {
    let error = hf::load(folder, DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn a_config_that_cannot_be_followed_is_named_by_field() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let scaled = |edit: Value| {
        let mut rope = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64});
        rope.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
        rope
    };
    for (model_type, key, value, part) in [
        ("llama", "hidden_act", json!(3), "hidden_act: 3 (expected a string)"),
        ("llama", "eos_token_id", json!("</s>"), "eos_token_id: \"</s>\" (expected a token's id or a list of them)"),
        ("llama", "bos_token_id", json!(-1), "bos_token_id: -1 (expected a token's id)"),
        ("llama", "num_key_value_heads", json!(2), "num_key_value_heads: 2 does not divide num_attention_heads 3"),
        ("llama", "head_dim", json!(5), "head_dim: 5 rotated components of a head of 5"),
        ("llama", "head_dim", json!(1u64 << 28), "head_dim: 3 heads of 268435456 are too wide"),
        ("llama", "num_attention_heads", json!(1u64 << 40), "num_attention_heads: 1099511627776 is not a width"),
        ("llama", "partial_rotary_factor", json!(0.5), "partial_rotary_factor: 0.5 is not supported (expected 1)"),
        ("llama", "rope_scaling", json!({"type": "dynamic"}), "rope_scaling.type: dynamic is not supported"),
        ("llama", "rope_scaling", json!({"rope_type": 1}), "rope_scaling.rope_type: 1 (expected a string)"),
        ("llama", "rope_scaling", json!([]), "rope_scaling: [] (expected an object)"),
        ("llama", "rope_scaling", json!({"type": "linear"}), "rope_scaling.factor: missing"),
        ("llama", "rope_scaling", scaled(json!({"high_freq_factor": 1.0})), "high_freq_factor: 1 (expected more than"),
        (
            "llama",
            "rope_parameters",
            json!({"full_attention": {}}),
            "rope_parameters.full_attention: positions by kind",
        ),
        ("llama", "quantization_config", json!({}), "quantization_config: quantized weights are not supported"),
        ("llama", "torch_dtype", json!("float8_e4m3fn"), "torch_dtype: float8_e4m3fn is not supported"),
        ("llama", "rms_norm_eps", json!(-1e-6), "rms_norm_eps: -0.000001 (expected a number not below 0)"),
        ("llama", "rope_theta", json!(0), "rope_theta: 0 (expected a number above 0)"),
        ("mistral", "sliding_window", json!(0), "sliding_window: 0 is not a width"),
        ("qwen2", "use_sliding_window", json!("yes"), "use_sliding_window: \"yes\" (expected true or false)"),
        ("qwen3", "layer_types", json!(["linear_attention"]), "layer_types[0]: \"linear_attention\" is not supported"),
        ("qwen3", "layer_types", json!([]), "layer_types: 0 types for 1 layers"),
        ("llama", "model_type", json!("gpt2"), "(expected gpt_neox, llama, mistral, qwen2 or qwen3)"),
    ] {
        let mut json = llama_json(model_type);
        json[key] = value;
        std::fs::write(&file, json.to_string()).unwrap();
        let error = error_at(folder.path());
        assert!(error.contains("config.json: ") && error.contains(part), "{key}: {error}");
    }
}

/// Each field in turn becomes each odd value; the folder loads or fails in one line that names a file of it.
#[test]
fn no_value_of_any_config_field_panics_or_goes_unnamed() {
    let odd = [odd_values(), vec![json!({"rope_theta": "x"}), json!({"rope_type": "llama3", "factor": 0})]].concat();
    let mut tried = 0;
    for model_type in ["llama", "mistral", "qwen2", "qwen3"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        let whole = llama_json(model_type);
        std::fs::write(&file, whole.to_string()).unwrap();
        let config = hf::config(folder.path()).unwrap();
        hf::save(folder.path(), &config, &store(&config)).unwrap();
        for name in whole.as_object().unwrap().keys() {
            for value in &odd {
                let mut json = whole.clone();
                json[name] = value.clone();
                std::fs::write(&file, json.to_string()).unwrap();
                tried += 1;
                if let Err(error) = hf::load(folder.path(), DType::F32, &Device::Cpu) {
                    let (error, at) = (error.to_string(), folder.path().to_string_lossy().into_owned());
                    assert!(error.starts_with(&at) && !error.contains('\n'), "{name} = {value}: {error}");
                }
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}

#[test]
fn an_index_is_held_to_its_word() {
    let folder = tempfile::tempdir().unwrap();
    let (config, index) = (config(), folder.path().join("model.safetensors.index.json"));
    let whole = tensors_of(&config);
    hf::save(folder.path(), &config, &store(&config)).unwrap();
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let shard = |i: usize| format!("model-0000{i}-of-00002.safetensors");
    let half = whole.len() / 2;
    let mut map = json!({});
    for (i, (name, _)) in whole.iter().enumerate() {
        map[name] = json!(shard(1 + i / half.max(1) % 2));
    }
    for i in [1, 2] {
        let part = whole.iter().filter(|(name, _)| map[name.as_str()] == shard(i)).map(|(n, t)| (n.clone(), t.clone()));
        tensors::save(&folder.path().join(shard(i)), &part.collect()).unwrap();
    }
    let write = |map: &Value| std::fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    write(&map);
    assert!(hf::load(folder.path(), DType::F32, &Device::Cpu).is_ok());
    let mut moved = map.clone();
    let name = whole.keys().next().unwrap();
    moved[name] = json!(shard(2));
    write(&moved);
    let error = error_at(folder.path());
    assert!(error.contains(&format!("index.json: {name}: is not in {}", shard(2))), "{error}");
    write(&map);
    std::fs::remove_file(folder.path().join(shard(2))).unwrap();
    assert!(error_at(folder.path()).contains(&format!("{}: No such file", shard(2))));
}

#[test]
fn a_tensor_that_two_shards_hold_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let config = config();
    hf::save_as(folder.path(), &config, &store(&config), Format { shard: 4000, ..Format::default() }).unwrap();
    let twice = "embed_out.weight";
    let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let shards: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).collect();
    assert!(shards.len() > 2);
    for shard in &shards {
        let mut held = tensors::load(shard).unwrap();
        held.insert(twice.into(), tensors_of(&config)[twice].clone());
        tensors::save(shard, &held).unwrap();
    }
    let error = error_at(folder.path());
    assert!(error.contains("embed_out.weight: is in model-00001-of-") && error.contains(" already"), "{error}");
}

#[test]
fn what_is_saved_in_shards_and_in_half_precision_is_read_back() {
    let (folder, config) = (tempfile::tempdir().unwrap(), config());
    let store = store(&config);
    let names = |folder: &Path| {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.starts_with("model")).collect();
        names.sort();
        names
    };
    for (precision, word, bits) in
        [(Precision::BF16, "bfloat16", 8), (Precision::F16, "float16", 11), (Precision::F32, "float32", 24)]
    {
        for (shard, files) in [(4000, 2..50), (Format::SHARD, 1..2)] {
            // A folder that was saved to before: what is left of it must not be read.
            hf::save_as(folder.path(), &config, &store, Format { precision, shard }).unwrap();
            assert!(files.contains(&names(folder.path()).len()), "{:?}", names(folder.path()));
            assert_eq!(files::read_json(&folder.path().join("config.json")).unwrap()["torch_dtype"], word);
            let (again, back) = hf::load(folder.path(), DType::F32, &Device::Cpu).unwrap();
            assert_eq!(again, config);
            let back = back.to_tensors();
            for (name, tensor) in store.to_tensors() {
                let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                for (a, b) in flat(&tensor).into_iter().zip(flat(&back[&name])) {
                    // Below the smallest normal number of f16 the error stops shrinking.
                    assert!((a - b).abs() <= a.abs() * 0.5f32.powi(bits) + 0.5f32.powi(24), "{name}: {a} became {b}");
                }
            }
        }
    }
}

fn tensors_of(config: &DecoderConfig) -> std::collections::BTreeMap<String, Tensor> {
    store(config).to_tensors()
}

#[test]
fn tensors_that_share_their_bytes_are_not_believed_to_be_more() {
    let folder = tempfile::tempdir().unwrap();
    let config = DecoderConfig { layers: 8, ..config() };
    hf::save(folder.path(), &config, &store(&config)).unwrap();
    // Every tensor of the right shape, all on the bytes of the largest.
    let shapes = Weights::open(&folder.path().join("model.safetensors")).unwrap().shapes();
    let size = |shape: &[usize]| 4 * shape.iter().product::<usize>();
    let mut header = json!({});
    for (name, shape) in &shapes {
        header[name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [0, size(shape)]});
    }
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + shapes.values().map(|shape| size(shape)).max().unwrap(), 0);
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    let error = error_at(folder.path());
    assert!(error.contains("model.safetensors: ") && error.contains("share bytes with another tensor"), "{error}");
}

/// The one-line error of a folder after `damage`.
fn error_of(damage: impl Fn(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let config = config();
    hf::save(folder.path(), &config, &store(&config)).unwrap();
    damage(folder.path());
    error_at(folder.path())
}

fn edit(folder: &Path, key: &str, value: Value) {
    let file = folder.join("config.json");
    let mut json = files::read_json(&file).unwrap();
    json[key] = value;
    std::fs::write(&file, json.to_string()).unwrap();
}

#[test]
fn bad_folders_are_named_by_file_and_field() {
    let weights = "model.safetensors";
    let missing = error_of(|f| std::fs::remove_file(f.join(weights)).unwrap());
    assert!(missing.contains("model.safetensors: missing"), "{missing}");
    let truncated = error_of(|f| {
        let bytes = std::fs::read(f.join(weights)).unwrap();
        std::fs::write(f.join(weights), &bytes[..bytes.len() - 100]).unwrap();
    });
    assert!(truncated.contains("model.safetensors: gpt_neox."), "{truncated}");
    for (key, value, part) in [
        ("model_type", "bert".into(), "config.json: model_type: bert is not supported (expected gpt_neox, llama, "),
        ("hidden_size", 0.into(), "config.json: hidden_size: 0 is not a width (expected at least 1)"),
        ("num_attention_heads", 4.into(), "num_attention_heads: 4 does not divide hidden_size 18"),
        ("num_hidden_layers", 3.into(), "gpt_neox.layers.2."),
        ("num_hidden_layers", 1.into(), "gpt_neox.layers.1."),
        ("vocab_size", (1u64 << 40).into(), "vocab_size: 1099511627776 is not a width"),
        ("vocab_size", 38.into(), "embed_out.weight: shape [37, 18] (expected [38, 18] by config.json)"),
        ("hidden_act", "selu".into(), "hidden_act: selu is not supported"),
        ("rotary_pct", 0.5.into(), "rotary_pct: 3 rotated components"),
    ] {
        let error = error_of(|f| edit(f, key, Value::clone(&value)));
        assert!(error.contains(part), "{key}: {error}");
    }
}

#[test]
fn an_index_that_names_a_file_outside_the_folder_is_refused() {
    let error = error_of(|f| {
        std::fs::rename(f.join("model.safetensors"), f.join("a.safetensors")).unwrap();
        let map = r#"{"weight_map": {"embed_out.weight": "../a.safetensors"}}"#;
        std::fs::write(f.join("model.safetensors.index.json"), map).unwrap();
    });
    assert!(error.contains("embed_out.weight: shard \"../a.safetensors\""), "{error}");
}

/// Two thousand damaged copies of a real archive: each loads or fails in one line, none panics.
#[test]
fn a_damaged_pickle_never_panics() {
    let source = committed("neox_bin");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(source.join("config.json"), folder.path().join("config.json")).unwrap();
    let whole = std::fs::read(source.join("pytorch_model.bin")).unwrap();
    let file = folder.path().join("pytorch_model.bin");
    let mut stream = Streams::new(1).stream(Purpose("damage"), 0, 0, 0);
    for _ in 0..2000 {
        let mut bytes = whole.clone();
        // Half of the damage in the pickle at the front, the rest anywhere.
        let span = if stream.next_u32().is_multiple_of(2) { 6000 } else { bytes.len() };
        for _ in 0..1 + stream.next_u32() % 4 {
            let at = stream.next_u64() as usize % span;
            bytes[at] = stream.next_u32() as u8;
        }
        if stream.next_u32().is_multiple_of(8) {
            bytes.truncate(stream.next_u64() as usize % whole.len());
        }
        std::fs::write(&file, &bytes).unwrap();
        if let Err(error) = hf::load(folder.path(), DType::F32, &Device::Cpu) {
            let text = error.to_string();
            assert!(!text.contains('\n') && text.contains("pytorch_model.bin: "), "{text}");
        }
    }
}
