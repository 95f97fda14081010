//! The prompts of `rebel generate`: from the command line, standard input or a file, as text and as tokens.

use super::Arguments;
use anyhow::Result;
use rebel_trainer::Error;
use rebel_trainer::models::Tokenizer;
use rebel_trainer::models::chat::{ChatTemplate, Message};
use serde_json::{Map, Value};
use std::io::Read;
use std::path::Path;

/// Longest prompt that is taken apart into tokens, bytes.
const LONGEST: usize = 1 << 24;

/// What is continued.
pub struct Prompt {
    /// Where it came from, for messages: `--prompt 0`, `prompts.jsonl:3`.
    pub name: String,
    /// What a result shows of it: the text given, or the conversation as the model reads it.
    pub shown: String,
    /// Its tokens; there may be none.
    pub ids: Vec<u32>,
}

/// A prompt as it was given.
enum Given {
    Text(String),
    Messages(Vec<Message>),
}

/// All prompts, in their order.
///
/// # Errors
/// A file or line that cannot be read, a chat template that is missing or fails, a text that cannot be split.
pub fn read(arguments: &Arguments, folder: &Path, tokenizer: &Tokenizer) -> Result<Vec<Prompt>> {
    let template = match arguments.chat {
        true => {
            let missing = || Error::file(folder, "has no chat template (expected one, because of --chat)");
            Some(ChatTemplate::load(folder)?.ok_or_else(missing)?)
        }
        false => None,
    };
    let given = match &arguments.file {
        Some(file) => of_file(file)?,
        None => {
            let named = arguments.prompt.iter().enumerate();
            named.map(|(i, text)| Ok((format!("--prompt {i}"), Given::Text(of_flag(text)?)))).collect::<Result<_>>()?
        }
    };
    let prompt = |(name, given): (String, Given)| -> Result<Prompt> {
        let at = |error: Error| Error::file(&name, error);
        if let Given::Text(text) = &given
            && text.len() > LONGEST
        {
            return Err(Error::file(&name, format!("is {} bytes (expected at most {LONGEST})", text.len())).into());
        }
        let (shown, ids) = match (given, &template) {
            (Given::Text(text), None) => {
                let ids = tokenizer.encode_special(&text);
                (text, ids)
            }
            (Given::Messages(_), None) => {
                return Err(Error::field(&name, "messages", "is a conversation (expected --chat with it)").into());
            }
            // the template writes the special tokens itself
            (Given::Text(text), Some(template)) => {
                let ids = template.render(&[Message::new("user", &text)], true).and_then(|all| tokenizer.encode(&all));
                (text, ids)
            }
            (Given::Messages(messages), Some(template)) => {
                let all = template.render(&messages, true).map_err(at)?;
                let ids = tokenizer.encode(&all);
                (all, ids)
            }
        };
        let ids = ids.map_err(at)?;
        Ok(Prompt { name, shown, ids })
    };
    given.into_iter().map(prompt).collect()
}

fn of_flag(text: &str) -> Result<String> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    let mut all = String::new();
    std::io::stdin().read_to_string(&mut all).map_err(|e| Error::file("standard input", e))?;
    // the newline that ends the last line is the shell's, not the prompt's
    let end = all.strip_suffix('\n').map_or(all.len(), |rest| rest.strip_suffix('\r').unwrap_or(rest).len());
    all.truncate(end);
    Ok(all)
}

fn of_file(file: &Path) -> Result<Vec<(String, Given)>> {
    let text = std::fs::read_to_string(file).map_err(|e| Error::file(file, e))?;
    let is_json = file.extension().is_some_and(|extension| extension == "jsonl");
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let prompts: Vec<(String, Given)> = lines
        .map(|(number, line)| {
            let name = format!("{}:{number}", file.display());
            let given = if is_json { of_object(&name, line)? } else { Given::Text(line.to_owned()) };
            Ok((name, given))
        })
        .collect::<Result<_>>()?;
    if prompts.is_empty() {
        return Err(Error::file(file, "has no prompt (expected one a line)").into());
    }
    Ok(prompts)
}

fn of_object(name: &str, line: &str) -> Result<Given> {
    let object: Map<String, Value> = serde_json::from_str(line)
        .map_err(|e| Error::file(name, format!("is not a JSON object: {}", e.to_string().replace('\n', " "))))?;
    let wrong = |field: &str, expected: &str| Error::field(name, field, format!("is not usable (expected {expected})"));
    if let Some(messages) = object.get("messages") {
        let turn = |turn: &Value| {
            let text = |key: &str| Some(turn.get(key)?.as_str()?.to_owned());
            Some(Message::new(text("role")?, text("content")?))
        };
        let turns: Option<Vec<Message>> = messages.as_array().and_then(|turns| turns.iter().map(turn).collect());
        let turns = turns.filter(|turns| !turns.is_empty());
        return Ok(Given::Messages(turns.ok_or_else(|| wrong("messages", "a list of {role, content}, both texts"))?));
    }
    for field in ["prompt", "query"] {
        if let Some(value) = object.get(field) {
            return Ok(Given::Text(value.as_str().ok_or_else(|| wrong(field, "a text"))?.to_owned()));
        }
    }
    Err(Error::field(name, "prompt", "is missing (expected it, or query, or messages)").into())
}
