//! Hugging Face folders: reading and writing `config.json`, `generation_config.json` and weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};

use super::config::DecoderConfig;
use super::decoder::Decoder;
use super::neox;
use super::scalar::ScalarModel;
use super::tensors::{self, Weights};
use crate::files;
use crate::nn::Store;
use crate::{Error, Result};

/// Reads the config of a language model's folder.
pub fn config(folder: &Path) -> Result<DecoderConfig> {
    let file = folder.join("config.json");
    neox::from_json(&files::read_json(&file)?, &file)
}

/// Reads a language model: its config and a store with every parameter, trainable, in `dtype`.
/// Fails in one line on a file that is missing or truncated, another architecture, and on a tensor that is unknown,
/// missing or of another shape.
pub fn load(folder: &Path, dtype: DType, device: &Device) -> Result<(DecoderConfig, Store)> {
    let config = config(folder)?;
    let expected = neox::parameters(&config, neox::TRUNK, true);
    let optional: &[&str] = if config.tied_head { &[neox::HEAD] } else { &[] };
    let store = load_weights(folder, &expected, optional, dtype, device)?;
    Ok((config, store))
}

/// Reads a scalar model (`base_config`, `lm_backbone.*`, `scalar_head.*`): config, store, and the shift subtracted from
/// its scores.
pub fn load_scalar(folder: &Path, dtype: DType, device: &Device) -> Result<(DecoderConfig, Store, f64)> {
    let file = folder.join("config.json");
    let json = files::read_json(&file)?;
    let base = json.get("base_config").ok_or_else(|| Error::field(&file, "base_config", "missing"))?;
    let config = neox::from_json(base, &file)?;
    let shift = match json.get("bias") {
        None | Some(Value::Null) => 0.0,
        Some(bias) => {
            bias.as_f64().ok_or_else(|| Error::field(&file, "bias", format!("{bias} (expected a number)")))?
        }
    };
    let store = load_weights(folder, &ScalarModel::parameters(&config), &[], dtype, device)?;
    Ok((config, store, shift))
}

/// Writes a language model's folder, which transformers loads. Each file is written aside, synced and renamed, the
/// weights last.
pub fn save(folder: &Path, config: &DecoderConfig, store: &Store) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    files::write_json(&folder.join("config.json"), &neox::to_json(config))?;
    files::write_json(&folder.join("generation_config.json"), &neox::generation_json(config))?;
    save_weights(folder, &neox::parameters(config, neox::TRUNK, true), store)
}

/// Writes a scalar model's folder in the layout [`load_scalar`] reads.
pub fn save_scalar(folder: &Path, config: &DecoderConfig, store: &Store, shift: f64) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let json = json!({
        "architectures": ["ScalarModel"],
        "base_config": neox::to_json(config),
        "bias": shift,
        "hidden_size": config.width,
        "torch_dtype": "float32",
    });
    files::write_json(&folder.join("config.json"), &json)?;
    save_weights(folder, &ScalarModel::parameters(config), store)
}

/// A language model on `store`.
pub fn decoder(config: &DecoderConfig, store: &Store) -> Result<Decoder> {
    Decoder::new(config, store, neox::TRUNK)
}

fn save_weights(folder: &Path, expected: &BTreeMap<String, Vec<usize>>, store: &Store) -> Result<()> {
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

/// The files of weights of a folder, in the order transformers looks for them: with the tensor names an index assigns.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    for name in ["model.safetensors", "pytorch_model.bin"] {
        let single = folder.join(name);
        if single.is_file() {
            return Ok(vec![single]);
        }
        let index = folder.join(format!("{name}.index.json"));
        if index.is_file() {
            return shards(folder, &index);
        }
    }
    Err(Error::file(folder.join("model.safetensors"), "missing (nor is there pytorch_model.bin or an index)"))
}

fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let json = files::read_json(index)?;
    let map = json["weight_map"].as_object().ok_or_else(|| Error::field(index, "weight_map", "missing"))?;
    let mut names = BTreeSet::new();
    for (tensor, shard) in map {
        let name = shard.as_str().ok_or_else(|| Error::field(index, tensor, "its shard is not a name"))?;
        if name.is_empty() || Path::new(name).file_name() != Some(name.as_ref()) {
            return Err(Error::field(index, tensor, format!("shard {name:?} is not a file of this folder")));
        }
        names.insert(name);
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn load_weights(
    folder: &Path,
    expected: &BTreeMap<String, Vec<usize>>,
    optional: &[&str],
    dtype: DType,
    device: &Device,
) -> Result<Store> {
    let files = weight_files(folder)?.iter().map(|path| Weights::open(path)).collect::<Result<Vec<_>>>()?;
    let mut at = BTreeMap::new();
    for (i, file) in files.iter().enumerate() {
        for (name, shape) in file.shapes() {
            match expected.get(&name) {
                Some(wanted) if *wanted != shape => {
                    let what = format!("shape {shape:?} (expected {wanted:?} by config.json)");
                    return Err(Error::field(file.path(), name, what));
                }
                Some(_) => drop(at.insert(name, i)),
                None if neox::is_legacy_buffer(&name) || optional.contains(&name.as_str()) => {}
                None => return Err(Error::field(file.path(), name, "unknown tensor")),
            }
        }
    }
    let mut store = Store::new(dtype, device);
    for name in expected.keys() {
        let Some(&i) = at.get(name) else {
            let file = files.first().map_or_else(|| folder.to_path_buf(), |f| f.path().to_path_buf());
            return Err(Error::field(file, name, "missing tensor"));
        };
        let tensor = files[i].read(name)?;
        if !tensor.dtype().is_float() {
            let what = format!("dtype {:?} (expected a float)", tensor.dtype());
            return Err(Error::field(files[i].path(), name, what));
        }
        store.insert(name.clone(), &tensor)?;
    }
    Ok(store)
}
