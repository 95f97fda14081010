//! What GPT-NeoX's `config.json` says (transformers 4 and 5).

use serde_json::{Value, json};

use super::config::{Activation, DecoderConfig, Family, Residual};
use super::config_json::{RopeFields, activation, ends};
use super::json::Fields;
use crate::Result;

/// Reads what is GPT-NeoX's own and what it shares with the others.
pub(super) fn from_json(fields: &Fields) -> Result<DecoderConfig> {
    let (width, heads) = (fields.needed_width("hidden_size")?, fields.needed_width("num_attention_heads")?);
    let head_dim = (width / heads).max(1); // where it is no divisor, the check says so
    let rope = RopeFields::read(fields, &["rotary_emb_base", "rope_theta"], &["rotary_pct", "partial_rotary_factor"])?;
    let fraction = rope.fraction.unwrap_or(0.25);
    if !(0.0..=1.0).contains(&fraction) {
        return Err(fields.fault("rotary_pct", format!("{fraction} (expected 0 to 1)")));
    }
    let (bos, eos) = ends(fields, Some((0, 0)))?;
    Ok(DecoderConfig {
        family: Family::NeoX,
        vocab: fields.needed_width("vocab_size")?,
        width,
        inner: fields.needed_width("intermediate_size")?,
        layers: fields.needed_width("num_hidden_layers")?,
        heads,
        kv_heads: heads,
        head_dim,
        rope: rope.rope((head_dim as f64 * fraction) as usize, 10_000.0),
        window: None,
        norm_eps: fields.number("layer_norm_eps")?.unwrap_or(1e-5),
        residual: match fields.flag("use_parallel_residual")? {
            Some(false) => Residual::Sequential,
            _ => Residual::Parallel,
        },
        activation: activation(fields, Activation::Gelu)?,
        attention_bias: fields.flag("attention_bias")?.unwrap_or(true),
        mlp_bias: true,
        tied_head: fields.flag("tie_word_embeddings")?.unwrap_or(false),
        max_positions: fields.width("max_position_embeddings")?.unwrap_or(2048),
        init_std: fields.number("initializer_range")?.unwrap_or(0.02),
        bos,
        eos,
    })
}

/// The fields that are GPT-NeoX's own.
pub(super) fn to_json(config: &DecoderConfig) -> Value {
    let head = config.head_dim as f64;
    let fraction = config.rope.dims as f64 / head;
    // Readers truncate `head * fraction`; a quotient rounded down would cost a component.
    let fraction = if ((head * fraction) as usize) < config.rope.dims { fraction.next_up() } else { fraction };
    json!({
        "architectures": ["GPTNeoXForCausalLM"],
        "attention_bias": config.attention_bias,
        "hidden_dropout": 0.0,
        "rotary_emb_base": config.rope.theta,
        "rotary_pct": fraction,
        "use_parallel_residual": config.residual == Residual::Parallel,
    })
}
