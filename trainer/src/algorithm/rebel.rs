//! REBEL (equation 1 of the paper): regress the difference of two rewards on the movement of the log-ratio.
//!
//! This one file fine-tunes a language model and solves a bandit.

use super::{Objective, OnTape, of_groups};
use crate::world::{Ask, Group, Trajectory};
use rebel_theory::objective::tape::{Tape, Var};
use rebel_theory::objective::{self, ArithError, Eta};

/// REBEL with step size `eta`; each group is a pair drawn from the same prompt.
#[derive(Debug, Clone, Copy)]
pub struct Rebel {
    pub eta: Eta,
}

impl Objective for Rebel {
    fn ask(&self) -> Ask {
        Ask::LogProbabilities
    }

    fn count<R>(&self, _: &Group<R>) -> f64 {
        1.0
    }

    fn sum<'t, R>(&self, tape: &'t Tape, outputs: &OnTape<'t>, groups: &[Group<R>]) -> Result<Var<'t>, ArithError> {
        let new = outputs.sequence(2)?; // [pairs, 2]
        let old = of_groups(tape, groups, 2, |g| g.trajectories.iter().map(Trajectory::old_total).collect())?;
        let reward = of_groups(tape, groups, 2, |g| g.rewards.clone())?;
        objective::rebel(&new, &old, &reward, self.eta)
    }
}
