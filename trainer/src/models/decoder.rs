//! A decoder-only transformer on the [`crate::nn`] floor.

use candle_core::Tensor;

use super::batch::{KvCache, TokenBatch};
use super::config::{Activation, DecoderConfig, Residual};
use super::neox;
use crate::nn::ops::attention::{Tokens, attention, attention_cached};
use crate::nn::ops::gelu::gelu;
use crate::nn::ops::token_logprob::token_logprob;
use crate::nn::{Embedding, LayerNorm, Linear, Store, Temperature};
use crate::{Error, Result};

#[derive(Debug, Clone)]
struct Block {
    attention_norm: LayerNorm,
    qkv: Linear,
    attention_out: Linear,
    mlp_norm: LayerNorm,
    up: Linear,
    down: Linear,
}

/// The model: embedding, blocks, final norm and, for a language model, the output head.
#[derive(Debug, Clone)]
pub struct Decoder {
    config: DecoderConfig,
    embedding: Embedding,
    blocks: Vec<Block>,
    final_norm: LayerNorm,
    head: Option<Tensor>,
}

impl Decoder {
    /// Takes the parameters of a decoder from `store`: the trunk under `prefix` (`gpt_neox` in a language model,
    /// `lm_backbone` in a scalar one) and, where the store holds one, the head. Fails naming the first parameter that is
    /// absent or of another shape.
    pub fn new(config: &DecoderConfig, store: &Store, prefix: &str) -> Result<Self> {
        config.check().map_err(|(field, what)| Error::invalid(format!("{field}: {what}")))?;
        let DecoderConfig { vocab, width, inner, attention_bias, norm_eps, .. } = *config;
        let block = |layer: usize| -> Result<Block> {
            let name = |part: &str| format!("{prefix}.layers.{layer}.{part}");
            Ok(Block {
                attention_norm: LayerNorm::new(store, &name(neox::ATTENTION_NORM), width, norm_eps)?,
                qkv: Linear::new(store, &name(neox::QKV), width, 3 * width, attention_bias)?,
                attention_out: Linear::new(store, &name(neox::ATTENTION_OUT), width, width, attention_bias)?,
                mlp_norm: LayerNorm::new(store, &name(neox::MLP_NORM), width, norm_eps)?,
                up: Linear::new(store, &name(neox::UP), width, inner, true)?,
                down: Linear::new(store, &name(neox::DOWN), inner, width, true)?,
            })
        };
        let embedding = Embedding::new(store, &format!("{prefix}.{}", neox::EMBEDDING), vocab, width)?;
        let head = match (config.tied_head, store.contains(neox::HEAD)) {
            (true, _) => Some(embedding.weight().clone()),
            (false, true) => Some(store.get(neox::HEAD, &[vocab, width])?),
            (false, false) => None,
        };
        Ok(Self {
            config: config.clone(),
            embedding,
            blocks: (0..config.layers).map(block).collect::<Result<_>>()?,
            final_norm: LayerNorm::new(store, &format!("{prefix}.{}", neox::FINAL_NORM), width, norm_eps)?,
            head,
        })
    }

    /// What it is made of.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The same model without gradients, on the same storage: it always computes with the current parameters.
    pub fn detached(&self) -> Self {
        let blocks = self.blocks.iter().map(|b| Block {
            attention_norm: b.attention_norm.detached(),
            qkv: b.qkv.detached(),
            attention_out: b.attention_out.detached(),
            mlp_norm: b.mlp_norm.detached(),
            up: b.up.detached(),
            down: b.down.detached(),
        });
        Self {
            config: self.config.clone(),
            embedding: self.embedding.detached(),
            blocks: blocks.collect(),
            final_norm: self.final_norm.detached(),
            head: self.head.as_ref().map(Tensor::detach),
        }
    }

    /// An empty cache for `batch` rows of at most `capacity` tokens.
    pub fn cache(&self, batch: usize, capacity: usize) -> Result<KvCache> {
        let table = self.embedding.weight();
        KvCache::new(&self.config, batch, capacity, table.dtype(), table.device())
    }

    /// States after the final norm, `[batch, time, width]`. With a cache the tokens continue what it holds and are added
    /// to it; attention then carries no gradient.
    pub fn hidden(&self, tokens: &TokenBatch, cache: Option<&mut KvCache>) -> Result<Tensor> {
        self.forward(tokens, cache, |_| ())
    }

    /// All states: the embeddings, the output of every block but the last, and the final norm's, each
    /// `[batch, time, width]` (the list transformers returns).
    pub fn hidden_states(&self, tokens: &TokenBatch) -> Result<Vec<Tensor>> {
        let mut states = Vec::with_capacity(self.config.layers + 1);
        let last = self.forward(tokens, None, |state| states.push(state.clone()))?;
        states.push(last);
        Ok(states)
    }

    fn forward(
        &self,
        tokens: &TokenBatch,
        mut cache: Option<&mut KvCache>,
        mut before_block: impl FnMut(&Tensor),
    ) -> Result<Tensor> {
        let (batch, time) = tokens.dims();
        if let Some(id) = tokens.ids().iter().find(|&&id| id as usize >= self.config.vocab) {
            return Err(Error::invalid(format!("token {id} (expected less than vocab_size {})", self.config.vocab)));
        }
        let visible = match &cache {
            Some(cache) => cache.visible_with(tokens)?,
            None => tokens.mask().to_vec(),
        };
        let mut x = self.embedding.forward(tokens.ids())?.reshape((batch, time, self.config.width))?;
        let about = Tokens::new(&self.config.geometry(), tokens.positions(), visible, batch, x.dtype());
        for (layer, block) in self.blocks.iter().enumerate() {
            before_block(&x);
            let kept = cache.as_ref().map(|c| &c.layers[layer]);
            x = self.block(block, &x, &about, kept)?;
        }
        if let Some(cache) = &mut cache {
            cache.advance(tokens);
        }
        self.final_norm.forward(&x)
    }

    fn block(&self, block: &Block, x: &Tensor, tokens: &Tokens, kept: Option<&(Tensor, Tensor)>) -> Result<Tensor> {
        let qkv = block.qkv.forward(&block.attention_norm.forward(x)?)?; // [batch, time, 3 width]
        let context = match kept {
            Some((keys, values)) => attention_cached(&qkv, self.config.geometry(), tokens, keys, values)?,
            None => attention(&qkv, self.config.geometry(), tokens)?,
        };
        let attended = block.attention_out.forward(&context)?; // [batch, time, width]
        let mlp = |x: &Tensor| -> Result<Tensor> {
            let u = block.up.forward(&block.mlp_norm.forward(x)?)?; // [batch, time, inner]
            block.down.forward(&activate(&u, self.config.activation)?)
        };
        Ok(match self.config.residual {
            Residual::Parallel => ((mlp(x)? + attended)? + x)?,
            Residual::Sequential => {
                let h = (attended + x)?;
                (mlp(&h)? + h)?
            }
        })
    }

    /// The head's weight, `[vocab, width]`. Fails for a trunk without one.
    pub fn head_weight(&self) -> Result<&Tensor> {
        self.head.as_ref().ok_or_else(|| Error::invalid(format!("{}: this model has no output head", neox::HEAD)))
    }

    /// Logits of `hidden` `[.., width]`: `[.., vocab]`. For scoring use [`Decoder::token_logprobs`], which never holds them.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        crate::nn::ops::linear::linear(hidden, self.head_weight()?, None)
    }

    /// Log-probability of the tokens at `at` given what precedes them, and entropy of the distributions they came from,
    /// both `[at.len()]`, in nats. `hidden`: `[batch, time, width]`, the states of `tokens`; `at`: flat indices
    /// (`row * time + column`) of the tokens to score; no column may be 0.
    pub fn token_logprobs(
        &self,
        hidden: &Tensor,
        tokens: &TokenBatch,
        at: &[usize],
        temperature: Temperature,
    ) -> Result<(Tensor, Tensor)> {
        let (batch, time) = tokens.dims();
        if let Some(i) = at.iter().find(|&&i| i % time == 0 || i >= batch * time) {
            return Err(Error::invalid(format!("token {i} of {batch} x {time} has no state before it")));
        }
        let before: Vec<u32> = at.iter().map(|&i| i as u32 - 1).collect();
        let targets: Vec<u32> = at.iter().map(|&i| tokens.ids()[i]).collect();
        let rows = hidden.reshape((batch * time, self.config.width))?;
        let rows = rows.index_select(&Tensor::new(before, hidden.device())?, 0)?;
        token_logprob(&rows, self.head_weight()?, &targets, temperature)
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
