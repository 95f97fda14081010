//! Learning from given data: batches in a seeded order, one update each.

use super::Objective;
use super::update::{Optimizer, Updated, update};
use crate::Result;
use crate::nn::{Purpose, Schedule, Streams};
use crate::world::{Group, World};
use rand::seq::SliceRandom;

const DATA_ORDER: Purpose = Purpose("data order");

/// How given data are walked through.
#[derive(Debug, Clone, Copy)]
pub struct Supervised {
    /// Groups an update.
    pub batch: usize,
    /// Learning rate before the schedule.
    pub learning_rate: f64,
    /// How it falls.
    pub schedule: Schedule,
}

impl Supervised {
    /// Update number `step` (from 0) on `data`: the batch it draws depends on (seed, step) alone, so a resumed run goes
    /// on with the batch it would have had.
    ///
    /// # Errors
    /// As [`update`].
    pub fn iterate<W: World, O: Objective>(
        &self,
        world: &mut W,
        optimizer: &mut Optimizer,
        objective: &O,
        data: &[Group<W::Record>],
        streams: &Streams,
        step: usize,
    ) -> Result<Updated> {
        let batch: Vec<_> = self.batch_at(data.len(), streams, step).into_iter().map(|i| data[i].clone()).collect();
        update(world, optimizer, objective, &batch, self.rate(step))
    }

    /// The learning rate of update `step`, counted from 0.
    pub fn rate(&self, step: usize) -> f64 {
        self.learning_rate * self.schedule.multiplier(step as u64)
    }

    /// Which rows make up batch `step`: every pass over the data has its own order, a batch may span two.
    pub fn batch_at(&self, rows: usize, streams: &Streams, step: usize) -> Vec<usize> {
        order(rows, streams, DATA_ORDER, self.batch, step)
    }
}

/// Rows `step * batch ..` of an endless sequence of seeded permutations of `0..rows`.
pub(crate) fn order(rows: usize, streams: &Streams, purpose: Purpose, batch: usize, step: usize) -> Vec<usize> {
    let mut pass = usize::MAX;
    let mut permutation: Vec<usize> = vec![];
    (step * batch..(step + 1) * batch)
        .map(|position| {
            if position / rows != pass {
                pass = position / rows;
                permutation = (0..rows).collect();
                permutation.shuffle(&mut streams.stream(purpose, pass as u64, 0, 0));
            }
            permutation[position % rows]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_visits_every_row_once_and_passes_differ() {
        let streams = Streams::new(7);
        let rows: Vec<usize> = (0..5).flat_map(|step| order(10, &streams, DATA_ORDER, 4, step)).collect();
        let mut first = rows[..10].to_vec();
        let mut second = rows[10..].to_vec();
        assert_ne!(first, second);
        first.sort();
        second.sort();
        assert_eq!(first, (0..10).collect::<Vec<_>>());
        assert_eq!(first, second);
    }
}
