//! Language models: a prompt is tokens, a step is a token, a trajectory is a response.
//!
//! The log-probability that is trained is that of the distribution that was sampled: one temperature, EOS counted,
//! padding not. It comes from one function, for sampling, scoring and training alike.

use super::{Ask, Cotangents, Outputs, Trajectory, World, mismatched};
use crate::models::batch::TokenBatch;
use crate::models::config::DecoderConfig;
use crate::models::decoder::Decoder;
use crate::models::generate::{Completion, Generation, generate};
use crate::models::reward::{self, RewardConfig, RewardModel};
use crate::models::tokenizer::Tokenizer;
use crate::models::{Trained, hf, peft};
use crate::nn::{Choice, Purpose, Sampling, Store, Streams};
use crate::{Error, Result};
use candle_core::{D, DType, Tensor};
use ndarray::{Array1, Array2};
use std::path::Path;

const ROLLOUT: Purpose = Purpose("rollout");

/// Rows scored or sampled at once where no gradient is kept.
const ROWS: usize = 64;

/// What fills rows up; masked, so its value changes nothing.
const PAD: u32 = 0;

/// A prompt: its text, and the tokens the policy reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    pub text: String,
    pub ids: Vec<u32>,
}

/// A response to a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// Text of the prompt: what a reward reads.
    pub query: String,
    /// Tokens of the prompt, without padding.
    pub prompt: Vec<u32>,
    /// Tokens that count: up to and including EOS, or all that were allowed.
    pub ids: Vec<u32>,
    /// The response as text, without special tokens.
    pub text: String,
}

/// What a policy's responses are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Responses {
    /// The distribution of a token: in sampling, in scoring and in training. Where it is truncated, a token that has left
    /// the kept set since it was drawn, or is not in the reference policy's, is scored as its last member
    /// ([`Sampling::of_drawn`]).
    pub sampling: Sampling,
    /// Longest response, tokens.
    pub response_length: usize,
    /// The token that ends a response; it counts.
    pub eos: u32,
}

/// The trained model sees the variables: its outputs have gradients. Its twin shares their storage without gradients: it
/// samples and scores.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // a world has one
enum Model {
    /// A decoder with its language head.
    Policy { trained: Decoder, twin: Decoder },
    /// A decoder with a reward head, read at a row's last token.
    Reward { trained: RewardModel, twin: RewardModel },
}

/// A policy or a reward model on text.
#[derive(Debug)]
pub struct Text {
    config: DecoderConfig,
    store: Store,
    model: Model,
    /// What of it is trained.
    training: Trained,
    /// The reference policy; without one a policy is its own.
    reference: Option<Decoder>,
    tokenizer: Tokenizer,
    responses: Responses,
}

/// Outputs that a gradient can be pulled through.
#[derive(Debug)]
pub enum Graph {
    /// Log-probabilities of all counted tokens, row after row, and how many each row has. `[tokens]`
    Tokens(Tensor, Vec<usize>),
    /// `[rows]`
    Scores(Tensor),
}

impl Text {
    /// A policy with these parameters.
    ///
    /// # Errors
    /// When the parameters do not fit `config`.
    pub fn policy(config: DecoderConfig, store: Store, tokenizer: Tokenizer, responses: Responses) -> Result<Self> {
        let trained = hf::decoder(&config, &store)?;
        let model = Model::Policy { twin: trained.detached(), trained };
        Ok(Self { config, store, model, training: Trained::Full, reference: None, tokenizer, responses })
    }

    /// A reward model with these parameters.
    ///
    /// # Errors
    /// When the parameters do not fit `config`.
    pub fn reward_model(config: &RewardConfig, store: Store, tokenizer: Tokenizer) -> Result<Self> {
        let responses = Responses { sampling: Sampling::ONE, response_length: 0, eos: tokenizer.eos()? };
        let trained = RewardModel::new(config, &store)?;
        let model = Model::Reward { twin: trained.detached(), trained };
        let (config, training) = (config.decoder.clone(), Trained::Full);
        Ok(Self { config, store, model, training, reference: None, tokenizer, responses })
    }

    /// The same policy, of which `training` is trained from now on. What the policy is now becomes the reference of every
    /// rollout: what is frozen is shared with it, so with an adapter there is no second set of weights. With `recompute`
    /// blocks are computed again in the backward, which takes less memory and more time.
    ///
    /// # Errors
    /// As [`Trained::prepare`]; when this is a reward model.
    pub fn begin(mut self, training: Trained, recompute: bool, streams: &Streams) -> Result<Self> {
        if let Model::Reward { .. } = self.model {
            return Err(no_log_probabilities());
        }
        training.prepare(&self.config, &mut self.store, streams)?;
        self.reference = Some(hf::decoder(&self.config, &self.store.reference()?)?);
        let trained = hf::decoder(&self.config, &self.store)?;
        let twin = trained.detached();
        self.model = Model::Policy { trained: if recompute { trained.recomputing() } else { trained }, twin };
        self.training = training;
        Ok(self)
    }

    /// Puts the values that [`Text::save`] has written to `folder` into what is trained.
    ///
    /// # Errors
    /// When the folder is not whole, or holds another model or adapter.
    pub fn restore(&mut self, folder: &Path) -> Result<()> {
        let tensors = match &self.training {
            Trained::Adapter(lora) => peft::tensors_of(folder, lora, &self.config)?,
            Trained::Full | Trained::LastBlocks(_) => {
                hf::load(folder, self.store.dtype(), self.store.device())?.1.to_tensors()
            }
        };
        self.store.set_some(&tensors).map_err(|error| Error::file(folder, error))
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// From now on the policy is the one so sampled.
    pub fn set_sampling(&mut self, sampling: Sampling) {
        self.responses.sampling = sampling;
    }

    /// The shape of the decoder.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The parameters.
    pub fn parameters(&self) -> &Store {
        &self.store
    }

    /// Takes `shift` off every score from now on; nothing changes for a policy.
    ///
    /// # Errors
    /// When the reward model's head has no shift.
    pub fn set_shift(&mut self, shift: f64) -> Result<()> {
        if let Model::Reward { trained, twin } = &mut self.model {
            *trained = trained.clone().with_shift(shift)?;
            *twin = trained.detached();
        }
        Ok(())
    }

    /// Writes model and tokenizer as a Hugging Face folder; where an adapter is trained, the adapter alone, as a PEFT folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        match (&self.model, &self.training) {
            (Model::Policy { .. }, Trained::Adapter(lora)) => peft::save(folder, lora, &self.store)?,
            (Model::Policy { .. }, _) => hf::save(folder, &self.config, &self.store)?,
            (Model::Reward { trained, .. }, _) => reward::folder::save(folder, trained.config(), &self.store)?,
        }
        self.tokenizer.save(folder)
    }

    /// Writes a policy and its tokenizer as a Hugging Face folder, an adapter worked into the weights.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save_merged(&self, folder: &Path) -> Result<()> {
        hf::save(folder, &self.config, &self.store.merged()?)?;
        self.tokenizer.save(folder)
    }

    /// A given response as a trajectory: no old log-probabilities, every token of `ids` counts.
    pub fn given(
        &self,
        prompt: u64,
        query: &str,
        prompt_ids: Vec<u32>,
        ids: Vec<u32>,
        text: &str,
    ) -> Trajectory<Response> {
        let ended = ids.last() == Some(&self.responses.eos);
        let steps = ids.len();
        let record = Response { query: query.into(), prompt: prompt_ids, ids, text: text.into() };
        Trajectory { prompt, sample: 0, record, steps, old: vec![], reference: vec![], ended }
    }

    /// Scores of a reward model for `rows` of tokens, each read at its last token, without gradient.
    ///
    /// # Errors
    /// When this is a policy, a row is empty, or candle fails.
    pub fn scores(&self, rows: &[Vec<u32>]) -> Result<Vec<f64>> {
        let Model::Reward { twin, .. } = &self.model else { return Err(no_scores()) };
        let mut scores = vec![];
        for rows in rows.chunks(ROWS) {
            scores.extend(twin.rewards(&TokenBatch::right_padded(rows, PAD)?)?.to_dtype(DType::F64)?.to_vec1::<f64>()?);
        }
        Ok(scores)
    }

    /// `ln pi` of each counted token of `rows` (prompt, response), nats, under `decoder`, without gradient.
    fn score_tokens(&self, decoder: &Decoder, rows: &[(&[u32], &[u32])]) -> Result<Vec<Vec<f64>>> {
        let mut all = vec![];
        for rows in rows.chunks(ROWS) {
            let (logprobs, _, counts) = self.token_outputs(decoder, rows)?;
            let flat = logprobs.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            let mut rest = flat.as_slice();
            for count in counts {
                let (row, after) = rest.split_at(count);
                all.push(row.to_vec());
                rest = after;
            }
        }
        Ok(all)
    }

    /// Log-probability and entropy of every counted token of `rows` (prompt, response), row after row, `[tokens]` each.
    fn token_outputs(&self, decoder: &Decoder, rows: &[(&[u32], &[u32])]) -> Result<(Tensor, Tensor, Vec<usize>)> {
        let (logprobs, entropy) = decoder.scores(rows, self.responses.sampling.of_drawn())?;
        Ok((logprobs, entropy, rows.iter().map(|(_, ids)| ids.len()).collect()))
    }

    /// `k` completions of each prompt, drawn with the twin.
    fn complete(
        &self,
        twin: &Decoder,
        prompts: &[(u64, &Prompt)],
        k: usize,
        streams: &Streams,
        step: u64,
    ) -> Result<Vec<Completion>> {
        let generation = Generation {
            max_new: self.responses.response_length,
            choice: Choice::Sample(self.responses.sampling),
            stop: &[self.responses.eos],
            samples: k,
            batch: ROWS,
        };
        let ids: Vec<Vec<u32>> = prompts.iter().map(|(_, p)| p.ids.clone()).collect();
        let stream = |prompt: usize, sample: usize| streams.stream(ROLLOUT, step, prompts[prompt].0, sample as u64);
        generate(twin, &ids, generation, stream)
    }
}

fn no_scores() -> Error {
    Error::invalid("a policy has no scores")
}

fn no_log_probabilities() -> Error {
    Error::invalid("a reward model has no log-probabilities")
}

impl World for Text {
    type Prompt = Prompt;
    type Record = Response;
    type Graph = Graph;

    fn rollout(
        &self,
        prompts: &[(u64, &Prompt)],
        k: usize,
        streams: &Streams,
        step: u64,
    ) -> Result<Vec<Vec<Trajectory<Response>>>> {
        let Model::Policy { twin, .. } = &self.model else { return Err(no_log_probabilities()) };
        let drawn = self.complete(twin, prompts, k, streams, step)?;
        let rows: Vec<(&[u32], &[u32])> =
            drawn.iter().enumerate().map(|(i, c)| (prompts[i / k].1.ids.as_slice(), c.ids.as_slice())).collect();
        let old = self.score_tokens(twin, &rows)?;
        let reference = match &self.reference {
            Some(reference) => self.score_tokens(reference, &rows)?,
            None => old.clone(),
        };
        let mut flat = vec![];
        for (i, ((generated, old), reference)) in drawn.into_iter().zip(old).zip(reference).enumerate() {
            let (prompt, p) = prompts[i / k];
            let text = self.tokenizer.decode(&generated.ids, true)?;
            let (ended, steps) = (generated.stopped, generated.ids.len());
            let record = Response { query: p.text.clone(), prompt: p.ids.clone(), ids: generated.ids, text };
            flat.push(Trajectory { prompt, sample: (i % k) as u64, record, steps, old, reference, ended });
        }
        let mut flat = flat.into_iter();
        Ok(prompts.iter().map(|_| flat.by_ref().take(k).collect()).collect())
    }

    fn outputs(&self, trajectories: &[&Trajectory<Response>], ask: Ask) -> Result<(Outputs, Graph)> {
        match (ask, &self.model) {
            (Ask::LogProbabilities, Model::Policy { trained, .. }) => {
                let rows: Vec<(&[u32], &[u32])> =
                    trajectories.iter().map(|t| (t.record.prompt.as_slice(), t.record.ids.as_slice())).collect();
                let (logprobs, entropy, counts) = self.token_outputs(trained, &rows)?;
                let outputs = Outputs::LogProbabilities {
                    values: rows_of(&logprobs, &counts)?,
                    mask: Array2::from_shape_fn(shape(&counts), |(row, step)| f64::from(u8::from(step < counts[row]))),
                    entropy: rows_of(&entropy, &counts)?,
                };
                Ok((outputs, Graph::Tokens(logprobs, counts)))
            }
            (Ask::Scores, Model::Reward { trained, .. }) => {
                let rows: Vec<Vec<u32>> =
                    trajectories.iter().map(|t| [t.record.prompt.as_slice(), &t.record.ids].concat()).collect();
                let scores = trained.rewards(&TokenBatch::right_padded(&rows, PAD)?)?; // [rows]
                let values = scores.to_dtype(DType::F64)?.to_vec1::<f64>()?;
                Ok((Outputs::Scores(Array1::from(values)), Graph::Scores(scores)))
            }
            (Ask::LogProbabilities, Model::Reward { .. }) => Err(no_log_probabilities()),
            (Ask::Scores, Model::Policy { .. }) => Err(no_scores()),
        }
    }

    fn pull(&mut self, graph: Graph, cotangents: &Cotangents) -> Result<()> {
        let (outputs, flat): (Tensor, Vec<f64>) = match (graph, cotangents) {
            (Graph::Tokens(logprobs, counts), Cotangents::LogProbabilities(of)) => {
                let flat = counts.iter().enumerate().flat_map(|(row, &n)| (0..n).map(move |step| of[[row, step]]));
                (logprobs, flat.collect())
            }
            (Graph::Scores(scores), Cotangents::Scores(of)) => (scores, of.to_vec()),
            _ => return Err(mismatched()),
        };
        let of = Tensor::from_vec(flat, outputs.dims(), outputs.device())?.to_dtype(outputs.dtype())?;
        let loss = (outputs * of)?.sum(D::Minus1)?;
        let gradients = match &self.model {
            Model::Policy { trained, .. } => trained.backward(&loss)?,
            Model::Reward { trained, .. } => trained.decoder().backward(&loss)?,
        };
        drop(loss); // the graph, before sums of gradients are made
        self.store.accumulate(gradients)
    }

    fn store(&mut self) -> &mut Store {
        &mut self.store
    }
}

fn shape(counts: &[usize]) -> (usize, usize) {
    (counts.len(), counts.iter().copied().max().unwrap_or(0))
}

/// A flat `[tokens]` tensor as `[rows, steps]`, 0 where a row is shorter.
fn rows_of(flat: &Tensor, counts: &[usize]) -> Result<Array2<f64>> {
    let flat = flat.detach().to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let mut values = Array2::zeros(shape(counts));
    let mut at = 0;
    for (row, &count) in counts.iter().enumerate() {
        for step in 0..count {
            values[[row, step]] = flat[at];
            at += 1;
        }
    }
    Ok(values)
}
