//! Layer normalisation (Ba, Kiros and Hinton, arXiv 1607.06450) over the last dimension.

use super::{Input, Output, has_fused_form, on_host, rows, widened};
use crate::Result;
use crate::nn::real::{Real, elements, lane_sum, wide};
use candle_core::{CustomOp3, D, Layout, Tensor};

/// `(x - mean) / sqrt(var + eps) * gain + bias`, with the population variance of each row of the last dimension.
/// `x`: `[.., width]`; `gain`, `bias`: `[width]`.
pub fn layer_norm(x: &Tensor, gain: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    match has_fused_form(x) {
        true => Ok(x.contiguous()?.apply_op3(gain, bias, LayerNorm { eps })?),
        false => composed(x, gain, bias, eps),
    }
}

/// The definition in candle operations. Narrow types are widened to f32 and rounded once, at the end.
pub fn composed(x: &Tensor, gain: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = widened(x)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    Ok(normal.broadcast_mul(&widened(gain)?)?.broadcast_add(&widened(bias)?)?.to_dtype(x.dtype())?)
}

struct LayerNorm {
    eps: f64,
}

/// From (x, gain, dy): the gradients of x, gain and bias behind each other.
struct LayerNormGradient {
    eps: f64,
}

/// Mean and reciprocal standard deviation of a row.
#[inline(always)]
fn moments<T: Real>(x: &[T], eps: T) -> (T, T) {
    let n = T::of(x.len() as f64);
    let mean = lane_sum(x.len(), |i| x[i]) / n;
    let variance = lane_sum(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / n;
    (mean, T::one() / (variance + eps).root())
}

wide! {
    fn rows_forward<T>(x: &[T], gain: &[T], bias: &[T], eps: T, y: &mut [T]) {
        let width = gain.len();
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let (mean, scale) = moments(x, eps);
            for (((y, &x), &g), &b) in y.iter_mut().zip(x).zip(gain).zip(bias) {
                *y = ((x - mean) * scale).fma(g, b);
            }
        }
    }
}

wide! {
    fn rows_backward<T>(x: &[T], gain: &[T], dy: &[T], eps: T, dx: &mut [T], dgain: &mut [T], dbias: &mut [T]) {
        let width = gain.len();
        let n = T::of(width as f64);
        for ((x, dy), dx) in x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)) {
            let (mean, scale) = moments(x, eps);
            let along_one = lane_sum(width, |i| dy[i] * gain[i]) / n;
            let along_x = lane_sum(width, |i| dy[i] * gain[i] * ((x[i] - mean) * scale)) / n;
            for i in 0..width {
                let normal = (x[i] - mean) * scale;
                dx[i] = scale * (dy[i] * gain[i] - along_one - normal * along_x);
                dgain[i] += dy[i] * normal;
                dbias[i] += dy[i];
            }
        }
    }
}

fn forward<T: Real>((s1, l1): Input, (s2, l2): Input, (s3, l3): Input, eps: f64) -> Output {
    let (x, gain, bias) = (elements::<T>(s1, l1)?, elements::<T>(s2, l2)?, elements::<T>(s3, l3)?);
    let width = width_of(l1, gain.len(), bias.len())?;
    let y = rows::forward(x, width, |x, y| rows_forward(x, gain, bias, T::of(eps), y));
    Ok((T::to_cpu_storage_owned(y), l1.shape().clone()))
}

fn backward<T: Real>((s1, l1): Input, (s2, l2): Input, (s3, l3): Input, eps: f64) -> Output {
    let (x, gain, dy) = (elements::<T>(s1, l1)?, elements::<T>(s2, l2)?, elements::<T>(s3, l3)?);
    let width = gain.len();
    let block = |x: &[T], dy: &[T], dx: &mut [T], sums: &mut [T]| {
        let (dgain, dbias) = sums.split_at_mut(width);
        rows_backward(x, gain, dy, T::of(eps), dx, dgain, dbias);
    };
    let out = rows::backward(x, dy, width, 2 * width, block);
    let n = out.len();
    Ok((T::to_cpu_storage_owned(out), n.into()))
}

fn width_of(l: &Layout, gain: usize, bias: usize) -> candle_core::Result<usize> {
    match l.dims().last() {
        Some(&width) if width == gain && width == bias && width > 0 => Ok(width),
        _ => candle_core::bail!("layer norm: {:?} with {gain} gains and {bias} biases", l.dims()),
    }
}

impl CustomOp3 for LayerNorm {
    on_host!(3, "layer-norm", forward, self, self.eps);

    fn bwd(
        &self,
        x: &Tensor,
        gain: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let all = x.apply_op3_no_bwd(gain, &dy.contiguous()?, &LayerNormGradient { eps: self.eps })?;
        let (n, width) = (x.elem_count(), gain.elem_count());
        let dx = x.track_op().then(|| all.narrow(0, 0, n)?.reshape(x.shape())).transpose()?;
        let part = |t: &Tensor, start| t.track_op().then(|| all.narrow(0, start, width)).transpose();
        Ok((dx, part(gain, n)?, part(bias, n + width)?))
    }
}

impl CustomOp3 for LayerNormGradient {
    on_host!(3, "layer-norm-gradient", backward, self, self.eps);
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::super::testing::*;
    use super::*;

    #[test]
    fn fused_and_composed_layer_norm_agree_and_the_gradients_are_slopes() {
        let inputs = [
            random("x", &[5, 31, 19], DType::F64),
            random("gain", &[19], DType::F64),
            random("bias", &[19], DType::F64),
        ];
        let fused = |a: &[Tensor]| layer_norm(&a[0], &a[1], &a[2], 1e-5).unwrap();
        agree(&inputs, fused, |a| composed(&a[0], &a[1], &a[2], 1e-5).unwrap(), [3e-6, 1e-12]);
        matches_finite_differences(&inputs, fused, 1e-7);
    }

    #[test]
    fn narrow_types_are_normalised_in_f32() {
        // Alternating 0 and 2: mean and deviation 1. In bf16 the sum of 4096 of them stops at 512.
        let x: Vec<f32> = (0..4096).map(|i| if i % 2 == 1 { 2.0 } else { 0.0 }).collect();
        let narrow = |t: Tensor| t.to_dtype(DType::BF16).unwrap();
        let x = narrow(Tensor::new(x, &Device::Cpu).unwrap());
        let (gain, bias) = (x.ones_like().unwrap(), x.zeros_like().unwrap());
        let expected = (&x - 1.0).unwrap();
        assert_eq!(difference(&layer_norm(&x, &gain, &bias, 0.0).unwrap(), &expected), 0.0);
    }
}
