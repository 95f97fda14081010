//! The affine map `x W^T + b`, with a bias whose gradient is not slow and a frozen weight that costs none.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Shape, Tensor, op};
use rayon::prelude::*;

use super::{Input, Output, by_dtype, has_fused_form, on_every_device, on_host, widened};
use crate::Result;
use crate::nn::real::{Real, elements, wide};

/// `x W^T + b`. `x`: `[.., inputs]`; `weight`: `[outputs, inputs]` (torch's layout); `bias`: `[outputs]` or none.
/// A frozen weight (one that is not tracked) costs no gradient, on no device.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let x = x.contiguous()?;
    Ok(match bias {
        Some(bias) => x.apply_op3(weight, bias, Affine { fused: has_fused_form(&x) })?,
        None => x.apply_op2(weight, Product)?,
    })
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

/// With a bias, which host memory in f32 and f64 adds and sums by our own loops, all else by candle's.
struct Affine {
    fused: bool,
}

/// Without.
struct Product;

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

pub(super) fn biased<T: Real>(product: CpuStorage, (s, l): Input) -> candle_core::Result<CpuStorage> {
    let bias = elements::<T>(s, l)?;
    let mut y = T::cpu_storage_data(product)?;
    y.par_chunks_mut(ROWS * bias.len()).for_each(|y| add_bias(y, bias));
    Ok(T::to_cpu_storage_owned(y))
}

fn column_sums<T: Real>((s, l): Input) -> Output {
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

/// `y` plus a bias for each row, in candle operations on storages of any device.
fn shifted<S: BackendStorage>(y: &S, shape: &Shape, (s, l): (&S, &Layout)) -> candle_core::Result<S> {
    y.binary_impl::<op::Add>(s, &Layout::contiguous(shape), &l.broadcast_as(shape)?)
}

/// `x W^T`, `[.., outputs]`, where the storage is.
pub(super) fn product<S: BackendStorage>(
    (s1, l1): (&S, &Layout),
    (s2, l2): (&S, &Layout),
) -> candle_core::Result<(S, Shape)> {
    let (outputs, inputs) = l2.shape().dims2()?;
    if l1.dims().last() != Some(&inputs) || !l1.is_contiguous() {
        candle_core::bail!("affine: {:?} by {:?}", l1.dims(), l2.dims());
    }
    let rows = l1.shape().elem_count() / inputs;
    // Rows of all leading dimensions at once: a reshape outside would cost a gradient buffer of its own.
    let flat = Layout::contiguous_with_offset((rows, inputs), l1.start_offset());
    let [row, column] = *l2.stride() else { candle_core::bail!("affine: the weight is not a matrix") };
    let transposed = Layout::new((inputs, outputs).into(), vec![column, row], l2.start_offset());
    let product = s1.matmul(s2, (1, rows, outputs, inputs), &flat, &transposed)?;
    Ok((product, with_last(l1.dims(), outputs).into()))
}

/// The gradients of x and weight that are asked for, from `dy` `[rows, outputs]`, detached.
fn pull(x: &Tensor, weight: &Tensor, dy: &Tensor) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
    let rows = x.detach().reshape(((), weight.dim(1)?))?;
    let dx = x.track_op().then(|| dy.matmul(&weight.detach())?.reshape(x.shape())).transpose()?;
    Ok((dx, weight.track_op().then(|| dy.t()?.matmul(&rows)).transpose()?))
}

/// The gradient of the output as a matrix that belongs to no graph.
pub(super) fn flat(dy: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
    dy.detach().contiguous()?.reshape(((), weight.dim(0)?))
}

impl CustomOp2 for Product {
    on_every_device!("product", product);

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        pull(x, weight, &flat(dy, weight)?)
    }
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
    ) -> Output {
        let (product, shape) = product((s1, l1), (s2, l2))?;
        if l3.dims() != &l2.dims()[..1] {
            candle_core::bail!("affine: {:?} plus {:?}", shape.dims(), l3.dims());
        }
        match self.fused {
            true => Ok((by_dtype!(s1, biased, product, (s3, l3))?, shape)),
            false => Ok((shifted(&product, &shape, (s3, l3))?, shape)),
        }
    }

    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let (product, shape) = product((s1, l1), (s2, l2))?;
        Ok((shifted(&product, &shape, (s3, l3))?, shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dy = flat(dy, weight)?;
        let (dx, dw) = pull(x, weight, &dy)?;
        let sums = || match self.fused {
            true => dy.apply_op1_no_bwd(&ColumnSums),
            false => widened(&dy)?.sum(0)?.to_dtype(bias.dtype()),
        };
        Ok((dx, dw, bias.track_op().then(sums).transpose()?))
    }
}

impl CustomOp1 for ColumnSums {
    on_host!(1, "column-sums", column_sums, self);
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
        let fused = |a: &[Tensor]| linear(&a[0], &a[1], None).unwrap();
        agree(&inputs[..2], fused, |a| composed(&a[0], &a[1], None).unwrap(), [2e-6, 1e-12]);
        matches_finite_differences(&inputs[..2], fused, 1e-7);
    }

    #[test]
    fn the_form_for_other_devices_and_the_definition_agree() {
        let inputs = [
            random("x", &[7, 43, 7], DType::F64),
            random("weight", &[13, 7], DType::F64),
            random("bias", &[13], DType::F64),
        ];
        let other = |a: &[Tensor]| unfused(|| linear(&a[0], &a[1], a.get(2)).unwrap());
        let slow = |a: &[Tensor]| composed(&a[0], &a[1], a.get(2)).unwrap();
        agree(&inputs, other, slow, [2e-6, 1e-12]);
        agree(&inputs[..2], other, slow, [2e-6, 1e-12]);
    }

    #[test]
    fn the_gradient_of_a_bias_in_bf16_is_summed_in_f32() {
        let x = random("x", &[1000, 3], DType::BF16);
        let (weight, bias) = (random("w", &[2, 3], DType::BF16), random("b", &[2], DType::BF16));
        let bias = Var::from_tensor(&bias).unwrap();
        let y = linear(&x, &weight, Some(&bias)).unwrap();
        let gradient = y.sum_all().unwrap().backward().unwrap().get(&bias).unwrap().clone();
        assert_eq!(difference(&gradient, &(bias.ones_like().unwrap() * 1000.0).unwrap()), 0.0);
    }

    #[test]
    fn a_frozen_weight_gets_no_gradient() {
        let form = |fused: bool, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>| match fused {
            true => linear(x, weight, bias).unwrap(),
            false => unfused(|| linear(x, weight, bias).unwrap()),
        };
        for (dtype, fused) in [(DType::F32, true), (DType::F32, false), (DType::BF16, false)] {
            let x = Var::from_tensor(&random("x", &[4, 3], dtype)).unwrap();
            let (weight, bias) = (random("w", &[2, 3], dtype), random("b", &[2], dtype));
            for bias in [Some(&bias), None] {
                let gradients = form(fused, &x, &weight, bias).sum_all().unwrap().backward().unwrap();
                assert!(gradients.get(&x).is_some() && gradients.get_ids().count() == 1);
            }
        }
    }

    #[test]
    fn a_narrow_type_has_the_composed_value_and_gradients() {
        let of = |name, shape: &[usize]| Var::from_tensor(&random(name, shape, DType::BF16)).unwrap();
        let (x, weight, bias) = (of("x", &[2, 4, 3]), of("w", &[5, 3]), of("b", &[5]));
        let ours = linear(&x, &weight, Some(&bias)).unwrap();
        let meant = composed(&x, &weight, Some(&bias)).unwrap();
        assert_eq!(difference(&ours, &meant), 0.0);
        let gradients = |y: &Tensor| y.sum_all().unwrap().backward().unwrap();
        let (ours, meant) = (gradients(&ours), gradients(&meant));
        for var in [&x, &weight, &bias] {
            assert!(difference(ours.get(var).unwrap(), meant.get(var).unwrap()) < 1e-2);
        }
    }
}
