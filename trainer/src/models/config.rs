//! What a decoder is made of. GPT-NeoX uses every variant here; other families add theirs.

use crate::nn::ops::attention::Geometry;

/// How a block's two branches join the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// `x + attention(norm1(x)) + mlp(norm2(x))`.
    Parallel,
    /// `h = x + attention(norm1(x))`, then `h + mlp(norm2(h))`.
    Sequential,
}

/// The nonlinearity of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x Phi(x)`, exact.
    Gelu,
    /// Its approximation by tanh (`gelu_new`, `gelu_fast`).
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x sigmoid(x)`.
    Silu,
}

/// Shape and arithmetic of a decoder. Made by [`super::hf`] from a `config.json`, or by hand; [`DecoderConfig::check`]
/// says whether it is possible.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Rows of the embedding.
    pub vocab: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the feed-forward layer.
    pub inner: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads; they divide the width.
    pub heads: usize,
    /// Leading components of each head that are rotated; even, at most the head's width.
    pub rotary_dims: usize,
    /// Base of the rotary frequencies.
    pub theta: f64,
    /// Added to the variance in layer norms.
    pub norm_eps: f64,
    /// How branches join.
    pub residual: Residual,
    /// Feed-forward nonlinearity.
    pub activation: Activation,
    /// Whether the attention's projections have biases.
    pub attention_bias: bool,
    /// Whether the output head is the embedding.
    pub tied_head: bool,
    /// Longest sequence the model was made for.
    pub max_positions: usize,
    /// Standard deviation of fresh weights.
    pub init_std: f64,
    /// Begin and end of text.
    pub bos: Option<u32>,
    /// End of text.
    pub eos: Option<u32>,
}

impl DecoderConfig {
    /// A GPT-NeoX of Pythia's proportions: parallel residual, a quarter of each head rotated, inner width 4 times the
    /// width, untied head, end of text = 0.
    pub fn neox(vocab: usize, width: usize, layers: usize, heads: usize, max_positions: usize) -> Self {
        Self {
            vocab,
            width,
            inner: 4 * width,
            layers,
            heads,
            rotary_dims: (width / heads.max(1) / 4).max(2) / 2 * 2,
            theta: 10_000.0,
            norm_eps: 1e-5,
            residual: Residual::Parallel,
            activation: Activation::Gelu,
            attention_bias: true,
            tied_head: false,
            max_positions,
            init_std: 0.02,
            bos: Some(0),
            eos: Some(0),
        }
    }

    /// What is wrong with the numbers, if anything: (field of `config.json`, what).
    pub fn check(&self) -> std::result::Result<(), (&'static str, String)> {
        let widths = [
            ("vocab_size", self.vocab),
            ("hidden_size", self.width),
            ("intermediate_size", self.inner),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("max_position_embeddings", self.max_positions),
        ];
        if self.layers > 4096 {
            return Err(("num_hidden_layers", format!("{} is too many (expected at most 4096)", self.layers)));
        }
        for (field, value) in widths {
            if value == 0 {
                return Err((field, format!("{value} is not a width (expected at least 1)")));
            }
            // Keeps products of two widths far from overflow.
            if value > 1 << 28 {
                return Err((field, format!("{value} is not a width (expected at most {})", 1 << 28)));
            }
        }
        if !self.width.is_multiple_of(self.heads) {
            let what = format!("{} does not divide hidden_size {} (expected a divisor)", self.heads, self.width);
            return Err(("num_attention_heads", what));
        }
        let head = self.width / self.heads;
        if self.rotary_dims > head || !self.rotary_dims.is_multiple_of(2) {
            let what =
                format!("{} rotated components of a head of {head} (expected an even number within)", self.rotary_dims);
            return Err(("rotary_pct", what));
        }
        if !(self.theta.is_finite() && self.theta > 0.0) {
            return Err(("rope_theta", format!("{} (expected a number above 0)", self.theta)));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return Err(("layer_norm_eps", format!("{} (expected a number not below 0)", self.norm_eps)));
        }
        Ok(())
    }

    /// Heads and rotations.
    pub fn geometry(&self) -> Geometry {
        let head_dim = self.width / self.heads;
        Geometry { heads: self.heads, head_dim, rotary_dims: self.rotary_dims, theta: self.theta }
    }
}
