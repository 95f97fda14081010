//! Text to ids and back, by `tokenizers`; and a byte-level BPE trained from text.

use std::path::Path;

use serde_json::json;
use tokenizers::AddedToken;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::files;
use crate::{Error, Result};

/// Ends a text; id 0 in tokenizers trained here.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Fills rows; the last id in tokenizers trained here.
pub const PAD: &str = "[PAD]";

/// A tokenizer as `tokenizer.json` describes it.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a folder.
    pub fn load(folder: &Path) -> Result<Self> {
        let file = folder.join("tokenizer.json");
        let bytes = std::fs::read(&file).map_err(|e| Error::file(&file, e))?;
        let inner = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|e| Error::file(&file, format!("not a tokenizer: {}", first_line(&e))))?;
        Ok(Self { inner })
    }

    /// Trains a byte-level BPE of `vocab` tokens, the two special ones included: [`END_OF_TEXT`] is id 0, [`PAD`] the last.
    /// With little text there may be fewer tokens. Fails unless all bytes fit (`vocab` at least 258).
    pub fn train<'a>(texts: impl Iterator<Item = &'a str> + Send, vocab: usize) -> Result<Self> {
        if vocab < 258 {
            return Err(Error::invalid(format!("vocab: {vocab} (expected at least 256 bytes and 2 special tokens)")));
        }
        let failed = |e: tokenizers::Error| Error::invalid(format!("tokenizer: {}", first_line(&e)));
        let special = |text: &str| AddedToken::from(text, true);
        let mut inner = tokenizers::Tokenizer::new(BPE::default());
        inner.with_normalizer(Some(NFC)).map_err(failed)?;
        inner.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        inner.with_decoder(Some(ByteLevel::new(false, true, true)));
        let mut trainer: TrainerWrapper = BpeTrainerBuilder::new()
            .vocab_size(vocab - 1) // [PAD] is added behind
            .show_progress(false)
            .special_tokens(vec![special(END_OF_TEXT)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build()
            .into();
        inner.train(&mut trainer, texts).map_err(failed)?;
        inner.add_special_tokens([special(PAD)]).map_err(failed)?;
        Ok(Self { inner })
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`, which transformers loads.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let file = folder.join("tokenizer.json");
        let text = self.inner.to_string(false).map_err(|e| Error::file(&file, first_line(&e)))?;
        files::write(&file, text.as_bytes())?;
        let mut named = serde_json::Map::new();
        for key in ["bos_token", "eos_token", "unk_token"] {
            if self.id(END_OF_TEXT).is_some() {
                named.insert(key.into(), json!(END_OF_TEXT));
            }
        }
        if self.id(PAD).is_some() {
            named.insert("pad_token".into(), json!(PAD));
        }
        files::write_json(&folder.join("special_tokens_map.json"), &named.clone().into())?;
        let added: serde_json::Map<String, serde_json::Value> = self
            .inner
            .get_added_tokens_decoder()
            .into_iter()
            .collect::<std::collections::BTreeMap<_, _>>()
            .into_iter()
            .map(|(id, t)| {
                let token = json!({
                    "content": t.content, "lstrip": t.lstrip, "normalized": t.normalized, "rstrip": t.rstrip,
                    "single_word": t.single_word, "special": t.special,
                });
                (id.to_string(), token)
            })
            .collect();
        named.insert("added_tokens_decoder".into(), added.into());
        named.insert("add_prefix_space".into(), json!(false));
        named.insert("clean_up_tokenization_spaces".into(), json!(false));
        named.insert("model_max_length".into(), json!(1_000_000));
        named.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
        files::write_json(&folder.join("tokenizer_config.json"), &named.into())
    }

    /// Ids of a text; special tokens written in it are recognised. `add_special`: with what the post-processor adds.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, add_special)
            .map_err(|e| Error::invalid(format!("tokenizer: {}", first_line(&e))))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of ids, with special tokens or without.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner.decode(ids, skip_special).map_err(|e| Error::invalid(format!("tokenizer: {}", first_line(&e))))
    }

    /// Id of a token given by its text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Number of tokens, added ones included.
    pub fn len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn first_line(error: &tokenizers::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trained_tokenizer_survives_saving_and_gives_text_back() {
        let texts = ["the cat sat on the mat", "the dog sat on the cat", "naïve café"];
        let tokenizer = Tokenizer::train(texts.into_iter(), 280).unwrap();
        assert_eq!(tokenizer.id(END_OF_TEXT), Some(0));
        assert_eq!(tokenizer.id(PAD), Some(tokenizer.len() as u32 - 1));
        assert!(tokenizer.len() <= 280);
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save(folder.path()).unwrap();
        let back = Tokenizer::load(folder.path()).unwrap();
        for text in ["the mat", " a\n\nnew line", "日本語 ☃", "x<|endoftext|>"] {
            let ids = back.encode(text, true).unwrap();
            assert_eq!(ids, tokenizer.encode(text, true).unwrap());
            assert_eq!(back.decode(&ids, false).unwrap(), text);
        }
        let ids = back.encode("mat<|endoftext|>[PAD]", false).unwrap();
        assert_eq!(ids[ids.len() - 2..], [0, tokenizer.len() as u32 - 1]);
        assert_eq!(back.decode(&ids, true).unwrap(), "mat");
    }

    #[test]
    fn a_broken_file_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), "{\"version\": 1").unwrap();
        let error = Tokenizer::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: not a tokenizer") && !error.contains('\n'), "{error}");
    }
}
