//! An affine map with a low-rank correction beside it (LoRA: Hu et al., arXiv 2106.09685): `x W^T + b + s (x A^T) B^T`.
//!
//! One operation, so that of all that lies between x and the result nothing is kept for the backward: it needs x and the
//! two factors alone. The frozen weight costs no gradient.

use candle_core::{CpuStorage, CustomOp3, Layout, Storage, Tensor};
use rayon::prelude::*;

use super::linear::{biased, flat, linear, product};
use super::sum::sum2;
use super::{Input, Output, by_dtype, has_fused_form};
use crate::Result;
use crate::nn::real::{Real, elements, wide};

/// `x W^T + b + s (x A^T) B^T`. `x`: `[.., inputs]`; `weight`: `[outputs, inputs]`; `bias`: `[outputs]` or none; `down` (A):
/// `[rank, inputs]`; `up` (B): `[outputs, rank]`; `scaling` (s): any number.
pub fn low_rank(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    down: &Tensor,
    up: &Tensor,
    scaling: f64,
) -> Result<Tensor> {
    let frozen = !weight.track_op() && bias.is_none_or(|bias| !bias.track_op());
    if !(has_fused_form(x) && frozen) {
        return composed(x, weight, bias, down, up, scaling);
    }
    let adapted = LowRank { weight: weight.detach(), bias: bias.map(Tensor::detach), scaling };
    Ok(x.contiguous()?.apply_op3(down, up, adapted)?)
}

/// The definition in candle operations.
pub fn composed(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    down: &Tensor,
    up: &Tensor,
    scaling: f64,
) -> Result<Tensor> {
    let correction = (linear(&linear(x, down, None)?, up, None)? * scaling)?;
    sum2(&linear(x, weight, bias)?, &correction)
}

/// What is frozen; x and the factors are the operation's inputs.
struct LowRank {
    weight: Tensor,
    bias: Option<Tensor>,
    scaling: f64,
}

/// Elements a thread takes at a time.
const CHUNK: usize = 1 << 14;

wide! {
    fn add_scaled<T>(x: &[T], scale: T, y: &mut [T]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += *x * scale;
        }
    }
}

fn corrected<T: Real>(y: CpuStorage, (s, l): Input, scale: f64) -> candle_core::Result<CpuStorage> {
    let correction = elements::<T>(s, l)?;
    let mut y = T::cpu_storage_data(y)?;
    let chunks = y.par_chunks_mut(CHUNK).zip(correction.par_chunks(CHUNK));
    chunks.for_each(|(y, x)| add_scaled(x, T::of(scale), y));
    Ok(T::to_cpu_storage_owned(y))
}

/// Runs `f` on a tensor in host memory.
fn on_storage<T>(tensor: &Tensor, f: impl FnOnce(Input) -> candle_core::Result<T>) -> candle_core::Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f((storage, layout)),
        _ => candle_core::bail!("low-rank: a weight is not where its input is"),
    }
}

impl CustomOp3 for LowRank {
    fn name(&self) -> &'static str {
        "low-rank"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Output {
        let (y, shape) = on_storage(&self.weight, |weight| product((s1, l1), weight))?;
        let y = match &self.bias {
            Some(bias) => on_storage(bias, |bias| by_dtype!(s1, biased, y, bias))?,
            None => y,
        };
        let (low, low_shape) = product((s1, l1), (s2, l2))?; // [.., rank]
        let (correction, correction_shape) = product((&low, &Layout::contiguous(low_shape)), (s3, l3))?;
        if correction_shape != shape {
            candle_core::bail!("low-rank: {:?} plus {:?}", shape.dims(), correction_shape.dims());
        }
        let layout = Layout::contiguous(&shape);
        Ok((by_dtype!(s1, corrected, y, (&correction, &layout), self.scaling)?, shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        down: &Tensor,
        up: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dy = flat(dy, up)?; // [rows, outputs]
        let rows = x.detach().reshape(((), down.dim(1)?))?; // [rows, inputs]
        let dup = || dy.t()?.matmul(&(rows.matmul(&down.detach().t()?)? * self.scaling)?);
        let dup = up.track_op().then(dup).transpose()?;
        let dlow = (dy.matmul(&up.detach())? * self.scaling)?; // [rows, rank]
        let ddown = down.track_op().then(|| dlow.t()?.matmul(&rows)).transpose()?;
        let dx = || (dy.matmul(&self.weight)? + dlow.matmul(&down.detach())?)?.reshape(x.shape());
        Ok((x.track_op().then(dx).transpose()?, ddown, dup))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::super::testing::*;
    use super::*;

    type Form = fn(&Tensor, &Tensor, Option<&Tensor>, &Tensor, &Tensor, f64) -> Result<Tensor>;

    #[test]
    fn fused_and_composed_corrections_agree_and_the_gradients_are_slopes() {
        let inputs =
            [("x", vec![5, 9, 7]), ("down", vec![3, 7]), ("up", vec![13, 3])].map(|(n, s)| random(n, &s, DType::F64));
        let weight = random("weight", &[13, 7], DType::F64);
        let bias = random("bias", &[13], DType::F64);
        for bias in [Some(&bias), None] {
            let like = |t: &Tensor, x: &Tensor| t.to_dtype(x.dtype()).unwrap();
            let call = |f: Form| {
                let weight = &weight;
                move |a: &[Tensor]| {
                    let bias = bias.map(|bias| like(bias, &a[0]));
                    f(&a[0], &like(weight, &a[0]), bias.as_ref(), &a[1], &a[2], 1.5).unwrap()
                }
            };
            agree(&inputs, call(low_rank), call(composed), [4e-6, 1e-12]);
            matches_finite_differences(&inputs, call(low_rank), 1e-6);
        }
    }

    #[test]
    fn a_correction_of_zero_changes_no_bit_and_a_frozen_weight_gets_no_gradient() {
        let x = Var::from_tensor(&random("x", &[6, 7], DType::F32)).unwrap();
        let (weight, bias) = (random("weight", &[5, 7], DType::F32), random("bias", &[5], DType::F32));
        let down = Var::from_tensor(&random("down", &[2, 7], DType::F32)).unwrap();
        let up = Var::zeros((5, 2), DType::F32, weight.device()).unwrap();
        let y = low_rank(&x, &weight, Some(&bias), &down, &up, 2.0).unwrap();
        let base = linear(&x, &weight, Some(&bias)).unwrap();
        assert_eq!(y.to_vec2::<f32>().unwrap(), base.to_vec2::<f32>().unwrap());
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert!([&x, &down, &up].iter().all(|var| gradients.get(var).is_some()));
        assert!(gradients.get(&weight).is_none() && gradients.get(&bias).is_none());
    }
}
