//! Byte-level BPE trained from texts, as a tokenizer in GPT-NeoX's format.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::bpe;
use super::token_names::{NAMES, TokenNames};
use super::tokenizer::{END_OF_TEXT, PAD, Tokenizer};
use super::tokenizer_config::decoder_entry;
use super::tokenizer_json::parse;
use crate::{Error, Result};

impl Tokenizer {
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
        let special = json!({
            "bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": PAD, "unk_token": END_OF_TEXT
        });
        let special = special.as_object().cloned().unwrap_or_default();
        let mut config = Map::new();
        config.insert("add_prefix_space".into(), false.into());
        let decoder = json!({"0": decoder_entry(END_OF_TEXT), pad.to_string(): decoder_entry(PAD)});
        config.insert("added_tokens_decoder".into(), decoder);
        config.extend(special.clone());
        config.insert("clean_up_tokenization_spaces".into(), false.into());
        config.insert("model_max_length".into(), 1_000_000_000u64.into());
        config.insert("tokenizer_class".into(), "GPTNeoXTokenizer".into());
        let mut tokenizer = Self::new(inner, TokenNames::new(config, special), "tokenizer.json".into(), Vec::new());
        NAMES.into_iter().try_for_each(|name| tokenizer.name(name))?;
        Ok(tokenizer)
    }
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
