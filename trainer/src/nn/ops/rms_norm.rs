//! Root-mean-square normalisation (Zhang and Sennrich, arXiv 1910.07467) over the last dimension.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, DType, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{by_dtype, has_fused_form};
use crate::Result;
use crate::nn::real::{Real, elements, lane_sum, wide};

/// `x / sqrt(mean(x^2) + eps) * gain`, with the mean over each row of the last dimension.
/// `x`: `[.., width]`; `gain`: `[width]`.
pub fn rms_norm(x: &Tensor, gain: &Tensor, eps: f64) -> Result<Tensor> {
    match has_fused_form(x) {
        true => Ok(x.contiguous()?.apply_op2(gain, RmsNorm { eps })?),
        false => composed(x, gain, eps),
    }
}

/// The definition in candle operations. Narrow types are normalised in f32 and rounded before the gain, as the libraries do
/// that trained the checkpoints.
pub fn composed(x: &Tensor, gain: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = match x.dtype() {
        DType::F16 | DType::BF16 => x.to_dtype(DType::F32)?,
        _ => x.clone(),
    };
    let mean = wide.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = wide.broadcast_div(&(mean + eps)?.sqrt()?)?;
    Ok(normal.to_dtype(x.dtype())?.broadcast_mul(gain)?)
}

/// Rows of one task and of one partial sum of the gain's gradient: fixed, so that threads change no bit.
const ROWS: usize = 64;

struct RmsNorm {
    eps: f64,
}

/// From (x, gain, dy): the gradients of x and of the gain behind each other.
struct RmsNormGradient {
    eps: f64,
}

/// Reciprocal root mean square of a row.
#[inline(always)]
fn scale_of<T: Real>(x: &[T], eps: T) -> T {
    let mean = lane_sum(x.len(), |i| x[i] * x[i]) / T::of(x.len() as f64);
    T::one() / (mean + eps).root()
}

wide! {
    fn rows_forward<T>(x: &[T], gain: &[T], eps: T, y: &mut [T]) {
        let width = gain.len();
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let scale = scale_of(x, eps);
            for ((y, &x), &g) in y.iter_mut().zip(x).zip(gain) {
                *y = x * scale * g;
            }
        }
    }
}

wide! {
    fn rows_backward<T>(x: &[T], gain: &[T], dy: &[T], eps: T, dx: &mut [T], dgain: &mut [T]) {
        let width = gain.len();
        let n = T::of(width as f64);
        for ((x, dy), dx) in x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)) {
            let scale = scale_of(x, eps);
            let along_x = lane_sum(width, |i| dy[i] * gain[i] * (x[i] * scale)) / n;
            for i in 0..width {
                let normal = x[i] * scale;
                dx[i] = scale * (dy[i] * gain[i] - normal * along_x);
                dgain[i] += dy[i] * normal;
            }
        }
    }
}

fn forward<T: Real>(
    (s1, l1): (&CpuStorage, &Layout),
    (s2, l2): (&CpuStorage, &Layout),
    eps: f64,
) -> candle_core::Result<(CpuStorage, Shape)> {
    let (x, gain) = (elements::<T>(s1, l1)?, elements::<T>(s2, l2)?);
    let width = gain.len();
    if width == 0 || l1.dims().last() != Some(&width) {
        candle_core::bail!("rms norm: {:?} with {width} gains", l1.dims());
    }
    let mut y = vec![T::zero(); x.len()];
    y.par_chunks_mut(ROWS * width)
        .zip(x.par_chunks(ROWS * width))
        .for_each(|(y, x)| rows_forward(x, gain, T::of(eps), y));
    Ok((T::to_cpu_storage_owned(y), l1.shape().clone()))
}

fn backward<T: Real>(
    (s1, l1): (&CpuStorage, &Layout),
    (s2, l2): (&CpuStorage, &Layout),
    (s3, l3): (&CpuStorage, &Layout),
    eps: f64,
) -> candle_core::Result<(CpuStorage, Shape)> {
    let (x, gain, dy) = (elements::<T>(s1, l1)?, elements::<T>(s2, l2)?, elements::<T>(s3, l3)?);
    let width = gain.len();
    let mut out = vec![T::zero(); x.len() + width];
    let (dx, sums) = out.split_at_mut(x.len());
    let partial: Vec<Vec<T>> = dx
        .par_chunks_mut(ROWS * width)
        .zip(x.par_chunks(ROWS * width).zip(dy.par_chunks(ROWS * width)))
        .map(|(dx, (x, dy))| {
            let mut dgain = vec![T::zero(); width];
            rows_backward(x, gain, dy, T::of(eps), dx, &mut dgain);
            dgain
        })
        .collect();
    for dgain in partial {
        sums.iter_mut().zip(dgain).for_each(|(sum, d)| *sum += d);
    }
    let n = out.len();
    Ok((T::to_cpu_storage_owned(out), n.into()))
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        by_dtype!(s1, forward, (s1, l1), (s2, l2), self.eps)
    }

    fn bwd(
        &self,
        x: &Tensor,
        gain: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let all = x.apply_op3_no_bwd(gain, &dy.contiguous()?, &RmsNormGradient { eps: self.eps })?;
        let n = x.elem_count();
        let dx = x.track_op().then(|| all.narrow(0, 0, n)?.reshape(x.shape())).transpose()?;
        Ok((dx, gain.track_op().then(|| all.narrow(0, n, gain.elem_count())).transpose()?))
    }
}

impl CustomOp3 for RmsNormGradient {
    fn name(&self) -> &'static str {
        "rms-norm-gradient"
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
        by_dtype!(s1, backward, (s1, l1), (s2, l2), (s3, l3), self.eps)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn fused_and_composed_rms_norm_agree_and_the_gradients_are_slopes() {
        let inputs = [random("x", &[5, 31, 19], DType::F64), random("gain", &[19], DType::F64)];
        let fused = |a: &[Tensor]| rms_norm(&a[0], &a[1], 1e-5).unwrap();
        agree(&inputs, fused, |a| composed(&a[0], &a[1], 1e-5).unwrap(), [3e-6, 1e-12]);
        matches_finite_differences(&inputs, fused, 1e-7);
    }

    #[test]
    fn narrow_types_are_normalised_in_f32() {
        // In bf16 the sum of 4096 ones stops at 256, and the root mean square with it.
        let x = Tensor::ones((1, 4096), DType::BF16, &candle_core::Device::Cpu).unwrap();
        let gain = Tensor::ones(4096, DType::BF16, &candle_core::Device::Cpu).unwrap();
        assert_eq!(difference(&rms_norm(&x, &gain, 0.0).unwrap(), &x), 0.0);
    }
}
