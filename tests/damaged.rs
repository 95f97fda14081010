//! Damaged and hostile model folders through the program: each is converted or refused in one line that names a file of it,
//! in seconds, with little more memory than the files are long. The folders weigh less than a megabyte, and the process may
//! not map 128 MiB more than it does for a sound one.

#![cfg(target_os = "linux")]

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a process may map beyond what a sound folder takes, KiB.
const SLACK: u64 = 128 << 10;
/// A sound folder takes some hundredths of a second; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// One damaged file: which, and its bytes (none: it is gone).
struct Damage {
    source: usize,
    file: &'static str,
    bytes: Option<Vec<u8>>,
    what: String,
}

/// Numbers from a fixed start (Marsaglia's xorshift): the same damage at every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n.max(1)
    }
}

fn rebel(limit: Option<u64>) -> Command {
    let mut command = Command::new("sh");
    let limit = limit.map_or("unlimited".to_string(), |kib| kib.to_string());
    command.args([
        "-c",
        &format!("ulimit -v {limit}; exec \"$@\""),
        "sh",
        env!("CARGO_BIN_EXE_rebel"),
        "--threads",
        "1",
    ]);
    command.env("RUST_BACKTRACE", "0");
    command
}

/// The least address space, of the steps tried, that a sound folder needs.
fn needed(source: &Path) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let enough = |kib: &u64| {
        let to = folder.path().join(kib.to_string());
        let mut command = rebel(Some(*kib));
        command.arg("convert").arg(source).arg(to).stderr(Stdio::null()).stdout(Stdio::null());
        command.status().unwrap().success()
    };
    (5..=20).map(|power| 1 << (power + 8)).chain([1 << 30]).find(enough).expect("a sound folder is converted")
}

/// Values put where others stood.
fn odd() -> Vec<Value> {
    let mut nested = json!(0);
    for _ in 0..100 {
        nested = json!([nested]);
    }
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(3),
        json!(2.5),
        json!(1e308),
        json!(u64::MAX),
        json!(1u64 << 27),
        json!(i64::MIN),
        json!(""),
        json!("../../../etc/passwd"),
        json!("/etc/passwd"),
        json!("x\ny\u{1b}[31m\u{0}"),
        json!("é".repeat(5000)),
        json!([]),
        json!([-1, 0]),
        json!({}),
        json!({"rope_type": "llama3", "factor": 0}),
        nested,
    ]
}

/// Every path to a value inside `json`, containers included.
fn paths(json: &Value, at: String, all: &mut Vec<String>) {
    match json {
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
            all.push(at.clone());
            paths(value, at, all);
        }),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, value)| {
            all.push(format!("{at}/{i}"));
            paths(value, format!("{at}/{i}"), all);
        }),
        _ => {}
    }
}

/// `count` copies of the JSON, each with one value exchanged.
fn exchanged(json: &Value, count: usize, draw: &mut Draw) -> Vec<(Value, String)> {
    let (mut all, odd) = (Vec::new(), odd());
    paths(json, String::new(), &mut all);
    let mut copies = Vec::new();
    for _ in 0..count {
        let (path, value) = (&all[draw.below(all.len())], &odd[draw.below(odd.len())]);
        let mut copy = json.clone();
        *copy.pointer_mut(path).unwrap() = value.clone();
        copies.push((copy, format!("{path} = {value:.40}")));
    }
    copies
}

/// What breaks any JSON file.
fn broken_json(text: &str) -> Vec<(Vec<u8>, String)> {
    let brace = text.find('{').unwrap() + 1;
    let with = |entry: &str| [&text[..brace], entry, &text[brace..]].concat().into_bytes();
    let mut all = vec![
        (Vec::new(), "empty".to_string()),
        (vec![0; 5000], "zeros".into()),
        (b"[".repeat(500_000), "brackets".into()),
        (br#"{"a":"#.repeat(200_000), "braces".into()),
        (with(r#""model_type": "\ud800","#), "a lone surrogate".into()),
        (with(r#""hidden_size": NaN,"#), "not a number".into()),
        (with(r#""hidden_size": 1e999,"#), "infinite".into()),
        (with(r#""hidden_size": 99999999999999999999999999999999,"#), "a long number".into()),
        (with(&format!(r#""x": {}1{},"#, "[".repeat(5000), "]".repeat(5000))), "deep".into()),
        ([b"\xef\xbb\xbf", text.as_bytes()].concat(), "a byte-order mark".into()),
        ([b"\xff\xfe", text.as_bytes()].concat(), "no UTF-8".into()),
        (b"null".to_vec(), "null".into()),
        (br#""text""#.to_vec(), "a text".into()),
    ];
    all.extend([1, 2, 3, 5].map(|n| (text.as_bytes()[..text.len() * n / 7].to_vec(), format!("cut to {n}/7"))));
    all
}

/// `count` copies of `whole` with bits flipped, bytes set or a tail missing, three in four of them within the first `front`.
fn flipped(whole: &[u8], front: usize, count: usize, draw: &mut Draw) -> Vec<(Vec<u8>, String)> {
    let mut all = Vec::new();
    for i in 0..count {
        let mut bytes = whole.to_vec();
        let span = if i % 4 == 0 { bytes.len() } else { front.min(bytes.len()) };
        for _ in 0..1 + draw.below(4) {
            let at = draw.below(span);
            match draw.below(3) {
                0 => bytes[at] ^= 1 << draw.below(8),
                1 => bytes[at] = 0xff,
                _ => bytes[at] = draw.below(256) as u8,
            }
        }
        if i % 9 == 0 {
            bytes.truncate(draw.below(whole.len()));
        }
        all.push((bytes, format!("damage {i}")));
    }
    all
}

/// A safetensors file with another header.
fn with_header(whole: &[u8], header: &str) -> Vec<u8> {
    let old = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &whole[8 + old..]].concat()
}

/// Three sound folders: one with shards and a generation config, a pickled one, a reward model.
fn sources(at: &Path) -> Vec<PathBuf> {
    let case = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/hf").join(name);
    let sharded = at.join("sharded");
    let mut command = rebel(None);
    command.arg("convert").arg(case("lm/llama3_bf16")).arg(&sharded).args(["--shard-size", "40KB"]);
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    vec![sharded, case("lm/neox_bin"), case("rm/tldr_scalar"), case("lm/neox_sequential")]
}

fn damages(sources: &[PathBuf]) -> Vec<Damage> {
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let mut all = Vec::new();
    let mut put = |source: usize, file: &'static str, bytes: Vec<u8>, what: String| {
        all.push(Damage { source, file, bytes: Some(bytes), what });
    };
    let index = "model.safetensors.index.json";
    for (source, file, count) in [
        (0, "config.json", 160),
        (0, "generation_config.json", 40),
        (0, index, 200),
        (1, "config.json", 80),
        (2, "config.json", 160),
    ] {
        let text = std::fs::read_to_string(sources[source].join(file)).unwrap();
        for (copy, what) in exchanged(&serde_json::from_str(&text).unwrap(), count, &mut draw) {
            put(source, file, copy.to_string().into_bytes(), what);
        }
        broken_json(&text).into_iter().for_each(|(bytes, what)| put(source, file, bytes, what));
    }
    let weights = std::fs::read(sources[3].join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&weights[8..8 + length]).unwrap();
    for (copy, what) in exchanged(&serde_json::from_str(header).unwrap(), 200, &mut draw) {
        put(3, "model.safetensors", with_header(&weights, &copy.to_string()), what);
    }
    for (bytes, what) in broken_json(header) {
        put(3, "model.safetensors", with_header(&weights, &String::from_utf8_lossy(&bytes)), what);
    }
    for (bytes, what) in flipped(&weights, 8 + length, 150, &mut draw) {
        put(3, "model.safetensors", bytes, what);
    }
    for size in [0, 7, length as u64 - 1, length as u64 + 1, 100_000_000, 1 << 40, u64::MAX - 8, u64::MAX] {
        let bytes = [&size.to_le_bytes()[..], &weights[8..]].concat();
        put(3, "model.safetensors", bytes, format!("a header of {size}"));
    }
    for source in [1, 2] {
        let weights = std::fs::read(sources[source].join("pytorch_model.bin")).unwrap();
        let (mut backwards, end) = (weights.clone(), weights.len());
        for (bytes, what) in flipped(&weights, 6000, 150, &mut draw) {
            put(source, "pytorch_model.bin", bytes, what);
        }
        // The directory lies at the end.
        backwards.reverse();
        for (mut bytes, what) in flipped(&backwards, 3000, 100, &mut draw) {
            bytes.reverse();
            put(source, "pytorch_model.bin", bytes, format!("{what} from the end"));
        }
        put(source, "pytorch_model.bin", [&weights[..], &weights[..end / 2]].concat(), "half again behind it".into());
        // Members that say they are compressed, to be blown up by whoever believes it.
        let mut packed = weights.clone();
        for at in (0..end - 46).filter(|&at| weights[at..].starts_with(b"PK\x01\x02")) {
            packed[at + 10] = 8;
            packed[at + 24..at + 28].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
        }
        put(source, "pytorch_model.bin", packed, "a bomb".into());
    }
    for (source, file) in [(0, "config.json"), (0, "model-00002-of-00003.safetensors"), (1, "pytorch_model.bin")] {
        all.push(Damage { source, file, bytes: None, what: "missing".into() });
    }
    all
}

/// Whether the program refuses one damaged folder, or what is wrong with how it takes it.
fn verdict(damage: &Damage, source: &Path, limit: u64) -> Result<bool, String> {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("model");
    std::fs::create_dir(&at).unwrap();
    for entry in std::fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name.to_string_lossy() != damage.file && !name.to_string_lossy().starts_with("expected") {
            std::os::unix::fs::symlink(entry.path().canonicalize().unwrap(), at.join(name)).unwrap();
        }
    }
    if let Some(bytes) = &damage.bytes {
        std::fs::write(at.join(damage.file), bytes).unwrap();
    }
    let mut command = rebel(Some(limit));
    command.arg("convert").arg(&at).arg(folder.path().join("to")).args(["--dtype", "f32"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > PATIENCE {
            child.kill().unwrap();
            return Err("it does not end".into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let named = said.strip_prefix(&format!("rebel: {}/", at.display())).is_some_and(|rest| rest.contains(": "));
    match output.status.code() {
        Some(0) if said.is_empty() => Ok(false),
        Some(1) if named && said.lines().count() == 1 && !said.trim_end().contains(char::is_control) => Ok(true),
        code => Err(format!("exit {code:?}: {said}")),
    }
}

#[test]
fn a_thousand_damaged_folders_are_converted_or_refused_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let sources = sources(folder.path());
    let limit = SLACK + sources.iter().map(|source| needed(source)).max().unwrap();
    let damages = damages(&sources);
    assert!(damages.len() > 1000, "{}", damages.len());
    let (next, refused, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(damage) = damages.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match verdict(damage, &sources[damage.source], limit) {
                        Ok(no) => drop(refused.fetch_add(no.into(), Ordering::Relaxed)),
                        Err(what) => wrong.lock().unwrap().push(format!("{}, {}: {what}", damage.file, damage.what)),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), damages.len(), wrong.join("\n"));
    let refused = refused.into_inner();
    assert!(refused > damages.len() / 2, "only {refused} of {} are refused", damages.len());
}
