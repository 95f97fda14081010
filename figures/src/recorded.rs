//! Committed results: `figures/data/*.json`, each with how it was made. They are embedded, so that the program can draw
//! them wherever it is.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::render::write_whole;

/// How numbers were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The command that makes them again.
    pub command: String,
    /// The commit it was run at.
    pub commit: String,
    /// The seeds used; empty where nothing is random.
    pub seeds: Vec<u64>,
    /// The machine, in words.
    pub machine: String,
    /// The day, as year-month-day.
    pub date: String,
}

/// Numbers and how they were made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recorded<T> {
    #[serde(flatten)]
    pub provenance: Provenance,
    pub data: T,
}

impl<T: Serialize + DeserializeOwned> Recorded<T> {
    /// Reads an embedded file; `name` is what an error calls it.
    pub fn read(name: &str, text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| Error::line(Path::new(name), e.line(), e.to_string()))
    }

    /// Writes it whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let value = serde_json::to_value(self).map_err(|e| Error::content(path, e.to_string()))?;
        write_whole(path, format!("{}\n", legible(&value, 0)).as_bytes())
    }
}

/// Writes numbers that were made outside this crate, with how they were made, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn record(path: &Path, provenance: Provenance, data: Value) -> Result<()> {
    Recorded { provenance, data }.write(path)
}

impl Provenance {
    /// What made a figure's data here and now: the commit of the checkout at `root`, this machine's processor, today.
    pub fn here(command: &str, root: &Path) -> Self {
        Self { command: command.into(), commit: commit(root), seeds: Vec::new(), machine: machine(), date: today() }
    }
}

/// JSON with arrays of plain values on one line and everything else on lines of its own: to be read and compared.
fn legible(value: &Value, indent: usize) -> String {
    let nested = |v: &Value| v.is_object() || v.is_array();
    let lines = |open: char, close: char, items: Vec<String>| {
        let pad = " ".repeat(indent);
        format!("{open}\n{pad}  {}\n{pad}{close}", items.join(&format!(",\n{pad}  ")))
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            let item =
                |(key, v): (&String, &Value)| format!("{}: {}", Value::from(key.as_str()), legible(v, indent + 2));
            lines('{', '}', map.iter().map(item).collect())
        }
        Value::Array(items) if items.iter().any(nested) => {
            lines('[', ']', items.iter().map(|v| legible(v, indent + 2)).collect())
        }
        plain => plain.to_string(),
    }
}

/// The commit's short name, `+` appended where tracked files (the numbers themselves aside) differ from it; `unknown`
/// without git.
fn commit(root: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let Some(name) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".into() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", ".", ":!figures/data"])
        .is_none_or(|changes| !changes.is_empty());
    if changed { format!("{name}+") } else { name }
}

/// The processor's name and the number of cores.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|m| m.trim_start_matches([' ', '\t', ':']));
    let model = model.unwrap_or(std::env::consts::ARCH);
    format!("{model}, {cores} {}", if cores == 1 { "core" } else { "cores" })
}

fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil((since.as_secs() / 86_400) as i64);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Year, month and day of a number of days since 1970-01-01 (Gregorian; years are counted from March so that the leap
/// day is a year's last).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // since 0000-03-01
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn civil_dates_equal_known_ones() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(19_834), (2024, 4, 21));
        assert_eq!(civil(-1), (1969, 12, 31));
    }

    #[test]
    fn legible_json_means_the_same_and_keeps_numbers_on_one_line() {
        let value = serde_json::json!({"a": [1.5, 2, 3], "b": "x[\n\"", "c": [{"d": [4, 5]}, {"d": [], "e": {}}]});
        let text = legible(&value, 0);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert!(text.contains("  \"a\": [1.5,2,3],\n"), "{text}");
    }
}
