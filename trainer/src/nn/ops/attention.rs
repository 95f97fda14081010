//! Causal softmax attention with rotary positions, on the packed output of the query-key-value projection.
//!
//! One operation from `[batch, time, 3 * heads * head_dim]` to `[batch, time, heads * head_dim]`: no head is transposed
//! in memory, no mask of `[batch, time, time]` exists, and the backward recomputes the weights instead of keeping them.
//! Left padding, right padding and none are the same code: which columns may be seen is data. A sum over keys starts at
//! the first visible one, so padding changes no bit.

mod kernels;

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, D, DType, Device, InplaceOp2, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{by_dtype, has_fused_form};
use crate::Result;
use crate::nn::real::{Real, elements};
use kernels::*;

/// How a projection's output is divided into heads, and how positions enter it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Number of heads. The projection holds query, key and value of a head side by side (GPT-NeoX's packing).
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// The leading components of a head that are rotated; even.
    pub rotary_dims: usize,
    /// Base of the rotary frequencies.
    pub theta: f64,
}

impl Geometry {
    fn packed(&self) -> usize {
        3 * self.heads * self.head_dim
    }

    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Where query, key and value of `head` begin in a packed row.
    fn offsets(&self, head: usize) -> [usize; 3] {
        [0, 1, 2].map(|part| (3 * head + part) * self.head_dim)
    }

    fn scale(&self) -> f64 {
        (self.head_dim as f64).powf(-0.5)
    }
}

/// What attention needs to know about the tokens of one forward pass, the same for all layers.
#[derive(Debug, Clone)]
pub struct Tokens {
    batch: usize,
    time: usize,
    /// Columns before the first new one (tokens in the cache).
    past: usize,
    /// `[batch, past + time]`: whether a column may be seen at all.
    visible: Arc<[bool]>,
    /// `[batch, time, rotary_dims / 2]`: cosine and sine of each new token's angles.
    turns: Arc<[(f64, f64)]>,
}

impl Tokens {
    /// `positions`: `[batch, time]` of the new tokens; `visible`: `[batch, past + time]` row by row. Angles are rounded as
    /// the arithmetic of `dtype` rounds them (checkpoints were trained with angles in f32).
    pub fn new(geometry: &Geometry, positions: &[u32], visible: Vec<bool>, batch: usize, dtype: DType) -> Self {
        let time = positions.len() / batch.max(1);
        let past = visible.len() / batch.max(1) - time;
        let half = geometry.rotary_dims / 2;
        let frequency = |i: usize| geometry.theta.powf(-((2 * i) as f64) / geometry.rotary_dims as f64);
        let frequencies: Vec<f64> = (0..half).map(frequency).collect();
        let turn = |position: u32, frequency: f64| {
            let angle = match dtype {
                DType::F64 => f64::from(position) * frequency,
                _ => f64::from(position as f32 * frequency as f32),
            };
            (angle.cos(), angle.sin())
        };
        let turns = positions.iter().flat_map(|&p| frequencies.iter().map(move |&f| turn(p, f))).collect();
        Self { batch, time, past, visible: visible.into(), turns }
    }

    fn columns(&self) -> usize {
        self.past + self.time
    }

    /// Visible columns of batch row `b`, and the first of them (the number of columns when there is none).
    fn visible_of(&self, b: usize) -> (&[bool], usize) {
        let visible = &self.visible[b * self.columns()..][..self.columns()];
        (visible, visible.iter().position(|&v| v).unwrap_or(visible.len()))
    }

    fn turns_of(&self, b: usize) -> &[(f64, f64)] {
        let n = self.turns.len() / self.batch;
        &self.turns[b * n..][..n]
    }
}

/// Attention of new tokens among themselves. `qkv`: `[batch, time, 3 * heads * head_dim]`;
/// gives `[batch, time, heads * head_dim]`, zero where a token sees nothing (leading padding).
pub fn attention(qkv: &Tensor, geometry: Geometry, tokens: &Tokens) -> Result<Tensor> {
    match has_fused_form(qkv) {
        true => Ok(qkv.contiguous()?.apply_op1(Attention { geometry, tokens: tokens.clone() })?),
        false => composed(qkv, geometry, tokens),
    }
}

/// Attention of new tokens to a cache and to themselves, without a gradient. The new keys and values are written into
/// the cache first. `keys`: `[batch, heads, head_dim, capacity]`; `values`: `[batch, heads, capacity, head_dim]`.
pub fn attention_cached(
    qkv: &Tensor,
    geometry: Geometry,
    tokens: &Tokens,
    keys: &Tensor,
    values: &Tensor,
) -> Result<Tensor> {
    if !has_fused_form(qkv) {
        return composed_cached(qkv, geometry, tokens, keys, values);
    }
    let qkv = qkv.detach().contiguous()?;
    let part = |part| Append { geometry, tokens: tokens.clone(), part };
    keys.inplace_op2(&qkv, &part(Part::Keys))?;
    values.inplace_op2(&qkv, &part(Part::Values))?;
    Ok(qkv.apply_op3_no_bwd(keys, values, &AttentionCached { geometry, tokens: tokens.clone() })?)
}

/// The definition of [`attention`] in candle operations.
pub fn composed(qkv: &Tensor, geometry: Geometry, tokens: &Tokens) -> Result<Tensor> {
    let [q, k, v] = split(qkv, geometry, tokens)?;
    attend(&q, &k.transpose(2, 3)?, &v, geometry, tokens)
}

/// The definition of [`attention_cached`] in candle operations.
pub fn composed_cached(
    qkv: &Tensor,
    geometry: Geometry,
    tokens: &Tokens,
    keys: &Tensor,
    values: &Tensor,
) -> Result<Tensor> {
    let [q, k, v] = split(&qkv.detach(), geometry, tokens)?;
    keys.slice_set(&k.transpose(2, 3)?.contiguous()?, 3, tokens.past)?;
    values.slice_set(&v.contiguous()?, 2, tokens.past)?;
    let columns = tokens.columns();
    let (keys, values) = (keys.narrow(3, 0, columns)?, values.narrow(2, 0, columns)?);
    attend(&q, &keys.contiguous()?, &values.contiguous()?, geometry, tokens)
}

/// Queries and keys after rotation, and values, each `[batch, heads, time, head_dim]`.
fn split(qkv: &Tensor, geometry: Geometry, tokens: &Tokens) -> Result<[Tensor; 3]> {
    let Geometry { heads, head_dim, rotary_dims, .. } = geometry;
    let Tokens { batch, time, .. } = *tokens;
    let parts = qkv.reshape((batch, time, heads, 3, head_dim))?;
    let part = |i: usize| -> Result<Tensor> { Ok(parts.narrow(3, i, 1)?.squeeze(3)?.transpose(1, 2)?.contiguous()?) };
    let half = rotary_dims / 2;
    let table = |of: fn(&(f64, f64)) -> f64| -> Result<Tensor> {
        let values: Vec<f64> = tokens.turns.iter().map(of).collect();
        let table = Tensor::from_vec(values, (batch, 1, time, half), &Device::Cpu)?;
        Ok(table.to_dtype(qkv.dtype())?.to_device(qkv.device())?)
    };
    let (cos, sin) = (table(|t| t.0)?, table(|t| t.1)?);
    let rotate = |x: Tensor| -> Result<Tensor> {
        if half == 0 {
            return Ok(x);
        }
        let (a, b) = (x.narrow(3, 0, half)?, x.narrow(3, half, half)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        let rest = x.narrow(3, rotary_dims, head_dim - rotary_dims)?;
        Ok(Tensor::cat(&[first, second, rest], 3)?)
    };
    Ok([rotate(part(0)?)?, rotate(part(1)?)?, part(2)?])
}

/// `q`: `[batch, heads, time, head_dim]`; `keys`: `[batch, heads, head_dim, columns]`; `values`: `[batch, heads, columns, head_dim]`.
fn attend(q: &Tensor, keys: &Tensor, values: &Tensor, geometry: Geometry, tokens: &Tokens) -> Result<Tensor> {
    let Tokens { batch, time, past, .. } = *tokens;
    let columns = tokens.columns();
    let seen = (0..batch).flat_map(|b| {
        let visible = tokens.visible_of(b).0;
        (0..time).flat_map(move |i| (0..columns).map(move |j| f64::from(u8::from(visible[j] && j <= past + i))))
    });
    let seen = Tensor::from_vec(seen.collect(), (batch, 1, time, columns), &Device::Cpu)?;
    let seen = seen.to_dtype(q.dtype())?.to_device(q.device())?;
    let scores = (q.contiguous()?.matmul(&keys.contiguous()?)? * geometry.scale())?; // [batch, heads, time, columns]
    let scores = scores.broadcast_add(&((&seen - 1.0)? * 1e30)?)?;
    let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.broadcast_mul(&seen)?;
    let context = weights.matmul(&values.contiguous()?)?; // [batch, heads, time, head_dim]
    Ok(context.transpose(1, 2)?.contiguous()?.reshape((batch, time, geometry.width()))?)
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

fn forward<T: Real>(
    s: &CpuStorage,
    l: &Layout,
    g: &Geometry,
    tokens: &Tokens,
) -> candle_core::Result<(CpuStorage, Shape)> {
    check(l, g, tokens)?;
    let (time, dim) = (tokens.time, g.head_dim);
    let qkv = elements::<T>(s, l)?;
    let mut out = vec![T::zero(); tokens.batch * time * g.width()];
    out.par_chunks_mut(time * g.width()).zip(qkv.par_chunks(time * g.packed())).enumerate().for_each(
        |(b, (context, qkv))| {
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for head in 0..g.heads {
                let [_, k, v] = g.offsets(head);
                let head_keys = take_head(qkv, g.packed(), k, dim, tokens.turns_of(b), T::one());
                keys.extend(transposed(&head_keys, dim));
                values.extend(take_head(qkv, g.packed(), v, dim, &[], T::one()));
            }
            sequence_forward(qkv, &keys, &values, time, g, tokens, b, context);
        },
    );
    Ok((T::to_cpu_storage_owned(out), (tokens.batch, time, g.width()).into()))
}

fn backward<T: Real>(
    (s1, l1): (&CpuStorage, &Layout),
    (s2, l2): (&CpuStorage, &Layout),
    g: &Geometry,
    tokens: &Tokens,
) -> candle_core::Result<(CpuStorage, Shape)> {
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

fn forward_cached<T: Real>(
    (s1, l1): (&CpuStorage, &Layout),
    (s2, l2): (&CpuStorage, &Layout),
    (s3, l3): (&CpuStorage, &Layout),
    g: &Geometry,
    tokens: &Tokens,
) -> candle_core::Result<(CpuStorage, Shape)> {
    check(l1, g, tokens)?;
    let capacity = l2.dims()[3];
    let (qkv, keys, values) = (elements::<T>(s1, l1)?, elements::<T>(s2, l2)?, elements::<T>(s3, l3)?);
    let mut out = vec![T::zero(); tokens.batch * tokens.time * g.width()];
    let row = g.width() * capacity;
    out.par_chunks_mut(tokens.time * g.width())
        .zip(qkv.par_chunks(tokens.time * g.packed()))
        .zip(keys.par_chunks(row).zip(values.par_chunks(row)))
        .enumerate()
        .for_each(|(b, ((context, qkv), (keys, values)))| {
            sequence_forward(qkv, keys, values, capacity, g, tokens, b, context);
        });
    Ok((T::to_cpu_storage_owned(out), (tokens.batch, tokens.time, g.width()).into()))
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        by_dtype!(s, forward, s, l, &self.geometry, &self.tokens)
    }

    fn bwd(&self, qkv: &Tensor, _: &Tensor, dcontext: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let op = AttentionGradient { geometry: self.geometry, tokens: self.tokens.clone() };
        Ok(Some(qkv.apply_op2_no_bwd(&dcontext.contiguous()?, &op)?))
    }
}

impl CustomOp2 for AttentionGradient {
    fn name(&self) -> &'static str {
        "attention-gradient"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        by_dtype!(s1, backward, (s1, l1), (s2, l2), &self.geometry, &self.tokens)
    }
}

impl CustomOp3 for AttentionCached {
    fn name(&self) -> &'static str {
        "attention-cached"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        by_dtype!(s1, forward_cached, (s1, l1), (s2, l2), (s3, l3), &self.geometry, &self.tokens)
    }
}

impl Append {
    /// `cache`: the whole cache `[batch, heads, ..]`; `qkv`: `[batch, time, packed]`.
    fn write<T: Real>(&self, cache: &mut [T], capacity: usize, qkv: &[T]) {
        let (g, tokens) = (&self.geometry, &self.tokens);
        let dim = g.head_dim;
        let rows = cache.par_chunks_mut(g.width() * capacity).zip(qkv.par_chunks(tokens.time * g.packed()));
        rows.enumerate().for_each(|(b, (cache, qkv))| {
            for head in 0..g.heads {
                let [_, k, v] = g.offsets(head);
                let cache = &mut cache[head * dim * capacity..][..dim * capacity];
                match self.part {
                    Part::Values => {
                        let values = take_head(qkv, g.packed(), v, dim, &[], T::one());
                        cache[tokens.past * dim..][..values.len()].copy_from_slice(&values);
                    }
                    Part::Keys => {
                        let keys = take_head(qkv, g.packed(), k, dim, tokens.turns_of(b), T::one());
                        for (i, key) in keys.chunks_exact(dim).enumerate() {
                            for (d, &x) in key.iter().enumerate() {
                                cache[d * capacity + tokens.past + i] = x;
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
        if self.tokens.columns() > capacity {
            candle_core::bail!("append-to-cache: {} columns in a cache of {capacity}", self.tokens.columns());
        }
        match (s1, s2) {
            (CpuStorage::F32(cache), CpuStorage::F32(qkv)) => self.write(cache, capacity, &qkv[l2.start_offset()..]),
            (CpuStorage::F64(cache), CpuStorage::F64(qkv)) => self.write(cache, capacity, &qkv[l2.start_offset()..]),
            _ => candle_core::bail!("append-to-cache: dtype"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    const GEOMETRY: Geometry = Geometry { heads: 3, head_dim: 10, rotary_dims: 6, theta: 10_000.0 };

    /// Rows of 37 tokens: one left-padded by 5, one right-padded by 3, one with a hole.
    fn tokens(dtype: DType) -> Tokens {
        let (batch, time) = (3, 37);
        let mut visible = vec![true; batch * time];
        visible[..5].fill(false);
        visible[2 * time - 3..2 * time].fill(false);
        visible[2 * time + 20] = false;
        let positions: Vec<u32> = (0..batch as u32).flat_map(|b| (0..time as u32).map(move |i| i + b)).collect();
        Tokens::new(&GEOMETRY, &positions, visible, batch, dtype)
    }

    #[test]
    fn fused_and_composed_attention_agree_and_the_gradient_is_the_slope() {
        let qkv = random("qkv", &[3, 37, 90], DType::F64);
        for partial in [GEOMETRY, Geometry { rotary_dims: 10, ..GEOMETRY }, Geometry { rotary_dims: 0, ..GEOMETRY }] {
            let at = |dtype| {
                let Tokens { batch, ref visible, .. } = tokens(dtype);
                let positions: Vec<u32> = (0..3 * 37).map(|i| i % 41).collect();
                Tokens::new(&partial, &positions, visible.to_vec(), batch, dtype)
            };
            let fused = |a: &[Tensor]| attention(&a[0], partial, &at(a[0].dtype())).unwrap();
            let slow = |a: &[Tensor]| composed(&a[0], partial, &at(a[0].dtype())).unwrap();
            agree(std::slice::from_ref(&qkv), fused, slow, [3e-6, 1e-12]);
            matches_finite_differences(std::slice::from_ref(&qkv), fused, 1e-6);
        }
    }

    #[test]
    fn attention_by_pieces_through_the_cache_equals_attention_at_once_bit_for_bit() {
        let qkv = random("qkv", &[3, 37, 90], DType::F32);
        let whole = tokens(DType::F32);
        let at_once = attention(&qkv, GEOMETRY, &whole).unwrap();
        let keys = Tensor::zeros((3, 3, 10, 40), DType::F32, &Device::Cpu).unwrap();
        let values = Tensor::zeros((3, 3, 40, 10), DType::F32, &Device::Cpu).unwrap();
        let mut past = 0;
        for step in [20, 1, 1, 15] {
            let columns = past + step;
            let visible = (0..3).flat_map(|b| whole.visible[b * 37..][..columns].to_vec()).collect();
            let positions: Vec<u32> = (0..3).flat_map(|b| (past..columns).map(move |i| (i + b) as u32)).collect();
            let tokens = Tokens::new(&GEOMETRY, &positions, visible, 3, DType::F32);
            let piece = qkv.narrow(1, past, step).unwrap();
            let fused = attention_cached(&piece, GEOMETRY, &tokens, &keys, &values).unwrap();
            let expected = at_once.narrow(1, past, step).unwrap();
            assert_eq!(difference(&fused, &expected), 0.0);
            let slow = composed_cached(&piece, GEOMETRY, &tokens, &keys, &values).unwrap();
            assert!(difference(&slow, &expected) < 2e-6);
            past = columns;
        }
    }

    #[test]
    fn left_padding_changes_no_bit_of_the_real_tokens() {
        let qkv = random("qkv", &[1, 21, 90], DType::F32);
        let padding = random("padding", &[1, 7, 90], DType::F32);
        let positions: Vec<u32> = (0..21).collect();
        let plain = Tokens::new(&GEOMETRY, &positions, vec![true; 21], 1, DType::F32);
        let padded_positions: Vec<u32> = (0..28u32).map(|i| i.saturating_sub(7)).collect();
        let visible = (0..28).map(|j| j >= 7).collect();
        let padded = Tokens::new(&GEOMETRY, &padded_positions, visible, 1, DType::F32);
        let a = attention(&qkv, GEOMETRY, &plain).unwrap();
        let b = attention(&Tensor::cat(&[&padding, &qkv], 1).unwrap(), GEOMETRY, &padded).unwrap();
        assert_eq!(difference(&a, &b.narrow(1, 7, 21).unwrap()), 0.0);
        assert_eq!(
            difference(&b.narrow(1, 0, 7).unwrap(), &padding.zeros_like().unwrap().narrow(2, 0, 30).unwrap()),
            0.0
        );
    }
}
