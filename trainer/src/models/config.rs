//! What a decoder is made of: one description for every family, checked once.

use super::parameters::{LLAMA, NEOX, Names};
use crate::nn::ops::attention::{Geometry, Packing};
use crate::nn::{Rope, RopeScaling};

/// An architecture: what its files call the parts, and what in it is no setting. GPT-NeoX has layer norms, one projection
/// for queries, keys and values, and a feed-forward part without a gate; the others have RMS norms, a projection each, and
/// a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// GPT-NeoX (Pythia).
    NeoX,
    /// Llama.
    Llama,
    /// Mistral: Llama with a sliding window (OpenChat 3.5).
    Mistral,
    /// Qwen 2 and 2.5: biases on queries, keys and values alone.
    Qwen2,
    /// Qwen 3: each head's queries and keys are normalised before they are rotated.
    Qwen3,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::NeoX, Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// What `config.json` calls it (`model_type`).
    pub fn model_type(self) -> &'static str {
        match self {
            Self::NeoX => "gpt_neox",
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// What its files call the parts of a language model.
    pub fn names(self) -> &'static Names {
        match self {
            Self::NeoX => &NEOX,
            _ => &LLAMA,
        }
    }
}

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

/// Layers whose tokens see only the last few columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// How many columns a token sees at most, its own included.
    pub tokens: usize,
    /// The first layer with the window; those before it see everything.
    pub from_layer: usize,
}

/// Shape and arithmetic of a decoder. Made by [`super::hf`] from a `config.json`, or by hand; [`DecoderConfig::check`]
/// says whether it is possible.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// The architecture.
    pub family: Family,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the feed-forward layer.
    pub inner: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; they divide `heads`.
    pub kv_heads: usize,
    /// Width of a head; even where `width / heads` is something else.
    pub head_dim: usize,
    /// Rotary positions.
    pub rope: Rope,
    /// Layers with a sliding window.
    pub window: Option<Window>,
    /// Added to the variance, or to the mean square, in norms.
    pub norm_eps: f64,
    /// How branches join.
    pub residual: Residual,
    /// Feed-forward nonlinearity.
    pub activation: Activation,
    /// Whether the attention's projections have biases (Qwen 2: all but the one back to the residual stream).
    pub attention_bias: bool,
    /// Whether the feed-forward part's projections have biases.
    pub mlp_bias: bool,
    /// Whether the output head is the embedding.
    pub tied_head: bool,
    /// Longest sequence the model was made for.
    pub max_positions: usize,
    /// Standard deviation of fresh weights.
    pub init_std: f64,
    /// Begin of text.
    pub bos: Option<u32>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
}

/// Keeps products of two widths far from overflow.
const WIDEST: usize = 1 << 28;

impl DecoderConfig {
    /// A GPT-NeoX of Pythia's proportions: parallel residual, a quarter of each head rotated, inner width 4 times the
    /// width, untied head, end of text = 0.
    pub fn neox(vocab: usize, width: usize, layers: usize, heads: usize, max_positions: usize) -> Self {
        let head_dim = width / heads.max(1);
        let dims = (head_dim / 4).max(2) / 2 * 2;
        Self {
            family: Family::NeoX,
            vocab,
            width,
            inner: 4 * width,
            layers,
            heads,
            kv_heads: heads,
            head_dim,
            rope: Rope { dims, theta: 10_000.0, scaling: RopeScaling::None },
            window: None,
            norm_eps: 1e-5,
            residual: Residual::Parallel,
            activation: Activation::Gelu,
            attention_bias: true,
            mlp_bias: true,
            tied_head: false,
            max_positions,
            init_std: 0.02,
            bos: Some(0),
            eos: vec![0],
        }
    }

    /// What is wrong with the numbers, if anything: (field of `config.json`, what).
    pub fn check(&self) -> std::result::Result<(), (&'static str, String)> {
        self.check_widths()?;
        self.check_family()?;
        let at_least = |field, value: f64, positive: bool| match value.is_finite() && value >= 0.0 {
            true if value > 0.0 || !positive => Ok(()),
            _ => Err((
                field,
                format!("{value} (expected a number {})", if positive { "above 0" } else { "not below 0" }),
            )),
        };
        at_least("rope_theta", self.rope.theta, true)?;
        at_least(self.eps_field(), self.norm_eps, false)?;
        at_least("initializer_range", self.init_std, false)?;
        match self.rope.scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => at_least("factor", factor, true)?,
            RopeScaling::Llama3 { factor, low, high, original } => {
                at_least("factor", factor, true)?;
                at_least("low_freq_factor", low, true)?;
                at_least("high_freq_factor", high, true)?;
                if high <= low {
                    return Err(("high_freq_factor", format!("{high} (expected more than low_freq_factor {low})")));
                }
                if original == 0 {
                    return Err(("original_max_position_embeddings", "0 (expected at least 1)".into()));
                }
            }
        }
        match self.window {
            Some(Window { tokens: 0, .. }) => Err(("sliding_window", "0 (expected at least 1)".into())),
            _ => Ok(()),
        }
    }

    fn check_widths(&self) -> std::result::Result<(), (&'static str, String)> {
        if self.layers > 4096 {
            return Err(("num_hidden_layers", format!("{} is too many (expected at most 4096)", self.layers)));
        }
        let widths = [
            ("vocab_size", self.vocab),
            ("hidden_size", self.width),
            ("intermediate_size", self.inner),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_positions),
        ];
        for (field, value) in widths {
            if value == 0 {
                return Err((field, format!("{value} is not a width (expected at least 1)")));
            }
            if value > WIDEST {
                return Err((field, format!("{value} is not a width (expected at most {WIDEST})")));
            }
        }
        if self.heads * self.head_dim > WIDEST {
            let what = format!("{} heads of {} are too wide (expected at most {WIDEST})", self.heads, self.head_dim);
            return Err(("head_dim", what));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let what =
                format!("{} does not divide num_attention_heads {} (expected a divisor)", self.kv_heads, self.heads);
            return Err(("num_key_value_heads", what));
        }
        let (dims, head) = (self.rope.dims, self.head_dim);
        if dims > head || !dims.is_multiple_of(2) {
            let field = if self.family == Family::NeoX { "rotary_pct" } else { "head_dim" };
            let what = format!("{dims} rotated components of a head of {head} (expected an even number within)");
            return Err((field, what));
        }
        Ok(())
    }

    /// Whether the settings are those the family can have: others could not be saved under its name.
    fn check_family(&self) -> std::result::Result<(), (&'static str, String)> {
        let refuse = |field, what: &str| Err((field, format!("{what} ({})", self.family.model_type())));
        match self.family {
            Family::NeoX if self.heads * self.head_dim != self.width || self.kv_heads != self.heads => {
                let what = format!("{} does not divide hidden_size {} (expected a divisor)", self.heads, self.width);
                return Err(("num_attention_heads", what));
            }
            Family::NeoX if !self.mlp_bias => return refuse("mlp_bias", "the feed-forward part has biases"),
            Family::NeoX => {}
            _ if self.residual == Residual::Parallel => {
                return refuse("residual", "the branches join one after the other");
            }
            _ if self.rope.dims != self.head_dim => return refuse("partial_rotary_factor", "heads are rotated whole"),
            Family::Mistral if self.attention_bias => return refuse("attention_bias", "there are no biases"),
            Family::Qwen2 if !self.attention_bias => return refuse("attention_bias", "the projections have biases"),
            Family::Mistral | Family::Qwen2 | Family::Qwen3 if self.mlp_bias => {
                return refuse("mlp_bias", "the feed-forward part has no biases");
            }
            _ => {}
        }
        match (self.family, self.window) {
            (Family::NeoX | Family::Llama, Some(_)) => refuse("sliding_window", "every token sees all before it"),
            (Family::Mistral, Some(Window { from_layer: 1.., .. })) => refuse("sliding_window", "every layer has it"),
            _ => Ok(()),
        }
    }

    /// What `config.json` calls the norms' epsilon.
    pub(super) fn eps_field(&self) -> &'static str {
        if self.family == Family::NeoX { "layer_norm_eps" } else { "rms_norm_eps" }
    }

    /// Whether the projection from the heads back to the residual stream has a bias.
    pub(super) fn attention_out_bias(&self) -> bool {
        self.attention_bias && self.family != Family::Qwen2
    }

    /// Heads, and what the tokens of a layer see.
    pub fn geometry(&self, layer: usize) -> Geometry {
        Geometry {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            packing: if self.family == Family::NeoX { Packing::PerHead } else { Packing::PerPart },
            window: self.window.filter(|window| layer >= window.from_layer).map(|window| window.tokens),
        }
    }
}
