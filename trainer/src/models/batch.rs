//! Batches of token sequences, and the cache of keys and values that continues them.

use candle_core::{DType, Device, Tensor};

use rebel_kernels::decoder::Cache;

use super::config::DecoderConfig;
use super::fused::Fused;
use crate::nn::Rope;
use crate::nn::ops::attention::{Continued, Tokens};
use crate::{Error, Result};

/// Token ids with their mask and positions, all `[batch, time]` row by row. Padding may be anywhere: a masked token is
/// seen by none, and positions are per row.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenBatch {
    ids: Vec<u32>,
    mask: Vec<bool>,
    positions: Vec<u32>,
    batch: usize,
    time: usize,
}

impl TokenBatch {
    /// A batch from ids and mask, both `[batch, time]`; a token's position is the number of real tokens before it.
    pub fn new(ids: Vec<u32>, mask: Vec<bool>, batch: usize) -> Result<Self> {
        let time = ids.len() / batch.max(1);
        if batch == 0 || time == 0 || ids.len() != batch * time || mask.len() != ids.len() {
            let what = format!("{} ids and {} mask entries do not make {batch} rows", ids.len(), mask.len());
            return Err(Error::invalid(format!("token batch: {what}")));
        }
        let mut positions = Vec::with_capacity(ids.len());
        for row in mask.chunks_exact(time) {
            let mut seen = 0;
            for &real in row {
                positions.push(seen);
                seen += u32::from(real);
            }
        }
        Ok(Self { ids, mask, positions, batch, time })
    }

    /// Sequences of any lengths, padded with `pad` on the left (all end in the last column).
    pub fn left_padded(rows: &[Vec<u32>], pad: u32) -> Result<Self> {
        Self::padded(rows, pad, true)
    }

    /// Sequences of any lengths, padded with `pad` on the right (all begin in column 0).
    pub fn right_padded(rows: &[Vec<u32>], pad: u32) -> Result<Self> {
        Self::padded(rows, pad, false)
    }

    fn padded(rows: &[Vec<u32>], pad: u32, left: bool) -> Result<Self> {
        let time = rows.iter().map(Vec::len).max().unwrap_or(0);
        let (mut ids, mut mask) = (Vec::with_capacity(rows.len() * time), Vec::with_capacity(rows.len() * time));
        for row in rows {
            let padding = std::iter::repeat_n((pad, false), time - row.len());
            let (before, after) =
                if left { (padding, None) } else { (std::iter::repeat_n((pad, false), 0), Some(padding)) };
            let tokens = row.iter().map(|&id| (id, true));
            for (id, real) in before.chain(tokens).chain(after.into_iter().flatten()) {
                ids.push(id);
                mask.push(real);
            }
        }
        Self::new(ids, mask, rows.len())
    }

    /// One token a row: a decoding step.
    pub fn step(ids: Vec<u32>) -> Result<Self> {
        let batch = ids.len();
        Self::new(ids, vec![true; batch], batch)
    }

    /// (rows, columns).
    pub fn dims(&self) -> (usize, usize) {
        (self.batch, self.time)
    }

    /// Ids, `[batch, time]`.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Which tokens are real, `[batch, time]`.
    pub fn mask(&self) -> &[bool] {
        &self.mask
    }

    /// Whether the real tokens of every row lie together: padding is around them, not between.
    pub fn is_whole(&self) -> bool {
        self.mask.chunks_exact(self.time).all(|mask| {
            let real = |from: &[bool]| from.iter().filter(|&&real| real).count();
            let start = mask.iter().position(|&real| real).unwrap_or(0);
            mask[start..].iter().take_while(|&&real| real).count() == real(mask)
        })
    }

    /// Positions, `[batch, time]`, counted from the first token of the batch's own row.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }
}

/// Keys and values of tokens already seen, pre-allocated: each row of the cache holds one sequence, from its first token on
/// and without padding, so that a column is a position. Rows grow, are forgotten and are copied independently of each
/// other, and a pass of the decoder continues any of them ([`KvCache::at`]).
#[derive(Debug)]
pub struct KvCache {
    kept: Kept,
    lens: Vec<usize>,
    capacity: usize,
}

/// Keys and values as the decoder's form wants them.
#[derive(Debug)]
enum Kept {
    /// Per layer: keys `[rows, kv_heads, head_dim, capacity]`, values `[rows, kv_heads, capacity, head_dim]`.
    Composed(Vec<(Tensor, Tensor)>),
    /// The kernels' own.
    Fused(Cache),
}

/// An error where the host has not this much memory: an allocation that fails elsewhere would end the program.
fn check_memory(bytes: Option<usize>, rows: usize, capacity: usize) -> Result<()> {
    // Asked for and given back.
    if bytes.is_some_and(|n| Vec::<u8>::new().try_reserve_exact(n).is_ok()) {
        return Ok(());
    }
    let what = format!("cache: {rows} rows of {capacity} tokens do not fit into memory (expected fewer)");
    Err(Error::invalid(what))
}

impl KvCache {
    /// A cache for a decoder in its fused form.
    pub(super) fn fused(decoder: &Fused, rows: usize, capacity: usize) -> Result<Self> {
        check_memory(decoder.cache_bytes(rows, capacity), rows, capacity)?;
        Ok(Self { kept: Kept::Fused(decoder.cache(rows, capacity)), lens: vec![0; rows], capacity })
    }

    /// A cache of `rows` empty rows of at most `capacity` tokens each. Fails where that is more than the machine has.
    pub fn new(config: &DecoderConfig, rows: usize, capacity: usize, dtype: DType, device: &Device) -> Result<Self> {
        let (heads, dim) = (config.kv_heads, config.head_dim);
        let size = [heads, dim, capacity, dtype.size_in_bytes(), 2 * config.layers];
        let bytes = size.into_iter().try_fold(rows, usize::checked_mul);
        if device.is_cpu() {
            check_memory(bytes, rows, capacity)?;
        }
        let layer = || -> Result<(Tensor, Tensor)> {
            let keys = Tensor::zeros((rows, heads, dim, capacity), dtype, device)?;
            Ok((keys, Tensor::zeros((rows, heads, capacity, dim), dtype, device)?))
        };
        let layers = (0..config.layers).map(|_| layer()).collect::<Result<_>>()?;
        Ok(Self { kept: Kept::Composed(layers), lens: vec![0; rows], capacity })
    }

    /// Tokens each row holds, `[rows]`.
    pub fn lens(&self) -> &[usize] {
        &self.lens
    }

    /// The given rows, for a pass whose row i continues row `rows[i]`.
    pub fn at<'a>(&'a mut self, rows: &'a [usize]) -> CacheRows<'a> {
        CacheRows { cache: self, rows }
    }

    /// Forgets all but the first `len` tokens of `row`.
    pub fn truncate(&mut self, row: usize, len: usize) {
        self.lens[row] = self.lens[row].min(len);
    }

    /// Makes `to` a row of the first `len` tokens of `from`. Fails where `from` holds fewer.
    pub fn copy(&mut self, from: usize, to: usize, len: usize) -> Result<()> {
        if from == to || self.lens[from] < len {
            return Err(Error::invalid(format!("cache: no {len} tokens of row {from} to copy to row {to}")));
        }
        match &mut self.kept {
            Kept::Fused(cache) => cache.copy(from, to, len),
            Kept::Composed(layers) => {
                for (keys, values) in layers {
                    for (part, columns) in [(keys, 3), (values, 2)] {
                        let first = part.narrow(0, from, 1)?.narrow(columns, 0, len)?.force_contiguous()?;
                        part.narrow(0, to, 1)?.slice_set(&first, columns, 0)?;
                    }
                }
            }
        }
        self.lens[to] = len;
        Ok(())
    }
}

/// Rows of a cache that a pass continues.
#[derive(Debug)]
pub struct CacheRows<'a> {
    cache: &'a mut KvCache,
    rows: &'a [usize],
}

impl CacheRows<'_> {
    /// What attention needs to know. Fails where `tokens` has another number of rows, a row is named twice or is not
    /// there, the real tokens of one do not lie together, or they are more than it has room for.
    pub(super) fn tokens(&self, rope: &Rope, tokens: &TokenBatch, dtype: DType) -> Result<Tokens> {
        Ok(Tokens::continuing(rope, self.continued(tokens)?, tokens.dims().1, dtype))
    }

    /// Where the tokens of each row go. Fails as [`CacheRows::tokens`].
    pub(super) fn continued(&self, tokens: &TokenBatch) -> Result<Vec<Continued>> {
        let (batch, time) = tokens.dims();
        let KvCache { lens, capacity, .. } = &*self.cache;
        if batch != self.rows.len() {
            return Err(Error::invalid(format!("cache: {batch} rows (expected {})", self.rows.len())));
        }
        let mut free = vec![true; lens.len()];
        let continued = self.rows.iter().zip(tokens.mask().chunks_exact(time)).map(|(&slot, mask)| {
            if !free.get_mut(slot).is_some_and(std::mem::take) {
                return Err(Error::invalid(format!("cache: row {slot} is named twice or is not there")));
            }
            let count = mask.iter().filter(|&&real| real).count();
            let start = mask.iter().position(|&real| real).unwrap_or(0);
            if !mask[start..start + count].iter().all(|&real| real) {
                return Err(Error::invalid("cache: padding between the tokens of a row (expected it around them)"));
            }
            let past = lens[slot];
            if past + count > *capacity {
                return Err(Error::invalid(format!("cache: {} tokens in a row of {capacity}", past + count)));
            }
            Ok(Continued { slot, past, start, count })
        });
        continued.collect()
    }

    /// Keys and values of a layer, for a decoder in its composed form. Fails where the cache is another's.
    pub(super) fn layer(&self, layer: usize) -> Result<&(Tensor, Tensor)> {
        match &self.cache.kept {
            Kept::Composed(layers) => Ok(&layers[layer]),
            Kept::Fused(_) => Err(foreign()),
        }
    }

    /// The kernels' cache, for a decoder in its fused form. Fails where the cache is another's.
    pub(super) fn kernels(&mut self) -> Result<&mut Cache> {
        match &mut self.cache.kept {
            Kept::Fused(cache) => Ok(cache),
            Kept::Composed(_) => Err(foreign()),
        }
    }

    /// Notes that `tokens` have been written.
    pub(super) fn advance(self, tokens: &TokenBatch) {
        let (_, time) = tokens.dims();
        for (&row, mask) in self.rows.iter().zip(tokens.mask().chunks_exact(time)) {
            self.cache.lens[row] += mask.iter().filter(|&&real| real).count();
        }
    }
}

fn foreign() -> Error {
    Error::invalid("cache: it was made for a decoder in another form")
}
