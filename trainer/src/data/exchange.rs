//! Prompts with their answers, from rows in the columns that people's data sets have: `prompt` with `completion`, a list of
//! `messages`, `prompt` with `chosen` and `rejected` (texts, or lists of messages as TRL's data sets have them), and the
//! TL;DR columns.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::jsonl::{json_reason, kind};
use crate::models::chat::Message;
use crate::{Error, Result};

/// What an answer answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// A text.
    Text(String),
    /// The messages of a conversation so far.
    Chat(Vec<Message>),
}

/// A prompt and an answer to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// The prompt.
    pub prompt: Prompt,
    /// The answer's text.
    pub answer: String,
    /// Whether the answer came to its own end: then its end of text, or of turn, belongs to it.
    pub finished: bool,
}

impl Exchange {
    /// The whole conversation; a prompt that is a text is its user's one message.
    pub fn messages(&self) -> Vec<Message> {
        let mut messages = self.questions();
        messages.push(Message { role: "assistant".into(), content: self.answer.clone() });
        messages
    }

    /// The conversation before the answer; a prompt that is a text is its user's one message.
    pub fn questions(&self) -> Vec<Message> {
        match &self.prompt {
            Prompt::Text(text) => vec![Message { role: "user".into(), content: text.clone() }],
            Prompt::Chat(messages) => messages.clone(),
        }
    }
}

/// What is wrong with a row: (column, what).
pub type Fault = (String, String);

/// The columns that hold a prompt, and an answer to it; the first that is there counts.
const PROMPTS: [&str; 2] = ["prompt", "query"];
const ANSWERS: [&str; 3] = ["completion", "response", "reference_response"];
const PAIR: [(&str, &str); 2] = [("chosen", "chosen_"), ("rejected", "rejected_")];

/// The answers a row holds, each with what the names of its results begin with: one with nothing, or `chosen_` and
/// `rejected_`. An answer counts as finished unless the row has `"stopped": false` (or `"ended": false`, as a run's samples).
///
/// # Errors
/// The column that is missing or of another type than it should be, and what was expected.
pub fn exchanges(row: &Map<String, Value>) -> std::result::Result<Vec<(&'static str, Exchange)>, Fault> {
    let column = |name: &'static str| Some((name, row.get(name).filter(|value| !value.is_null())?));
    let finished = match column("stopped").or_else(|| column("ended")) {
        None => true,
        Some((_, Value::Bool(stopped))) => *stopped,
        Some((name, other)) => return Err(unexpected(name, other, "true or false")),
    };
    let prompt = PROMPTS.into_iter().find_map(column);
    let of = |(name, answer): (&'static str, &Value)| exchange(prompt, name, answer, finished);
    if PAIR.iter().any(|(name, _)| column(name).is_some()) {
        let side = |(name, prefix): (&'static str, &'static str)| {
            let answer = column(name).ok_or_else(|| missing(name, "a text or a list of messages"))?;
            Ok((prefix, of(answer)?))
        };
        return PAIR.into_iter().map(side).collect();
    }
    if let Some(answer) = ANSWERS.into_iter().find_map(column) {
        return Ok(vec![("", of(answer)?)]);
    }
    match column("messages") {
        Some((name, messages @ Value::Array(_))) => Ok(vec![("", exchange(None, name, messages, finished)?)]),
        Some((name, other)) => Err(unexpected(name, other, "a list of messages")),
        None if prompt.is_some() => Err(missing("completion", "an answer to the prompt, or chosen and rejected")),
        None => Err(missing("prompt", "prompt and completion, messages, or chosen and rejected")),
    }
}

fn exchange(
    prompt: Option<(&str, &Value)>,
    name: &str,
    answer: &Value,
    finished: bool,
) -> std::result::Result<Exchange, Fault> {
    let before = match prompt {
        None => None,
        Some((_, Value::String(text))) => Some(Prompt::Text(text.clone())),
        Some((name, Value::Array(list))) => Some(Prompt::Chat(messages(name, list)?)),
        Some((name, other)) => return Err(unexpected(name, other, "a text or a list of messages")),
    };
    let needed = || missing(PROMPTS[0], "what is answered");
    let (prompt, answer) = match answer {
        Value::String(text) => (before.ok_or_else(needed)?, text.clone()),
        Value::Array(list) => {
            let mut said = messages(name, list)?;
            let last = said.pop().filter(|last| last.role == "assistant");
            let last = last.ok_or_else(|| {
                let what = "is not by the assistant (expected an answer at the end)";
                (format!("{name}[{}].role", list.len().saturating_sub(1)), what.to_string())
            })?;
            let prompt = match before {
                // Some data sets repeat in each conversation what its prompt was.
                None | Some(Prompt::Text(_)) if !said.is_empty() => Prompt::Chat(said),
                Some(Prompt::Chat(before)) if !said.starts_with(&before) => Prompt::Chat([before, said].concat()),
                Some(Prompt::Chat(_)) => Prompt::Chat(said),
                Some(Prompt::Text(text)) => Prompt::Chat(vec![Message { role: "user".into(), content: text }]),
                None => return Err(needed()),
            };
            (prompt, last.content)
        }
        other => return Err(unexpected(name, other, "a text or a list of messages")),
    };
    Ok(Exchange { prompt, answer, finished })
}

/// The messages of a list, `name` being its column.
fn messages(name: &str, list: &[Value]) -> std::result::Result<Vec<Message>, Fault> {
    if list.is_empty() {
        return Err((name.into(), "an empty list (expected messages)".into()));
    }
    let message = |(i, value): (usize, &Value)| {
        let Value::Object(map) = value else {
            return Err(unexpected(&format!("{name}[{i}]"), value, "a message with role and content"));
        };
        let text = |key: &str| match map.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            None => Err(missing(&format!("{name}[{i}].{key}"), "a text")),
            Some(other) => Err(unexpected(&format!("{name}[{i}].{key}"), other, "a text")),
        };
        Ok(Message { role: text("role")?, content: text("content")? })
    };
    list.iter().enumerate().map(message).collect()
}

fn missing(column: &str, expected: &str) -> Fault {
    (column.into(), format!("is missing (expected {expected})"))
}

fn unexpected(column: &str, value: &Value, expected: &str) -> Fault {
    (column.into(), format!("is {} (expected {expected})", kind(value)))
}

/// Longest line that is read, bytes.
const LONGEST: u64 = 1 << 26;

/// The rows of a jsonl file, one after the other; blank lines are passed over.
pub struct Rows {
    path: PathBuf,
    lines: BufReader<File>,
    number: usize,
}

impl Rows {
    /// Opens the file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        Ok(Self { path: path.into(), lines: BufReader::new(file), number: 0 })
    }

    /// The file and line of the row read last, as errors name them.
    pub fn place(&self) -> String {
        format!("{}:{}", self.path.display(), self.number)
    }

    /// The next row; none at the end.
    ///
    /// # Errors
    /// A line that is too long, not UTF-8 or not a JSON object, by file and line.
    pub fn next_row(&mut self) -> Result<Option<Map<String, Value>>> {
        let mut line = Vec::new();
        loop {
            line.clear();
            self.number += 1;
            let read = self.lines.by_ref().take(LONGEST + 1).read_until(b'\n', &mut line);
            if read.map_err(|error| unreadable(&self.path, &error))? == 0 {
                return Ok(None);
            }
            if line.len() as u64 > LONGEST {
                return Err(Error::file(self.place(), format!("is longer than {LONGEST} bytes")));
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let text = std::str::from_utf8(&line).map_err(|_| Error::file(self.place(), "is not UTF-8"))?;
            let row = serde_json::from_str(text);
            let not = |error| Error::file(self.place(), format!("is not a JSON object: {}", json_reason(&error)));
            return row.map(Some).map_err(not);
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::file(path, format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(row: Value) -> std::result::Result<Vec<(&'static str, Exchange)>, Fault> {
        exchanges(row.as_object().unwrap())
    }

    fn message(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into() }
    }

    #[test]
    fn a_text_prompt_stays_text_and_a_list_becomes_a_conversation() {
        for (prompt, answer) in [("prompt", "completion"), ("prompt", "response"), ("query", "reference_response")] {
            let read = read(json!({prompt: "p", answer: " a", "other": 1})).unwrap();
            let text = Exchange { prompt: Prompt::Text("p".into()), answer: " a".into(), finished: true };
            assert_eq!(read, [("", text)]);
        }
        let user = json!({"role": "user", "content": "p"});
        let said = json!({"role": "assistant", "content": "a"});
        let prompt = Prompt::Chat(vec![message("user", "p")]);
        let chat = Exchange { prompt, answer: "a".into(), finished: false };
        for row in [
            json!({"messages": [user, said], "stopped": false}),
            json!({"prompt": [user], "completion": [said], "stopped": false}),
            json!({"prompt": [user], "completion": "a", "stopped": false}),
            json!({"prompt": "p", "completion": [said], "stopped": false}),
            json!({"prompt": [user], "completion": [user, said], "stopped": false}),
        ] {
            assert_eq!(read(row).unwrap(), [("", chat.clone())]);
        }
        assert_eq!(chat.messages(), [message("user", "p"), message("assistant", "a")]);
    }

    #[test]
    fn a_preference_has_two_sides_with_or_without_a_prompt_of_its_own() {
        let user = json!({"role": "user", "content": "p"});
        let said = |text: &str| json!({"role": "assistant", "content": text});
        for row in [
            json!({"prompt": [user], "chosen": [said("a")], "rejected": [said("b")]}),
            json!({"chosen": [user, said("a")], "rejected": [user, said("b")]}),
            json!({"prompt": "p", "chosen": [user, said("a")], "rejected": [user, said("b")], "messages": []}),
        ] {
            let sides = read(row).unwrap();
            assert_eq!([sides[0].0, sides[1].0], ["chosen_", "rejected_"]);
            assert_eq!([sides[0].1.answer.as_str(), &sides[1].1.answer], ["a", "b"]);
            assert!(sides.iter().all(|(_, side)| side.prompt == Prompt::Chat(vec![message("user", "p")])));
        }
    }

    #[test]
    fn a_row_that_cannot_be_used_is_named_by_column() {
        let said = json!({"role": "assistant", "content": "a"});
        for (row, column, what) in [
            (json!({}), "prompt", "is missing"),
            (json!({"prompt": "p"}), "completion", "is missing (expected an answer"),
            (json!({"prompt": "p", "completion": null}), "completion", "is missing"),
            (json!({"prompt": 3, "completion": "a"}), "prompt", "is a number (expected a text or a list"),
            (json!({"completion": "a"}), "prompt", "is missing (expected what is answered)"),
            (json!({"prompt": "p", "chosen": "a"}), "rejected", "is missing"),
            (json!({"prompt": "p", "chosen": "a", "rejected": {}}), "rejected", "is an object"),
            (json!({"messages": "hello"}), "messages", "is a text (expected a list"),
            (json!({"messages": []}), "messages", "an empty list"),
            (json!({"messages": [said]}), "prompt", "is missing"),
            (json!({"messages": [3, said]}), "messages[0]", "is a number (expected a message"),
            (json!({"messages": [{"role": "user"}, said]}), "messages[0].content", "is missing"),
            (json!({"messages": [{"role": 1, "content": "p"}, said]}), "messages[0].role", "is a number"),
            (json!({"messages": [said, {"role": "user", "content": "p"}]}), "messages[1].role", "is not by"),
            (json!({"prompt": "p", "completion": "a", "stopped": 1}), "stopped", "is a number (expected true or"),
        ] {
            let (found, why) = read(row.clone()).unwrap_err();
            assert!(found == column && why.starts_with(what), "{row}: {found}: {why}");
        }
    }

    #[test]
    fn rows_are_counted_by_line_and_bad_lines_are_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"{\"a\":1}\n\n{\"b\":2}\n\xff\n").unwrap();
        let mut rows = Rows::open(file.path()).unwrap();
        assert!(rows.next_row().unwrap().unwrap().contains_key("a"));
        assert!(rows.next_row().unwrap().unwrap().contains_key("b"));
        assert!(rows.place().ends_with(":3"));
        let error = rows.next_row().unwrap_err().to_string();
        assert!(error.ends_with(":4: is not UTF-8"), "{error}");
        assert!(rows.next_row().unwrap().is_none());
        std::fs::write(file.path(), "[1]").unwrap();
        let error = Rows::open(file.path()).unwrap().next_row().unwrap_err().to_string();
        assert!(error.contains(":1: is not a JSON object"), "{error}");
    }
}
