//! A decoder with a scalar head: reward models and critics in the layout of the paper's code.
//!
//! Files hold the trunk as `lm_backbone.*` and the head as `scalar_head.{weight,bias}`; `config.json` nests the trunk's
//! config under `base_config` and has a `bias` that is subtracted from every score.

use candle_core::{Device, Tensor};

use super::batch::TokenBatch;
use super::config::DecoderConfig;
use super::decoder::Decoder;
use super::parameters;
use crate::Result;
use crate::nn::{Linear, Store, Streams, normal};

/// Prefix of the trunk.
pub const TRUNK: &str = "lm_backbone";
/// Prefix of the head.
pub const HEAD: &str = "scalar_head";

/// Trunk, head and shift: `score = head(hidden) - shift`.
#[derive(Debug, Clone)]
pub struct ScalarModel {
    decoder: Decoder,
    head: Linear,
    shift: f64,
}

impl ScalarModel {
    /// Takes `lm_backbone.*`, `scalar_head.weight` `[1, width]` and `scalar_head.bias` `[1]` from `store`.
    pub fn new(config: &DecoderConfig, store: &Store, shift: f64) -> Result<Self> {
        let head = Linear::new(store, HEAD, config.width, 1, true)?;
        Ok(Self { decoder: Decoder::new(config, store, TRUNK)?, head, shift })
    }

    /// A store for a new scalar model: the trunk copied from a language model's parameters, the head drawn with
    /// standard deviation `1 / sqrt(width + 1)` and bias 0, as the paper's code does.
    pub fn initial(config: &DecoderConfig, language_model: &Store, streams: &Streams) -> Result<Store> {
        let (dtype, device) = (language_model.dtype(), language_model.device());
        let mut store = Store::new(dtype, device);
        for (name, tensor) in language_model.to_tensors() {
            if let Some(rest) = name.strip_prefix(config.family.names().trunk) {
                store.insert(format!("{TRUNK}{rest}"), &tensor)?;
            }
        }
        let std = (config.width as f64 + 1.0).powf(-0.5);
        let name = format!("{HEAD}.weight");
        store.insert(name.clone(), &normal(streams, &name, &[1, config.width], std, dtype, device)?)?;
        store.insert(format!("{HEAD}.bias"), &Tensor::zeros(1, dtype, &Device::Cpu)?)?;
        Ok(store)
    }

    /// The trunk.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// What is subtracted from the head's output.
    pub fn shift(&self) -> f64 {
        self.shift
    }

    /// The same model with another shift (normalising a reward model after training).
    pub fn with_shift(mut self, shift: f64) -> Self {
        self.shift = shift;
        self
    }

    /// The same model without gradients, on the same storage.
    pub fn detached(&self) -> Self {
        Self { decoder: self.decoder.detached(), head: self.head.detached(), shift: self.shift }
    }

    /// Scores of hidden states `[.., width]`, in f32 at least: `[..]`.
    pub fn score_hidden(&self, hidden: &Tensor) -> Result<Tensor> {
        let scores = self.head.forward_wide(hidden)?;
        Ok((scores.squeeze(candle_core::D::Minus1)? - self.shift)?)
    }

    /// A score for each row, `[batch]`, read at its last real token.
    pub fn rewards(&self, tokens: &TokenBatch) -> Result<Tensor> {
        let (batch, time) = tokens.dims();
        let last = |row: &[bool]| row.iter().rposition(|&m| m).unwrap_or(0);
        let at: Vec<u32> =
            tokens.mask().chunks_exact(time).enumerate().map(|(b, row)| (b * time + last(row)) as u32).collect();
        let hidden = self.decoder.hidden(tokens, None)?;
        let rows = hidden.reshape((batch * time, ()))?.index_select(&Tensor::new(at, hidden.device())?, 0)?;
        self.score_hidden(&rows)
    }

    /// Name and shape of every parameter.
    pub fn parameters(config: &DecoderConfig) -> std::collections::BTreeMap<String, Vec<usize>> {
        let mut all = parameters::parameters(config, TRUNK, false);
        all.insert(format!("{HEAD}.weight"), vec![1, config.width]);
        all.insert(format!("{HEAD}.bias"), vec![1]);
        all
    }
}
