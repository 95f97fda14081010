//! Hugging Face folders: reading and writing `config.json`, `generation_config.json` and weights.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::config::DecoderConfig;
use super::config_json;
use super::decoder::Decoder;
use super::json::{Fields, one_line, read_object};
use super::parameters::{self, parameters};
use super::tensors::{self, Weights};
use crate::files;
use crate::nn::Store;
use crate::{Error, Result};

/// Reads the config of a language model's folder.
pub fn config(folder: &Path) -> Result<DecoderConfig> {
    let file = folder.join("config.json");
    config_json::from_json(Fields { file: &file, within: "", map: &read_object(&file)? })
}

/// Reads a language model: its config and a store with every parameter, trainable, in `dtype`.
/// Fails in one line on a file that is missing or truncated, another architecture, and on a tensor that is unknown,
/// missing or of another shape.
pub fn load(folder: &Path, dtype: DType, device: &Device) -> Result<(DecoderConfig, Store)> {
    let config = config(folder)?;
    let names = config.family.names();
    let optional: &[&str] = if config.tied_head { &[names.head] } else { &[] };
    let store = load_weights(folder, &parameters(&config, names.trunk, true), optional, dtype, device)?;
    Ok((config, store))
}

/// Writes a language model's folder, which transformers loads. Each file is written aside, synced and renamed, the
/// weights last.
pub fn save(folder: &Path, config: &DecoderConfig, store: &Store) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let json = config_json::to_json(config);
    files::write_json(&folder.join("config.json"), &json)?;
    files::write_json(&folder.join("generation_config.json"), &config_json::generation_json(&json))?;
    save_weights(folder, &parameters(config, config.family.names().trunk, true), store)
}

/// A language model on `store`.
pub fn decoder(config: &DecoderConfig, store: &Store) -> Result<Decoder> {
    Decoder::new(config, store, config.family.names().trunk)
}

/// Writes the parameters that `expected` names.
pub(super) fn save_weights(folder: &Path, expected: &BTreeMap<String, Vec<usize>>, store: &Store) -> Result<()> {
    let all = store.to_tensors();
    let weights = expected
        .keys()
        .map(|name| match all.get(name) {
            Some(tensor) => Ok((name.clone(), tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?)),
            None => Err(Error::invalid(format!("{name}: no such parameter"))),
        })
        .collect::<Result<BTreeMap<String, Tensor>>>()?;
    tensors::save(&folder.join("model.safetensors"), &weights)
}

/// The files of weights of a folder, in the order transformers looks for them.
pub(super) fn open_weights(folder: &Path) -> Result<Vec<Weights>> {
    for name in ["model.safetensors", "pytorch_model.bin"] {
        let single = folder.join(name);
        if single.is_file() {
            return Ok(vec![Weights::open(&single)?]);
        }
        let index = folder.join(format!("{name}.index.json"));
        if index.is_file() {
            return open_shards(folder, &index);
        }
    }
    Err(Error::file(folder.join("model.safetensors"), "missing (nor is there pytorch_model.bin or an index)"))
}

/// The files an index names, each holding the tensors that the index says are there.
fn open_shards(folder: &Path, index: &Path) -> Result<Vec<Weights>> {
    let json = read_object(index)?;
    let fields = Fields { file: index, within: "", map: &json };
    let map = fields.object("weight_map", "")?.ok_or_else(|| fields.fault("weight_map", "missing"))?;
    let mut shards: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for tensor in map.map.keys() {
        let name = map.text(tensor)?.ok_or_else(|| map.fault(tensor, "its shard is not a name"))?;
        if name.is_empty() || Path::new(name).file_name() != Some(name.as_ref()) {
            return Err(map.fault(tensor, format!("shard {:?} is not a file of this folder", one_line(name))));
        }
        shards.entry(name).or_default().push(tensor);
    }
    let open = |(name, tensors): (&str, Vec<&String>)| {
        let shard = Weights::open(&folder.join(name))?;
        let shapes = shard.shapes();
        match tensors.into_iter().find(|tensor| !shapes.contains_key(*tensor)) {
            Some(tensor) => Err(map.fault(tensor, format!("is not in {}", one_line(name)))),
            None => Ok(shard),
        }
    };
    shards.into_iter().map(open).collect()
}

/// Reads the parameters that `expected` names, and nothing but those and the `optional` ones may be there.
pub(super) fn load_weights(
    folder: &Path,
    expected: &BTreeMap<String, Vec<usize>>,
    optional: &[&str],
    dtype: DType,
    device: &Device,
) -> Result<Store> {
    let files = open_weights(folder)?;
    let mut at = BTreeMap::new();
    for (i, file) in files.iter().enumerate() {
        for (name, shape) in file.shapes() {
            match expected.get(&name) {
                Some(wanted) if *wanted != shape => {
                    let what = format!("shape {shape:?} (expected {wanted:?} by config.json)");
                    return Err(Error::field(file.path(), one_line(&name), what));
                }
                Some(_) => drop(at.insert(name, i)),
                None if parameters::is_legacy_buffer(&name) || optional.contains(&name.as_str()) => {}
                None => return Err(Error::field(file.path(), one_line(&name), "unknown tensor")),
            }
        }
    }
    if let (Some(name), Some(file)) = (expected.keys().find(|name| !at.contains_key(*name)), files.first()) {
        return Err(Error::field(file.path(), name, "missing tensor"));
    }
    check_size(&files, expected)?;
    let mut store = Store::new(dtype, device);
    for (name, i) in at {
        let tensor = files[i].read(&name)?;
        if !tensor.dtype().is_float() {
            let what = format!("dtype {:?} (expected a float)", tensor.dtype());
            return Err(Error::field(files[i].path(), name, what));
        }
        store.insert(name, &tensor)?;
    }
    Ok(store)
}

/// Refuses files whose tensors share bytes to seem more than they are: a number takes at least one.
fn check_size(files: &[Weights], expected: &BTreeMap<String, Vec<usize>>) -> Result<()> {
    let numbers: u64 = expected.values().map(|shape| shape.iter().map(|&n| n as u64).product::<u64>()).sum();
    let mut bytes = 0;
    for file in files {
        bytes += std::fs::metadata(file.path()).map_err(|e| Error::file(file.path(), e))?.len();
    }
    match files.first() {
        Some(file) if numbers > bytes => Err(Error::file(file.path(), format!("{bytes} bytes for {numbers} numbers"))),
        _ => Ok(()),
    }
}
