//! Training a part of a model: adapters as files, which parameters get a gradient, recomputed blocks, the reference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use rand::RngCore;
use rebel_trainer::files;
use rebel_trainer::models::convert::Conversion;
use rebel_trainer::models::peft::{self, LoraConfig, Modules};
use rebel_trainer::models::shards::Format;
use rebel_trainer::models::tensors::{self, Weights};
use rebel_trainer::models::{DecoderConfig, Family, TokenBatch, Trained, hf, parameters};
use rebel_trainer::nn::{Gradients, Purpose, Rope, Store, Streams, Temperature, normal};
use serde_json::{Value, json};

fn committed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/hf").join(path)
}

fn neox() -> DecoderConfig {
    let neox = DecoderConfig::neox(37, 18, 3, 3, 64);
    DecoderConfig { rope: Rope { dims: 6, ..neox.rope }, ..neox }
}

/// A decoder of each family, small and odd.
fn families() -> Vec<DecoderConfig> {
    let of = |family| DecoderConfig {
        family,
        rope: Rope { dims: 6, ..neox().rope },
        residual: rebel_trainer::models::config::Residual::Sequential,
        activation: rebel_trainer::models::config::Activation::Silu,
        attention_bias: family == Family::Qwen2,
        mlp_bias: false,
        kv_heads: 1,
        ..neox()
    };
    [vec![neox()], [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3].map(of).to_vec()].concat()
}

fn store(config: &DecoderConfig) -> Store {
    let mut store = parameters::initial(config, &Streams::new(3), DType::F32, &Device::Cpu).unwrap();
    store.freeze(|_| false);
    store
}

fn tokens() -> TokenBatch {
    TokenBatch::left_padded(&[(0..19).map(|i| i * 5 % 37).collect(), vec![7, 1, 30], vec![4; 9]], 0).unwrap()
}

/// The sum of log-probabilities of every real token after a real one, and its gradients.
fn gradients(config: &DecoderConfig, store: &mut Store, recompute: bool) -> (f32, Gradients) {
    let model = hf::decoder(config, store).unwrap();
    let model = if recompute { model.recomputing() } else { model };
    let tokens = tokens();
    let (_, time) = tokens.dims();
    let mask = tokens.mask();
    let at: Vec<usize> = (0..mask.len()).filter(|&i| i % time > 0 && mask[i] && mask[i - 1]).collect();
    let hidden = model.hidden(&tokens, None).unwrap();
    let (log_p, _) = model.token_logprobs(&hidden, &tokens, &at, Temperature::ONE).unwrap();
    let loss = log_p.sum_all().unwrap();
    store.accumulate(model.backward(&loss).unwrap()).unwrap();
    assert_eq!(store.missing_gradients(), Vec::<String>::new());
    (loss.to_scalar().unwrap(), store.take_gradients())
}

/// Gives B of every adapter values, so that A has a gradient.
fn unsettle(store: &Store) {
    let values: BTreeMap<String, Tensor> = store
        .trainable()
        .filter(|(name, _)| name.ends_with("lora_B.weight"))
        .map(|(name, var)| {
            let values = normal(&Streams::new(8), name, var.dims(), 0.1, DType::F32, &Device::Cpu);
            (name.to_string(), values.unwrap())
        })
        .collect();
    store.set_some(&values).unwrap();
}

fn all_linear(rank: usize) -> LoraConfig {
    LoraConfig { targets: Modules::AllLinear, ..LoraConfig::new(rank, 6.0) }
}

fn modes() -> Vec<Trained> {
    let head = ["q_proj", "query_key_value", "embed_out", "lm_head"].map(String::from).to_vec();
    let whole = LoraConfig {
        targets: Modules::Named(head),
        modules_to_save: vec!["layers.2.mlp".into(), "layers.0.input_layernorm".into()],
        ..LoraConfig::new(2, 3.0)
    };
    let adapters = [LoraConfig::new(4, 8.0), all_linear(3), whole].map(Trained::Adapter);
    [vec![Trained::Full, Trained::LastBlocks(1), Trained::LastBlocks(3)], adapters.to_vec()].concat()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn in_every_model_and_mode_what_is_trained_gets_a_gradient_and_nothing_else_does() {
    for config in families() {
        for mode in modes() {
            let mut store = store(&config);
            mode.prepare(&config, &mut store, &Streams::new(4)).unwrap();
            unsettle(&store);
            let trainable: Vec<String> = store.trainable().map(|(name, _)| name.to_string()).collect();
            let fits = |name: &String| match &mode {
                Trained::Full => true,
                Trained::LastBlocks(n) => !name.contains(".embed_") && (*n == 3 || !name.contains("layers.0.")),
                Trained::Adapter(_) => name.contains(".lora_") || name.contains(".modules_to_save."),
            };
            assert!(trainable.iter().all(fits), "{mode:?}: {trainable:?}");
            let model = hf::decoder(&config, &store).unwrap();
            let hidden = model.hidden(&tokens(), None).unwrap();
            let raw = model.backward(&model.logits(&hidden).unwrap().sum_all().unwrap()).unwrap();
            // Nothing else has a gradient at the end: neither a frozen weight nor what is computed from frozen ones alone.
            assert_eq!(raw.get_ids().count(), trainable.len(), "{:?} {mode:?}", config.family);
            for (name, gradient) in gradients(&config, &mut store, false).1 {
                let size = values(&gradient).iter().fold(0.0f32, |m, g| m.max(g.abs()));
                assert!(trainable.contains(&name) && size > 0.0 && size.is_finite(), "{mode:?}: {name}: {size}");
            }
        }
    }
}

#[test]
fn recomputed_blocks_give_the_gradients_of_kept_ones_bit_for_bit() {
    for config in families() {
        for mode in modes() {
            let mut store = store(&config);
            mode.prepare(&config, &mut store, &Streams::new(4)).unwrap();
            unsettle(&store);
            let (kept, recomputed) = (gradients(&config, &mut store, false), gradients(&config, &mut store, true));
            assert_eq!(kept.0, recomputed.0);
            assert_eq!(kept.1.len(), recomputed.1.len());
            for (name, gradient) in &kept.1 {
                assert_eq!(values(gradient), values(&recomputed.1[name]), "{:?} {mode:?}: {name}", config.family);
            }
        }
    }
}

fn logits(config: &DecoderConfig, store: &Store) -> Vec<f32> {
    let model = hf::decoder(config, store).unwrap().detached();
    values(&model.logits(&model.hidden(&tokens(), None).unwrap()).unwrap())
}

#[test]
fn adapters_off_equal_the_base_bit_for_bit_and_share_its_weights() {
    for config in families() {
        let mut store = store(&config);
        let before = logits(&config, &store);
        Trained::Adapter(all_linear(3)).prepare(&config, &mut store, &Streams::new(4)).unwrap();
        let reference = store.reference().unwrap();
        assert_eq!(logits(&config, &store), before); // B is zero
        unsettle(&store);
        assert_ne!(logits(&config, &store), before);
        assert_eq!(logits(&config, &reference), before);
        assert_eq!(logits(&config, &store.base()), before);
        // one set of weights: a change of the base is seen by the reference
        let name = format!("{}.weight", config.family.names().head.trim_end_matches(".weight"));
        let moved = Tensor::zeros(&[37, 18], DType::F32, &Device::Cpu).unwrap();
        store.set_some(&BTreeMap::from([(name, moved)])).unwrap();
        assert!(logits(&config, &reference).iter().all(|&logit| logit == 0.0));
    }
}

#[test]
fn a_reference_of_trained_blocks_stays_where_it_is_and_shares_the_frozen_ones() {
    let config = neox();
    let mut store = store(&config);
    Trained::LastBlocks(1).prepare(&config, &mut store, &Streams::new(4)).unwrap();
    let (before, reference) = (logits(&config, &store), store.reference().unwrap());
    let zeros = |name: &str| (name.to_string(), store.to_tensors()[name].zeros_like().unwrap());
    store.set_some(&BTreeMap::from([zeros("gpt_neox.layers.2.mlp.dense_4h_to_h.weight")])).unwrap();
    assert_ne!(logits(&config, &store), before);
    assert_eq!(logits(&config, &reference), before);
    store.set_some(&BTreeMap::from([zeros("gpt_neox.embed_in.weight")])).unwrap();
    assert_ne!(logits(&config, &reference), before);
}

/// A base and an adapter beside it, `base/` and `adapter/` of a folder.
fn folders(config: &DecoderConfig, lora: LoraConfig) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(config);
    hf::save(&folder.path().join("base"), config, &store).unwrap();
    let lora = LoraConfig { base: Some("../base".into()), ..lora };
    peft::begin(&lora, config, &mut store, &Streams::new(4)).unwrap();
    unsettle(&store);
    peft::save(&folder.path().join("adapter"), &lora, &store).unwrap();
    (folder, store)
}

/// peft writes the output head's own weight beside its adapter, and loads it with it.
#[test]
fn a_heads_weight_that_an_adapter_brings_along_takes_the_bases_place() {
    let config = neox();
    let head = LoraConfig { targets: Modules::Named(vec!["embed_out".into()]), ..LoraConfig::new(2, 4.0) };
    let (folder, store) = folders(&config, head);
    let file = folder.path().join("adapter/adapter_model.safetensors");
    let weights = Weights::open(&file).unwrap();
    let mut tensors: BTreeMap<String, Tensor> =
        weights.infos().into_keys().map(|name| (name.clone(), weights.read(&name).unwrap())).collect();
    let plain = store.to_tensors().remove("embed_out.weight").unwrap();
    let brought = |factor: f64| (&plain * factor).unwrap();
    for factor in [1.0, -2.0] {
        tensors.insert("base_model.model.embed_out.base_layer.weight".into(), brought(factor));
        tensors::save(&file, &tensors).unwrap();
        let (_, loaded, _) = peft::open(&folder.path().join("adapter"), None, DType::F32, &Device::Cpu).unwrap();
        store.set_some(&BTreeMap::from([("embed_out.weight".into(), brought(factor))])).unwrap();
        assert_eq!(logits(&config, &loaded), logits(&config, &store));
    }
}

#[test]
fn an_adapter_survives_its_folder_and_merging_changes_no_logit_by_more_than_rounding() {
    for config in families() {
        for mode in modes() {
            let Trained::Adapter(lora) = mode else { continue };
            let (folder, store) = folders(&config, lora);
            let (read, loaded, lora) =
                peft::open(&folder.path().join("adapter"), None, DType::F32, &Device::Cpu).unwrap();
            assert_eq!(read, config);
            assert_eq!(logits(&config, &loaded), logits(&config, &store));
            let again = folder.path().join("again");
            peft::save(&again, &lora.unwrap(), &loaded).unwrap();
            for file in [peft::CONFIG, "adapter_model.safetensors"] {
                let bytes = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
                assert_eq!(bytes(&again), bytes(&folder.path().join("adapter")), "{file}");
            }
            let merged = folder.path().join("merged");
            let how = Conversion { precision: None, shard: Format::SHARD, overwrite: false };
            peft::merge(&folder.path().join("adapter"), None, &merged, &how).unwrap();
            let (_, merged) = hf::load(&merged, DType::F32, &Device::Cpu).unwrap();
            let (a, b) = (logits(&config, &store), logits(&config, &merged));
            let worst = a.iter().zip(&b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst < 5e-6, "{:?}: {worst}", config.family);
        }
    }
}

#[test]
fn a_saved_adapter_has_the_keys_names_and_shapes_of_pefts_files() {
    let case = committed("lora/neox_all_linear");
    let (_, store, lora) = peft::open(&case, Some(&committed("lm/neox_sequential")), DType::F32, &Device::Cpu).unwrap();
    let folder = tempfile::tempdir().unwrap();
    peft::save(folder.path(), &lora.unwrap(), &store).unwrap();
    let read = |folder: &Path| files::read_json(&folder.join(peft::CONFIG)).unwrap();
    assert_eq!(read(folder.path()), read(&case));
    let weights = |folder: &Path| Weights::open(&folder.join("adapter_model.safetensors")).unwrap();
    assert_eq!(weights(folder.path()).shapes(), weights(&case).shapes());
    for name in weights(&case).shapes().keys() {
        let of = |folder: &Path| values(&weights(folder).read(name).unwrap());
        assert_eq!(of(folder.path()), of(&case));
    }
}

#[test]
fn half_precision_factors_are_read_and_others_refused() {
    let (folder, store) = folders(&neox(), LoraConfig::new(2, 4.0));
    let file = folder.path().join("adapter/adapter_model.safetensors");
    let whole = tensors::load(&file).unwrap();
    for (dtype, tolerance) in [(DType::F16, 1e-3), (DType::BF16, 1e-2), (DType::F64, 0.0)] {
        tensors::save(&file, &whole.iter().map(|(n, t)| (n.clone(), t.to_dtype(dtype).unwrap())).collect()).unwrap();
        let (_, read, _) = peft::open(&folder.path().join("adapter"), None, DType::F32, &Device::Cpu).unwrap();
        for (name, var) in store.trainable() {
            let found = values(&read.to_tensors()[name]);
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= tolerance;
            assert!(values(var).iter().zip(&found).all(near), "{dtype:?} {name}");
        }
    }
    tensors::save(&file, &whole.iter().map(|(n, t)| (n.clone(), t.to_dtype(DType::I64).unwrap())).collect()).unwrap();
    let error = error_at(folder.path());
    assert!(error.contains("lora_A.weight: dtype I64 (expected a float)"), "{error}");
}

/// A zip archive of these members, stored as they are.
fn archive(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let u16s = |values: &[usize]| values.iter().flat_map(|&v| (v as u16).to_le_bytes()).collect::<Vec<u8>>();
    let u32s = |values: &[usize]| values.iter().flat_map(|&v| (v as u32).to_le_bytes()).collect::<Vec<u8>>();
    let (mut bytes, mut directory) = (vec![], vec![]);
    for (name, data) in members {
        let at = bytes.len();
        // version, flags, method, time, date; checksum (not looked at) and sizes; lengths of name and extra field
        let about = [u16s(&[0, 0, 0, 0]), u32s(&[0, data.len(), data.len()]), u16s(&[name.len(), 0])].concat();
        bytes.extend([b"PK\x03\x04\x14\x00".to_vec(), about.clone(), name.clone().into_bytes(), data.clone()].concat());
        let place = [u16s(&[0, 0, 0]), u32s(&[0, at])].concat();
        directory.extend([b"PK\x01\x02\x14\x00\x14\x00".to_vec(), about, place, name.clone().into_bytes()].concat());
    }
    let (at, size) = (bytes.len(), directory.len());
    let end = [u16s(&[0, 0, members.len(), members.len()]), u32s(&[size, at]), u16s(&[0])].concat();
    [bytes, directory, b"PK\x05\x06".to_vec(), end].concat()
}

/// Writes f32 tensors as `torch.save` writes a dictionary of them.
fn torch_save(path: &Path, tensors: &BTreeMap<String, Tensor>) {
    let text = |s: &str| [&b"X"[..], &(s.len() as u32).to_le_bytes(), s.as_bytes()].concat();
    let int = |n: usize| [&b"J"[..], &(n as u32).to_le_bytes()].concat();
    let tuple = |items: Vec<Vec<u8>>| [&b"("[..], &items.concat(), b"t"].concat();
    let dict = b"ccollections\nOrderedDict\n)R".to_vec();
    let mut pickle = [&b"\x80\x02"[..], &dict, b"("].concat();
    let mut members = vec![];
    for (i, (name, tensor)) in tensors.iter().enumerate() {
        let (key, [rows, columns]) = (i.to_string(), tensor.dims().try_into().unwrap());
        let storage =
            [text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text(&key), text("cpu"), int(rows * columns)];
        let storage = [tuple(storage.to_vec()), b"Q".to_vec()].concat();
        let (shape, strides) = (tuple(vec![int(rows), int(columns)]), tuple(vec![int(columns), int(1)]));
        let made = tuple(vec![storage, int(0), shape, strides, b"\x89".to_vec(), dict.clone()]);
        pickle.extend([text(name), b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(), made, b"R".to_vec()].concat());
        let data: Vec<u8> = values(tensor).iter().flat_map(|x| x.to_le_bytes()).collect();
        members.push((format!("archive/data/{key}"), data));
    }
    pickle.extend(b"u.");
    members.push(("archive/data.pkl".into(), pickle));
    std::fs::write(path, archive(&members)).unwrap();
}

#[test]
fn an_adapter_in_torchs_own_format_is_the_same() {
    let (folder, store) = folders(&neox(), all_linear(3));
    let at = folder.path().join("adapter");
    let weights = at.join("adapter_model.safetensors");
    torch_save(&at.join("adapter_model.bin"), &tensors::load(&weights).unwrap());
    std::fs::remove_file(&weights).unwrap();
    let (_, read, _) = peft::open(&at, None, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(logits(&neox(), &read), logits(&neox(), &store));
}

/// The error of `adapter/` in a folder: one line.
fn error_at(folder: &Path) -> String {
    let base = folder.join("base");
    let error = peft::open(&folder.join("adapter"), Some(&base), DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

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
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(2.5),
        json!(1e308),
        json!(u64::MAX),
        json!(""),
        json!("x\ny"),
        json!([]),
        json!([-1, "x"]),
        json!({}),
        json!({"query_key_value": 1e300, "(": {}}),
        json!(".*"),
    ];
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

/// Policy, batch and adapter of the Python libraries' REBEL update, and the gradients torch found.
fn torchs_update() -> (DecoderConfig, Store, BTreeMap<String, Tensor>, BTreeMap<String, Tensor>) {
    let folder = committed("train");
    let (config, mut store) = hf::load(&folder.join("policy"), DType::F32, &Device::Cpu).unwrap();
    let lora = LoraConfig::new(4, 8.0);
    peft::begin(&lora, &config, &mut store, &Streams::new(1)).unwrap();
    let update = tensors::load(&folder.join("rebel_lora_b_nonzero.safetensors")).unwrap();
    let ours = |name: &str| name.replace("policy.base_model.model.", "").replace(".default.", ".");
    let part = |begin: &str| {
        let found = update.iter().filter_map(|(n, t)| Some((ours(n.strip_prefix(begin)?), t.clone())));
        found.collect::<BTreeMap<_, _>>()
    };
    store.set_some(&part("init.")).unwrap();
    let batch = tensors::load(&folder.join("batch.safetensors")).unwrap();
    (config, store, batch, part("grad1."))
}

#[test]
fn gradients_of_an_adapter_under_rebel_are_torchs() {
    let (config, mut store, batch, expected) = torchs_update();
    let ids = |name: &str| batch[name].flatten_all().unwrap().to_vec1::<i64>().unwrap();
    let numbers = |name: &str| values(&batch[name]).into_iter().map(f64::from).collect::<Vec<f64>>();
    let (input, mask, counted) =
        (ids("online2.model_input_ids"), ids("online2.attention_mask"), ids("online2.response_mask"));
    let (rows, response) = batch["online2.response_mask"].dims2().unwrap();
    let time = input.len() / rows;
    let tokens =
        TokenBatch::new(input.iter().map(|&i| i as u32).collect(), mask.iter().map(|&m| m != 0).collect(), rows)
            .unwrap();
    let place = |i: usize| i / response * time + time - response + i % response;
    let at: Vec<usize> = (0..counted.len()).filter(|&i| counted[i] != 0).map(place).collect();
    let (old, reward) = (numbers("online2.seq_logprob_old"), numbers("online2.reward"));
    for recompute in [false, true] {
        let model = hf::decoder(&config, &store).unwrap();
        let model = if recompute { model.recomputing() } else { model };
        let hidden = model.hidden(&tokens, None).unwrap();
        let (log_p, _) = model.token_logprobs(&hidden, &tokens, &at, Temperature::new(0.7).unwrap()).unwrap();
        let mut new = vec![0.0; rows];
        let of_row: Vec<usize> = at.iter().map(|&i| i / time).collect();
        of_row.iter().zip(values(&log_p)).for_each(|(&row, p)| new[row] += f64::from(p));
        // d/dlog p of the mean over pairs of (movement - difference of rewards)^2
        let pairs = rows as f64 / 2.0;
        let slope: Vec<f32> = (0..rows)
            .map(|row| {
                let (a, b) = (row / 2 * 2, row / 2 * 2 + 1);
                let off = (new[a] - old[a]) - (new[b] - old[b]) - (reward[a] - reward[b]);
                (2.0 * off / pairs * if row == a { 1.0 } else { -1.0 }) as f32
            })
            .collect();
        let slopes: Vec<f32> = of_row.iter().map(|&row| slope[row]).collect();
        let loss = (log_p * Tensor::new(slopes, &Device::Cpu).unwrap()).unwrap().sum_all().unwrap();
        store.accumulate(model.backward(&loss).unwrap()).unwrap();
        let found = store.take_gradients();
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, want) in &expected {
            let (want, got) = (values(want), values(&found[name]));
            let scale = want.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let worst = want.iter().zip(&got).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst <= 2e-5 * scale, "{name}: {worst} of {scale}");
        }
    }
}

#[test]
fn dropout_is_read_and_refused_in_training() {
    let lora = LoraConfig { dropout: 0.1, ..LoraConfig::new(2, 4.0) };
    let error = peft::begin(&lora, &neox(), &mut store(&neox()), &Streams::new(1)).unwrap_err().to_string();
    assert_eq!(error, "lora_dropout: 0.1 is not supported in training (expected 0)");
    let (folder, _) = folders(&neox(), LoraConfig::new(2, 4.0));
    let file = folder.path().join("adapter").join(peft::CONFIG);
    let mut json: Value = files::read_json(&file).unwrap();
    json["lora_dropout"] = json!(0.1);
    std::fs::write(&file, json.to_string()).unwrap();
    assert!(peft::open(&folder.path().join("adapter"), None, DType::F32, &Device::Cpu).is_ok());
}
