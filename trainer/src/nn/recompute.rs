//! Gradient checkpointing (Chen et al., arXiv 1604.06174): a part of a model keeps its input alone, and is computed once
//! more when its gradient is asked for.
//!
//! candle's graph keeps every tensor between input and output of a part. Here the graph sees one operation; its backward
//! runs the part again, back-propagates through that, and drops it. The gradients of parameters found on the way are left in
//! [`Recomputed`], from where [`Recomputed::collect`] adds them to those of the rest.

use std::sync::{Arc, Mutex};

use candle_core::backend::BackendStorage;
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Shape, Storage, Tensor, Var};

use crate::{Error, Result};

/// Gradients of the parameters of recomputed parts, shared by all parts of a model.
#[derive(Debug, Clone, Default)]
pub struct Recomputed(Arc<Mutex<GradStore>>);

impl Recomputed {
    /// `part(x)`, of which the graph remembers x and nothing in between. The part must give the same result each time, in the
    /// shape of x, and have gradients of its own parameters or of x.
    pub fn run(&self, x: &Tensor, part: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static) -> Result<Tensor> {
        let y = part(&x.detach())?.detach().contiguous()?;
        // An operation on an untracked input is not remembered.
        let wanted = x.track_op();
        let x = if wanted { x.clone() } else { Var::from_tensor(&x.contiguous()?)?.as_tensor().clone() };
        let found = self.clone();
        Ok(x.apply_op1(Recompute { value: Mutex::new(Some(y)), part: Box::new(part), wanted, found })?)
    }

    /// Adds what the backward passes have left since the last call to `gradients`.
    pub fn collect(&self, gradients: &mut GradStore) -> Result<()> {
        let found = std::mem::take(&mut *self.0.lock().expect("no thread panics while it holds the gradients"));
        Ok(gradients.extend(found)?)
    }

    /// Adds the gradient of one parameter to those that [`Recomputed::collect`] will give.
    pub(crate) fn insert(&self, parameter: &Tensor, gradient: Tensor) -> candle_core::Result<()> {
        let mut gradients = GradStore::default();
        gradients.insert(parameter, gradient);
        self.add(gradients)
    }

    fn add(&self, gradients: GradStore) -> candle_core::Result<()> {
        let mut sum = self.0.lock().expect("no thread panics while it holds the gradients");
        for id in gradients.get_ids() {
            // An attached gradient would keep what was recomputed alive.
            let new = gradients.get_id(*id).expect("its own id").detach();
            let new = match sum.get_id(*id) {
                Some(old) => old.add(&new)?.detach(),
                None => new,
            };
            sum.insert_id(*id, new);
        }
        Ok(())
    }
}

type Part = dyn Fn(&Tensor) -> Result<Tensor> + Send + Sync;

struct Recompute {
    /// The part's result, until the forward pass has taken it.
    value: Mutex<Option<Tensor>>,
    part: Box<Part>,
    /// Whether the input's gradient is.
    wanted: bool,
    found: Recomputed,
}

impl Recompute {
    /// Hands the result's storage to candle, as `copy` makes it.
    fn give<S>(
        &self,
        copy: impl FnOnce(&Storage, &Layout) -> candle_core::Result<S>,
    ) -> candle_core::Result<(S, Shape)> {
        let value = self.value.lock().expect("no thread panics while it holds the value").take();
        let Some(value) = value else { candle_core::bail!("recompute: a forward pass runs once") };
        let (storage, layout) = value.storage_and_layout();
        Ok((copy(&storage, layout)?, layout.shape().clone()))
    }
}

fn elsewhere<T>() -> candle_core::Result<T> {
    candle_core::bail!("recompute: the result is on another device than the input")
}

impl CustomOp1 for Recompute {
    fn name(&self) -> &'static str {
        "recompute"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        self.give(|storage, layout| match storage {
            Storage::Cpu(storage) => storage.try_clone(layout),
            _ => elsewhere(),
        })
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        self.give(|storage, layout| match storage {
            Storage::Cuda(storage) => storage.try_clone(layout),
            _ => elsewhere(),
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let input = if self.wanted { Var::from_tensor(&x.detach())?.as_tensor().clone() } else { x.detach() };
        let inner = |error: Error| match error {
            Error::Candle(error) => error,
            other => candle_core::Error::Msg(other.to_string()),
        };
        let dy = dy.detach();
        let y = (self.part)(&input).map_err(inner)?;
        let mut gradients = (y * &dy)?.sum_all()?.backward()?;
        gradients.remove(&dy);
        let dx = gradients.remove(&input).map(|dx| dx.detach());
        self.found.add(gradients)?;
        Ok(dx)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::nn::{Streams, normal};

    fn var(name: &str) -> Var {
        Var::from_tensor(&normal(&Streams::new(5), name, &[3, 4], 1.0, DType::F64, &Device::Cpu).unwrap()).unwrap()
    }

    fn values(t: &Tensor) -> Vec<Vec<f64>> {
        t.to_vec2().unwrap()
    }

    #[test]
    fn a_recomputed_part_has_the_gradients_of_the_plain_one() {
        let (x, w) = (var("x"), var("w"));
        let weight = w.as_tensor().clone();
        let part = move |x: &Tensor| -> Result<Tensor> { Ok((x.tanh()? * &weight)?.sqr()?) };
        let plain = part(&part(&x).unwrap()).unwrap().sum_all().unwrap().backward().unwrap();
        let found = Recomputed::default();
        let y = found.run(&found.run(&x, part.clone()).unwrap(), part).unwrap();
        let mut recomputed = y.sum_all().unwrap().backward().unwrap();
        assert!(recomputed.get(&w).is_none());
        found.collect(&mut recomputed).unwrap();
        for var in [&x, &w] {
            assert_eq!(values(recomputed.get(var).unwrap()), values(plain.get(var).unwrap()));
        }
    }

    #[test]
    fn parameters_behind_a_frozen_input_get_their_gradient_and_the_input_none() {
        let (x, w) = (var("x").as_tensor().detach(), var("w"));
        let weight = w.as_tensor().clone();
        let found = Recomputed::default();
        let y = found.run(&x, move |x| Ok((x * &weight)?)).unwrap();
        let mut gradients = y.sum_all().unwrap().backward().unwrap();
        found.collect(&mut gradients).unwrap();
        assert_eq!(values(gradients.get(&w).unwrap()), values(&x));
        assert!(gradients.get(&x).is_none());
    }
}
