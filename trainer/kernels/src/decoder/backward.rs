//! The backward pass through all blocks, block by block: gradients of the activations, then of the block's parameters.

use std::ops::Range;
use std::sync::Arc;

use super::batch::Unit;
use super::forward::{Deal, Pass, Wanted, rows_of};
use super::gradients::{Borrowed, Jobs, NormRows, Target, embedding};
use super::layer::{Acts, Lows, Run, Scratch};
use super::shape::{Block, Linear, Model, Norm};
use super::weights::{Packed, Weights};
use crate::attention::AttendBack;
use crate::buffer::Arena;
use crate::norm::{Normalise, NormaliseBack};
use crate::panel::{BLOCK, Columns, Matrix, PANEL};
use crate::rows::{ActivateBack, Transpose};

/// The gradient of every parameter that one is wanted of, row-major as the parameter is.
pub type Gradients = Model<Option<Vec<f32>>>;

pub(super) type Targets = Model<Option<Target>>;

/// Gradients of one block's activations; the blocks use the same places after each other.
#[derive(Debug)]
struct Back {
    /// Of the block's output, and of its input.
    next: Matrix,
    x: Matrix,
    /// Of the stream between the branches, where they follow each other.
    mid: Matrix,
    qkv: Matrix,
    /// Of queries and keys before their norms.
    raw: Matrix,
    context: Matrix,
    gate: Matrix,
    up: Matrix,
    /// The norms' outputs once more, and their gradients.
    y: [Matrix; 2],
    dy: [Matrix; 2],
    lows: Vec<Lows>,
}

impl Back {
    fn new(arena: &mut Arena, weights: &Weights, rows: usize) -> Self {
        let shape = &weights.shape;
        let blocks = &weights.model.blocks;
        let (q, k, stream, inner) = (shape.query_panels(), shape.key_panels(), shape.stream(), shape.inner_panels());
        let gated = blocks.iter().any(|b| b.gate.is_some());
        let normed = blocks.iter().any(|b| b.head_norms.is_some());
        Self {
            next: arena.matrix(stream, rows),
            x: arena.matrix(stream, rows),
            mid: arena.matrix(if shape.parallel { 0 } else { stream }, rows),
            qkv: arena.matrix(q + 2 * k, rows),
            raw: arena.matrix(if normed { q + k } else { 0 }, rows),
            context: arena.matrix(q, rows),
            gate: arena.matrix(if gated { inner } else { 0 }, rows),
            up: arena.matrix(inner, rows),
            y: [arena.matrix(stream, rows), arena.matrix(stream, rows)],
            dy: [arena.matrix(stream, rows), arena.matrix(stream, rows)],
            lows: blocks.iter().map(|block| Lows::new(arena, block, rows)).collect(),
        }
    }

    /// The gradient of the outputs of the projections from packed panel `first` on.
    fn projected(&self, first: usize, heads: usize) -> Matrix {
        if self.raw.is_some() && first < heads { self.raw.from(first, 0) } else { self.qkv.from(first, 0) }
    }
}

impl Run<'_> {
    /// `dx = plus + dy W` of panels `outs` of a map, its correction included; `dlow` takes the gradient of `x A^T`.
    pub(super) unsafe fn pull(
        &self,
        map: &Linear<Arc<Packed>>,
        outs: Range<usize>,
        dy: Matrix,
        dx: Matrix,
        plus: Matrix,
        dlow: Matrix,
        rows: usize,
    ) {
        let lines = map.weight.outs().len();
        let (b, none) = (map.weight.backward().add(outs.start * BLOCK), std::ptr::null());
        self.product(dy, outs.len(), b, lines, dx, map.weight.ins().len(), rows, plus, none);
        self.pull_low(map, outs, dy, dlow, rows);
        self.pull_down(map, 0..map.weight.ins().len(), dlow, dx, rows);
    }

    /// The gradient of `x A^T` of an adapted map.
    unsafe fn pull_low(&self, map: &Linear<Arc<Packed>>, outs: Range<usize>, dy: Matrix, dlow: Matrix, rows: usize) {
        if let Some(adapter) = &map.adapter {
            let b = adapter.up.backward().add(outs.start * BLOCK);
            let (lines, panels) = (adapter.up.outs().len(), adapter.up.ins().len());
            self.product(dy, outs.len(), b, lines, dlow, panels, rows, Matrix::NONE, std::ptr::null());
        }
    }

    /// Adds what goes through `x A^T` to panels `ins` of the gradient of x.
    unsafe fn pull_down(&self, map: &Linear<Arc<Packed>>, ins: Range<usize>, dlow: Matrix, dx: Matrix, rows: usize) {
        if let Some(adapter) = &map.adapter {
            let depth = adapter.down.outs().len();
            let b = adapter.down.backward().add(ins.start * depth * BLOCK);
            self.product(dlow, depth, b, depth, dx, ins.len(), rows, dx, std::ptr::null());
        }
    }

    fn norm_back(
        &self,
        norm: &Norm<Arc<Packed>>,
        stats: [*mut f32; 2],
        (dy, x, plus, dx): (Matrix, Matrix, Matrix, Matrix),
        rows: &Range<usize>,
    ) -> NormaliseBack {
        let at = |m: Matrix| m.from(0, rows.start);
        NormaliseBack {
            dy: at(dy),
            x: at(x),
            plus: at(plus),
            dx: at(dx),
            width: self.shape().width,
            rows: rows.len(),
            gain: norm.gain.forward(),
            centred: norm.bias.is_some(),
            mean: stats[0].wrapping_add(rows.start),
            scale: stats[1].wrapping_add(rows.start),
        }
    }

    /// From the gradient of the block's output to those of the context and of what the feed-forward part read, on the live
    /// rows of `range`.
    unsafe fn back_after(&self, layer: usize, acts: &Acts, back: &Back, range: Range<usize>) {
        let (shape, block, kernels) = (self.shape(), &self.weights.model.blocks[layer], &self.machine.kernels);
        let lows = &back.lows[layer];
        for rows in self.live(layer, range) {
            let (start, n) = (rows.start, rows.len());
            let at = |m: Matrix| m.from(0, start);
            let next = at(back.next);
            self.pull_low(&block.down, 0..shape.stream(), next, at(lows.down), n);
            for panel in 0..shape.inner_panels() {
                let (b, lines) = (block.down.weight.backward().add(panel * shape.stream() * BLOCK), shape.stream());
                let du = back.up.from(panel, start);
                self.product(next, lines, b, lines, du, 1, n, Matrix::NONE, std::ptr::null());
                self.pull_down(&block.down, panel..panel + 1, at(lows.down), du, n);
                (kernels.activate_back)(&ActivateBack {
                    activation: shape.activation,
                    rows: n,
                    u: acts.up.at(panel, start),
                    gate: acts.gate.place(panel, start),
                    d: du.at(0, 0),
                    dgate: back.gate.place(panel, start),
                    // The activations once more, where their inputs have served.
                    out: acts.up.at(panel, start),
                });
            }
            let (dy, inner) = (at(back.dy[1]), 0..shape.inner_panels());
            self.pull(&block.up, inner.clone(), at(back.up), dy, Matrix::NONE, at(lows.up), n);
            if let Some(gate) = &block.gate {
                self.pull(gate, inner, at(back.gate), dy, dy, at(lows.gate), n);
            }
            let mut attended = next;
            if !shape.parallel {
                let through = (back.dy[1], acts.mid, back.next, back.mid);
                (kernels.normalise_back)(&self.norm_back(&block.mlp_norm, acts.mlp_norm, through, &rows));
                attended = at(back.mid);
            }
            self.pull(&block.out, 0..shape.stream(), attended, at(back.context), Matrix::NONE, at(lows.out), n);
        }
    }

    /// Attention of the query heads of key head `kv` in one unit: gradients of queries, keys and values.
    unsafe fn attend_back(&self, layer: usize, acts: &Acts, back: &Back, unit: &Unit, kv: usize, scratch: &Scratch) {
        let (shape, kernels, rows) = (self.shape(), &self.machine.kernels, self.batch.rows());
        let (depth, group) = (shape.depth(), shape.heads / shape.kv_heads);
        let keys = shape.query_panels() + kv * depth;
        let values = keys + shape.key_panels();
        for panel in (keys..keys + depth).chain(values..values + depth) {
            std::ptr::write_bytes(back.qkv.at(panel, unit.first), 0, unit.rows * PANEL);
        }
        for (segment, skip, n) in self.asking(layer, unit) {
            let seen = segment.context + segment.len;
            let padded = seen.next_multiple_of(PANEL) * PANEL;
            for d in 0..depth {
                let stride = depth * BLOCK;
                for (panel, lines, target) in [(keys, scratch.k, scratch.kt), (values, scratch.v, scratch.vt)] {
                    let source = lines.at(d, 0);
                    self.gather(acts.qkv.at(panel + d, unit.first), &segment, source);
                    (kernels.transpose)(&Transpose { source, rows: seen, target: target.add(d * BLOCK), stride });
                }
                std::ptr::write_bytes(scratch.dk.at(d, 0), 0, padded);
                std::ptr::write_bytes(scratch.dv.at(d, 0), 0, padded);
            }
            let row = unit.first + segment.start + skip;
            for head in kv * group..(kv + 1) * group {
                let at = |m: Matrix| m.from(head * depth, row);
                (kernels.attend_back)(&AttendBack {
                    q: at(acts.qkv),
                    depth,
                    n,
                    past: segment.context + skip,
                    window: shape.window(layer),
                    k: scratch.k,
                    kt: scratch.kt,
                    vt: scratch.vt,
                    d_o: at(back.context),
                    largest: acts.largest.add(head * rows + row),
                    inverse: acts.inverse.add(head * rows + row),
                    dq: at(back.qkv),
                    dk: scratch.dk,
                    dv: scratch.dv,
                    weights: scratch.scores,
                    slopes: scratch.slopes,
                    scale: shape.scale(),
                });
            }
            for d in 0..depth {
                for (panel, from) in [(keys + d, scratch.dk), (values + d, scratch.dv)] {
                    let add = |row: usize, from: *const f32, n: usize| {
                        let to = back.qkv.at(panel, unit.first + row);
                        for i in 0..n * PANEL {
                            *to.add(i) += *from.add(i);
                        }
                    };
                    add(0, from.at(d, 0), segment.context);
                    add(segment.start, from.at(d, segment.context), segment.len);
                }
            }
        }
    }

    /// From the gradients of queries, keys and values to that of the block's input, on rows `range`; `on`: whether anyone
    /// asks for it.
    unsafe fn back_before(&self, layer: usize, acts: &Acts, x: Matrix, back: &Back, range: Range<usize>, on: bool) {
        let (shape, block, kernels) = (self.shape(), &self.weights.model.blocks[layer], &self.machine.kernels);
        let heads = shape.heads + shape.kv_heads;
        let live = self.live(layer, range.clone());
        for head in 0..heads {
            let rows = if head < shape.heads { live.as_slice() } else { std::slice::from_ref(&range) };
            for rows in rows {
                self.rotate(back.qkv, head, rows.clone(), -1.0);
                if let Some(norm) = self.head_norm(layer, acts, head, acts.raw, back.raw, rows.clone()) {
                    (kernels.normalise_back)(&NormaliseBack {
                        dy: back.qkv.from(head * shape.depth(), rows.start),
                        x: norm.x,
                        plus: Matrix::NONE,
                        dx: norm.y,
                        width: norm.width,
                        rows: norm.rows,
                        gain: norm.gain,
                        centred: false,
                        mean: norm.mean,
                        scale: norm.scale,
                    });
                }
            }
        }
        let part = |rows: &Range<usize>, whole: bool| {
            let (start, n) = (rows.start, rows.len());
            let dy = back.dy[0].from(0, start);
            let mut plus = Matrix::NONE;
            let parts = shape.parts();
            // One map's parts lie behind each other: where all of them count they are one product.
            let parts = match (whole, parts.as_slice()) {
                (true, [(0, q, ..), (0, kv, ..)]) => vec![(0, q.start..kv.end, 0, false)],
                _ => parts.into_iter().filter(|&(.., queries)| whole || !queries).collect(),
            };
            for (map, outs, first, _) in parts {
                let of = back.projected(first, heads * shape.depth()).from(0, start);
                let dlow = back.lows[layer].projections[map].from(0, start);
                self.pull(&block.projections[map], outs, of, dy, plus, dlow, n);
                plus = dy;
            }
            if on {
                let norm = |dy, plus| {
                    let through = (dy, x, plus, back.x);
                    self.norm_back(&block.attention_norm, acts.attention_norm, through, rows)
                };
                match (whole, shape.parallel) {
                    (false, _) => (kernels.normalise_back)(&norm(back.dy[0], Matrix::NONE)),
                    (true, false) => (kernels.normalise_back)(&norm(back.dy[0], back.mid)),
                    (true, true) => {
                        (kernels.normalise_back)(&norm(back.dy[0], back.next));
                        let through = (back.dy[1], x, back.x, back.x);
                        (kernels.normalise_back)(&self.norm_back(&block.mlp_norm, acts.mlp_norm, through, rows));
                    }
                }
            }
        };
        for rows in &live {
            part(rows, true);
        }
        for rows in gaps(&range, &live) {
            part(&rows, false);
        }
    }

    /// The norms' outputs once more, for the gradients of the maps that read them.
    unsafe fn again(&self, layer: usize, acts: &Acts, x: Matrix, back: &Back, range: Range<usize>) {
        let block = &self.weights.model.blocks[layer];
        let of = |norm, stats, x, y: Matrix, rows: Range<usize>| -> Normalise {
            self.norm(norm, stats, x, y.from(0, rows.start), rows)
        };
        let renormalise = self.machine.kernels.renormalise;
        renormalise(&of(&block.attention_norm, acts.attention_norm, x, back.y[0], range.clone()));
        let between = if self.shape().parallel { x } else { acts.mid };
        for rows in self.live(layer, range) {
            renormalise(&of(&block.mlp_norm, acts.mlp_norm, between, back.y[1], rows));
        }
    }

    /// Gradients of a map's parameters from those of its outputs and its inputs; `low` and `dlow` of its correction.
    fn map_jobs(
        jobs: &mut Jobs,
        map: &Linear<Arc<Packed>>,
        targets: &Linear<Option<Target>>,
        outs: Range<usize>,
        dy: Matrix,
        x: Matrix,
        inputs: usize,
        (low, dlow): (Matrix, Matrix),
        rank_too: bool,
    ) {
        let columns = &map.weight.outs()[outs];
        let ins = map.weight.ins();
        if let Some(target) = &targets.weight {
            jobs.weight((dy, columns), (x, ins), inputs, 1.0, target, false);
        }
        if let Some(Some(target)) = &targets.bias {
            jobs.bias(dy, columns, target);
        }
        if let (Some(adapter), Some(targets)) = (&map.adapter, &targets.adapter) {
            let rank: &[Columns] = adapter.up.ins();
            if let Some(target) = &targets.up {
                jobs.weight((dy, columns), (low, rank), adapter.rank, adapter.scaling, target, false);
            }
            if let (Some(target), true) = (&targets.down, rank_too) {
                jobs.weight((dlow, rank), (x, ins), inputs, 1.0, target, false);
            }
        }
    }

    /// Gradients of a block's parameters.
    unsafe fn block_gradients(
        &self,
        layer: usize,
        acts: &Acts,
        x: Matrix,
        back: &Back,
        targets: &Block<Option<Target>>,
    ) {
        let (shape, block, rows) = (self.shape(), &self.weights.model.blocks[layer], self.batch.rows());
        let mut jobs = Jobs::new();
        let (live, all) = (self.live(layer, 0..rows), 0..rows);
        let all = vec![all];
        let (lows, dlows) = (&acts.lows, &back.lows[layer]);
        let heads = (shape.heads + shape.kv_heads) * shape.depth();
        let width = shape.width;
        for (map, outs, first, queries) in shape.parts() {
            jobs.over(if queries { live.clone() } else { all.clone() });
            let dy = back.projected(first, heads);
            let low = (lows.projections[map], dlows.projections[map]);
            // One map for all has one `x A^T`: its rows are those of keys and values.
            let rank_too = block.projections.len() > 1 || !queries;
            let (of, targets) = (&block.projections[map], &targets.projections[map]);
            Self::map_jobs(&mut jobs, of, targets, outs, dy, back.y[0], width, low, rank_too);
        }
        jobs.over(all);
        let stats = |dy: Matrix, x: Matrix, stats: [*mut f32; 2]| {
            move |panel: usize| {
                vec![NormRows { dy: dy.at(panel, 0), x: x.at(panel, 0), mean: stats[0], scale: stats[1] }]
            }
        };
        let stream = block.attention_norm.gain.outs();
        let norm = &targets.attention_norm;
        jobs.norm(stream, stats(back.dy[0], x, acts.attention_norm), norm.gain.as_ref(), bias_of(norm));
        if let (Some([q, k]), Some([dq, dk])) = (&block.head_norms, &targets.head_norms) {
            let depth = shape.depth();
            for (packed, target, heads, ranges) in [
                (q, dq, 0..shape.heads, live.clone()),
                (k, dk, shape.heads..shape.heads + shape.kv_heads, vec![0..rows]),
            ] {
                jobs.over(ranges);
                let of = |panel: usize| {
                    let head = |head: usize| NormRows {
                        dy: back.qkv.at(head * depth + panel, 0),
                        x: acts.raw.at(head * depth + panel, 0),
                        mean: acts.head_norms[0].wrapping_add(head * rows),
                        scale: acts.head_norms[1].wrapping_add(head * rows),
                    };
                    heads.clone().map(head).collect()
                };
                jobs.norm(packed.outs(), of, target.as_ref(), None);
            }
        }
        jobs.over(live);
        let between = if shape.parallel { x } else { acts.mid };
        let norm = &targets.mlp_norm;
        jobs.norm(stream, stats(back.dy[1], between, acts.mlp_norm), norm.gain.as_ref(), bias_of(norm));
        let attended = if shape.parallel { back.next } else { back.mid };
        let (whole, inner) = (0..shape.stream(), 0..shape.inner_panels());
        let context = shape.heads * shape.head_dim;
        let low = (lows.out, dlows.out);
        Self::map_jobs(&mut jobs, &block.out, &targets.out, whole.clone(), attended, acts.context, context, low, true);
        let low = (lows.up, dlows.up);
        Self::map_jobs(&mut jobs, &block.up, &targets.up, inner.clone(), back.up, back.y[1], width, low, true);
        if let (Some(gate), Some(targets)) = (&block.gate, &targets.gate) {
            let low = (lows.gate, dlows.gate);
            Self::map_jobs(&mut jobs, gate, targets, inner, back.gate, back.y[1], width, low, true);
        }
        let low = (lows.down, dlows.down);
        Self::map_jobs(&mut jobs, &block.down, &targets.down, whole, back.next, acts.up, shape.inner, low, true);
        jobs.run(self.machine);
    }
}

/// Where the gradient of a norm's bias goes, if it has one and it is wanted.
pub(super) fn bias_of(norm: &Norm<Option<Target>>) -> Option<&Target> {
    norm.bias.as_ref().and_then(Option::as_ref)
}

/// The parts of `range` that are in none of `live`, which lie in it in order.
fn gaps(range: &Range<usize>, live: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut start = range.start;
    let mut gaps = Vec::new();
    for live in live.iter().chain([&(range.end..range.end)]) {
        if start < live.start {
            gaps.push(start..live.start);
        }
        start = live.end;
    }
    gaps
}

impl Pass {
    /// Goes back through all blocks from the gradient of the last one's output, which `fill` writes for the live rows, and
    /// gives what it found in `targets`.
    ///
    /// # Safety
    /// `weights` are those of the forward pass, unchanged; every live row is filled.
    pub(super) unsafe fn back_through(
        &self,
        weights: &Weights,
        wanted: &Wanted,
        targets: Targets,
        fill: impl FnOnce(Matrix),
    ) -> Gradients {
        let machine = self.machine.clone();
        let rows = self.batch.rows();
        let (_buffer, mut back) = Borrowed::places(&machine, |arena| Back::new(arena, weights, rows));
        fill(back.next);
        let run = self.run(weights);
        let pool = &machine.pool;
        let (first, layers) = (wanted.first(), weights.shape.layers());
        let places = &self.places;
        let per_unit = weights.shape.kv_heads;
        for l in (first..layers).rev() {
            if wanted.recompute {
                run.blocks(places, &self.deal, l..l + 1, None);
            }
            let (acts, x) = (&places.acts[l], places.xs[l]);
            let on = l > first || wanted.of.embedding;
            let b = &back;
            match &self.deal {
                Deal::Units(groups) => pool.tasks(groups.len(), |thread, task| {
                    let rows = rows_of(run.batch, &groups[task]);
                    run.back_after(l, acts, b, rows.clone());
                    for unit in &run.batch.units[groups[task].clone()] {
                        for kv in 0..per_unit {
                            run.attend_back(l, acts, b, unit, kv, &places.scratch[thread]);
                        }
                    }
                    run.back_before(l, acts, x, b, rows.clone(), on);
                    run.again(l, acts, x, b, rows);
                }),
                Deal::Rows(blocks) => {
                    pool.tasks(blocks.len(), |_, task| run.back_after(l, acts, b, blocks[task].clone()));
                    pool.tasks(run.batch.units.len() * per_unit, |thread, task| {
                        let unit = &run.batch.units[task / per_unit];
                        run.attend_back(l, acts, b, unit, task % per_unit, &places.scratch[thread]);
                    });
                    pool.tasks(blocks.len(), |_, task| {
                        run.back_before(l, acts, x, b, blocks[task].clone(), on);
                        run.again(l, acts, x, b, blocks[task].clone());
                    });
                }
            }
            run.block_gradients(l, acts, x, &back, &targets.blocks[l]);
            std::mem::swap(&mut back.next, &mut back.x);
        }
        if let Some(target) = &targets.embedding {
            embedding(&machine, back.next, &self.batch.tokens, weights.shape.width, target);
        }
        targets.map(|target| target.as_ref().map(|target| target.finish()))
    }
}
