//! A model's weights as transformers writes them: one `model.safetensors`, or several with an index that says which tensor
//! is where; and the index read back, held to its word.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::DType;
use serde_json::{Value, json};

use super::json::{Fields, one_line, read_object};
use super::tensors::{self, Source, Weights};
use crate::{Error, Result, files};

/// The only file of a model that is not cut.
const SINGLE: &str = "model.safetensors";

/// A type that weights are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    F32,
    /// Half precision: 11 bits, largest number 65504.
    F16,
    /// The upper half of single precision: 8 bits.
    BF16,
}

impl Precision {
    /// As candle calls it.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
        }
    }
}

/// How a model's weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Type of every parameter.
    pub precision: Precision,
    /// Most bytes of tensors in a file; one that is larger by itself gets a file of its own.
    pub shard: u64,
}

impl Format {
    /// Most bytes of a file unless another number is asked for, as in transformers.
    pub const SHARD: u64 = 5_000_000_000;
}

impl Default for Format {
    /// f32, as parameters are trained, in files of 5 GB.
    fn default() -> Self {
        Self { precision: Precision::F32, shard: Self::SHARD }
    }
}

/// What `config.json` calls a type of weights (`torch_dtype`).
///
/// # Errors
/// What is no type of weights.
pub(super) fn dtype_name(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("float32"),
        DType::F16 => Ok("float16"),
        DType::BF16 => Ok("bfloat16"),
        DType::F64 => Ok("float64"),
        other => Err(Error::invalid(format!("{other:?} is no type of weights (expected F32, F16 or BF16)"))),
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Tensors.
    pub tensors: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Files they are in.
    pub files: usize,
}

/// Writes `sources`, in their order, to files of at most `shard` bytes in `folder`, and removes those of an earlier model
/// that would be read instead.
pub(super) fn write(folder: &Path, sources: Vec<Source>, shard: u64) -> Result<Written> {
    let (tensors, bytes) = (sources.len(), sources.iter().map(|source| source.info.bytes()).sum::<u64>());
    let mut parts: Vec<Vec<Source>> = vec![Vec::new()];
    let mut held = 0;
    for source in sources {
        let size = source.info.bytes();
        let last = parts.len() - 1;
        if !parts[last].is_empty() && held + size > shard {
            parts.push(vec![source]);
            held = size;
        } else {
            parts[last].push(source);
            held += size;
        }
    }
    let count = parts.len();
    let name = |part: usize| match count {
        1 => SINGLE.to_string(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", part + 1),
    };
    let index = format!("{SINGLE}.index.json");
    let mut written: Vec<String> = (0..count).map(name).collect();
    let map: BTreeMap<String, &String> = parts
        .iter()
        .zip(&written)
        .flat_map(|(part, file)| part.iter().map(move |source| (source.name.clone(), file)))
        .collect();
    let listed = json!({"metadata": {"total_size": bytes}, "weight_map": map});
    for (part, file) in parts.into_iter().zip(&written) {
        tensors::write(&folder.join(file), part)?;
    }
    if count > 1 {
        files::write_json(&folder.join(&index), &listed)?;
        written.push(index);
    }
    remove_others(folder, &written)?;
    Ok(Written { tensors, bytes, files: count })
}

/// Removes the weights in `folder` that are not `written`.
fn remove_others(folder: &Path, written: &[String]) -> Result<()> {
    let failed = |e: std::io::Error| Error::file(folder, e);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let shard = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
        let shard = shard.and_then(|rest| rest.split_once("-of-"));
        let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        let ours = shard.is_some_and(|(part, count)| digits(part) && digits(count));
        if (ours || name == SINGLE || name == format!("{SINGLE}.index.json")) && !written.contains(&name) {
            std::fs::remove_file(entry.path()).map_err(|e| Error::file(entry.path(), e))?;
        }
    }
    Ok(())
}

/// The files of weights of a folder, in the order transformers looks for them.
///
/// # Errors
/// A folder without weights, what [`Weights::open`] refuses, and an index that names a file outside the folder, a shard or
/// a tensor that is not there, or a tensor that two shards hold.
pub(super) fn open(folder: &Path) -> Result<Vec<Weights>> {
    for name in [SINGLE, "pytorch_model.bin"] {
        let single = folder.join(name);
        if single.is_file() {
            return Ok(vec![Weights::open(&single)?]);
        }
        let index = folder.join(format!("{name}.index.json"));
        if index.is_file() {
            return open_shards(folder, &index);
        }
    }
    Err(Error::file(folder.join(SINGLE), "missing (nor is there pytorch_model.bin or an index)"))
}

/// The files an index names, each holding the tensors that the index says are there.
fn open_shards(folder: &Path, index: &Path) -> Result<Vec<Weights>> {
    let json = read_object(index)?;
    let fields = Fields { file: index, within: "", map: &json };
    let map = fields.object("weight_map", "")?.ok_or_else(|| fields.fault("weight_map", "missing"))?;
    if map.map.is_empty() {
        return Err(fields.fault("weight_map", "empty (expected the tensors and their files)"));
    }
    let mut shards: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for (tensor, shard) in map.map {
        let name = shard.as_str().ok_or_else(|| map.fault(&one_line(tensor), "its shard is not a name"))?;
        if Path::new(name).file_name() != Some(name.as_ref()) || name.contains(|c: char| c.is_control() || c == '\\') {
            let what = format!("shard {:?} is not a file of this folder", one_line(name));
            return Err(map.fault(&one_line(tensor), what));
        }
        shards.entry(name).or_default().push(tensor);
    }
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    let mut opened = Vec::with_capacity(shards.len());
    for (name, tensors) in shards {
        let shard = Weights::open(&folder.join(name))?;
        let held = shard.infos();
        if let Some(tensor) = tensors.into_iter().find(|tensor| !held.contains_key(*tensor)) {
            return Err(map.fault(&one_line(tensor), format!("is not in {}", one_line(name))));
        }
        for tensor in held.into_keys() {
            if let Some(first) = seen.insert(tensor.clone(), name) {
                let what = format!("is in {} already (expected once)", one_line(first));
                return Err(Error::field(shard.path(), one_line(&tensor), what));
            }
        }
        opened.push(shard);
    }
    Ok(opened)
}

/// `config` with the type of its weights named.
pub(super) fn with_dtype(mut config: Value, dtype: DType) -> Result<Value> {
    config["torch_dtype"] = json!(dtype_name(dtype)?);
    Ok(config)
}
