//! Scores of text: a learned reward model, and the tiny world's gold rule.

use crate::data::exchange::{Exchange, Prompt};
use crate::data::jsonl::Reference;
use crate::models::TokenBatch;
use crate::models::reward::{self, Assessment, Kind, RewardModel, reader::Reader};
use crate::nn::Place;
use crate::reward::Score;
use crate::tiny::gold::gold;
use crate::world::Trajectory;
use crate::world::text::Response;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::path::Path;

/// Rows that a run scores at once.
const ROWS: usize = 64;

/// What fills rows up; masked, so its value changes nothing.
const PAD: u32 = 0;

/// A reward model of a Hugging Face folder, of any kind, with its own tokenizer and layout: it reads text.
#[derive(Debug)]
pub struct LearnedReward {
    model: RewardModel,
    reader: Reader,
    queries: u64,
}

/// What a reward model says of one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The reward.
    pub reward: f64,
    /// The objectives it is made of and the weight of each, for a model that has some.
    pub parts: Option<Parts>,
}

/// A reward as a weighted sum of objectives.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// Each objective as it is read.
    pub objectives: Vec<f64>,
    /// The weight of each, after what they owe to one another is taken off.
    pub gating: Vec<f64>,
}

impl LearnedReward {
    /// Loads the folder to `place`.
    ///
    /// # Errors
    /// When it is not a whole reward model with its tokenizer and, where its kind has one, its chat template.
    pub fn load(folder: &Path, place: &Place) -> Result<Self> {
        let (mut config, store) = reward::folder::load(folder, place.dtype, &place.device)?;
        let reader = Reader::load(folder, &mut config)?;
        Ok(Self { model: RewardModel::new(&config, &store)?.detached(), reader, queries: 0 })
    }

    /// How it reads text.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// What its objectives are called, in their order; none where the reward is one number.
    pub fn objectives(&self) -> &[String] {
        match &self.model.config().kind {
            Kind::Mixture(mixture) => &mixture.objectives,
            _ => &[],
        }
    }

    /// Sets the count of queries (what a checkpoint remembers, or what a measurement should not be charged).
    pub fn count_from(&mut self, queries: u64) {
        self.queries = queries;
    }

    /// What it says of rows of tokens, which go through the model together; not counted as queries.
    ///
    /// # Errors
    /// An empty row, a token it does not have.
    pub fn judge(&self, rows: &[Vec<u32>]) -> Result<Vec<Judgement>> {
        let Assessment { rewards, mixed, .. } = self.model.assess(&TokenBatch::right_padded(rows, PAD)?)?;
        let rewards = rewards.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let Some(mixed) = mixed else {
            return Ok(rewards.into_iter().map(|reward| Judgement { reward, parts: None }).collect());
        };
        let wide = |x: &Tensor| -> Result<Vec<Vec<f64>>> { Ok(x.to_dtype(DType::F64)?.to_vec2()?) };
        let parts = wide(&mixed.objectives)?.into_iter().zip(wide(&mixed.gating)?);
        let judgement =
            |(reward, (objectives, gating))| Judgement { reward, parts: Some(Parts { objectives, gating }) };
        Ok(rewards.into_iter().zip(parts).map(judgement).collect())
    }

    /// Scores of human references; not counted as queries.
    ///
    /// # Errors
    /// When a text cannot be tokenized, or candle fails.
    pub fn of_references(&self, references: &[Reference]) -> Result<Vec<f64>> {
        self.scores(references.iter().map(|r| exchange(&r.query, &r.reference_response, false)))
    }

    /// Scores of exchanges, in their order. An error names the exchange by its number.
    fn scores(&self, exchanges: impl Iterator<Item = Exchange>) -> Result<Vec<f64>> {
        let row = |(i, exchange): (usize, Exchange)| {
            self.reader.tokens(&exchange).map_err(|error| Error::invalid(format!("answer {i} to be scored: {error}")))
        };
        let rows = exchanges.enumerate().map(row).collect::<Result<Vec<_>>>()?;
        let mut scores = Vec::with_capacity(rows.len());
        for rows in rows.chunks(ROWS) {
            scores.extend(self.judge(rows)?.into_iter().map(|judgement| judgement.reward));
        }
        Ok(scores)
    }
}

fn exchange(query: &str, response: &str, finished: bool) -> Exchange {
    Exchange { prompt: Prompt::Text(query.into()), answer: response.into(), finished }
}

impl Score<Response> for LearnedReward {
    /// Read at the end of a response that ended, else at its last token.
    fn score(&mut self, trajectories: &[&Trajectory<Response>]) -> Result<Vec<f64>> {
        self.queries += trajectories.len() as u64;
        self.scores(trajectories.iter().map(|t| exchange(&t.record.query, &t.record.text, t.ended)))
    }

    fn queries(&self) -> u64 {
        self.queries
    }
}

/// The tiny world's gold reward: what the learned one is an estimate of.
#[derive(Debug, Default)]
pub struct Gold {
    queries: u64,
}

impl Gold {
    /// The gold reward of a response.
    pub fn of(response: &Response) -> f64 {
        gold(&response.query, &response.text)
    }
}

impl Score<Response> for Gold {
    fn score(&mut self, trajectories: &[&Trajectory<Response>]) -> Result<Vec<f64>> {
        self.queries += trajectories.len() as u64;
        Ok(trajectories.iter().map(|t| Self::of(&t.record)).collect())
    }

    fn queries(&self) -> u64 {
        self.queries
    }
}
