//! Scores of text: a learned reward model, and the tiny world's gold rule.

use crate::Result;
use crate::data::jsonl::Reference;
use crate::models::TokenBatch;
use crate::models::reward::{self, RewardModel};
use crate::models::tokenizer::Tokenizer;
use crate::nn::Place;
use crate::reward::Score;
use crate::tiny::gold::gold;
use crate::world::Trajectory;
use crate::world::text::Response;
use candle_core::DType;
use std::path::Path;

/// Rows scored at once.
const ROWS: usize = 64;

/// A reward model of a Hugging Face folder, with its own tokenizer: it reads text.
#[derive(Debug)]
pub struct LearnedReward {
    model: RewardModel,
    tokenizer: Tokenizer,
    queries: u64,
}

impl LearnedReward {
    /// Loads the folder to `place`.
    ///
    /// # Errors
    /// When it is not a whole reward model with its tokenizer.
    pub fn load(folder: &Path, place: &Place) -> Result<Self> {
        let (config, store) = reward::folder::load(folder, place.dtype, &place.device)?;
        let model = RewardModel::new(&config, &store)?.detached();
        Ok(Self { model, tokenizer: Tokenizer::load(folder)?, queries: 0 })
    }

    /// Sets the count of queries (what a checkpoint remembers, or what a measurement should not be charged).
    pub fn count_from(&mut self, queries: u64) {
        self.queries = queries;
    }

    /// Scores of human references; not counted as queries.
    ///
    /// # Errors
    /// When a text cannot be tokenized, or candle fails.
    pub fn of_references(&self, references: &[Reference]) -> Result<Vec<f64>> {
        let rows = references.iter().map(|r| self.row(&r.query, &r.reference_response, false));
        self.scores(&rows.collect::<Result<Vec<_>>>()?)
    }

    fn row(&self, query: &str, response: &str, ended: bool) -> Result<Vec<u32>> {
        let mut ids = self.tokenizer.encode(query)?;
        ids.extend(self.tokenizer.encode(response)?);
        if ended {
            ids.push(self.tokenizer.eos()?);
        }
        Ok(ids)
    }

    fn scores(&self, rows: &[Vec<u32>]) -> Result<Vec<f64>> {
        let mut scores = vec![];
        for rows in rows.chunks(ROWS) {
            let rewards = self.model.rewards(&TokenBatch::right_padded(rows, 0)?)?;
            scores.extend(rewards.to_dtype(DType::F64)?.to_vec1::<f64>()?);
        }
        Ok(scores)
    }
}

impl Score<Response> for LearnedReward {
    /// Read at EOS where the response ended, else at its last token.
    fn score(&mut self, trajectories: &[&Trajectory<Response>]) -> Result<Vec<f64>> {
        self.queries += trajectories.len() as u64;
        let rows = trajectories.iter().map(|t| self.row(&t.record.query, &t.record.text, t.ended));
        self.scores(&rows.collect::<Result<Vec<_>>>()?)
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
