//! The border between algorithms and what they train.
//!
//! An algorithm sees [`Trajectory`]s, not text, images or arms. A [`World`] makes them ([`World::rollout`]), says what
//! the current parameters think of them ([`World::outputs`]) and takes back the derivative of the loss with respect to
//! those numbers ([`World::pull`]). Everything between is [`crate::algorithm`], the same for every world.

pub mod bandit;
pub mod text;

use crate::nn::{Store, Streams};
use crate::{Error, Result};
use ndarray::{Array1, Array2};

/// One finished episode: a drawn arm, a written response.
#[derive(Debug, Clone)]
pub struct Trajectory<R> {
    /// Which prompt of the data it answers.
    pub prompt: u64,
    /// Which of the prompt's samples it is.
    pub sample: u64,
    /// What the world needs to look at it again.
    pub record: R,
    /// How many steps count: 1 for an arm, the tokens up to and including EOS for a response.
    pub steps: usize,
    /// `ln pi_t` of each step under the policy that was sampled, nats. Empty for given data.
    pub old: Vec<f64>,
    /// `ln pi_ref` of each step under the reference policy, nats. Empty for given data.
    pub reference: Vec<f64>,
    /// Whether the episode came to its own end (an EOS that counts), rather than to the limit of its length.
    pub ended: bool,
}

impl<R> Trajectory<R> {
    /// `ln pi_t` of the whole trajectory, nats.
    pub fn old_total(&self) -> f64 {
        self.old.iter().sum()
    }

    /// One-sample estimate of `KL(pi_t || pi_ref)`, nats: the log-ratio summed over steps. It can be negative.
    pub fn kl(&self) -> f64 {
        self.old.iter().zip(&self.reference).map(|(old, reference)| old - reference).sum()
    }
}

/// What is compared with each other and never torn apart: the pair, the k samples of one prompt, a preference.
#[derive(Debug, Clone)]
pub struct Group<R> {
    /// In a preference the preferred one stands first.
    pub trajectories: Vec<Trajectory<R>>,
    /// The reward of each, after everything that shapes it. Empty where the objective uses none.
    pub rewards: Vec<f64>,
}

/// Which outputs an objective wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The log-probability of each step.
    LogProbabilities,
    /// One score for the whole trajectory (reward models).
    Scores,
}

/// What the current parameters think of some trajectories, in their order.
#[derive(Debug, Clone)]
pub enum Outputs {
    /// Per step, nats.
    LogProbabilities {
        /// `[rows, steps]`, 0 where not counted.
        values: Array2<f64>,
        /// 1 on counted steps, else 0. `[rows, steps]`
        mask: Array2<f64>,
        /// Entropy of each step's distribution, nats, 0 where not counted. `[rows, steps]`
        entropy: Array2<f64>,
    },
    /// Per trajectory. `[rows]`
    Scores(Array1<f64>),
}

/// The derivative of a loss with respect to [`Outputs`], in their shape.
#[derive(Debug, Clone)]
pub enum Cotangents {
    /// `[rows, steps]`
    LogProbabilities(Array2<f64>),
    /// `[rows]`
    Scores(Array1<f64>),
}

/// What can be trained: a bandit, a language model.
pub trait World {
    /// What it takes to start an episode.
    type Prompt;
    /// What it takes to look at a finished episode again.
    type Record: Clone;
    /// Outputs with their derivative kept behind them.
    type Graph;

    /// Draws `k` trajectories for each prompt from the current policy, each from its own random stream
    /// `(step, prompt, sample)`, with its log-probabilities under that policy and under the reference.
    fn rollout(
        &self,
        prompts: &[(u64, &Self::Prompt)],
        k: usize,
        streams: &Streams,
        step: u64,
    ) -> Result<Vec<Vec<Trajectory<Self::Record>>>>;

    /// What the current parameters think of `trajectories`.
    fn outputs(&self, trajectories: &[&Trajectory<Self::Record>], ask: Ask) -> Result<(Outputs, Self::Graph)>;

    /// Back-propagates the cotangents of outputs and adds to the gradient of each trainable parameter.
    fn pull(&mut self, graph: Self::Graph, cotangents: &Cotangents) -> Result<()>;

    /// The parameters and their gradients.
    fn store(&mut self) -> &mut Store;
}

/// Two outputs and cotangents that do not belong together are a mistake of the caller.
pub(crate) fn mismatched() -> Error {
    Error::invalid("the cotangents are not of the kind of output that was asked for")
}
