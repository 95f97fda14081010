//! Adapter cases: a language model with a PEFT adapter, and its merged weights.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use candle_core::{DType, Device, Tensor};
use serde_json::json;

use super::{Inputs, row_sums, scattered, write};
use crate::models::{TokenBatch, hf, peft};
use crate::nn::{Temperature, lora};
use crate::{Error, Result};

pub(super) fn run(case: &Path, inputs: &Inputs, out: &Path) -> Result<()> {
    let base = inputs.json["base"].as_str().unwrap_or_default();
    if base.is_empty() || !Path::new(base).components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(Error::field(&inputs.file, "base", format!("{base:?} is not a folder of the set of vectors")));
    }
    let base = case.join("../..").join(base);
    let (config, store, adapter) = peft::open(case, Some(&base), DType::F32, &inputs.device)?;
    let adapter = adapter.ok_or_else(|| Error::file(case.join(peft::CONFIG), "missing"))?;
    let model = hf::decoder(&config, &store)?.detached();

    let (ids, time) = inputs.ids("model_input_ids")?;
    let ids = ids.iter().map(|&id| u32::try_from(id).map_err(|_| Error::invalid(format!("{id} is no token"))));
    let (mask, _) = inputs.ids("attention_mask")?;
    let tokens =
        TokenBatch::new(ids.collect::<Result<_>>()?, mask.iter().map(|&m| m != 0).collect(), mask.len() / time)?;
    let (batch, _) = tokens.dims();
    let hidden = model.hidden(&tokens, None)?; // [batch, time, width]
    let mut tensors = BTreeMap::from([("logits_adapter".to_string(), model.logits(&hidden)?)]);

    let context = inputs.number(&["context_length"])?.clamp(1, time);
    let width = time - context;
    let live: Vec<bool> = tokens.mask().chunks_exact(time).flat_map(|row| &row[context..]).copied().collect();
    let at = (0..live.len()).filter(|&i| live[i]).map(|i| i / width * time + context + i % width).collect::<Vec<_>>();
    let (log_p, _) = model.token_logprobs(&hidden, &tokens, &at, Temperature::ONE)?;
    let rows = scattered(&log_p, &live)?;
    tensors.insert("seq_logprob_adapter".into(), Tensor::from_vec(row_sums(&rows, width), batch, &Device::Cpu)?);
    tensors.insert("token_logprobs_adapter".into(), Tensor::from_vec(rows, (batch, width), &Device::Cpu)?);

    let first = |name: &str| Some(format!("{}.weight", name.strip_suffix(lora::DOWN)?.strip_suffix('.')?));
    let adapted: Vec<String> = store.names().filter_map(first).filter(|name| name.contains(".layers.0.")).collect();
    let merged = store.merged()?.to_tensors();
    for name in adapted.iter().take(2) {
        tensors.insert(format!("merged.{name}"), merged[name].clone());
    }
    write(out, &tensors, &json!({"scaling": adapter.scaling(), "adapted_modules_layer0": adapted}))
}
