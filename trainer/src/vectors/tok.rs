//! Tokenizer cases: ids with and without special tokens, texts again, chats; for CLIP rows of 77.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::models::Tokenizer;
use crate::models::chat::{ChatTemplate, Message};
use crate::{Error, Result, files};

/// Length of CLIP's rows.
const CLIP_LENGTH: usize = 77;

/// Runs the case in the folder `case`, whose inputs are in its `cases.json`, and writes `got.json` to `out`.
pub(super) fn run(case: &Path, out: &Path) -> Result<()> {
    let file = case.join("cases.json");
    let inputs = files::read_json(&file)?;
    let list = |name: &str| inputs[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let text_of = |entry: &Value, place: String| -> Result<String> {
        entry["text"].as_str().map(str::to_owned).ok_or_else(|| Error::field(&file, place, "missing (expected a text)"))
    };
    let tokenizer = Tokenizer::load(case)?;

    let mut texts = Vec::new();
    for (i, entry) in list("texts").iter().enumerate() {
        let text = text_of(entry, format!("texts[{i}].text"))?;
        let (ids, bare) = (tokenizer.encode_special(&text)?, tokenizer.encode(&text)?);
        let (raw, skipped) = (tokenizer.decode(&bare, false)?, tokenizer.decode(&ids, true)?);
        texts.push(json!({
            "text": text, "ids": ids, "ids_no_special": bare, "decode_raw": raw, "decode_skip_special": skipped
        }));
    }
    let special: BTreeMap<&str, Value> =
        tokenizer.special().map(|(name, token, id)| (name, json!([token, id]))).collect();
    let mut got = json!({
        "texts": texts, "special": special, "vocab_size": tokenizer.base_len(), "len": tokenizer.vocab_len()
    });

    let chats = list("chats");
    if !chats.is_empty() {
        let missing = || Error::file(case, "no chat template (cases.json has chats)");
        let template = ChatTemplate::load(case)?.ok_or_else(missing)?;
        got["chats"] = chats
            .iter()
            .enumerate()
            .map(|(i, chat)| {
                let messages: Vec<Message> = serde_json::from_value(chat["messages"].clone())
                    .map_err(|e| Error::field(&file, format!("chats[{i}].messages"), e.to_string()))?;
                let prompt = chat["add_generation_prompt"].as_bool().unwrap_or(false);
                let text = template.render(&messages, prompt)?;
                Ok(json!({"text": text, "ids": tokenizer.encode_chat(&template, &messages, prompt)?}))
            })
            .collect::<Result<Vec<_>>>()?
            .into();
    }
    let padded = list("padded77");
    if !padded.is_empty() {
        got["padded77"] = padded
            .iter()
            .enumerate()
            .map(|(i, entry)| {
                let text = text_of(entry, format!("padded77[{i}].text"))?;
                let (ids, mask) = tokenizer.encode_padded(&text, CLIP_LENGTH)?;
                let mask: Vec<u8> = mask.into_iter().map(u8::from).collect();
                Ok(json!({"ids": ids, "attention_mask": mask}))
            })
            .collect::<Result<Vec<_>>>()?
            .into();
    }
    std::fs::create_dir_all(out).map_err(|e| Error::file(out, e))?;
    files::write_json(&out.join("got.json"), &got)
}
