//! Reward-model cases: the scalar model of the paper's code, on left-padded and on contiguous rows.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor};
use serde_json::json;

use super::{Inputs, batch_of, integers, write};
use crate::Result;
use crate::models::{ScalarModel, hf};

pub(super) fn run(case: &Path, inputs: &Inputs, out: &Path) -> Result<()> {
    let (config, store, shift) = hf::load_scalar(case, DType::F32, &inputs.device)?;
    let model = ScalarModel::new(&config, &store, shift)?.detached();
    let (pad, fill) = (inputs.number(&["pad_id"])? as i64, inputs.number(&["fill_id"])? as i64);
    let mut tensors = BTreeMap::new();
    for (side, context) in [("left_padded", inputs.number(&["context_length"])?), ("right_padded", 0)] {
        let (ids, time) = inputs.ids(&format!("{side}.input_ids"))?;
        let tokens = batch_of(&ids, time, pad, fill)?;
        let (batch, _) = tokens.dims();
        let position: Vec<usize> = ids.chunks_exact(time).map(|row| reward_position(row, context, pad)).collect();
        let at: Vec<u32> = position.iter().enumerate().map(|(b, p)| (b * time + p) as u32).collect();
        let hidden = model.decoder().hidden(&tokens, None)?; // [batch, time, width]
        let rows = hidden.reshape((batch * time, ()))?.index_select(&Tensor::new(at, hidden.device())?, 0)?;
        let mut put = |name: &str, tensor: Tensor| drop(tensors.insert(format!("{side}.{name}"), tensor));
        put("model_input_ids", integers(tokens.ids().iter().map(|&i| i.into()), &[batch, time])?);
        put("attention_mask", integers(tokens.mask().iter().map(|&m| m.into()), &[batch, time])?);
        put("reward_position", integers(position.iter().map(|&p| p as i64), &[batch])?);
        put("values", model.score_hidden(&hidden)?);
        put("reward", model.score_hidden(&rows)?);
        put("hidden_last", hidden);
        put("hidden_at_reward", rows);
    }
    write(out, &tensors, &json!({}))
}

/// Before the first pad at or after `context`; the last column when there is none.
fn reward_position(row: &[i64], context: usize, pad: i64) -> usize {
    let end = (context..row.len()).find(|&i| row[i] == pad).unwrap_or(row.len());
    end.saturating_sub(1)
}
