//! Batched generation: prompts padded on the left, one prefill, then a token a step for the rows still running.

use candle_core::Tensor;
use rand_chacha::ChaCha8Rng;

use super::batch::TokenBatch;
use super::decoder::Decoder;
use crate::nn::{Choice, choose};
use crate::{Error, Result};

/// How to continue prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Generation {
    /// Tokens at most, the stop token included.
    pub max_new: usize,
    /// Drawn or greedy.
    pub choice: Choice,
    /// A token that ends a completion and belongs to it.
    pub stop: Option<u32>,
    /// Completions of each prompt; they share its prefill.
    pub samples: usize,
}

/// One continuation.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// New tokens; the last is the stop token when `stopped`.
    pub ids: Vec<u32>,
    /// Log-probability of each under the distribution it was drawn from, nats.
    pub log_probs: Vec<f64>,
    /// Whether the stop token ended it.
    pub stopped: bool,
}

/// Continues each prompt `samples` times; completion `p * samples + s` is sample s of prompt p and draws from
/// `stream(p, s)` alone, so that draws depend on neither batch nor order. Rows that have stopped are dropped from the
/// batch; what is left changes by the last bits of candle's products (log-probabilities within 2e-5).
/// `decoder` should be a detached one. Fails on an empty prompt.
pub fn generate(
    decoder: &Decoder,
    prompts: &[Vec<u32>],
    generation: Generation,
    stream: impl Fn(usize, usize) -> ChaCha8Rng,
) -> Result<Vec<Completion>> {
    generate_observed(decoder, prompts, generation, stream, |_, _, _| Ok(()))
}

/// [`generate`], showing at each step the completions in the batch (one that has stopped may still be among them, until
/// rows are dropped) and the logits `[rows, vocab]` their tokens are
/// chosen from: `observe(step, rows, logits)`.
pub fn generate_observed(
    decoder: &Decoder,
    prompts: &[Vec<u32>],
    generation: Generation,
    stream: impl Fn(usize, usize) -> ChaCha8Rng,
    mut observe: impl FnMut(usize, &[usize], &Tensor) -> Result<()>,
) -> Result<Vec<Completion>> {
    let Generation { max_new, choice, stop, samples } = generation;
    if let Some(p) = prompts.iter().position(Vec::is_empty) {
        return Err(Error::invalid(format!("prompt {p} is empty (expected at least one token)")));
    }
    let empty = Completion { ids: Vec::new(), log_probs: Vec::new(), stopped: false };
    let mut completions = vec![empty; prompts.len() * samples];
    if completions.is_empty() || max_new == 0 {
        return Ok(completions);
    }
    let tokens = TokenBatch::left_padded(prompts, 0)?;
    let (_, time) = tokens.dims();
    let mut cache = decoder.cache(prompts.len(), time + max_new - 1)?;
    let last = decoder.hidden(&tokens, Some(&mut cache))?.narrow(1, time - 1, 1)?.squeeze(1)?; // [prompts, width]

    // From here a row of the batch is a completion: `rows[i]` says which.
    let mut rows: Vec<usize> = (0..completions.len()).collect();
    let mut streams: Vec<ChaCha8Rng> = rows.iter().map(|&r| stream(r / samples, r % samples)).collect();
    let mut positions: Vec<u32> = rows.iter().map(|&r| prompts[r / samples].len() as u32).collect();
    let of_prompt: Vec<usize> = rows.iter().map(|&r| r / samples).collect();
    if samples > 1 {
        cache.select(&of_prompt)?;
    }
    let mut hidden = select(&last, &of_prompt)?;
    for step in 0..max_new {
        let logits = decoder.logits(&hidden.contiguous()?)?; // [rows, vocab]
        observe(step, &rows, &logits)?;
        let chosen = choose(&logits, choice, &mut streams)?;
        for (&row, &(id, log_prob)) in rows.iter().zip(&chosen) {
            let completion = &mut completions[row];
            if !completion.stopped {
                completion.ids.push(id);
                completion.log_probs.push(log_prob);
                completion.stopped = stop == Some(id);
            }
        }
        let running: Vec<usize> = (0..rows.len()).filter(|&i| !completions[rows[i]].stopped).collect();
        if running.is_empty() || step + 1 == max_new {
            break;
        }
        let mut ids: Vec<u32> = chosen.iter().map(|c| c.0).collect();
        // Compacting copies the cache, so it waits until a quarter of the rows can go.
        if 4 * running.len() <= 3 * rows.len() {
            cache.select(&running)?;
            rows = running.iter().map(|&i| rows[i]).collect();
            streams = running.iter().map(|&i| streams[i].clone()).collect();
            positions = running.iter().map(|&i| positions[i]).collect();
            ids = running.iter().map(|&i| ids[i]).collect();
        }
        let next = TokenBatch::step(ids, positions.clone())?;
        hidden = decoder.hidden(&next, Some(&mut cache))?.squeeze(1)?;
        positions.iter_mut().for_each(|p| *p += 1);
    }
    Ok(completions)
}

fn select(x: &Tensor, rows: &[usize]) -> Result<Tensor> {
    let rows: Vec<u32> = rows.iter().map(|&r| r as u32).collect();
    Ok(x.contiguous()?.index_select(&Tensor::new(rows, x.device())?, 0)?)
}
