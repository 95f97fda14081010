//! Batched generation: each prompt is read once, then the rows still running take a token a step, and a row that has
//! finished is given to the next completion that waits.
//!
//! Nothing here knows how attention or its cache compute: a pass continues rows of a [`KvCache`], and which completion
//! is in which row is the [`Scheduler`]'s business.

use std::collections::BTreeMap;

use candle_core::Tensor;
use rand_chacha::ChaCha8Rng;

use super::batch::{KvCache, TokenBatch};
use super::config::DecoderConfig;
use super::decoder::Decoder;
use super::scheduler::{Beginning, Scheduler, Start};
use crate::nn::{Choice, choose};
use crate::{Error, Result};

/// Tokens of prompts read in one pass, padding included: bounds the memory of a pass whatever comes in.
const PASS: usize = 4096;

/// How to continue prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Generation<'a> {
    /// Tokens at most, the stop token included.
    pub max_new: usize,
    /// Drawn or greedy.
    pub choice: Choice,
    /// Tokens that end a completion; the one that did belongs to it.
    pub stop: &'a [u32],
    /// Completions of each prompt; they share its reading.
    pub samples: usize,
    /// Completions in work at a time. The cache takes memory for as many of the longest prompt with `max_new` tokens.
    pub batch: usize,
}

/// One continuation.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// New tokens; the last is the stop token when `stopped`.
    pub ids: Vec<u32>,
    /// Log-probability of each under the distribution it was drawn from, nats.
    pub log_probs: Vec<f64>,
    /// Whether a stop token ended it.
    pub stopped: bool,
}

/// What happens while completions are made; `completion` is `prompt * samples + sample`.
#[derive(Debug)]
pub enum Event<'a> {
    /// The next tokens of these completions are about to be chosen from these logits, `[completions, vocab]`.
    Logits(&'a [usize], &'a Tensor),
    /// A completion has one token more.
    Token(usize, &'a Completion),
    /// A completion is finished.
    Finished(usize, &'a Completion),
}

/// Continues each prompt `samples` times; completion `p * samples + s` is sample s of prompt p and draws from
/// `stream(p, s)` alone, so that draws depend on neither batch nor order. On a CPU in f32 nor do the logits they are
/// drawn by, to the bit; elsewhere these change with the batch by the last bits of candle's products. `decoder` should be a
/// detached one.
///
/// # Errors
/// Naming the prompt: it is empty, or too long for the model together with `max_new` tokens. A cache that does not fit
/// into memory; logits that are no distribution.
pub fn generate(
    decoder: &Decoder,
    prompts: &[Vec<u32>],
    generation: Generation,
    stream: impl Fn(usize, usize) -> ChaCha8Rng,
) -> Result<Vec<Completion>> {
    generate_observed(decoder, prompts, generation, stream, |_| Ok(()))
}

/// [`generate`], telling what happens; an error of `observe` ends it.
pub fn generate_observed(
    decoder: &Decoder,
    prompts: &[Vec<u32>],
    generation: Generation,
    stream: impl Fn(usize, usize) -> ChaCha8Rng,
    mut observe: impl FnMut(Event) -> Result<()>,
) -> Result<Vec<Completion>> {
    let Generation { max_new, choice, stop, samples, batch } = generation;
    for (p, prompt) in prompts.iter().enumerate() {
        if let Some(fault) = prompt_fault(decoder.config(), prompt, max_new) {
            return Err(Error::invalid(format!("prompt {p}: {fault}")));
        }
    }
    let empty = Completion { ids: Vec::new(), log_probs: Vec::new(), stopped: false };
    if prompts.is_empty() || samples == 0 || max_new == 0 {
        return Ok(vec![empty; prompts.len() * samples]);
    }
    let mut scheduler = Scheduler::new(prompts.len(), samples, batch.max(1));
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let cache = decoder.cache(scheduler.rows(), longest + max_new - 1)?;
    let mut work = Work { decoder, prompts, samples, cache, ends: BTreeMap::new() };
    let mut completions = vec![empty; prompts.len() * samples];
    // Completion, its row of the cache, and the token it has not read yet.
    let mut running: Vec<(usize, usize, u32)> = Vec::new();
    let mut streams: Vec<ChaCha8Rng> = Vec::new();
    loop {
        let mut hidden = Vec::new(); // of the rows that run, then of those that start, [.., width]
        if !running.is_empty() {
            hidden.push(work.step(&running)?);
        }
        let starts = scheduler.start();
        if !starts.is_empty() {
            hidden.push(work.begin(&starts)?);
            work.ends.retain(|&prompt, _| scheduler.waits_for(prompt));
        }
        if hidden.is_empty() {
            return Ok(completions);
        }
        for Start { completion, row, .. } in starts {
            running.push((completion, row, 0));
            streams.push(stream(completion / samples, completion % samples));
        }
        let logits = decoder.logits(&Tensor::cat(&hidden, 0)?)?; // [running, vocab]
        let numbers: Vec<usize> = running.iter().map(|r| r.0).collect();
        observe(Event::Logits(&numbers, &logits))?;
        let chosen = choose(&logits, choice, &mut streams)?;
        let mut goes_on = Vec::with_capacity(running.len());
        for ((number, row, unread), (id, log_prob)) in running.iter_mut().zip(chosen) {
            let completion = &mut completions[*number];
            completion.ids.push(id);
            completion.log_probs.push(log_prob);
            completion.stopped = stop.contains(&id);
            *unread = id;
            observe(Event::Token(*number, completion))?;
            let finished = completion.stopped || completion.ids.len() == max_new;
            if finished {
                scheduler.finish(*row);
                observe(Event::Finished(*number, completion))?;
            }
            goes_on.push(!finished);
        }
        retain(&mut running, &goes_on);
        retain(&mut streams, &goes_on);
    }
}

/// Why a prompt cannot be continued by `max_new` tokens, if it cannot: it is empty, or too long for the model.
pub fn prompt_fault(config: &DecoderConfig, prompt: &[u32], max_new: usize) -> Option<String> {
    let (n, most) = (prompt.len(), config.max_positions);
    let whole = n.saturating_add(max_new);
    match n {
        0 => Some("is empty (expected at least one token)".into()),
        n if n > most => Some(format!("has {n} tokens (expected at most max_position_embeddings {most})")),
        n if whole > most => {
            let with = format!("has {n} tokens, {whole} with {max_new} new ones");
            Some(format!("{with} (expected at most max_position_embeddings {most})"))
        }
        _ => None,
    }
}

fn retain<T>(of: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    of.retain(|_| keep.next().is_some_and(|&keep| keep));
}

/// The model's part: prompts read, rows continued.
struct Work<'a> {
    decoder: &'a Decoder,
    prompts: &'a [Vec<u32>],
    samples: usize,
    cache: KvCache,
    /// State after the last token of prompts whose samples have not all started, `[width]`.
    ends: BTreeMap<usize, Tensor>,
}

impl Work<'_> {
    /// Reads the last token of each running row: the states after them, `[running, width]`.
    fn step(&mut self, running: &[(usize, usize, u32)]) -> Result<Tensor> {
        let rows: Vec<usize> = running.iter().map(|r| r.1).collect();
        let tokens = TokenBatch::step(running.iter().map(|r| r.2).collect())?;
        self.decoder.last_states(&tokens, self.cache.at(&rows))
    }

    /// Makes the rows of `starts` begin with their prompts: the states after these, `[starts, width]`.
    fn begin(&mut self, starts: &[Start]) -> Result<Tensor> {
        let prompt = |start: &Start| start.completion / self.samples;
        let new = starts.iter().filter(|s| s.beginning == Beginning::Read);
        let mut new: Vec<(usize, usize)> = new.map(|s| (prompt(s), s.row)).collect();
        new.sort_by_key(|&(prompt, _)| std::cmp::Reverse(self.prompts[prompt].len())); // like lengths pad little
        let mut rest = new.as_slice();
        while let Some(&(longest, _)) = rest.first() {
            let fits = (PASS / self.prompts[longest].len()).clamp(1, rest.len());
            let (now, later) = rest.split_at(fits);
            self.read(now)?;
            rest = later;
        }
        for start in starts {
            let len = self.prompts[start.completion / self.samples].len();
            match start.beginning {
                Beginning::Read => {}
                Beginning::Again => self.cache.truncate(start.row, len),
                Beginning::Copy(from) => self.cache.copy(from, start.row, len)?,
            }
        }
        let end = |start: &Start| &self.ends[&(start.completion / self.samples)];
        Ok(Tensor::stack(&starts.iter().map(end).collect::<Vec<_>>(), 0)?)
    }

    /// Reads prompts into their rows, in pieces where one alone is longer than a pass.
    fn read(&mut self, prompts: &[(usize, usize)]) -> Result<()> {
        let rows: Vec<usize> = prompts.iter().map(|&(_, row)| row).collect();
        let longest = prompts.iter().map(|&(p, _)| self.prompts[p].len()).max().unwrap_or(0);
        rows.iter().for_each(|&row| self.cache.truncate(row, 0));
        for first in (0..longest).step_by(PASS) {
            let piece = |p: usize| {
                let ids = &self.prompts[p];
                ids[first.min(ids.len())..ids.len().min(first + PASS)].to_vec()
            };
            let pieces: Vec<Vec<u32>> = prompts.iter().map(|&(p, _)| piece(p)).collect();
            let tokens = TokenBatch::right_padded(&pieces, 0)?;
            let states = self.decoder.last_states(&tokens, self.cache.at(&rows))?; // [prompts, width]
            for (i, &(p, _)) in prompts.iter().enumerate() {
                let end = self.prompts[p].len() - 1;
                if (first..first + PASS).contains(&end) {
                    // Its own storage: a view would keep the states of the whole pass alive.
                    self.ends.insert(p, states.get(i)?.force_contiguous()?);
                }
            }
        }
        Ok(())
    }
}
