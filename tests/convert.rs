//! `rebel convert` as a person uses it: what arrives is the same model in other files, and what cannot be converted is said in
//! one line that names file and field.

use assert_cmd::Command;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A case of `tests/vectors/hf`.
fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/hf").join(name)
}

fn rebel() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rebel"))
}

/// Converts and gives standard output.
fn convert(source: &Path, destination: &Path, more: &[&str]) -> String {
    let output = rebel().arg("convert").arg(source).arg(destination).args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The one line of a conversion that fails with exit code 1.
fn refused(source: &Path, destination: &Path, more: &[&str]) -> String {
    let output = rebel().arg("convert").arg(source).arg(destination).args(more).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("rebel: ") && error.lines().count() == 1, "{error}");
    error
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// Type, shape and bytes of every tensor in the safetensors files of a folder.
fn tensors(folder: &Path) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "safetensors") && !path.ends_with("expected.safetensors") {
            let bytes = std::fs::read(&path).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            all.extend(file.iter().map(|(n, v)| (n.to_string(), (v.dtype(), v.shape().to_vec(), v.data().to_vec()))));
        }
    }
    all
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_model_survives_the_way_to_shards_and_back_byte_for_byte() {
    let (source, folder) = (case("lm/llama3_bf16"), tempfile::tempdir().unwrap());
    let (cut, whole) = (folder.path().join("cut"), folder.path().join("whole"));
    convert(&source, &cut, &["--shard-size", "20KB"]);
    let index = json(&cut.join("model.safetensors.index.json"));
    let shards: Vec<String> = names(&cut).into_iter().filter(|n| n.ends_with(".safetensors")).collect();
    assert!(shards.len() > 2, "{shards:?}");
    for (i, shard) in shards.iter().enumerate() {
        assert_eq!(*shard, format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len()));
    }
    let held = tensors(&cut);
    let total: usize = held.values().map(|(_, _, bytes)| bytes.len()).sum();
    assert_eq!(index["metadata"]["total_size"], total);
    assert_eq!(index["weight_map"].as_object().unwrap().len(), held.len());
    for (tensor, shard) in index["weight_map"].as_object().unwrap() {
        let bytes = std::fs::read(cut.join(shard.as_str().unwrap())).unwrap();
        assert!(SafeTensors::deserialize(&bytes).unwrap().tensor(tensor).is_ok(), "{tensor} is not in {shard}");
    }
    convert(&cut, &whole, &[]);
    assert_eq!(tensors(&whole), tensors(&source));
    assert_eq!(held, tensors(&source));
    assert_eq!(json(&whole.join("config.json"))["torch_dtype"], "bfloat16");
    assert!(!names(&whole).iter().any(|name| name.contains("index")));
}

#[test]
fn a_pickled_reward_model_arrives_with_its_tokenizer_and_its_shift() {
    let (source, folder) = (case("rm/tldr_scalar"), tempfile::tempdir().unwrap());
    let to = folder.path().join("scalar");
    let said = convert(&source, &to, &["--dtype", "f32"]);
    assert!(said.contains("tensors") && said.contains("1 file"), "{said}");
    for file in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        assert_eq!(std::fs::read(to.join(file)).unwrap(), std::fs::read(source.join(file)).unwrap(), "{file}");
    }
    let (before, after) = (json(&source.join("config.json")), json(&to.join("config.json")));
    assert_eq!(after["bias"], before["bias"]);
    assert_eq!(after["architectures"], before["architectures"]);
    assert_eq!(after["base_config"]["hidden_size"], before["base_config"]["hidden_size"]);
    assert!(names(&to).iter().all(|name| !name.ends_with(".bin") && !name.starts_with("expected")));
    // The rewards are those of the source.
    let run = |model: &Path| {
        let at = folder.path().join("case");
        std::fs::create_dir_all(&at).unwrap();
        let expected = ["expected.json", "expected.safetensors"].map(|file| (file, source.join(file)));
        for (file, from) in expected.into_iter().chain([("config.json", model.join("config.json"))]) {
            std::fs::copy(from, at.join(file)).unwrap();
        }
        for weights in ["model.safetensors", "pytorch_model.bin"] {
            let _ = std::fs::remove_file(at.join(weights));
            if model.join(weights).exists() {
                std::fs::copy(model.join(weights), at.join(weights)).unwrap();
            }
        }
        for file in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
            std::fs::copy(model.join(file), at.join(file)).unwrap();
        }
        let out = folder.path().join("out");
        rebel().args(["vectors", "run"]).arg(&at).arg("--out").arg(&out).assert().success();
        std::fs::read(out.join("got.safetensors")).unwrap()
    };
    assert_eq!(run(&source), run(&to));
}

#[test]
fn numbers_are_rounded_once_and_what_does_not_fit_is_refused_by_name() {
    let (source, folder) = (case("lm/neox_sequential"), tempfile::tempdir().unwrap());
    let (half, wide) = (folder.path().join("half"), folder.path().join("wide"));
    convert(&source, &half, &["--dtype", "bf16"]);
    convert(&half, &wide, &["--dtype", "f32"]);
    let (from, to) = (tensors(&source), tensors(&wide));
    assert_eq!(json(&half.join("config.json"))["torch_dtype"], "bfloat16");
    assert!(tensors(&half).values().all(|(dtype, ..)| *dtype == Dtype::BF16));
    let floats = |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect::<Vec<_>>();
    let mut moved = 0;
    for (name, (_, shape, bytes)) in &to {
        assert_eq!(*shape, from[name].1);
        for (a, b) in floats(&from[name].2).into_iter().zip(floats(bytes)) {
            assert!((a - b).abs() <= a.abs() / 256.0, "{name}: {a} became {b}");
            moved += usize::from(a != b);
        }
    }
    assert!(moved > 1000, "{moved}");

    // One weight of 1e6 is beyond f16.
    let large = folder.path().join("large");
    convert(&source, &large, &[]);
    let mut bytes = std::fs::read(large.join("model.safetensors")).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&1e6f32.to_le_bytes());
    std::fs::write(large.join("model.safetensors"), bytes).unwrap();
    let error = refused(&large, &folder.path().join("f16"), &["--dtype", "f16"]);
    assert!(error.contains("model.safetensors: ") && error.contains("1000000 is out of the range of F16"), "{error}");
    assert_eq!(names(folder.path()), ["half", "large", "wide"]);
}

#[test]
fn the_source_is_never_written_to_and_a_stranger_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    convert(&case("lm/neox_bin"), &source, &[]);
    let before: Vec<_> = names(&source).into_iter().map(|n| (std::fs::read(source.join(&n)).unwrap(), n)).collect();
    for (destination, more) in [
        (source.clone(), &["--overwrite"][..]),
        (source.join("inner"), &[]),
        (source.join("../source/inner/deep"), &[]),
        (folder.path().to_path_buf(), &["--overwrite"]),
    ] {
        let error = refused(&source, &destination, more);
        assert!(error.contains("a folder of its own"), "{error}");
    }
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("thesis.txt"), "years").unwrap();
    assert!(refused(&source, &other, &[]).contains("exists already"));
    assert!(refused(&source, &other, &["--overwrite"]).contains("neither empty nor a model's folder"));
    assert_eq!(names(&other), ["thesis.txt"]);
    std::fs::remove_file(other.join("thesis.txt")).unwrap();
    convert(&source, &other, &["--overwrite"]);
    convert(&source, &other, &["--overwrite", "--shard-size", "30KB"]);
    assert!(!other.join("model.safetensors").exists());
    let after: Vec<_> = names(&source).into_iter().map(|n| (std::fs::read(source.join(&n)).unwrap(), n)).collect();
    assert_eq!(before, after);
    assert_eq!(names(folder.path()), ["other", "source"]);
}

#[test]
fn a_model_is_found_by_its_name_in_the_cache() {
    let (cache, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let snapshot = cache.path().join("hub/models--org--tiny/snapshots/0a1b2c");
    std::fs::create_dir_all(snapshot.parent().unwrap()).unwrap();
    convert(&case("lm/neox_bin"), &snapshot, &[]);
    std::fs::create_dir_all(cache.path().join("hub/models--org--tiny/refs")).unwrap();
    std::fs::write(cache.path().join("hub/models--org--tiny/refs/main"), "0a1b2c").unwrap();
    let with_cache = |name: &str| {
        let mut command = rebel();
        command.env("HF_HOME", cache.path()).env_remove("HF_HUB_CACHE").env_remove("HUGGINGFACE_HUB_CACHE");
        command.current_dir(folder.path()).args(["convert", name, "out", "--overwrite"]).output().unwrap()
    };
    assert!(with_cache("org/tiny").status.success());
    assert!(with_cache("org/tiny@0a1b2c").status.success());
    let missing = String::from_utf8(with_cache("org/other").stderr).unwrap();
    assert!(missing.contains("huggingface-cli download org/other"), "{missing}");
    assert!(missing.contains(&cache.path().join("hub").display().to_string()), "{missing}");
}

#[test]
fn sizes_and_types_that_are_none_are_wrong_usage() {
    for more in [["--shard-size", "0"], ["--shard-size", "5 gigabytes"], ["--shard-size", "GB"], ["--dtype", "int8"]] {
        let output = rebel().args(["convert", "a", "b"]).args(more).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{more:?}");
    }
}

#[test]
fn an_architecture_that_is_not_known_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    convert(&case("lm/neox_bin"), &source, &[]);
    let mut config = json(&source.join("config.json"));
    config["model_type"] = "mamba".into();
    std::fs::write(source.join("config.json"), config.to_string()).unwrap();
    let error = refused(&source, &folder.path().join("to"), &[]);
    assert!(error.contains("config.json: model_type: mamba is not supported"), "{error}");
}

/// Folders of models: the committed ones, and the whole set where it is at hand (`REBEL_VECTORS`, or beside the checkout).
fn models() -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors");
    let whole = std::env::var_os("REBEL_VECTORS").map_or(beside, PathBuf::from).join("hf");
    let groups = [whole, case("")].into_iter().flat_map(|set| ["lm", "lm_v5", "rm"].map(|group| set.join(group)));
    let entries = groups.filter(|group| group.is_dir()).flat_map(|group| std::fs::read_dir(group).unwrap());
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_converted_folder_is_converted_to_itself() {
    let models = models();
    assert!(models.len() > 4);
    for source in models {
        let folder = tempfile::tempdir().unwrap();
        let (once, twice) = (folder.path().join("model"), folder.path().join("again/model"));
        convert(&source, &once, &["--shard-size", "50KB"]);
        std::fs::create_dir(folder.path().join("again")).unwrap();
        convert(&once, &twice, &["--shard-size", "50KB"]);
        assert_eq!(names(&once), names(&twice));
        for name in names(&once) {
            let same = std::fs::read(once.join(&name)).unwrap() == std::fs::read(twice.join(&name)).unwrap();
            assert!(same, "{}: {name} changed", source.display());
        }
        let config = json(&once.join("config.json"));
        let decoder = if config["base_config"].is_object() { &config["base_config"] } else { &config };
        assert!(decoder.get("rope_parameters").is_none() && config.get("dtype").is_none(), "{}", source.display());
        assert!(decoder["rope_theta"].is_number() || decoder["rotary_emb_base"].is_number(), "{}", source.display());
        assert!(config["torch_dtype"].is_string(), "{}", source.display());
    }
}
