//! Rows of a table, with a gradient that is summed in f32 whatever the table's type.

use candle_core::backend::BackendStorage;
use candle_core::{CustomOp2, DType, Layout, Shape, Tensor};

use super::{is_narrow, on_every_device};
use crate::Result;

/// Rows `ids` of `table` `[rows, width]`: `[ids, width]`. Fails on an id that is no row.
pub fn embedding(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let ids = Tensor::new(ids, table.device())?;
    Ok(match is_narrow(table) {
        // candle would add the gradients of a frequent token in bf16, where a sum stops growing at 256 terms.
        true => table.contiguous()?.apply_op2(&ids, Rows)?,
        false => table.index_select(&ids, 0)?,
    })
}

/// From (table, ids) to rows.
struct Rows;

fn rows<S: BackendStorage>((s1, l1): (&S, &Layout), (s2, l2): (&S, &Layout)) -> candle_core::Result<(S, Shape)> {
    let ((_, width), ids) = (l1.shape().dims2()?, l2.shape().dims1()?);
    Ok((s1.index_select(s2, l1, l2, 0)?, (ids, width).into()))
}

impl CustomOp2 for Rows {
    on_every_device!("rows", rows);

    fn bwd(
        &self,
        table: &Tensor,
        ids: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let sum = Tensor::zeros(table.dims(), DType::F32, table.device())?;
        let sum = sum.index_add(ids, &dy.detach().to_dtype(DType::F32)?.contiguous()?, 0)?;
        Ok((Some(sum.to_dtype(table.dtype())?), None))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_token_that_occurs_a_thousand_times_gets_all_of_its_gradient_in_bf16() {
        let table = random("table", &[3, 2], DType::F32);
        let ids = [vec![1u32; 1000], vec![2, 2]].concat();
        let gradient = |dtype: DType| {
            let table = Var::from_tensor(&table.to_dtype(dtype).unwrap()).unwrap();
            let rows = embedding(&table, &ids).unwrap();
            let expected = table.as_tensor().to_dtype(DType::F32).unwrap().get(2).unwrap();
            assert_eq!(difference(&rows.get(1001).unwrap(), &expected), 0.0);
            rows.sum_all().unwrap().backward().unwrap().get(&table).unwrap().clone()
        };
        let expected = Tensor::new(&[[0.0f32, 0.0], [1000.0, 1000.0], [2.0, 2.0]], table.device()).unwrap();
        assert_eq!(difference(&gradient(DType::F32), &expected), 0.0);
        assert_eq!(difference(&gradient(DType::BF16), &expected), 0.0); // 1000 is a number of bf16
    }
}
