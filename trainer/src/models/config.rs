//! The shape of a decoder: what distinguishes one transformer from another, as one value.

/// A decoder-only transformer. Fields are checked where a file is read ([`super::hf`]); nothing re-checks them.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Rows of the embedding.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; as many as `heads` unless queries share them.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width inside the feed-forward network.
    pub intermediate: usize,
    /// Positions the model was made for.
    pub context: usize,
    /// Rotary position embedding.
    pub rotary: Rotary,
    /// Normalisation before attention, feed-forward network and head.
    pub norm: Norm,
    /// Nonlinearity of the feed-forward network.
    pub activation: Activation,
    /// How attention and feed-forward network join the residual stream.
    pub residual: Residual,
    /// Whether attention's linear maps have biases.
    pub attention_bias: bool,
    /// Whether the head is the embedding.
    pub tied_head: bool,
}

/// Rotary position embedding of the first `dims` entries of each head (halves rotated against each other).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotary {
    /// Rotated entries of a head, even.
    pub dims: usize,
    /// Base of the geometric sequence of wavelengths.
    pub base: f64,
}

/// Normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// Mean and variance, weight and bias.
    Layer { eps: f64 },
}

/// Nonlinearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x Phi(x)`, by the error function.
    Gelu,
    /// Its approximation by tanh.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

/// Residual connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// Attention and feed-forward network read the same input, each through its own norm; both are added.
    Parallel,
    /// The feed-forward network reads what attention has added to.
    Sequential,
}
