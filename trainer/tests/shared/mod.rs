//! Small models of every family, and rows to feed them.

use candle_core::{DType, Device};
use rebel_trainer::models::{
    DecoderConfig, Family,
    config::{Activation, Residual, Window},
    parameters,
};
use rebel_trainer::nn::{Rope, RopeScaling, Store, Streams};

/// A GPT-NeoX of odd widths.
pub fn config() -> DecoderConfig {
    // Nothing is a multiple of 8, and every component of a head is rotated.
    let neox = DecoderConfig::neox(37, 18, 2, 3, 64);
    DecoderConfig { rope: Rope { dims: 6, ..neox.rope }, init_std: 0.3, ..neox }
}

/// A decoder of each family: keys for three query heads and for all of them, heads wider than their share of the stream,
/// windows shorter than the rows, in all layers and in the last.
pub fn families() -> Vec<DecoderConfig> {
    let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 16 };
    let llama = DecoderConfig {
        family: Family::Llama,
        inner: 29,
        heads: 6,
        kv_heads: 2,
        head_dim: 6,
        rope: Rope { dims: 6, theta: 500_000.0, scaling },
        residual: Residual::Sequential,
        activation: Activation::Silu,
        eos: vec![0, 5],
        ..config()
    };
    let rope = Rope { scaling: RopeScaling::None, ..llama.rope };
    let mistral = DecoderConfig {
        family: Family::Mistral,
        kv_heads: 1,
        rope,
        window: Some(Window { tokens: 5, from_layer: 0 }),
        attention_bias: false,
        mlp_bias: false,
        ..llama.clone()
    };
    let qwen2 = DecoderConfig {
        family: Family::Qwen2,
        window: Some(Window { tokens: 4, from_layer: 1 }),
        attention_bias: true,
        tied_head: true,
        ..mistral.clone()
    };
    let qwen3 = DecoderConfig { family: Family::Qwen3, kv_heads: 6, window: None, ..mistral.clone() };
    vec![config(), llama, mistral, qwen2, qwen3]
}

pub fn store(config: &DecoderConfig) -> Store {
    parameters::initial(config, &Streams::new(3), DType::F32, &Device::Cpu).unwrap()
}

pub fn rows() -> Vec<Vec<u32>> {
    vec![(0..21).map(|i| i * 5 % 37).collect(), vec![7, 1, 30], (0..11).map(|i| (i * i) % 37).collect()]
}

/// The largest difference of two lists.
pub fn worst<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |m, (&x, &y)| f64::max(m, (x.into() - y.into()).abs()))
}
