//! RLOO(k): REINFORCE with the mean of the other samples' rewards as its baseline.

use super::{Objective, OnTape, of_groups};
use crate::world::{Ask, Group};
use rebel_theory::objective::tape::{Tape, Var};
use rebel_theory::objective::{self, ArithError};

/// RLOO over groups of `k` samples of one prompt, k at least 2.
#[derive(Debug, Clone, Copy)]
pub struct Rloo {
    pub k: usize,
}

impl Objective for Rloo {
    fn ask(&self) -> Ask {
        Ask::LogProbabilities
    }

    fn count<R>(&self, _: &Group<R>) -> f64 {
        1.0
    }

    fn sum<'t, R>(&self, tape: &'t Tape, outputs: &OnTape<'t>, groups: &[Group<R>]) -> Result<Var<'t>, ArithError> {
        let reward = of_groups(tape, groups, self.k, |g| g.rewards.clone())?; // [prompts, k]
        objective::rloo(&outputs.sequence(self.k)?, &reward)
    }
}
