//! Continuing sequences: a cache of keys and values, prompts read into it, and steps of one token a row.
//!
//! A step reads every weight once for all rows. Threads split every matrix by columns, so that each reads its own share,
//! and meet where one needs what the others have made. The kernels are the scorer's on fewer rows, so a state is the
//! scorer's to the bit.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::Machine;
use super::batch::Batch;
use super::forward::Pass;
use super::gradients::Borrowed;
use super::head::Outputs;
use super::layer::{Acts, Run};
use super::shape::Shape;
use super::weights::Weights;
use crate::attention::{Attend, AttendOne};
use crate::buffer::{Arena, Buffer, Spare};
use crate::panel::{BLOCK, Matrix, PANEL, panels};
use crate::pool::{Barrier, share};
use crate::rows::Activate;

/// Keys and values of some rows, each a sequence from its first token on: a column is a position.
#[derive(Debug)]
pub struct Cache {
    layers: usize,
    slots: usize,
    /// Panels of positions of a row.
    panels: usize,
    kv_heads: usize,
    depth: usize,
    /// Keys, transposed: `[layer][slot][kv head][panels][depth * 32][32]`.
    keys: Buffer,
    /// `[layer][slot][kv head][depth][panels * 32][32]`.
    values: Buffer,
    spare: Arc<Spare>,
}

impl Drop for Cache {
    fn drop(&mut self) {
        for buffer in [&mut self.keys, &mut self.values] {
            self.spare.give(std::mem::replace(buffer, Buffer::zeros(0)));
        }
    }
}

impl Cache {
    /// Elements of keys and of values that a cache of `slots` rows of `capacity` positions takes; none where that is more
    /// than can be counted.
    pub fn len(shape: &Shape, slots: usize, capacity: usize) -> Option<usize> {
        let sizes = [shape.layers(), shape.kv_heads, shape.depth(), capacity.div_ceil(PANEL), BLOCK];
        sizes.into_iter().try_fold(slots, usize::checked_mul)
    }

    /// An empty cache of `slots` rows of at most `capacity` tokens.
    pub fn new(machine: &Machine, shape: &Shape, slots: usize, capacity: usize) -> Self {
        let len = Self::len(shape, slots, capacity).expect("a cache that can be counted");
        let (panels, kv_heads, depth) = (capacity.div_ceil(PANEL), shape.kv_heads, shape.depth());
        // What is masked is multiplied by 0, and so must be a number.
        let zeros = || {
            let mut buffer = machine.spare.take(len);
            buffer.as_mut_slice().fill(0.0);
            buffer
        };
        let (keys, values, spare) = (zeros(), zeros(), machine.spare.clone());
        Self { layers: shape.layers(), slots, panels, kv_heads, depth, keys, values, spare }
    }

    fn cell(&self, layer: usize, slot: usize, kv: usize) -> usize {
        ((layer * self.slots + slot) * self.kv_heads + kv) * self.panels * self.depth * BLOCK
    }

    fn keys(&self, layer: usize, slot: usize, kv: usize) -> *mut f32 {
        self.keys.start().wrapping_add(self.cell(layer, slot, kv))
    }

    fn values(&self, layer: usize, slot: usize, kv: usize) -> Matrix {
        Matrix::new(self.values.start().wrapping_add(self.cell(layer, slot, kv)), self.panels * BLOCK)
    }

    /// Makes row `to` begin with the first `len` positions of row `from`.
    ///
    /// # Panics
    /// When these are not there.
    pub fn copy(&mut self, from: usize, to: usize, len: usize) {
        assert!(from < self.slots && to < self.slots && from != to && len <= self.panels * PANEL, "rows of the cache");
        let layers = self.layers;
        for layer in 0..layers {
            for kv in 0..self.kv_heads {
                let blocks = len.div_ceil(PANEL) * self.depth * BLOCK;
                // SAFETY: two cells of the cache, which is borrowed for writing.
                unsafe {
                    std::ptr::copy_nonoverlapping(self.keys(layer, from, kv), self.keys(layer, to, kv), blocks);
                    for d in 0..self.depth {
                        let (from, to) = (self.values(layer, from, kv).at(d, 0), self.values(layer, to, kv).at(d, 0));
                        std::ptr::copy_nonoverlapping(from, to, len * PANEL);
                    }
                }
            }
        }
    }

    /// Puts key and value of one row of `qkv` at a position.
    unsafe fn put(&self, shape: &Shape, cell: (usize, usize, usize), position: usize, qkv: Matrix, row: usize) {
        let (layer, slot, kv) = cell;
        let (keys, values) = (self.keys(layer, slot, kv), self.values(layer, slot, kv));
        let first = shape.query_panels() + kv * self.depth;
        for d in 0..self.depth {
            let key = qkv.at(first + d, row);
            let block = keys.add((position / PANEL * self.depth + d) * BLOCK + position % PANEL);
            for i in 0..PANEL {
                *block.add(i * PANEL) = *key.add(i);
            }
            let value = qkv.at(first + shape.key_panels() + d, row);
            std::ptr::copy_nonoverlapping(value, values.at(d, position), PANEL);
        }
    }

    fn check(&self, shape: &Shape, of: &[(usize, usize)], new: impl Fn(usize) -> usize) {
        let own = (self.layers, self.kv_heads, self.depth);
        assert_eq!(own, (shape.layers(), shape.kv_heads, shape.depth()), "a cache of this decoder");
        let mut free = vec![true; self.slots];
        for (i, &(slot, past)) in of.iter().enumerate() {
            assert!(std::mem::take(&mut free[slot]), "a row of the cache is continued once");
            assert!(past + new(i) <= self.panels * PANEL, "a row of the cache has room");
        }
    }
}

/// Where the units of a batch go in a cache: (row of the cache, positions it holds).
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept<'a> {
    cache: &'a Cache,
    of: &'a [(usize, usize)],
}

impl Kept<'_> {
    /// Positions that the longest row holds.
    pub fn longest(&self) -> usize {
        self.of.iter().map(|&(_, past)| past).max().unwrap_or(0)
    }
}

impl Run<'_> {
    /// As [`Run::attend`], of a unit that continues a row of a cache: its keys and values are added to it.
    pub(super) unsafe fn attend_kept(
        &self,
        layer: usize,
        acts: &Acts,
        unit: usize,
        kv: usize,
        scores: *mut f32,
        kept: &Kept,
    ) {
        let shape = self.shape();
        let (depth, group) = (shape.depth(), shape.heads / shape.kv_heads);
        let (slot, past) = kept.of[unit];
        let unit = &self.batch.units[unit];
        for row in unit.range() {
            kept.cache.put(shape, (layer, slot, kv), past + row - unit.first, acts.qkv, row);
        }
        for (segment, skip, n) in self.asking(layer, unit) {
            let row = unit.first + segment.start + skip;
            for head in kv * group..(kv + 1) * group {
                (self.machine.kernels.attend)(&Attend {
                    q: acts.qkv.from(head * depth, row),
                    depth,
                    n,
                    past: past + skip,
                    window: shape.window(layer),
                    kt: kept.cache.keys(layer, slot, kv),
                    v: kept.cache.values(layer, slot, kv),
                    o: acts.context.from(head * depth, row),
                    largest: std::ptr::null_mut(),
                    inverse: std::ptr::null_mut(),
                    scores,
                    scale: shape.scale(),
                });
            }
        }
    }
}

/// Continues rows of a cache by several tokens each: unit i of the result's batch is `new[i]`, which comes behind the
/// `of[i].1` positions of row `of[i].0`. Gives the final states of all new tokens, or of each unit's last one.
///
/// # Panics
/// When a token is not of the vocabulary, a row is named twice or has no room.
pub fn extend(
    machine: &Machine,
    weights: &Weights,
    cache: &mut Cache,
    of: &[(usize, usize)],
    new: &[&[u32]],
    last_only: bool,
) -> Outputs {
    assert_eq!(of.len(), new.len(), "new tokens for every row");
    cache.check(&weights.shape, of, |i| new[i].len());
    let mut batch = Batch::default();
    for (&(_, past), tokens) in of.iter().zip(new) {
        let begin = batch.rows();
        batch.push(tokens, if last_only { tokens.len() - 1 } else { 0 }..tokens.len());
        batch.positions[begin..].iter_mut().for_each(|p| *p += past as u32);
    }
    Pass::keeping(machine, weights, batch, &Kept { cache, of }).states(weights)
}

/// What one thread needs for itself in a step.
struct Own {
    y: Matrix,
    stats: [*mut f32; 2],
    /// `x A^T` of the maps at hand.
    lows: [Matrix; 2],
    /// For each row and query head.
    scores: *mut f32,
}

/// Memory of a step.
struct Places {
    x: Matrix,
    g: Matrix,
    acts: Acts,
    own: Vec<Own>,
    /// Elements of the scores of one query.
    seen: usize,
}

// SAFETY: places only; threads write disjoint columns, and what is their own.
unsafe impl Sync for Places {}

impl Places {
    fn new(arena: &mut Arena, run: &Run, seen: usize) -> Self {
        let (shape, n, blocks) = (run.shape(), run.batch.rows(), &run.weights.model.blocks);
        let mut rank = 0;
        for block in blocks {
            block.linears(|map| rank = rank.max(map.adapter.as_ref().map_or(0, |a| a.down.outs().len())));
        }
        let seen = seen.next_multiple_of(PANEL);
        let own = |arena: &mut Arena| Own {
            y: arena.matrix(shape.stream(), n),
            stats: [arena.take(n), arena.take(n)],
            lows: [arena.matrix(rank, n), arena.matrix(rank, n)],
            scores: arena.take(n * seen * shape.heads),
        };
        Self {
            x: arena.matrix(shape.stream(), n),
            g: arena.matrix(shape.inner_panels(), n),
            acts: Acts::new(arena, run.weights, 0, n),
            own: (0..run.machine.pool.threads()).map(|_| own(arena)).collect(),
            seen,
        }
    }
}

/// Continues row `of[i].0` of a cache, which holds `of[i].1` positions, by one token: final states `[rows, width]`.
///
/// # Panics
/// As [`extend`].
pub fn step(
    machine: &Machine,
    weights: &Weights,
    cache: &mut Cache,
    of: &[(usize, usize)],
    tokens: &[u32],
) -> Vec<f32> {
    assert_eq!(of.len(), tokens.len(), "a token for every row");
    let shape = &weights.shape;
    cache.check(shape, of, |_| 1);
    let mut batch = Batch::default();
    for (&(_, past), token) in of.iter().zip(tokens) {
        batch.push(std::slice::from_ref(token), 0..1);
        *batch.positions.last_mut().expect("just pushed") = past as u32;
    }
    batch.check(shape.vocab);
    let longest = batch.positions.iter().max().map_or(0, |&p| p as usize);
    let turns = weights.turns(longest + 1);
    let run = Run { machine, weights, batch: &batch, turns: &turns };
    let (_buffer, places) = Borrowed::places(machine, |arena| Places::new(arena, &run, longest + 1));
    let cache = &*cache;
    let meeting = OnceLock::new();
    let mut states = vec![0f32; batch.rows() * shape.width];
    let out = Elements(states.as_mut_ptr());
    // SAFETY: each thread writes its own panels of what all share, and reads the others' behind a barrier.
    unsafe {
        run.embed(places.x);
        machine.pool.run(|thread, threads| {
            let barrier = meeting.get_or_init(|| Barrier::new(threads));
            let own = &places.own[thread];
            let step = Step { run, places: &places, own, cache, of, thread, threads, barrier };
            for layer in 0..shape.layers() {
                step.layer(layer);
            }
            step.finish(&out);
        });
    }
    states
}

/// Logits of states `[rows, width]`, `[rows, vocab]`.
///
/// # Panics
/// When there is no head, or the states are not of this width.
pub fn logits(machine: &Machine, weights: &Weights, states: &[f32]) -> Vec<f32> {
    let (shape, head) = (&weights.shape, weights.head.as_ref().expect("a model with a head"));
    let n = states.len() / shape.width;
    assert_eq!(states.len(), n * shape.width, "states of the model's width");
    let batch = Batch::default();
    let run = Run { machine, weights, batch: &batch, turns: &[] };
    let rank = head.adapter.as_ref().map_or(0, |a| a.down.outs().len());
    let (_buffer, (y, low, logits)) = Borrowed::places(machine, |arena| {
        (arena.matrix(shape.stream(), n), arena.matrix(rank, n), arena.matrix(shape.vocab_panels(), n))
    });
    let mut out: Vec<f32> = Vec::with_capacity(n * shape.vocab);
    let to = Elements(out.as_mut_ptr());
    // SAFETY: every task writes its own panels, and together all elements of `out`.
    unsafe {
        for (row, state) in states.chunks_exact(shape.width).enumerate() {
            for columns in panels(0, shape.width) {
                let mut line = [0f32; PANEL];
                line[..columns.count].copy_from_slice(&state[columns.first..columns.first + columns.count]);
                std::ptr::copy_nonoverlapping(line.as_ptr(), y.at(columns.first / PANEL, row), PANEL);
            }
        }
        run.lower(head, y, low, n);
        let tasks = shape.vocab_panels().min(4 * machine.pool.threads());
        machine.pool.tasks(tasks, |_, task| {
            let outs = share(shape.vocab_panels(), task, tasks);
            run.linear(head, outs.clone(), y, logits.from(outs.start, 0), Matrix::NONE, low, n);
            for panel in outs {
                let count = PANEL.min(shape.vocab - panel * PANEL);
                for row in 0..n {
                    let place = to.at(row * shape.vocab + panel * PANEL);
                    std::ptr::copy_nonoverlapping(logits.at(panel, row), place, count);
                }
            }
        });
        out.set_len(n * shape.vocab);
    }
    out
}

/// An array that threads write in disjoint parts.
struct Elements(*mut f32);

// SAFETY: a place only.
unsafe impl Sync for Elements {}

impl Elements {
    fn at(&self, i: usize) -> *mut f32 {
        self.0.wrapping_add(i)
    }
}

/// One thread's part of a step.
struct Step<'a> {
    run: Run<'a>,
    places: &'a Places,
    own: &'a Own,
    cache: &'a Cache,
    of: &'a [(usize, usize)],
    thread: usize,
    threads: usize,
    barrier: &'a Barrier,
}

impl Step<'_> {
    fn share(&self, count: usize) -> Range<usize> {
        share(count, self.thread, self.threads)
    }

    unsafe fn layer(&self, layer: usize) {
        let run = &self.run;
        let (shape, block, kernels) = (run.shape(), &run.weights.model.blocks[layer], &run.machine.kernels);
        let (Places { x, g, acts, .. }, Own { y, stats, lows, .. }) = (self.places, self.own);
        let n = run.batch.rows();
        (kernels.normalise)(&run.norm(&block.attention_norm, *stats, *x, *y, 0..n));
        self.attend(layer);
        let stream = self.share(shape.stream());
        let attended = |to: Matrix| {
            run.lower(&block.out, acts.context, lows[0], n);
            let (plus, to) = (x.from(stream.start, 0), to.from(stream.start, 0));
            run.linear(&block.out, stream.clone(), acts.context, to, plus, lows[0], n);
        };
        let mut base = *x;
        if shape.parallel {
            // The other branch reads the same stream, so all meet once before the stream is written.
            (kernels.normalise)(&run.norm(&block.mlp_norm, *stats, *x, *y, 0..n));
            self.feed(layer);
            self.barrier.wait();
            attended(*x);
        } else {
            self.barrier.wait();
            attended(acts.mid);
            self.barrier.wait();
            (kernels.normalise)(&run.norm(&block.mlp_norm, *stats, acts.mid, *y, 0..n));
            self.feed(layer);
            self.barrier.wait();
            base = acts.mid;
        }
        run.lower(&block.down, *g, lows[0], n);
        let at = |m: Matrix| m.from(stream.start, 0);
        run.linear(&block.down, stream.clone(), *g, at(*x), at(base), lows[0], n);
        self.barrier.wait();
    }

    /// Queries, keys and values of this thread's heads, and their context.
    unsafe fn attend(&self, layer: usize) {
        let run = &self.run;
        let (shape, block, kernels) = (run.shape(), &run.weights.model.blocks[layer], &run.machine.kernels);
        let (acts, Own { y, lows, scores, .. }) = (&self.places.acts, self.own);
        let (n, depth, group) = (run.batch.rows(), shape.depth(), shape.heads / shape.kv_heads);
        let mine = self.share(shape.kv_heads);
        if mine.is_empty() {
            return;
        }
        let (q, k) = (shape.query_panels(), shape.key_panels());
        // Panels of the packed rows that belong to these heads: of queries, of keys and of values.
        let queries = mine.start * group * depth..mine.end * group * depth;
        let keys = q + mine.start * depth..q + mine.end * depth;
        let values = keys.start + k..keys.end + k;
        for (map, outs, first, _) in shape.parts() {
            let of = &block.projections[map];
            run.lower(of, *y, lows[0], n);
            let part = first..first + outs.len();
            for wanted in [&queries, &keys, &values] {
                let panels = wanted.start.max(part.start)..wanted.end.min(part.end);
                if panels.start < panels.end {
                    let normed = acts.raw.is_some() && panels.start < q + k;
                    let to = if normed { acts.raw } else { acts.qkv };
                    let outs = outs.start + panels.start - first..outs.start + panels.end - first;
                    run.linear(of, outs, *y, to.from(panels.start, 0), Matrix::NONE, lows[0], n);
                }
            }
        }
        let key_heads = mine.clone().map(|kv| shape.heads + kv);
        for head in (mine.start * group..mine.end * group).chain(key_heads) {
            if let Some(norm) = run.head_norm(layer, acts, head, acts.raw, acts.qkv, 0..n) {
                (kernels.normalise)(&norm);
            }
            run.rotate(acts.qkv, head, 0..n, 1.0);
        }
        let mut asked = Vec::with_capacity(n * mine.len() * group);
        for kv in mine {
            for (row, &(slot, past)) in self.of.iter().enumerate() {
                self.cache.put(shape, (layer, slot, kv), past, acts.qkv, row);
                for head in kv * group..(kv + 1) * group {
                    asked.push(AttendOne {
                        q: acts.qkv.from(head * depth, row),
                        kt: self.cache.keys(layer, slot, kv),
                        v: self.cache.values(layer, slot, kv),
                        o: acts.context.from(head * depth, row),
                        position: past,
                        scores: scores.add(asked.len() * self.places.seen),
                    });
                }
            }
        }
        (kernels.attend_ones)(&asked, depth, shape.window(layer), shape.scale());
    }

    /// This thread's part of the activations, from the normalised stream.
    unsafe fn feed(&self, layer: usize) {
        let run = &self.run;
        let (shape, block, n) = (run.shape(), &run.weights.model.blocks[layer], run.batch.rows());
        let (Places { g, acts, .. }, Own { y, lows, .. }) = (self.places, self.own);
        let inner = self.share(shape.inner_panels());
        let at = |m: Matrix| m.from(inner.start, 0);
        run.lower(&block.up, *y, lows[0], n);
        run.linear(&block.up, inner.clone(), *y, at(acts.up), Matrix::NONE, lows[0], n);
        if let Some(gate) = &block.gate {
            run.lower(gate, *y, lows[1], n);
            run.linear(gate, inner.clone(), *y, at(acts.gate), Matrix::NONE, lows[1], n);
        }
        for panel in inner {
            (run.machine.kernels.activate)(&Activate {
                activation: shape.activation,
                rows: n,
                u: acts.up.at(panel, 0),
                gate: acts.gate.place(panel, 0),
                out: g.at(panel, 0),
            });
        }
    }

    /// The final norm of this thread's rows.
    unsafe fn finish(&self, out: &Elements) {
        let run = &self.run;
        let (width, rows) = (run.shape().width, self.share(run.batch.rows()));
        let Own { y, stats, .. } = self.own;
        let norm = run.norm(&run.weights.model.final_norm, *stats, self.places.x, *y, rows.clone());
        (run.machine.kernels.normalise)(&norm);
        for (i, row) in rows.enumerate() {
            for columns in panels(0, width) {
                let from = y.at(columns.first / PANEL, i);
                std::ptr::copy_nonoverlapping(from, out.at(row * width + columns.first), columns.count);
            }
        }
    }
}
