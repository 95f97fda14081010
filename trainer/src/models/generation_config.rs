//! What a folder's `generation_config.json` says about how its model is sampled.

use std::path::Path;

use super::json::{Fields, read_object, shown};
use crate::Result;

/// Defaults of a folder; what it does not say is absent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerationDefaults {
    /// Drawn, or the most probable token each time (also where the temperature is 0).
    pub do_sample: Option<bool>,
    /// Above 0.
    pub temperature: Option<f64>,
    /// At least 1; absent where the file says 0, which means all.
    pub top_k: Option<usize>,
    /// Above 0 and at most 1.
    pub top_p: Option<f64>,
    /// New tokens at most, at least 1.
    pub max_new: Option<usize>,
    /// Tokens that end a text.
    pub eos: Option<Vec<u32>>,
    /// Settings that would change the distribution in a way that is not supported, as the file has them.
    pub ignored: Vec<String>,
}

/// Settings of transformers that do nothing at these values.
const IDLE: [(&str, f64); 8] = [
    ("encoder_repetition_penalty", 1.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("min_p", 0.0),
    ("no_repeat_ngram_size", 0.0),
    ("num_beams", 1.0),
    ("repetition_penalty", 1.0),
    ("typical_p", 1.0),
];

impl GenerationDefaults {
    /// Reads the file; nothing is said by a folder that has none.
    ///
    /// # Errors
    /// Naming file and field: a value of the wrong type or out of range.
    pub fn load(folder: &Path) -> Result<Self> {
        let file = folder.join("generation_config.json");
        if !file.exists() {
            return Ok(Self::default());
        }
        let map = read_object(&file)?;
        let fields = Fields { file: &file, within: "", map: &map };
        let number = |name: &str, fits: fn(f64) -> bool, expected: &str| {
            let value = fields.number(name)?;
            match value.filter(|&value| !fits(value)) {
                Some(value) => Err(fields.fault(name, format!("{value} (expected {expected})"))),
                None => Ok(value),
            }
        };
        let temperature = number("temperature", |t| t >= 0.0 && t.is_finite(), "a number of at least 0")?;
        let top_p = number("top_p", |p| p > 0.0 && p <= 1.0, "a number above 0 and at most 1")?;
        let ignored = IDLE.iter().filter_map(|&(name, idle)| match fields.number(name) {
            Ok(None) => None,
            Ok(Some(value)) if value == idle => None,
            Ok(Some(value)) => Some(Ok(format!("{name} {}", shown(&value.into())))),
            Err(error) => Some(Err(error)),
        });
        Ok(Self {
            do_sample: if temperature == Some(0.0) { Some(false) } else { fields.flag("do_sample")? },
            temperature: temperature.filter(|&t| t > 0.0),
            top_k: fields.count("top_k")?.filter(|&k| k > 0),
            top_p,
            max_new: fields.width("max_new_tokens")?,
            eos: fields.tokens("eos_token_id")?,
            ignored: ignored.collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<GenerationDefaults> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("generation_config.json"), text).unwrap();
        GenerationDefaults::load(folder.path())
    }

    #[test]
    fn what_a_file_says_is_taken_and_what_it_does_not_say_is_absent() {
        let all = r#"{"do_sample": true, "temperature": 0.6, "top_k": 0, "top_p": 0.9, "max_new_tokens": 7,
            "eos_token_id": [1, 2], "repetition_penalty": 1.1, "num_beams": 1, "transformers_version": "4"}"#;
        let read_all = read(all).unwrap();
        assert_eq!((read_all.do_sample, read_all.temperature, read_all.top_k), (Some(true), Some(0.6), None));
        assert_eq!((read_all.top_p, read_all.max_new, read_all.eos), (Some(0.9), Some(7), Some(vec![1, 2])));
        assert_eq!(read_all.ignored, ["repetition_penalty 1.1"]);
        let nothing = GenerationDefaults::load(Path::new("no such folder")).unwrap();
        assert_eq!(nothing, GenerationDefaults::default());
        assert_eq!(read(r#"{"temperature": 0}"#).unwrap().do_sample, Some(false));
    }

    #[test]
    fn a_bad_value_is_named_with_its_file() {
        for (text, part) in [
            (r#"{"temperature": "hot"}"#, "generation_config.json: temperature: \"hot\" (expected a number)"),
            (r#"{"temperature": -1}"#, "temperature: -1 (expected a number of at least 0)"),
            (r#"{"top_p": 2}"#, "top_p: 2 (expected a number above 0 and at most 1)"),
            (r#"{"top_k": -3}"#, "top_k: -3"),
            (r#"{"eos_token_id": "x"}"#, "eos_token_id: \"x\""),
            (r#"{"max_new_tokens": 0}"#, "max_new_tokens: 0"),
            (r#"{"do_sample": 1}"#, "do_sample: 1"),
            (r#"{"min_p": []}"#, "min_p: []"),
            ("[1]", "is not an object"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{error}");
        }
    }
}
