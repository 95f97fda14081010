//! Test vectors of the Python libraries: one case in, `got.safetensors` and `got.json` out.
//!
//! The cases are folders in the layouts of the Hub with inputs and expected outputs side by side; only the inputs are
//! read here.

pub mod lm;
pub mod rm;
pub mod tok;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use crate::files;
use crate::models::{TokenBatch, tensors};
use crate::{Error, Result};

/// Runs one case (a folder) and writes what it computes to the folder `out`.
/// Fails, naming it, on a kind of case that is not supported.
pub fn run_case(case: &Path, out: &Path) -> Result<()> {
    if case.is_file() {
        return Err(Error::file(
            case,
            "cases of a json file are not supported (expected the folder of an lm or rm case)",
        ));
    }
    if case.join("cases.json").is_file() {
        return tok::run(case, out);
    }
    let inputs = Inputs::open(case)?;
    match inputs.json["kind"].as_str() {
        Some("causal_lm") => lm::run(case, &inputs, out),
        Some("tldr_scalar") => rm::run(case, &inputs, out),
        kind => {
            let what = format!("{} is not supported (expected causal_lm or tldr_scalar)", kind.unwrap_or("missing"));
            Err(Error::field(&inputs.file, "kind", what))
        }
    }
}

/// The inputs of a case: the folder's `expected.json` and `expected.safetensors`, or those of the folder it points to.
pub(crate) struct Inputs {
    /// The json file, for errors.
    pub file: PathBuf,
    /// Its content.
    pub json: Value,
    weights: tensors::Weights,
}

impl Inputs {
    fn open(case: &Path) -> Result<Self> {
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
        Ok(Self { file, json, weights })
    }

    /// A whole number at a path of keys.
    pub fn number(&self, path: &[&str]) -> Result<usize> {
        let value = path.iter().fold(&self.json, |json, key| &json[*key]);
        value
            .as_u64()
            .map(|n| n as usize)
            .ok_or_else(|| Error::field(&self.file, path.join("."), "missing (expected a whole number)"))
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

/// Writes `got.safetensors` and `got.json`.
pub(crate) fn write(out: &Path, tensors: &BTreeMap<String, Tensor>, json: &Value) -> Result<()> {
    std::fs::create_dir_all(out).map_err(|e| Error::file(out, e))?;
    tensors::save(&out.join("got.safetensors"), tensors)?;
    files::write_json(&out.join("got.json"), json)
}
