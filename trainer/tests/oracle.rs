//! The decoder against an independent one: candle-transformers' models on the same `config.json` and the same random
//! parameters must give the same logits. Sizes are odd throughout: vocabularies that 8 does not divide, one key head,
//! heads wider than their share of the stream, windows shorter than the text.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, mistral, phi, qwen2, qwen3};
use rebel_trainer::models::{DecoderConfig, TokenBatch, hf, parameters::parameters};
use rebel_trainer::nn::{Store, Streams, normal};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Logits are below 20 in size; both sides round in f32.
const TOLERANCE: f32 = 5e-5;

/// What every config here has.
fn base(model_type: &str) -> Value {
    json!({
        "model_type": model_type,
        "hidden_size": 20,
        "intermediate_size": 27,
        "num_hidden_layers": 3,
        "num_attention_heads": 5,
        "num_key_value_heads": 1,
        "vocab_size": 43,
        "max_position_embeddings": 128,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": false,
        "attention_bias": false,
        "sliding_window": 100,
        "use_sliding_window": false,
        "max_window_layers": 3,
    })
}

fn with(mut json: Value, edit: Value) -> Value {
    json.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
    json
}

/// Our reading of the config, and parameters of which none is 0 or 1.
fn ours(json: &Value) -> (DecoderConfig, Store) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), json.to_string()).unwrap();
    let config = hf::config(folder.path()).unwrap();
    let tensors = parameters(&config, config.family.names().trunk, true).into_iter().map(|(name, shape)| {
        let x = normal(&Streams::new(5), &name, &shape, 0.3, DType::F32, &Device::Cpu).unwrap();
        let gain = shape.len() == 1 && !name.ends_with("bias");
        let x = if gain { (x + 1.0).unwrap() } else { x };
        (name, x)
    });
    let store = Store::load(tensors.collect::<Vec<_>>(), DType::F32, &Device::Cpu).unwrap();
    (config, store)
}

fn theirs<C: DeserializeOwned>(json: &Value) -> C {
    serde_json::from_value(json.clone()).unwrap()
}

fn variables(store: &Store) -> VarBuilder<'static> {
    let tensors: HashMap<String, Tensor> = store.to_tensors().into_iter().collect();
    VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
}

/// Holds our logits at every token of a text, among left-padded neighbours, against those the oracle gives for the text up
/// to there.
fn agree(config: &DecoderConfig, store: &Store, mut last_logits: impl FnMut(&Tensor) -> candle_core::Result<Tensor>) {
    let text: Vec<u32> = (0..31).map(|i| (i * i + 3 * i) % config.vocab as u32).collect();
    let tokens = TokenBatch::left_padded(&[vec![1, 2, 3], text.clone(), vec![7; 40]], 0).unwrap();
    let model = hf::decoder(config, store).unwrap().detached();
    let logits = model.logits(&model.hidden(&tokens, None).unwrap()).unwrap().get(1).unwrap(); // [40, vocab]
    let rows = logits.to_vec2::<f32>().unwrap();
    for n in 1..=text.len() {
        let upto = Tensor::new(&text[..n], &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let want = last_logits(&upto).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let got = &rows[40 - text.len() + n - 1];
        assert_eq!(got.len(), want.len());
        let worst = got.iter().zip(&want).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst < TOLERANCE, "{:?}: off by {worst} after {n} tokens", config.family);
    }
}

/// Holds our decoder of `$json` against an oracle that keeps its cache inside, of `$their_json`.
macro_rules! agree_with {
    ($model:ty, $json:expr, $their_json:expr) => {
        let (config, store) = ours(&$json);
        let mut model = <$model>::new(&theirs(&$their_json), variables(&store)).unwrap();
        agree(&config, &store, |text| {
            model.clear_kv_cache();
            model.forward(text, 0)
        });
    };
}

/// Holds our decoder of `json` against candle-transformers' Llama; gives our reading of it.
fn agree_with_llama(json: &Value) -> DecoderConfig {
    let (config, store) = ours(json);
    let their_config = theirs::<llama::LlamaConfig>(json).into_config(false);
    let model = llama::Llama::load(variables(&store), &their_config).unwrap();
    agree(&config, &store, |text| {
        let mut cache = llama::Cache::new(false, DType::F32, &their_config, &Device::Cpu)?;
        model.forward(text, 0, &mut cache)
    });
    config
}

#[test]
fn llama_with_one_key_head_is_the_oracles() {
    for (tied, kv_heads) in [(false, 1), (true, 5)] {
        let edit = json!({"tie_word_embeddings": tied, "num_key_value_heads": kv_heads});
        agree_with_llama(&with(base("llama"), edit));
    }
}

#[test]
fn llama_3_scaling_is_the_oracles_where_every_kind_of_wave_occurs() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64});
    // Heads of 12: waves of 6, 28, 131, ... positions; slow above 64, fast below 16.
    let sizes = json!({"hidden_size": 60, "rope_theta": 10000.0});
    let json = with(with(base("llama"), sizes), json!({"rope_scaling": scaling}));
    let config = agree_with_llama(&json);
    // transformers 5 writes the same under another name, with the base inside.
    let mut newer = json.clone();
    newer.as_object_mut().unwrap().remove("rope_theta");
    newer["rope_parameters"] = with(newer["rope_scaling"].take(), json!({"rope_theta": 10000.0}));
    assert_eq!(ours(&newer).0, config);
}

#[test]
fn mistral_with_a_short_window_and_wide_heads_is_the_oracles() {
    // The oracle's window counts the tokens before the own one, the library's with it.
    for window in [1, 6, 16, 30] {
        let json = with(base("mistral"), json!({"head_dim": 14, "sliding_window": window}));
        let their_json = with(json.clone(), json!({"sliding_window": window - 1}));
        agree_with!(mistral::Model, json, their_json);
    }
}

#[test]
fn qwen_2_is_the_oracles() {
    for (tied, kv_heads) in [(false, 1), (true, 5)] {
        let edit = json!({"tie_word_embeddings": tied, "num_key_value_heads": kv_heads});
        let json = with(base("qwen2"), edit);
        agree_with!(qwen2::ModelForCausalLM, json, json);
    }
}

#[test]
fn qwen_2_with_a_window_in_every_layer_is_the_oracles() {
    let edit = json!({"use_sliding_window": true, "sliding_window": 7, "max_window_layers": 0});
    let json = with(base("qwen2"), edit);
    let their_json = with(json.clone(), json!({"sliding_window": 6}));
    agree_with!(qwen2::ModelForCausalLM, json, their_json);
}

#[test]
fn qwen_3_with_wide_heads_is_the_oracles() {
    for (bias, kv_heads) in [(false, 1), (true, 5)] {
        let edit = json!({"head_dim": 14, "attention_bias": bias, "num_key_value_heads": kv_heads});
        let json = with(base("qwen3"), edit);
        agree_with!(qwen3::ModelForCausalLM, json, json);
    }
}

/// GPT-NeoX's parameters under the names of Phi, which is GPT-NeoX with one norm for both branches, separate projections
/// and a bias on the head.
fn as_phi(config: &DecoderConfig, store: &Store) -> HashMap<String, Tensor> {
    let all = store.to_tensors();
    let mut phi = HashMap::new();
    for (name, tensor) in &all {
        let name = name.replace("gpt_neox.", "model.").replace("embed_in", "embed_tokens");
        let name = name.replace("final_layer_norm", "final_layernorm").replace("embed_out", "lm_head");
        let name = name.replace("mlp.dense_h_to_4h", "mlp.fc1").replace("mlp.dense_4h_to_h", "mlp.fc2");
        let name = name.replace("attention.", "self_attn.");
        match name.strip_suffix(".weight").or(name.strip_suffix(".bias")).unwrap().strip_suffix("query_key_value") {
            None => drop(phi.insert(name, tensor.clone())),
            Some(_) => {
                let rest = tensor.dims()[1..].to_vec();
                let by_head = tensor.reshape([vec![config.heads, 3, config.head_dim], rest.clone()].concat()).unwrap();
                for (i, part) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
                    let shape = [vec![config.width], rest.clone()].concat();
                    let part_of = by_head.narrow(1, i, 1).unwrap().contiguous().unwrap().reshape(shape).unwrap();
                    phi.insert(name.replace("query_key_value", part), part_of);
                }
            }
        }
    }
    let bias = Tensor::zeros(config.vocab, DType::F32, &Device::Cpu).unwrap();
    phi.insert("lm_head.bias".into(), bias);
    phi
}

#[test]
fn neox_with_whole_and_partly_rotated_heads_is_phi_with_equal_norms() {
    for (fraction, activation) in [(1.0, "gelu"), (0.5, "gelu_new"), (0.25, "relu")] {
        let json = json!({
            "model_type": "gpt_neox", "hidden_size": 40, "intermediate_size": 27, "num_hidden_layers": 3,
            "num_attention_heads": 5, "vocab_size": 43, "max_position_embeddings": 128, "hidden_act": activation,
            "layer_norm_eps": 1e-5, "rotary_emb_base": 10000, "rotary_pct": fraction, "tie_word_embeddings": false,
        });
        let (config, store) = ours(&json);
        let mut equal = store.to_tensors();
        for name in store.names().filter(|name| name.contains("post_attention_layernorm")) {
            equal.insert(name.into(), equal[&name.replace("post_attention", "input")].copy().unwrap());
        }
        store.set(&equal).unwrap();
        let their_json = with(
            json,
            json!({"rope_theta": 10000.0, "partial_rotary_factor": fraction, "qk_layernorm": false,
                "num_key_value_heads": null}),
        );
        let builder = VarBuilder::from_tensors(as_phi(&config, &store), DType::F32, &Device::Cpu);
        let mut model = phi::Model::new(&theirs(&their_json), builder).unwrap();
        agree(&config, &store, |text| {
            model.clear_kv_cache();
            model.forward(text)
        });
    }
}
