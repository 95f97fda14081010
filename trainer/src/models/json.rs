//! Fields of a JSON object, each checked, each fault named by file and field.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// Longer files are refused: parsed JSON takes many times its text.
const LONGEST: u64 = 16 << 20;

/// The JSON object in the file `path`.
pub(super) fn read_object(path: &Path) -> Result<Map<String, Value>> {
    // A pipe or a device would never end.
    let metadata = std::fs::metadata(path).map_err(|e| Error::file(path, e))?;
    if !metadata.is_file() {
        return Err(Error::file(path, "not a file"));
    }
    if metadata.len() > LONGEST {
        return Err(Error::file(path, format!("{} bytes (expected at most {LONGEST})", metadata.len())));
    }
    let text = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    match serde_json::from_slice(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(Error::file(path, format!("{} is not an object", shown(&other)))),
        Err(error) => Err(Error::file(path, one_line(&error.to_string()))),
    }
}

/// `text` cut to a length for messages, with control characters escaped: a file's words must not break the line.
pub(super) fn one_line(text: &str) -> String {
    const SHOWN: usize = 120;
    let mut line: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        line.push_str("...");
    }
    line.replace("\\\"", "\"").replace("\\'", "'")
}

/// A value as a message shows it.
pub(super) fn shown(value: &Value) -> String {
    one_line(&value.to_string())
}

/// The fields of one object in a file; `null` counts as absent.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    /// The file, for messages.
    pub file: &'a Path,
    /// Path of the object inside the file: empty, or with a dot at its end.
    pub within: &'a str,
    /// The object.
    pub map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The fault `what` of the field `name`.
    pub fn fault(&self, name: &str, what: impl Into<String>) -> Error {
        Error::field(self.file, format!("{}{name}", self.within), what)
    }

    /// The field, if it is there and not null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }
}
