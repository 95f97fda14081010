//! The gate of a SwiGLU feed-forward layer (Shazeer, arXiv 2002.05202): `silu(gate) up`, elementwise.

use candle_core::{CustomOp2, CustomOp3, Tensor};
use rayon::prelude::*;

use super::{Input, Output, has_fused_form, on_host};
use crate::Result;
use crate::nn::real::{Real, elements, wide};

/// `gate sigmoid(gate) up` elementwise; both of one shape.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    match has_fused_form(gate) {
        true => Ok(gate.contiguous()?.apply_op2(&up.contiguous()?, SwiGlu)?),
        false => composed(gate, up),
    }
}

/// The definition in candle operations.
pub fn composed(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    Ok((gate.silu()? * up)?)
}

/// Elements a thread takes at a time.
const CHUNK: usize = 1 << 14;

struct SwiGlu;

/// From (gate, up, dy): the gradients of gate and up behind each other.
struct SwiGluGradient;

wide! {
    fn values<T>(gate: &[T], up: &[T], y: &mut [T]) {
        for ((y, gate), &up) in y.iter_mut().zip(gate).zip(up) {
            *y = gate.silu().0 * up;
        }
    }
}

wide! {
    fn gradients<T>(gate: &[T], up: &[T], dy: &[T], dgate: &mut [T], dup: &mut [T]) {
        for ((((dgate, dup), gate), &up), &dy) in dgate.iter_mut().zip(dup).zip(gate).zip(up).zip(dy) {
            let (value, slope) = gate.silu();
            *dgate = dy * up * slope;
            *dup = dy * value;
        }
    }
}

fn forward<T: Real>((s1, l1): Input, (s2, l2): Input) -> Output {
    if l1.dims() != l2.dims() {
        candle_core::bail!("swiglu: a gate of {:?} for {:?}", l1.dims(), l2.dims());
    }
    let (gate, up) = (elements::<T>(s1, l1)?, elements::<T>(s2, l2)?);
    let mut y = vec![T::zero(); gate.len()];
    let chunks = y.par_chunks_mut(CHUNK).zip(gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK)));
    chunks.for_each(|(y, (gate, up))| values(gate, up, y));
    Ok((T::to_cpu_storage_owned(y), l1.shape().clone()))
}

fn backward<T: Real>((s1, l1): Input, (s2, l2): Input, (s3, l3): Input) -> Output {
    let (gate, up, dy) = (elements::<T>(s1, l1)?, elements::<T>(s2, l2)?, elements::<T>(s3, l3)?);
    let mut out = vec![T::zero(); 2 * gate.len()];
    let (dgate, dup) = out.split_at_mut(gate.len());
    let inputs = gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK).zip(dy.par_chunks(CHUNK)));
    let chunks = dgate.par_chunks_mut(CHUNK).zip(dup.par_chunks_mut(CHUNK)).zip(inputs);
    chunks.for_each(|((dgate, dup), (gate, (up, dy)))| gradients(gate, up, dy, dgate, dup));
    let n = out.len();
    Ok((T::to_cpu_storage_owned(out), n.into()))
}

impl CustomOp2 for SwiGlu {
    on_host!(2, "swiglu", forward, self);

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let all = gate.apply_op3_no_bwd(up, &dy.contiguous()?, &SwiGluGradient)?;
        let n = gate.elem_count();
        let part = |of: &Tensor, start| of.track_op().then(|| all.narrow(0, start, n)?.reshape(of.shape())).transpose();
        Ok((part(gate, 0)?, part(up, n)?))
    }
}

impl CustomOp3 for SwiGluGradient {
    on_host!(3, "swiglu-gradient", backward, self);
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::super::testing::*;
    use super::*;

    #[test]
    fn fused_and_composed_swiglu_agree_and_the_gradients_are_slopes() {
        let inputs = [(random("gate", &[3, 37], DType::F64) * 4.0).unwrap(), random("up", &[3, 37], DType::F64)];
        let fused = |a: &[Tensor]| swiglu(&a[0], &a[1]).unwrap();
        agree(&inputs, fused, |a| composed(&a[0], &a[1]).unwrap(), [1e-6, 1e-12]);
        matches_finite_differences(&inputs, fused, 1e-7);
    }

    #[test]
    fn a_gate_far_from_zero_is_open_or_shut() {
        let gate = Tensor::new(&[-200f32, -90.0, 90.0, 200.0], &Device::Cpu).unwrap();
        let y = swiglu(&gate, &gate.ones_like().unwrap()).unwrap().to_vec1::<f32>().unwrap();
        assert!(y[0].abs() < 1e-30 && y[1].abs() < 1e-30, "{y:?}");
        assert_eq!(y[2..], [90.0, 200.0]);
    }
}
