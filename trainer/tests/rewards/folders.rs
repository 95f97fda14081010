//! Folders of reward models that are damaged, hostile or something else: one line that names file and field, no panic.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use rand::RngCore;
use rebel_trainer::data::exchange::{Exchange, Prompt};
use rebel_trainer::files;
use rebel_trainer::models::reward::{Kind, folder};
use rebel_trainer::models::{DecoderConfig, Family, RewardConfig, RewardModel, Tokenizer, tensors};
use rebel_trainer::nn::{Place, Purpose, Streams};
use rebel_trainer::rewards::LearnedReward;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::odd::odd_values;
use crate::shared::{families, store};

const WEIGHTS: &str = "model.safetensors";

fn committed(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/hf/rm").join(case)
}

/// A copy of a committed folder, its weights in one safetensors file.
fn copy(case: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        std::fs::copy(committed(case).join(name), folder.path().join(name)).unwrap();
    }
    let (config, store) = folder::load(&committed(case), DType::F32, &Device::Cpu).unwrap();
    let names = config.parameters();
    let tensors = store.to_tensors().into_iter().filter(|(name, _)| names.contains_key(name)).collect();
    tensors::save(&folder.path().join(WEIGHTS), &tensors).unwrap();
    folder
}

/// The folder of a Eurus (no published one is this small), with Llama 2's kind of tokenizer.
fn eurus() -> TempDir {
    let mistral = families().into_iter().find(|config| config.family == Family::Mistral).unwrap();
    let decoder = DecoderConfig { vocab: 399, ..mistral };
    let config = RewardConfig { decoder, kind: Kind::Regression, pad: None };
    let folder = TempDir::new().unwrap();
    let fresh = RewardModel::initial(&config, &store(&config.decoder), &Streams::new(5)).unwrap();
    folder::save(folder.path(), &config, &fresh).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(committed("starling").join(name), folder.path().join(name)).unwrap();
    }
    folder
}

fn error(folder: &Path) -> String {
    let error = folder::load(folder, DType::F32, &Device::Cpu).unwrap_err().to_string();
    let at = folder.to_string_lossy();
    assert!(error.starts_with(&*at) && !error.contains('\n') && error.len() < 1000, "{error}");
    error.strip_prefix(&*at).unwrap().trim_start_matches('/').to_string()
}

fn edit(folder: &Path, change: impl FnOnce(&mut Value)) {
    let file = folder.join("config.json");
    let mut json = files::read_json(&file).unwrap();
    change(&mut json);
    std::fs::write(&file, json.to_string()).unwrap();
}

fn edit_weights(folder: &Path, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) {
    let file = folder.join(WEIGHTS);
    let mut all = tensors::load(&file).unwrap();
    change(&mut all);
    tensors::save(&file, &all).unwrap();
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn heads_that_are_missing_doubled_or_of_another_shape_are_named() {
    for (case, head) in [
        ("tldr_scalar", "scalar_head.weight"),
        ("fsfairx_seqcls", "score.weight"),
        ("starling", "v_head.weight"),
        ("armorm", "regression_layer.weight"),
    ] {
        let whole = copy(case);
        assert!(folder::is_reward_model(whole.path()).unwrap());
        edit_weights(whole.path(), |all| drop(all.insert(head.into(), zeros(&[1, 7]))));
        let found = error(whole.path());
        assert!(found.contains(head) || found.contains("num_objectives"), "{found}");

        let headless = copy(case);
        edit_weights(headless.path(), |all| drop(all.remove(head)));
        let found = error(headless.path());
        match case {
            // Nothing else says that it is no language model.
            "starling" => assert!(found.starts_with("model.safetensors: no head of a reward model"), "{found}"),
            _ => assert_eq!(found, format!("model.safetensors: {head}: missing tensor")),
        }

        let two = copy(case);
        let other = if head == "score.weight" { "v_head.weight" } else { "score.weight" };
        edit_weights(two.path(), |all| drop(all.insert(other.into(), zeros(&[1, 48]))));
        let found = error(two.path());
        assert!(found.contains("a second head beside ") && found.contains("(expected one)"), "{found}");
    }
    let unread = copy("armorm");
    edit_weights(unread.path(), |all| drop(all.remove("gating.logit_scale")));
    assert_eq!(error(unread.path()), "model.safetensors: gating.logit_scale: missing tensor");
}

#[test]
fn a_language_model_is_none() {
    let policy = committed("../lm/neox_sequential");
    assert!(!folder::is_reward_model(&policy).unwrap());
    assert!(
        error(&policy).starts_with("model.safetensors: no head of a reward model (expected one of scalar_head.weight")
    );
}

#[test]
fn a_config_that_contradicts_the_weights_is_named_by_field() {
    for (case, key, value, part) in [
        ("fsfairx_seqcls", "id2label", json!({"0": "bad", "1": "good"}), "id2label: 2 labels (expected 1: a reward)"),
        ("fsfairx_seqcls", "num_labels", json!(3), "num_labels: 3 labels"),
        ("fsfairx_seqcls", "num_labels", json!("1"), "num_labels: \"1\" (expected a whole number)"),
        ("fsfairx_seqcls", "id2label", json!([]), "id2label: [] (expected an object)"),
        (
            "fsfairx_seqcls",
            "architectures",
            json!(["EurusRewardModel"]),
            "architectures: EurusRewardModel has regression",
        ),
        ("fsfairx_seqcls", "architectures", json!("x"), "architectures: \"x\" (expected a list of strings)"),
        ("fsfairx_seqcls", "hidden_size", json!(64), "model.safetensors: "),
        ("tldr_scalar", "base_config", json!(null), "base_config: missing"),
        ("tldr_scalar", "base_config", json!({}), "base_config.model_type: missing"),
        ("tldr_scalar", "bias", json!("0.5"), "bias: \"0.5\" (expected a number)"),
        ("starling", "num_hidden_layers", json!(3), "transformer.layers.2."),
        ("armorm", "num_objectives", json!(20), "num_objectives: 20 (regression_layer.weight has 19 rows)"),
        ("armorm", "num_objectives", json!(u64::MAX), "num_objectives: 18446744073709551615 (regr"),
        ("armorm", "num_objectives", json!(0), "num_objectives: 0 is not a width"),
        ("armorm", "gating_n_hidden", json!(2), "gating_n_hidden: 2 (the weights hold 4 layers"),
        ("armorm", "gating_n_hidden", json!(u64::MAX), "gating_n_hidden: 18446744073709551615 (the"),
        ("armorm", "gating_hidden_dim", json!(41), "gating.layers.0."),
        ("armorm", "gating_hidden_dim", json!(u64::MAX), "gating.layers.0."),
        ("armorm", "gating_temperature", json!(0), "gating_temperature: 0 (expected a number above 0)"),
        ("armorm", "gating_temperature", json!(true), "gating_temperature: true (expected a number)"),
    ] {
        let damaged = copy(case);
        edit(damaged.path(), |json| json[key] = value);
        let found = error(damaged.path());
        assert!(found.contains(part), "{key}: {found}");
    }
}

#[test]
fn a_second_copy_of_the_trunk_must_say_the_same() {
    let twice = copy("starling");
    edit_weights(twice.path(), |all| {
        let again = |(name, tensor): (&String, &Tensor)| {
            Some((format!("model.model{}", name.strip_prefix("transformer")?), tensor.clone()))
        };
        let copies: Vec<_> = all.iter().filter_map(again).collect();
        all.extend(copies);
        all.insert("model.lm_head.weight".into(), zeros(&[399, 48]));
    });
    assert!(folder::load(twice.path(), DType::F32, &Device::Cpu).is_ok());
    edit_weights(twice.path(), |all| {
        let name = "model.model.layers.1.mlp.up_proj.weight";
        let moved = (&all[name] + 1e-3).unwrap();
        all.insert(name.into(), moved);
    });
    let found = error(twice.path());
    let part = "model.model.layers.1.mlp.up_proj.weight: differs from transformer.layers.1.mlp.up_proj.weight";
    assert!(found.contains(part), "{found}");
    // Either name alone is enough.
    edit_weights(twice.path(), |all| all.retain(|name, _| !name.starts_with("transformer.")));
    let (config, _) = folder::load(twice.path(), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(config.kind, Kind::Value { trunk: "model.model" });
}

#[test]
fn texts_that_a_reward_model_cannot_read_are_refused_when_it_is_loaded() {
    let bare = copy("armorm");
    let strip = |file: &str, change: fn(&mut Value)| {
        let path = bare.path().join(file);
        let mut json = files::read_json(&path).unwrap();
        change(&mut json);
        std::fs::write(&path, json.to_string()).unwrap();
        LearnedReward::load(bare.path(), &Place::HOST).unwrap_err().to_string()
    };
    let found = strip("tokenizer_config.json", |json| drop(json.as_object_mut().unwrap().remove("chat_template")));
    assert!(found.contains("tokenizer_config.json: chat_template: missing"), "{found}");
    std::fs::remove_file(bare.path().join("tokenizer.json")).unwrap();
    assert!(LearnedReward::load(bare.path(), &Place::HOST).unwrap_err().to_string().contains("tokenizer.json: "));
}

fn asked(answer: &str) -> Exchange {
    Exchange { prompt: Prompt::Text("Hi".into()), answer: answer.into(), finished: true }
}

#[test]
fn a_text_without_the_gates_tokens_or_beyond_the_context_is_refused() {
    let folder = copy("armorm");
    let load = || LearnedReward::load(folder.path(), &Place::HOST).unwrap();
    assert!(load().reader().tokens(&asked("Yes.")).is_ok());
    let found = load().reader().tokens(&asked(&"yes ".repeat(9000))).unwrap_err().to_string();
    assert!(found.contains("tokens (the model reads at most 8192)"), "{found}");
    let path = folder.path().join("tokenizer_config.json");
    let mut json = files::read_json(&path).unwrap();
    json["chat_template"] = json!("{% for message in messages %}{{ message['content'] }}{% endfor %}");
    std::fs::write(&path, json.to_string()).unwrap();
    let found = load().reader().tokens(&asked("Yes.")).unwrap_err().to_string();
    assert!(found.contains("tokenizer_config.json: chat_template: its text has no answer"), "{found}");
}

#[test]
fn a_tokenizer_for_another_model_is_named() {
    let folder = copy("fsfairx_seqcls");
    std::fs::copy(committed("starling").join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    std::fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    std::fs::remove_file(folder.path().join("special_tokens_map.json")).unwrap();
    let found = LearnedReward::load(folder.path(), &Place::HOST).unwrap_err().to_string();
    assert!(found.contains("tokenizer.json: vocabulary: ") && found.contains("(the model has 339 tokens)"), "{found}");
}

#[test]
fn a_begin_of_text_stands_once_whoever_writes_it() {
    let folder = copy("fsfairx_seqcls");
    let ids = |template: Option<&str>| {
        let path = folder.path().join("tokenizer_config.json");
        let mut json = files::read_json(&path).unwrap();
        if let Some(template) = template {
            json["chat_template"] = json!(template);
        }
        std::fs::write(&path, json.to_string()).unwrap();
        let reward = LearnedReward::load(folder.path(), &Place::HOST).unwrap();
        reward.reader().tokens(&asked("Yes.")).unwrap()
    };
    let whole = ids(None); // its template writes the begin of text, and its tokenizer adds one
    assert_eq!(whole.iter().filter(|&&id| id == 330).count(), 1);
    assert_eq!(whole[0], 330);
    let bare = "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' \
                + message['content'] + '<|eot_id|>' }}{% endfor %}";
    assert_eq!(ids(Some(bare)), whole);
}

#[test]
fn eurus_reads_its_own_marks_and_no_end() {
    let folder = eurus();
    let reward = LearnedReward::load(folder.path(), &Place::HOST).unwrap();
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    let expected = tokenizer.encode_special("[INST] Hi [/INST] Yes.").unwrap();
    assert_eq!(reward.reader().tokens(&asked("Yes.")).unwrap(), expected);
}

/// Every field of every kind's config in turn, and bytes of the files at random.
#[test]
fn no_mutation_of_a_folder_panics_or_goes_unnamed() {
    let odd = [odd_values(), vec![json!({"0": 1})]].concat();
    let mut tried = 0;
    let whole = ["tldr_scalar", "fsfairx_seqcls", "starling", "armorm"].map(copy);
    for at in whole.iter().chain([&eurus()]) {
        let file = at.path().join("config.json");
        let json = files::read_json(&file).unwrap();
        let mut outcome = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            tried += 1;
            if let Err(error) = folder::load(at.path(), DType::F32, &Device::Cpu) {
                let error = error.to_string();
                let named = error.starts_with(&*at.path().to_string_lossy());
                assert!(named && !error.contains('\n') && error.len() < 1000, "{error}");
            }
        };
        for name in json.as_object().unwrap().keys() {
            for value in &odd {
                let mut json = json.clone();
                json[name] = value.clone();
                outcome(json.to_string().as_bytes());
            }
        }
        let text = json.to_string().into_bytes();
        let mut stream = Streams::new(8).stream(Purpose("damage"), 0, 0, 0);
        for _ in 0..100 {
            let mut bytes = text.clone();
            for _ in 0..1 + stream.next_u32() % 3 {
                let at = stream.next_u64() as usize % bytes.len();
                bytes[at] = stream.next_u32() as u8;
            }
            outcome(&bytes);
        }
    }
    assert!(tried > 1500, "{tried}");
}
