//! GPT-NeoX: what its files call the parts of a decoder, and what its `config.json` says.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value, json};

use super::config::{Activation, DecoderConfig, Residual};
use crate::nn::{Store, Streams, normal};
use crate::{Error, Result};

pub(super) const EMBEDDING: &str = "embed_in";
pub(super) const ATTENTION_NORM: &str = "input_layernorm";
pub(super) const MLP_NORM: &str = "post_attention_layernorm";
pub(super) const QKV: &str = "attention.query_key_value";
pub(super) const ATTENTION_OUT: &str = "attention.dense";
pub(super) const UP: &str = "mlp.dense_h_to_4h";
pub(super) const DOWN: &str = "mlp.dense_4h_to_h";
pub(super) const FINAL_NORM: &str = "final_layer_norm";

/// Name of the output head.
pub const HEAD: &str = "embed_out.weight";

/// Prefix of the trunk in a language model.
pub const TRUNK: &str = "gpt_neox";

/// Buffers that older files hold beside the parameters.
pub(super) fn is_legacy_buffer(name: &str) -> bool {
    ["attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq"]
        .iter()
        .any(|buffer| name.strip_suffix(buffer).is_some_and(|rest| rest.ends_with('.')))
}

/// Name and shape of every parameter: the trunk under `prefix`, and the head unless it is tied or not asked for.
pub fn parameters(config: &DecoderConfig, prefix: &str, head: bool) -> BTreeMap<String, Vec<usize>> {
    let DecoderConfig { vocab, width, inner, .. } = *config;
    let mut all = BTreeMap::new();
    let mut linear = |name: String, shape: [usize; 2], bias: bool| {
        if bias {
            all.insert(format!("{name}.bias"), vec![shape[0]]);
        }
        all.insert(format!("{name}.weight"), shape.to_vec());
    };
    for layer in 0..config.layers {
        let name = |part: &str| format!("{prefix}.layers.{layer}.{part}");
        linear(name(QKV), [3 * width, width], config.attention_bias);
        linear(name(ATTENTION_OUT), [width, width], config.attention_bias);
        linear(name(UP), [inner, width], true);
        linear(name(DOWN), [width, inner], true);
    }
    linear(format!("{prefix}.{EMBEDDING}"), [vocab, width], false);
    let mut norm = |name: String| {
        all.insert(format!("{name}.weight"), vec![width]);
        all.insert(format!("{name}.bias"), vec![width]);
    };
    for layer in 0..config.layers {
        norm(format!("{prefix}.layers.{layer}.{ATTENTION_NORM}"));
        norm(format!("{prefix}.layers.{layer}.{MLP_NORM}"));
    }
    norm(format!("{prefix}.{FINAL_NORM}"));
    if head && !config.tied_head {
        all.insert(HEAD.into(), vec![vocab, width]);
    }
    all
}

/// A store of fresh parameters: normal weights of standard deviation `init_std`, biases 0, norm gains 1.
pub fn initial(
    config: &DecoderConfig,
    prefix: &str,
    head: bool,
    streams: &Streams,
    dtype: DType,
    device: &Device,
) -> Result<Store> {
    let mut store = Store::new(dtype, device);
    for (name, shape) in parameters(config, prefix, head) {
        let tensor = match (shape.len(), name.ends_with(".bias")) {
            (1, true) => Tensor::zeros(shape, dtype, device)?,
            (1, false) => Tensor::ones(shape, dtype, device)?,
            _ => normal(streams, &name, &shape, config.init_std, dtype, device)?,
        };
        store.insert(name, &tensor)?;
    }
    Ok(store)
}

/// Reads a GPT-NeoX `config.json` (transformers 4 and 5); `file` is named in errors. Missing keys have transformers'
/// defaults, except for widths.
pub fn from_json(json: &Value, file: &Path) -> Result<DecoderConfig> {
    let read = Fields { json, file };
    match json["model_type"].as_str() {
        Some("gpt_neox") => {}
        Some(other) => {
            return Err(Error::field(file, "model_type", format!("{other} is not supported (expected gpt_neox)")));
        }
        None => return Err(Error::field(file, "model_type", "missing (expected gpt_neox)")),
    }
    let rope = &json["rope_parameters"];
    for rope in [rope, &json["rope_scaling"]] {
        let kind = rope.get("rope_type").or(rope.get("type")).and_then(Value::as_str).unwrap_or("default");
        if kind != "default" {
            return Err(Error::field(file, "rope_scaling", format!("{kind} is not supported (expected default)")));
        }
    }
    let (width, heads) = (read.width("hidden_size")?, read.width("num_attention_heads")?);
    let fraction = match rope.get("partial_rotary_factor") {
        Some(_) => read.number_in(rope, "partial_rotary_factor", 0.25)?,
        None => read.first_number(&["rotary_pct", "partial_rotary_factor"], 0.25)?,
    };
    if !(0.0..=1.0).contains(&fraction) {
        return Err(Error::field(file, "rotary_pct", format!("{fraction} (expected 0 to 1)")));
    }
    let theta = match rope.get("rope_theta") {
        Some(_) => read.number_in(rope, "rope_theta", 10_000.0)?,
        None => read.first_number(&["rotary_emb_base", "rope_theta"], 10_000.0)?,
    };
    let activation = match json["hidden_act"].as_str().unwrap_or("gelu") {
        "gelu" | "gelu_python" => Activation::Gelu,
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        "silu" | "swish" => Activation::Silu,
        other => {
            let what = format!("{other} is not supported (expected gelu, gelu_new, gelu_fast, relu or silu)");
            return Err(Error::field(file, "hidden_act", what));
        }
    };
    let config = DecoderConfig {
        vocab: read.width("vocab_size")?,
        width,
        inner: read.width("intermediate_size")?,
        layers: read.width("num_hidden_layers")?,
        heads,
        rotary_dims: ((width / heads) as f64 * fraction) as usize,
        theta,
        norm_eps: read.first_number(&["layer_norm_eps"], 1e-5)?,
        residual: if read.flag("use_parallel_residual", true)? { Residual::Parallel } else { Residual::Sequential },
        activation,
        attention_bias: read.flag("attention_bias", true)?,
        tied_head: read.flag("tie_word_embeddings", false)?,
        max_positions: match json.get("max_position_embeddings") {
            Some(_) => read.width("max_position_embeddings")?,
            None => 2048,
        },
        init_std: read.first_number(&["initializer_range"], 0.02)?,
        bos: read.token("bos_token_id"),
        eos: read.token("eos_token_id"),
    };
    config.check().map_err(|(field, what)| Error::field(file, field, what))?;
    Ok(config)
}

/// The `config.json` of a language model, with the keys both transformers 4 and 5 read.
pub fn to_json(config: &DecoderConfig) -> Value {
    let head = (config.width / config.heads) as f64;
    let fraction = config.rotary_dims as f64 / head;
    // Readers truncate `head * fraction`; a quotient rounded down would cost a component.
    let fraction = if ((head * fraction) as usize) < config.rotary_dims { fraction.next_up() } else { fraction };
    let activation = match config.activation {
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_new",
        Activation::Relu => "relu",
        Activation::Silu => "silu",
    };
    json!({
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "attention_bias": config.attention_bias,
        "attention_dropout": 0.0,
        "bos_token_id": config.bos,
        "eos_token_id": config.eos,
        "hidden_act": activation,
        "hidden_dropout": 0.0,
        "hidden_size": config.width,
        "initializer_range": config.init_std,
        "intermediate_size": config.inner,
        "layer_norm_eps": config.norm_eps,
        "max_position_embeddings": config.max_positions,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "rope_scaling": null,
        "rotary_emb_base": config.theta,
        "rotary_pct": fraction,
        "tie_word_embeddings": config.tied_head,
        "torch_dtype": "float32",
        "use_cache": true,
        "use_parallel_residual": config.residual == Residual::Parallel,
        "vocab_size": config.vocab,
    })
}

/// Fields of one json object, with errors that name file and field.
struct Fields<'a> {
    json: &'a Value,
    file: &'a Path,
}

impl Fields<'_> {
    fn width(&self, field: &str) -> Result<usize> {
        match self.json.get(field) {
            None => Err(Error::field(self.file, field, "missing (expected a width)")),
            Some(value) => match value.as_u64() {
                Some(n) if n > 0 => Ok(n as usize),
                _ => Err(Error::field(self.file, field, format!("{value} is not a width (expected at least 1)"))),
            },
        }
    }

    fn number_in(&self, object: &Value, field: &str, default: f64) -> Result<f64> {
        match object.get(field) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => {
                value.as_f64().ok_or_else(|| Error::field(self.file, field, format!("{value} (expected a number)")))
            }
        }
    }

    fn first_number(&self, fields: &[&str], default: f64) -> Result<f64> {
        match fields.iter().find(|f| self.json.get(**f).is_some_and(|v| !v.is_null())) {
            Some(field) => self.number_in(self.json, field, default),
            None => Ok(default),
        }
    }

    fn flag(&self, field: &str, default: bool) -> Result<bool> {
        match self.json.get(field) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| Error::field(self.file, field, format!("{value} (expected true or false)"))),
        }
    }

    fn token(&self, field: &str) -> Option<u32> {
        self.json.get(field).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok())
    }
}

/// The `generation_config.json` that goes with a config.
pub fn generation_json(config: &DecoderConfig) -> Value {
    let mut map = Map::new();
    map.insert("_from_model_config".into(), json!(true));
    map.insert("bos_token_id".into(), json!(config.bos));
    map.insert("eos_token_id".into(), json!(config.eos));
    Value::Object(map)
}
