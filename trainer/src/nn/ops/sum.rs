//! Sums of tensors of one shape, where branches join the residual stream.
//!
//! candle's own addition allocates a gradient for every term, needed or not, and keeps the partial sum of three terms.

use candle_core::{CustomOp2, CustomOp3, Tensor};
use rayon::prelude::*;

use super::{Input, Output, has_fused_form, on_host};
use crate::Result;
use crate::nn::real::{Real, elements, wide};

/// `a + b`; both of one shape.
pub fn sum2(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match has_fused_form(a) {
        true => Ok(a.contiguous()?.apply_op2(&b.contiguous()?, Sum)?),
        false => composed(&[a, b]),
    }
}

/// `(a + b) + c`; all of one shape.
pub fn sum3(a: &Tensor, b: &Tensor, c: &Tensor) -> Result<Tensor> {
    match has_fused_form(a) {
        true => Ok(a.contiguous()?.apply_op3(&b.contiguous()?, &c.contiguous()?, Sum)?),
        false => composed(&[a, b, c]),
    }
}

/// The definition in candle operations: from the left to the right.
pub fn composed(terms: &[&Tensor]) -> Result<Tensor> {
    let (first, rest) = terms.split_first().expect("a sum has a term");
    let add = |sum: Tensor, term: &&Tensor| -> Result<Tensor> { Ok((sum + *term)?) };
    rest.iter().try_fold((*first).clone(), add)
}

/// Elements a thread takes at a time.
const CHUNK: usize = 1 << 14;

/// Of two or three terms.
struct Sum;

wide! {
    fn add<T>(x: &[T], y: &mut [T]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += *x;
        }
    }
}

fn total<T: Real>(first: Input, rest: &[Input]) -> Output {
    let mut y = elements::<T>(first.0, first.1)?.to_vec();
    for (s, l) in rest {
        if l.dims() != first.1.dims() {
            candle_core::bail!("sum: {:?} and {:?}", first.1.dims(), l.dims());
        }
        y.par_chunks_mut(CHUNK).zip(elements::<T>(s, l)?.par_chunks(CHUNK)).for_each(|(y, x)| add(x, y));
    }
    Ok((T::to_cpu_storage_owned(y), first.1.shape().clone()))
}

fn total2<T: Real>(a: Input, b: Input) -> Output {
    total::<T>(a, &[b])
}

fn total3<T: Real>(a: Input, b: Input, c: Input) -> Output {
    total::<T>(a, &[b, c])
}

/// The gradient of a term, where one is wanted: the sum's own.
fn part(term: &Tensor, dy: &Tensor) -> Option<Tensor> {
    term.track_op().then(|| dy.clone())
}

impl CustomOp2 for Sum {
    on_host!(2, "sum", total2, self);

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((part(a, dy), part(b, dy)))
    }
}

impl CustomOp3 for Sum {
    on_host!(3, "sum", total3, self);

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok((part(a, dy), part(b, dy), part(c, dy)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::super::testing::*;
    use super::*;

    #[test]
    fn fused_and_composed_sums_agree_and_the_gradients_are_slopes() {
        let inputs = ["a", "b", "c"].map(|name| random(name, &[3, 7, 5], DType::F64));
        let fused = |x: &[Tensor]| sum3(&x[0], &x[1], &x[2]).unwrap();
        agree(&inputs, fused, |x| composed(&[&x[0], &x[1], &x[2]]).unwrap(), [1e-9, 1e-15]);
        matches_finite_differences(&inputs, fused, 1e-7);
        let fused = |x: &[Tensor]| sum2(&x[0], &x[1]).unwrap();
        agree(&inputs[..2], fused, |x| composed(&[&x[0], &x[1]]).unwrap(), [1e-9, 1e-15]);
        matches_finite_differences(&inputs[..2], fused, 1e-7);
    }

    #[test]
    fn a_frozen_term_gets_no_gradient_and_one_used_twice_gets_two() {
        let x = Var::from_tensor(&random("x", &[4, 3], DType::F32)).unwrap();
        let frozen = random("frozen", &[4, 3], DType::F32);
        let gradients = sum3(&x, &frozen, &x).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&frozen).is_none());
        assert_eq!(gradients.get(&x).unwrap().to_vec2::<f32>().unwrap(), vec![vec![2.0; 3]; 4]);
    }
}
