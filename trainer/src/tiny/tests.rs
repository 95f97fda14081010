//! Tests of the world as a whole: its files, its columns, its length in tokens.

use std::fs;

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use super::*;
use crate::data::format::END_OF_TEXT;
use crate::data::jsonl;

fn small(seed: u64) -> TinyTldr {
    TinyTldr {
        seed,
        train: 40,
        validation: 10,
        test: 10,
        comparisons: 30,
        comparisons_validation: 10,
        ..TinyTldr::default()
    }
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                out.push((path.strip_prefix(dir).unwrap().display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }
    out.sort();
    out
}

fn written(world: &TinyTldr, tokens: Option<&Tokens<'_>>) -> (tempfile::TempDir, Vec<(String, Vec<u8>)>) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), world, tokens).unwrap();
    let files = files(dir.path());
    (dir, files)
}

fn first_row(files: &[(String, Vec<u8>)], name: &str) -> Map<String, Value> {
    let (_, bytes) = files.iter().find(|(file, _)| file == name).unwrap();
    serde_json::from_slice(bytes.split(|&b| b == b'\n').next().unwrap()).unwrap()
}

/// A byte-level BPE of `size` entries trained on the world's corpus.
fn byte_level_bpe(size: usize) -> Tokenizer {
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(size)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build()
        .into();
    let texts: Vec<String> = corpus(1, 2000).collect();
    tokenizer.train(&mut trainer, texts.iter().map(String::as_str)).unwrap();
    tokenizer
}

#[test]
fn same_seed_gives_the_same_bytes_and_another_seed_others() {
    let (first, again, other) = (written(&small(1), None).1, written(&small(1), None).1, written(&small(2), None).1);
    assert_eq!(first, again);
    for ((name, bytes), (_, others)) in first.iter().zip(&other) {
        assert_ne!(bytes, others, "{name}");
    }
}

#[test]
fn row_does_not_depend_on_the_number_of_rows() {
    let larger = TinyTldr { train: 80, comparisons: 60, ..small(1) };
    let (few, many) = (written(&small(1), None).1, written(&larger, None).1);
    for ((name, few), (_, many)) in few.iter().zip(&many).filter(|((name, _), _)| name.ends_with("jsonl")) {
        assert!(many.starts_with(few), "{name}");
    }
}

#[test]
fn columns_are_those_of_the_published_sets() {
    let encode = |text: &str| text.bytes().map(u32::from).collect();
    let tokens = Tokens { encode: &encode, pad: 300, query: 700, response: 200, query_response: 900 };
    let (_dir, files) = written(&small(1), Some(&tokens));
    let columns = |name: &str| first_row(&files, name).keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        columns("references/train.jsonl"),
        "id subreddit title post summary query_token query reference_response reference_response_token_len \
         reference_response_token query_reference_response query_reference_response_token \
         query_reference_response_token_response_label query_reference_response_token_len"
    );
    assert_eq!(columns("comparisons/validation.jsonl"), "info summaries choice worker batch split extra");
    assert_eq!(
        columns("preferences/train.jsonl"),
        "query_token_len query_token query chosen_policy chosen chosen_token query_chosen query_chosen_token \
         query_chosen_token_response_label rejected_policy rejected rejected_token query_rejected \
         query_rejected_token query_rejected_token_response_label"
    );
    assert_eq!(first_row(&files, "preferences/train.jsonl")["query_token"].as_array().unwrap().len(), 700);
}

#[test]
fn written_rows_are_read_back() {
    let world = small(4);
    let (dir, _) = written(&world, None);
    let references = jsonl::references(&dir.path().join("references/train.jsonl"), None).unwrap();
    assert_eq!(references.rows.len(), world.train);
    assert!(references.dropped.is_empty());
    for (row, read) in (0..).zip(&references.rows) {
        let post = post(4, Split::Train, row);
        assert_eq!((&read.post, &read.query), (&post.body, &post.prompt()));
        assert_eq!(read.reference_response, format!(" {}{END_OF_TEXT}", read.summary));
    }
    let comparisons = jsonl::comparisons(&dir.path().join("preferences/validation.jsonl"), None).unwrap();
    assert_eq!(comparisons.rows.len(), world.comparisons_validation);
    for pair in comparisons.rows {
        assert_eq!(pair.query_chosen, format!("{}{}", pair.query, pair.chosen));
        assert_ne!(pair.chosen, pair.rejected);
    }
}

#[test]
fn manifest_counts_the_lines_of_every_file() {
    let (_dir, files) = written(&small(1), None);
    let (_, manifest) = files.iter().find(|(name, _)| name == "manifest.json").unwrap();
    let manifest: Value = serde_json::from_slice(manifest).unwrap();
    let rows = manifest["rows"].as_object().unwrap();
    assert_eq!(rows.len(), 7);
    for (name, count) in rows {
        let (_, bytes) = files.iter().find(|(file, _)| file == name).unwrap();
        assert_eq!(bytes.iter().filter(|&&b| b == b'\n').count() as u64, count.as_u64().unwrap(), "{name}");
    }
}

#[test]
fn unwritable_folder_is_one_line_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("references"), "a file, not a folder").unwrap();
    let error = write(dir.path(), &small(1), None).unwrap_err().to_string();
    assert!(error.contains("references/train.jsonl: cannot be written") && !error.contains('\n'), "{error}");
    assert!(!dir.path().join("manifest.json").exists());
}

#[test]
fn prompts_and_summaries_are_short_in_tokens() {
    // Vocabulary, then the most that a prompt and a response with its end of text may have, on average and at most.
    for (size, prompt, response) in [(512, (80.0, 120), (26.0, 52)), (768, (64.0, 96), (20.0, 38))] {
        let tokenizer = byte_level_bpe(size);
        let length = |text: &str| tokenizer.encode(text, false).unwrap().len();
        let examples = examples(9, 2000);
        let prompts = examples.iter().map(|(post, _)| length(&post.prompt())).collect();
        let responses = examples.iter().map(|(_, summary)| length(&crate::data::format::response(summary))).collect();
        for (lengths, (mean, most)) in [(prompts, prompt), (responses, response)] {
            let lengths: Vec<usize> = lengths;
            let average = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
            let longest = lengths.iter().max().copied().unwrap_or_default();
            assert!(average < mean && longest <= most, "{size}: {average} on average, {longest} at most");
        }
    }
}
