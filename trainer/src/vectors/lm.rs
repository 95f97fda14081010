//! Language-model cases: logits, hidden states, log-probabilities under padding, entropy, greedy decoding.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value, json};

use super::{Inputs, batch_of, integers, row_sums, scattered, write};
use crate::Result;
use crate::models::{Completion, Decoder, Event, Generation, TokenBatch, Tokenizer, generate, generate_observed, hf};
use crate::nn::{Choice, Purpose, Streams, Temperature};

pub(super) fn run(case: &Path, inputs: &Inputs, out: &Path) -> Result<()> {
    let (config, store) = hf::load(case, DType::F32, &inputs.device)?;
    let model = hf::decoder(&config, &store)?.detached();
    let mut tensors = BTreeMap::new();
    let mut json = Map::new();
    score(&model, inputs, &mut tensors, &mut json)?;
    decode(&model, case, inputs, &mut tensors, &mut json)?;
    write(out, &tensors, &Value::Object(json))
}

/// Everything that follows from one forward pass.
fn score(
    model: &Decoder,
    inputs: &Inputs,
    tensors: &mut BTreeMap<String, Tensor>,
    json: &mut Map<String, Value>,
) -> Result<()> {
    let (ids, time) = inputs.ids("input_ids")?;
    let context = inputs.number(&["context_length"])?;
    let (pad, fill) = (inputs.number(&["pad_id"])? as i64, inputs.number(&["fill_id"])? as i64);
    let tokens = batch_of(&ids, time, pad, fill)?;
    let (batch, _) = tokens.dims();
    let all = [batch, time];
    let mut put = |name: &str, tensor: Tensor| drop(tensors.insert(name.into(), tensor));
    put("model_input_ids", integers(tokens.ids().iter().map(|&i| i.into()), &all)?);
    put("attention_mask", integers(tokens.mask().iter().map(|&m| m.into()), &all)?);
    put("position_ids", integers(tokens.positions().iter().map(|&p| p.into()), &all)?);
    let states = model.hidden_states(&tokens)?;
    let hidden = states[states.len() - 1].clone();
    put("logits", model.logits(&hidden)?);
    for (i, state) in states.into_iter().enumerate() {
        put(&format!("hidden_states.{i}"), state);
    }

    let response = response_mask(&ids, time, context, pad);
    let width = time - context.min(time);
    put("response_mask", integers(response.iter().map(|&m| m.into()), &[batch, width])?);
    let at: Vec<usize> =
        (0..response.len()).filter(|&i| response[i]).map(|i| i / width * time + context + i % width).collect();
    let mut mean_nll = 0.0;
    for (suffix, temperature) in [("", Temperature::ONE), ("_t07", Temperature::new(0.7)?)] {
        let (log_p, entropy) = model.token_logprobs(&hidden, &tokens, &at, temperature)?;
        let rows = scattered(&log_p, &response)?;
        let sums = row_sums(&rows, width);
        if suffix.is_empty() {
            mean_nll = -rows.iter().map(|&x| f64::from(x)).sum::<f64>() / at.len().max(1) as f64;
            put("token_entropy", Tensor::from_vec(scattered(&entropy, &response)?, (batch, width), &Device::Cpu)?);
        }
        put(&format!("token_logprobs{suffix}"), Tensor::from_vec(rows, (batch, width), &Device::Cpu)?);
        put(&format!("seq_logprob{suffix}"), Tensor::from_vec(sums, batch, &Device::Cpu)?);
    }
    json.insert("nll_response_tokens_mean".into(), json!(mean_nll));
    json.insert("nll_all_real_tokens_mean".into(), json!(nll_of_real_tokens(model, &hidden, &tokens)?));
    Ok(())
}

/// True up to the last token before the first pad of each response, `[batch, time - context]`.
fn response_mask(ids: &[i64], time: usize, context: usize, pad: i64) -> Vec<bool> {
    let rows = ids.chunks_exact(time).map(|row| &row[context.min(time)..]);
    rows.flat_map(|row| {
        let end = row.iter().position(|&id| id == pad).unwrap_or(row.len());
        (0..row.len()).map(move |i| i < end)
    })
    .collect()
}

/// Mean negative log-likelihood of every real token that has a real token before it.
fn nll_of_real_tokens(model: &Decoder, hidden: &Tensor, tokens: &TokenBatch) -> Result<f64> {
    let (_, time) = tokens.dims();
    let mask = tokens.mask();
    let at: Vec<usize> = (0..mask.len()).filter(|&i| i % time > 0 && mask[i] && mask[i - 1]).collect();
    let (log_p, _) = model.token_logprobs(hidden, tokens, &at, Temperature::ONE)?;
    let sum: f64 = log_p.to_vec1::<f32>()?.into_iter().map(f64::from).sum();
    Ok(-sum / at.len().max(1) as f64)
}

/// Greedy continuations through the cache, with and without a stop token.
fn decode(
    model: &Decoder,
    case: &Path,
    inputs: &Inputs,
    tensors: &mut BTreeMap<String, Tensor>,
    json: &mut Map<String, Value>,
) -> Result<()> {
    let (ids, time) = inputs.ids("gen.prompt_ids")?;
    let pad = inputs.number(&["pad_id"])? as i64;
    let batch = ids.len() / time;
    tensors.insert("gen.prompt_mask".into(), integers(ids.iter().map(|&id| (id != pad).into()), &[batch, time])?);
    let padded = batch_of(&ids, time, pad, 0)?;
    let rows = padded.ids().chunks_exact(time).zip(padded.mask().chunks_exact(time));
    let prompts: Vec<Vec<u32>> =
        rows.map(|(ids, mask)| ids.iter().zip(mask).filter(|(_, real)| **real).map(|(&id, _)| id).collect()).collect();

    let new_tokens = inputs.number(&["gen", "new_tokens"])?;
    let greedy = Generation { max_new: new_tokens, choice: Choice::Greedy, stop: &[], samples: 1, batch };
    let streams = |p: usize, s: usize| Streams::new(0).stream(Purpose("vectors"), 0, p as u64, s as u64);
    let mut steps = Vec::new();
    let free = generate_observed(model, &prompts, greedy, streams, |event| {
        if let Event::Logits(_, logits) = event {
            steps.push(logits.clone());
        }
        Ok(())
    })?;
    tensors.insert("gen.step_logits".into(), Tensor::stack(&steps, 1)?);
    tensors.insert("gen.new_ids".into(), filled(&free, 0)?);

    let stop = [inputs.number(&["gen_eos", "eos_id"])? as u32];
    let stopped = generate(model, &prompts, Generation { stop: &stop, ..greedy }, streams)?;
    let fill = inputs.number(&["gen_eos", "pad_filled_with"])? as i64;
    tensors.insert("gen_eos.new_ids".into(), filled(&stopped, fill)?);

    if case.join("tokenizer.json").is_file() {
        let tokenizer = Tokenizer::load(case)?;
        let text = |ids: &[u32]| tokenizer.decode(ids, false);
        let prompts = prompts.iter().map(|p| text(p)).collect::<Result<Vec<_>>>()?;
        let greedy = free.iter().map(|c| text(&c.ids)).collect::<Result<Vec<_>>>()?;
        json.insert("prompts_text".into(), json!(prompts));
        json.insert("greedy_text".into(), json!(greedy));
    }
    Ok(())
}

/// New ids as a matrix, as wide as the longest completion, the others filled up with `fill`.
fn filled(completions: &[Completion], fill: i64) -> Result<Tensor> {
    let width = completions.iter().map(|c| c.ids.len()).max().unwrap_or(0);
    let rows = completions.iter().flat_map(|c| {
        let ids = c.ids.iter().map(|&id| i64::from(id));
        ids.chain(std::iter::repeat_n(fill, width - c.ids.len()))
    });
    integers(rows, &[completions.len(), width])
}
