//! Causal softmax attention of one head (Vaswani et al., arXiv 1706.03762), forward and backward.
//!
//! Keys lie by position: key j is what the token at position j offers, so that a lane of a reduction belongs to a position,
//! whoever else is in the batch. A weight that is masked is exactly 0, and 0 times a value changes no chain.

use crate::gemm::{Tile, deal};
use crate::math::exp;
use crate::panel::{BLOCK, Matrix, PANEL};
use crate::simd::{LANES, Simd};

/// `n` queries of one head at positions `past..past + n`; each sees the positions up to its own, `window` at most.
#[derive(Clone, Copy)]
pub struct Attend {
    /// `[n, head_dim]`, `depth` panels.
    pub q: Matrix,
    pub depth: usize,
    pub n: usize,
    pub past: usize,
    pub window: usize,
    /// Keys transposed: for each 32 positions `depth * 32` lines of 32 positions.
    pub kt: *const f32,
    /// `[positions, head_dim]`.
    pub v: Matrix,
    /// The context, `[n, head_dim]`.
    pub o: Matrix,
    /// Each query's largest score, `[n]`, or null; and `inverse`, 1 / sum of weights.
    pub largest: *mut f32,
    pub inverse: *mut f32,
    /// Room for 16 x 32 elements for every 32 positions.
    pub scores: *mut f32,
    /// What scores are multiplied by.
    pub scale: f32,
}

/// The first position that the query at `position` sees.
#[inline(always)]
fn earliest(position: usize, window: usize) -> usize {
    (position + 1).saturating_sub(window)
}

/// Weights `exp(scale (s - max))` of one query in place, 0 where it does not look: (largest score, sum).
/// `at(c)`: its scores of positions `16 c..`; it sees `seen`; positions `16 from..16 to` are written.
#[inline(always)]
unsafe fn softmax<S: Simd>(
    at: impl Fn(usize) -> *mut f32,
    seen: std::ops::Range<usize>,
    from: usize,
    to: usize,
    scale: f32,
) -> (f32, f32) {
    let (low, zero, scale) = (S::splat(f32::NEG_INFINITY), S::splat(0.0), S::splat(scale));
    let visible = |c: usize, x: S::V, other: S::V| {
        let begin = LANES * c;
        let x = if begin + LANES > seen.end { S::first(seen.end as isize - begin as isize, x, other) } else { x };
        if begin < seen.start { S::first(seen.start as isize - begin as isize, other, x) } else { x }
    };
    let (first, last) = (seen.start / LANES, seen.end.div_ceil(LANES));
    let mut largest = low;
    for c in first..last {
        largest = S::max(largest, visible(c, S::load(at(c)), low));
    }
    let largest = S::largest(largest);
    let (max, mut sum) = (S::splat(largest), zero);
    for c in from..first {
        S::store(at(c), zero);
    }
    for c in first..last {
        let weight = visible(c, exp::<S>(S::mul(S::sub(S::load(at(c)), max), scale)), zero);
        S::store(at(c), weight);
        sum = S::add(sum, weight);
    }
    for c in last..to {
        S::store(at(c), zero);
    }
    (largest, S::sum(sum))
}

/// See [`Attend`].
#[inline(always)]
pub unsafe fn attend<S: Simd>(p: &Attend) {
    let (tiles, base, more) = deal::<S>(p.n);
    let mut row = 0;
    for t in 0..tiles {
        let tall = base + usize::from(t < more);
        let position = p.past + row;
        let (from, to) = (earliest(position, p.window) / PANEL, (position + tall).div_ceil(PANEL));
        let scores = Matrix::new(p.scores, LANES * PANEL);
        for j in from..to {
            let keys = p.kt.add(j * p.depth * BLOCK);
            S::tile_rows(tall, &Tile::new(p.depth, p.q.from(0, row), keys, scores.at(j, 0)));
        }
        let mut inverse = [0f32; LANES];
        for (i, inverse) in inverse.iter_mut().enumerate().take(tall) {
            let seen = earliest(position + i, p.window)..position + i + 1;
            let at = |c: usize| scores.at(c / 2, i).wrapping_add(c % 2 * LANES);
            let (largest, sum) = softmax::<S>(at, seen, 2 * from, 2 * to, p.scale);
            *inverse = 1.0 / sum;
            if !p.largest.is_null() {
                *p.largest.add(row + i) = largest;
                *p.inverse.add(row + i) = *inverse;
            }
        }
        for d in 0..p.depth {
            let o = p.o.at(d, row);
            S::tile_rows(tall, &Tile::new(to - from, scores.from(from, 0), p.v.at(d, from * PANEL), o));
            for (i, &inverse) in inverse.iter().enumerate().take(tall) {
                for v in [0, LANES] {
                    let o = o.add(i * PANEL + v);
                    S::store(o, S::mul(S::load(o), S::splat(inverse)));
                }
            }
        }
        row += tall;
    }
}

/// One query of one head at `position`, for decoding.
#[derive(Clone, Copy)]
pub struct AttendOne {
    pub q: Matrix,
    /// As in [`Attend`].
    pub kt: *const f32,
    pub v: Matrix,
    pub o: Matrix,
    pub position: usize,
    /// Room for 32 elements for every 32 positions.
    pub scores: *mut f32,
}

/// Queries taken in step: their chains of multiply-adds are independent, and one alone waits for itself.
const ABREAST: usize = 4;

/// [`attend`] for single queries of `depth` panels each: the same chains, several queries in step.
#[inline(always)]
pub unsafe fn attend_ones<S: Simd>(of: &[AttendOne], depth: usize, window: usize, scale: f32) {
    for group in of.chunks(ABREAST) {
        match group.len() {
            4 => attend_abreast::<S, 4>(group, depth, window, scale),
            3 => attend_abreast::<S, 3>(group, depth, window, scale),
            2 => attend_abreast::<S, 2>(group, depth, window, scale),
            _ => attend_abreast::<S, 1>(group, depth, window, scale),
        }
    }
}

#[inline(always)]
unsafe fn attend_abreast<S: Simd, const N: usize>(of: &[AttendOne], depth: usize, window: usize, scale: f32) {
    let blocks = |p: &AttendOne| earliest(p.position, window) / PANEL..p.position / PANEL + 1;
    let from = of.iter().map(|p| blocks(p).start).min().unwrap_or(0);
    let to = of.iter().map(|p| blocks(p).end).max().unwrap_or(0);
    for j in from..to {
        let mut sums = [[S::splat(0.0); 2]; N];
        let inside: [bool; N] = std::array::from_fn(|i| blocks(&of[i]).contains(&j));
        // Outside of its blocks a query repeats its own: read, computed and thrown away.
        let keys: [*const f32; N] = std::array::from_fn(|i| {
            let mine = blocks(&of[i]);
            of[i].kt.wrapping_add(j.clamp(mine.start, mine.end - 1) * depth * BLOCK)
        });
        for d in 0..depth {
            let q: [*const f32; N] = std::array::from_fn(|i| of[i].q.at(d, 0).cast_const());
            for l in 0..PANEL {
                for i in 0..N {
                    let x = S::splat(*q[i].add(l));
                    let line = keys[i].add((d * PANEL + l) * PANEL);
                    sums[i][0] = S::fma(x, S::load(line), sums[i][0]);
                    sums[i][1] = S::fma(x, S::load(line.add(LANES)), sums[i][1]);
                }
            }
        }
        for i in 0..N {
            if inside[i] {
                S::store(of[i].scores.add(j * PANEL), sums[i][0]);
                S::store(of[i].scores.add(j * PANEL + LANES), sums[i][1]);
            }
        }
    }
    let mut inverse = [0f32; N];
    for (p, inverse) in of.iter().zip(&mut inverse) {
        let (seen, mine) = (earliest(p.position, window)..p.position + 1, blocks(p));
        let at = |c: usize| p.scores.wrapping_add(c * LANES);
        let (_, sum) = softmax::<S>(at, seen, 2 * mine.start, 2 * mine.end, scale);
        *inverse = 1.0 / sum;
    }
    // Lines that every query of the group has, in step; then each its own.
    let common =
        of.iter().map(|p| blocks(p).start).max().unwrap_or(0)..of.iter().map(|p| blocks(p).end).min().unwrap_or(0);
    for d in 0..depth {
        let mut sums = [[S::splat(0.0); 2]; N];
        let add = |sum: &mut [S::V; 2], p: &AttendOne, j: usize| {
            let x = S::splat(*p.scores.add(j));
            let line = p.v.at(d, j);
            sum[0] = S::fma(x, S::load(line), sum[0]);
            sum[1] = S::fma(x, S::load(line.add(LANES)), sum[1]);
        };
        for (sum, p) in sums.iter_mut().zip(of) {
            for j in blocks(p).start * PANEL..common.start.min(blocks(p).end) * PANEL {
                add(sum, p, j);
            }
        }
        for j in common.start * PANEL..common.end * PANEL {
            for (sum, p) in sums.iter_mut().zip(of) {
                add(sum, p, j);
            }
        }
        for ((sum, p), &inverse) in sums.iter_mut().zip(of).zip(&inverse) {
            for j in common.end.max(common.start).max(blocks(p).start) * PANEL..blocks(p).end * PANEL {
                add(sum, p, j);
            }
            for (v, &sum) in sum.iter().enumerate() {
                S::store(p.o.at(d, 0).add(v * LANES), S::mul(sum, S::splat(inverse)));
            }
        }
    }
}

/// The backward pass of [`Attend`]: weights are computed again from queries, keys and the saved largest scores and
/// inverse sums. `dq` is written, `dk` and `dv` are added to.
#[derive(Clone, Copy)]
pub struct AttendBack {
    pub q: Matrix,
    pub depth: usize,
    pub n: usize,
    pub past: usize,
    pub window: usize,
    /// `[positions, head_dim]`, and both transposed as in [`Attend`].
    pub k: Matrix,
    pub kt: *const f32,
    pub vt: *const f32,
    /// The gradient of the context.
    pub d_o: Matrix,
    pub largest: *const f32,
    pub inverse: *const f32,
    pub dq: Matrix,
    pub dk: Matrix,
    pub dv: Matrix,
    /// Weights and gradients of scores: room for n x 32 elements for every 32 positions, each.
    pub weights: *mut f32,
    pub slopes: *mut f32,
    pub scale: f32,
}

/// See [`AttendBack`].
#[inline(always)]
pub unsafe fn attend_back<S: Simd>(p: &AttendBack) {
    let (tiles, base, more) = deal::<S>(p.n);
    let weights = Matrix::new(p.weights, p.n * PANEL);
    let slopes = Matrix::new(p.slopes, p.n * PANEL);
    let (zero, scale) = (S::splat(0.0), S::splat(p.scale));
    let mut row = 0;
    for t in 0..tiles {
        let tall = base + usize::from(t < more);
        let position = p.past + row;
        let (from, to) = (earliest(position, p.window) / PANEL, (position + tall).div_ceil(PANEL));
        for j in from..to {
            let (keys, values) = (p.kt.add(j * p.depth * BLOCK), p.vt.add(j * p.depth * BLOCK));
            let (q, d_o) = (p.q.from(0, row), p.d_o.from(0, row));
            S::tile_rows(tall, &Tile::new(p.depth, q, keys, weights.at(j, row)));
            S::tile_rows(tall, &Tile::new(p.depth, d_o, values, slopes.at(j, row)));
        }
        for i in row..row + tall {
            let (largest, inverse) = (S::splat(*p.largest.add(i)), S::splat(*p.inverse.add(i)));
            let seen = earliest(p.past + i, p.window)..p.past + i + 1;
            let at = |m: Matrix, c: usize| m.at(c / 2, i).wrapping_add(c % 2 * LANES);
            let (first, last) = (seen.start / LANES, seen.end.div_ceil(LANES));
            // sum of w dw: dO . O is the same number, but its rounding does not cancel where one key takes all the weight
            let mut mean = zero;
            for c in first..last {
                let begin = LANES * c;
                let mut w = S::mul(exp::<S>(S::mul(S::sub(S::load(at(weights, c)), largest), scale)), inverse);
                if begin + LANES > seen.end {
                    w = S::first(seen.end as isize - begin as isize, w, zero);
                }
                if begin < seen.start {
                    w = S::first(seen.start as isize - begin as isize, zero, w);
                }
                S::store(at(weights, c), w);
                mean = S::fma(w, S::load(at(slopes, c)), mean);
            }
            let mean = S::splat(S::sum(mean));
            for c in first..last {
                let slope = S::sub(S::load(at(slopes, c)), mean);
                S::store(at(slopes, c), S::mul(S::mul(S::load(at(weights, c)), slope), scale));
            }
            for c in (2 * from..first).chain(last..2 * to) {
                S::store(at(weights, c), zero);
                S::store(at(slopes, c), zero);
            }
        }
        for d in 0..p.depth {
            let keys = p.k.at(d, from * PANEL);
            S::tile_rows(tall, &Tile::new(to - from, slopes.from(from, row), keys, p.dq.at(d, row)));
        }
        row += tall;
    }
    for j in earliest(p.past, p.window) / PANEL..(p.past + p.n).div_ceil(PANEL) {
        let first = (j * PANEL).saturating_sub(p.past); // the first query that sees a key of this panel
        let last = (j * PANEL + PANEL - 1).saturating_add(p.window).saturating_sub(p.past).min(p.n); // and the last
        if first >= last {
            continue;
        }
        let rows = last - first;
        for d in 0..p.depth {
            let (w, s) = (weights.at(j, first), slopes.at(j, first));
            S::outer_block(rows, w, p.d_o.at(d, first), p.dv.at(d, j * PANEL), s);
            S::outer_block(rows, s, p.q.at(d, first), p.dk.at(d, j * PANEL), w.wrapping_add(weights.stride()));
        }
    }
}
