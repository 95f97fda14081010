//! What a `config.json` says, whichever the family: its model type, its rotary positions in the spellings of transformers
//! 4 and 5, and the settings all families share.

use serde_json::{Map, Value, json};

use super::config::{Activation, DecoderConfig, Family};
use super::json::{Fields, one_line};
use super::{llama, neox};
use crate::Result;
use crate::nn::{Rope, RopeScaling};

/// Reads the config of a decoder. Missing fields have transformers' defaults, except for widths.
///
/// # Errors
/// Naming file and field: a model type that is not known, a value of the wrong type or out of range, and every setting that
/// would change the arithmetic in a way that is not supported.
pub(super) fn from_json(fields: Fields) -> Result<DecoderConfig> {
    let known = || {
        let names = Family::ALL.map(Family::model_type);
        let (last, others) = names.split_last().expect("there are families");
        format!("expected {} or {last}", others.join(", "))
    };
    let model_type =
        fields.text("model_type")?.ok_or_else(|| fields.fault("model_type", format!("missing ({})", known())))?;
    let family = Family::ALL.into_iter().find(|family| family.model_type() == model_type).ok_or_else(|| {
        fields.fault("model_type", format!("{} is not supported ({})", one_line(model_type), known()))
    })?;
    if fields.get("quantization_config").is_some() {
        return Err(fields.fault("quantization_config", "quantized weights are not supported (expected floats)"));
    }
    for name in ["torch_dtype", "dtype"] {
        match fields.text(name)? {
            None | Some("float64" | "float32" | "float16" | "bfloat16" | "auto") => {}
            Some(other) => {
                let what = format!("{} is not supported (expected float32, float16 or bfloat16)", one_line(other));
                return Err(fields.fault(name, what));
            }
        }
    }
    let config = match family {
        Family::NeoX => neox::from_json(&fields)?,
        _ => llama::from_json(&fields, family)?,
    };
    config.check().map_err(|(field, what)| fields.fault(field, what))?;
    Ok(config)
}

/// The `config.json` of a language model, with the keys that transformers 4 and 5 both read.
pub(super) fn to_json(config: &DecoderConfig) -> Value {
    let mut map = match config.family {
        Family::NeoX => neox::to_json(config),
        _ => llama::to_json(config),
    };
    let eos = match config.eos.as_slice() {
        [] => Value::Null,
        [one] => json!(one),
        several => json!(several),
    };
    let shared = json!({
        "model_type": config.family.model_type(),
        "attention_dropout": 0.0,
        "bos_token_id": config.bos,
        "eos_token_id": eos,
        "hidden_act": activation_name(config.activation),
        "hidden_size": config.width,
        "initializer_range": config.init_std,
        "intermediate_size": config.inner,
        "max_position_embeddings": config.max_positions,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "rope_scaling": scaling_json(config.rope.scaling),
        "tie_word_embeddings": config.tied_head,
        "torch_dtype": "float32",
        "use_cache": true,
        "vocab_size": config.vocab,
    });
    map[config.eps_field()] = json!(config.norm_eps);
    if let (Value::Object(map), Value::Object(shared)) = (&mut map, shared) {
        map.extend(shared);
        map.sort_keys();
    }
    map
}

/// The `generation_config.json` that goes with a `config.json`.
pub(super) fn generation_json(config: &Value) -> Value {
    let mut map = Map::new();
    map.insert("_from_model_config".into(), json!(true));
    for name in ["bos_token_id", "eos_token_id"] {
        map.insert(name.into(), config[name].clone());
    }
    Value::Object(map)
}

/// Rotary positions as written, before the head's width is known.
pub(super) struct RopeFields {
    /// Base of the frequencies.
    pub theta: Option<f64>,
    /// Share of a head that is rotated.
    pub fraction: Option<f64>,
    scaling: RopeScaling,
}

impl RopeFields {
    /// Reads `rope_scaling` (transformers 4) or, without it, `rope_parameters` (5); base and share are looked for there
    /// first, then under the given names beside them.
    pub fn read(fields: &Fields, theta: &[&str], fraction: &[&str]) -> Result<Self> {
        let old = fields.object("rope_scaling", "rope_scaling.")?;
        let new = fields.object("rope_parameters", "rope_parameters.")?;
        let number = |name: &str, beside: &[&str]| -> Result<Option<f64>> {
            for object in [old, new].into_iter().flatten() {
                if let Some(value) = object.number(name)? {
                    return Ok(Some(value));
                }
            }
            fields.first_number(beside)
        };
        Ok(Self {
            theta: number("rope_theta", theta)?,
            fraction: number("partial_rotary_factor", fraction)?,
            scaling: old.or(new).map_or(Ok(RopeScaling::None), |object| scaling(&object))?,
        })
    }

    /// `dims` components turn; without a base of its own it is `theta`.
    pub fn rope(&self, dims: usize, theta: f64) -> Rope {
        Rope { dims, theta: self.theta.unwrap_or(theta), scaling: self.scaling }
    }
}

fn scaling(fields: &Fields) -> Result<RopeScaling> {
    let name = if fields.get("rope_type").is_some() { "rope_type" } else { "type" };
    // transformers 5 nests an object for each kind of layer where they differ.
    if let Some(kind) = fields.map.keys().find(|key| key.ends_with("_attention")) {
        return Err(fields.fault(kind, "positions by kind of layer are not supported (expected rope_theta)"));
    }
    let needed = |name: &str| fields.number(name)?.ok_or_else(|| fields.fault(name, "missing (expected a number)"));
    match fields.text(name)? {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: needed("factor")? }),
        Some("llama3") => Ok(RopeScaling::Llama3 {
            factor: needed("factor")?,
            low: needed("low_freq_factor")?,
            high: needed("high_freq_factor")?,
            original: fields.needed_width("original_max_position_embeddings")?,
        }),
        Some(other) => {
            let what = format!("{} is not supported (expected default, linear or llama3)", one_line(other));
            Err(fields.fault(name, what))
        }
    }
}

fn scaling_json(scaling: RopeScaling) -> Value {
    match scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 { factor, low, high, original } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }),
    }
}

/// The field `hidden_act`.
pub(super) fn activation(fields: &Fields, default: Activation) -> Result<Activation> {
    Ok(match fields.text("hidden_act")? {
        None => default,
        Some("gelu" | "gelu_python") => Activation::Gelu,
        Some("gelu_new" | "gelu_fast" | "gelu_pytorch_tanh") => Activation::GeluTanh,
        Some("relu") => Activation::Relu,
        Some("silu" | "swish") => Activation::Silu,
        Some(other) => {
            let what =
                format!("{} is not supported (expected gelu, gelu_new, gelu_fast, relu or silu)", one_line(other));
            return Err(fields.fault("hidden_act", what));
        }
    })
}

fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_new",
        Activation::Relu => "relu",
        Activation::Silu => "silu",
    }
}

/// The tokens that begin and end a text: `default` where nothing is said, none where the field is null.
pub(super) fn ends(fields: &Fields, default: Option<(u32, u32)>) -> Result<(Option<u32>, Vec<u32>)> {
    let bos = match fields.has("bos_token_id") {
        true => fields.token("bos_token_id")?,
        false => default.map(|(bos, _)| bos),
    };
    let eos = match fields.has("eos_token_id") {
        true => fields.tokens("eos_token_id")?,
        false => default.map(|(_, eos)| vec![eos]),
    };
    Ok((bos, eos.unwrap_or_default()))
}
