//! `metrics.jsonl`: one JSON object a line, keys in a fixed order, numbers that read back as the same bits.

use crate::{Error, Result};
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Prefix of the keys that differ between two equal runs.
pub const TIME: &str = "time/";

/// Appends records to a file, each whole and at once.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
}

impl JsonLines {
    /// Opens `path` for appending, after cutting it to its first `keep` bytes (what a checkpoint remembers).
    ///
    /// # Errors
    /// When the file cannot be opened, or is shorter than `keep`.
    pub fn open(path: &Path, keep: u64) -> Result<Self> {
        let failed = |e: std::io::Error| Error::file(path, e);
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length < keep {
            return Err(Error::file(
                path,
                format!("{length} bytes long (expected at least {keep}, as its checkpoint says)"),
            ));
        }
        file.set_len(keep).map_err(failed)?;
        Ok(Self { path: path.into(), file })
    }

    /// Appends `record`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self, record: &Value) -> Result<()> {
        let mut line = record.to_string();
        line.push('\n');
        let failed = |e: std::io::Error| Error::file(&self.path, e);
        let before = self.file.metadata().map_err(failed)?.len();
        self.file.write_all(line.as_bytes()).map_err(|error| {
            self.file.set_len(before).ok(); // no half line on a full disk
            failed(error)
        })
    }

    /// Bytes written so far, on disk.
    ///
    /// # Errors
    /// When the file cannot be synced.
    pub fn synced_length(&self) -> Result<u64> {
        let failed = |e: std::io::Error| Error::file(&self.path, e);
        self.file.sync_data().map_err(failed)?;
        Ok(self.file.metadata().map_err(failed)?.len())
    }
}

/// One line of metrics: the stage, the step, then numbers by name.
#[derive(Debug, Clone)]
pub struct Record(Map<String, Value>);

impl Record {
    /// A record of update (or iteration) `step`, counted from 1, of `stage`.
    pub fn new(stage: &str, step: usize) -> Self {
        let mut map = Map::new();
        map.insert("stage".into(), stage.into());
        map.insert("step".into(), step.into());
        Self(map)
    }

    /// Adds a number; one that is not finite is written as null.
    pub fn number(mut self, key: &str, value: f64) -> Self {
        self.0.insert(key.into(), value.into());
        self
    }

    /// Adds a whole number.
    pub fn count(mut self, key: &str, value: u64) -> Self {
        self.0.insert(key.into(), value.into());
        self
    }

    /// As JSON.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// A number added before.
    pub fn get(&self, key: &str) -> Option<f64> {
        self.0.get(key).and_then(Value::as_f64)
    }
}

/// Mean of `values`; `None` of nothing.
pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0u64), |(s, n), v| (s + v, n + 1));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reopening_at_a_checkpoint_forgets_what_came_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut lines = JsonLines::open(&path, 0).unwrap();
        lines.write(&Record::new("sft", 1).number("loss/train", 0.1 + 0.2).into_value()).unwrap();
        let at = lines.synced_length().unwrap();
        lines.write(&Record::new("sft", 2).number("loss/train", f64::NAN).into_value()).unwrap();
        let mut lines = JsonLines::open(&path, at).unwrap();
        lines.write(&Record::new("sft", 2).number("loss/train", 1.0).into_value()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "{\"stage\":\"sft\",\"step\":1,\"loss/train\":0.30000000000000004}\n{\"stage\":\"sft\",\"step\":2,\"loss/train\":1.0}\n"
        );
        assert!(JsonLines::open(&path, 1 << 20).is_err());
    }
}
