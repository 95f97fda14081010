//! Layers: parameters taken from a [`Store`] and one differentiable operation each.

use candle_core::Tensor;

use super::lora::Adapter;
use super::ops;
use super::store::Store;
use crate::Result;

/// `x W^T + b`, with a low-rank correction where the store holds an adapter for it.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    adapter: Option<Adapter>,
}

impl Linear {
    /// Takes `PREFIX.weight` `[outputs, inputs]` and, with `bias`, `PREFIX.bias` `[outputs]`.
    pub fn new(store: &Store, prefix: &str, inputs: usize, outputs: usize, bias: bool) -> Result<Self> {
        let weight = store.get(&format!("{prefix}.weight"), &[outputs, inputs])?;
        let bias = bias.then(|| store.get(&format!("{prefix}.bias"), &[outputs])).transpose()?;
        Ok(Self { weight, bias, adapter: store.adapter(prefix) })
    }

    /// A map without a bias whose weight `[outputs, inputs]` is another layer's (a tied head).
    pub fn tied(weight: &Tensor) -> Self {
        Self { weight: weight.clone(), bias: None, adapter: None }
    }

    /// `x`: `[.., inputs]`; gives `[.., outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.adapter {
            Some(adapter) => adapter.forward(x, &self.weight, self.bias.as_ref()),
            None => ops::linear::linear(x, &self.weight, self.bias.as_ref()),
        }
    }

    /// [`Linear::forward`] in f32 at least, whatever the weights' type: for logits and scores, which differ by little. An adapter
    /// is worked into the weight.
    pub fn forward_wide(&self, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(ops::widened).transpose()?;
        ops::linear::linear(&ops::widened(x)?, &ops::widened(&self.weight()?)?, bias.as_ref())
    }

    /// The weight `[outputs, inputs]`, its adapter's correction included.
    pub fn weight(&self) -> Result<Tensor> {
        match &self.adapter {
            Some(adapter) => adapter.effective(&self.weight),
            None => Ok(self.weight.clone()),
        }
    }

    /// The same layer without gradients, on the same storage.
    pub fn detached(&self) -> Self {
        Self {
            weight: self.weight.detach(),
            bias: self.bias.as_ref().map(Tensor::detach),
            adapter: self.adapter.as_ref().map(Adapter::detached),
        }
    }
}

/// Layer normalisation with gain and bias, by our own operation: candle_nn's of that name has no backward.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    gain: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Takes `PREFIX.weight` and `PREFIX.bias`, both `[width]`.
    pub fn new(store: &Store, prefix: &str, width: usize, eps: f64) -> Result<Self> {
        let gain = store.get(&format!("{prefix}.weight"), &[width])?;
        Ok(Self { gain, bias: store.get(&format!("{prefix}.bias"), &[width])?, eps })
    }

    /// `x`: `[.., width]`; gives the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm::layer_norm(x, &self.gain, &self.bias, self.eps)
    }

    /// The same layer without gradients, on the same storage.
    pub fn detached(&self) -> Self {
        Self { gain: self.gain.detach(), bias: self.bias.detach(), eps: self.eps }
    }
}

/// Normalisation by the root mean square, with gain, by our own operation: candle_nn's of that name has no backward.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    gain: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// Takes `PREFIX.weight`, `[width]`.
    pub fn new(store: &Store, prefix: &str, width: usize, eps: f64) -> Result<Self> {
        Ok(Self { gain: store.get(&format!("{prefix}.weight"), &[width])?, eps })
    }

    /// `x`: `[.., width]`; gives the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::rms_norm::rms_norm(x, &self.gain, self.eps)
    }

    /// The same layer without gradients, on the same storage.
    pub fn detached(&self) -> Self {
        Self { gain: self.gain.detach(), eps: self.eps }
    }
}

/// A table of vectors, one a token.
#[derive(Debug, Clone)]
pub struct Embedding {
    weight: Tensor,
}

impl Embedding {
    /// Takes `PREFIX.weight`, `[vocab, width]`.
    pub fn new(store: &Store, prefix: &str, vocab: usize, width: usize) -> Result<Self> {
        Ok(Self { weight: store.get(&format!("{prefix}.weight"), &[vocab, width])? })
    }

    /// Rows of the table, `[ids, width]`. Fails on an id outside the vocabulary.
    pub fn forward(&self, ids: &[u32]) -> Result<Tensor> {
        ops::embedding::embedding(&self.weight, ids)
    }

    /// The table `[vocab, width]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The same layer without gradients, on the same storage.
    pub fn detached(&self) -> Self {
        Self { weight: self.weight.detach() }
    }
}
