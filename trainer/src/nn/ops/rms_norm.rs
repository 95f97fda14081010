//! Root-mean-square normalisation (Zhang and Sennrich, arXiv 1910.07467) over the last dimension.

use super::{Input, Output, has_fused_form, on_host, rows, widened};
use crate::Result;
use crate::nn::real::{Real, elements, lane_sum, wide};
use candle_core::{CustomOp2, CustomOp3, D, Tensor};

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
    let wide = widened(x)?;
    let mean = wide.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = wide.broadcast_div(&(mean + eps)?.sqrt()?)?;
    Ok(normal.to_dtype(x.dtype())?.broadcast_mul(gain)?)
}

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

fn forward<T: Real>((s1, l1): Input, (s2, l2): Input, eps: f64) -> Output {
    let (x, gain) = (elements::<T>(s1, l1)?, elements::<T>(s2, l2)?);
    let width = gain.len();
    if width == 0 || l1.dims().last() != Some(&width) {
        candle_core::bail!("rms norm: {:?} with {width} gains", l1.dims());
    }
    let y = rows::forward(x, width, |x, y| rows_forward(x, gain, T::of(eps), y));
    Ok((T::to_cpu_storage_owned(y), l1.shape().clone()))
}

fn backward<T: Real>((s1, l1): Input, (s2, l2): Input, (s3, l3): Input, eps: f64) -> Output {
    let (x, gain, dy) = (elements::<T>(s1, l1)?, elements::<T>(s2, l2)?, elements::<T>(s3, l3)?);
    let width = gain.len();
    let block = |x: &[T], dy: &[T], dx: &mut [T], dgain: &mut [T]| rows_backward(x, gain, dy, T::of(eps), dx, dgain);
    let out = rows::backward(x, dy, width, width, block);
    let n = out.len();
    Ok((T::to_cpu_storage_owned(out), n.into()))
}

impl CustomOp2 for RmsNorm {
    on_host!(2, "rms-norm", forward, self, self.eps);

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
    on_host!(3, "rms-norm-gradient", backward, self, self.eps);
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

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
