//! Hugging Face folders: reading and writing `config.json`, `generation_config.json` and weights.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device};
use serde_json::json;

use super::config::DecoderConfig;
use super::config_json;
use super::decoder::Decoder;
use super::json::{Fields, one_line, read_object};
use super::parameters::{self, parameters};
use super::scalar::ScalarModel;
use super::shards::{self, Format};
use super::tensors::{Source, Weights};
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

/// Reads a scalar model (`base_config`, `lm_backbone.*`, `scalar_head.*`): config, store, and the shift subtracted from
/// its scores.
pub fn load_scalar(folder: &Path, dtype: DType, device: &Device) -> Result<(DecoderConfig, Store, f64)> {
    let file = folder.join("config.json");
    let map = read_object(&file)?;
    let fields = Fields { file: &file, within: "", map: &map };
    let base = fields.object("base_config", "base_config.")?;
    let config = config_json::from_json(base.ok_or_else(|| fields.fault("base_config", "missing"))?)?;
    let shift = fields.number("bias")?.unwrap_or(0.0);
    let store = load_weights(folder, &ScalarModel::parameters(&config), &[], dtype, device)?;
    Ok((config, store, shift))
}

/// Writes a language model's folder, which transformers loads, as [`Format::default`] says.
pub fn save(folder: &Path, config: &DecoderConfig, store: &Store) -> Result<()> {
    save_as(folder, config, store, Format::default())
}

/// Writes a language model's folder, which transformers loads. Each file is written aside, synced and renamed, the
/// weights last.
///
/// # Errors
/// Files that cannot be written, and parameters that the store lacks.
pub fn save_as(folder: &Path, config: &DecoderConfig, store: &Store, format: Format) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let json = shards::with_dtype(config_json::to_json(config), format.dtype)?;
    files::write_json(&folder.join("config.json"), &json)?;
    files::write_json(&folder.join("generation_config.json"), &config_json::generation_json(&json))?;
    save_weights(folder, &parameters(config, config.family.names().trunk, true), store, format)
}

/// Writes a scalar model's folder in the layout [`load_scalar`] reads.
pub fn save_scalar(folder: &Path, config: &DecoderConfig, store: &Store, shift: f64) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let json = json!({
        "architectures": ["ScalarModel"],
        "base_config": config_json::to_json(config),
        "bias": shift,
        "hidden_size": config.width,
        "torch_dtype": "float32",
    });
    files::write_json(&folder.join("config.json"), &json)?;
    save_weights(folder, &ScalarModel::parameters(config), store, Format::default())
}

/// A language model on `store`.
pub fn decoder(config: &DecoderConfig, store: &Store) -> Result<Decoder> {
    Decoder::new(config, store, config.family.names().trunk)
}

/// Writes the parameters that `expected` names.
pub(super) fn save_weights(
    folder: &Path,
    expected: &BTreeMap<String, Vec<usize>>,
    store: &Store,
    format: Format,
) -> Result<()> {
    let all = store.to_tensors();
    let source = |name: &String| match all.get(name) {
        Some(tensor) => Ok(Source::tensor(name, tensor, format.dtype)),
        None => Err(Error::invalid(format!("{name}: no such parameter"))),
    };
    let sources = expected.keys().map(source).collect::<Result<Vec<_>>>()?;
    shards::write(folder, sources, format.shard).map(drop)
}

/// The files of weights of a folder, in the order transformers looks for them.
pub(super) fn open_weights(folder: &Path) -> Result<Vec<Weights>> {
    shards::open(folder)
}

fn load_weights(
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
