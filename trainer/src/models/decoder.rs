//! A decoder-only transformer on the [`crate::nn`] floor.

use candle_core::Tensor;

use super::batch::{CacheRows, KvCache, TokenBatch};
use super::block::{Block, Norm};
use super::config::DecoderConfig;
use crate::nn::ops::attention::Tokens;
use crate::nn::ops::linear::linear;
use crate::nn::ops::token_logprob::token_logprob;
use crate::nn::ops::widened;
use crate::nn::{Embedding, Scoring, Store};
use crate::{Error, Result};

/// The model: embedding, blocks, final norm and, for a language model, the output head.
#[derive(Debug, Clone)]
pub struct Decoder {
    config: DecoderConfig,
    embedding: Embedding,
    blocks: Vec<Block>,
    final_norm: Norm,
    head: Option<Tensor>,
}

impl Decoder {
    /// Takes the parameters of a decoder from `store`: the trunk under `prefix` (`gpt_neox` or `model` in a language model,
    /// `lm_backbone` in a scalar one) and, where the store holds one, the head. Fails naming the first parameter that is
    /// absent or of another shape.
    pub fn new(config: &DecoderConfig, store: &Store, prefix: &str) -> Result<Self> {
        config.check().map_err(|(field, what)| Error::invalid(format!("{field}: {what}")))?;
        let DecoderConfig { vocab, width, .. } = *config;
        let names = config.family.names();
        let embedding = Embedding::new(store, &format!("{prefix}.{}", names.embedding), vocab, width)?;
        let head = match (config.tied_head, store.contains(names.head)) {
            (true, _) => Some(embedding.weight().clone()),
            (false, true) => Some(store.get(names.head, &[vocab, width])?),
            (false, false) => None,
        };
        Ok(Self {
            config: config.clone(),
            embedding,
            blocks: (0..config.layers).map(|layer| Block::new(config, store, prefix, layer)).collect::<Result<_>>()?,
            final_norm: Norm::new(config, store, &format!("{prefix}.{}", names.final_norm))?,
            head,
        })
    }

    /// What it is made of.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The same model without gradients, on the same storage: it always computes with the current parameters.
    pub fn detached(&self) -> Self {
        Self {
            config: self.config.clone(),
            embedding: self.embedding.detached(),
            blocks: self.blocks.iter().map(Block::detached).collect(),
            final_norm: self.final_norm.detached(),
            head: self.head.as_ref().map(Tensor::detach),
        }
    }

    /// An empty cache of `rows` rows of at most `capacity` tokens.
    pub fn cache(&self, rows: usize, capacity: usize) -> Result<KvCache> {
        let table = self.embedding.weight();
        KvCache::new(&self.config, rows, capacity, table.dtype(), table.device())
    }

    /// States after the final norm, `[batch, time, width]`. With rows of a cache the tokens continue what these hold, their
    /// positions counted on, and are added to them; attention then carries no gradient.
    pub fn hidden(&self, tokens: &TokenBatch, cache: Option<CacheRows>) -> Result<Tensor> {
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
        cache: Option<CacheRows>,
        mut before_block: impl FnMut(&Tensor),
    ) -> Result<Tensor> {
        let (batch, time) = tokens.dims();
        if let Some(id) = tokens.ids().iter().find(|&&id| id as usize >= self.config.vocab) {
            return Err(Error::invalid(format!("token {id} (expected less than vocab_size {})", self.config.vocab)));
        }
        let mut x = self.embedding.forward(tokens.ids())?.reshape((batch, time, self.config.width))?;
        let about = match &cache {
            Some(rows) => rows.tokens(&self.config.rope, tokens, x.dtype())?,
            None => Tokens::new(&self.config.rope, tokens.positions(), tokens.mask().to_vec(), batch, x.dtype()),
        };
        for (layer, block) in self.blocks.iter().enumerate() {
            before_block(&x);
            let kept = cache.as_ref().map(|rows| rows.layer(layer));
            x = block.forward(&x, &about, kept)?;
        }
        if let Some(rows) = cache {
            rows.advance(tokens);
        }
        self.final_norm.forward(&x)
    }

    /// The head's weight, `[vocab, width]`. Fails for a trunk without one.
    pub fn head_weight(&self) -> Result<&Tensor> {
        let name = self.config.family.names().head;
        self.head.as_ref().ok_or_else(|| Error::invalid(format!("{name}: this model has no output head")))
    }

    /// Logits of `hidden` `[.., width]`, in f32 at least: `[.., vocab]`. For scoring use [`Decoder::token_logprobs`], which never holds them.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        linear(&widened(hidden)?, &widened(self.head_weight()?)?, None)
    }

    /// Log-probability of the tokens at `at` given what precedes them, and entropy of the distributions they came from,
    /// both `[at.len()]`, in nats, as `scoring` says (a temperature, a [`crate::nn::Sampling`], or one of drawn tokens). `hidden`: `[batch, time, width]`, the states of `tokens`; `at`: flat indices
    /// (`row * time + column`) of the tokens to score; no column may be 0.
    pub fn token_logprobs(
        &self,
        hidden: &Tensor,
        tokens: &TokenBatch,
        at: &[usize],
        scoring: impl Into<Scoring>,
    ) -> Result<(Tensor, Tensor)> {
        let (batch, time) = tokens.dims();
        if let Some(i) = at.iter().find(|&&i| i % time == 0 || i >= batch * time) {
            return Err(Error::invalid(format!("token {i} of {batch} x {time} has no state before it")));
        }
        let before: Vec<u32> = at.iter().map(|&i| i as u32 - 1).collect();
        let targets: Vec<u32> = at.iter().map(|&i| tokens.ids()[i]).collect();
        let rows = hidden.reshape((batch * time, self.config.width))?;
        let rows = rows.index_select(&Tensor::new(before, hidden.device())?, 0)?;
        token_logprob(&rows, self.head_weight()?, &targets, scoring)
    }
}
