//! The exact Gaussian error linear unit, `x Phi(x)` (Hendrycks and Gimpel, arXiv 1606.08415).

use candle_core::{CustomOp1, CustomOp2, Tensor};
use rayon::prelude::*;

use super::{Input, Output, has_fused_form, on_host};
use crate::Result;
use crate::nn::real::{Real, elements, wide};

/// `x Phi(x)` elementwise; any shape.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    match has_fused_form(x) {
        true => Ok(x.contiguous()?.apply_op1(Gelu)?),
        false => composed(x),
    }
}

/// The definition in candle operations, of which there is one: `x (1 + erf(x / sqrt 2)) / 2`, rounded once in narrow types.
pub fn composed(x: &Tensor) -> Result<Tensor> {
    Ok(x.gelu_erf()?)
}

/// Elements a thread takes at a time.
const CHUNK: usize = 1 << 14;

struct Gelu;
struct GeluGradient;

wide! {
    fn values<T>(x: &[T], y: &mut [T]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = x.gelu().0;
        }
    }
}

wide! {
    fn gradients<T>(x: &[T], dy: &[T], dx: &mut [T]) {
        for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
            *dx = *dy * x.gelu().1;
        }
    }
}

fn forward<T: Real>((s, l): Input) -> Output {
    let x = elements::<T>(s, l)?;
    let mut y = vec![T::zero(); x.len()];
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| values(x, y));
    Ok((T::to_cpu_storage_owned(y), l.shape().clone()))
}

fn backward<T: Real>((s1, l1): Input, (s2, l2): Input) -> Output {
    let (x, dy) = (elements::<T>(s1, l1)?, elements::<T>(s2, l2)?);
    let mut dx = vec![T::zero(); x.len()];
    let chunks = dx.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK).zip(dy.par_chunks(CHUNK)));
    chunks.for_each(|(dx, (x, dy))| gradients(x, dy, dx));
    Ok((T::to_cpu_storage_owned(dx), l1.shape().clone()))
}

impl CustomOp1 for Gelu {
    on_host!(1, "gelu", forward, self);

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(x.apply_op2_no_bwd(&dy.contiguous()?, &GeluGradient)?))
    }
}

impl CustomOp2 for GeluGradient {
    on_host!(2, "gelu-gradient", backward, self);
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::super::testing::*;
    use super::*;

    #[test]
    fn fused_and_composed_gelu_agree_and_the_gradient_is_the_slope() {
        let x = (random("x", &[3, 37], DType::F64) * 3.0).unwrap();
        // candle's own backward truncates its constants at about 1e-7.
        agree(std::slice::from_ref(&x), |a| gelu(&a[0]).unwrap(), |a| composed(&a[0]).unwrap(), [1e-6, 1e-6]);
        matches_finite_differences(&[x], |a| gelu(&a[0]).unwrap(), 1e-8);
    }
}
