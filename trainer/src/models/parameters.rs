//! What the files of each family call a decoder's parameters, which shapes these have, and fresh ones.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::config::{DecoderConfig, Family};
use crate::Result;
use crate::nn::{Store, Streams, normal};

/// The parts every family has: the trunk's names inside a block or beside the blocks, without `.weight`.
#[derive(Debug)]
pub struct Names {
    /// Prefix of the trunk in a language model.
    pub trunk: &'static str,
    /// Name of the output head's weight.
    pub head: &'static str,
    pub(super) embedding: &'static str,
    pub(super) final_norm: &'static str,
    pub(super) attention_norm: &'static str,
    pub(super) mlp_norm: &'static str,
    pub(super) attention_out: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
}

pub(super) static NEOX: Names = Names {
    trunk: "gpt_neox",
    head: "embed_out.weight",
    embedding: "embed_in",
    final_norm: "final_layer_norm",
    attention_norm: "input_layernorm",
    mlp_norm: "post_attention_layernorm",
    attention_out: "attention.dense",
    up: "mlp.dense_h_to_4h",
    down: "mlp.dense_4h_to_h",
};

pub(super) static LLAMA: Names = Names {
    trunk: "model",
    head: "lm_head.weight",
    embedding: "embed_tokens",
    final_norm: "norm",
    attention_norm: "input_layernorm",
    mlp_norm: "post_attention_layernorm",
    attention_out: "self_attn.o_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
};

/// Queries, keys and values of GPT-NeoX.
pub(super) const QKV: &str = "attention.query_key_value";
/// Queries, keys and values of the others.
pub(super) const QUERY: &str = "self_attn.q_proj";
pub(super) const KEY: &str = "self_attn.k_proj";
pub(super) const VALUE: &str = "self_attn.v_proj";
/// Norms of queries and keys (Qwen 3).
pub(super) const QUERY_NORM: &str = "self_attn.q_norm";
pub(super) const KEY_NORM: &str = "self_attn.k_norm";
/// The gate of a feed-forward part that has one.
pub(super) const GATE: &str = "mlp.gate_proj";

/// Prefix of block `layer` of the trunk under `prefix`.
pub(super) fn block(prefix: &str, layer: usize) -> String {
    format!("{prefix}.layers.{layer}")
}

/// Whether older files hold a buffer of this name beside the parameters.
pub(super) fn is_legacy_buffer(name: &str) -> bool {
    let ends_with = |buffer: &str| name.strip_suffix(buffer).is_some_and(|rest| rest.ends_with('.'));
    ["attention.bias", "attention.masked_bias", "rotary_emb.inv_freq"].into_iter().any(ends_with)
}

/// Name and shape of every parameter: the trunk under `prefix`, and the head unless it is tied or not asked for.
pub fn parameters(config: &DecoderConfig, prefix: &str, head: bool) -> BTreeMap<String, Vec<usize>> {
    let DecoderConfig { family, vocab, width, inner, head_dim, attention_bias, mlp_bias, .. } = *config;
    let (queries, keys) = (config.heads * head_dim, config.kv_heads * head_dim);
    let names = family.names();
    let mut all = BTreeMap::new();
    let mut linear = |name: String, shape: [usize; 2], bias: bool| {
        if bias {
            all.insert(format!("{name}.bias"), vec![shape[0]]);
        }
        all.insert(format!("{name}.weight"), shape.to_vec());
    };
    for layer in 0..config.layers {
        let name = |part: &str| format!("{}.{part}", block(prefix, layer));
        if family == Family::NeoX {
            linear(name(QKV), [queries + 2 * keys, width], attention_bias);
        } else {
            linear(name(QUERY), [queries, width], attention_bias);
            linear(name(KEY), [keys, width], attention_bias);
            linear(name(VALUE), [keys, width], attention_bias);
            linear(name(GATE), [inner, width], mlp_bias);
        }
        linear(name(names.attention_out), [width, queries], config.attention_out_bias());
        linear(name(names.up), [inner, width], mlp_bias);
        linear(name(names.down), [width, inner], mlp_bias);
    }
    linear(format!("{prefix}.{}", names.embedding), [vocab, width], false);
    let mut norm = |name: String, width: usize| {
        if family == Family::NeoX {
            all.insert(format!("{name}.bias"), vec![width]);
        }
        all.insert(format!("{name}.weight"), vec![width]);
    };
    for layer in 0..config.layers {
        let name = |part: &str| format!("{}.{part}", block(prefix, layer));
        norm(name(names.attention_norm), width);
        norm(name(names.mlp_norm), width);
        if family == Family::Qwen3 {
            norm(name(QUERY_NORM), head_dim);
            norm(name(KEY_NORM), head_dim);
        }
    }
    norm(format!("{prefix}.{}", names.final_norm), width);
    if head && !config.tied_head {
        all.insert(names.head.into(), vec![vocab, width]);
    }
    all
}

/// The parameters of a fresh language model: normal weights of standard deviation `init_std`, biases 0, norm gains 1.
pub fn initial(config: &DecoderConfig, streams: &Streams, dtype: DType, device: &Device) -> Result<Store> {
    let mut store = Store::new(dtype, device);
    for (name, shape) in parameters(config, config.family.names().trunk, true) {
        let tensor = match (shape.len(), name.ends_with(".bias")) {
            (1, true) => Tensor::zeros(shape, dtype, device)?,
            (1, false) => Tensor::ones(shape, dtype, device)?,
            _ => normal(streams, &name, &shape, config.init_std, dtype, device)?,
        };
        store.insert(name, &tensor)?;
    }
    Ok(store)
}
