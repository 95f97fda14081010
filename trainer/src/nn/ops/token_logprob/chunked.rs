//! The definition, a chunk of rows at a time: what runs where there is no fused form.
//!
//! A graph over `[rows, vocab]` would hold several tensors of that size until the loss is differentiated. Here the logits of
//! a chunk exist while it is computed, and once more while its gradient is.

use std::sync::{Arc, Mutex};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, Shape, Storage, Tensor, Var};

use super::composed;
use crate::Result;
use crate::nn::ops::widened;
use crate::nn::sampling::Scoring;

/// Numbers in the logits of a chunk: 128 MiB of f32, and a few times that while their gradient is computed.
const LOGITS: usize = 1 << 25;

/// [`super::token_logprob`] by [`composed`], both `[rows]`.
pub(super) fn token_logprob(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    scoring: Scoring,
) -> Result<(Tensor, Tensor)> {
    let step = (LOGITS / weight.dim(0)?.max(1)).max(1);
    let chunks = Chunks { targets: targets.into(), scoring, step, value: Mutex::default() };
    let (rows, table) = (hidden.detach(), widened(&weight.detach())?);
    let mut parts = vec![];
    for (start, targets) in chunks.iter() {
        let (log_p, entropy) = composed(&rows.narrow(0, start, targets.len())?, &table, targets, scoring)?;
        parts.push(Tensor::stack(&[log_p, entropy], 0)?); // [2, chunk]
    }
    if parts.is_empty() {
        return composed(hidden, weight, targets, scoring);
    }
    let mut all = Tensor::cat(&parts, 1)?.contiguous()?; // [2, rows]
    if hidden.track_op() || weight.track_op() {
        *chunks.value.lock().expect("no thread has it yet") = Some(all);
        all = hidden.apply_op2(weight, chunks)?;
    }
    Ok((all.get(0)?, all.get(1)?))
}

/// An operation on (hidden, weight) whose value is known already, and whose gradient is computed chunk by chunk.
struct Chunks {
    targets: Arc<[u32]>,
    scoring: Scoring,
    step: usize,
    /// The value, until the forward pass has taken it.
    value: Mutex<Option<Tensor>>,
}

impl Chunks {
    /// The first row of each chunk, and its targets.
    fn iter(&self) -> impl Iterator<Item = (usize, &[u32])> {
        self.targets.chunks(self.step).enumerate().map(|(i, targets)| (i * self.step, targets))
    }

    /// Hands the value to candle, as `copy` takes it.
    fn give<S>(
        &self,
        copy: impl FnOnce(&Storage, &Layout) -> candle_core::Result<S>,
    ) -> candle_core::Result<(S, Shape)> {
        let value = self.value.lock().expect("no thread panics while it holds the value").take();
        let Some(value) = value else { candle_core::bail!("token-logprob: a forward pass runs once") };
        let (storage, layout) = value.storage_and_layout();
        Ok((copy(&storage, layout)?, layout.shape().clone()))
    }

    /// The gradients of hidden states and weight that are asked for, from those of the results, `[2, rows]`.
    fn gradients(&self, hidden: &Tensor, weight: &Tensor, of: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (rows, of) = (hidden.detach(), of.detach());
        let table = widened(&weight.detach())?;
        let table = if weight.track_op() { Var::from_tensor(&table)?.into_inner() } else { table };
        let (mut d_hidden, mut d_weight) = (vec![], None::<Tensor>);
        for (start, targets) in self.iter() {
            let part = |t: &Tensor, dim: usize| t.narrow(dim, start, targets.len())?.contiguous();
            let rows = part(&rows, 0)?;
            let rows = if hidden.track_op() { Var::from_tensor(&rows)?.into_inner() } else { rows };
            let (log_p, entropy) = composed(&rows, &table, targets, self.scoring)?;
            let of = part(&of, 1)?.to_dtype(log_p.dtype())?;
            let total = ((log_p * of.get(0)?)? + (entropy * of.get(1)?)?)?.sum_all()?;
            let mut gradients = total.backward()?;
            d_hidden.extend(gradients.remove(&rows).filter(|_| hidden.track_op()).map(|d| d.detach()));
            if let Some(more) = gradients.remove(&table).filter(|_| weight.track_op()) {
                let more = more.detach();
                d_weight = Some(match d_weight {
                    Some(sum) => (sum + more)?,
                    None => more,
                });
            }
        }
        let d_hidden = hidden.track_op().then(|| Tensor::cat(&d_hidden, 0)).transpose()?;
        Ok((d_hidden, d_weight.map(|d| d.to_dtype(weight.dtype())).transpose()?))
    }
}

impl CustomOp2 for Chunks {
    fn name(&self) -> &'static str {
        "token-logprob-in-chunks"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.give(|storage, layout| match storage {
            Storage::Cpu(storage) => storage.try_clone(layout),
            _ => candle_core::bail!("token-logprob: the value is not in host memory"),
        })
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        self.give(|storage, layout| match storage {
            Storage::Cuda(storage) => storage.try_clone(layout),
            _ => candle_core::bail!("token-logprob: the value is not on the GPU"),
        })
    }

    fn bwd(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        of: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients(hidden, weight, of).map_err(|error| match error {
            crate::Error::Candle(error) => error,
            other => candle_core::Error::Msg(other.to_string()),
        })
    }
}
