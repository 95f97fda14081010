//! From prompt and answer to the tokens a reward model was trained to read: its own tokenizer, its own layout.
//!
//! | model | text | begin of text | end |
//! |---|---|---|---|
//! | scalar (TL;DR) | the prompt's tokens, then the answer's (messages: the chat template) | none | its end of text |
//! | classifier (FsfairX) | the folder's chat template | added by the tokenizer; the template's is dropped | the template's |
//! | ArmoRM | the folder's chat template | the template's | the template's |
//! | Starling | its chat template, else `<s>[INST] {x} </s> [/INST] {y} </s>` | written out | ` </s>` of a finished answer |
//! | Eurus | `[INST] {x} [/INST] {y}` | added by the tokenizer | none |
//!
//! The two layouts that are written out are those of the paper's runs.

use std::path::{Path, PathBuf};

use super::{Kind, RewardConfig};
use crate::data::exchange::{Exchange, Prompt};
use crate::models::chat::ChatTemplate;
use crate::models::tokenizer::Tokenizer;
use crate::{Error, Result};

/// What stands between prompt and answer in Llama 3's template, where ArmoRM's gate reads.
const ANSWER_BEGINS: &str = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n";

/// How texts become tokens.
#[derive(Debug)]
enum Layout {
    /// Conversations need a template.
    Plain(Option<ChatTemplate>),
    Template(ChatTemplate),
    /// A template whose begin of text is the tokenizer's.
    BegunTemplate(ChatTemplate),
    /// No template: prompt and answer as one text.
    Begun,
    Starling,
    Eurus,
}

/// A reward model's tokenizer and layout.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    tokenizer: Tokenizer,
    layout: Layout,
    limit: usize,
    vocab: usize,
    pattern: Option<Vec<u32>>,
}

impl Reader {
    /// Reads tokenizer and chat template of `folder`, which holds a model of `config`, and tells `config` which tokens its
    /// gate looks for.
    ///
    /// # Errors
    /// Files that are missing or damaged; a tokenizer for another model; ArmoRM without Llama 3's tokens or without a template.
    pub fn load(folder: &Path, config: &mut RewardConfig) -> Result<Self> {
        let tokenizer = Tokenizer::load(folder)?;
        tokenizer.check_vocabulary(config.decoder.vocab)?;
        let template = ChatTemplate::load(folder)?;
        let mut pattern = None;
        let layout = match (&mut config.kind, template) {
            (Kind::Scalar { .. }, template) => Layout::Plain(template),
            (Kind::Classifier, Some(template)) => Layout::BegunTemplate(template),
            (Kind::Classifier, None) => Layout::Begun,
            (Kind::Value { .. }, Some(template)) => Layout::Template(template),
            (Kind::Value { .. }, None) => Layout::Starling,
            (Kind::Regression, _) => Layout::Eurus,
            (Kind::Mixture(mixture), Some(template)) => {
                let missing = "missing (expected Llama 3's tokens: the gate looks for what begins an answer)";
                let file = || Error::field(folder.join("tokenizer.json"), "<|eot_id|>", missing);
                tokenizer.id("<|eot_id|>").ok_or_else(file)?;
                mixture.pattern = tokenizer.encode(ANSWER_BEGINS)?;
                pattern = Some(mixture.pattern.clone());
                Layout::Template(template)
            }
            (Kind::Mixture(_), None) => return Err(no_template(folder)),
        };
        let (limit, vocab) = (config.decoder.max_positions, config.decoder.vocab);
        Ok(Self { folder: folder.into(), tokenizer, layout, limit, vocab, pattern })
    }

    /// The tokens of an exchange.
    ///
    /// # Errors
    /// More tokens than the model reads, a token that it does not have, a prompt that the layout has no place for, a
    /// template that fails.
    pub fn tokens(&self, exchange: &Exchange) -> Result<Vec<u32>> {
        let ids = match &self.layout {
            Layout::Plain(template) => match (&exchange.prompt, template) {
                (Prompt::Chat(_), Some(template)) => self.tokenizer.encode(&rendered(template, exchange)?)?,
                _ => self.plain(exchange)?,
            },
            Layout::Template(template) => self.tokenizer.encode(&rendered(template, exchange)?)?,
            Layout::BegunTemplate(template) => self.begun(&rendered(template, exchange)?)?,
            Layout::Begun => {
                let ids = self.tokenizer.encode_special(&format!("{}{}", self.text(exchange)?, exchange.answer))?;
                self.ended(ids, exchange.finished)?
            }
            Layout::Starling => {
                let end = if exchange.finished { " </s>" } else { "" };
                let (question, answer) = (question(exchange)?, &exchange.answer);
                self.tokenizer.encode(&format!("<s>[INST] {question} </s> [/INST] {answer}{end}"))?
            }
            Layout::Eurus => {
                let (question, answer) = (question(exchange)?, &exchange.answer);
                self.tokenizer.encode_special(&format!("[INST] {question} [/INST] {answer}"))?
            }
        };
        self.check(ids)
    }

    /// The prompt's tokens, then the answer's: never merged with one another, as a policy writes them.
    fn plain(&self, exchange: &Exchange) -> Result<Vec<u32>> {
        let mut ids = self.tokenizer.encode(self.text(exchange)?)?;
        ids.extend(self.tokenizer.encode(&exchange.answer)?);
        self.ended(ids, exchange.finished)
    }

    /// `ids` with the end of text behind a finished answer, once.
    fn ended(&self, mut ids: Vec<u32>, finished: bool) -> Result<Vec<u32>> {
        if finished {
            let end = self.tokenizer.eos()?;
            if ids.last() != Some(&end) {
                ids.push(end);
            }
        }
        Ok(ids)
    }

    /// Tokens of a rendered chat with one begin of text: the tokenizer's, if it adds one, in the place of the template's.
    fn begun(&self, text: &str) -> Result<Vec<u32>> {
        let (mut ids, plain) = (self.tokenizer.encode_special(text)?, self.tokenizer.encode(text)?);
        let doubled = ids.len() > plain.len() && ids.first() == plain.first() && ids[1..].starts_with(&plain);
        if doubled {
            ids.remove(0);
        }
        Ok(ids)
    }

    fn text<'a>(&self, exchange: &'a Exchange) -> Result<&'a str> {
        match &exchange.prompt {
            Prompt::Text(text) => Ok(text),
            Prompt::Chat(_) => Err(no_template(&self.folder)),
        }
    }

    fn check(&self, ids: Vec<u32>) -> Result<Vec<u32>> {
        if ids.is_empty() {
            return Err(Error::invalid("no token to read"));
        }
        if ids.len() > self.limit {
            let what = format!("{} tokens (the model reads at most {})", ids.len(), self.limit);
            return Err(Error::invalid(what));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab) {
            let what = format!("token {id} is not in the model (its vocab_size is {})", self.vocab);
            return Err(Error::file(self.folder.join("tokenizer.json"), what));
        }
        match &self.pattern {
            Some(pattern) if !ids.windows(pattern.len()).any(|window| window == pattern.as_slice()) => {
                let what =
                    "its text has no answer as Llama 3's template begins one (expected <|start_header_id|>assistant)";
                Err(Error::field(self.folder.join("tokenizer_config.json"), "chat_template", what))
            }
            _ => Ok(ids),
        }
    }
}

fn no_template(folder: &Path) -> Error {
    let what = "missing (expected a template, to read messages)";
    Error::field(folder.join("tokenizer_config.json"), "chat_template", what)
}

/// The chat as its template writes it; an answer that is not finished stands open.
fn rendered(template: &ChatTemplate, exchange: &Exchange) -> Result<String> {
    match exchange.finished {
        true => template.render(&exchange.messages(), false),
        false => Ok(template.render(&exchange.questions(), true)? + &exchange.answer),
    }
}

/// The user's message of a layout with one place for it.
fn question(exchange: &Exchange) -> Result<&str> {
    match &exchange.prompt {
        Prompt::Text(text) => Ok(text),
        Prompt::Chat(messages) => match messages.as_slice() {
            [one] if one.role == "user" => Ok(&one.content),
            several => {
                let what = format!("{} messages (this model reads one of the user's, and its answer)", several.len());
                Err(Error::invalid(what))
            }
        },
    }
}
