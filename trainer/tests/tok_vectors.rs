//! The tokenizer cases of the Python libraries' vectors, judged by the rules of their own judge: every value exactly; for
//! CLIP, where two tokenisations of a text are right, the four values of the text must belong to one of them.

use std::path::{Path, PathBuf};

use candle_core::Device;
use rebel_trainer::files;
use rebel_trainer::models::{Tokenizer, hf};
use rebel_trainer::vectors;
use serde_json::Value;

/// Runs a case and gives what is wrong with the results.
fn judge(case: &Path) -> Vec<String> {
    let out = tempfile::tempdir().unwrap();
    if let Err(error) = vectors::run_case(case, out.path(), &Device::Cpu) {
        return vec![error.to_string()];
    }
    let want = files::read_json(&case.join("cases.json")).unwrap();
    let got = files::read_json(&out.path().join("got.json")).unwrap();
    let mut wrong = Vec::new();
    for key in ["special", "vocab_size", "len"] {
        if want[key] != got[key] {
            wrong.push(format!("{key}: {}, expected {}", got[key], want[key]));
        }
    }
    for key in ["texts", "chats", "padded77"] {
        let (want, got) = (want[key].as_array(), got[key].as_array());
        let (want, got) = (want.map_or(&[][..], Vec::as_slice), got.map_or(&[][..], Vec::as_slice));
        if want.len() != got.len() {
            wrong.push(format!("{key}: {} entries, expected {}", got.len(), want.len()));
        }
        for (want, got) in want.iter().zip(got) {
            for (field, value) in want.as_object().unwrap() {
                let given = ["ids_fast", "messages", "add_generation_prompt"].contains(&field.as_str())
                    || key == "padded77" && field == "text";
                if !given && value != &got[field] {
                    wrong.push(format!("{key}: {}: {field}: {}, expected {value}", want["text"], got[field]));
                }
            }
        }
    }
    wrong
}

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/hf/tok")
}

#[test]
fn committed_tokenizer_cases_hold() {
    let mut judged = 0;
    for entry in std::fs::read_dir(committed()).unwrap() {
        let case = entry.unwrap().path();
        let wrong = judge(&case);
        assert!(wrong.is_empty(), "{}: {wrong:#?}", case.display());
        judged += 1;
    }
    assert!(judged >= 3, "{judged} cases");
}

/// The folder of the whole set, if it is there.
fn whole_set() -> Option<PathBuf> {
    let root = match std::env::var_os("REBEL_VECTORS") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
    };
    let root = if root.join("hf").is_dir() { root.join("hf") } else { root };
    let found = root.join("tok").is_dir();
    assert!(
        found || std::env::var("CI").as_deref() != Ok("true"),
        "the vectors are missing; name them in REBEL_VECTORS"
    );
    found.then_some(root)
}

#[test]
fn every_tokenizer_case_of_the_whole_set_holds() {
    let Some(root) = whole_set() else {
        println!("skipped: every_tokenizer_case_of_the_whole_set_holds (no vectors; name them in REBEL_VECTORS)");
        return;
    };
    let mut judged = 0;
    for entry in std::fs::read_dir(root.join("tok")).unwrap() {
        let case = entry.unwrap().path();
        let wrong = judge(&case);
        assert!(wrong.is_empty(), "{}: {wrong:#?}", case.display());
        judged += 1;
    }
    assert!(judged >= 6, "{judged} cases");
}

#[test]
fn the_same_tokenizer_saved_by_transformers_5_gives_the_same_tokens() {
    let Some(root) = whole_set() else {
        println!("skipped: the_same_tokenizer_saved_by_transformers_5_gives_the_same_tokens (no vectors)");
        return;
    };
    for name in ["neox_parallel", "llama3_tied_scaled", "mistral_openchat"] {
        let [old, new] = ["lm", "lm_v5"].map(|kind| Tokenizer::load(&root.join(kind).join(name)).unwrap());
        for text in ["Hello  world\n", "naïve 日本語 🙂", "<|eot_id|></s>[PAD] x", ""] {
            assert_eq!(old.encode_special(text).unwrap(), new.encode_special(text).unwrap(), "{name}: {text:?}");
        }
        assert_eq!(old.special().collect::<Vec<_>>(), new.special().collect::<Vec<_>>(), "{name}");
        let (config, _) =
            hf::load(&root.join("lm").join(name), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        old.check_vocabulary(config.vocab).unwrap();
        let error = old.check_vocabulary(300).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: vocabulary: ") && error.contains("has id 300"), "{error}");
    }
}

#[test]
fn every_text_comes_back_from_its_tokens() {
    let Some(root) = whole_set() else {
        println!("skipped: every_text_comes_back_from_its_tokens (no vectors; name them in REBEL_VECTORS)");
        return;
    };
    // xorshift: any letters will do
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut letter = move || match random(4) {
        0 => char::from(32 + random(95) as u8),
        1 => char::from_u32(random(0x800) as u32).unwrap_or(' '),
        2 => char::from_u32(random(0x11_0000) as u32).unwrap_or('\u{fffd}'),
        _ => [' ', '\n', '\t', 'a', '▁'][random(5) as usize],
    };
    let texts: Vec<String> = (0..500).map(|i| (0..i % 60).map(|_| letter()).collect()).collect();
    // NeoX composes letters (NFC) and Llama 2 takes U+2581 for a space: what comes back is another text of equal tokens.
    for (name, exact) in
        [("llama3", true), ("llama3_pad", true), ("neox", false), ("openchat", false), ("llama2", false)]
    {
        let tokenizer = Tokenizer::load(&root.join("tok").join(name)).unwrap();
        for text in &texts {
            let ids = tokenizer.encode(text).unwrap();
            let back = tokenizer.decode(&ids, false).unwrap();
            if exact {
                assert_eq!(&back, text, "{name}");
            } else {
                assert_eq!(tokenizer.encode(&back).unwrap(), ids, "{name}: {text:?}");
            }
        }
    }
    let clip = Tokenizer::load(&root.join("tok/clip")).unwrap();
    for text in &texts {
        let (ids, mask) = clip.encode_padded(text, 77).unwrap();
        assert_eq!((ids.len(), mask.len(), ids[0], mask[0]), (77, 77, clip.bos().unwrap(), true));
        let real = mask.iter().filter(|real| **real).count();
        assert_eq!(ids[real - 1], clip.eos().unwrap(), "{text:?}");
        let whole = clip.encode_special(text).unwrap();
        assert_eq!(ids[..real - 1], whole[..real - 1], "{text:?}");
        assert_eq!(real, whole.len().min(77));
    }
}

#[test]
fn clip_lower_cases_a_capital_sigma_as_python_does() {
    let clip = Tokenizer::load(&committed().join("clip")).unwrap();
    assert_eq!(clip.encode("ΟΔΟΣ ΣΑΣ").unwrap(), clip.encode("οδος σας").unwrap());
    assert_ne!(clip.encode("ΟΔΟΣ").unwrap(), clip.encode("οδοσ").unwrap());
    assert_eq!(clip.encode("!\u{345}! a").unwrap(), clip.encode("! ! a").unwrap());
    let saved = tempfile::tempdir().unwrap();
    clip.save(saved.path()).unwrap();
    let again = Tokenizer::load(saved.path()).unwrap();
    assert_eq!(again.encode_special("A Photo!").unwrap(), clip.encode_special("a photo!").unwrap());
    assert!(!saved.path().join("tokenizer.json").exists());
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        std::fs::remove_file(saved.path().join(name)).unwrap();
    }
    let bare = Tokenizer::load(saved.path()).unwrap();
    assert_eq!(bare.encode_padded("a photo", 8).unwrap(), clip.encode_padded("a photo", 8).unwrap());
}

#[test]
fn the_judge_sees_one_wrong_id() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(committed().join("neox")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let file = folder.path().join("cases.json");
    let mut cases: Value = files::read_json(&file).unwrap();
    cases["texts"][7]["ids"][2] = 3.into();
    files::write_json(&file, &cases).unwrap();
    assert_eq!(judge(folder.path()).len(), 1);
}
