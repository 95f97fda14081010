//! A decoder-only transformer on the [`crate::nn`] floor.

use candle_core::Tensor;
use candle_core::backprop::GradStore;

use super::batch::{CacheRows, KvCache, TokenBatch};
use super::block::{Block, Norm};
use super::config::DecoderConfig;
use super::fused::Fused;
use super::parameters;
use crate::nn::ops::attention::Tokens;
use crate::nn::ops::token_logprob::token_logprob;
use crate::nn::{Embedding, Linear, Recomputed, Scoring, Store};
use crate::{Error, Result};

/// The model: embedding, blocks, final norm and, for a language model, the output head.
#[derive(Debug, Clone)]
pub struct Decoder {
    config: DecoderConfig,
    embedding: Embedding,
    blocks: Vec<Block>,
    /// Which blocks have something to train.
    trained: Vec<bool>,
    final_norm: Norm,
    head: Option<Linear>,
    /// The same by hand-written kernels, where there are some for the parameters' type and place.
    fused: Option<Fused>,
    /// Where trained blocks are recomputed in the backward: the gradients found there.
    recomputed: Option<Recomputed>,
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
        let head = names.head.trim_end_matches(".weight");
        let head = match (config.tied_head, store.contains(names.head)) {
            (true, _) => Some(Linear::tied(embedding.weight())),
            (false, true) => Some(Linear::new(store, head, width, vocab, false)?),
            (false, false) => None,
        };
        let blocks = (0..config.layers).map(|layer| Block::new(config, store, prefix, layer)).collect::<Result<_>>()?;
        let begins = |layer| format!("{}.", parameters::block(prefix, layer));
        let trained = |layer| store.trainable().any(|(name, _)| name.starts_with(&begins(layer)));
        Ok(Self {
            config: config.clone(),
            embedding,
            blocks,
            trained: (0..config.layers).map(trained).collect(),
            final_norm: Norm::new(config, store, &format!("{prefix}.{}", names.final_norm))?,
            head,
            fused: Fused::new(config, store, prefix)?,
            recomputed: None,
        })
    }

    /// The same model with gradient checkpointing: the graph keeps what goes into a block and computes the block again in
    /// the backward, which must be [`Decoder::backward`].
    pub fn recomputing(mut self) -> Self {
        self.recomputed = Some(Recomputed::default());
        self
    }

    /// The same model by its composed definition, operation by operation: what the fused form is compared with.
    pub fn composed(mut self) -> Self {
        self.fused = None;
        self
    }

    /// Back-propagates `loss`, a scalar made from this model's outputs: the gradients of everything trainable.
    pub fn backward(&self, loss: &Tensor) -> Result<GradStore> {
        let mut gradients = loss.backward()?;
        for found in self.fused.iter().map(Fused::found).chain(&self.recomputed) {
            found.collect(&mut gradients)?;
        }
        Ok(gradients)
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
            trained: vec![false; self.blocks.len()],
            final_norm: self.final_norm.detached(),
            head: self.head.as_ref().map(Linear::detached),
            fused: self.fused.as_ref().map(Fused::detached),
            recomputed: None,
        }
    }

    /// An empty cache of `rows` rows of at most `capacity` tokens.
    pub fn cache(&self, rows: usize, capacity: usize) -> Result<KvCache> {
        if let Some(fused) = self.fused() {
            return KvCache::fused(fused, rows, capacity);
        }
        let table = self.embedding.weight();
        KvCache::new(&self.config, rows, capacity, table.dtype(), table.device())
    }

    /// States after the final norm, `[batch, time, width]`. With rows of a cache the tokens continue what these hold, their
    /// positions counted on, and are added to them; attention then carries no gradient.
    pub fn hidden(&self, tokens: &TokenBatch, cache: Option<CacheRows>) -> Result<Tensor> {
        let (batch, time) = tokens.dims();
        match (self.fused(), cache) {
            (None, cache) => self.forward(tokens, cache, |_| ()),
            (Some(fused), Some(rows)) => self.continued(fused, tokens, rows, false),
            (Some(_), None) => {
                let all: Vec<usize> = (0..batch * time).collect();
                Ok(self.states_at(tokens, &all)?.reshape((batch, time, self.config.width))?)
            }
        }
    }

    /// States after the final norm of the tokens at flat indices `at` (`row * time + column`): `[at.len(), width]`. Those of padding
    /// mean nothing.
    pub fn states_at(&self, tokens: &TokenBatch, at: &[usize]) -> Result<Tensor> {
        let (batch, time) = tokens.dims();
        if let Some(i) = at.iter().find(|&&i| i >= batch * time) {
            return Err(Error::invalid(format!("token {i} of {batch} x {time} is not there")));
        }
        match self.fused() {
            Some(fused) if self.config.window.is_none() || tokens.is_whole() => {
                self.check(tokens.ids())?;
                fused.states(tokens, at, self.recomputed.is_some())
            }
            // A window counts columns, the kernels positions: with padding between a row's tokens they differ.
            _ => {
                let hidden = self.forward(tokens, None, |_| ())?.reshape((batch * time, self.config.width))?;
                let at: Vec<u32> = at.iter().map(|&i| i as u32).collect();
                Ok(hidden.index_select(&Tensor::new(at, hidden.device())?, 0)?)
            }
        }
    }

    /// State after the last real token of each row, which continues a row of a cache: `[batch, width]`. A row without a
    /// token has no state that means anything.
    pub fn last_states(&self, tokens: &TokenBatch, cache: CacheRows) -> Result<Tensor> {
        if let Some(fused) = self.fused() {
            return self.continued(fused, tokens, cache, true);
        }
        let (batch, time) = tokens.dims();
        let last = |(row, mask): (usize, &[bool])| (row * time + mask.iter().rposition(|&m| m).unwrap_or(0)) as u32;
        let last: Vec<u32> = tokens.mask().chunks_exact(time).enumerate().map(last).collect();
        let hidden = self.forward(tokens, Some(cache), |_| ())?.reshape((batch * time, self.config.width))?;
        Ok(hidden.index_select(&Tensor::new(last, hidden.device())?, 0)?)
    }

    fn continued(&self, fused: &Fused, tokens: &TokenBatch, mut rows: CacheRows, last_only: bool) -> Result<Tensor> {
        self.check(tokens.ids())?;
        let continued = rows.continued(tokens)?;
        let states = fused.continued(tokens, rows.kernels()?, &continued, last_only)?;
        rows.advance(tokens);
        Ok(states)
    }

    /// Fails on a token outside the vocabulary.
    fn check(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|&&id| id as usize >= self.config.vocab) {
            Some(id) => {
                Err(Error::invalid(format!("token {id} (expected less than vocab_size {})", self.config.vocab)))
            }
            None => Ok(()),
        }
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
        self.check(tokens.ids())?;
        let mut x = self.embedding.forward(tokens.ids())?.reshape((batch, time, self.config.width))?;
        let about = match &cache {
            Some(rows) => rows.tokens(&self.config.rope, tokens, x.dtype())?,
            None => Tokens::new(&self.config.rope, tokens.positions(), tokens.mask().to_vec(), batch, x.dtype()),
        };
        for (layer, block) in self.blocks.iter().enumerate() {
            before_block(&x);
            let kept = cache.as_ref().map(|rows| rows.layer(layer)).transpose()?;
            x = match &self.recomputed {
                Some(recomputed) if kept.is_none() && (self.trained[layer] || x.track_op()) => {
                    let (block, about) = (block.clone(), about.clone());
                    recomputed.run(&x, move |x| block.forward(x, &about, None))?
                }
                _ => block.forward(&x, &about, kept)?,
            };
        }
        if let Some(rows) = cache {
            rows.advance(tokens);
        }
        self.final_norm.forward(&x)
    }

    /// The fused form, where there is one.
    fn fused(&self) -> Option<&Fused> {
        #[cfg(test)]
        if crate::nn::ops::testing::is_unfused() {
            return None;
        }
        self.fused.as_ref()
    }

    fn head(&self) -> Result<&Linear> {
        let name = self.config.family.names().head;
        self.head.as_ref().ok_or_else(|| Error::invalid(format!("{name}: this model has no output head")))
    }

    /// Logits of `hidden` `[.., width]`, in f32 at least: `[.., vocab]`. For scoring use [`Decoder::token_logprobs`], which never
    /// holds them. Fails for a trunk without a head.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let head = self.head()?;
        match self.fused() {
            Some(fused) if !hidden.track_op() && !head.weight()?.track_op() => fused.logits(hidden),
            _ => head.forward_wide(hidden),
        }
    }

    /// Log-probability of every token of some responses given their prompts, and entropy of the distributions they came
    /// from, both `[tokens]`, row after row, in nats, as `scoring` says. `rows`: (prompt, response), neither empty. Neighbours
    /// with the same prompt share its reading.
    pub fn scores(&self, rows: &[(&[u32], &[u32])], scoring: impl Into<Scoring>) -> Result<(Tensor, Tensor)> {
        if let Some((prompt, _)) = rows.iter().find(|(prompt, ids)| prompt.is_empty() || ids.is_empty()) {
            let what = if prompt.is_empty() { "prompt" } else { "response" };
            return Err(Error::invalid(format!("an empty {what} has no log-probability")));
        }
        match self.fused() {
            Some(fused) if !rows.is_empty() => {
                self.head()?;
                rows.iter().try_for_each(|(prompt, ids)| self.check(prompt).and_then(|()| self.check(ids)))?;
                let both = fused.scores(rows, scoring.into(), self.recomputed.is_some())?;
                Ok((both.get(0)?, both.get(1)?))
            }
            _ => {
                let whole: Vec<Vec<u32>> = rows.iter().map(|(prompt, ids)| [*prompt, *ids].concat()).collect();
                let tokens = TokenBatch::right_padded(&whole, 0)?;
                let (_, time) = tokens.dims();
                let at = |(row, (prompt, ids)): (usize, &(&[u32], &[u32]))| {
                    let first = row * time + prompt.len();
                    first..first + ids.len()
                };
                let at: Vec<usize> = rows.iter().enumerate().flat_map(at).collect();
                self.token_logprobs(&self.hidden(&tokens, None)?, &tokens, &at, scoring)
            }
        }
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
        token_logprob(&rows, &self.head()?.weight()?, &targets, scoring)
    }
}
