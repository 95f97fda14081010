//! Cross-entropy of given tokens: pre-training and supervised fine-tuning.

use super::{Objective, OnTape};
use crate::world::{Ask, Group};
use rebel_theory::objective::tape::{Tape, Var};
use rebel_theory::objective::{self, ArithError};

/// The mean over all counted tokens of the batch of `-ln pi(token)`.
#[derive(Debug, Clone, Copy)]
pub struct Sft;

impl Objective for Sft {
    fn ask(&self) -> Ask {
        Ask::LogProbabilities
    }

    fn count<R>(&self, group: &Group<R>) -> f64 {
        group.trajectories.iter().map(|t| t.steps as f64).sum()
    }

    fn sum<'t, R>(&self, _: &'t Tape, outputs: &OnTape<'t>, _: &[Group<R>]) -> Result<Var<'t>, ArithError> {
        match outputs {
            OnTape::LogProbabilities { values, mask } => objective::cross_entropy(values, mask),
            OnTape::Scores(_) => Err(ArithError::Shape("scores are not log-probabilities".into())),
        }
    }
}
