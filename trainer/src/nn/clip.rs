//! Clipping by the global gradient norm, in a fixed order of summation.

use candle_core::{DType, Tensor};

use rayon::prelude::*;

use super::adamw::cpu_slice;
use super::ops::widened;
use super::real::{Real, lane_sum};
use super::store::Gradients;
use crate::Result;

/// Euclidean norm of all gradients together, tensors in sorted order: squares of each tensor summed in f64 in host memory, in
/// f32 on another device, where they are.
pub fn global_norm(gradients: &Gradients) -> Result<f64> {
    let mut sum = 0.0;
    for gradient in gradients.values() {
        sum += sum_of_squares(gradient)?;
    }
    Ok(sum.sqrt())
}

/// The norm of all gradients together, and the factor `min(1, bound / (norm + 1e-6))` that
/// `torch.nn.utils.clip_grad_norm_` multiplies them by: see [`super::AdamW::step_scaled`].
pub fn clip_factor(gradients: &Gradients, bound: f64) -> Result<(f64, f64)> {
    let norm = global_norm(gradients)?;
    Ok((norm, (bound / (norm + 1e-6)).min(1.0)))
}

/// Scales all gradients by the factor of [`clip_factor`], and gives (norm before clipping, factor).
pub fn clip(gradients: &mut Gradients, bound: f64) -> Result<(f64, f64)> {
    let (norm, factor) = clip_factor(gradients, bound)?;
    if factor < 1.0 {
        for gradient in gradients.values_mut() {
            *gradient = (&*gradient * factor)?;
        }
    }
    Ok((norm, factor))
}

/// Elements whose squares one thread sums; the sums are added in order, whoever made them.
const CHUNK: usize = 1 << 15;

fn sum_of_squares(gradient: &Tensor) -> Result<f64> {
    let flat = gradient.flatten_all()?.contiguous()?;
    if !flat.device().is_cpu() {
        return Ok(widened(&flat)?.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar()?);
    }
    let wide = if flat.dtype() == DType::F64 { flat } else { flat.to_dtype(DType::F32)? };
    let (storage, layout) = wide.storage_and_layout();
    let sums: Vec<f64> = match wide.dtype() {
        DType::F64 => cpu_slice::<f64>(&storage, layout)?.par_chunks(CHUNK).map(squares).collect(),
        _ => cpu_slice::<f32>(&storage, layout)?.par_chunks(CHUNK).map(squares).collect(),
    };
    Ok(sums.into_iter().sum())
}

fn squares<T: Real>(values: &[T]) -> f64 {
    lane_sum::<f64>(values.len(), |i| values[i].wide() * values[i].wide())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn gradients() -> Gradients {
        let tensor = |x: &[f32]| Tensor::new(x, &Device::Cpu).unwrap();
        Gradients::from([("a".into(), tensor(&[3.0])), ("b".into(), tensor(&[0.0, 4.0]))])
    }

    #[test]
    fn a_norm_above_the_bound_becomes_the_bound() {
        let mut g = gradients();
        let (norm, factor) = clip(&mut g, 1.0).unwrap();
        assert_eq!(norm, 5.0);
        assert!((factor - 0.2).abs() < 1e-7);
        assert!((global_norm(&g).unwrap() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_norm_below_the_bound_is_left_alone() {
        let mut g = gradients();
        assert_eq!(clip(&mut g, 6.0).unwrap(), (5.0, 1.0));
        assert_eq!(g["b"].to_vec1::<f32>().unwrap(), [0.0, 4.0]);
    }
}
