//! Fields of a JSON object, each checked, each fault named by file and field.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// Longer files are refused: parsed JSON takes many times its text.
const LONGEST: u64 = 16 << 20;

/// The bytes of the file `path`, at most `longest`.
pub(super) fn read_bytes(path: &Path, longest: u64) -> Result<Vec<u8>> {
    // A pipe or a device would never end.
    let metadata = std::fs::metadata(path).map_err(|e| Error::file(path, e))?;
    if !metadata.is_file() {
        return Err(Error::file(path, "not a file"));
    }
    if metadata.len() > longest {
        return Err(Error::file(path, format!("{} bytes (expected at most {longest})", metadata.len())));
    }
    std::fs::read(path).map_err(|e| Error::file(path, e))
}

/// The text in the file `path`, at most `longest` bytes.
pub(super) fn read_text(path: &Path, longest: u64) -> Result<String> {
    String::from_utf8(read_bytes(path, longest)?)
        .map_err(|e| Error::file(path, format!("not UTF-8: {}", e.utf8_error())))
}

/// The JSON object in the file `path`.
pub(super) fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let text = read_bytes(path, LONGEST)?;
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

    /// Whether the field is there, be it null.
    pub fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// The field as `read` understands it, or the fault that it is not `expected`.
    fn typed<T>(&self, name: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let read =
            |value| read(value).ok_or_else(|| self.fault(name, format!("{} (expected {expected})", shown(value))));
        self.get(name).map(read).transpose()
    }

    /// A whole number above 0.
    pub fn width(&self, name: &str) -> Result<Option<usize>> {
        match self.get(name).map(|value| (value, value.as_u64().and_then(|n| usize::try_from(n).ok()))) {
            None => Ok(None),
            Some((_, Some(n))) if n > 0 => Ok(Some(n)),
            Some((value, _)) => Err(self.fault(name, format!("{} is not a width (expected at least 1)", shown(value)))),
        }
    }

    /// A whole number above 0 that must be there.
    pub fn needed_width(&self, name: &str) -> Result<usize> {
        self.width(name)?.ok_or_else(|| self.fault(name, "missing (expected a width)"))
    }

    /// A number that is no fraction and not below 0.
    pub fn count(&self, name: &str) -> Result<Option<usize>> {
        self.typed(name, "a whole number", |value| value.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    /// A number.
    pub fn number(&self, name: &str) -> Result<Option<f64>> {
        self.typed(name, "a number", Value::as_f64)
    }

    /// The first of `names` that is there, a number.
    pub fn first_number(&self, names: &[&str]) -> Result<Option<f64>> {
        names.iter().find(|name| self.get(name).is_some()).map_or(Ok(None), |name| self.number(name))
    }

    /// True or false.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.typed(name, "true or false", Value::as_bool)
    }

    /// A string.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.typed(name, "a string", Value::as_str)
    }

    /// A token's id.
    pub fn token(&self, name: &str) -> Result<Option<u32>> {
        self.typed(name, "a token's id", id)
    }

    /// A token's id or a list of them.
    pub fn tokens(&self, name: &str) -> Result<Option<Vec<u32>>> {
        self.typed(name, "a token's id or a list of them", |value| match value {
            Value::Array(ids) => ids.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        })
    }

    /// A list of strings.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<&'a str>>> {
        self.typed(name, "a list of strings", |value| value.as_array()?.iter().map(Value::as_str).collect())
    }

    /// An object; `within` is its path, with a dot at its end.
    pub fn object(&self, name: &str, within: &'a str) -> Result<Option<Self>> {
        let map = self.typed(name, "an object", Value::as_object)?;
        Ok(map.map(|map| Self { file: self.file, within, map }))
    }
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}
