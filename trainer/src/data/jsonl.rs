//! Rows of jsonl files, checked as they are read. A row that cannot be used for a stated reason (a null, an empty
//! text, too many tokens, invalid UTF-8) is dropped and counted; a file that is not what it should be is an error
//! that names line and field.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// A prompt with a person's summary: a row of the TL;DR reference set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The post's id, `t3_...`.
    pub id: String,
    /// The subreddit's name without `r/`.
    pub subreddit: String,
    /// The post's title.
    pub title: String,
    /// The post's text.
    pub post: String,
    /// The person's summary, without leading space or end of text.
    pub summary: String,
    /// The whole prompt, ending in `TL;DR:`.
    pub query: String,
    /// A space, the summary, `<|endoftext|>`.
    pub reference_response: String,
}

/// Two responses to a prompt and which one was preferred: a processed row of the comparison set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The whole prompt, ending in `TL;DR:`.
    pub query: String,
    /// The response preferred, with its leading space and `<|endoftext|>`.
    pub chosen: String,
    /// The other response.
    pub rejected: String,
    /// What wrote the preferred response.
    #[serde(default)]
    pub chosen_policy: String,
    /// What wrote the other.
    #[serde(default)]
    pub rejected_policy: String,
    /// `query` and `chosen` as one text.
    #[serde(default)]
    pub query_chosen: String,
    /// `query` and `rejected` as one text.
    #[serde(default)]
    pub query_rejected: String,
}

/// Why a row was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// A text column is null.
    Null,
    /// A text column is empty or blank.
    Empty,
    /// The prompt is longer than the limit.
    LongPrompt,
    /// A response is longer than the limit.
    LongResponse,
    /// The line is not UTF-8.
    NotUtf8,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "with a null",
            Self::Empty => "with an empty text",
            Self::LongPrompt => "with too long a prompt",
            Self::LongResponse => "with too long a response",
            Self::NotUtf8 => "not UTF-8",
        })
    }
}

/// The rows of a file and what was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows<T> {
    /// The rows kept, in the file's order.
    pub rows: Vec<T>,
    /// How many rows were dropped for each reason.
    pub dropped: BTreeMap<Dropped, usize>,
}

impl<T> Rows<T> {
    /// `3 with a null, 2 with too long a prompt`, or `none`.
    pub fn dropped_in_words(&self) -> String {
        let reasons: Vec<String> = self.dropped.iter().map(|(why, n)| format!("{n} {why}")).collect();
        if reasons.is_empty() { "none".into() } else { reasons.join(", ") }
    }
}

/// How long a row may be, in the caller's measure.
pub struct Limits<'a> {
    /// The length of a text, usually in tokens.
    pub length: &'a dyn Fn(&str) -> usize,
    /// The longest prompt.
    pub prompt: usize,
    /// The longest response, end of text included.
    pub response: usize,
}

/// Reads a reference set. Rows longer than `limits` are dropped; without limits none is.
///
/// # Errors
/// The file cannot be read, a line is not a JSON object, a column is missing or is not a text, or no row is left.
pub fn references(path: &Path, limits: Option<&Limits<'_>>) -> Result<Rows<Reference>> {
    let columns = ["id", "subreddit", "title", "post", "summary", "query", "reference_response"];
    read(path, &columns, |row: &Reference| too_long(&row.query, &[&row.reference_response], limits))
}

/// Reads a processed comparison set: `query`, `chosen` and `rejected` are needed, the other columns may be absent.
///
/// # Errors
/// As [`references`].
pub fn comparisons(path: &Path, limits: Option<&Limits<'_>>) -> Result<Rows<Comparison>> {
    let columns = ["query", "chosen", "rejected"];
    read(path, &columns, |row: &Comparison| too_long(&row.query, &[&row.chosen, &row.rejected], limits))
}

fn too_long(prompt: &str, responses: &[&str], limits: Option<&Limits<'_>>) -> Option<Dropped> {
    let limits = limits?;
    if (limits.length)(prompt) > limits.prompt {
        return Some(Dropped::LongPrompt);
    }
    let long = responses.iter().any(|response| (limits.length)(response) > limits.response);
    long.then_some(Dropped::LongResponse)
}

/// Reads the rows of `path` that have a text in each of `columns` and for which `refuse` gives no reason.
fn read<T: for<'de> Deserialize<'de>>(
    path: &Path,
    columns: &[&str],
    refuse: impl Fn(&T) -> Option<Dropped>,
) -> Result<Rows<T>> {
    let file = File::open(path).map_err(|error| Error::file(path, format!("cannot be read: {error}")))?;
    let mut out = Rows { rows: Vec::new(), dropped: BTreeMap::new() };
    for (number, line) in (1..).zip(BufReader::new(file).split(b'\n')) {
        let line = line.map_err(|error| Error::file(path, format!("cannot be read: {error}")))?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let at = format!("{}:{number}", path.display());
        match row(&at, &line, columns)?.and_then(|row: T| refuse(&row).map_or(Ok(row), Err)) {
            Ok(row) => out.rows.push(row),
            Err(why) => *out.dropped.entry(why).or_insert(0) += 1,
        }
    }
    if out.rows.is_empty() {
        let what = format!("has no row to use (dropped: {})", out.dropped_in_words());
        return Err(Error::file(path, what));
    }
    Ok(out)
}

/// The row of one line, or why it is dropped. `at` is the file and line that errors name.
fn row<T: for<'de> Deserialize<'de>>(
    at: &str,
    line: &[u8],
    columns: &[&str],
) -> Result<std::result::Result<T, Dropped>> {
    let Ok(text) = std::str::from_utf8(line) else { return Ok(Err(Dropped::NotUtf8)) };
    let object: Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| Error::file(at, format!("is not a JSON object: {}", json_reason(&error))))?;
    for &column in columns {
        match object.get(column) {
            None => return Err(Error::field(at, column, "is missing (expected a text)")),
            Some(Value::Null) => return Ok(Err(Dropped::Null)),
            Some(Value::String(text)) if text.trim().is_empty() => return Ok(Err(Dropped::Empty)),
            Some(Value::String(_)) => {}
            Some(other) => return Err(Error::field(at, column, format!("is {} (expected a text)", kind(other)))),
        }
    }
    serde_json::from_value(Value::Object(object)).map(Ok).map_err(|error| Error::file(at, json_reason(&error)))
}

/// serde_json's reason without its position, which counts within the line.
pub(super) fn json_reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_string()
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(lines: &[&[u8]]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines.join(&b'\n')).unwrap();
        file
    }

    const GOOD: &[u8] = br#"{"query":"a b","chosen":" c","rejected":" d","extra":1}"#;

    fn error(line: &[u8]) -> String {
        let file = file(&[GOOD, line]);
        let text = comparisons(file.path(), None).unwrap_err().to_string();
        let name = format!("{}:2: ", file.path().display());
        text.strip_prefix(&name).unwrap_or_else(|| panic!("{text} does not name {name}")).to_string()
    }

    #[test]
    fn bad_line_is_named_with_its_field() {
        assert_eq!(error(br#"{"query":"a","chosen":"c"}"#), "rejected: is missing (expected a text)");
        assert_eq!(error(br#"{"query":7,"chosen":"c","rejected":"d"}"#), "query: is a number (expected a text)");
        assert!(error(b"[1]").starts_with("is not a JSON object"));
        assert!(error(br#"{"query":"a","chos"#).starts_with("is not a JSON object"));
        assert!(error(br#"{"query":"a","chosen":"c","rejected":"d","chosen_policy":3}"#).contains("expected a string"));
    }

    #[test]
    fn dropped_rows_are_counted_by_reason() {
        let file = file(&[
            GOOD,
            br#"{"query":null,"chosen":" c","rejected":" d"}"#,
            br#"{"query":"  ","chosen":" c","rejected":" d"}"#,
            b"{\"query\":\"\xff\",\"chosen\":\" c\",\"rejected\":\" d\"}",
            br#"{"query":"a b c d","chosen":" c","rejected":" d"}"#,
            br#"{"query":"a","chosen":" c","rejected":" d d d"}"#,
            b"",
        ]);
        let length = |text: &str| text.split_whitespace().count();
        let read = comparisons(file.path(), Some(&Limits { length: &length, prompt: 3, response: 2 })).unwrap();
        assert_eq!(read.rows.len(), 1);
        assert_eq!(read.dropped.values().sum::<usize>(), 5);
        assert_eq!(read.dropped[&Dropped::LongResponse], 1);
        assert_eq!(
            read.dropped_in_words(),
            "1 with a null, 1 with an empty text, 1 with too long a prompt, 1 with too long a response, 1 not UTF-8"
        );
    }

    #[test]
    fn file_without_a_usable_row_is_an_error() {
        let file = file(&[br#"{"query":null,"chosen":" c","rejected":" d"}"#]);
        let text = comparisons(file.path(), None).unwrap_err().to_string();
        assert!(text.ends_with("has no row to use (dropped: 1 with a null)"), "{text}");
    }

    #[test]
    fn missing_file_is_one_line() {
        let text = references(Path::new("nowhere/rows.jsonl"), None).unwrap_err().to_string();
        assert!(text.starts_with("nowhere/rows.jsonl: cannot be read") && !text.contains('\n'), "{text}");
    }
}
