//! Model cards: the `README.md` of a folder, its head in YAML as the Hub reads it, then what the model is made from. Only
//! what is known is said.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::{Result, files};

/// What a card says.
#[derive(Debug, Clone, Default)]
pub struct Card {
    /// The heading.
    pub title: String,
    /// The model it started from, if that is one of the Hub (`org/name`).
    pub base_model: Option<String>,
    /// The task, as the Hub calls it (`text-generation`, `text-classification`).
    pub pipeline: &'static str,
    /// The library whose folder layout it has (`transformers`, `peft`).
    pub library: &'static str,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Data sets of the Hub it was trained on.
    pub datasets: Vec<String>,
    /// A sentence or two.
    pub summary: String,
    /// How it was made: (what, value), each a row of a table.
    pub facts: Vec<(String, String)>,
}

impl Card {
    /// Its name in a folder.
    pub const FILE: &str = "README.md";

    /// Writes it as the `README.md` of `folder`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        files::write_whole(&folder.join(Self::FILE), |out| out.write_all(self.text().as_bytes()))
    }

    /// The file: a YAML head between two lines of dashes, then Markdown.
    pub fn text(&self) -> String {
        let mut text = String::from("---\n");
        let mut line = |key: &str, value: Value| {
            // JSON is YAML: strings stay what they are, whatever is in them.
            let _ = writeln!(text, "{key}: {value}");
        };
        if let Some(base) = &self.base_model {
            line("base_model", base.as_str().into());
        }
        line("library_name", self.library.into());
        line("pipeline_tag", self.pipeline.into());
        if !self.tags.is_empty() {
            line("tags", self.tags.clone().into());
        }
        if !self.datasets.is_empty() {
            line("datasets", self.datasets.clone().into());
        }
        let _ = write!(text, "---\n\n# {}\n\n{}\n", self.title, self.summary);
        if !self.facts.is_empty() {
            text.push_str("\n| | |\n|---|---|\n");
            for (what, value) in &self.facts {
                let cell = |text: &str| text.replace('|', "\\|").replace(['\n', '\r'], " ");
                let _ = writeln!(text, "| {} | {} |", cell(what), cell(value));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_the_head_cannot_break_out_of_it() {
        let card = Card {
            title: "small".into(),
            base_model: Some("org/name: \"x\"\n---".into()),
            pipeline: "text-generation",
            library: "transformers",
            tags: vec!["rebel".into(), "no".into()],
            datasets: Vec::new(),
            summary: "A model.".into(),
            facts: vec![("command".into(), "rebel train | tee\nlog".into())],
        };
        let text = card.text();
        let head: Vec<&str> = text.split("---\n").collect();
        assert_eq!(
            head[1],
            "base_model: \"org/name: \\\"x\\\"\\n---\"\nlibrary_name: \"transformers\"\n\
             pipeline_tag: \"text-generation\"\ntags: [\"rebel\",\"no\"]\n"
        );
        assert!(text.ends_with("# small\n\nA model.\n\n| | |\n|---|---|\n| command | rebel train \\| tee log |\n"));
    }
}
