//! A text's tokens and back: a folder's `tokenizer.json`, or CLIP's two files, with the two that say which tokens begin,
//! end and pad a text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokenizers::models::ModelWrapper;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, DecoderWrapper, Encoding, PostProcessor, PreTokenizerWrapper, TruncationDirection};

use super::chat::{ChatTemplate, Message};
use super::clip;
use super::json::{one_line, read_bytes, shown};
use super::token_names::{NAMES, TokenNames};
use super::tokenizer_config::{self, decoder_entry};
use super::tokenizer_json::{parse, unpanicked};
use crate::files::write_whole;
use crate::{Error, Result};

/// Ends a text in a trained tokenizer, as in GPT-NeoX's; its id is 0.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Fills a batch where the files name no other token, as the published code has it.
pub const PAD: &str = "[PAD]";

/// Longest `tokenizer.json`, bytes; the largest in use have some 30 MiB.
const LONGEST: u64 = 128 << 20;

/// A tokenizer with its beginning, end-of-text and padding tokens.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    names: TokenNames,
    /// What the files name: bos_token, eos_token, pad_token ..., each with its id.
    named: BTreeMap<&'static str, (String, u32)>,
    /// Where it came from, for messages.
    file: PathBuf,
    /// CLIP's mark at the end of a word, which its decoder leaves in the text.
    word_end: Option<String>,
    /// Files other than `tokenizer.json` that it was read from, kept for saving.
    sources: Vec<(&'static str, Vec<u8>)>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, or CLIP's `vocab.json` and `merges.txt`, and which tokens begin, end and pad a text from
    /// `tokenizer_config.json` or `special_tokens_map.json`. A folder may lack any of those three; an error comes when
    /// one is asked for.
    ///
    /// # Errors
    /// One line naming the file and field that is missing or damaged.
    pub fn load(folder: &Path) -> Result<Self> {
        let mut names = TokenNames::read(folder)?;
        let mut file = folder.join("tokenizer.json");
        let mut sources = Vec::new();
        let inner = if !file.exists() && folder.join("vocab.json").exists() {
            file = folder.join("vocab.json");
            for name in ["vocab.json", "merges.txt"] {
                sources.push((name, read_bytes(&folder.join(name), LONGEST)?));
            }
            names.assume(&clip::USUAL)?;
            clip::load(folder, &names)?
        } else {
            parse(&read_bytes(&file, LONGEST)?).map_err(|what| Error::file(&file, what))?
        };
        let mut tokenizer = Self::new(inner, names, file, sources);
        tokenizer.add_listed()?;
        for name in NAMES {
            tokenizer.name(name)?;
        }
        tokenizer.follow_config()?;
        Ok(tokenizer)
    }

    pub(super) fn new(
        inner: tokenizers::Tokenizer,
        names: TokenNames,
        file: PathBuf,
        sources: Vec<(&'static str, Vec<u8>)>,
    ) -> Self {
        let word_end = match (inner.get_model(), inner.get_decoder()) {
            (ModelWrapper::BPE(bpe), Some(DecoderWrapper::ByteLevel(_))) => bpe.end_of_word_suffix.clone(),
            _ => None,
        };
        let word_end = word_end.filter(|mark| !mark.is_empty());
        Self { inner, names, named: BTreeMap::new(), file, word_end, sources }
    }

    /// Adds the tokens that the config lists and the tokenizer's own file lacks.
    fn add_listed(&mut self) -> Result<()> {
        let listed = tokenizer_config::listed(&self.names)?;
        let known = self.inner.get_added_tokens_decoder();
        let missing = |token: &AddedToken| known.values().all(|other| other.content != token.content);
        for (id, token) in listed.into_iter().filter(|(_, token)| missing(token)) {
            let content = token.content.clone();
            self.add(token)?;
            let found = self.inner.token_to_id(&content);
            if found != Some(id) {
                let found = found.map_or("none".to_owned(), |id| id.to_string());
                let what = format!("{} has id {found} in the tokenizer", shown(&content.into()));
                return Err(self.names.config_fields().fault(&format!("added_tokens_decoder.{id}"), what));
            }
        }
        Ok(())
    }

    fn add(&mut self, token: AddedToken) -> Result<()> {
        let special = token.special;
        let inner = &mut self.inner;
        let added = unpanicked(|| if special { inner.add_special_tokens([token]) } else { inner.add_tokens([token]) });
        added.map(drop).map_err(|what| Error::field(&self.file, "added_tokens", what))
    }

    /// Looks up the token that the files call `name`; it is special, whether or not the tokenizer's own file says so.
    pub(super) fn name(&mut self, name: &'static str) -> Result<()> {
        let Some(token) = self.names.token(name)? else { return Ok(()) };
        let text = token.text.to_owned();
        let Some(id) = self.inner.token_to_id(&text) else {
            let file = self.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(token.fields.fault(name, format!("{} is not in {file}", shown(&text.into()))));
        };
        match self.inner.get_added_tokens_decoder().get(&id).cloned() {
            Some(token) if token.special => {}
            Some(token) => self.add(AddedToken { special: true, ..token })?,
            None => self.add(AddedToken::from(text.clone(), true))?,
        }
        self.named.insert(name, (text, id));
        Ok(())
    }

    /// Puts tokens around a text, and a space before it, where the config decides and not the tokenizer's own file.
    fn follow_config(&mut self) -> Result<()> {
        let id = |name: &str| self.named.get(name).map(|(text, id)| (text.as_str(), *id));
        if let Some(template) = tokenizer_config::around(&self.names, id)? {
            let template: TemplateProcessing =
                serde_json::from_value(template).map_err(|e| Error::file(&self.file, one_line(&e.to_string())))?;
            self.inner.with_post_processor(Some(template));
        }
        let first_space = tokenizer_config::first_space(&self.names)?;
        if let (Some(wanted), Some(PreTokenizerWrapper::ByteLevel(split))) =
            (first_space, self.inner.get_pre_tokenizer())
        {
            let split = split.add_prefix_space(wanted);
            self.inner.with_pre_tokenizer(Some(split));
        }
        Ok(())
    }

    /// Where the files name no padding token, makes `[PAD]` one: a new last token if there is none of that name.
    ///
    /// # Errors
    /// When the tokenizer cannot take it.
    pub fn ensure_pad(&mut self) -> Result<u32> {
        if let Ok(id) = self.pad() {
            return Ok(id);
        }
        self.add(AddedToken::from(PAD, true))?;
        let failed = || Error::field(&self.file, "added_tokens", format!("{PAD} cannot be added"));
        let id = self.inner.token_to_id(PAD).ok_or_else(failed)?;
        self.names.insert("pad_token", PAD, id, decoder_entry(PAD));
        self.named.insert("pad_token", (PAD.into(), id));
        Ok(id)
    }

    /// The tokens of `text`; none is added. Special tokens written out in the text are found as such.
    ///
    /// # Errors
    /// Text that the tokenizer cannot split or has no token for.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encoding(text, false)?.get_ids().to_vec())
    }

    /// The tokens of `text` with those that the folder's post-processor puts around it (Llama's `<s>`), as
    /// transformers' `tokenizer(text)` has them.
    ///
    /// # Errors
    /// Text that the tokenizer cannot split or has no token for.
    pub fn encode_special(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encoding(text, true)?.get_ids().to_vec())
    }

    /// The tokens of a chat: the template's text has its special tokens already, so none is added. As transformers'
    /// `apply_chat_template(messages, tokenize=True)`.
    ///
    /// # Errors
    /// What the template reports; text that the tokenizer cannot split.
    pub fn encode_chat(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>> {
        self.encode(&template.render(messages, add_generation_prompt)?)
    }

    /// [`Self::encode_special`] cut or padded at the right to `length`, and where the tokens are real: a cut text keeps
    /// the special tokens around it.
    ///
    /// # Errors
    /// Text that cannot be split, a `length` below the number of special tokens, no padding token.
    pub fn encode_padded(&self, text: &str, length: usize) -> Result<(Vec<u32>, Vec<bool>)> {
        let pad = self.pad()?;
        let around = self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        let room = length.checked_sub(around);
        let room =
            room.ok_or_else(|| Error::invalid(format!("{length} tokens have no room for {around} special ones")))?;
        let mut encoding = self.encoding(text, false)?;
        encoding.truncate(room, 0, TruncationDirection::Right);
        let whole = unpanicked(|| self.inner.post_process(encoding, None, true)).map_err(|what| self.failed(what))?;
        let mut ids = whole.get_ids().to_vec();
        let mask = (0..length).map(|i| i < ids.len()).collect();
        ids.resize(length, pad);
        Ok((ids, mask))
    }

    fn encoding(&self, text: &str, special: bool) -> Result<Encoding> {
        let text = if self.sources.is_empty() { Cow::Borrowed(text) } else { clip::with_final_sigmas(text) };
        unpanicked(|| self.inner.encode_fast(text, special)).map_err(|what| self.failed(what))
    }

    /// The text of `ids`, with or without special tokens; bytes that are no UTF-8 become replacement characters. Spaces
    /// are not cleaned up.
    ///
    /// # Errors
    /// Ids that the tokenizer cannot put together.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let text = unpanicked(|| self.inner.decode(ids, skip_special)).map_err(|what| self.failed(what))?;
        Ok(match &self.word_end {
            Some(mark) => text.replace(mark, " ").trim().to_owned(),
            None => text,
        })
    }

    /// Whether what follows may still change the text that `id` adds: the tokens that stand for one byte are put together
    /// as long as they go on, and special tokens between them are passed over.
    pub(super) fn is_open(&self, id: u32) -> bool {
        let is_byte = |token: &str| token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
        let special = self.inner.get_added_tokens_decoder().get(&id).is_some_and(|token| token.special);
        special || self.inner.id_to_token(id).is_some_and(|token| is_byte(&token))
    }

    fn failed(&self, what: String) -> Error {
        Error::file(&self.file, what)
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
        self.named.get("bos_token").map(|(_, id)| *id)
    }

    fn needed(&self, name: &str, what: &str) -> Result<u32> {
        let place = self.file.with_file_name("tokenizer_config.json");
        let missing = || Error::field(place, name, format!("missing (expected {what})"));
        self.named.get(name).map(|(_, id)| *id).ok_or_else(missing)
    }

    /// The tokens that the files name: name (`eos_token`), text and id, sorted by name.
    pub fn special(&self) -> impl Iterator<Item = (&'static str, &str, u32)> {
        self.named.iter().map(|(name, (text, id))| (*name, text.as_str(), *id))
    }

    /// The id of `token`, if there is one.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Number of tokens, special ones and `[PAD]` included.
    pub fn vocab_len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Number of tokens without added ones: transformers' `vocab_size`.
    pub fn base_len(&self) -> usize {
        self.inner.get_vocab_size(false)
    }

    /// Whether a model of `vocab` tokens has a row for every token but the padding token, which is masked and may lie
    /// beyond (the published code adds one without resizing the model).
    ///
    /// # Errors
    /// The first token that the model lacks.
    pub fn check_vocabulary(&self, vocab: usize) -> Result<()> {
        let pad = self.pad().ok();
        let beyond = |id: u32| id as usize >= vocab && Some(id) != pad;
        let tokens = self.inner.get_vocab(true);
        match tokens.iter().filter(|(_, id)| beyond(**id)).min_by_key(|(_, id)| **id) {
            Some((token, id)) => {
                let what = format!("{} has id {id} (the model has {vocab} tokens)", shown(&token.as_str().into()));
                Err(Error::field(&self.file, "vocabulary", what))
            }
            None => Ok(()),
        }
    }

    /// Writes `tokenizer.json`, or the two files it came from, with `tokenizer_config.json` and
    /// `special_tokens_map.json` into `folder`.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        for (name, bytes) in &self.sources {
            write_whole(&folder.join(name), |out| out.write_all(bytes))?;
        }
        if self.sources.is_empty() {
            let text = unpanicked(|| self.inner.to_string(true)).map_err(|what| self.failed(what))?;
            write_whole(&folder.join("tokenizer.json"), |out| out.write_all(text.as_bytes()))?;
        }
        for (name, map) in self.names.files() {
            let path = folder.join(name);
            let text = serde_json::to_string_pretty(map).map_err(|e| Error::file(&path, e))?;
            write_whole(&path, |out| out.write_all(text.as_bytes()))?;
        }
        Ok(())
    }
}
