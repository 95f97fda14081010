//! Damaged tokenizer files: every one is either read, or one line of error that names the folder's file. No panic (not
//! even one that is caught), no hang, no large allocation.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use rebel_trainer::models::Tokenizer;
use rebel_trainer::models::chat::{ChatTemplate, Message};
use serde_json::{Value, json};

const FILES: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];
const TEXTS: [&str; 5] =
    ["", " Hello  world\n", "naïve 日本語 🙂 [PAD]", "</s><|endoftext|>\u{0}\u{feff}", "▁▁a\ttab's"];

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/hf/tok")
}

/// A small generator: the same mutations in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }

    fn value(&mut self) -> Value {
        let values = [
            json!(null),
            json!(-1),
            json!(0),
            json!(7),
            json!(4_294_967_295u64),
            json!(u64::MAX),
            json!(1e308),
            json!(0.5),
            json!(true),
            json!(false),
            json!(""),
            json!("x"),
            json!("</w>"),
            json!("日本"),
            json!("{{ 'x' * 10**9 }}"),
            json!("{% for"),
            json!("x".repeat(5000)),
            json!([]),
            json!({}),
            json!([1, "a", null]),
            json!({"type": "Strip", "content": " ", "start": 3, "stop": 9}),
            json!({"type": "Precompiled"}),
            json!({"type": "FixedLength", "length": 0}),
            json!({"type": "Sequence", "normalizers": []}),
            json!({"type": "Replace", "pattern": {"Regex": "x*"}, "content": "yy"}),
            json!({"type": "ByteLevel"}),
            json!({"type": "Replace", "pattern": {"Regex": "(a*)*b"}, "content": ""}),
            json!({"content": "zz", "lstrip": true, "special": false}),
            json!({"Regex": "((a{999}){999}){999}"}),
            json!({"Regex": "(?=(a+)+$)"}),
            json!({"type": "WordPiece"}),
            json!({"type": "Metaspace", "replacement": "ab"}),
        ];
        values[self.below(values.len())].clone()
    }

    /// Changes one place in `json`: replaces it, removes it, repeats it or gives it another's name.
    fn mutate(&mut self, json: &mut Value) {
        let deeper = self.below(5) > 0;
        match json {
            Value::Object(map) if !map.is_empty() => {
                let key = map.keys().nth(self.below(map.len())).unwrap().clone();
                if deeper {
                    return self.mutate(&mut map[&key]);
                }
                match self.below(3) {
                    0 => drop(map.remove(&key)),
                    1 => {
                        let value = map.remove(&key).unwrap();
                        map.insert(["a", "type", "-1", "4294967296", ""][self.below(5)].into(), value);
                    }
                    _ => map[&key] = self.value(),
                }
            }
            Value::Array(items) if !items.is_empty() => {
                let at = self.below(items.len());
                if deeper {
                    return self.mutate(&mut items[at]);
                }
                match self.below(4) {
                    0 => drop(items.remove(at)),
                    1 => items.push(items[at].clone()),
                    2 => items.reverse(),
                    _ => items[at] = self.value(),
                }
            }
            other => *other = self.value(),
        }
    }

    fn mutate_bytes(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        match self.below(5) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            2 if !bytes.is_empty() => drop(bytes.remove(at)),
            3 => bytes.insert(at, self.below(256) as u8),
            _ => {
                let end = (at + self.below(200)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

/// Reads the folder and uses what was read.
fn use_folder(folder: &Path) -> rebel_trainer::Result<()> {
    let template = ChatTemplate::load(folder)?;
    let mut tokenizer = Tokenizer::load(folder)?;
    let messages = TEXTS.map(|text| Message::new("user", text));
    for text in TEXTS {
        let ids = tokenizer.encode_special(text)?;
        tokenizer.decode(&ids, true)?;
        tokenizer.decode(&tokenizer.encode(text)?, false)?;
    }
    tokenizer.decode(&[0, 1, 2, 340, 409, u32::MAX], false)?;
    if let Some(template) = template {
        tokenizer.encode_chat(&template, &messages, true)?;
    }
    tokenizer.ensure_pad()?;
    tokenizer.encode_padded("a photo", 20)?;
    tokenizer.save(&folder.join("saved"))?;
    Tokenizer::load(&folder.join("saved"))?.encode("a")?;
    tokenizer.eos().map(drop)
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[test]
fn six_hundred_damaged_folders_are_read_or_named_in_one_line() {
    let here = std::thread::current().id();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == here {
            PANICS.lock().unwrap().push(info.to_string());
        } else {
            hook(info);
        }
    }));
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut outcomes = [0, 0];
    let mut faults = Vec::new();
    for round in 0..600 {
        let name = ["neox", "openchat", "clip"][round % 3];
        let folder = tempfile::tempdir().unwrap();
        let mut files: Vec<&str> =
            FILES.into_iter().filter(|file| committed().join(name).join(file).exists()).collect();
        for file in &files {
            std::fs::copy(committed().join(name).join(file), folder.path().join(file)).unwrap();
        }
        if name == "openchat" && round % 2 == 0 {
            let config = std::fs::read(folder.path().join("tokenizer_config.json")).unwrap();
            let config: Value = serde_json::from_slice(&config).unwrap();
            std::fs::write(folder.path().join("chat_template.jinja"), config["chat_template"].as_str().unwrap())
                .unwrap();
            files.push("chat_template.jinja");
        }
        let file = files[random.below(files.len())];
        let path = folder.path().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let structural = file.ends_with("json") && random.below(4) > 0;
        for _ in 0..=random.below(3) {
            if structural {
                let mut json: Value = serde_json::from_slice(&bytes).unwrap();
                random.mutate(&mut json);
                bytes = json.to_string().into_bytes();
            } else {
                random.mutate_bytes(&mut bytes);
            }
        }
        if random.below(30) == 0 {
            std::fs::remove_file(&path).unwrap();
        } else {
            std::fs::write(&path, &bytes).unwrap();
        }
        let start = Instant::now();
        let outcome = use_folder(folder.path());
        let took = start.elapsed();
        let mut report = |what: String| {
            let text = String::from_utf8_lossy(&bytes);
            faults.push(format!("{round} {name}/{file}: {what}: {}", text.chars().take(300).collect::<String>()));
        };
        if took.as_secs() >= 10 {
            report(format!("took {took:?}"));
        }
        for panic in PANICS.lock().unwrap().drain(..) {
            report(panic);
        }
        match outcome {
            Ok(()) => outcomes[0] += 1,
            Err(error) => {
                outcomes[1] += 1;
                let error = error.to_string();
                if !error.starts_with(folder.path().to_str().unwrap()) || error.contains('\n') || error.len() > 600 {
                    report(format!("is said to be {error:?}"));
                }
            }
        }
    }
    drop(std::panic::take_hook());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(outcomes[0] > 50 && outcomes[1] > 200, "{outcomes:?}");
    #[cfg(target_os = "linux")]
    {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let peak: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(peak < 512 << 10, "{peak} KiB");
    }
}

#[test]
fn what_is_wrong_is_named_by_file_and_field() {
    let said = |name: &str, file: &str, change: &dyn Fn(&mut Value)| {
        let folder = tempfile::tempdir().unwrap();
        for file in FILES.into_iter().filter(|file| committed().join(name).join(file).exists()) {
            std::fs::copy(committed().join(name).join(file), folder.path().join(file)).unwrap();
        }
        let path = folder.path().join(file);
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(&path, json.to_string()).unwrap();
        let error = Tokenizer::load(folder.path()).unwrap_err().to_string();
        error.strip_prefix(folder.path().to_str().unwrap()).unwrap().to_owned()
    };
    let tokenizer = |change: &dyn Fn(&mut Value)| said("openchat", "tokenizer.json", change);
    let config = |change: &dyn Fn(&mut Value)| said("openchat", "tokenizer_config.json", change);
    let vocab = |change: &dyn Fn(&mut Value)| said("clip", "vocab.json", change);
    for (error, what) in [
        (tokenizer(&|t| t["model"]["merges"][3] = "q qq".into()), "/tokenizer.json: model.merges[3]: "),
        (tokenizer(&|t| t["model"]["continuing_subword_prefix"] = "##".into()), "/tokenizer.json: model.merges[0]: "),
        (
            tokenizer(&|t| t["post_processor"]["special_tokens"]["<s>"]["ids"][0] = 5_000_000.into()),
            "/tokenizer.json: post_processor: id 5000000 is no token",
        ),
        (tokenizer(&|t| t["decoder"]["decoders"][3]["stop"] = 2.into()), "/tokenizer.json: decoder: Strip: stop"),
        (
            tokenizer(&|t| {
                let double = json!({"type": "Replace", "pattern": {"String": " "}, "content": "  "});
                t["normalizer"]["normalizers"] = vec![double; 40].into();
            }),
            "/tokenizer.json: normalizer: replacements make a text longer",
        ),
        (
            config(&|c| c["added_tokens_decoder"]["500"] = json!({"content": "<new>", "special": true})),
            "/tokenizer_config.json: added_tokens_decoder.500: \"<new>\" has id 411 in the tokenizer",
        ),
        (config(&|c| c["added_tokens_decoder"]["x"] = json!({})), "/tokenizer_config.json: added_tokens_decoder.x: "),
        (config(&|c| c["add_bos_token"] = "yes".into()), "/tokenizer_config.json: add_bos_token: "),
        (config(&|c| c["eos_token"] = "<none>".into()), "/tokenizer_config.json: eos_token: \"<none>\" is not in"),
        (
            vocab(&|v| drop(v.as_object_mut().unwrap().remove("an"))),
            "/merges.txt: line 2: \"an\" is not in the vocabulary",
        ),
        (vocab(&|v| v["an"] = (-1).into()), "/vocab.json: "),
        (
            vocab(&|v| drop(v.as_object_mut().unwrap().remove("<|startoftext|>"))),
            "/vocab.json: <|startoftext|>: missing (it is the bos_token)",
        ),
    ] {
        assert!(error.starts_with(what), "{error} (expected {what})");
    }
}

#[test]
fn the_config_decides_what_is_put_around_a_text_where_transformers_lets_it() {
    let changed = |class: &str, bos: Option<bool>, eos: Option<bool>| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(committed().join("openchat/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
        let config = json!({
            "tokenizer_class": class, "add_bos_token": bos, "add_eos_token": eos, "bos_token": "<s>",
            "eos_token": {"content": "</s>"}
        });
        std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        let tokenizer = Tokenizer::load(folder.path()).unwrap();
        let (ids, bare) = (tokenizer.encode_special("Hi").unwrap(), tokenizer.encode("Hi").unwrap());
        let at = ids.windows(bare.len()).position(|window| window == bare).unwrap();
        (ids[..at].to_vec(), ids[at + bare.len()..].to_vec())
    };
    assert_eq!(changed("LlamaTokenizer", None, None), (vec![1], vec![]));
    assert_eq!(changed("LlamaTokenizerFast", Some(false), Some(true)), (vec![], vec![2]));
    assert_eq!(changed("GPTNeoXTokenizer", None, None), (vec![], vec![]));
    assert_eq!(changed("PreTrainedTokenizerFast", Some(false), Some(true)), (vec![1], vec![])); // the file's own
}
