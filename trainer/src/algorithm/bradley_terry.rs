//! The reward model: a score for each response, fitted to choices between two.

use super::{Objective, OnTape};
use crate::world::{Ask, Group};
use rebel_theory::objective::tape::{Tape, Var};
use rebel_theory::objective::{self, ArithError};

/// The Bradley-Terry likelihood of comparisons; each group is (chosen, rejected).
#[derive(Debug, Clone, Copy)]
pub struct BradleyTerry;

impl Objective for BradleyTerry {
    fn ask(&self) -> Ask {
        Ask::Scores
    }

    fn count<R>(&self, _: &Group<R>) -> f64 {
        1.0
    }

    fn sum<'t, R>(&self, _: &'t Tape, outputs: &OnTape<'t>, groups: &[Group<R>]) -> Result<Var<'t>, ArithError> {
        match outputs {
            OnTape::Scores(scores) => objective::bradley_terry(&scores.reshape(&[groups.len(), 2])?),
            OnTape::LogProbabilities { .. } => Err(ArithError::Shape("log-probabilities are not scores".into())),
        }
    }
}
