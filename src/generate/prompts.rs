//! The prompts of `rebel generate`: from the command line, standard input or a file, as text and as tokens.

use super::Arguments;
use anyhow::Result;
use rebel_trainer::Error;
use rebel_trainer::models::{DecoderConfig, Tokenizer};
use serde_json::{Map, Value};
use std::io::Read;
use std::path::Path;

/// What is continued.
pub struct Prompt {
    /// Where it came from, for messages: `--prompt 0`, `prompts.jsonl:3`.
    pub name: String,
    /// What a result shows of it: the text given.
    pub shown: String,
    /// Its tokens.
    pub ids: Vec<u32>,
}

/// All prompts, in their order.
///
/// # Errors
/// A file or line that cannot be read, a text that has no tokens.
pub fn read(arguments: &Arguments, tokenizer: &Tokenizer, config: &DecoderConfig) -> Result<Vec<Prompt>> {
    let given = match &arguments.file {
        Some(file) => of_file(file)?,
        None => {
            let named = arguments.prompt.iter().enumerate();
            named.map(|(i, text)| Ok((format!("--prompt {i}"), of_flag(text)?))).collect::<Result<_>>()?
        }
    };
    let prompt = |(name, shown): (String, String)| -> Result<Prompt> {
        let ids = tokenizer.encode_special(&shown).map_err(|error| Error::file(&name, error))?;
        // an empty prompt asks for a text from its beginning
        let ids = if ids.is_empty() { config.bos.into_iter().collect() } else { ids };
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

fn of_file(file: &Path) -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(file).map_err(|e| Error::file(file, e))?;
    let is_json = file.extension().is_some_and(|extension| extension == "jsonl");
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let prompts: Vec<(String, String)> = lines
        .map(|(number, line)| {
            let name = format!("{}:{number}", file.display());
            let given = if is_json { of_object(&name, line)? } else { line.to_owned() };
            Ok((name, given))
        })
        .collect::<Result<_>>()?;
    if prompts.is_empty() {
        return Err(Error::file(file, "has no prompt (expected one a line)").into());
    }
    Ok(prompts)
}

fn of_object(name: &str, line: &str) -> Result<String> {
    let object: Map<String, Value> = serde_json::from_str(line)
        .map_err(|e| Error::file(name, format!("is not a JSON object: {}", e.to_string().replace('\n', " "))))?;
    for field in ["prompt", "query"] {
        if let Some(value) = object.get(field) {
            let text = value.as_str();
            let wrong = || Error::field(name, field, "is not usable (expected a text)").into();
            return text.map(str::to_owned).ok_or_else(wrong);
        }
    }
    Err(Error::field(name, "prompt", "is missing (expected it, or query)").into())
}
