//! A text's tokens and back: a folder's `tokenizer.json` with the two files that say which tokens end and pad a text,
//! and byte-level BPE trained from texts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString};
use tokenizers::{PreTokenizer, normalizers::NFC};

use super::bpe;
use super::json::{Fields, one_line, read_object, shown};
use crate::files::write_whole;
use crate::{Error, Result};

/// Ends a text in a trained tokenizer, as in GPT-NeoX's; its id is 0.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Fills a batch where the files name no other token, as the published code has it.
pub const PAD: &str = "[PAD]";

/// The names that files give to single tokens.
const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A tokenizer with its end-of-text and padding tokens.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// What the files name: bos_token, eos_token, pad_token ..., each with its id.
    named: BTreeMap<String, u32>,
    /// Where it came from, for messages.
    file: PathBuf,
    /// `tokenizer_config.json` and `special_tokens_map.json`, kept for saving.
    config: Map<String, Value>,
    special: Map<String, Value>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and which tokens begin, end and pad a text from `tokenizer_config.json` or
    /// `special_tokens_map.json`. A folder may lack any of those three; an error comes when one is asked for.
    ///
    /// # Errors
    /// One line naming the file and field that is missing or damaged.
    pub fn load(folder: &Path) -> Result<Self> {
        let file = folder.join("tokenizer.json");
        let text = std::fs::read(&file).map_err(|e| Error::file(&file, e))?;
        let inner = parse(&text).map_err(|what| Error::file(&file, what))?;
        if let ModelWrapper::BPE(bpe) = inner.get_model()
            && bpe.dropout.is_some_and(|share| share != 0.0)
        {
            return Err(Error::field(file, "model.dropout", "not 0 (a text would have other tokens each time)"));
        }
        let optional = |name: &str| -> Result<_> {
            let path = folder.join(name);
            Ok(if path.exists() { read_object(&path)? } else { Map::new() })
        };
        let (config, special) = (optional("tokenizer_config.json")?, optional("special_tokens_map.json")?);
        let mut tokenizer = Self { inner, named: BTreeMap::new(), file, config, special };
        for name in NAMES {
            if let Some(id) = tokenizer.find(folder, name)? {
                tokenizer.named.insert(name.into(), id);
            }
        }
        Ok(tokenizer)
    }

    /// Trains byte-level BPE on `texts`: id 0 is `<|endoftext|>`, then the 256 bytes, then merges by frequency, and
    /// last `[PAD]`; `vocab_size` counts all of them (fewer come out when the texts run out of pairs). Equal texts in
    /// any order give an equal tokenizer, on any number of threads.
    ///
    /// # Errors
    /// A `vocab_size` too small for the bytes and the two special tokens.
    pub fn train(texts: impl Iterator<Item = String>, vocab_size: usize) -> Result<Self> {
        let alphabet: BTreeSet<char> = ByteLevel::alphabet().into_iter().collect();
        let least = alphabet.len() + 2;
        if vocab_size < least {
            return Err(Error::invalid(format!("vocab_size: {vocab_size} is too small (expected at least {least})")));
        }
        let mut words = BTreeMap::new();
        for text in texts {
            count_words(&text, &mut words).map_err(|e| Error::invalid(format!("a text cannot be split: {e}")))?;
        }
        let learned = bpe::learn(&words, END_OF_TEXT, &alphabet, vocab_size - 1);
        Self::from_merges(&learned)
    }

    fn from_merges(learned: &bpe::Merges) -> Result<Self> {
        let vocab: Map<String, Value> =
            learned.tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
        let merges: Vec<String> = learned.merges.iter().map(|(a, b)| format!("{a} {b}")).collect();
        let pad = learned.tokens.len();
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
        });
        let sequence = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
        let value = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [added_token(0, END_OF_TEXT), added_token(pad, PAD)],
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": byte_level,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [sequence("A", 0)],
                "pair": [sequence("A", 0), sequence("B", 1)],
                "special_tokens": {}
            },
            "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocab, "merges": merges
            }
        });
        let inner = parse(value.to_string().as_bytes()).map_err(Error::Invalid)?;
        let named = json!({
            "bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": PAD, "unk_token": END_OF_TEXT
        });
        let special = named.as_object().cloned().unwrap_or_default();
        let mut config = Map::new();
        config.insert("add_prefix_space".into(), false.into());
        let decoder = json!({"0": decoder_entry(END_OF_TEXT), pad.to_string(): decoder_entry(PAD)});
        config.insert("added_tokens_decoder".into(), decoder);
        config.extend(special.clone());
        config.insert("clean_up_tokenization_spaces".into(), false.into());
        config.insert("model_max_length".into(), 1_000_000_000u64.into());
        config.insert("tokenizer_class".into(), "GPTNeoXTokenizer".into());
        let named = NAMES.iter().filter_map(|&name| {
            let token = special.get(name)?.as_str()?;
            Some((name.to_owned(), inner.token_to_id(token)?))
        });
        Ok(Self { named: named.collect(), inner, file: "tokenizer.json".into(), config, special })
    }

    /// The id of the token that the files call `name`.
    fn find(&self, folder: &Path, name: &str) -> Result<Option<u32>> {
        for (file, map) in [("tokenizer_config.json", &self.config), ("special_tokens_map.json", &self.special)] {
            let path = folder.join(file);
            let fields = Fields { file: &path, within: "", map };
            let text = match fields.get(name) {
                None => continue,
                Some(Value::String(text)) => Some(text.as_str()),
                Some(value) => value.get("content").and_then(Value::as_str),
            };
            let text = text.ok_or_else(|| fields.fault(name, "not a token"))?;
            let id = self.inner.token_to_id(text);
            let unknown = || fields.fault(name, format!("{} is not in tokenizer.json", shown(&text.into())));
            return id.map(Some).ok_or_else(unknown);
        }
        Ok(None)
    }

    /// Where the files name no padding token, makes `[PAD]` one: a new last token if there is none of that name.
    ///
    /// # Errors
    /// When the tokenizer cannot take it.
    pub fn ensure_pad(&mut self) -> Result<u32> {
        if let Some(&id) = self.named.get("pad_token") {
            return Ok(id);
        }
        let failed = |what: String| Error::field(&self.file, "added_tokens", what);
        self.inner.add_special_tokens([AddedToken::from(PAD, true)]).map_err(|e| failed(one_line(&e.to_string())))?;
        let id = self.inner.token_to_id(PAD).ok_or_else(|| failed(format!("{PAD} cannot be added")))?;
        self.config.insert("pad_token".into(), PAD.into());
        self.special.insert("pad_token".into(), PAD.into());
        if let Some(Value::Object(decoder)) = self.config.get_mut("added_tokens_decoder") {
            decoder.insert(id.to_string(), decoder_entry(PAD));
        }
        self.named.insert("pad_token".into(), id);
        Ok(id)
    }

    /// The tokens of `text`; none is added. Special tokens written out in the text are found as such.
    ///
    /// # Errors
    /// Text that the tokenizer cannot split or has no token for.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false).map_err(|e| self.failed(e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of `text` with those that the folder's post-processor puts around it (Llama's `<s>`), as
    /// transformers' `tokenizer(text)` has them.
    ///
    /// # Errors
    /// Text that the tokenizer cannot split or has no token for.
    pub fn encode_special(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, true).map_err(|e| self.failed(e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`, with or without special tokens; bytes that are no UTF-8 become replacement characters.
    ///
    /// # Errors
    /// Ids that the tokenizer cannot put together.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner.decode(ids, skip_special).map_err(|e| self.failed(e))
    }

    fn failed(&self, error: tokenizers::Error) -> Error {
        Error::file(&self.file, one_line(&error.to_string()))
    }

    /// The token that ends a text.
    ///
    /// # Errors
    /// When the files name none.
    pub fn eos(&self) -> Result<u32> {
        self.needed("eos_token", "the token that ends a text")
    }

    /// The token that fills a batch.
    ///
    /// # Errors
    /// When the files name none.
    pub fn pad(&self) -> Result<u32> {
        self.needed("pad_token", "the token that fills a batch")
    }

    /// The token that begins a text, if the files name one.
    pub fn bos(&self) -> Option<u32> {
        self.named.get("bos_token").copied()
    }

    fn needed(&self, name: &str, what: &str) -> Result<u32> {
        let place = self.file.with_file_name("tokenizer_config.json");
        let missing = || Error::field(place, name, format!("missing (expected {what})"));
        self.named.get(name).copied().ok_or_else(missing)
    }

    /// The id of `token`, if there is one.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Number of tokens, special ones and `[PAD]` included.
    pub fn vocab_len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json` into `folder`.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let text = self.inner.to_string(true).map_err(|e| self.failed(e))?;
        write_whole(&folder.join("tokenizer.json"), |out| out.write_all(text.as_bytes()))?;
        for (name, map) in [("tokenizer_config.json", &self.config), ("special_tokens_map.json", &self.special)] {
            let path = folder.join(name);
            let text = serde_json::to_string_pretty(map).map_err(|e| Error::file(&path, e))?;
            write_whole(&path, |out| out.write_all(text.as_bytes()))?;
        }
        Ok(())
    }
}

/// The part of `tokenizer.json` that is looked at before the tokenizers crate is.
#[derive(Deserialize)]
struct Outline {
    normalizer: Option<Value>,
    decoder: Option<Value>,
    #[serde(default)]
    added_tokens: Vec<NamedId>,
}

/// An entry of `added_tokens`.
#[derive(Deserialize)]
struct NamedId {
    id: u32,
    content: String,
}

fn parse(text: &[u8]) -> std::result::Result<tokenizers::Tokenizer, String> {
    // That crate panics where the JSON is broken, a compiled normalizer is, or the decoder holds what is no value.
    let outline: Outline = serde_json::from_slice(text).map_err(|e| one_line(&e.to_string()))?;
    if outline.normalizer.is_some_and(|value| value.to_string().contains("\"Precompiled\"")) {
        return Err("normalizer: Precompiled is not supported".into());
    }
    if outline.decoder.as_ref().is_some_and(|value| !value.is_object()) {
        return Err("decoder: not an object".into());
    }
    let mut inner = tokenizers::Tokenizer::from_bytes(text).map_err(|e| one_line(&e.to_string()))?;
    // It only warns where an added token lands on another id than the file says, and every later id would be wrong.
    for NamedId { id, content } in outline.added_tokens {
        let found = inner.token_to_id(&content);
        if found != Some(id) {
            let found = found.map_or("none".into(), |id| id.to_string());
            return Err(format!("added_tokens: {} has id {found} (the file says {id})", shown(&content.into())));
        }
    }
    // Padding and cutting are the caller's business, whatever the file was saved with.
    inner.with_padding(None);
    inner.with_truncation(None).map_err(|e| one_line(&e.to_string()))?;
    Ok(inner)
}

/// Adds the words of `text`, as byte-level BPE splits it, to `words`.
fn count_words(text: &str, words: &mut BTreeMap<String, u64>) -> tokenizers::Result<()> {
    let mut normalized = NormalizedString::from(text);
    NFC.normalize(&mut normalized)?;
    let mut split = PreTokenizedString::from(normalized);
    ByteLevel::new(false, true, true).pre_tokenize(&mut split)?;
    for (word, ..) in split.get_splits(OffsetReferential::Original, OffsetType::Byte) {
        *words.entry(word.to_string()).or_default() += 1;
    }
    Ok(())
}

/// An entry of `added_tokens` in `tokenizer.json`.
fn added_token(id: usize, content: &str) -> Value {
    let mut entry = decoder_entry(content);
    entry["id"] = id.into();
    entry
}

/// An entry of `added_tokens_decoder` in `tokenizer_config.json`.
fn decoder_entry(content: &str) -> Value {
    json!({
        "content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": true
    })
}
