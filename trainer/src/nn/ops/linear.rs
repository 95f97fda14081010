//! The affine map `x W^T + b`, with a bias whose gradient is not slow.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{by_dtype, has_fused_form};
use crate::Result;
use crate::nn::real::{Real, elements, wide};

/// `x W^T + b`. `x`: `[.., inputs]`; `weight`: `[outputs, inputs]` (torch's layout); `bias`: `[outputs]` or none.
/// A frozen weight (one that is not tracked) costs no gradient where the fused form runs.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(bias) if has_fused_form(x) => Ok(x.contiguous()?.apply_op3(weight, bias, Affine)?),
        _ => composed(x, weight, bias),
    }
}

/// The definition in candle operations.
pub fn composed(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    let y = x.reshape(((), inputs))?.matmul(&weight.t()?)?; // [rows, outputs]
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    Ok(y.reshape(with_last(x.dims(), outputs))?)
}

/// `dims` with another last dimension.
fn with_last(dims: &[usize], last: usize) -> Vec<usize> {
    let mut dims = dims.to_vec();
    if let Some(d) = dims.last_mut() {
        *d = last;
    }
    dims
}

struct Affine;

/// Sums over rows, in chunks of a fixed size folded in order.
struct ColumnSums;

const ROWS: usize = 256;

wide! {
    fn add_bias<T>(y: &mut [T], bias: &[T]) {
        for row in y.chunks_exact_mut(bias.len()) {
            for (y, b) in row.iter_mut().zip(bias) {
                *y += *b;
            }
        }
    }
}

wide! {
    fn sum_rows<T>(x: &[T], sums: &mut [T]) {
        for row in x.chunks_exact(sums.len()) {
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum += *x;
            }
        }
    }
}

fn biased<T: Real>(product: CpuStorage, (s, l): (&CpuStorage, &Layout)) -> candle_core::Result<CpuStorage> {
    let bias = elements::<T>(s, l)?;
    let mut y = T::cpu_storage_data(product)?;
    y.par_chunks_mut(ROWS * bias.len()).for_each(|y| add_bias(y, bias));
    Ok(T::to_cpu_storage_owned(y))
}

fn column_sums<T: Real>(s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
    let (_, width) = l.shape().dims2()?;
    let x = elements::<T>(s, l)?;
    let partial: Vec<Vec<T>> = x
        .par_chunks(ROWS * width)
        .map(|x| {
            let mut sums = vec![T::zero(); width];
            sum_rows(x, &mut sums);
            sums
        })
        .collect();
    let mut total = vec![T::zero(); width];
    for sums in partial {
        total.iter_mut().zip(sums).for_each(|(t, s)| *t += s);
    }
    Ok((T::to_cpu_storage_owned(total), width.into()))
}

impl CustomOp3 for Affine {
    fn name(&self) -> &'static str {
        "affine"
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
        let (outputs, inputs) = l2.shape().dims2()?;
        if l1.dims().last() != Some(&inputs) || !l1.is_contiguous() || l3.dims() != [outputs] {
            candle_core::bail!("affine: {:?} by {:?} plus {:?}", l1.dims(), l2.dims(), l3.dims());
        }
        let rows = l1.shape().elem_count() / inputs;
        // Rows of all leading dimensions at once: a reshape outside would cost a gradient buffer of its own.
        let flat = Layout::contiguous_with_offset((rows, inputs), l1.start_offset());
        let [row, column] = *l2.stride() else { candle_core::bail!("affine: the weight is not a matrix") };
        let transposed = Layout::new((inputs, outputs).into(), vec![column, row], l2.start_offset());
        let product = s1.matmul(s2, (1, rows, outputs, inputs), &flat, &transposed)?;
        Ok((by_dtype!(s1, biased, product, (s3, l3))?, with_last(l1.dims(), outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (outputs, inputs) = weight.dims2()?;
        // Detached: nothing computed here belongs to a graph.
        let dy = dy.detach().contiguous()?.reshape(((), outputs))?;
        let rows = x.detach().reshape(((), inputs))?;
        let dx = x.track_op().then(|| dy.matmul(&weight.detach())?.reshape(x.shape())).transpose()?;
        let dw = weight.track_op().then(|| dy.t()?.matmul(&rows)).transpose()?;
        let db = bias.track_op().then(|| dy.apply_op1_no_bwd(&ColumnSums)).transpose()?;
        Ok((dx, dw, db))
    }
}

impl CustomOp1 for ColumnSums {
    fn name(&self) -> &'static str {
        "column-sums"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        by_dtype!(s, column_sums, s, l)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::super::testing::*;
    use super::*;

    #[test]
    fn fused_and_composed_affine_maps_agree_and_the_gradients_are_slopes() {
        let inputs = [
            random("x", &[7, 43, 7], DType::F64),
            random("weight", &[13, 7], DType::F64),
            random("bias", &[13], DType::F64),
        ];
        let fused = |a: &[Tensor]| linear(&a[0], &a[1], Some(&a[2])).unwrap();
        agree(&inputs, fused, |a| composed(&a[0], &a[1], Some(&a[2])).unwrap(), [2e-6, 1e-12]);
        matches_finite_differences(&inputs, fused, 1e-7);
    }

    #[test]
    fn a_frozen_weight_gets_no_gradient() {
        let x = Var::from_tensor(&random("x", &[4, 3], DType::F32)).unwrap();
        let (weight, bias) = (random("w", &[2, 3], DType::F32), random("b", &[2], DType::F32));
        let y = linear(&x, &weight, Some(&bias)).unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&x).is_some() && gradients.get(&weight).is_none() && gradients.get(&bias).is_none());
    }
}
