//! What attention is, in plain candle operations: on every device and dtype, with gradients by candle's own rules.

use candle_core::{D, Device, Tensor};

use super::{Continued, Geometry, Packing, Tokens};
use crate::Result;

/// The definition of [`super::attention`] in candle operations.
pub fn composed(qkv: &Tensor, geometry: Geometry, tokens: &Tokens) -> Result<Tensor> {
    let [q, k, v] = split(qkv, geometry, tokens)?;
    let Tokens { batch, time, .. } = *tokens;
    let seen = (0..batch).flat_map(|b| {
        let visible = &tokens.visible[b * time..][..time];
        (0..time).flat_map(move |i| {
            let inside = geometry.earliest(i)..=i;
            (0..time).map(move |j| visible[j] && inside.contains(&j))
        })
    });
    attend(&q, &k.transpose(2, 3)?, &v, geometry, seen.collect())
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
    let (slots, _, dim, capacity) = keys.dims4()?;
    let width = geometry.kv_width();
    // Where the numbers of each real token go, counted from the cache's first: by token, and by head and component.
    let real = || {
        let row = |(b, c): (usize, &Continued)| {
            let Continued { slot, past, start, count } = *c;
            (0..count).map(move |i| (b * tokens.time + start + i, slot, past + i))
        };
        tokens.continued.iter().enumerate().flat_map(row)
    };
    let new = Tensor::new(real().map(|(new, ..)| new as u32).collect::<Vec<_>>(), q.device())?;
    let write = |cache: &Tensor, x: &Tensor, column: usize, component: usize| -> Result<()> {
        let of_token = real().map(|(_, slot, at)| (slot * width * capacity + at * column) as i64).collect::<Vec<_>>();
        let of_part = (0..width).map(|i| (i / dim * dim * capacity + i % dim * component) as i64).collect::<Vec<_>>();
        let at = Tensor::new(of_token, q.device())?.unsqueeze(1)?;
        let at = at.broadcast_add(&Tensor::new(of_part, q.device())?)?; // [real tokens, kv_heads head_dim]
        let x = x.transpose(1, 2)?.contiguous()?.reshape((tokens.batch * tokens.time, width))?.index_select(&new, 0)?;
        Ok(cache.flatten_all()?.scatter_set(&at.flatten_all()?, &x.flatten_all()?, 0)?)
    };
    if real().next().is_some() {
        write(keys, &k, 1, capacity)?;
        write(values, &v, dim, 1)?;
    }
    let columns = tokens.continued.iter().map(|c| c.past + c.count).max().unwrap_or(0).max(1);
    let rows: Vec<u32> = tokens.continued.iter().map(|c| c.slot as u32).collect();
    let whole = rows.iter().copied().eq(0..slots as u32);
    let rows = Tensor::new(rows, q.device())?;
    let of_rows = |cache: &Tensor, dim: usize| -> Result<Tensor> {
        let filled = cache.narrow(dim, 0, columns)?;
        Ok(if whole { filled.contiguous()? } else { filled.contiguous()?.index_select(&rows, 0)? })
    };
    let seen = tokens.continued.iter().flat_map(|&Continued { past, start, count, .. }| {
        (0..tokens.time).flat_map(move |i| {
            let real = (start..start + count).contains(&i);
            let column = (past + i).saturating_sub(start);
            let inside = geometry.earliest(column)..=column;
            (0..columns).map(move |j| real && inside.contains(&j))
        })
    });
    attend(&q, &of_rows(keys, 3)?, &of_rows(values, 2)?, geometry, seen.collect())
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
        let rest = x.narrow(3, 2 * half, head_dim - 2 * half)?;
        Ok(Tensor::cat(&[first, second, rest], 3)?)
    };
    Ok([rotate(by_head(q)?)?, rotate(by_head(k)?)?, by_head(v)?])
}

/// `q`: `[batch, heads, time, head_dim]`; `keys`: `[batch, kv_heads, head_dim, columns]`;
/// `values`: `[batch, kv_heads, columns, head_dim]`; `seen`: `[batch, time, columns]`.
fn attend(q: &Tensor, keys: &Tensor, values: &Tensor, geometry: Geometry, seen: Vec<bool>) -> Result<Tensor> {
    let Geometry { heads, kv_heads, head_dim, .. } = geometry;
    let (batch, _, time, _) = q.dims4()?;
    let columns = keys.dim(3)?;
    let seen: Vec<f32> = seen.into_iter().map(|seen| f32::from(u8::from(seen))).collect();
    let seen = Tensor::from_vec(seen, (batch, 1, time, columns), &Device::Cpu)?;
    let seen = seen.to_dtype(q.dtype())?.to_device(q.device())?;
    // The queries of a group lie behind each other, so that one product serves them all.
    let grouped = (batch, kv_heads, geometry.group() * time, head_dim);
    let by_head = (batch, heads, time, columns);
    let scores = (q.contiguous()?.reshape(grouped)?.matmul(&keys.contiguous()?)? * geometry.scale())?;
    let scores = scores.reshape(by_head)?.broadcast_add(&((&seen - 1.0)? * 1e30)?)?;
    let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.broadcast_mul(&seen)?;
    let weights = weights.reshape((batch, kv_heads, geometry.group() * time, columns))?;
    let context = weights.matmul(&values.contiguous()?)?.reshape((batch, heads, time, head_dim))?;
    Ok(context.transpose(1, 2)?.contiguous()?.reshape((batch, time, geometry.width()))?)
}
