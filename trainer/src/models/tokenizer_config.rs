//! What `tokenizer_config.json` decides, as transformers reads it, where the tokenizer's own file does not: added tokens, and in
//! some classes what stands around and before a text.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use super::json::{Fields, one_line};
use super::token_names::TokenNames;
use crate::Result;

/// The tokens of `added_tokens_decoder` by id.
///
/// # Errors
/// An entry that is no token, or not under an id.
pub(super) fn listed(names: &TokenNames) -> Result<BTreeMap<u32, AddedToken>> {
    let mut tokens = BTreeMap::new();
    let fields = names.config_fields();
    let Some(listed) = fields.object("added_tokens_decoder", "added_tokens_decoder.")? else { return Ok(tokens) };
    for (key, entry) in listed.map {
        let id: u32 = key.parse().map_err(|_| listed.fault(key, "not an id (expected a whole number)"))?;
        let token: ListedToken = serde_json::from_value(entry.clone())
            .map_err(|e| listed.fault(key, format!("not a token: {}", one_line(&e.to_string()))))?;
        tokens.insert(id, token.into());
    }
    Ok(tokens)
}

/// The post-processor, as `tokenizer.json` would hold it, that puts tokens around a text where `add_bos_token` and
/// `add_eos_token` decide: in the classes that rebuild theirs when transformers loads them. `named`: text and id of the token
/// of a name.
///
/// # Errors
/// A field of the wrong kind; a token to put around a text that has no name.
pub(super) fn around<'a>(names: &TokenNames, named: impl Fn(&str) -> Option<(&'a str, u32)>) -> Result<Option<Value>> {
    let fields = names.config_fields();
    let begins = match class(fields)? {
        "LlamaTokenizer" | "GemmaTokenizer" => true,
        "GPTNeoXTokenizer" => false,
        _ => return Ok(None),
    };
    let wanted = [
        ("bos_token", fields.flag("add_bos_token")?.unwrap_or(begins)),
        ("eos_token", fields.flag("add_eos_token")?.unwrap_or(false)),
    ];
    let mut pieces = [None, None];
    let mut special = Map::new();
    for (piece, (name, _)) in pieces.iter_mut().zip(wanted).filter(|(_, (_, wanted))| *wanted) {
        let Some((text, id)) = named(name) else {
            return Err(fields.fault(name, format!("missing (add_{name} puts it around every text)")));
        };
        *piece = Some(json!({"SpecialToken": {"id": text, "type_id": 0}}));
        special.insert(text.to_owned(), json!({"id": text, "ids": [id], "tokens": [text]}));
    }
    let [bos, eos] = pieces;
    let around = |id: &str| {
        let sequence = json!({"Sequence": {"id": id, "type_id": 0}});
        [bos.clone(), Some(sequence), eos.clone()].into_iter().flatten().collect::<Vec<Value>>()
    };
    let (single, pair) = (around("A"), [around("A"), around("B")].concat());
    Ok(Some(json!({"single": single, "pair": pair, "special_tokens": special})))
}

/// Whether a text is split as if a space stood before it, where `add_prefix_space` decides: in the classes that set it when
/// transformers loads them.
///
/// # Errors
/// A field of the wrong kind.
pub(super) fn first_space(names: &TokenNames) -> Result<Option<bool>> {
    let fields = names.config_fields();
    match class(fields)? {
        "GPT2Tokenizer" | "GPTNeoXTokenizer" => Ok(Some(fields.flag("add_prefix_space")?.unwrap_or(false))),
        _ => Ok(None),
    }
}

/// The tokenizer's class in transformers, fast or not; empty where the file names none.
fn class(fields: Fields<'_>) -> Result<&str> {
    let class = fields.text("tokenizer_class")?.unwrap_or_default();
    Ok(class.strip_suffix("Fast").unwrap_or(class))
}

/// An entry of `added_tokens_decoder`; only `content` must be there.
#[derive(Deserialize)]
struct ListedToken {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl From<ListedToken> for AddedToken {
    fn from(token: ListedToken) -> Self {
        let normalized = token.normalized.unwrap_or(!token.special);
        Self::from(token.content, token.special)
            .single_word(token.single_word)
            .lstrip(token.lstrip)
            .rstrip(token.rstrip)
            .normalized(normalized)
    }
}

/// An entry of `added_tokens_decoder` in `tokenizer_config.json`.
pub(super) fn decoder_entry(content: &str) -> Value {
    json!({
        "content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": true
    })
}
