//! Batches of token sequences, and the cache of keys and values that continues them.

use candle_core::{DType, Device, Tensor};

use super::config::DecoderConfig;
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

    /// One new token a row at given positions: a decoding step.
    pub fn step(ids: Vec<u32>, positions: Vec<u32>) -> Result<Self> {
        if ids.is_empty() || ids.len() != positions.len() {
            return Err(Error::invalid(format!("token batch: {} ids at {} positions", ids.len(), positions.len())));
        }
        let batch = ids.len();
        Ok(Self { ids, mask: vec![true; batch], positions, batch, time: 1 })
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

    /// Positions, `[batch, time]`.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }
}

/// Keys and values of tokens already seen, pre-allocated for `capacity` columns shared by left-padded rows.
#[derive(Debug, Clone)]
pub struct KvCache {
    /// Per layer: keys `[batch, kv_heads, head_dim, capacity]`, values `[batch, kv_heads, capacity, head_dim]`.
    pub(super) layers: Vec<(Tensor, Tensor)>,
    batch: usize,
    capacity: usize,
    len: usize,
    mask: Vec<bool>, // [batch, capacity]
}

impl KvCache {
    /// An empty cache for `batch` rows and at most `capacity` columns (prompt and new tokens together).
    pub fn new(config: &DecoderConfig, batch: usize, capacity: usize, dtype: DType, device: &Device) -> Result<Self> {
        let (heads, dim) = (config.kv_heads, config.head_dim);
        let layer = || -> Result<(Tensor, Tensor)> {
            let keys = Tensor::zeros((batch, heads, dim, capacity), dtype, device)?;
            Ok((keys, Tensor::zeros((batch, heads, capacity, dim), dtype, device)?))
        };
        let layers = (0..config.layers).map(|_| layer()).collect::<Result<_>>()?;
        Ok(Self { layers, batch, capacity, len: 0, mask: vec![false; batch * capacity] })
    }

    /// Columns filled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been seen yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Columns visible to `tokens`, old and new, `[batch, len + time]`. Fails when the rows differ or the cache is full.
    pub(super) fn visible_with(&self, tokens: &TokenBatch) -> Result<Vec<bool>> {
        let (batch, time) = tokens.dims();
        if batch != self.batch {
            return Err(Error::invalid(format!("cache: {batch} rows (expected {})", self.batch)));
        }
        if self.len + time > self.capacity {
            return Err(Error::invalid(format!("cache: {} columns (it holds {})", self.len + time, self.capacity)));
        }
        let old = self.mask.chunks_exact(self.capacity).map(|row| &row[..self.len]);
        Ok(old.zip(tokens.mask().chunks_exact(time)).flat_map(|(old, new)| [old, new].concat()).collect())
    }

    /// Notes that `tokens` have been written.
    pub(super) fn advance(&mut self, tokens: &TokenBatch) {
        let (_, time) = tokens.dims();
        for (row, new) in self.mask.chunks_exact_mut(self.capacity).zip(tokens.mask().chunks_exact(time)) {
            row[self.len..self.len + time].copy_from_slice(new);
        }
        self.len += time;
    }

    /// Keeps the given rows, in this order; a row may be named more than once (several samples of one prompt).
    pub fn select(&mut self, rows: &[usize]) -> Result<()> {
        let index: Vec<u32> = rows.iter().map(|&r| r as u32).collect();
        for (keys, values) in &mut self.layers {
            let index = Tensor::new(index.as_slice(), keys.device())?;
            *keys = keys.index_select(&index, 0)?;
            *values = values.index_select(&index, 0)?;
        }
        self.mask = rows.iter().flat_map(|&r| self.mask[r * self.capacity..][..self.capacity].to_vec()).collect();
        self.batch = rows.len();
        Ok(())
    }
}
