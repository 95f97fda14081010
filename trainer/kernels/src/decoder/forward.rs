//! The forward pass through all blocks.

use std::ops::Range;
use std::sync::Arc;

use super::batch::Batch;
use super::decode::Kept;
use super::layer::{Acts, Run, Scratch};
use super::shape::Model;
use super::weights::Weights;
use super::{Machine, Shape};
use crate::buffer::{Arena, Buffer};
use crate::panel::{Matrix, PANEL};

/// Rows a task takes at once: enough to use a panel of weights well while it is near.
const GROUP: usize = 256;

/// How rows are dealt to tasks.
#[derive(Debug, Clone)]
pub(super) enum Deal {
    /// Units, several at once: a task goes through all of them.
    Units(Vec<Range<usize>>),
    /// Too few units for that: rows, and for attention heads; threads meet between the two.
    Rows(Vec<Range<usize>>),
}

impl Deal {
    pub fn new(batch: &Batch, threads: usize) -> Self {
        let (units, rows) = (batch.units.len(), batch.rows());
        if threads == 1 || units >= 2 * threads {
            let by_rows = (GROUP / (rows / units).max(1)).max(1);
            let by_tasks = if threads == 1 { units } else { units / (2 * threads) };
            let n = by_rows.min(by_tasks).max(1);
            return Self::Units((0..units).step_by(n).map(|u| u..(u + n).min(units)).collect());
        }
        let parts = rows.div_ceil(GROUP).max(2 * threads).min(rows.div_ceil(16)).max(1);
        Self::Rows((0..parts).map(|part| crate::pool::share(rows, part, parts)).collect())
    }

    /// Rows of the largest group.
    fn largest(&self, batch: &Batch) -> usize {
        let rows = |units: &Range<usize>| batch.units[units.clone()].iter().map(|u| u.rows).sum();
        match self {
            Self::Units(groups) => groups.iter().map(rows).max(),
            Self::Rows(blocks) => blocks.iter().map(Range::len).max(),
        }
        .unwrap_or(0)
    }
}

/// The rows of some units that follow each other.
pub(super) fn rows_of(batch: &Batch, units: &Range<usize>) -> Range<usize> {
    batch.units[units.start].first..batch.units[units.end - 1].range().end
}

/// Which parameters want a gradient, and how much may be computed twice.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// For every parameter, whether its gradient is wanted.
    pub of: Model<bool>,
    /// Keep each block's input alone, and compute the block again in the backward pass (Chen et al., arXiv 1604.06174).
    pub recompute: bool,
}

impl Wanted {
    /// For every parameter, whether a backward pass goes through the map it belongs to.
    pub fn reached(of: &Model<bool>) -> Model<bool> {
        let wanted = Self { of: of.clone(), recompute: false };
        let any = of.leaves().into_iter().any(|&w| w);
        let (first, mut layer) = (wanted.first(), 0);
        let mut reached = of.map(|_| any);
        for block in &mut reached.blocks {
            *block = block.map(&mut |_| any && layer >= first);
            layer += 1;
        }
        reached
    }

    /// The first block that has something to train, or above something that has: below it nothing is kept.
    pub(super) fn first(&self) -> usize {
        match self.of.embedding {
            true => 0,
            false => self.of.blocks.iter().position(|b| b.any(|&w| w)).unwrap_or(self.of.blocks.len()),
        }
    }
}

/// Where a pass keeps what.
#[derive(Debug)]
pub(super) struct Places {
    /// Inputs of the blocks, and the last one's output.
    pub xs: Vec<Matrix>,
    pub acts: Vec<Acts>,
    /// For each thread.
    pub scratch: Vec<Scratch>,
}

impl Places {
    fn new(arena: &mut Arena, run: &Run, wanted: Option<&Wanted>, deal: &Deal, past: usize) -> Self {
        let (shape, batch, rows) = (run.shape(), run.batch, run.batch.rows());
        let layers = shape.layers();
        let first = wanted.map_or(layers, Wanted::first);
        let keep = first.min(layers);
        // Blocks below it work where it will: each overwrites what the one before has left.
        let mut xs: Vec<Matrix> = (keep..=layers).map(|_| arena.matrix(shape.stream(), rows)).collect();
        xs.splice(0..0, vec![xs[0]; keep]);
        let all_keep = wanted.is_some_and(|w| !w.recompute);
        // Blocks of one model may differ in what they have: adapters.
        let form = |l: usize| -> Vec<usize> {
            let mut all = Vec::new();
            run.weights.model.blocks[l].map(&mut |leaf| all.push(leaf.outs().len()));
            all
        };
        let mut acts: Vec<Acts> = Vec::with_capacity(layers);
        for l in (0..layers).rev() {
            match acts.last() {
                Some(above) if !(all_keep && l >= first) && form(l) == form(l + 1) => acts.push(above.clone()),
                _ => acts.push(Acts::new(arena, run.weights, l, rows)),
            }
        }
        acts.reverse();
        let keys = batch.units.iter().flat_map(|u| &u.segments).map(|s| s.context + s.len).max();
        let keys = past + keys.unwrap_or(0);
        let queries = batch.units.iter().flat_map(|u| &u.segments).map(|s| s.len).max().unwrap_or(0);
        let group = deal.largest(batch);
        let back = wanted.is_some();
        let scratch = |_| Scratch::new(arena, shape, group, keys, queries, back);
        let scratch = (0..run.machine.pool.threads()).map(scratch).collect();
        Self { xs, acts, scratch }
    }
}

/// A finished forward pass: final states to read, and what the backward pass needs.
#[derive(Debug)]
pub struct Pass {
    pub(super) machine: Machine,
    pub(super) batch: Batch,
    pub(super) turns: Arc<Vec<f32>>,
    pub(super) wanted: Option<Wanted>,
    pub(super) deal: Deal,
    pub(super) places: Places,
    buffer: Option<Buffer>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.machine.spare.give(self.buffer.take().expect("given back once"));
    }
}

impl Pass {
    /// Takes a batch through all blocks. With `wanted` what a backward pass needs is kept.
    ///
    /// # Panics
    /// When the batch is not whole: a token outside the vocabulary, segments that do not follow each other.
    pub fn forward(machine: &Machine, weights: &Weights, batch: Batch, wanted: Option<Wanted>) -> Self {
        Self::new(machine, weights, batch, wanted, None)
    }

    /// The same for units that continue rows of a cache, without a backward pass.
    pub(super) fn keeping(machine: &Machine, weights: &Weights, batch: Batch, kept: &Kept) -> Self {
        Self::new(machine, weights, batch, None, Some(kept))
    }

    fn new(machine: &Machine, weights: &Weights, batch: Batch, wanted: Option<Wanted>, kept: Option<&Kept>) -> Self {
        batch.check(weights.shape.vocab);
        let last = batch.positions.iter().max().map_or(0, |&p| p as usize);
        let turns = weights.turns(last + 1);
        let wanted = wanted.filter(|w| w.of.leaves().into_iter().any(|&w| w));
        let deal = Deal::new(&batch, machine.pool.threads());
        let run = Run { machine, weights, batch: &batch, turns: &turns };
        let mut measure = Arena::measuring();
        let past = kept.map_or(0, Kept::longest);
        Places::new(&mut measure, &run, wanted.as_ref(), &deal, past);
        let buffer = machine.spare.take(measure.len());
        let places = Places::new(&mut Arena::of(&buffer), &run, wanted.as_ref(), &deal, past);
        // SAFETY: every place holds as many rows and panels as the shape and the batch have, and every task writes its own
        // rows, in its own thread's scratch.
        unsafe {
            run.embed(places.xs[0]);
            run.blocks(&places, &deal, 0..weights.shape.layers(), kept);
        }
        Self { machine: machine.clone(), batch, turns, wanted, deal, places, buffer: Some(buffer) }
    }

    /// Whether a backward pass is possible.
    pub fn has_gradient(&self) -> bool {
        self.wanted.is_some()
    }

    pub(super) fn run<'a>(&'a self, weights: &'a Weights) -> Run<'a> {
        Run { machine: &self.machine, weights, batch: &self.batch, turns: &self.turns }
    }
}

impl Run<'_> {
    /// The tokens' vectors.
    pub(super) unsafe fn embed(&self, x: Matrix) {
        let (table, panels) = (self.weights.model.embedding.forward(), self.shape().stream());
        for (row, &token) in self.batch.tokens.iter().enumerate() {
            for panel in 0..panels {
                let source = table.add(token as usize * panels * PANEL + panel * PANEL);
                std::ptr::copy_nonoverlapping(source, x.at(panel, row), PANEL);
            }
        }
    }

    /// Blocks `layers`, on every row.
    pub(super) unsafe fn blocks(&self, places: &Places, deal: &Deal, layers: Range<usize>, kept: Option<&Kept>) {
        let shape: &Shape = self.shape();
        let pool = &self.machine.pool;
        let Places { xs, acts, scratch } = places;
        let attend = |l: usize, unit: usize, kv: usize, thread: usize| match kept {
            Some(kept) => self.attend_kept(l, &acts[l], unit, kv, scratch[thread].scores, kept),
            None => self.attend(l, &acts[l], &self.batch.units[unit], kv, &scratch[thread]),
        };
        match deal {
            Deal::Units(groups) => pool.tasks(groups.len(), |thread, task| {
                let rows = rows_of(self.batch, &groups[task]);
                for l in layers.clone() {
                    self.before(l, &acts[l], xs[l], rows.clone(), &scratch[thread]);
                    for unit in groups[task].clone() {
                        for kv in 0..shape.kv_heads {
                            attend(l, unit, kv, thread);
                        }
                    }
                    self.after(l, &acts[l], xs[l], xs[l + 1], rows.clone(), &scratch[thread]);
                }
            }),
            Deal::Rows(blocks) => {
                for l in layers {
                    pool.tasks(blocks.len(), |thread, task| {
                        self.before(l, &acts[l], xs[l], blocks[task].clone(), &scratch[thread]);
                    });
                    pool.tasks(self.batch.units.len() * shape.kv_heads, |thread, task| {
                        attend(l, task / shape.kv_heads, task % shape.kv_heads, thread);
                    });
                    pool.tasks(blocks.len(), |thread, task| {
                        self.after(l, &acts[l], xs[l], xs[l + 1], blocks[task].clone(), &scratch[thread]);
                    });
                }
            }
        }
    }
}
