//! Tiny TL;DR: a small world with the real data set's columns, made from a seed.
//!
//! The reader finds the closed word lists ([`words`]), facts in text ([`text`]), posts ([`grammar`]), what people
//! and sloppy writers make of them ([`summary`]), the gold reward ([`gold`]) and the noisy preferences drawn from it
//! ([`preference`]). This file writes the world to disk. Every row has its own random stream: the bytes depend on the
//! settings alone.

pub mod gold;
pub mod grammar;
pub mod preference;
pub mod summary;
pub mod text;
pub mod words;

use std::io;
use std::path::Path;

use rand::Rng;
use serde_json::{Map, Value, json};

use crate::Result;
use crate::data::columns::{self, Tokens};
use crate::files;
use grammar::{Post, Purpose, Split, post, stream};
use preference::{Compared, Judge};

/// The settings of a world.
#[derive(Clone, Debug, PartialEq)]
pub struct TinyTldr {
    /// Seed of everything.
    pub seed: u64,
    /// Rows of `references/train.jsonl`.
    pub train: usize,
    /// Rows of `references/validation.jsonl`.
    pub validation: usize,
    /// Rows of `references/test.jsonl`.
    pub test: usize,
    /// Rows of `comparisons/train.jsonl` and `preferences/train.jsonl`.
    pub comparisons: usize,
    /// Rows of their validation files.
    pub comparisons_validation: usize,
    /// The judges' inverse noise level, per unit of gold reward. At 2 about three labels in four name the summary of
    /// higher gold reward, which is how often people agree with each other.
    pub beta: f64,
    /// The command that makes the world, for the manifest.
    pub command: String,
}

impl Default for TinyTldr {
    fn default() -> Self {
        Self {
            seed: 1,
            train: 8192,
            validation: 512,
            test: 512,
            comparisons: 8192,
            comparisons_validation: 1024,
            beta: 2.0,
            command: "rebel reproduce".into(),
        }
    }
}

impl TinyTldr {
    /// The judge whose preferences the world's comparisons hold.
    pub fn judge(&self) -> Judge {
        Judge { seed: self.seed, beta: self.beta }
    }
}

/// The reference summary of a row, without leading space.
pub fn reference(seed: u64, split: Split, row: u64, post: &Post) -> String {
    summary::reference(post, &mut stream(seed, split, row, Purpose::Reference))
}

/// Posts with their reference summaries, to look at; of no other split.
pub fn examples(seed: u64, n: u64) -> Vec<(Post, String)> {
    (0..n)
        .map(|row| {
            let post = post(seed, Split::Example, row);
            let summary = reference(seed, Split::Example, row, &post);
            (post, summary)
        })
        .collect()
}

/// Text for pre-training and for training a tokenizer: `n` documents without an end of text, seven in ten a prompt
/// with its summary, the others a post alone, a summary before its post, or a comment thread.
pub fn corpus(seed: u64, n: u64) -> impl Iterator<Item = String> {
    (0..n).map(move |row| {
        let post = post(seed, Split::Corpus, row);
        let summary = reference(seed, Split::Corpus, row, &post);
        let Post { subreddit, title, body, .. } = &post;
        match stream(seed, Split::Corpus, row, Purpose::Corpus).random_range(0..10) {
            0..=6 => format!("{} {summary}", post.prompt()),
            7 => format!("SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {body}"),
            8 => format!("TL;DR: {summary}\n\nPOST: {body}"),
            _ => format!("{title}\n\n{body}\n\nTL;DR: {summary}"),
        }
    })
}

/// Writes the world into `dir`: `references/{train,validation,test}.jsonl`, `comparisons/{train,validation}.jsonl` (the
/// raw layout), `preferences/{train,validation}.jsonl` (the processed one), `README.md`, and last `manifest.json`, so
/// that a folder with a manifest is a whole world. Token columns are written where `tokens` is given.
///
/// # Errors
/// A file cannot be written: one line that names it. That file is then as it was before, or absent.
pub fn write(dir: &Path, world: &TinyTldr, tokens: Option<&Tokens<'_>>) -> Result<()> {
    let mut counts = Map::new();
    for (split, rows) in [(Split::Train, world.train), (Split::Validation, world.validation), (Split::Test, world.test)]
    {
        let name = format!("references/{}.jsonl", split.name());
        let lines = (0..rows as u64).map(|row| reference_row(world.seed, split, row, tokens));
        write_lines(&dir.join(&name), lines)?;
        counts.insert(name, json!(rows));
    }
    let compared =
        [(Split::ComparisonTrain, world.comparisons), (Split::ComparisonValidation, world.comparisons_validation)];
    for (split, rows) in compared {
        let judge = world.judge();
        let pairs: Vec<Compared> = (0..rows as u64).map(|row| Compared::draw(&judge, split, row)).collect();
        for (name, written) in write_comparisons(dir, split, &pairs, tokens)? {
            counts.insert(name, json!(written));
        }
    }
    files::write_whole(&dir.join("README.md"), |out| out.write_all(readme(world).as_bytes()))?;
    let manifest = json!({
        "world": "tiny-tldr",
        "command": world.command,
        "seed": world.seed,
        "beta": world.beta,
        "rows": counts,
        "token_columns": tokens.is_some(),
    });
    files::write_whole(&dir.join("manifest.json"), |out| {
        serde_json::to_writer_pretty(&mut *out, &manifest).map_err(io::Error::from)?;
        out.write_all(b"\n")
    })
}

/// Writes compared pairs, the world's own or a model's, as `comparisons/SPLIT.jsonl` and `preferences/SPLIT.jsonl` under
/// `dir`. Returns the two names with their numbers of rows.
///
/// # Errors
/// As [`write()`].
pub fn write_comparisons(
    dir: &Path,
    split: Split,
    pairs: &[Compared],
    tokens: Option<&Tokens<'_>>,
) -> Result<[(String, usize); 2]> {
    let raw = format!("comparisons/{}.jsonl", split.name());
    write_lines(&dir.join(&raw), pairs.iter().map(Compared::raw))?;
    let processed = format!("preferences/{}.jsonl", split.name());
    write_lines(&dir.join(&processed), pairs.iter().map(|pair| pair.processed(tokens)))?;
    Ok([(raw, pairs.len()), (processed, pairs.len())])
}

/// A row of the reference set, in the order of the published columns.
fn reference_row(seed: u64, split: Split, row: u64, tokens: Option<&Tokens<'_>>) -> Map<String, Value> {
    let post = post(seed, split, row);
    let summary = reference(seed, split, row, &post);
    let texts = [
        ("id", post.id.as_str()),
        ("subreddit", post.subreddit),
        ("title", &post.title),
        ("post", &post.body),
        ("summary", &summary),
    ];
    let mut columns: Map<String, Value> =
        texts.map(|(name, text)| (name.to_string(), json!(text))).into_iter().collect();
    columns.extend(columns::reference(&post.prompt(), &summary, tokens));
    columns
}

fn write_lines(path: &Path, rows: impl Iterator<Item = Map<String, Value>>) -> Result<()> {
    files::write_whole(path, |out| {
        for row in rows {
            serde_json::to_writer(&mut *out, &row).map_err(io::Error::from)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })
}

fn readme(world: &TinyTldr) -> String {
    format!(
        "# Tiny TL;DR\n\n\
         Posts, summaries and preferences drawn from a seeded grammar; no text here was written by a person.\n\
         Made by `{}` from seed {}; `manifest.json` counts the rows.\n\n\
         - `references/`: posts with a reference summary, in the columns of the filtered TL;DR set.\n\
         - `comparisons/`: pairs of summaries with a choice, in the raw columns of the comparison set.\n\
         - `preferences/`: the same pairs as `query`, `chosen`, `rejected`.\n\n\
         A pair's first summary is preferred with probability sigmoid({} (g - g')), g and g' being the gold rewards\n\
         of the two summaries: coverage of the post's facts, brevity, nothing invented.\n",
        world.command, world.seed, world.beta
    )
}

#[cfg(test)]
mod tests;
