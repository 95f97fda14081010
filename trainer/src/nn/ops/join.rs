//! Three tensors behind each other in the last dimension: queries, keys and values.
//!
//! candle's own concatenation allocates a gradient for every part, needed or not.

use candle_core::{CustomOp3, D, Tensor};
use rayon::prelude::*;

use super::{Input, Output, has_fused_form, on_host};
use crate::Result;
use crate::nn::real::{Real, elements};

/// `[.., a]`, `[.., b]` and `[.., c]` as `[.., a + b + c]`; all but the last dimension are the same.
pub fn join(a: &Tensor, b: &Tensor, c: &Tensor) -> Result<Tensor> {
    match has_fused_form(a) {
        true => Ok(a.contiguous()?.apply_op3(&b.contiguous()?, &c.contiguous()?, Join)?),
        false => composed(a, b, c),
    }
}

/// The definition in candle operations.
pub fn composed(a: &Tensor, b: &Tensor, c: &Tensor) -> Result<Tensor> {
    Ok(Tensor::cat(&[a, b, c], D::Minus1)?)
}

/// Rows a thread takes at a time.
const ROWS: usize = 64;

struct Join;

fn forward<T: Real>(a: Input, b: Input, c: Input) -> Output {
    let parts = [a, b, c];
    let dims = a.1.dims();
    let Some((last, above)) = dims.split_last() else { candle_core::bail!("join: a number has no last dimension") };
    if parts.iter().any(|(_, l)| l.dims().split_last().is_none_or(|(_, other)| other != above)) {
        candle_core::bail!("join: {dims:?}, {:?} and {:?}", b.1.dims(), c.1.dims());
    }
    let widths = parts.map(|(_, l)| l.dims()[above.len()]);
    let width: usize = widths.iter().sum();
    let all = [elements::<T>(a.0, a.1)?, elements::<T>(b.0, b.1)?, elements::<T>(c.0, c.1)?];
    let rows = a.1.shape().elem_count() / (*last).max(1);
    let mut y = vec![T::zero(); rows * width];
    y.par_chunks_mut((ROWS * width).max(1)).enumerate().for_each(|(chunk, y)| {
        for (row, y) in (chunk * ROWS..).zip(y.chunks_exact_mut(width)) {
            let mut rest = y;
            for (part, n) in all.iter().zip(widths) {
                let (here, after) = rest.split_at_mut(n);
                here.copy_from_slice(&part[row * n..][..n]);
                rest = after;
            }
        }
    });
    Ok((T::to_cpu_storage_owned(y), [above, &[width]].concat().into()))
}

impl CustomOp3 for Join {
    on_host!(3, "join", forward, self);

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (wa, wb) = (a.dim(D::Minus1)?, b.dim(D::Minus1)?);
        let part = |of: &Tensor, start: usize| -> candle_core::Result<Option<Tensor>> {
            of.track_op().then(|| dy.narrow(D::Minus1, start, of.dim(D::Minus1)?)).transpose()
        };
        Ok((part(a, 0)?, part(b, wa)?, part(c, wa + wb)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::super::testing::*;
    use super::*;

    #[test]
    fn fused_and_composed_joins_agree_and_the_gradients_are_slopes() {
        let inputs = [("a", 5), ("b", 2), ("c", 3)].map(|(name, n)| random(name, &[7, 13, n], DType::F64));
        let fused = |x: &[Tensor]| join(&x[0], &x[1], &x[2]).unwrap();
        agree(&inputs, fused, |x| composed(&x[0], &x[1], &x[2]).unwrap(), [1e-9, 1e-15]);
        matches_finite_differences(&inputs, fused, 1e-7);
    }

    #[test]
    fn a_frozen_part_gets_no_gradient() {
        let x = Var::from_tensor(&random("x", &[4, 3], DType::F32)).unwrap();
        let frozen = random("frozen", &[4, 2], DType::F32);
        let gradients = join(&x, &frozen, &x).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(gradients.get_ids().count(), 1);
        assert_eq!(gradients.get(&x).unwrap().to_vec2::<f32>().unwrap(), vec![vec![2.0; 3]; 4]);
    }
}
