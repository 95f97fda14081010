//! ArmoRM's head (arXiv 2406.12845): a linear layer reads many objectives from the last state, a matrix takes what they owe
//! to verbosity off, and a small network weighs them by the state at the end of the prompt.
//!
//! $$ r = \sum_k g_k (o T)_k, \qquad g = s\,\mathrm{softmax}(\mathrm{mlp}(h_{\mathrm{prompt}}) / \tau), \qquad
//! o = W h_{\mathrm{last}} $$

use std::collections::BTreeMap;

use candle_core::{D, Tensor};

use crate::models::batch::TokenBatch;
use crate::nn::ops::widened;
use crate::nn::{Linear, Store};
use crate::{Error, Result};

/// The layer of objectives, without `.weight`.
pub(super) const OBJECTIVES: &str = "regression_layer";
/// The matrix T, `[objectives, objectives]`.
pub(super) const TRANSFORM: &str = "reward_transform_matrix";
/// The factor s, `[1]`.
pub(super) const SCALE: &str = "gating.logit_scale";

/// Shape and settings of the head.
#[derive(Debug, Clone, PartialEq)]
pub struct MixtureConfig {
    /// What the objectives are called, in their order.
    pub objectives: Vec<String>,
    /// Hidden layers of the gating network; 0 is a linear gate.
    pub hidden_layers: usize,
    /// Width of each.
    pub hidden_width: usize,
    /// What the gate's logits are divided by.
    pub temperature: f64,
    /// The tokens between a prompt and its answer. The gate reads the state at the first token of their last occurrence:
    /// the last one that belongs to the prompt.
    pub pattern: Vec<u32>,
}

impl MixtureConfig {
    /// Inputs and outputs of layer `layer` of the gating network on states of `width`.
    fn layer(&self, layer: usize, width: usize) -> (usize, usize) {
        let inputs = if layer == 0 { width } else { self.hidden_width };
        (inputs, if layer == self.hidden_layers { self.objectives.len() } else { self.hidden_width })
    }

    /// Name and shape of every parameter, on states of `width`.
    pub(super) fn parameters(&self, width: usize) -> BTreeMap<String, Vec<usize>> {
        let count = self.objectives.len();
        let mut all = BTreeMap::from([
            (format!("{OBJECTIVES}.weight"), vec![count, width]),
            (TRANSFORM.into(), vec![count, count]),
            (SCALE.into(), vec![1]),
        ]);
        for layer in 0..=self.hidden_layers {
            let (inputs, outputs) = self.layer(layer, width);
            all.insert(format!("{}.weight", gate(layer)), vec![outputs, inputs]);
            all.insert(format!("{}.bias", gate(layer)), vec![outputs]);
        }
        all
    }
}

/// Name of a layer of the gating network, without `.weight`.
fn gate(layer: usize) -> String {
    format!("gating.layers.{layer}")
}

/// The head's parameters.
#[derive(Debug, Clone)]
pub(super) struct Mixture {
    objectives: Linear,
    transform: Tensor,
    gate: Vec<Linear>,
    scale: Tensor,
    temperature: f64,
    pattern: Vec<u32>,
}

/// What a reward of objectives is made of.
#[derive(Debug, Clone)]
pub struct Mixed {
    /// The column whose state gates each row.
    pub gate_columns: Vec<usize>,
    /// The states there. `[batch, width]`
    pub prompt: Tensor,
    /// The objectives as they are read. `[batch, objectives]`
    pub objectives: Tensor,
    /// The same by the matrix T. `[batch, objectives]`
    pub transformed: Tensor,
    /// The weight of each; a row sums to the factor s. `[batch, objectives]`
    pub gating: Tensor,
}

impl Mixed {
    /// The rewards, `[batch]`.
    pub(super) fn reward(&self) -> Result<Tensor> {
        Ok((&self.gating * &self.transformed)?.sum(D::Minus1)?)
    }
}

impl Mixture {
    pub(super) fn new(config: &MixtureConfig, width: usize, store: &Store) -> Result<Self> {
        let count = config.objectives.len();
        let layer = |layer: usize| {
            let (inputs, outputs) = config.layer(layer, width);
            Linear::new(store, &gate(layer), inputs, outputs, true)
        };
        Ok(Self {
            objectives: Linear::new(store, OBJECTIVES, width, count, false)?,
            transform: store.get(TRANSFORM, &[count, count])?,
            gate: (0..=config.hidden_layers).map(layer).collect::<Result<_>>()?,
            scale: store.get(SCALE, &[1])?,
            temperature: config.temperature,
            pattern: config.pattern.clone(),
        })
    }

    pub(super) fn detached(&self) -> Self {
        Self {
            objectives: self.objectives.detached(),
            transform: self.transform.detach(),
            gate: self.gate.iter().map(Linear::detached).collect(),
            scale: self.scale.detach(),
            temperature: self.temperature,
            pattern: self.pattern.clone(),
        }
    }

    /// For each row the column of the first token of the pattern's last occurrence among its real tokens.
    pub(super) fn gate_columns(&self, tokens: &TokenBatch) -> Result<Vec<usize>> {
        let (_, time) = tokens.dims();
        let rows = tokens.ids().chunks_exact(time).zip(tokens.mask().chunks_exact(time));
        let column = |(row, (ids, mask)): (usize, (&[u32], &[bool]))| {
            let real: Vec<usize> = (0..time).filter(|&column| mask[column]).collect();
            let starts = |at: &&[usize]| at.iter().zip(&self.pattern).all(|(&column, &id)| ids[column] == id);
            let windows = real.windows(self.pattern.len().max(1));
            windows.rev().find(starts).map(|window| window[0]).ok_or_else(|| {
                let what = format!("row {row} has no answer: the tokens {:?} are not in it", self.pattern);
                Error::invalid(what)
            })
        };
        rows.enumerate().map(column).collect()
    }

    /// `last` and `prompt`: the states at the last token and at the end of the prompt, both `[batch, width]`.
    pub(super) fn forward(&self, last: &Tensor, prompt: Tensor, gate_columns: Vec<usize>) -> Result<Mixed> {
        let objectives = self.objectives.forward_wide(last)?; // [batch, objectives]
        let transformed = objectives.matmul(&widened(&self.transform)?)?;
        let mut x = prompt.clone();
        for (i, layer) in self.gate.iter().enumerate() {
            x = layer.forward_wide(&if i == 0 { x } else { x.relu()? })?;
        }
        let gating = softmax(&(x / self.temperature)?)?.broadcast_mul(&widened(&self.scale)?)?;
        Ok(Mixed { gate_columns, prompt, objectives, transformed, gating })
    }
}

/// Softmax over the last dimension of `[batch, objectives]`. candle_nn's fused one has no backward.
fn softmax(x: &Tensor) -> Result<Tensor> {
    let e = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    Ok(e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?)
}
