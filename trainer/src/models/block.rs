//! One block of a decoder: attention and a feed-forward part, each behind a norm, joined to the residual stream.

use candle_core::Tensor;

use super::config::{Activation, DecoderConfig, Family, Residual};
use super::parameters::{self, GATE, KEY, KEY_NORM, QKV, QUERY, QUERY_NORM, VALUE};
use crate::Result;
use crate::nn::ops::attention::{Geometry, Tokens, attention, attention_cached};
use crate::nn::ops::gelu::gelu;
use crate::nn::ops::join::join;
use crate::nn::ops::sum::{sum2, sum3};
use crate::nn::ops::swiglu::swiglu;
use crate::nn::{LayerNorm, Linear, RmsNorm, Store};

/// A norm over the residual stream.
#[derive(Debug, Clone)]
pub(super) enum Norm {
    Layer(LayerNorm),
    Rms(RmsNorm),
}

impl Norm {
    /// The norm of the config's family with the parameters under `prefix`.
    pub fn new(config: &DecoderConfig, store: &Store, prefix: &str) -> Result<Self> {
        let (width, eps) = (config.width, config.norm_eps);
        Ok(match config.family {
            Family::NeoX => Self::Layer(LayerNorm::new(store, prefix, width, eps)?),
            _ => Self::Rms(RmsNorm::new(store, prefix, width, eps)?),
        })
    }

    /// `x`: `[.., width]`; gives the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Layer(norm) => norm.forward(x),
            Self::Rms(norm) => norm.forward(x),
        }
    }

    /// The same norm without gradients, on the same storage.
    pub fn detached(&self) -> Self {
        match self {
            Self::Layer(norm) => Self::Layer(norm.detached()),
            Self::Rms(norm) => Self::Rms(norm.detached()),
        }
    }
}

/// From the residual stream to queries, keys and values.
#[derive(Debug, Clone)]
enum Projection {
    /// One matrix whose rows are already packed.
    Packed(Linear),
    /// A matrix each, and norms of every head's query and key where there are any.
    Separate { query: Linear, key: Linear, value: Linear, norms: Option<(RmsNorm, RmsNorm)> },
}

impl Projection {
    fn new(config: &DecoderConfig, store: &Store, prefix: &str) -> Result<Self> {
        let DecoderConfig { family, width, heads, kv_heads, head_dim, attention_bias, norm_eps, .. } = *config;
        let name = |part: &str| format!("{prefix}.{part}");
        let linear =
            |part: &str, heads: usize| Linear::new(store, &name(part), width, heads * head_dim, attention_bias);
        if family == Family::NeoX {
            return Ok(Self::Packed(linear(QKV, heads + 2 * kv_heads)?));
        }
        let norm = |part: &str| RmsNorm::new(store, &name(part), head_dim, norm_eps);
        let norms = match family {
            Family::Qwen3 => Some((norm(QUERY_NORM)?, norm(KEY_NORM)?)),
            _ => None,
        };
        Ok(Self::Separate {
            query: linear(QUERY, heads)?,
            key: linear(KEY, kv_heads)?,
            value: linear(VALUE, kv_heads)?,
            norms,
        })
    }

    /// `x`: `[batch, time, width]`; gives the packed rows `[batch, time, (heads + 2 kv_heads) head_dim]`.
    fn forward(&self, x: &Tensor, head_dim: usize) -> Result<Tensor> {
        let (query, key, value, norms) = match self {
            Self::Packed(packed) => return packed.forward(x),
            Self::Separate { query, key, value, norms } => (query, key, value, norms),
        };
        let (mut q, mut k) = (query.forward(x)?, key.forward(x)?); // [batch, time, heads head_dim]
        if let Some((of_query, of_key)) = norms {
            let by_head = |x: &Tensor, norm: &RmsNorm| -> Result<Tensor> {
                let (batch, time, width) = x.dims3()?;
                let heads = norm.forward(&x.reshape((batch, time, width / head_dim, head_dim))?)?;
                Ok(heads.reshape((batch, time, width))?)
            };
            (q, k) = (by_head(&q, of_query)?, by_head(&k, of_key)?);
        }
        join(&q, &k, &value.forward(x)?)
    }

    fn detached(&self) -> Self {
        match self {
            Self::Packed(packed) => Self::Packed(packed.detached()),
            Self::Separate { query, key, value, norms } => Self::Separate {
                query: query.detached(),
                key: key.detached(),
                value: value.detached(),
                norms: norms.as_ref().map(|(q, k)| (q.detached(), k.detached())),
            },
        }
    }
}

/// The feed-forward part: `down(activation(up x))`, or with a gate `down(activation(gate x) up x)`.
#[derive(Debug, Clone)]
struct FeedForward {
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl FeedForward {
    fn new(config: &DecoderConfig, store: &Store, prefix: &str) -> Result<Self> {
        let DecoderConfig { family, width, inner, mlp_bias, activation, .. } = *config;
        let names = family.names();
        let linear = |part: &str, inputs: usize, outputs: usize| {
            Linear::new(store, &format!("{prefix}.{part}"), inputs, outputs, mlp_bias)
        };
        Ok(Self {
            gate: (family != Family::NeoX).then(|| linear(GATE, width, inner)).transpose()?,
            up: linear(names.up, width, inner)?,
            down: linear(names.down, inner, width)?,
            activation,
        })
    }

    /// `x`: `[.., width]`; gives the same shape.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let up = self.up.forward(x)?; // [.., inner]
        let inner = match &self.gate {
            None => activate(&up, self.activation)?,
            Some(gate) if self.activation == Activation::Silu => swiglu(&gate.forward(x)?, &up)?,
            Some(gate) => (activate(&gate.forward(x)?, self.activation)? * up)?,
        };
        self.down.forward(&inner)
    }

    fn detached(&self) -> Self {
        Self {
            gate: self.gate.as_ref().map(Linear::detached),
            up: self.up.detached(),
            down: self.down.detached(),
            activation: self.activation,
        }
    }
}

fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::Gelu => gelu(x)?,
        Activation::GeluTanh => x.gelu()?,
        Activation::Relu => x.relu()?,
        Activation::Silu => x.silu()?,
    })
}

/// A block of the decoder.
#[derive(Debug, Clone)]
pub(super) struct Block {
    attention_norm: Norm,
    projection: Projection,
    attention_out: Linear,
    mlp_norm: Norm,
    feed_forward: FeedForward,
    residual: Residual,
    geometry: Geometry,
}

impl Block {
    /// Block `layer` of the trunk under `prefix`. Fails naming the first parameter that is absent or of another shape.
    pub fn new(config: &DecoderConfig, store: &Store, prefix: &str, layer: usize) -> Result<Self> {
        let prefix = parameters::block(prefix, layer);
        let names = config.family.names();
        let name = |part: &str| format!("{prefix}.{part}");
        let heads = config.heads * config.head_dim;
        let bias = config.attention_out_bias();
        Ok(Self {
            attention_norm: Norm::new(config, store, &name(names.attention_norm))?,
            projection: Projection::new(config, store, &prefix)?,
            attention_out: Linear::new(store, &name(names.attention_out), heads, config.width, bias)?,
            mlp_norm: Norm::new(config, store, &name(names.mlp_norm))?,
            feed_forward: FeedForward::new(config, store, &prefix)?,
            residual: config.residual,
            geometry: config.geometry(layer),
        })
    }

    /// `x`: `[batch, time, width]`; gives the same shape. With the keys and values `kept` from earlier tokens the new ones
    /// are added to them, and attention carries no gradient.
    pub fn forward(&self, x: &Tensor, tokens: &Tokens, kept: Option<&(Tensor, Tensor)>) -> Result<Tensor> {
        let packed = self.projection.forward(&self.attention_norm.forward(x)?, self.geometry.head_dim)?;
        let context = match kept {
            Some((keys, values)) => attention_cached(&packed, self.geometry, tokens, keys, values)?,
            None => attention(&packed, self.geometry, tokens)?,
        };
        let attended = self.attention_out.forward(&context)?; // [batch, time, width]
        let fed = |x: &Tensor| self.feed_forward.forward(&self.mlp_norm.forward(x)?);
        match self.residual {
            Residual::Parallel => sum3(&fed(x)?, &attended, x),
            Residual::Sequential => {
                let h = sum2(&attended, x)?;
                sum2(&fed(&h)?, &h)
            }
        }
    }

    /// The same block without gradients, on the same storage.
    pub fn detached(&self) -> Self {
        Self {
            attention_norm: self.attention_norm.detached(),
            projection: self.projection.detached(),
            attention_out: self.attention_out.detached(),
            mlp_norm: self.mlp_norm.detached(),
            feed_forward: self.feed_forward.detached(),
            residual: self.residual,
            geometry: self.geometry,
        }
    }
}
