//! What attention is, in plain candle operations: on every device and dtype, with gradients by candle's own rules. Narrow types
//! are widened to f32 for the softmax.
//!
//! Devices need more care than the CPU: a tensor without elements cannot be launched on, a scatter runs one thread for each
//! element beside the dimension it scatters along, and what is made on the host has to travel, so it is made once a pass.

use std::ops::Range;

use candle_core::{D, Device, Tensor};

use super::super::widened;
use super::{Constant, Continued, Geometry, Packing, Tokens};
use crate::Result;

/// The definition of [`super::attention`] in candle operations.
pub fn composed(qkv: &Tensor, geometry: Geometry, tokens: &Tokens) -> Result<Tensor> {
    let [q, k, v] = split(qkv, geometry, tokens)?;
    let seen = tokens.constant(Constant::Seen(geometry.window), &q, || {
        let Tokens { batch, time, .. } = *tokens;
        let inside = (0..time).flat_map(|i| {
            let inside = geometry.earliest(i)..=i;
            (0..time).map(move |j| inside.contains(&j))
        });
        let visible = truths(tokens.visible.iter().copied(), (batch, 1, 1, time), &q)?;
        Ok(visible.broadcast_mul(&truths(inside, (1, 1, time, time), &q)?)?)
    })?;
    attend(&q, &k.transpose(2, 3)?, &v, geometry, &seen)
}

/// The definition of [`super::attention_cached`] in candle operations.
pub fn composed_cached(
    qkv: &Tensor,
    geometry: Geometry,
    tokens: &Tokens,
    keys: &Tensor,
    values: &Tensor,
) -> Result<Tensor> {
    let [q, k, v] = split(&qkv.detach(), geometry, tokens)?;
    write(keys, &k.transpose(2, 3)?, 3, tokens)?;
    write(values, &v, 2, tokens)?;
    let columns = tokens.continued.iter().map(|c| c.past + c.count).max().unwrap_or(0).max(1);
    let seen = tokens.constant(Constant::Seen(geometry.window), &q, || {
        let seen = tokens.continued.iter().flat_map(|&Continued { past, start, count, .. }| {
            (0..tokens.time).flat_map(move |i| {
                let real = (start..start + count).contains(&i);
                let column = (past + i).saturating_sub(start);
                let inside = geometry.earliest(column)..=column;
                (0..columns).map(move |j| real && inside.contains(&j))
            })
        });
        truths(seen, (tokens.batch, 1, tokens.time, columns), &q)
    })?;
    let of_rows = |cache: &Tensor, dim: usize| -> Result<Tensor> {
        let runs = runs(&tokens.continued).into_iter().map(|run| slots(cache, &tokens.continued[run]));
        let runs = runs.map(|run| Ok(run?.narrow(dim, 0, columns)?.contiguous()?)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&runs, 0)?)
    };
    attend(&q, &of_rows(keys, 3)?, &of_rows(values, 2)?, geometry, &seen)
}

/// Rows whose slots of the cache lie side by side, run after run.
fn runs(continued: &[Continued]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = vec![];
    for (b, row) in continued.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if continued[b - 1].slot + 1 == row.slot => run.end = b + 1,
            _ => runs.push(b..b + 1),
        }
    }
    runs
}

/// The part of the cache that a run of rows continues, on its storage.
fn slots(cache: &Tensor, run: &[Continued]) -> Result<Tensor> {
    Ok(cache.narrow(0, run.first().map_or(0, |row| row.slot), run.len())?)
}

/// Writes new keys or values `x`, of the cache's shape but for the rows and for the columns, which are dimension `dim`.
fn write(cache: &Tensor, x: &Tensor, dim: usize, tokens: &Tokens) -> Result<()> {
    for run in runs(&tokens.continued) {
        let rows = &tokens.continued[run.clone()];
        let columns = rows.iter().flat_map(|&Continued { past, start, count, .. }| {
            let column =
                move |i: usize| if (start..start + count).contains(&i) { past + i - start } else { usize::MAX };
            (0..tokens.time).map(move |i| u32::try_from(column(i)).unwrap_or(u32::MAX)) // which candle writes nowhere
        });
        let x = x.narrow(0, run.start, run.len())?.contiguous()?;
        let mut shape = [run.len(), 1, 1, 1];
        shape[dim] = tokens.time;
        let columns = Tensor::from_vec(columns.collect::<Vec<_>>(), &shape, x.device())?;
        slots(cache, rows)?.scatter_set(&columns.broadcast_as(x.shape())?.contiguous()?, &x, dim)?;
    }
    Ok(())
}

/// 1 and 0 as numbers of the type in which scores of `like` are taken, beside it.
fn truths(values: impl Iterator<Item = bool>, shape: (usize, usize, usize, usize), like: &Tensor) -> Result<Tensor> {
    let values: Vec<f32> = values.map(|value| f32::from(u8::from(value))).collect();
    let wide = widened(&like.narrow(0, 0, 1)?)?.dtype();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(wide)?.to_device(like.device())?)
}

/// Queries and keys after rotation, and values: `[batch, heads, time, head_dim]`, the last two with `kv_heads`.
fn split(qkv: &Tensor, geometry: Geometry, tokens: &Tokens) -> Result<[Tensor; 3]> {
    let Geometry { heads, kv_heads, head_dim, packing, .. } = geometry;
    let Tokens { batch, time, .. } = *tokens;
    let [q, k, v] = match packing {
        Packing::PerHead => {
            let parts = qkv.reshape((batch, time, heads, 3, head_dim))?;
            let part = |i: usize| parts.narrow(3, i, 1)?.squeeze(3);
            [part(0)?, part(1)?, part(2)?]
        }
        Packing::PerPart => {
            let part = |heads: usize, start: usize| {
                qkv.narrow(2, start, heads * head_dim)?.contiguous()?.reshape((batch, time, heads, head_dim))
            };
            let (width, kv_width) = (geometry.width(), geometry.kv_width());
            [part(heads, 0)?, part(kv_heads, width)?, part(kv_heads, width + kv_width)?]
        }
    };
    let by_head = |x: Tensor| -> Result<Tensor> { Ok(x.transpose(1, 2)?.contiguous()?) };
    let half = tokens.pairs();
    let rotate = |x: Tensor| -> Result<Tensor> {
        if half == 0 {
            return Ok(x);
        }
        let table = |what, of: fn(&(f64, f64)) -> f64| {
            tokens.constant(what, &x, || {
                let values: Vec<f64> = tokens.turns.iter().map(of).collect();
                let table = Tensor::from_vec(values, (batch, 1, time, half), &Device::Cpu)?;
                Ok(table.to_dtype(x.dtype())?.to_device(x.device())?)
            })
        };
        let (cos, sin) = (table(Constant::Cosines, |t| t.0)?, table(Constant::Sines, |t| t.1)?);
        let (a, b) = (x.narrow(3, 0, half)?, x.narrow(3, half, half)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        if 2 * half == head_dim {
            return Ok(Tensor::cat(&[first, second], 3)?);
        }
        let rest = x.narrow(3, 2 * half, head_dim - 2 * half)?;
        Ok(Tensor::cat(&[first, second, rest], 3)?)
    };
    Ok([rotate(by_head(q)?)?, rotate(by_head(k)?)?, by_head(v)?])
}

/// `q`: `[batch, heads, time, head_dim]`; `keys`: `[batch, kv_heads, head_dim, columns]`;
/// `values`: `[batch, kv_heads, columns, head_dim]`; `seen`: 1 where a token sees a column, else 0, `[batch, 1, time, columns]`.
fn attend(q: &Tensor, keys: &Tensor, values: &Tensor, geometry: Geometry, seen: &Tensor) -> Result<Tensor> {
    let Geometry { heads, kv_heads, head_dim, .. } = geometry;
    let (batch, _, time, _) = q.dims4()?;
    let columns = keys.dim(3)?;
    // The queries of a group lie behind each other, so that one product serves them all.
    let grouped = (batch, kv_heads, geometry.group() * time, head_dim);
    let by_head = (batch, heads, time, columns);
    let scores = widened(&q.contiguous()?.reshape(grouped)?.matmul(&keys.contiguous()?)?)?;
    let scores = (scores * geometry.scale())?.reshape(by_head)?;
    let scores = scores.broadcast_add(&((seen - 1.0)? * 1e30)?)?;
    let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.broadcast_mul(seen)?.to_dtype(q.dtype())?;
    let weights = weights.reshape((batch, kv_heads, geometry.group() * time, columns))?;
    let context = weights.matmul(&values.contiguous()?)?.reshape((batch, heads, time, head_dim))?;
    Ok(context.transpose(1, 2)?.contiguous()?.reshape((batch, time, geometry.width()))?)
}
