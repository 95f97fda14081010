//! One block on some rows: what comes before attention, attention, and what comes after it.

use std::ops::Range;
use std::sync::Arc;

use super::batch::{Batch, Unit};
use super::shape::{Block, Linear};
use super::weights::{Packed, Weights};
use super::{Machine, Shape};
use crate::attention::Attend;
use crate::buffer::Arena;
use crate::gemm::Product;
use crate::norm::Normalise;
use crate::panel::{BLOCK, Matrix, PANEL};
use crate::rows::{Activate, Rotate, Transpose};

/// What the low-rank corrections of a block keep: `x A^T` of each adapted map, `[rows, rank]`.
#[derive(Debug, Clone)]
pub(super) struct Lows {
    pub projections: Vec<Matrix>,
    pub out: Matrix,
    pub gate: Matrix,
    pub up: Matrix,
    pub down: Matrix,
}

impl Lows {
    pub fn new(arena: &mut Arena, block: &Block<Arc<Packed>>, rows: usize) -> Self {
        let mut low = |of: &Linear<Arc<Packed>>| match &of.adapter {
            Some(adapter) => arena.matrix(adapter.down.outs().len(), rows),
            None => Matrix::NONE,
        };
        Self {
            projections: block.projections.iter().map(&mut low).collect(),
            out: low(&block.out),
            gate: block.gate.as_ref().map_or(Matrix::NONE, &mut low),
            up: low(&block.up),
            down: low(&block.down),
        }
    }
}

/// What a block's forward pass leaves for its backward pass: matrices of all rows, numbers of all rows.
#[derive(Debug, Clone)]
pub(super) struct Acts {
    /// The residual stream between the branches; only where they follow each other.
    pub mid: Matrix,
    /// Queries and keys before their norms; only where they have norms.
    pub raw: Matrix,
    /// Queries, keys and values of all heads, rotated.
    pub qkv: Matrix,
    pub context: Matrix,
    pub gate: Matrix,
    pub up: Matrix,
    /// Mean and scale of the norms.
    pub attention_norm: [*mut f32; 2],
    pub mlp_norm: [*mut f32; 2],
    /// Mean (0) and scale of each head's query and key, `[heads + kv_heads][rows]`.
    pub head_norms: [*mut f32; 2],
    /// Largest score and inverse sum of weights, `[heads][rows]`.
    pub largest: *mut f32,
    pub inverse: *mut f32,
    pub lows: Lows,
}

// SAFETY: places only; tasks write disjoint rows.
unsafe impl Send for Acts {}
// SAFETY: as above.
unsafe impl Sync for Acts {}

impl Acts {
    pub fn new(arena: &mut Arena, weights: &Weights, layer: usize, rows: usize) -> Self {
        let shape = &weights.shape;
        let block = &weights.model.blocks[layer];
        let (q, k) = (shape.query_panels(), shape.key_panels());
        let gated = if block.gate.is_some() { shape.inner_panels() } else { 0 };
        let normed = if block.head_norms.is_some() { shape.heads + shape.kv_heads } else { 0 };
        Self {
            mid: arena.matrix(if shape.parallel { 0 } else { shape.stream() }, rows),
            raw: arena.matrix(if normed > 0 { q + k } else { 0 }, rows),
            qkv: arena.matrix(q + 2 * k, rows),
            context: arena.matrix(q, rows),
            gate: arena.matrix(gated, rows),
            up: arena.matrix(shape.inner_panels(), rows),
            attention_norm: [arena.take(rows), arena.take(rows)],
            mlp_norm: [arena.take(rows), arena.take(rows)],
            head_norms: [arena.take(normed * rows), arena.take(normed * rows)],
            largest: arena.take(shape.heads * rows),
            inverse: arena.take(shape.heads * rows),
            lows: Lows::new(arena, block, rows),
        }
    }
}

/// Memory of one thread for one group of rows and one unit's attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scratch {
    /// A normalised stream.
    pub y: Matrix,
    /// Activations.
    pub g: Matrix,
    /// What attention works on: see [`super::backward`] for the last five.
    pub kt: *mut f32,
    pub v: Matrix,
    pub scores: *mut f32,
    pub k: Matrix,
    pub vt: *mut f32,
    pub dk: Matrix,
    pub dv: Matrix,
    pub slopes: *mut f32,
}

// SAFETY: places only; each is one thread's.
unsafe impl Send for Scratch {}
// SAFETY: as above.
unsafe impl Sync for Scratch {}

impl Scratch {
    /// For groups of `group` rows, units whose rows see at most `keys` positions, queries of at most `queries` at once.
    pub fn new(arena: &mut Arena, shape: &Shape, group: usize, keys: usize, queries: usize, back: bool) -> Self {
        let keys = keys.next_multiple_of(PANEL);
        let depth = shape.depth();
        // Exactly whole panels behind each other: attention counts positions in panels.
        let mut lines = |n: usize| arena.take(n * keys * PANEL);
        let of = |start: *mut f32| Matrix::new(start, keys * PANEL);
        let back_depth = if back { depth } else { 0 };
        let (kt, v) = (lines(depth), of(lines(depth)));
        let (k, vt) = (of(lines(back_depth)), lines(back_depth));
        let (dk, dv) = (of(lines(back_depth)), of(lines(back_depth)));
        let tall = if back { queries.max(16) } else { 16 };
        Self {
            y: arena.matrix(shape.stream(), group),
            g: arena.matrix(shape.inner_panels(), group),
            kt,
            v,
            scores: arena.take(keys * tall),
            k,
            vt,
            dk,
            dv,
            slopes: arena.take(if back { keys * tall } else { 0 }),
        }
    }
}

/// A pass through the blocks of one decoder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub machine: &'a Machine,
    pub weights: &'a Weights,
    pub batch: &'a Batch,
    pub turns: &'a [f32],
}

impl Run<'_> {
    pub fn shape(&self) -> &Shape {
        &self.weights.shape
    }

    /// Rows of `range` that someone reads: all, but in the last block.
    pub fn live(&self, layer: usize, range: Range<usize>) -> Vec<Range<usize>> {
        if layer + 1 < self.shape().layers() {
            return vec![range];
        }
        let mut live: Vec<Range<usize>> = Vec::new();
        for unit in self.batch.units.iter().filter(|u| u.first < range.end && u.first + u.rows > range.start) {
            let (start, end) = (unit.live_range().start.max(range.start), unit.live_range().end.min(range.end));
            match live.last_mut() {
                Some(last) if last.end == start => last.end = end.max(start),
                _ if start < end => live.push(start..end),
                _ => {}
            }
        }
        live
    }

    /// `x A^T` of an adapted map, of `rows` rows.
    pub unsafe fn lower(&self, map: &Linear<Arc<Packed>>, x: Matrix, low: Matrix, rows: usize) {
        if let Some(adapter) = &map.adapter {
            let (b, depth) = (adapter.down.forward(), adapter.down.ins().len());
            let panels = adapter.down.outs().len();
            self.product(x, depth, b, depth, low, panels, rows, Matrix::NONE, std::ptr::null());
        }
    }

    /// Panels `outs` of `plus + x W^T + b`, and of the correction where `low` holds [`Run::lower`] of the same rows.
    pub unsafe fn linear(
        &self,
        map: &Linear<Arc<Packed>>,
        outs: Range<usize>,
        x: Matrix,
        y: Matrix,
        plus: Matrix,
        low: Matrix,
        rows: usize,
    ) {
        let depth = map.weight.ins().len();
        let b = map.weight.forward().add(outs.start * depth * BLOCK);
        let bias = map.bias.as_ref().map_or(std::ptr::null(), |b| b.forward().add(outs.start * PANEL));
        self.product(x, depth, b, depth, y, outs.len(), rows, plus, bias);
        if let Some(adapter) = &map.adapter {
            let depth = adapter.up.ins().len();
            let b = adapter.up.forward().add(outs.start * depth * BLOCK);
            self.product(low, depth, b, depth, y, outs.len(), rows, y, std::ptr::null());
        }
    }

    /// `c = plus + bias + a b`, where a panel of `b` has `lines` blocks.
    pub unsafe fn product(
        &self,
        a: Matrix,
        depth: usize,
        b: *const f32,
        lines: usize,
        c: Matrix,
        panels: usize,
        rows: usize,
        plus: Matrix,
        bias: *const f32,
    ) {
        (self.machine.kernels.product)(&Product { a, depth, b, b_stride: lines * BLOCK, c, panels, rows, plus, bias });
    }

    /// A norm of the stream as [`Normalise`] wants it, of rows `range`.
    pub fn norm(
        &self,
        norm: &super::Norm<Arc<Packed>>,
        stats: [*mut f32; 2],
        x: Matrix,
        y: Matrix,
        range: Range<usize>,
    ) -> Normalise {
        Normalise {
            x: x.from(0, range.start),
            y,
            width: self.shape().width,
            rows: range.len(),
            gain: norm.gain.forward(),
            bias: norm.bias.as_ref().map_or(std::ptr::null(), |b| b.forward()),
            eps: self.shape().eps,
            mean: stats[0].wrapping_add(range.start),
            scale: stats[1].wrapping_add(range.start),
        }
    }

    /// A norm of a head of queries or keys, as [`Normalise`] wants it: `head` counts query heads, then key heads.
    pub fn head_norm(
        &self,
        layer: usize,
        acts: &Acts,
        head: usize,
        x: Matrix,
        y: Matrix,
        range: Range<usize>,
    ) -> Option<Normalise> {
        let [queries, keys] = self.weights.model.blocks[layer].head_norms.as_ref()?;
        let gain = if head < self.shape().heads { queries } else { keys };
        let (panel, rows) = (head * self.shape().depth(), self.batch.rows());
        Some(Normalise {
            x: x.from(panel, range.start),
            y: y.from(panel, range.start),
            width: self.shape().head_dim,
            rows: range.len(),
            gain: gain.forward(),
            bias: std::ptr::null(),
            eps: self.shape().eps,
            mean: acts.head_norms[0].wrapping_add(head * rows + range.start),
            scale: acts.head_norms[1].wrapping_add(head * rows + range.start),
        })
    }

    /// Turns queries and keys by their positions; `sign` -1 turns gradients back.
    pub unsafe fn rotate(&self, qkv: Matrix, head: usize, range: Range<usize>, sign: f32) {
        let half = self.shape().frequencies.len();
        if half > 0 {
            (self.machine.kernels.rotate)(&Rotate {
                head: qkv.from(head * self.shape().depth(), range.start),
                rows: range.len(),
                turns: self.turns.as_ptr(),
                half,
                positions: self.batch.positions[range].as_ptr(),
                sign,
            });
        }
    }

    /// Norm and projections of rows `range`: queries, keys and values, rotated.
    pub unsafe fn before(&self, layer: usize, acts: &Acts, x: Matrix, range: Range<usize>, scratch: &Scratch) {
        let (shape, block) = (self.shape(), &self.weights.model.blocks[layer]);
        let (y, start) = (scratch.y, range.start);
        let live = self.live(layer, range.clone());
        (self.machine.kernels.normalise)(&self.norm(&block.attention_norm, acts.attention_norm, x, y, range.clone()));
        for (map, low) in block.projections.iter().zip(&acts.lows.projections) {
            self.lower(map, y, low.from(0, start), range.len());
        }
        let heads = shape.heads + shape.kv_heads;
        for (map, outs, first, queries) in shape.parts() {
            let low = acts.lows.projections[map];
            let rows = if queries { live.as_slice() } else { std::slice::from_ref(&range) };
            for rows in rows {
                let normed = acts.raw.is_some() && first < heads * shape.depth();
                let to = if normed { acts.raw } else { acts.qkv };
                let (x, to) = (y.from(0, rows.start - start), to.from(first, rows.start));
                let map = &block.projections[map];
                self.linear(map, outs.clone(), x, to, Matrix::NONE, low.from(0, rows.start), rows.len());
            }
        }
        for head in 0..heads {
            let rows = if head < shape.heads { live.as_slice() } else { std::slice::from_ref(&range) };
            for rows in rows {
                if let Some(norm) = self.head_norm(layer, acts, head, acts.raw, acts.qkv, rows.clone()) {
                    (self.machine.kernels.normalise)(&norm);
                }
                self.rotate(acts.qkv, head, rows.clone(), 1.0);
            }
        }
    }

    /// The rows of each segment of a unit that ask in this block: (segment, first row in it, rows).
    pub fn asking(&self, layer: usize, unit: &Unit) -> Vec<(super::batch::Segment, usize, usize)> {
        let live = if layer + 1 < self.shape().layers() { 0 } else { unit.live };
        let rows = |s: &super::batch::Segment| {
            let skip = live.saturating_sub(s.start).min(s.len);
            (*s, skip, s.len - skip)
        };
        unit.segments.iter().map(rows).filter(|&(.., n)| n > 0).collect()
    }

    /// Copies the lines of a key head's panel that a segment sees, by position, filled up with zeros.
    pub unsafe fn gather(&self, from: *const f32, segment: &super::batch::Segment, to: *mut f32) {
        let (context, len) = (segment.context, segment.len);
        let n = context + len;
        std::ptr::copy_nonoverlapping(from, to, context * PANEL);
        std::ptr::copy_nonoverlapping(from.add(segment.start * PANEL), to.add(context * PANEL), len * PANEL);
        std::ptr::write_bytes(to.add(n * PANEL), 0, (n.next_multiple_of(PANEL) - n) * PANEL);
    }

    /// Attention of the query heads of key head `kv` in one unit.
    pub unsafe fn attend(&self, layer: usize, acts: &Acts, unit: &Unit, kv: usize, scratch: &Scratch) {
        let (shape, kernels, rows) = (self.shape(), &self.machine.kernels, self.batch.rows());
        let (depth, group) = (shape.depth(), shape.heads / shape.kv_heads);
        let keys = shape.query_panels() + kv * depth;
        let values = keys + shape.key_panels();
        for (segment, skip, n) in self.asking(layer, unit) {
            for d in 0..depth {
                // The keys' lines pass through the place of the values.
                let lines = scratch.v.at(d, 0);
                self.gather(acts.qkv.at(keys + d, unit.first), &segment, lines);
                let (target, stride) = (scratch.kt.add(d * BLOCK), depth * BLOCK);
                (kernels.transpose)(&Transpose { source: lines, rows: segment.context + segment.len, target, stride });
                self.gather(acts.qkv.at(values + d, unit.first), &segment, lines);
            }
            let row = unit.first + segment.start + skip;
            for head in kv * group..(kv + 1) * group {
                (kernels.attend)(&Attend {
                    q: acts.qkv.from(head * depth, row),
                    depth,
                    n,
                    past: segment.context + skip,
                    window: shape.window(layer),
                    kt: scratch.kt,
                    v: scratch.v,
                    o: acts.context.from(head * depth, row),
                    largest: acts.largest.add(head * rows + row),
                    inverse: acts.inverse.add(head * rows + row),
                    scores: scratch.scores,
                    scale: shape.scale(),
                });
            }
        }
    }

    /// From the context to the next block's stream, of the live rows of `range`.
    pub unsafe fn after(
        &self,
        layer: usize,
        acts: &Acts,
        x: Matrix,
        next: Matrix,
        range: Range<usize>,
        scratch: &Scratch,
    ) {
        let (shape, block) = (self.shape(), &self.weights.model.blocks[layer]);
        let (kernels, lows) = (&self.machine.kernels, &acts.lows);
        for rows in self.live(layer, range) {
            let (start, n) = (rows.start, rows.len());
            let at = |m: Matrix| m.from(0, start);
            self.lower(&block.out, at(acts.context), at(lows.out), n);
            let attended = |to: Matrix| {
                let outs = 0..shape.stream();
                self.linear(&block.out, outs, at(acts.context), at(to), at(x), at(lows.out), n);
            };
            let between = if shape.parallel { x } else { acts.mid };
            if !shape.parallel {
                attended(acts.mid);
            }
            let (y, g) = (scratch.y, scratch.g);
            (kernels.normalise)(&self.norm(&block.mlp_norm, acts.mlp_norm, between, y, rows));
            self.lower(&block.up, y, at(lows.up), n);
            if let Some(gate) = &block.gate {
                self.lower(gate, y, at(lows.gate), n);
            }
            for panel in 0..shape.inner_panels() {
                let place = |m: Matrix| m.from(panel, start);
                self.linear(&block.up, panel..panel + 1, y, place(acts.up), Matrix::NONE, at(lows.up), n);
                if let Some(gate) = &block.gate {
                    self.linear(gate, panel..panel + 1, y, place(acts.gate), Matrix::NONE, at(lows.gate), n);
                }
                (kernels.activate)(&Activate {
                    activation: shape.activation,
                    rows: n,
                    u: acts.up.at(panel, start),
                    gate: acts.gate.place(panel, start),
                    out: g.at(panel, 0),
                });
            }
            // Only now: the next stream may lie where this one does.
            let base = if shape.parallel { next } else { acts.mid };
            if shape.parallel {
                attended(next);
            }
            self.lower(&block.down, g, at(lows.down), n);
            self.linear(&block.down, 0..shape.stream(), g, at(next), at(base), at(lows.down), n);
        }
    }
}
