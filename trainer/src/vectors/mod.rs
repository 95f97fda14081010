//! Test vectors of the Python libraries: one case in, `got.safetensors` and `got.json` out.
//!
//! The cases are folders in the layouts of the Hub with inputs and expected outputs side by side; only the inputs are
//! read here.

pub mod lm;
mod lora;
mod optim;
pub mod rm;
pub mod tok;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use crate::files;
use crate::models::{TokenBatch, tensors};
use crate::{Error, Result};

/// Runs one case (a folder) on `device` and writes what it computes to the folder `out`.
/// Fails, naming it, on a kind of case that is not supported.
pub fn run_case(case: &Path, out: &Path, device: &Device) -> Result<()> {
    if case.is_file() {
        return Err(Error::file(
            case,
            "cases of a json file are not supported (expected the folder of an lm, lora or rm case)",
        ));
    }
    if case.join(optim::FILE).is_file() {
        return optim::run(case, out, device);
    }
    if case.join("cases.json").is_file() {
        return tok::run(case, out);
    }
    let inputs = Inputs::open(case, device)?;
    match inputs.json["kind"].as_str() {
        Some("causal_lm") => lm::run(case, &inputs, out),
        Some("lora") => lora::run(case, &inputs, out),
        Some("tldr_scalar") => rm::run_scalar(case, &inputs, out),
        Some("llama_seqcls" | "starling" | "armorm") => rm::run(case, &inputs, out),
        kind => {
            let known = "causal_lm, lora, tldr_scalar, llama_seqcls, starling or armorm";
            let what = format!("{} is not supported (expected {known})", kind.unwrap_or("missing"));
            Err(Error::field(&inputs.file, "kind", what))
        }
    }
}

/// The kinds of cases [`run_case`] takes: the folders of a set that hold them.
const KINDS: [&str; 7] = ["lm", "lm_v5", "lora", "lora_v5", "optim", "rm", "tok"];

/// The cases of the set at `root`, relative to it and in order: the folders of its known kinds that hold what is expected of
/// them, or the kind's own folder where it is a case.
///
/// # Errors
/// When there is none, or a folder cannot be read.
pub fn cases(root: &Path) -> Result<Vec<PathBuf>> {
    let mut cases = vec![];
    for kind in KINDS.map(Path::new) {
        let folder = root.join(kind);
        if !folder.is_dir() {
            continue;
        }
        let failed = |e: std::io::Error| Error::file(&folder, e);
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.path().is_dir() {
                cases.push(kind.join(entry.file_name()));
            }
        }
        if !cases.iter().any(|case| case.starts_with(kind)) {
            cases.push(kind.into());
        }
    }
    cases.sort();
    match cases.is_empty() {
        true => Err(Error::file(root, format!("no set of vectors (expected folders {})", KINDS.join(", ")))),
        false => Ok(cases),
    }
}

/// The inputs of a case: the folder's `expected.json` and `expected.safetensors`, or those of the folder it points to.
pub(crate) struct Inputs {
    /// The json file, for errors.
    pub file: PathBuf,
    /// Its content.
    pub json: Value,
    /// Where the case is computed.
    pub device: Device,
    weights: tensors::Weights,
}

impl Inputs {
    fn open(case: &Path, device: &Device) -> Result<Self> {
        let mut file = case.join("expected.json");
        let mut json = files::read_json(&file)?;
        if let Some(other) = json["expected_in"].as_str() {
            if !Path::new(other).components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(Error::field(&file, "expected_in", format!("{other} is outside the set of vectors")));
            }
            file = case.join("../..").join(other).join("expected.json");
            json = files::read_json(&file)?;
        }
        let weights = tensors::Weights::open(&file.with_file_name("expected.safetensors"))?;
        Ok(Self { file, json, device: device.clone(), weights })
    }

    /// A whole number at a path of keys.
    pub fn number(&self, path: &[&str]) -> Result<usize> {
        let value = path.iter().fold(&self.json, |json, key| &json[*key]);
        value
            .as_u64()
            .map(|n| n as usize)
            .ok_or_else(|| Error::field(&self.file, path.join("."), "missing (expected a whole number)"))
    }

    /// A list of texts at `name`.
    pub fn texts(&self, name: &str) -> Result<Vec<&str>> {
        let texts = self.json[name].as_array().and_then(|texts| texts.iter().map(Value::as_str).collect());
        texts.ok_or_else(|| Error::field(&self.file, name, "missing (expected a list of texts)"))
    }

    /// A list of token ids at `name`, not empty.
    pub fn tokens(&self, name: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids: Option<Vec<u32>> = self.json[name].as_array().and_then(|ids| ids.iter().map(id).collect());
        let ids = ids.filter(|ids| !ids.is_empty());
        ids.ok_or_else(|| Error::field(&self.file, name, "missing (expected a list of token ids)"))
    }

    /// A matrix of ids, row by row, and its number of columns.
    pub fn ids(&self, name: &str) -> Result<(Vec<i64>, usize)> {
        let tensor = self.weights.read(name)?;
        match tensor.dims() {
            [rows, columns] if rows * columns > 0 => {
                Ok((tensor.to_dtype(DType::I64)?.flatten_all()?.to_vec1()?, *columns))
            }
            dims => Err(Error::field(self.weights.path(), name, format!("shape {dims:?} (expected a matrix)"))),
        }
    }
}

/// The batch a model is fed: `pad` replaced by `fill` and masked.
pub(crate) fn batch_of(ids: &[i64], columns: usize, pad: i64, fill: i64) -> Result<TokenBatch> {
    let mask: Vec<bool> = ids.iter().map(|&id| id != pad).collect();
    let fed = ids.iter().map(|&id| if id == pad { fill } else { id });
    let fed = fed
        .map(|id| u32::try_from(id).map_err(|_| Error::invalid(format!("input_ids: {id} is no token"))))
        .collect::<Result<Vec<u32>>>()?;
    TokenBatch::new(fed, mask, ids.len() / columns)
}

/// Integers as the tensor the judge compares.
pub(crate) fn integers(values: impl IntoIterator<Item = i64>, shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(values.into_iter().collect::<Vec<i64>>(), shape, &Device::Cpu)?)
}

/// `values` where `live`, one after the other, 0 elsewhere.
pub(crate) fn scattered(values: &Tensor, live: &[bool]) -> Result<Vec<f32>> {
    let mut all = vec![0.0; live.len()];
    let places = all.iter_mut().zip(live).filter(|(_, live)| **live);
    places.zip(values.to_vec1::<f32>()?).for_each(|((place, _), value)| *place = value);
    Ok(all)
}

/// The sum of each row of `width`, in f64, rounded once.
pub(crate) fn row_sums(rows: &[f32], width: usize) -> Vec<f32> {
    rows.chunks_exact(width.max(1)).map(|row| row.iter().map(|&x| f64::from(x)).sum::<f64>() as f32).collect()
}

/// Writes `got.safetensors` and `got.json`.
pub(crate) fn write(out: &Path, tensors: &BTreeMap<String, Tensor>, json: &Value) -> Result<()> {
    std::fs::create_dir_all(out).map_err(|e| Error::file(out, e))?;
    tensors::save(&out.join("got.safetensors"), tensors)?;
    files::write_json(&out.join("got.json"), json)
}
