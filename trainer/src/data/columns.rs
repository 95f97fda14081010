//! The token columns of the published TL;DR sets: queries padded on the left, responses and whole examples on the
//! right, lengths from before the cut, and labels in which the query counts for nothing.

use serde_json::{Map, Value, json};

use super::format::{END_OF_TEXT, fitted_prompt, response};

/// A tokenizer and the widths its columns are padded to.
pub struct Tokens<'a> {
    /// Token ids of a text; `<|endoftext|>` within it is one token.
    pub encode: &'a dyn Fn(&str) -> Vec<u32>,
    /// The id that fills up columns.
    pub pad: u32,
    /// Width of `query_token`; longer prompts lose the end of their post.
    pub query: usize,
    /// Width of a response's column.
    pub response: usize,
    /// Width of a query and response together.
    pub query_response: usize,
}

impl Tokens<'_> {
    fn encode(&self, text: &str) -> Vec<u32> {
        (self.encode)(text)
    }

    fn left_padded(&self, mut ids: Vec<u32>, width: usize) -> Vec<u32> {
        ids.truncate(width);
        let mut row = vec![self.pad; width - ids.len()];
        row.append(&mut ids);
        row
    }

    fn right_padded(&self, mut ids: Vec<u32>, width: usize) -> Vec<u32> {
        ids.resize(width, self.pad);
        ids
    }

    /// The prompt cut to the query's width.
    ///
    /// Returns `None` where no cut of the post makes it fit.
    pub fn prompt(&self, subreddit: &str, title: &str, post: &str) -> Option<String> {
        fitted_prompt(subreddit, title, post, self.query, |text| self.encode(text).len())
    }
}

/// Columns of a query with one response: the two as one text, its tokens right-padded, and the labels, which are the
/// tokens with the query's replaced by the pad id. The query is trimmed first, as the published preprocessing does.
fn joined(name: &str, query: &str, response: &str, tokens: Option<&Tokens<'_>>, row: &mut Map<String, Value>) {
    let text = format!("{}{response}", query.trim());
    row.insert(name.into(), json!(text));
    if let Some(tokens) = tokens {
        let ids = tokens.right_padded(tokens.encode(&text), tokens.query_response);
        let mut labels = ids.clone();
        let of_query = tokens.encode(query).len().min(labels.len());
        labels[..of_query].fill(tokens.pad);
        row.insert(format!("{name}_token"), json!(ids));
        row.insert(format!("{name}_token_response_label"), json!(labels));
    }
}

/// Adds to a row with `query` and `summary` what the reference set has beside them: `query_token`,
/// `reference_response` and `query_reference_response`, the tokens and lengths of both. Without `tokens` only the texts.
pub fn reference(query: &str, summary: &str, tokens: Option<&Tokens<'_>>) -> Map<String, Value> {
    let mut row = Map::new();
    let reply = response(summary);
    if let Some(tokens) = tokens {
        row.insert("query_token".into(), json!(tokens.left_padded(tokens.encode(query), tokens.query)));
    }
    row.insert("query".into(), json!(query.trim_start()));
    row.insert("reference_response".into(), json!(reply));
    if let Some(tokens) = tokens {
        let ids = tokens.encode(&reply);
        row.insert("reference_response_token_len".into(), json!(ids.len()));
        row.insert("reference_response_token".into(), json!(tokens.right_padded(ids, tokens.response)));
    }
    joined("query_reference_response", query, &reply, tokens, &mut row);
    if let Some(tokens) = tokens {
        let whole = tokens.encode(&format!("{}{reply}", query.trim())).len();
        row.insert("query_reference_response_token_len".into(), json!(whole));
    }
    row
}

/// The processed columns of a comparison: `summaries` are (text with its leading space, policy), `choice` the index of
/// the one preferred. Without `tokens` only the texts.
pub fn comparison(
    query: &str,
    summaries: [(&str, &str); 2],
    choice: usize,
    tokens: Option<&Tokens<'_>>,
) -> Map<String, Value> {
    let mut row = Map::new();
    if let Some(tokens) = tokens {
        let ids = tokens.encode(query);
        row.insert("query_token_len".into(), json!(ids.len()));
        row.insert("query_token".into(), json!(tokens.left_padded(ids, tokens.query)));
    }
    row.insert("query".into(), json!(query.trim_start()));
    for (name, (text, policy)) in [("chosen", summaries[choice % 2]), ("rejected", summaries[(choice + 1) % 2])] {
        let reply = format!("{text}{END_OF_TEXT}");
        row.insert(format!("{name}_policy"), json!(policy));
        row.insert(name.into(), json!(reply));
        if let Some(tokens) = tokens {
            row.insert(format!("{name}_token"), json!(tokens.right_padded(tokens.encode(&reply), tokens.response)));
        }
        joined(&format!("query_{name}"), query, &reply, tokens, &mut row);
    }
    row
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use tokenizers::Tokenizer;

    use super::*;

    fn by_letter(text: &str) -> Vec<u32> {
        text.replace(END_OF_TEXT, "\u{0}").chars().map(u32::from).collect()
    }

    fn letters() -> Tokens<'static> {
        Tokens { encode: &by_letter, pad: 999, query: 6, response: 5, query_response: 9 }
    }

    fn ids(row: &Map<String, Value>, name: &str) -> Vec<u32> {
        serde_json::from_value(row[name].clone()).unwrap()
    }

    #[test]
    fn query_is_padded_left_and_the_rest_right() {
        let row = reference("ab:", "c", Some(&letters()));
        assert_eq!(ids(&row, "query_token"), [999, 999, 999, 97, 98, 58]);
        assert_eq!(ids(&row, "reference_response_token"), [32, 99, 0, 999, 999]);
        assert_eq!(ids(&row, "query_reference_response_token"), [97, 98, 58, 32, 99, 0, 999, 999, 999]);
        let labels = ids(&row, "query_reference_response_token_response_label");
        assert_eq!(labels, [999, 999, 999, 32, 99, 0, 999, 999, 999]);
        assert_eq!(row["query_reference_response_token_len"], 6);
    }

    #[test]
    fn chosen_is_the_summary_of_the_choice() {
        let summaries = [(" good", "a"), (" bad", "b")];
        for choice in 0..2 {
            let row = comparison("q", summaries, choice, None);
            assert_eq!(row["chosen"], format!("{}{END_OF_TEXT}", summaries[choice].0));
            assert_eq!(row["rejected_policy"], summaries[1 - choice].1);
            assert!(!row.contains_key("chosen_token"));
        }
    }

    /// The set of vectors, where it is: `REBEL_VECTORS` or `shared/vectors` beside the checkout.
    fn vectors() -> Option<PathBuf> {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
        std::env::var_os("REBEL_VECTORS").map(PathBuf::from).or(Some(beside)).filter(|path| path.is_dir())
    }

    fn rows(path: &Path) -> Vec<Map<String, Value>> {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn raw_tables_give_the_published_columns_row_by_row() {
        let Some(vectors) = vectors() else {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "the set of vectors is missing");
            return eprintln!("skipped: the set of vectors is not beside the checkout");
        };
        let (data, tokenizer) = (vectors.join("hf/data"), vectors.join("hf/tok/neox/tokenizer.json"));
        let tokenizer = Tokenizer::from_file(tokenizer).unwrap();
        let encode = |text: &str| tokenizer.encode(text, false).unwrap().get_ids().to_vec();
        let expected: Map<String, Value> =
            serde_json::from_slice(&std::fs::read(data.join("expected.json")).unwrap()).unwrap();
        let width = |name: &str| usize::try_from(expected[name].as_u64().unwrap()).unwrap();
        let tokens = |response: &str, both: &str| Tokens {
            encode: &encode,
            pad: u32::try_from(width("pad_id")).unwrap(),
            query: width("qlen"),
            response: width(response),
            query_response: width(both),
        };
        let text = |row: &Map<String, Value>, name: &str| row[name].as_str().unwrap().to_string();

        let sft = tokens("rlen", "qrlen");
        for row in rows(&data.join("tldr_sft.json")) {
            let query = sft.prompt(&text(&row, "subreddit"), &text(&row, "title"), &text(&row, "post")).unwrap();
            for (name, value) in reference(&query, &text(&row, "summary"), Some(&sft)) {
                assert_eq!(value, row[&name], "{name}");
            }
        }
        let pairs = tokens("rmr", "rmqr");
        let processed = rows(&data.join("comparisons_processed.json"));
        for (raw, row) in rows(&data.join("comparisons_raw.json")).iter().zip(processed) {
            let info = raw["info"].as_object().unwrap();
            let query = pairs.prompt(&text(info, "subreddit"), &text(info, "title"), &text(info, "post")).unwrap();
            let of = |i: usize| (raw["summaries"][i]["text"].as_str().unwrap(), raw["summaries"][i]["policy"].as_str());
            let summaries = [0, 1].map(|i| (of(i).0, of(i).1.unwrap()));
            let choice = usize::try_from(raw["choice"].as_u64().unwrap()).unwrap();
            let ours = comparison(&query, summaries, choice, Some(&pairs));
            assert_eq!(ours.len(), row.len());
            for (name, value) in ours {
                assert_eq!(value, row[&name], "{name}");
            }
        }
    }
}
