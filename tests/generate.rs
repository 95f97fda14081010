//! `rebel generate` as a person uses it: what it prints, in which order, and what it says to bad input.

use assert_cmd::Command;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use tempfile::TempDir;

fn vectors(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/hf").join(name)
}

/// Adds the files of the folders of vectors `names` to `folder`.
fn add(folder: &Path, names: &[&str]) {
    for name in names {
        for entry in std::fs::read_dir(vectors(name)).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, folder.join(from.file_name().unwrap())).unwrap();
        }
    }
}

/// A tiny GPT-NeoX with its tokenizer; `settings` is its `generation_config.json`.
fn model(settings: &Value) -> TempDir {
    let folder = TempDir::new().unwrap();
    add(folder.path(), &["lm/neox_bin", "tok/neox"]);
    std::fs::write(folder.path().join("generation_config.json"), settings.to_string()).unwrap();
    folder
}

fn generate(model: &Path, arguments: &[&str]) -> Output {
    command(model, arguments).output().unwrap()
}

fn command(model: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rebel"));
    command.args(["generate", "--model"]).arg(model).args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Rows in the order of prompts and samples.
fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(|row| (row["index"].as_u64(), row["sample"].as_u64()));
    rows
}

#[test]
fn json_lines_hold_every_completion_once_with_the_log_probability_of_every_token() {
    let folder = model(&json!({}));
    let two = ["--prompt", "SUBREDDIT: r/cats", "--prompt", "It was", "--samples", "3", "--max-new", "9", "--json"];
    let rows = sorted(rows(&printed(&generate(folder.path(), &two))));
    let places: Vec<(u64, u64)> =
        rows.iter().map(|row| (row["index"].as_u64().unwrap(), row["sample"].as_u64().unwrap())).collect();
    assert_eq!(places, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
    for row in &rows {
        assert_eq!(row["prompt"], ["SUBREDDIT: r/cats", "It was"][row["index"].as_u64().unwrap() as usize]);
        let log_probs: Vec<f64> = serde_json::from_value(row["token_logprobs"].clone()).unwrap();
        let tokens = row["token_ids"].as_array().unwrap();
        assert_eq!(log_probs.len(), tokens.len());
        assert!(tokens.len() == 9 || row["stopped"] == json!(true));
        assert!(log_probs.iter().all(|&l| l <= 0.0));
        assert!((row["logprob"].as_f64().unwrap() - log_probs.iter().sum::<f64>()).abs() < 1e-9);
        assert!(row["completion"].is_string());
    }
    assert!(rows.iter().any(|row| row["token_ids"] != rows[0]["token_ids"]));
}

#[test]
fn one_seed_gives_one_output_whatever_the_batch_and_another_seed_another() {
    let folder = model(&json!({}));
    let run = |more: &[&str]| {
        let base = ["--prompt", "A", "--prompt", "The cat sat", "--samples", "4", "--max-new", "12", "--json"];
        let rows = sorted(rows(&printed(&generate(folder.path(), &[&base[..], more].concat()))));
        rows.iter().map(|row| row["token_ids"].clone()).collect::<Vec<_>>()
    };
    let one = run(&["--seed", "3"]);
    assert_eq!(one, run(&["--seed", "3"]));
    assert_eq!(one, run(&["--seed", "3", "--batch", "1"]));
    assert_ne!(one, run(&["--seed", "4"]));
}

#[test]
fn a_single_completion_streams_the_text_that_json_holds() {
    let folder = model(&json!({}));
    let base = ["--prompt", "It was", "--max-new", "40", "--seed", "8"];
    let streamed = printed(&generate(folder.path(), &base));
    let rows = rows(&printed(&generate(folder.path(), &[&base[..], &["--json"]].concat())));
    assert_eq!(streamed, format!("{}\n", rows[0]["completion"].as_str().unwrap()));
    assert!(streamed.len() > 10);
    let scored = printed(&generate(folder.path(), &[&base[..], &["--logprobs"]].concat()));
    let table = scored.strip_prefix(&streamed).unwrap();
    assert_eq!(table.lines().count(), rows[0]["token_ids"].as_array().unwrap().len());
    let first: f64 = table.split_whitespace().next().unwrap().parse().unwrap();
    assert!((first - rows[0]["token_logprobs"][0].as_f64().unwrap()).abs() < 1e-4);
}

#[test]
fn several_completions_come_whole_under_their_numbers() {
    let folder = model(&json!({}));
    let arguments = ["--prompt", "It was", "--samples", "2", "--greedy", "--max-new", "5"];
    let printed = printed(&generate(folder.path(), &arguments));
    for sample in ["0", "1"] {
        assert!(printed.contains(&format!("# prompt 0, sample {sample}: 5 tokens, at the limit, ln p -")), "{printed}");
    }
}

#[test]
fn prompts_come_from_lines_objects_and_standard_input_alike() {
    let folder = model(&json!({}));
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("lines.txt"), "It was\n\nA cat\n").unwrap();
    std::fs::write(at("rows.jsonl"), "{\"prompt\": \"It was\"}\n{\"query\": \"A cat\", \"more\": 1}\n").unwrap();
    let rest = ["--max-new", "6", "--json", "--greedy"];
    let of = |arguments: &[&str]| {
        sorted(rows(&printed(&generate(folder.path(), &[arguments, &rest].concat()))))
            .into_iter()
            .map(|row| (row["prompt"].clone(), row["token_ids"].clone()))
            .collect::<Vec<_>>()
    };
    let typed = of(&["--prompt", "It was", "--prompt", "A cat"]);
    assert_eq!(typed.len(), 2);
    assert_eq!(of(&["--file", &at("lines.txt")]), typed);
    assert_eq!(of(&["--file", &at("rows.jsonl")]), typed);
    let piped = command(folder.path(), &[&["--prompt", "-"][..], &rest].concat()).write_stdin("It was\n").output();
    assert_eq!(rows(&printed(&piped.unwrap()))[0]["token_ids"], typed[0].1);

    let out = at("out.jsonl");
    let quiet = generate(folder.path(), &[&["--file", &at("lines.txt"), "--out", &out][..], &rest].concat());
    assert_eq!(printed(&quiet), "");
    let written = sorted(rows(&std::fs::read_to_string(out).unwrap()));
    assert_eq!(
        written.iter().map(|row| row["token_ids"].clone()).collect::<Vec<_>>(),
        [typed[0].1.clone(), typed[1].1.clone()]
    );
}

#[test]
fn a_folders_defaults_hold_until_a_flag_says_otherwise() {
    let tokens = |settings: Value, more: &[&str]| {
        let folder = model(&settings);
        let base = ["--prompt", "It was", "--json"];
        let rows = rows(&printed(&generate(folder.path(), &[&base[..], more].concat())));
        (rows[0]["token_ids"].as_array().unwrap().clone(), rows[0]["stopped"].clone())
    };
    let (greedy, _) = tokens(json!({}), &["--greedy", "--max-new", "7"]);
    assert_eq!(tokens(json!({"do_sample": false, "max_new_tokens": 7}), &[]).0, greedy);
    assert_eq!(tokens(json!({"do_sample": true, "top_k": 1, "max_new_tokens": 7}), &[]).0, greedy);
    assert_eq!(tokens(json!({"top_p": 1e-9, "max_new_tokens": 9}), &["--max-new", "7"]).0, greedy);
    assert_ne!(tokens(json!({"do_sample": false, "max_new_tokens": 7}), &["--temperature", "2"]).0, greedy);
    // Either of two stop tokens ends it, and belongs to it.
    let stop = &greedy[3];
    let settings = json!({"eos_token_id": [351, stop], "max_new_tokens": 7});
    let first = greedy.iter().position(|id| id == stop).unwrap();
    assert_eq!(tokens(settings, &["--greedy"]), (greedy[..=first].to_vec(), json!(true)));
}

#[test]
fn chat_puts_what_the_user_says_into_the_template() {
    let folder = model(&json!({}));
    let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let rest = ["--greedy", "--max-new", "6", "--json"];
    let tokens = |arguments: &[&str]| {
        let printed = printed(&generate(folder.path(), &[arguments, &rest].concat()));
        rows(&printed)[0]["token_ids"].clone()
    };
    let plain = tokens(&["--prompt", "<user>Hello\n<assistant>"]);
    assert_eq!(tokens(&["--chat", "--prompt", "Hello"]), plain);
    let file = folder.path().join("rows.jsonl");
    std::fs::write(&file, "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}\n").unwrap();
    assert_eq!(tokens(&["--chat", "--file", file.to_str().unwrap()]), plain);
    assert_ne!(tokens(&["--prompt", "Hello"]), plain);
}

/// Merged by `rebel convert`, the adapter is a model of its own that says the same.
#[test]
fn an_adapter_speaks_as_the_model_it_is_merged_into_and_another_models_is_refused() {
    let (base, merged, other) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    add(base.path(), &["lm/neox_sequential", "tok/neox"]);
    add(other.path(), &["lm/llama3_bf16", "tok/neox"]);
    let adapter = vectors("lora/neox_all_linear");
    let to = merged.path().join("model");
    let converted = Command::new(env!("CARGO_BIN_EXE_rebel")).arg("convert").args([&adapter, &to]).output().unwrap();
    printed(&converted);
    add(&to, &["tok/neox"]);
    let rest = ["--prompt", "It was", "--greedy", "--max-new", "12", "--json"];
    let run = |model: &Path, more: &[&str]| {
        let rows = rows(&printed(&generate(model, &[&rest, more].concat())));
        (rows[0]["token_ids"].clone(), rows[0]["logprob"].as_f64().unwrap())
    };
    let with = ["--adapter", adapter.to_str().unwrap()];
    let (adapted, whole, plain) = (run(base.path(), &with), run(&to, &[]), run(base.path(), &[]));
    assert_eq!(adapted.0, whole.0);
    assert!((adapted.1 - whole.1).abs() < 1e-4 && (adapted.1 - plain.1).abs() > 1e-3);
    // By itself it names its base, whose tokenizer it speaks with.
    let alone = TempDir::new().unwrap();
    std::fs::copy(adapter.join("adapter_model.safetensors"), alone.path().join("adapter_model.safetensors")).unwrap();
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(adapter.join("adapter_config.json")).unwrap()).unwrap();
    config["base_model_name_or_path"] = json!(base.path());
    std::fs::write(alone.path().join("adapter_config.json"), config.to_string()).unwrap();
    assert_eq!(run(alone.path(), &[]), adapted);
    let many = generate(alone.path(), &["--prompt", "It", "--samples", "99999999999"]);
    assert_eq!(many.status.code(), Some(2));
    let refused = generate(other.path(), &[&rest[..], &with].concat());
    let said = text(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("adapter_"), "{said}");
}

#[test]
fn bad_input_is_one_line_and_an_exit_code() {
    let folder = model(&json!({}));
    let at = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let long = "word ".repeat(2100);
    let (empty, array) = (at("empty.txt", "\n"), at("array.jsonl", "{\"prompt\": \"a\"}\n[1]\n"));
    let (number, nothing) = (at("number.jsonl", "{\"prompt\": 3}\n"), at("nothing.jsonl", "{\"text\": \"a\"}\n"));
    let talk = at("talk.jsonl", "{\"messages\": [{\"role\": \"user\"}]}\n");
    let cases: [(&[&str], i32, &str); 12] = [
        (&["--prompt", &long], 1, "(expected at most max_position_embeddings 2048)"),
        (&["--prompt", "a", "--max-new", "9999"], 1, "--prompt 0: has 1 tokens, 10000 with 9999 new ones"),
        (&["--prompt", "a", "--temperature", "0"], 2, "--temperature: 0 (expected a number above 0"),
        (&["--prompt", "a", "--top-p", "1.5"], 2, "--top-p: 1.5 (expected"),
        (&["--file", "nowhere.txt"], 1, "nowhere.txt: No such file"),
        (&["--file", &empty], 1, "empty.txt: has no prompt"),
        (&["--file", &array], 1, "array.jsonl:2: is not a JSON object"),
        (&["--file", &number], 1, "number.jsonl:1: prompt: is not usable (expected a text)"),
        (&["--file", &nothing], 1, "nothing.jsonl:1: prompt: is missing"),
        (&["--file", &talk], 1, "talk.jsonl:1: messages: is not usable"),
        (&["--prompt", "a", "--chat"], 1, "has no chat template"),
        (&["--prompt", "a", "--out", "nowhere/at/all"], 1, "nowhere/at/all: No such file"),
    ];
    for (arguments, code, part) in cases {
        let output = generate(folder.path(), arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.starts_with("rebel: ") && said.contains(part) && said.lines().count() == 1, "{part}: {said}");
        assert!(output.stdout.is_empty());
    }
    for wrong in [&[][..], &["--prompt", "a", "--file", "b"], &["--prompt", "a", "--greedy", "--top-k", "2"]] {
        assert_eq!(generate(folder.path(), wrong).status.code(), Some(2), "{wrong:?}");
    }
    for (file, content, part) in [
        ("generation_config.json", "{\"top_p\": 3}", "generation_config.json: top_p: 3 (expected"),
        ("tokenizer.json", "{}", "tokenizer.json: "),
        ("config.json", "{\"model_type\": \"bert\"}", "config.json: model_type: bert"),
    ] {
        let folder = model(&json!({}));
        std::fs::write(folder.path().join(file), content).unwrap();
        let output = generate(folder.path(), &["--prompt", "a"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let folder = model(&json!({}));
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_rebel"))
        .args(["generate", "--prompt", "It was", "--samples", "20", "--model"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}
