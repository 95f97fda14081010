//! Training a part of a model: adapters as files, which parameters get a gradient, recomputed blocks, the reference.

mod damage;
mod files;
#[path = "../shared/odd.rs"]
mod odd;
mod training;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use rebel_trainer::models::peft::{self, LoraConfig, Modules};
use rebel_trainer::models::{DecoderConfig, Family, TokenBatch, Trained, hf, parameters};
use rebel_trainer::nn::{Rope, Store, Streams, normal};
use tempfile::TempDir;

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

fn logits(config: &DecoderConfig, store: &Store) -> Vec<f32> {
    let model = hf::decoder(config, store).unwrap().detached();
    values(&model.logits(&model.hidden(&tokens(), None).unwrap()).unwrap())
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
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

/// A base and an adapter beside it, `base/` and `adapter/` of a folder.
fn folders(config: &DecoderConfig, lora: LoraConfig) -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(config);
    hf::save(&folder.path().join("base"), config, &store).unwrap();
    let lora = LoraConfig { base: Some("../base".into()), ..lora };
    peft::begin(&lora, config, &mut store, &Streams::new(4)).unwrap();
    unsettle(&store);
    peft::save(&folder.path().join("adapter"), &lora, &store).unwrap();
    (folder, store)
}

/// The error of `adapter/` in a folder: one line.
fn error_at(folder: &Path) -> String {
    let base = folder.join("base");
    let error = peft::open(&folder.join("adapter"), Some(&base), DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}
