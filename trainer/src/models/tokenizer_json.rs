//! Reading `tokenizer.json`, with what the tokenizers crate leaves to luck checked first.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokenizers::Tokenizer;

use super::json::{one_line, shown};

/// By how much the normalizer, and the decoder, may lengthen a text.
const GROWTH: usize = 1 << 12;

/// The part of the file that is looked at before the tokenizers crate is.
#[derive(Deserialize)]
struct Outline {
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    decoder: Option<Value>,
    #[serde(default)]
    added_tokens: Vec<NamedId>,
    model: Model,
}

/// An entry of `added_tokens`.
#[derive(Deserialize)]
struct NamedId {
    id: u32,
    content: String,
}

/// The fields of `model` that a merge depends on.
#[derive(Deserialize)]
struct Model {
    vocab: Option<Vocabulary>,
    merges: Option<Vec<Merge>>,
    continuing_subword_prefix: Option<String>,
    dropout: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Vocabulary {
    Ids(BTreeMap<String, u32>),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(String, String),
}

/// The tokenizer in a `tokenizer.json`; padding and cutting, whatever it was saved with, are left to the caller.
///
/// # Errors
/// The field that is wrong, and how, without the file's name.
pub(super) fn parse(text: &[u8]) -> Result<Tokenizer, String> {
    // That crate panics where the JSON is broken, and where the parts below are not what it expects.
    let outline: Outline = serde_json::from_slice(text).map_err(|e| one_line(&e.to_string()))?;
    if outline.model.dropout.is_some_and(|share| share != 0.0) {
        return Err("model.dropout: not 0 (a text would have other tokens each time)".into());
    }
    if let (Some(Vocabulary::Ids(vocab)), Some(merges)) = (&outline.model.vocab, &outline.model.merges) {
        let prefix = outline.model.continuing_subword_prefix.as_deref().unwrap_or_default();
        for (i, merge) in merges.iter().enumerate() {
            let (first, second) = match merge {
                Merge::Text(text) => text.split_once(' ').unwrap_or((text, "")),
                Merge::Pair(first, second) => (first.as_str(), second.as_str()),
            };
            check_merge(first, second, prefix, |token| vocab.contains_key(token))
                .map_err(|what| format!("model.merges[{i}]: {what}"))?;
        }
    }
    for (field, part) in
        [("normalizer", &outline.normalizer), ("pre_tokenizer", &outline.pre_tokenizer), ("decoder", &outline.decoder)]
    {
        check_part(part.as_ref().unwrap_or(&Value::Null), &mut 1).map_err(|what| format!("{field}: {what}"))?;
    }
    if outline.decoder.as_ref().is_some_and(|value| !value.is_object()) {
        return Err("decoder: not an object".into());
    }
    let mut inner = unpanicked(|| Tokenizer::from_bytes(text))?;
    // It only warns where an added token lands on another id than the file says, and every later id would be wrong.
    for NamedId { id, content } in outline.added_tokens {
        let found = inner.token_to_id(&content);
        if found != Some(id) {
            let found = found.map_or("none".into(), |id| id.to_string());
            return Err(format!("added_tokens: {} has id {found} (the file says {id})", shown(&content.into())));
        }
    }
    inner.with_padding(None);
    inner.with_truncation(None).map_err(|e| one_line(&e.to_string()))?;
    // What is put around a text must be tokens.
    let around = unpanicked(|| inner.encode_fast("", true))?;
    match around.get_ids().iter().find(|id| inner.id_to_token(**id).is_none()) {
        Some(id) => Err(format!("post_processor: id {id} is no token")),
        None => Ok(inner),
    }
}

/// Whether both parts of a merge and what comes of them are tokens.
pub(super) fn check_merge(
    first: &str,
    second: &str,
    prefix: &str,
    is_token: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let rest = second
        .strip_prefix(prefix)
        .ok_or_else(|| format!("{} does not begin with continuing_subword_prefix", shown(&second.into())))?;
    let merged = format!("{first}{rest}");
    match [first, second, &merged].into_iter().find(|token| !is_token(token)) {
        Some(token) => Err(format!("{} is not in the vocabulary", shown(&token.into()))),
        None => Ok(()),
    }
}

/// A step of normalizing, splitting or decoding, and those inside it.
fn check_part(part: &Value, growth: &mut usize) -> Result<(), String> {
    let length = |name: &str| part[name].as_str().map_or(0, str::len);
    match part["type"].as_str() {
        Some("Precompiled") => return Err("Precompiled is not supported".into()),
        Some("FixedLength") if part["length"].as_u64() == Some(0) => return Err("FixedLength: length is 0".into()),
        // The decoder; where a token is all `content`, cutting its end runs past its beginning.
        Some("Strip") if part["stop"].as_u64().is_some_and(|stop| stop > 0) => {
            return Err("Strip: stop is not supported (expected 0)".into());
        }
        Some("Replace") => {
            let replaced = part["pattern"]["String"].as_str().map_or(1, str::len).max(1);
            *growth = growth.saturating_mul(length("content").div_ceil(replaced).max(1));
        }
        _ => {}
    }
    if *growth > GROWTH {
        return Err(format!("replacements make a text longer by more than {GROWTH}"));
    }
    for inside in ["normalizers", "pretokenizers", "decoders"] {
        part[inside].as_array().into_iter().flatten().try_for_each(|part| check_part(part, growth))?;
    }
    Ok(())
}

/// Calls the tokenizers crate, which panics on some files that no check above foresees: a fault of the file must be an
/// error, not the end of the program. (The crate keeps no state that a panic could leave half changed: what panicked is
/// dropped, or only read.)
pub(super) fn unpanicked<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| one_line(&e.to_string())),
        Err(_) => Err("the tokenizer cannot be used: it makes the tokenizers crate panic".into()),
    }
}
