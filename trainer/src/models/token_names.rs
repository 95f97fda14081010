//! What a folder's two small files call its tokens: `bos_token`, `eos_token`, `pad_token` ...

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::json::{Fields, read_object};
use crate::Result;

/// The names that single tokens have.
pub(super) const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// `tokenizer_config.json` and `special_tokens_map.json` of a folder; empty where a file is not there.
#[derive(Debug, Clone, Default)]
pub(super) struct TokenNames {
    config_file: PathBuf,
    special_file: PathBuf,
    config: Map<String, Value>,
    special: Map<String, Value>,
}

/// A token that a file names.
pub(super) struct NamedToken<'a> {
    /// The token's text.
    pub text: &'a str,
    /// The object that says so, for messages.
    pub fields: Fields<'a>,
}

impl TokenNames {
    /// The names of a new tokenizer.
    pub fn new(config: Map<String, Value>, special: Map<String, Value>) -> Self {
        Self { config, special, ..Self::default() }
    }

    /// Reads both files of `folder`.
    ///
    /// # Errors
    /// A file that is there and no JSON object.
    pub fn read(folder: &Path) -> Result<Self> {
        let optional = |path: &Path| if path.exists() { read_object(path) } else { Ok(Map::new()) };
        let (config_file, special_file) =
            (folder.join("tokenizer_config.json"), folder.join("special_tokens_map.json"));
        let (config, special) = (optional(&config_file)?, optional(&special_file)?);
        Ok(Self { config_file, special_file, config, special })
    }

    /// `tokenizer_config.json`.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// Its fields.
    pub fn config_fields(&self) -> Fields<'_> {
        Fields { file: &self.config_file, within: "", map: &self.config }
    }

    /// Both files with their names, for saving.
    pub fn files(&self) -> [(&'static str, &Map<String, Value>); 2] {
        [("tokenizer_config.json", &self.config), ("special_tokens_map.json", &self.special)]
    }

    /// The token called `name`, a string or an object with `content` in the files.
    ///
    /// A config that lists its added tokens was written with the names up to date, and counts first; an older one is
    /// corrected by the other file. (Transformers does so too.)
    ///
    /// # Errors
    /// A field that is no token.
    pub fn token(&self, name: &str) -> Result<Option<NamedToken<'_>>> {
        let config = self.config_fields();
        let special = Fields { file: &self.special_file, within: "", map: &self.special };
        let order = if config.has("added_tokens_decoder") { [config, special] } else { [special, config] };
        let Some((fields, value)) = order.into_iter().find_map(|fields| Some((fields, fields.get(name)?))) else {
            return Ok(None);
        };
        let content = match value {
            Value::String(text) => Some(text.as_str()),
            other => other.get("content").and_then(Value::as_str),
        };
        let text =
            content.ok_or_else(|| fields.fault(name, "not a token (expected a string, or an object with content)"))?;
        Ok(Some(NamedToken { text, fields }))
    }

    /// Calls tokens by their usual names where neither file does.
    ///
    /// # Errors
    /// A field that is no token.
    pub fn assume(&mut self, usual: &[(&'static str, &'static str)]) -> Result<()> {
        for (name, text) in usual {
            if self.token(name)?.is_none() {
                self.config.insert((*name).into(), (*text).into());
            }
        }
        Ok(())
    }

    /// All named tokens as texts.
    ///
    /// # Errors
    /// A field that is no token.
    pub fn texts(&self) -> Result<BTreeMap<String, String>> {
        let mut texts = BTreeMap::new();
        for name in NAMES {
            if let Some(token) = self.token(name)? {
                texts.insert(name.to_owned(), token.text.to_owned());
            }
        }
        Ok(texts)
    }

    /// Calls a token: in both files, and among a config's added tokens.
    pub fn insert(&mut self, name: &str, text: &str, id: u32, entry: Value) {
        self.config.insert(name.into(), text.into());
        self.special.insert(name.into(), text.into());
        if let Some(Value::Object(decoder)) = self.config.get_mut("added_tokens_decoder") {
            decoder.insert(id.to_string(), entry);
        }
    }
}
