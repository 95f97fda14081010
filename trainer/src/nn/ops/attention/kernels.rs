//! The arithmetic of fused attention, one sequence at a time, on plain slices: rotation, softmax over visible keys, and
//! the sums forward and back.

use super::{Geometry, Sequence, Tokens};
use crate::nn::real::{Real, Strides, lane_sum, product, wide};

/// Query rows of one block: larger ones waste work above the diagonal, smaller ones leave the tile.
const BLOCK: usize = 16;

/// Rotates the leading components of a head by a token's angles; `sign` -1 turns back.
#[inline(always)]
pub(super) fn rotate<T: Real>(head: &mut [T], turns: &[(f64, f64)], sign: f64) {
    let half = turns.len();
    for (i, &(cos, sin)) in turns.iter().enumerate() {
        let (cos, sin) = (T::of(cos), T::of(sign * sin));
        let (a, b) = (head[i], head[half + i]);
        head[i] = a * cos - b * sin;
        head[half + i] = b * cos + a * sin;
    }
}

/// Turns scores of one query into weights, in place: exp(s - max) / sum over the visible columns, 0 elsewhere.
#[inline(always)]
pub(super) fn softmax_row<T: Real>(scores: &mut [T], visible: &[bool], last: usize) {
    let seen = |j: usize| j <= last && visible[j];
    let mut max = T::NEG_INFINITY;
    for (j, s) in scores.iter_mut().enumerate() {
        if !seen(j) {
            *s = T::NEG_INFINITY;
        }
        max = max.larger(*s);
    }
    if max == T::NEG_INFINITY {
        return scores.fill(T::zero());
    }
    for s in scores.iter_mut() {
        *s = (*s - max).exponential();
    }
    let inverse = T::one() / lane_sum(scores.len(), |j| scores[j]);
    for s in scores.iter_mut() {
        *s *= inverse;
    }
}

/// One part of one head of a packed sequence as `[time, head_dim]`, rotated when `turns` is not empty, times `scale`.
#[inline(always)]
pub(super) fn take_head<T: Real>(
    packed: &[T],
    width: usize,
    offset: usize,
    dim: usize,
    turns: &[(f64, f64)],
    scale: T,
) -> Vec<T> {
    let time = packed.len() / width;
    let half = turns.len() / time.max(1);
    let mut head = Vec::with_capacity(time * dim);
    for (i, row) in packed.chunks_exact(width).enumerate() {
        let start = head.len();
        head.extend_from_slice(&row[offset..offset + dim]);
        rotate(&mut head[start..], &turns[i * half..][..half], 1.0);
        head[start..].iter_mut().for_each(|x| *x *= scale);
    }
    head
}

#[inline(always)]
pub(super) fn transposed<T: Real>(matrix: &[T], columns: usize) -> Vec<T> {
    let rows = matrix.len() / columns;
    let mut out = vec![T::zero(); matrix.len()];
    for (i, row) in matrix.chunks_exact(columns).enumerate() {
        for (j, &x) in row.iter().enumerate() {
            out[j * rows + i] = x;
        }
    }
    out
}

/// The weights of a block of queries over columns `first..last`, `[rows, last - first]`.
/// `keys`: `[head_dim, ..]` with leading dimension `ldk`; query row r is column `column + r` of the sequence and sees
/// nothing before the first column of its window, where its softmax starts.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
pub(super) fn weights<T: Real>(
    q: &[T],
    keys: &[T],
    ldk: usize,
    visible: &[bool],
    first: usize,
    last: usize,
    column: usize,
    g: &Geometry,
    out: &mut [T],
) {
    let dim = g.head_dim;
    let (rows, n) = (q.len() / dim, last - first);
    product(rows, n, dim, q, Strides { row: dim, column: 1 }, &keys[first..], ldk, out, n);
    for (r, scores) in out.chunks_exact_mut(n).enumerate().take(rows) {
        let column = column + r;
        if column < first {
            scores.fill(T::zero());
            continue;
        }
        let outside = g.earliest(column).saturating_sub(first);
        scores[..outside].fill(T::zero());
        softmax_row(&mut scores[outside..], &visible[first + outside..last], column - first - outside);
    }
}

wide! {
    /// The context of one sequence. `keys`, `values`: those of all key heads up to the last column, `capacity` columns each.
    fn sequence_forward<T>(
        qkv: &[T],
        keys: &[T],
        values: &[T],
        capacity: usize,
        g: &Geometry,
        sequence: &Sequence,
        context: &mut [T],
    ) {
        let (dim, width) = (g.head_dim, g.width());
        let &Sequence { visible, first, past, turns } = sequence;
        let time = qkv.len() / g.packed();
        let everything; // where nothing is hidden
        let visible = match visible {
            Some(visible) => visible,
            None => {
                everything = vec![true; past + time];
                &everything
            }
        };
        let mut p = vec![T::zero(); BLOCK.min(time) * visible.len()];
        for head in 0..g.heads {
            let q = take_head(qkv, g.packed(), g.query(head), dim, turns, T::of(g.scale()));
            let start = head / g.group() * dim * capacity;
            let (keys, values) = (&keys[start..][..dim * capacity], &values[start..][..dim * capacity]);
            for (block, q) in q.chunks(BLOCK * dim).enumerate() {
                let (start, rows) = (block * BLOCK, q.len() / dim);
                let last = past + start + rows;
                if last <= first {
                    continue;
                }
                let column = past + start;
                let first = first.max(g.earliest(column));
                weights(q, keys, capacity, visible, first, last, column, g, &mut p);
                let n = last - first;
                let out = &mut context[start * width + head * dim..];
                product(rows, dim, n, &p, Strides { row: n, column: 1 }, &values[first * dim..], dim, out, width);
            }
        }
    }
}

wide! {
    fn sequence_backward<T>(
        qkv: &[T],
        dcontext: &[T],
        g: &Geometry,
        tokens: &Tokens,
        b: usize,
        dqkv: &mut [T],
    ) {
        let (time, dim, width) = (tokens.time, g.head_dim, g.width());
        let Sequence { visible, first, turns, .. } = tokens.alone(b);
        let visible = visible.unwrap_or_default(); // without a cache it is there
        let half = tokens.pairs();
        let scale = T::of(g.scale());
        let mut p = vec![T::zero(); BLOCK * time];
        let mut dp = vec![T::zero(); BLOCK * time];
        let mut sum = vec![T::zero(); time * dim];
        let mut dq = vec![T::zero(); BLOCK * dim];
        for kv_head in 0..g.kv_heads {
            let [ok, ov] = g.key_value(kv_head);
            let k = take_head(qkv, g.packed(), ok, dim, turns, T::one());
            let v = take_head(qkv, g.packed(), ov, dim, &[], T::one());
            let (k_t, v_t) = (transposed(&k, dim), transposed(&v, dim));
            let mut dk = vec![T::zero(); time * dim];
            let mut dv = vec![T::zero(); time * dim];
            for head in kv_head * g.group()..(kv_head + 1) * g.group() {
                let oq = g.query(head);
                let q = take_head(qkv, g.packed(), oq, dim, turns, scale);
                for (block, q) in q.chunks(BLOCK * dim).enumerate() {
                    let (start, rows) = (block * BLOCK, q.len() / dim);
                    let last = start + rows;
                    if last <= first {
                        continue;
                    }
                    let first = first.max(g.earliest(start));
                    let n = last - first;
                    weights(q, &k_t, time, visible, first, last, start, g, &mut p);
                    let dout = &dcontext[start * width + head * dim..];
                    product(rows, n, dim, dout, Strides { row: width, column: 1 }, &v_t[first..], time, &mut dp, n);
                    // dV += P^T dO
                    product(n, dim, rows, &p, Strides { row: 1, column: n }, dout, width, &mut sum, dim);
                    dv[first * dim..].iter_mut().zip(&sum[..n * dim]).for_each(|(d, &s)| *d += s);
                    // dS = P (dP - sum_j P dP)
                    for (p, dp) in p.chunks_exact(n).zip(dp.chunks_exact_mut(n)).take(rows) {
                        let mean = lane_sum(n, |j| p[j] * dp[j]);
                        dp.iter_mut().zip(p).for_each(|(d, &p)| *d = p * (*d - mean));
                    }
                    product(n, dim, rows, &dp, Strides { row: 1, column: n }, q, dim, &mut sum, dim);
                    dk[first * dim..].iter_mut().zip(&sum[..n * dim]).for_each(|(d, &s)| *d += s);
                    product(rows, dim, n, &dp, Strides { row: n, column: 1 }, &k[first * dim..], dim, &mut dq, dim);
                    for (r, dq) in dq.chunks_exact_mut(dim).enumerate().take(rows) {
                        rotate(dq, &turns[(start + r) * half..][..half], -1.0);
                        let out = &mut dqkv[(start + r) * g.packed() + oq..][..dim];
                        out.iter_mut().zip(dq).for_each(|(o, &mut d)| *o = d * scale);
                    }
                }
            }
            for i in 0..time {
                let row = &mut dqkv[i * g.packed()..][..g.packed()];
                rotate(&mut dk[i * dim..][..dim], &turns[i * half..][..half], -1.0);
                row[ok..ok + dim].copy_from_slice(&dk[i * dim..][..dim]);
                row[ov..ov + dim].copy_from_slice(&dv[i * dim..][..dim]);
            }
        }
    }
}
