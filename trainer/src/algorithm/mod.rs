//! Algorithms, one file each, over any [`World`](crate::world::World).
//!
//! They have two shapes here: [`supervised`] (given data: supervised fine-tuning, the reward model) and [`online`]
//! (rollout, reward, inner epochs). What differs between two algorithms of one shape is the [`Objective`]: which
//! function of [`rebel_theory::objective`] is minimised. [`update`] is the one place where parameters change.

pub mod bradley_terry;
pub mod online;
pub mod rebel;
pub mod rloo;
pub mod sft;
pub mod supervised;
pub mod update;

use crate::world::{Ask, Group};
use rebel_theory::objective::ArithError;
use rebel_theory::objective::tape::{Tape, Var};

/// An objective of [`rebel_theory::objective`], fed from groups of trajectories.
pub trait Objective {
    /// Which outputs of the world it is a function of.
    fn ask(&self) -> Ask;

    /// How much `group` counts in the mean that is minimised: 1 for a pair, the number of tokens for cross-entropy.
    fn count<R>(&self, group: &Group<R>) -> f64;

    /// The objective, summed over `groups`; `outputs` holds their trajectories' outputs, group by group.
    fn sum<'t, R>(&self, tape: &'t Tape, outputs: &OnTape<'t>, groups: &[Group<R>]) -> Result<Var<'t>, ArithError>;
}

/// Outputs of a world as inputs of a tape.
pub enum OnTape<'t> {
    /// Log-probability of each step and what is counted, both `[rows, steps]`.
    LogProbabilities { values: Var<'t>, mask: Var<'t> },
    /// `[rows]`
    Scores(Var<'t>),
}

impl<'t> OnTape<'t> {
    /// Log-probability of each whole trajectory, nats: `[groups, k]`.
    ///
    /// # Errors
    /// When there are no log-probabilities, or not k for each group.
    pub fn sequence(&self, k: usize) -> Result<Var<'t>, ArithError> {
        use rebel_theory::objective::Arith;
        match self {
            Self::LogProbabilities { values, mask } => {
                let total = values.times(mask)?.row_total()?.column(0)?; // [rows]
                total.reshape(&[total.value().len() / k.max(1), k])
            }
            Self::Scores(_) => Err(ArithError::Shape("scores are not log-probabilities".into())),
        }
    }
}

/// One number of each trajectory, as `[groups, k]` on the tape.
pub(crate) fn of_groups<'t, R>(
    tape: &'t Tape,
    groups: &[Group<R>],
    k: usize,
    values: impl Fn(&Group<R>) -> Vec<f64>,
) -> Result<Var<'t>, ArithError> {
    let flat: Vec<f64> = groups.iter().flat_map(values).collect();
    let shape = [groups.len(), k];
    let array = ndarray::ArrayD::from_shape_vec(shape.as_slice(), flat)
        .map_err(|_| ArithError::Shape(format!("a group does not hold {k} trajectories with a value each")))?;
    Ok(tape.input(array))
}
