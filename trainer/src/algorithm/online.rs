//! Learning from own samples: roll out, reward, and take a few inner epochs on what was drawn.

use super::Objective;
use super::supervised::order;
use super::update::{Optimizer, Updated, update};
use crate::nn::{Purpose, Streams};
use crate::reward::{Recipe, Rewarded, Score};
use crate::world::{Group, Trajectory, World};
use crate::{Error, Result};
use rand::seq::SliceRandom;

/// The settings of an iteration.
#[derive(Debug, Clone, Copy)]
pub struct Online {
    /// Prompts an iteration.
    pub prompts: usize,
    /// Samples a prompt: 2 for REBEL.
    pub samples: usize,
    /// Inner epochs over the iteration's samples. One optimizer step each, as in the published code.
    pub epochs: usize,
}

/// Trajectories with their final rewards, a group a prompt, and how each reward came about, in the groups' order.
pub type Drawn<R> = (Vec<Group<R>>, Vec<Rewarded>);

/// What an iteration drew and learned.
#[derive(Debug)]
pub struct Iteration<R> {
    /// The samples with their final rewards, a group a prompt.
    pub groups: Vec<Group<R>>,
    /// How each sample's reward came about, in the groups' order.
    pub rewarded: Vec<Rewarded>,
    /// One a inner epoch.
    pub updates: Vec<Updated>,
}

impl Online {
    /// Which of `available` prompts iteration `step` uses.
    pub fn prompts_at(&self, available: usize, streams: &Streams, step: usize) -> Vec<usize> {
        order(available, streams, Purpose("prompt order"), self.prompts, step)
    }

    /// One iteration: `samples` trajectories for each prompt, their rewards, `epochs` steps on `objective`.
    ///
    /// # Errors
    /// As [`update`]; also when the scorer fails.
    #[allow(clippy::too_many_arguments)]
    pub fn iterate<W: World, O: Objective>(
        &self,
        world: &mut W,
        optimizer: &mut Optimizer,
        objective: &O,
        prompts: &[(u64, &W::Prompt)],
        score: &mut dyn Score<W::Record>,
        recipe: &Recipe,
        streams: &Streams,
        step: u64,
        learning_rate: f64,
    ) -> Result<Iteration<W::Record>> {
        let (mut groups, rewarded) = self.draw(world, prompts, score, recipe, streams, step)?;
        let updates = (0..self.epochs)
            .map(|epoch| {
                groups.shuffle(&mut streams.stream(Purpose("epoch order"), step, epoch as u64, 0));
                update(world, optimizer, objective, &groups, learning_rate)
            })
            .collect::<Result<_>>()?;
        Ok(Iteration { groups, rewarded, updates })
    }

    /// Trajectories and rewards of one iteration, nothing learned.
    ///
    /// # Errors
    /// When the world cannot roll out or the scorer fails.
    pub fn draw<W: World>(
        &self,
        world: &W,
        prompts: &[(u64, &W::Prompt)],
        score: &mut dyn Score<W::Record>,
        recipe: &Recipe,
        streams: &Streams,
        step: u64,
    ) -> Result<Drawn<W::Record>> {
        let drawn = world.rollout(prompts, self.samples, streams, step)?;
        let flat: Vec<&Trajectory<W::Record>> = drawn.iter().flatten().collect();
        let scores = score.score(&flat)?;
        if scores.len() != flat.len() {
            return Err(Error::invalid(format!("{} scores for {} trajectories", scores.len(), flat.len())));
        }
        let rewarded: Vec<Rewarded> = flat.iter().zip(&scores).map(|(t, &s)| recipe.apply(s, t)).collect();
        let mut rewards = rewarded.iter().map(|r| r.reward);
        let groups = drawn
            .into_iter()
            .map(|trajectories| {
                let rewards = rewards.by_ref().take(trajectories.len()).collect();
                Group { trajectories, rewards }
            })
            .collect();
        Ok((groups, rewarded))
    }
}
