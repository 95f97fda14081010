//! CLIP's tokenizer from its two files, `vocab.json` and `merges.txt`: what transformers' slow `CLIPTokenizer` makes of a
//! text where ftfy is not installed.
//!
//! A text loses its control characters, is composed (NFC) and lower-cased, and is split into runs of letters, single
//! digits, single Chinese characters and runs of anything else; each word's last byte carries `</w>`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::json::{one_line, read_bytes, read_text, shown};
use super::token_names::TokenNames;
use super::tokenizer_json::{check_merge, parse};
use crate::{Error, Result};

/// Marks the end of a word in the vocabulary.
const WORD_END: &str = "</w>";
/// Merges that the tokenizer reads: its vocabulary of 49,152 without the 2 x 256 bytes' first half and the two special
/// tokens.
const MOST_MERGES: usize = 49_152 - 256 - 2;
/// Longest file, bytes.
const LONGEST: u64 = 16 << 20;

/// What the tokenizer calls its tokens where the folder does not say.
pub(super) const USUAL: [(&str, &str); 4] = [
    ("bos_token", "<|startoftext|>"),
    ("eos_token", "<|endoftext|>"),
    ("unk_token", "<|endoftext|>"),
    ("pad_token", "<|endoftext|>"),
];

/// Letters that stand for words: those that BERT's tokenizer puts spaces around.
const CHINESE: &str = r"\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}\x{2B820}-\x{2CEAF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}";

/// The tokenizer of a folder's `vocab.json` and `merges.txt`; `names` names at least the tokens in [`USUAL`].
///
/// # Errors
/// A file that is missing or damaged: file and field on one line.
pub(super) fn load(folder: &Path, names: &TokenNames) -> Result<Tokenizer> {
    let vocab_file = folder.join("vocab.json");
    let text = read_bytes(&vocab_file, LONGEST)?;
    let vocab: BTreeMap<String, u32> =
        serde_json::from_slice(&text).map_err(|e| Error::file(&vocab_file, one_line(&e.to_string())))?;
    let merges = merges(&folder.join("merges.txt"), &vocab)?;
    let special = |name: &str| -> Result<(String, u32)> {
        let missing = |text: &str| Error::field(&vocab_file, one_line(text), format!("missing (it is the {name})"));
        let text = names.token(name)?.map(|token| token.text).unwrap_or_default();
        Ok((text.to_owned(), *vocab.get(text).ok_or_else(|| missing(text))?))
    };
    let (bos, bos_id) = special("bos_token")?;
    let (eos, eos_id) = special("eos_token")?;
    let (unk, _) = special("unk_token")?;

    let added = |content: &str, id: u32| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": true,
            "special": true
        })
    };
    let mut added_tokens = vec![added(&bos, bos_id)];
    if eos != bos {
        added_tokens.push(added(&eos, eos_id));
    }
    let piece = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let known = |token: &str, id: u32| json!({"id": token, "ids": [id], "tokens": [token]});
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    // U+0345, a mark that counts as a letter where case does not, is in neither of the two classes it could be in.
    let words = format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[{CHINESE}]|[\p{{L}}&&[^{CHINESE}]]+|\p{{N}}|[^\s\p{{L}}\p{{N}}\x{{345}}]+"
    );
    let whole = json!({
        "version": "1.0",
        "added_tokens": added_tokens,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"Regex": r"[\x{FFFD}\p{C}&&[^\t\n\r]]"}, "content": ""},
            {"type": "NFC"},
            {"type": "Lowercase"}
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": words}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}
        ]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [piece(&bos), sequence("A"), piece(&eos)],
            "pair": [piece(&bos), sequence("A"), piece(&eos), piece(&eos), sequence("B"), piece(&eos)],
            "special_tokens": {bos.as_str(): known(&bos, bos_id), eos.as_str(): known(&eos, eos_id)}
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unk, "continuing_subword_prefix": null,
            "end_of_word_suffix": WORD_END, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges
        }
    });
    parse(whole.to_string().as_bytes()).map_err(|what| Error::file(&vocab_file, what))
}

/// The pairs of `merges.txt`: one a line, the first line being its version.
fn merges(file: &Path, vocab: &BTreeMap<String, u32>) -> Result<Vec<Value>> {
    let text = read_text(file, LONGEST)?;
    let lines = text.trim().split('\n').enumerate().skip(1).take(MOST_MERGES);
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(i, line)| {
            let fault = |what: String| Error::field(file, format!("line {}", i + 1), what);
            let mut parts = line.split_whitespace();
            let (Some(first), Some(second), None) = (parts.next(), parts.next(), parts.next()) else {
                return Err(fault(format!("{} is not a merge (expected two tokens)", shown(&line.into()))));
            };
            check_merge(first, second, "", |token| vocab.contains_key(token)).map_err(fault)?;
            Ok(json!([first, second]))
        })
        .collect()
}

/// `text` with every word that has a capital sigma in lower case: which small one it becomes (at the end of a word,
/// another) is known here, not to the tokenizers crate, which takes letters one by one.
pub(super) fn with_final_sigmas(text: &str) -> Cow<'_, str> {
    if !text.contains('Σ') {
        return text.into();
    }
    let words = text.split_inclusive(char::is_whitespace);
    words.map(|word| if word.contains('Σ') { word.to_lowercase() } else { word.to_owned() }).collect()
}
