//! Hugging Face folders: reading and writing `config.json`, `generation_config.json` and weights.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::config::DecoderConfig;
use super::config_json;
use super::decoder::Decoder;
use super::json::{Fields, one_line, read_object};
use super::parameters::{self, parameters};
use super::shards::{self, Format};
use super::tensors::{Info, Source, Weights};
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
    let json = shards::with_dtype(config_json::to_json(config), format.precision.dtype())?;
    files::write_json(&folder.join("config.json"), &json)?;
    files::write_json(&folder.join("generation_config.json"), &config_json::generation_json(&json))?;
    save_weights(folder, &parameters(config, config.family.names().trunk, true), store, format)
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
        Some(tensor) => Ok(Source::tensor(name, tensor, format.precision.dtype())),
        None => Err(Error::invalid(format!("{name}: no such parameter"))),
    };
    let sources = expected.keys().map(source).collect::<Result<Vec<_>>>()?;
    shards::write(folder, sources, format.shard).map(drop)
}

/// The files of weights of a folder, in the order transformers looks for them.
pub(super) fn open_weights(folder: &Path) -> Result<Vec<Weights>> {
    shards::open(folder)
}

/// Reads the parameters that `expected` names, and nothing but those and the `optional` ones may be there.
pub(super) fn load_weights(
    folder: &Path,
    expected: &BTreeMap<String, Vec<usize>>,
    optional: &[&str],
    dtype: DType,
    device: &Device,
) -> Result<Store> {
    let mut store = Store::new(dtype, device);
    let ignored = |name: &str| parameters::is_legacy_buffer(name) || optional.contains(&name);
    read_tensors(&open_weights(folder)?, expected, ignored, "config.json", |name, tensor| store.insert(name, &tensor))?;
    Ok(store)
}

/// Gives every `expected` tensor of `files` to `each`, one at a time, once all names and shapes are known to be right.
/// `said_by`: where the expected shapes come from.
pub(super) fn read_tensors(
    files: &[Weights],
    expected: &BTreeMap<String, Vec<usize>>,
    ignored: impl Fn(&str) -> bool,
    said_by: &str,
    mut each: impl FnMut(String, Tensor) -> Result<()>,
) -> Result<()> {
    for (name, (file, _)) in matched(files, expected, ignored, said_by)? {
        let tensor = files[file].read(&name)?;
        each(name, tensor)?;
    }
    Ok(())
}

/// Where every `expected` tensor is: the number of its file, and its type and shape there. Fails, naming file and tensor,
/// on one that is missing, is no float or has another shape, and on one that is neither expected nor `ignored`.
/// `said_by`: where the expected shapes come from.
pub(super) fn matched(
    files: &[Weights],
    expected: &BTreeMap<String, Vec<usize>>,
    ignored: impl Fn(&str) -> bool,
    said_by: &str,
) -> Result<BTreeMap<String, (usize, Info)>> {
    let mut found = BTreeMap::new();
    for (i, file) in files.iter().enumerate() {
        for (name, info) in file.infos() {
            let bad = |what: String| Err(Error::field(file.path(), one_line(&name), what));
            let Info { dtype, shape } = &info;
            match expected.get(&name) {
                Some(wanted) if wanted != shape => {
                    return bad(format!("shape {shape:?} (expected {wanted:?} by {said_by})"));
                }
                Some(_) if !dtype.is_float() => return bad(format!("dtype {dtype:?} (expected a float)")),
                Some(_) => drop(found.insert(name, (i, info))),
                None if ignored(&name) => {}
                None => return bad("unknown tensor".into()),
            }
        }
    }
    if let (Some(name), Some(file)) = (expected.keys().find(|name| !found.contains_key(*name)), files.first()) {
        return Err(Error::field(file.path(), name, "missing tensor"));
    }
    check_size(files, expected)?;
    Ok(found)
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
