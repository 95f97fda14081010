//! Causal softmax attention with rotary positions and grouped queries, on the packed output of the query-key-value
//! projections.
//!
//! One operation from `[batch, time, (heads + 2 kv_heads) head_dim]` to `[batch, time, heads head_dim]`: no head is
//! transposed in memory, no mask of `[batch, time, time]` exists, and the backward recomputes the weights instead of
//! keeping them. Left padding, right padding and none are the same code: which columns may be seen is data. A token's sum
//! over keys starts at the first one it sees, so padding changes no bit.

mod composed;
mod kernels;

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, InplaceOp2, Layout, Tensor};
use rayon::prelude::*;

use super::{Input, Output, has_fused_form, on_host};
use crate::nn::real::{Real, elements};
use crate::nn::rope::Rope;
use crate::{Error, Result};
pub use composed::{composed, composed_cached};
use kernels::*;

/// How the parts of a packed row lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Query, key and value of a head side by side, head after head (GPT-NeoX); there are as many keys as queries.
    PerHead,
    /// All queries, then all keys, then all values: separate projections put behind each other.
    PerPart,
}

/// How a projection's output is divided into heads, and which of the columns before it a token sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads, a divisor of `heads`: each serves `heads / kv_heads` query heads in a row
    /// (grouped-query attention, Ainslie et al., arXiv 2305.13245).
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Where queries, keys and values are.
    pub packing: Packing,
    /// How many columns a token sees at most, its own included; none: all up to its own.
    pub window: Option<usize>,
}

impl Geometry {
    /// Width of a packed row.
    fn packed(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Width of the context.
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of the keys, and of the values.
    fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Query heads of one key head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Where the query of `head` begins in a packed row.
    fn query(&self, head: usize) -> usize {
        match self.packing {
            Packing::PerHead => 3 * head * self.head_dim,
            Packing::PerPart => head * self.head_dim,
        }
    }

    /// Where key and value of `kv_head` begin in a packed row.
    fn key_value(&self, kv_head: usize) -> [usize; 2] {
        let start = |part: usize| match self.packing {
            Packing::PerHead => (3 * kv_head + part) * self.head_dim,
            Packing::PerPart => self.width() + (part - 1) * self.kv_width() + kv_head * self.head_dim,
        };
        [start(1), start(2)]
    }

    /// The first column inside the window of the token at `column`.
    fn earliest(&self, column: usize) -> usize {
        self.window.map_or(0, |window| (column + 1).saturating_sub(window))
    }

    fn scale(&self) -> f64 {
        (self.head_dim as f64).powf(-0.5)
    }
}

/// A tensor that all layers of a pass share, and that the host makes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Constant {
    Cosines,
    Sines,
    /// 1 where a token sees a column inside this window.
    Seen(Option<usize>),
}

/// Those made so far, each for the dtype of the states.
type Constants = Vec<((Constant, DType), Tensor)>;

/// What attention needs to know about the tokens of one forward pass, the same for all layers.
#[derive(Debug, Clone)]
pub struct Tokens {
    batch: usize,
    time: usize,
    /// `[batch, time]`: whether a token may be seen at all.
    visible: Arc<[bool]>,
    /// `[batch, time, rotated pairs]`: cosine and sine of each token's angles.
    turns: Arc<[(f64, f64)]>,
    /// `[batch]`: what each row continues; empty without a cache.
    continued: Arc<[Continued]>,
    /// What the composed forms have made of all this on the device of the pass.
    constants: Arc<Mutex<Constants>>,
}

/// Where the new tokens of a row go in the cache: tokens `start..start + count` of the row become columns
/// `past..past + count` of the cache's row `slot`; the others are padding, which no cache keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continued {
    /// Row of the cache.
    pub slot: usize,
    /// Columns it holds already; a column is a position.
    pub past: usize,
    /// The first real new token.
    pub start: usize,
    /// How many there are.
    pub count: usize,
}

/// One row as the kernels see it.
struct Sequence<'a> {
    /// Columns that may be seen, old and new; none: all.
    visible: Option<&'a [bool]>,
    /// The first of them.
    first: usize,
    /// Columns before the first new one.
    past: usize,
    /// Turns of the new tokens.
    turns: &'a [(f64, f64)],
}

impl Tokens {
    /// Tokens that see each other alone. `positions`, `visible`: `[batch, time]` row by row; `dtype`: of the states they
    /// attend with.
    pub fn new(rope: &Rope, positions: &[u32], visible: Vec<bool>, batch: usize, dtype: DType) -> Self {
        let (time, turns) = (positions.len() / batch.max(1), rope.turns(positions, dtype).into());
        Self { batch, time, visible: visible.into(), turns, continued: [].into(), constants: Arc::default() }
    }

    /// Tokens that continue a cache, each row its own of the cache's rows, `time` columns each.
    pub fn continuing(rope: &Rope, continued: Vec<Continued>, time: usize, dtype: DType) -> Self {
        let real = |c: &Continued, i: usize| (c.start..c.start + c.count).contains(&i);
        let all = || continued.iter().flat_map(|c| (0..time).map(move |i| (c, i)));
        let visible = all().map(|(c, i)| real(c, i)).collect();
        let position = |c: &Continued, i: usize| if real(c, i) { c.past + i - c.start } else { 0 };
        let positions: Vec<u32> = all().map(|(c, i)| position(c, i) as u32).collect();
        let turns = rope.turns(&positions, dtype).into();
        Self { batch: continued.len(), time, visible, turns, continued: continued.into(), constants: Arc::default() }
    }

    /// Row `b` without a cache.
    fn alone(&self, b: usize) -> Sequence<'_> {
        let visible = &self.visible[b * self.time..][..self.time];
        let first = visible.iter().position(|&v| v).unwrap_or(visible.len());
        Sequence { visible: Some(visible), first, past: 0, turns: self.turns_of(b) }
    }

    /// The real tokens of row `b`, behind those of the cache.
    fn behind(&self, b: usize) -> Sequence<'_> {
        let Continued { past, start, count, .. } = self.continued[b];
        let turns = &self.turns_of(b)[start * self.pairs()..][..count * self.pairs()];
        Sequence { visible: None, first: 0, past, turns }
    }

    /// The row of the pass that continues each of the cache's rows.
    fn of_slot(&self, slots: usize) -> Vec<Option<usize>> {
        let mut of = vec![None; slots];
        self.continued.iter().enumerate().for_each(|(b, c)| of[c.slot] = Some(b));
        of
    }

    fn turns_of(&self, b: usize) -> &[(f64, f64)] {
        let n = self.turns.len() / self.batch;
        &self.turns[b * n..][..n]
    }

    /// The constant as `make` makes it for a pass in the dtype of `like`; made once, because it has to travel to the device.
    fn constant(&self, what: Constant, like: &Tensor, make: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        let key = (what, like.dtype());
        let mut known = self.constants.lock().expect("no thread panics while it holds the constants");
        if let Some((_, tensor)) = known.iter().find(|(of, _)| *of == key) {
            return Ok(tensor.clone());
        }
        let tensor = make()?;
        known.push((key, tensor.clone()));
        Ok(tensor)
    }

    /// Rotated pairs of components of a head.
    fn pairs(&self) -> usize {
        self.turns.len() / (self.batch * self.time).max(1)
    }
}

/// Attention of new tokens among themselves. `qkv`: `[batch, time, (heads + 2 kv_heads) head_dim]`;
/// gives `[batch, time, heads head_dim]`, zero where a token sees nothing (leading padding).
pub fn attention(qkv: &Tensor, geometry: Geometry, tokens: &Tokens) -> Result<Tensor> {
    match has_fused_form(qkv) {
        true => Ok(qkv.contiguous()?.apply_op1(Attention { geometry, tokens: tokens.clone() })?),
        false => composed(qkv, geometry, tokens),
    }
}

/// Attention of new tokens ([`Tokens::continuing`]) to a cache and to themselves, without a gradient. The new keys and
/// values are written into the cache first; rows of the cache that no token continues are neither read nor written.
/// `keys`: `[slots, kv_heads, head_dim, capacity]`; `values`: `[slots, kv_heads, capacity, head_dim]`.
pub fn attention_cached(
    qkv: &Tensor,
    geometry: Geometry,
    tokens: &Tokens,
    keys: &Tensor,
    values: &Tensor,
) -> Result<Tensor> {
    let (slots, _, _, capacity) = keys.dims4()?;
    let fits = |c: &Continued| c.slot < slots && c.past + c.count <= capacity && c.start + c.count <= tokens.time;
    if tokens.continued.len() != tokens.batch || !tokens.continued.iter().all(fits) {
        return Err(Error::invalid(format!("attention: the rows do not continue a cache of {slots} x {capacity}")));
    }
    if !has_fused_form(qkv) {
        return composed_cached(qkv, geometry, tokens, keys, values);
    }
    let qkv = qkv.detach().contiguous()?;
    let part = |part| Append { geometry, tokens: tokens.clone(), part };
    keys.inplace_op2(&qkv, &part(Part::Keys))?;
    values.inplace_op2(&qkv, &part(Part::Values))?;
    Ok(qkv.apply_op3_no_bwd(keys, values, &AttentionCached { geometry, tokens: tokens.clone() })?)
}

#[derive(Debug)]
struct Attention {
    geometry: Geometry,
    tokens: Tokens,
}

/// From (qkv, gradient of the context) to the gradient of qkv.
struct AttentionGradient {
    geometry: Geometry,
    tokens: Tokens,
}

struct AttentionCached {
    geometry: Geometry,
    tokens: Tokens,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Keys,
    Values,
}

/// Writes the new keys (rotated) or values into the cache.
struct Append {
    geometry: Geometry,
    tokens: Tokens,
    part: Part,
}

fn check(l: &Layout, g: &Geometry, tokens: &Tokens) -> candle_core::Result<()> {
    if l.dims() != [tokens.batch, tokens.time, g.packed()] {
        candle_core::bail!("attention: {:?} (expected {:?})", l.dims(), [tokens.batch, tokens.time, g.packed()]);
    }
    Ok(())
}

fn forward<T: Real>((s, l): Input, g: &Geometry, tokens: &Tokens) -> Output {
    check(l, g, tokens)?;
    let (time, dim) = (tokens.time, g.head_dim);
    let qkv = elements::<T>(s, l)?;
    let mut out = vec![T::zero(); tokens.batch * time * g.width()];
    out.par_chunks_mut(time * g.width()).zip(qkv.par_chunks(time * g.packed())).enumerate().for_each(
        |(b, (context, qkv))| {
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for head in 0..g.kv_heads {
                let [k, v] = g.key_value(head);
                let head_keys = take_head(qkv, g.packed(), k, dim, tokens.turns_of(b), T::one());
                keys.extend(transposed(&head_keys, dim));
                values.extend(take_head(qkv, g.packed(), v, dim, &[], T::one()));
            }
            sequence_forward(qkv, &keys, &values, time, g, &tokens.alone(b), context);
        },
    );
    Ok((T::to_cpu_storage_owned(out), (tokens.batch, time, g.width()).into()))
}

fn backward<T: Real>((s1, l1): Input, (s2, l2): Input, g: &Geometry, tokens: &Tokens) -> Output {
    check(l1, g, tokens)?;
    let (qkv, dcontext) = (elements::<T>(s1, l1)?, elements::<T>(s2, l2)?);
    let mut out = vec![T::zero(); qkv.len()];
    let (packed, width) = (tokens.time * g.packed(), tokens.time * g.width());
    out.par_chunks_mut(packed)
        .zip(qkv.par_chunks(packed).zip(dcontext.par_chunks(width)))
        .enumerate()
        .for_each(|(b, (dqkv, (qkv, dcontext)))| sequence_backward(qkv, dcontext, g, tokens, b, dqkv));
    Ok((T::to_cpu_storage_owned(out), l1.shape().clone()))
}

fn forward_cached<T: Real>((s1, l1): Input, (s2, l2): Input, (s3, l3): Input, g: &Geometry, tokens: &Tokens) -> Output {
    check(l1, g, tokens)?;
    let capacity = l2.dims()[3];
    let (qkv, keys, values) = (elements::<T>(s1, l1)?, elements::<T>(s2, l2)?, elements::<T>(s3, l3)?);
    let mut out = vec![T::zero(); tokens.batch * tokens.time * g.width()];
    let row = g.kv_width() * capacity;
    let rows = out.par_chunks_mut(tokens.time * g.width()).zip(qkv.par_chunks(tokens.time * g.packed()));
    rows.enumerate().for_each(|(b, (context, qkv))| {
        let Continued { slot, start, count, .. } = tokens.continued[b];
        let qkv = &qkv[start * g.packed()..][..count * g.packed()];
        let context = &mut context[start * g.width()..][..count * g.width()];
        let (keys, values) = (&keys[slot * row..][..row], &values[slot * row..][..row]);
        sequence_forward(qkv, keys, values, capacity, g, &tokens.behind(b), context);
    });
    Ok((T::to_cpu_storage_owned(out), (tokens.batch, tokens.time, g.width()).into()))
}

impl CustomOp1 for Attention {
    on_host!(1, "attention", forward, self, &self.geometry, &self.tokens);

    fn bwd(&self, qkv: &Tensor, _: &Tensor, dcontext: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let op = AttentionGradient { geometry: self.geometry, tokens: self.tokens.clone() };
        Ok(Some(qkv.apply_op2_no_bwd(&dcontext.contiguous()?, &op)?))
    }
}

impl CustomOp2 for AttentionGradient {
    on_host!(2, "attention-gradient", backward, self, &self.geometry, &self.tokens);
}

impl CustomOp3 for AttentionCached {
    on_host!(3, "attention-cached", forward_cached, self, &self.geometry, &self.tokens);
}

impl Append {
    /// `cache`: the whole cache `[slots, kv_heads, ..]`; `qkv`: `[batch, time, packed]`.
    fn write<T: Real>(&self, cache: &mut [T], capacity: usize, qkv: &[T]) {
        let (g, tokens) = (&self.geometry, &self.tokens);
        let (dim, row) = (g.head_dim, g.kv_width() * capacity);
        let of_slot = tokens.of_slot(cache.len() / row);
        let written = cache.par_chunks_mut(row).zip(of_slot).filter_map(|(cache, b)| Some((cache, b?)));
        written.for_each(|(cache, b)| {
            let Continued { past, start, count, .. } = tokens.continued[b];
            let turns = tokens.behind(b).turns;
            let qkv = &qkv[(b * tokens.time + start) * g.packed()..][..count * g.packed()];
            for head in 0..g.kv_heads {
                let [k, v] = g.key_value(head);
                let cache = &mut cache[head * dim * capacity..][..dim * capacity];
                match self.part {
                    Part::Values => {
                        let values = take_head(qkv, g.packed(), v, dim, &[], T::one());
                        cache[past * dim..][..values.len()].copy_from_slice(&values);
                    }
                    Part::Keys => {
                        let keys = take_head(qkv, g.packed(), k, dim, turns, T::one());
                        for (i, key) in keys.chunks_exact(dim).enumerate() {
                            for (d, &x) in key.iter().enumerate() {
                                cache[d * capacity + past + i] = x;
                            }
                        }
                    }
                }
            }
        });
    }
}

impl InplaceOp2 for Append {
    fn name(&self) -> &'static str {
        "append-to-cache"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> candle_core::Result<()> {
        check(l2, &self.geometry, &self.tokens)?;
        let capacity = l1.dims()[if self.part == Part::Keys { 3 } else { 2 }];
        let (0, true) = (l1.start_offset(), l1.is_contiguous()) else {
            candle_core::bail!("append-to-cache: the cache is not a whole tensor")
        };
        match (s1, s2) {
            (CpuStorage::F32(cache), CpuStorage::F32(qkv)) => self.write(cache, capacity, &qkv[l2.start_offset()..]),
            (CpuStorage::F64(cache), CpuStorage::F64(qkv)) => self.write(cache, capacity, &qkv[l2.start_offset()..]),
            _ => candle_core::bail!("append-to-cache: dtype"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
