//! One step of descent on any objective in any world: the only place where parameters change.

use super::{Objective, OnTape};
use crate::nn::{AdamW, clip_factor};
use crate::world::{Cotangents, Group, Outputs, Trajectory, World};
use crate::{Error, Result};
use ndarray::{Axis, Ix1, Ix2};
use rebel_theory::objective::Arith;
use rebel_theory::objective::tape::Tape;

/// An optimizer with what surrounds it.
#[derive(Debug)]
pub struct Optimizer {
    /// The update rule and its moments.
    pub adamw: AdamW,
    /// Largest global norm of the gradient; infinity never clips (as the published language runs).
    pub clip: f64,
    /// Groups in one forward and backward pass. It changes memory, and no number beyond rounding.
    pub micro_batch: usize,
}

/// What an update saw, all before the step was taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Updated {
    /// The objective's mean over the batch.
    pub loss: f64,
    /// Global norm of the gradient, before clipping.
    pub gradient_norm: f64,
    /// Mean over counted steps of the entropy, nats; 0 for scores.
    pub entropy: f64,
    /// Mean over trajectories of half the squared log-ratio to the sampled policy, nats^2; 0 for given data.
    pub approximate_kl: f64,
    /// Mean over trajectories of the probability ratio to the sampled policy; 1 for given data.
    pub ratio: f64,
}

/// One step on the mean of `objective` over `groups`: cut into micro-batches of whole groups, for each outputs ->
/// objective on the tape -> cotangents -> pull; then clip and step.
///
/// # Errors
/// When the batch is empty, the loss is not finite, or a trainable parameter received no gradient (named).
pub fn update<W: World, O: Objective>(
    world: &mut W,
    optimizer: &mut Optimizer,
    objective: &O,
    groups: &[Group<W::Record>],
    learning_rate: f64,
) -> Result<Updated> {
    let seen = gradient(world, objective, groups, optimizer.micro_batch)?;
    let store = world.store();
    let missing = store.missing_gradients();
    let gradients = store.take_gradients();
    if let Some(name) = missing.first() {
        return Err(Error::invalid(format!("{name}: no gradient reached this trainable parameter")));
    }
    let (gradient_norm, factor) = clip_factor(&gradients, optimizer.clip)?;
    if !gradient_norm.is_finite() {
        return Err(Error::invalid(format!(
            "the gradient's norm became {gradient_norm} (a smaller learning rate may help)"
        )));
    }
    optimizer.adamw.step_scaled(store, &gradients, learning_rate, factor)?;
    Ok(Updated { gradient_norm, ..seen })
}

/// The gradient of the mean of `objective` over `groups`, added to the store's; `gradient_norm` is left at 0.
///
/// # Errors
/// As [`update`].
pub fn gradient<W: World, O: Objective>(
    world: &mut W,
    objective: &O,
    groups: &[Group<W::Record>],
    micro_batch: usize,
) -> Result<Updated> {
    let total: f64 = groups.iter().map(|group| objective.count(group)).sum();
    if total <= 0.0 {
        return Err(Error::invalid("an update needs at least one group that counts"));
    }
    let mut sums = Sums::default();
    for micro in groups.chunks(micro_batch.max(1)) {
        let trajectories: Vec<&Trajectory<W::Record>> = micro.iter().flat_map(|g| &g.trajectories).collect();
        let (outputs, graph) = world.outputs(&trajectories, objective.ask())?;
        sums.add(&outputs, &trajectories);
        let tape = Tape::new();
        let inputs = on_tape(&tape, &outputs);
        let loss = objective.sum(&tape, &inputs, micro)?.scale(1.0 / total)?;
        sums.loss += loss.value().sum();
        let found = tape.cotangents(&loss)?;
        let cotangents = match &inputs {
            OnTape::LogProbabilities { values, .. } => {
                Cotangents::LogProbabilities(found.of(values).into_dimensionality::<Ix2>().expect("[rows, steps]"))
            }
            OnTape::Scores(scores) => {
                Cotangents::Scores(found.of(scores).into_dimensionality::<Ix1>().expect("[rows]"))
            }
        };
        world.pull(graph, &cotangents)?;
    }
    if !sums.loss.is_finite() {
        world.store().take_gradients();
        return Err(Error::invalid(format!("the loss became {} (a smaller learning rate may help)", sums.loss)));
    }
    Ok(sums.finish())
}

/// The objective's mean over `groups` under the current parameters, without any gradient.
///
/// # Errors
/// As [`update`].
pub fn evaluate<W: World, O: Objective>(
    world: &W,
    objective: &O,
    groups: &[Group<W::Record>],
    micro_batch: usize,
) -> Result<f64> {
    let total: f64 = groups.iter().map(|group| objective.count(group)).sum();
    let mut sum = 0.0;
    for micro in groups.chunks(micro_batch.max(1)) {
        let trajectories: Vec<&Trajectory<W::Record>> = micro.iter().flat_map(|g| &g.trajectories).collect();
        let (outputs, _) = world.outputs(&trajectories, objective.ask())?;
        let tape = Tape::new();
        sum += objective.sum(&tape, &on_tape(&tape, &outputs), micro)?.value().sum();
    }
    Ok(sum / total)
}

fn on_tape<'t>(tape: &'t Tape, outputs: &Outputs) -> OnTape<'t> {
    match outputs {
        Outputs::LogProbabilities { values, mask, .. } => OnTape::LogProbabilities {
            values: tape.input(values.clone().into_dyn()),
            mask: tape.input(mask.clone().into_dyn()),
        },
        Outputs::Scores(scores) => OnTape::Scores(tape.input(scores.clone().into_dyn())),
    }
}

/// Running sums over micro-batches.
#[derive(Default)]
struct Sums {
    loss: f64,
    steps: f64,
    entropy: f64,
    compared: f64,
    squared: f64,
    ratio: f64,
}

impl Sums {
    fn add<R>(&mut self, outputs: &Outputs, trajectories: &[&Trajectory<R>]) {
        let Outputs::LogProbabilities { values, mask, entropy } = outputs else { return };
        self.steps += mask.sum();
        self.entropy += entropy.sum();
        let new = (values * mask).sum_axis(Axis(1)); // [rows]
        for (new, trajectory) in new.iter().zip(trajectories).filter(|(_, t)| !t.old.is_empty()) {
            let moved = new - trajectory.old_total();
            self.compared += 1.0;
            self.squared += 0.5 * moved * moved;
            self.ratio += moved.exp();
        }
    }

    fn finish(self) -> Updated {
        let mean = |sum: f64, count: f64, otherwise: f64| if count > 0.0 { sum / count } else { otherwise };
        Updated {
            loss: self.loss,
            gradient_norm: 0.0,
            entropy: mean(self.entropy, self.steps, 0.0),
            approximate_kl: mean(self.squared, self.compared, 0.0),
            ratio: mean(self.ratio, self.compared, 1.0),
        }
    }
}
