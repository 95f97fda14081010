//! Reward-model cases: the scalar model of the paper's code on left-padded and on contiguous rows, and the models that read
//! conversations.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor};
use serde_json::{Map, Value, json};

use super::{Inputs, batch_of, integers, write};
use crate::models::reward::{Kind, RewardModel, folder};
use crate::models::{TokenBatch, Tokenizer};
use crate::{Error, Result};

/// The paper's TL;DR model, which is read at the last token before the first pad of the response.
pub(super) fn run_scalar(case: &Path, inputs: &Inputs, out: &Path) -> Result<()> {
    let (config, store) = folder::load(case, DType::F32, &inputs.device)?;
    let model = RewardModel::new(&config, &store)?.detached();
    let (pad, fill) = (inputs.number(&["pad_id"])? as i64, inputs.number(&["fill_id"])? as i64);
    let mut tensors = BTreeMap::new();
    for (side, context) in [("left_padded", inputs.number(&["context_length"])?), ("right_padded", 0)] {
        let (ids, time) = inputs.ids(&format!("{side}.input_ids"))?;
        let tokens = batch_of(&ids, time, pad, fill)?;
        let before_pad = |row: &[i64]| (context..time).find(|&i| row[i] == pad).unwrap_or(time).saturating_sub(1);
        let at: Vec<usize> = ids.chunks_exact(time).map(before_pad).collect();
        let hidden = model.decoder().hidden(&tokens, None)?; // [batch, time, width]
        let assessment = model.assess_at(&hidden, &tokens, &at)?;
        let mut put = |name: &str, tensor: Tensor| drop(tensors.insert(format!("{side}.{name}"), tensor));
        put("model_input_ids", integers(tokens.ids().iter().map(|&i| i.into()), &[at.len(), time])?);
        put("attention_mask", mask_of(&tokens)?);
        put("reward_position", positions(&at)?);
        put("values", model.values(&hidden)?);
        put("reward", assessment.rewards);
        put("hidden_last", hidden);
        put("hidden_at_reward", assessment.states);
    }
    write(out, &tensors, &json!({}))
}

/// A model of conversations: read at the last real token, or (Starling) at the last before the first pad.
pub(super) fn run(case: &Path, inputs: &Inputs, out: &Path) -> Result<()> {
    let (mut config, store) = folder::load(case, DType::F32, &inputs.device)?;
    if let Kind::Mixture(mixture) = &mut config.kind {
        mixture.pattern = inputs.tokens("gating_pattern")?;
    }
    let model = RewardModel::new(&config, &store)?.detached();
    let (ids, time) = inputs.ids("input_ids")?;
    let pad = inputs.number(&["pad_id"])? as i64;
    let tokens = batch_of(&ids, time, pad, 0)?;
    let stops_at_pad = matches!(config.kind, Kind::Value { .. });
    let at = tokens.mask().chunks_exact(time).map(|mask| last_token(mask, stops_at_pad)).collect::<Result<Vec<_>>>()?;
    let hidden = model.decoder().hidden(&tokens, None)?; // [batch, time, width]
    let assessment = model.assess_at(&hidden, &tokens, &at)?;
    let mut tensors = BTreeMap::new();
    let mut put = |name: &str, tensor: Tensor| drop(tensors.insert(name.to_string(), tensor));
    put("attention_mask", mask_of(&tokens)?);
    put("reward_position", positions(&at)?);
    put("reward", assessment.rewards);
    put("hidden_at_reward", assessment.states);
    match assessment.mixed {
        Some(mixed) => {
            put("gating_position", positions(&mixed.gate_columns)?);
            put("prompt_embedding", mixed.prompt);
            put("objectives", mixed.objectives);
            put("objectives_transformed", mixed.transformed);
            put("gating", mixed.gating);
        }
        None => put("values", model.values(&hidden)?),
    }
    put("hidden_last", hidden);
    let mut json = Map::new();
    json.insert("ids".into(), ids_of_texts(case, inputs, &config.kind)?);
    write(out, &tensors, &Value::Object(json))
}

/// The tokens of the case's texts; only the classifier's are without their begin of text.
fn ids_of_texts(case: &Path, inputs: &Inputs, kind: &Kind) -> Result<Value> {
    let tokenizer = Tokenizer::load(case)?;
    let encode = |text: &str| match kind {
        Kind::Classifier => tokenizer.encode_special(text),
        _ => tokenizer.encode(text),
    };
    Ok(json!(inputs.texts("texts")?.into_iter().map(encode).collect::<Result<Vec<_>>>()?))
}

/// The last real column of a row; with `stops_at_pad` that before the first pad behind a real token.
fn last_token(mask: &[bool], stops_at_pad: bool) -> Result<usize> {
    let first = mask.iter().position(|&real| real);
    let first = first.ok_or_else(|| Error::invalid("input_ids: a row of padding has no reward"))?;
    let run = mask[first..].iter().take_while(|&&real| real).count();
    let last = mask.iter().rposition(|&real| real).unwrap_or(first);
    Ok(if stops_at_pad { first + run - 1 } else { last })
}

fn mask_of(tokens: &TokenBatch) -> Result<Tensor> {
    let (batch, time) = tokens.dims();
    integers(tokens.mask().iter().map(|&real| real.into()), &[batch, time])
}

fn positions(at: &[usize]) -> Result<Tensor> {
    integers(at.iter().map(|&p| p as i64), &[at.len()])
}
