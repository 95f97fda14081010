//! What the `config.json` of Llama and of the families built like it says: Mistral, Qwen 2, Qwen 3 (transformers 4 and 5).

use serde_json::{Value, json};

use super::config::{Activation, DecoderConfig, Family, Residual, Window};
use super::config_json::{RopeFields, activation, ends};
use super::json::Fields;
use crate::Result;

/// What transformers assumes where the file is silent.
struct Defaults {
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    max_positions: usize,
    ends: Option<(u32, u32)>,
}

fn defaults(family: Family) -> Defaults {
    match family {
        Family::Mistral => Defaults { kv_heads: Some(8), head_dim: None, max_positions: 32 * 4096, ends: Some((1, 2)) },
        Family::Qwen2 => Defaults { kv_heads: Some(32), head_dim: None, max_positions: 32_768, ends: None },
        Family::Qwen3 => Defaults { kv_heads: Some(32), head_dim: Some(128), max_positions: 32_768, ends: None },
        Family::NeoX | Family::Llama => {
            Defaults { kv_heads: None, head_dim: None, max_positions: 2048, ends: Some((1, 2)) }
        }
    }
}

/// Reads what is the family's own and what it shares with the others.
pub(super) fn from_json(fields: &Fields, family: Family) -> Result<DecoderConfig> {
    let defaults = defaults(family);
    let (width, heads) = (fields.needed_width("hidden_size")?, fields.needed_width("num_attention_heads")?);
    let kv_heads = match fields.width("num_key_value_heads")? {
        Some(kv_heads) => kv_heads,
        // A null means as many as queries, in every family.
        None if fields.has("num_key_value_heads") => heads,
        None => defaults.kv_heads.unwrap_or(heads),
    };
    let explicit = fields.width("head_dim")?;
    let head_dim = match explicit.or(defaults.head_dim.filter(|_| !fields.has("head_dim"))) {
        Some(head_dim) => head_dim,
        None if width.is_multiple_of(heads) => width / heads,
        None => {
            let what = format!("{heads} does not divide hidden_size {width} (expected a divisor, or a head_dim)");
            return Err(fields.fault("num_attention_heads", what));
        }
    };
    let rope = RopeFields::read(fields, &["rope_theta"], &["partial_rotary_factor"])?;
    if let Some(share) = rope.fraction.filter(|&share| share != 1.0) {
        return Err(fields.fault("partial_rotary_factor", format!("{share} is not supported (expected 1)")));
    }
    let layers = fields.needed_width("num_hidden_layers")?;
    let (bos, eos) = ends(fields, defaults.ends)?;
    let flag = |name: &str| -> Result<bool> { Ok(fields.flag(name)?.unwrap_or(false)) };
    Ok(DecoderConfig {
        family,
        vocab: fields.needed_width("vocab_size")?,
        width,
        inner: fields.needed_width("intermediate_size")?,
        layers,
        heads,
        kv_heads,
        head_dim,
        rope: rope.rope(head_dim, 10_000.0),
        window: window(fields, family, layers)?,
        norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6),
        residual: Residual::Sequential,
        activation: activation(fields, Activation::Silu)?,
        attention_bias: match family {
            Family::Mistral => false,
            Family::Qwen2 => true,
            _ => flag("attention_bias")?,
        },
        mlp_bias: match family {
            Family::Llama => flag("mlp_bias")?,
            _ => false,
        },
        tied_head: flag("tie_word_embeddings")?,
        max_positions: fields.width("max_position_embeddings")?.unwrap_or(defaults.max_positions),
        init_std: fields.number("initializer_range")?.unwrap_or(0.02),
        bos,
        eos,
    })
}

/// The sliding window: Mistral has it in every layer unless it is null; Qwen only where it is turned on, from
/// `max_window_layers` on or where `layer_types` says so.
fn window(fields: &Fields, family: Family, layers: usize) -> Result<Option<Window>> {
    const TOKENS: usize = 4096;
    let tokens = fields.width("sliding_window")?;
    match family {
        Family::NeoX | Family::Llama => Ok(None),
        Family::Mistral => {
            let tokens = if fields.has("sliding_window") { tokens } else { Some(TOKENS) };
            Ok(tokens.map(|tokens| Window { tokens, from_layer: 0 }))
        }
        Family::Qwen2 | Family::Qwen3 => {
            let (on, first) = (fields.flag("use_sliding_window")?, fields.count("max_window_layers")?.unwrap_or(28));
            let from_layer = from_layer(fields, layers)?.unwrap_or(first);
            let tokens = if fields.has("sliding_window") { tokens } else { Some(TOKENS) };
            let tokens = tokens.filter(|_| on == Some(true) && from_layer < layers);
            Ok(tokens.map(|tokens| Window { tokens, from_layer }))
        }
    }
}

/// The first windowed layer by `layer_types`, the number of layers when there is none.
fn from_layer(fields: &Fields, layers: usize) -> Result<Option<usize>> {
    const NAME: &str = "layer_types";
    let Some(types) = fields.texts(NAME)? else { return Ok(None) };
    if types.len() != layers {
        return Err(fields.fault(NAME, format!("{} types for {layers} layers", types.len())));
    }
    let first = types.iter().position(|&kind| kind != "full_attention").unwrap_or(layers);
    match types[first..].iter().position(|&kind| kind != "sliding_attention") {
        None => Ok(Some(first)),
        Some(at) => {
            let what = "is not supported (expected full_attention, then sliding_attention)";
            Err(fields.fault(format!("{NAME}[{}]", first + at).as_str(), format!("{:?} {what}", types[first + at])))
        }
    }
}

/// The fields that are the family's own.
pub(super) fn to_json(config: &DecoderConfig) -> Value {
    let architecture = match config.family {
        Family::NeoX | Family::Llama => "LlamaForCausalLM",
        Family::Mistral => "MistralForCausalLM",
        Family::Qwen2 => "Qwen2ForCausalLM",
        Family::Qwen3 => "Qwen3ForCausalLM",
    };
    let mut map = json!({
        "architectures": [architecture],
        "head_dim": config.head_dim,
        "num_key_value_heads": config.kv_heads,
        "rope_theta": config.rope.theta,
    });
    let tokens = config.window.map(|window| window.tokens);
    match config.family {
        Family::NeoX | Family::Llama => {
            map["attention_bias"] = json!(config.attention_bias);
            map["mlp_bias"] = json!(config.mlp_bias);
        }
        Family::Mistral => map["sliding_window"] = json!(tokens),
        Family::Qwen2 | Family::Qwen3 => {
            map["use_sliding_window"] = json!(tokens.is_some());
            // A number even where the window is off, as the published files have it: some readers insist on one.
            map["sliding_window"] = json!(tokens.unwrap_or(config.max_positions));
            map["max_window_layers"] = json!(config.window.map_or(config.layers, |window| window.from_layer));
        }
    }
    if config.family == Family::Qwen3 {
        map["attention_bias"] = json!(config.attention_bias);
    }
    map
}
