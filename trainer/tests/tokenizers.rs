//! Tokenizers: those of the vectors, and trained ones.

use std::path::{Path, PathBuf};

use rebel_trainer::models::tokenizer::Tokenizer;
use serde_json::Value;

fn neox() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/hf/tok/neox")
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn ids_and_texts_are_those_of_transformers() {
    let cases: Value = serde_json::from_slice(&std::fs::read(neox().join("cases.json")).unwrap()).unwrap();
    let tokenizer = Tokenizer::load(&neox()).unwrap();
    let texts = cases["texts"].as_array().unwrap();
    assert!(texts.len() > 20);
    for case in texts {
        let text = case["text"].as_str().unwrap();
        let found = tokenizer.encode(text).unwrap();
        assert_eq!(found, ids(&case["ids_no_special"]), "{text:?}");
        assert_eq!(tokenizer.decode(&found, false).unwrap(), case["decode_raw"].as_str().unwrap(), "{text:?}");
        let with_special = ids(&case["ids"]);
        assert_eq!(tokenizer.encode_special(text).unwrap(), with_special, "{text:?}");
        let skipped = case["decode_skip_special"].as_str().unwrap();
        assert_eq!(tokenizer.decode(&with_special, true).unwrap(), skipped, "{text:?}");
    }
    assert_eq!(tokenizer.eos().unwrap() as u64, cases["special"]["eos_token"][1].as_u64().unwrap());
    assert_eq!(tokenizer.pad().unwrap() as u64, cases["special"]["pad_token"][1].as_u64().unwrap());
    assert_eq!(tokenizer.vocab_len() as u64, cases["len"].as_u64().unwrap());
}

fn corpus() -> Vec<String> {
    (0..200)
        .map(|i| format!("Post {i}: my {} aaaa ran away, and I'm sad.\nTL;DR: help!", ["dog", "cat"][i % 2]))
        .collect()
}

#[test]
fn training_twice_or_in_another_order_gives_the_same_tokenizer() {
    let save = |texts: Vec<String>| {
        let folder = tempfile::tempdir().unwrap();
        Tokenizer::train(texts.into_iter(), 320).unwrap().save(folder.path()).unwrap();
        ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
            .map(|name| std::fs::read(folder.path().join(name)).unwrap())
    };
    let first = save(corpus());
    assert_eq!(first, save(corpus()));
    assert_eq!(first, save(corpus().into_iter().rev().collect()));
}

#[test]
fn a_trained_tokenizer_ends_with_pad_and_survives_saving() {
    let tokenizer = Tokenizer::train(corpus().into_iter(), 300).unwrap();
    assert_eq!((tokenizer.eos().unwrap(), tokenizer.pad().unwrap(), tokenizer.vocab_len()), (0, 299, 300));
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save(folder.path()).unwrap();
    let again = Tokenizer::load(folder.path()).unwrap();
    assert_eq!((again.eos().unwrap(), again.pad().unwrap(), again.vocab_len()), (0, 299, 300));
    for text in ["my dog ran away", "héllo ☃ \u{1F600}\tx", "a<|endoftext|>b[PAD]"] {
        let ids = again.encode(text).unwrap();
        assert_eq!(ids, tokenizer.encode(text).unwrap());
        assert_eq!(again.decode(&ids, false).unwrap(), text);
    }
    assert_eq!(again.encode("<|endoftext|>[PAD]").unwrap(), [0, 299]);
    assert_eq!(again.decode(&[0, 299], true).unwrap(), "");
}

/// Learns with the tokenizers crate from the same texts.
fn trained_by_the_crate(vocab_size: usize) -> tokenizers::Tokenizer {
    use tokenizers::models::TrainerWrapper;
    use tokenizers::models::bpe::{BPE, BpeTrainer};
    use tokenizers::normalizers::NFC;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::{AddedToken, NormalizerWrapper};
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_normalizer(Some(NormalizerWrapper::NFC(NFC))).unwrap();
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(vocab_size)
        .special_tokens(vec![AddedToken::from("<|endoftext|>", true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    tokenizer.train(&mut TrainerWrapper::from(trainer), corpus().into_iter()).unwrap();
    tokenizer
}

#[test]
fn merges_are_those_the_tokenizers_crate_learns() {
    let ours = Tokenizer::train(corpus().into_iter(), 301).unwrap();
    let theirs = trained_by_the_crate(300);
    for id in 0..300 {
        let token = theirs.id_to_token(id).unwrap();
        assert_eq!(ours.id(&token), Some(id), "{token}");
    }
    let text = "my dog ran away, help! and the cat sat \u{e9}";
    assert_eq!(ours.encode(text).unwrap(), theirs.encode(text, false).unwrap().get_ids());
}

#[test]
fn a_tokenizer_without_a_padding_token_gets_one_after_all_others() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        let mut file: Value = serde_json::from_slice(&std::fs::read(neox().join(name)).unwrap()).unwrap();
        if name == "tokenizer.json" {
            file["added_tokens"].as_array_mut().unwrap().retain(|token| token["content"] != "[PAD]");
        } else {
            file.as_object_mut().unwrap().remove("pad_token");
            if let Some(listed) = file.get_mut("added_tokens_decoder") {
                listed.as_object_mut().unwrap().remove("347");
            }
        }
        std::fs::write(folder.path().join(name), file.to_string()).unwrap();
    }
    let mut tokenizer = Tokenizer::load(folder.path()).unwrap();
    assert_eq!(tokenizer.vocab_len(), 347);
    let missing = tokenizer.pad().unwrap_err().to_string();
    assert!(missing.contains("tokenizer_config.json: pad_token: missing"), "{missing}");
    assert_eq!((tokenizer.ensure_pad().unwrap(), tokenizer.pad().unwrap(), tokenizer.vocab_len()), (347, 347, 348));
    let saved = tempfile::tempdir().unwrap();
    tokenizer.save(saved.path()).unwrap();
    assert_eq!(Tokenizer::load(saved.path()).unwrap().pad().unwrap(), 347);
}

#[test]
fn what_a_tokenizer_lacks_is_named() {
    let copy = |change: &dyn Fn(&str, &mut Value)| {
        let folder = tempfile::tempdir().unwrap();
        for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
            let mut file: Value = serde_json::from_slice(&std::fs::read(neox().join(name)).unwrap()).unwrap();
            change(name, &mut file);
            std::fs::write(folder.path().join(name), file.to_string()).unwrap();
        }
        let error = Tokenizer::load(folder.path()).and_then(|t| t.eos()).unwrap_err().to_string();
        error.strip_prefix(folder.path().to_str().unwrap()).unwrap().to_string()
    };
    let no_eos = copy(&|name, file| {
        if name != "tokenizer.json" {
            file.as_object_mut().unwrap().remove("eos_token");
        }
    });
    assert!(no_eos.starts_with("/tokenizer_config.json: eos_token: missing"), "{no_eos}");
    let other_eos = copy(&|name, file| {
        if name == "tokenizer_config.json" {
            file["eos_token"] = "</s>".into();
        }
    });
    assert_eq!(other_eos, "/tokenizer_config.json: eos_token: \"</s>\" is not in tokenizer.json");
    let shifted = copy(&|name, file| {
        if name == "tokenizer.json" {
            file["added_tokens"].as_array_mut().unwrap().remove(3);
        }
    });
    assert!(shifted.starts_with("/tokenizer.json: added_tokens: "), "{shifted}");
    let random = copy(&|name, file| {
        if name == "tokenizer.json" {
            file["model"]["dropout"] = 0.1.into();
        }
    });
    assert!(random.starts_with("/tokenizer.json: model.dropout: "), "{random}");
    assert!(Tokenizer::train(corpus().into_iter(), 257).unwrap_err().to_string().starts_with("vocab_size: 257"));
}

/// The folder of `neox()` with one of its JSON files changed.
fn changed(file: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        std::fs::copy(neox().join(name), folder.path().join(name)).unwrap();
    }
    let path = folder.path().join(file);
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
    folder
}

#[test]
fn config_decides_whether_a_space_is_put_before_a_neox_text() {
    let plain = Tokenizer::load(&neox()).unwrap();
    let (first, spaced) = (plain.encode("cat").unwrap(), plain.encode(" cat").unwrap());
    assert_ne!(first, spaced);
    let contradicted = changed("tokenizer.json", |json| json["pre_tokenizer"]["add_prefix_space"] = true.into());
    assert_eq!(Tokenizer::load(contradicted.path()).unwrap().encode("cat").unwrap(), first);
    let wanted = changed("tokenizer_config.json", |json| json["add_prefix_space"] = true.into());
    assert_eq!(Tokenizer::load(wanted.path()).unwrap().encode("cat").unwrap(), spaced);
}

#[test]
fn a_token_that_has_a_name_is_special_whatever_its_list_says() {
    let folder = changed("tokenizer.json", |json| {
        for token in json["added_tokens"].as_array_mut().unwrap() {
            token["special"] = false.into();
        }
    });
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    let ids = [tokenizer.encode("cat").unwrap(), vec![tokenizer.eos().unwrap(), tokenizer.pad().unwrap()]].concat();
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "cat");
    assert_ne!(tokenizer.decode(&ids, false).unwrap(), "cat");
}
