//! `rebel score` as a person uses it: rewards and log-probabilities of rows in every layout, and what it says to bad ones.

use assert_cmd::Command;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;

fn vectors(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/hf").join(case)
}

/// A policy of the vectors with the tokenizer of another of their folders, made for as many tokens.
fn policy(model: &str, tokenizer: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let weights =
        if vectors(model).join("model.safetensors").exists() { "model.safetensors" } else { "pytorch_model.bin" };
    let of_model = ["config.json", weights].map(|name| vectors(model).join(name));
    let of_tokenizer = ["tokenizer.json", "tokenizer_config.json"].map(|name| vectors(tokenizer).join(name));
    for file in of_model.iter().chain(&of_tokenizer) {
        std::fs::copy(file, folder.path().join(file.file_name().unwrap())).unwrap();
    }
    folder
}

fn score(model: &Path, rows: &str, more: &[&str]) -> Output {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("rows.jsonl");
    std::fs::write(&file, rows).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rebel"));
    command.arg("score").arg("--model").arg(model).arg(&file).args(more).output().unwrap()
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn scored(model: &Path, rows: &[Value], more: &[&str]) -> Vec<Value> {
    let output = score(model, &lines(rows), more);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Exit code and the one line of an error, without the folder of the rows.
fn refused(model: &Path, rows: &str, more: &[&str]) -> (i32, String) {
    let output = score(model, rows, more);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let complaints: Vec<&str> = stderr.lines().filter(|line| line.starts_with("rebel: ")).collect();
    assert!(complaints.len() == 1 && !stderr.contains("panicked"), "{stderr}");
    (output.status.code().unwrap(), complaints[0].to_string())
}

fn number(row: &Value, column: &str) -> f64 {
    row[column].as_f64().unwrap_or_else(|| panic!("{column} of {row}"))
}

fn expected(case: &str) -> Value {
    serde_json::from_slice(&std::fs::read(vectors(case).join("expected.json")).unwrap()).unwrap()
}

/// The messages of a text that Llama 3's template has written.
fn messages(text: &str) -> Vec<Value> {
    let turns = text.split("<|start_header_id|>").skip(1);
    let turn = |turn: &str| {
        let (role, content) = turn.split_once("<|end_header_id|>\n\n").unwrap();
        json!({"role": role, "content": content.strip_suffix("<|eot_id|>").unwrap()})
    };
    turns.map(turn).collect()
}

#[test]
fn chats_get_the_rewards_that_transformers_gives_their_rendered_texts() {
    for case in ["rm/fsfairx_seqcls", "rm/armorm"] {
        let expected = expected(case);
        let texts = expected["texts"].as_array().unwrap().iter().map(|text| messages(text.as_str().unwrap()));
        let rows: Vec<Value> = texts.map(|messages| json!({"messages": messages, "id": 7})).collect();
        for batch in ["1", "3"] {
            let found = scored(&vectors(case), &rows, &["--batch", batch]);
            assert_eq!(found.len(), rows.len());
            for (i, row) in found.iter().enumerate() {
                assert!(row["messages"] == rows[i]["messages"] && row["id"] == 7);
                let off = (number(row, "reward") - expected["reward"][i].as_f64().unwrap()).abs();
                assert!(off <= 3e-5, "{case} {i}: {off}");
            }
        }
    }
}

#[test]
fn starlings_prompts_stand_between_its_own_marks() {
    let expected = expected("rm/starling");
    let texts = expected["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
    // What follows the answer is left to it: the published texts end without the space of the paper's runs.
    let row = |text: &str| {
        let (question, answer) = text.strip_prefix("<s>[INST] ").unwrap().split_once(" </s> [/INST] ").unwrap();
        json!({"prompt": question, "completion": answer, "stopped": false})
    };
    let rows: Vec<Value> = texts.map(row).collect();
    let found = scored(&vectors("rm/starling"), &rows, &[]);
    for (i, row) in found.iter().enumerate() {
        assert!((number(row, "reward") - expected["reward"][i].as_f64().unwrap()).abs() <= 3e-5, "{row}");
    }
    let finished = json!({"prompt": "Hi?", "completion": "Yes."});
    let spelt = json!({"prompt": "Hi?", "completion": "Yes. </s>", "stopped": false});
    let both = scored(&vectors("rm/starling"), &[finished, spelt], &["--batch", "1"]);
    assert_eq!(both[0]["reward"], both[1]["reward"]);
}

#[test]
fn objectives_and_their_weights_make_the_reward() {
    let expected = expected("rm/armorm");
    let rows = [json!({"messages": messages(expected["texts"][3].as_str().unwrap())})];
    let found = &scored(&vectors("rm/armorm"), &rows, &["--objectives"])[0];
    let objectives = found["objectives"].as_object().unwrap();
    let names: Vec<&str> = expected["objectives"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    assert_eq!(objectives.keys().collect::<Vec<_>>(), names);
    assert_eq!(found["gating"].as_object().unwrap().len(), names.len());
    assert!(scored(&vectors("rm/armorm"), &rows, &[])[0].get("gating").is_none());
}

#[test]
fn both_sides_of_a_preference_are_scored_each_as_if_alone() {
    let model = vectors("rm/tldr_scalar");
    let pair = json!({"query": "SUBREDDIT: r/a\n\nTL;DR:", "chosen": " a cat<|endoftext|>", "rejected": " dogs, dogs"});
    let alone = [" a cat", " dogs, dogs<|endoftext|>"].map(|text| json!({"query": pair["query"], "response": text}));
    let both = &scored(&model, std::slice::from_ref(&pair), &[])[0];
    let single = scored(&model, &alone, &["--batch", "1"]);
    for (side, single) in ["chosen_reward", "rejected_reward"].into_iter().zip(&single) {
        assert!((number(both, side) - number(single, "reward")).abs() < 2e-5);
    }
    let open = scored(&model, &[json!({"query": pair["query"], "response": " a cat", "stopped": false})], &[]);
    assert!((number(&open[0], "reward") - number(&single[0], "reward")).abs() > 1e-4);
}

#[test]
fn a_policy_gives_log_probabilities_that_do_not_depend_on_the_batch() {
    let model = policy("lm/neox_bin", "rm/tldr_scalar");
    let words = ["a cat", "the quick brown fox", "", "pi is about 3.14159 and the dog went home because", "dog"];
    let rows: Vec<Value> = (0..40)
        .map(|i| json!({"prompt": format!("Post {i}: {}", words[i % 5]), "completion": format!(" {}", words[i % 4])}))
        .collect();
    let alone = scored(model.path(), &rows, &["--batch", "1", "--token-logprobs"]);
    for row in &alone {
        let each: Vec<f64> = row["token_logprobs"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        assert_eq!(row["tokens"], each.len());
        assert!((each.iter().sum::<f64>() - number(row, "logprob")).abs() < 1e-9);
        assert!(each.iter().all(|&x| x < 0.0));
    }
    for batch in ["8", "64"] {
        let together = scored(model.path(), &rows, &["--batch", batch]);
        for (one, other) in alone.iter().zip(&together) {
            assert_eq!(one["prompt"], other["prompt"]);
            assert!((number(one, "logprob") - number(other, "logprob")).abs() < 2e-5 * number(one, "tokens"));
            assert!(other.get("token_logprobs").is_none());
        }
    }
    let hot = scored(model.path(), &rows[..1], &["--temperature", "5"]);
    assert!((number(&hot[0], "logprob") - number(&alone[0], "logprob")).abs() > 1e-3);
}

#[test]
fn a_finished_answer_is_one_token_longer_and_what_follows_its_end_does_not_count() {
    let model = policy("lm/neox_bin", "rm/tldr_scalar");
    let row = |text: &str, stopped: bool| json!({"prompt": "Say:", "completion": text, "stopped": stopped});
    let rows = [
        row(" a cat", false),
        row(" a cat", true),
        row(" a cat<|endoftext|>", true),
        row(" a cat<|endoftext|> x", false),
    ];
    let found = scored(model.path(), &rows, &["--batch", "1", "--token-logprobs"]);
    assert_eq!(number(&found[0], "tokens") + 1.0, number(&found[1], "tokens"));
    assert_eq!(found[1]["token_logprobs"], found[2]["token_logprobs"]);
    assert_eq!(found[1]["token_logprobs"], found[3]["token_logprobs"]);
    assert!(number(&found[0], "logprob") > number(&found[1], "logprob"));
    // A run's samples say it in their own word, and an answer may be empty.
    let others = [
        json!({"query": "Say:", "response": " a cat", "ended": false}),
        json!({"prompt": "Say:", "completion": "", "stopped": false}),
    ];
    let others = scored(model.path(), &others, &[]);
    assert_eq!(number(&others[0], "tokens"), number(&found[0], "tokens"));
    assert_eq!((number(&others[1], "tokens"), number(&others[1], "logprob")), (0.0, 0.0));
}

#[test]
fn a_chat_is_scored_from_where_the_policy_would_have_gone_on() {
    let model = policy("lm/llama3_bf16", "rm/armorm");
    let user = json!({"role": "user", "content": "Tell me about a cat"});
    let chat = json!({"messages": [user, {"role": "assistant", "content": "Hello!"}]});
    let rendered = json!({
        "prompt": "<|start_header_id|>user<|end_header_id|>\n\nTell me about a cat<|eot_id|>\
                   <|start_header_id|>assistant<|end_header_id|>\n\n",
        "completion": "Hello!<|eot_id|>",
    });
    let found = scored(model.path(), &[chat, rendered], &["--batch", "1", "--token-logprobs"]);
    assert_eq!(found[0]["token_logprobs"], found[1]["token_logprobs"]);
    let texts = json!({"prompt": "Tell me about a cat", "completion": "Hello!"});
    let as_chat = scored(model.path(), &[texts], &["--chat", "--token-logprobs"]);
    assert_eq!(found[0]["token_logprobs"], as_chat[0]["token_logprobs"]);
}

#[test]
fn results_go_to_a_file_once_all_are_there() {
    let model = vectors("rm/tldr_scalar");
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("scored.jsonl");
    let row = json!({"prompt": "TL;DR:", "completion": " a"});
    let file = ["--out", out.to_str().unwrap()];
    assert!(scored(&model, &[row.clone(), row.clone()], &file).is_empty());
    let text = std::fs::read_to_string(&out).unwrap();
    assert_eq!(text.lines().count(), 2);
    let long = json!({"prompt": "TL;DR:", "completion": " a".repeat(3000)});
    let (code, error) = refused(&model, &lines(&[row, long]), &file);
    assert!(
        code == 1 && error.contains("rows.jsonl:2: ") && error.contains("tokens (the model reads at most 2048)"),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(&out).unwrap(), text); // as it was
}

#[test]
fn bad_rows_and_bad_wishes_are_one_line() {
    let (scalar, armorm) = (vectors("rm/tldr_scalar"), vectors("rm/armorm"));
    let good = json!({"prompt": "TL;DR:", "completion": " a"});
    for (model, bad, part) in [
        (&scalar, "{".to_string(), "rows.jsonl:3: is not a JSON object"),
        (&scalar, json!({"prompt": "p"}).to_string(), "rows.jsonl:3: completion: is missing"),
        (&scalar, json!({"prompt": 1, "completion": "a"}).to_string(), "rows.jsonl:3: prompt: is a number"),
        (&scalar, json!({"messages": [{"role": "user"}]}).to_string(), "rows.jsonl:3: messages[0].content: is missing"),
        (
            &scalar,
            json!({"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}]}).to_string(),
            "rows.jsonl:3: ",
        ),
        (
            &armorm,
            json!({"prompt": "p ".repeat(9000), "completion": "a"}).to_string(),
            "(the model reads at most 8192)",
        ),
        (
            &vectors("rm/starling"),
            json!({"messages": [
                {"role": "user", "content": "p"}, {"role": "assistant", "content": "a"},
                {"role": "user", "content": "q"}, {"role": "assistant", "content": "b"},
            ]})
            .to_string(),
            "rows.jsonl:3: 3 messages (this model reads one of the user's",
        ),
    ] {
        let (code, error) = refused(model, &format!("{good}\n\n{bad}\n"), &[]);
        assert!(code == 1 && error.contains(part), "{part}: {error:.300}");
    }
    let (code, error) = refused(&scalar, &lines(std::slice::from_ref(&good)), &["--temperature", "0.5"]);
    assert!(code == 2 && error.contains("--temperature: "), "{error}");
    let (code, error) = refused(Path::new("nowhere"), &lines(std::slice::from_ref(&good)), &[]);
    assert!(code == 1 && error.contains("nowhere"), "{error}");
    let (code, error) = refused(&vectors("lm/neox_bin"), &lines(&[good]), &[]);
    assert!(code == 1 && error.contains("tokenizer.json"), "{error}");
    let help = Command::new(env!("CARGO_BIN_EXE_rebel")).args(["score", "--help"]).output().unwrap();
    assert!(String::from_utf8(help.stdout).unwrap().contains("Examples:"));
}
