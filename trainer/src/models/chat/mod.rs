//! Chats as the text a model was trained on: the folder's Jinja template, rendered as transformers renders it.
//!
//! [`limits`] keeps a hostile template from running for ever or filling the memory; [`python`] is what templates expect
//! of Python.

mod limits;
mod python;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::value::Kwargs;
use minijinja::{Environment, Error as Fault, ErrorKind, State, Value};
use minijinja_contrib::pycompat;
use serde_json::{Map, Value as Json};

use super::json::{Fields, one_line, read_object, read_text};
use super::token_names::TokenNames;
use crate::{Error, Result};
use limits::Meter;

/// Longest template, bytes.
const LONGEST: u64 = 1 << 20;

/// One turn of a chat.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A folder's chat template, with the tokens that it may name.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    /// File and field it came from, for messages.
    file: PathBuf,
    field: String,
    /// `bos_token`, `eos_token` ... as texts.
    tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// The template of a folder: `chat_template.jinja` (transformers 5), else the field `chat_template` of
    /// `tokenizer_config.json` (a string, or several by name, of which `default` is taken), else that of
    /// `chat_template.json`. None where there is none.
    ///
    /// # Errors
    /// A file that is damaged or too long, a template that is no Jinja.
    pub fn load(folder: &Path) -> Result<Option<Self>> {
        let names = TokenNames::read(folder)?;
        let tokens = names.texts()?;
        let jinja = folder.join("chat_template.jinja");
        let config = folder.join("tokenizer_config.json");
        let json = folder.join("chat_template.json");
        let found = if jinja.exists() {
            let source = read_text(&jinja, LONGEST)?;
            Some((source, jinja, "template".to_owned()))
        } else if let Some((source, field)) = in_object(&config, names.config())? {
            Some((source, config, field))
        } else if json.exists() {
            let map = read_object(&json)?;
            in_object(&json, &map)?.map(|(source, field)| (source, json, field))
        } else {
            None
        };
        found
            .map(|(source, file, field)| Self { source: plain_blocks(&source), file, field, tokens }.checked())
            .transpose()
    }

    /// The template, if it is Jinja at all.
    fn checked(self) -> Result<Self> {
        if self.source.len() as u64 > LONGEST {
            return Err(self.fault(format!("{} bytes (expected at most {LONGEST})", self.source.len())));
        }
        match limits::check(&self.source) {
            Ok(()) => Ok(self),
            Err(error) => Err(self.fault(told(&error))),
        }
    }

    /// The chat as text; `add_generation_prompt` opens the assistant's next turn at its end. Tokenizing it must add no
    /// special tokens: the text has them ([`super::Tokenizer::encode_chat`]). What asks for the date gets UTC's.
    ///
    /// # Errors
    /// One line naming file and field with what the template reports (a role it does not know, say); a template that
    /// does not end, or makes too much.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let input = self.source.len() + messages.iter().map(|m| m.role.len() + m.content.len() + 64).sum::<usize>();
        let meter = Meter::new(input);
        let mut globals: BTreeMap<String, Value> =
            self.tokens.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str()))).collect();
        let turn = |m: &Message| Value::from_pairs([("role", m.role.as_str()), ("content", m.content.as_str())]);
        globals.insert("messages".into(), messages.iter().map(turn).collect());
        globals.insert("add_generation_prompt".into(), add_generation_prompt.into());
        globals.insert("tools".into(), Value::from(()));
        globals.insert("documents".into(), Value::from(()));
        let text = limits::render(environment(&meter), &self.source, globals, &meter);
        text.map_err(|error| self.fault(told(&error)))
    }

    fn fault(&self, what: String) -> Error {
        Error::field(&self.file, self.field.clone(), what)
    }
}

/// The template in the field `chat_template` of an object, and the field's name.
fn in_object(file: &Path, map: &Map<String, Json>) -> Result<Option<(String, String)>> {
    const FIELD: &str = "chat_template";
    let fields = Fields { file, within: "", map };
    let named: Option<Vec<(&str, &str)>> = match fields.get(FIELD) {
        None => return Ok(None),
        Some(Json::String(source)) => return Ok(Some((source.clone(), FIELD.into()))),
        Some(Json::Array(list)) => {
            list.iter().map(|entry| Some((entry.get("name")?.as_str()?, entry.get("template")?.as_str()?))).collect()
        }
        Some(Json::Object(map)) => {
            map.iter().map(|(name, template)| Some((name.as_str(), template.as_str()?))).collect()
        }
        Some(_) => None,
    };
    let named =
        named.ok_or_else(|| fields.fault(FIELD, "not a template (expected a string, or names with strings)"))?;
    match named.iter().find(|(name, _)| *name == "default") {
        Some((_, source)) => Ok(Some(((*source).to_owned(), format!("{FIELD}.default")))),
        None => {
            let names: Vec<_> = named.iter().map(|(name, _)| *name).collect();
            Err(fields.fault(FIELD, format!("none is called default (there are: {})", one_line(&names.join(", ")))))
        }
    }
}

/// The template without transformers' `generation` blocks, which mark what the assistant says for training masks and
/// change no text: `if true` in their place keeps the white space as it is.
fn plain_blocks(source: &str) -> String {
    let mut plain = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        plain.push_str(before);
        let word = tag.trim_start_matches(['-', '+']).trim_start();
        let lead = tag.len() - word.len();
        let name = &word[..word.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(word.len())];
        let ends = word[name.len()..].trim_start().trim_start_matches(['-', '+']).starts_with("%}");
        let instead = match name {
            "generation" if ends => "if true",
            "endgeneration" if ends => "endif",
            name => name,
        };
        plain.push_str(&tag[..lead]);
        plain.push_str(instead);
        rest = &tag[lead + name.len()..];
    }
    plain.push_str(rest);
    plain
}

/// What a template sees: minijinja's filters and tests, Python's methods, transformers' functions.
fn environment(meter: &std::sync::Arc<Meter>) -> Environment<'static> {
    let mut environment = Environment::new();
    // What Jinja lacks, or what makes far more than it is given.
    for filter in ["batch", "chain", "format", "lines", "pprint", "slice", "split", "sum", "zip"] {
        environment.remove_filter(filter);
    }
    environment.remove_global("debug");
    environment.add_filter("tojson", |value: &Value, options| python::tojson(value, options));
    environment.add_filter("trim", python::trim);
    environment.add_filter(
        "indent",
        |text: &str, width: Option<usize>, first: Option<bool>, blank: Option<bool>, named: Kwargs| {
            let width = width.map_or_else(|| named.get("width"), |width| Ok(Some(width)))?;
            let first = first.map_or_else(|| named.get("first"), |first| Ok(Some(first)))?;
            let blank = blank.map_or_else(|| named.get("blank"), |blank| Ok(Some(blank)))?;
            named.assert_all_used()?;
            Ok::<_, Fault>(python::indent(text, width, first, blank))
        },
    );
    environment.add_function("strftime_now", |format: &str| python::strftime_now(format));
    environment.add_function("raise_exception", |what: &str| -> std::result::Result<Value, Fault> {
        Err(Fault::new(ErrorKind::InvalidOperation, what.to_owned()))
    });
    environment.set_unknown_method_callback(|state: &mut State, value: &Value, method: &str, arguments: &[Value]| {
        let ours = value.as_str().and_then(|text| python::method(method, text, arguments));
        ours.map_or_else(|| pycompat::unknown_method_callback(state, value, method, arguments), Ok)
    });
    let meter = meter.clone();
    environment.set_formatter(move |output, _, value| {
        meter.print(value)?;
        if !value.is_undefined() {
            write!(output, "{value}").map_err(Fault::from)?;
        }
        Ok(())
    });
    environment
}

/// A template's fault on one line, with the line of the template.
fn told(fault: &Fault) -> String {
    let what = match (fault.kind(), fault.detail()) {
        (ErrorKind::OutOfFuel, _) => "the template does not end".to_owned(),
        (_, Some(detail)) => detail.to_owned(),
        (kind, None) => kind.to_string(),
    };
    let line = fault.line().map_or(String::new(), |line| format!(" (line {line} of the template)"));
    one_line(&what) + &line
}
