//! Weights in files: safetensors read tensor by tensor, and written whole.
//!
//! Lengths are checked against the file before anything is allocated, and only tensors that are asked for are read.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::files;
use super::pickle::Pickle;
use crate::{Error, Result};

/// Largest header believed (the format's own limit).
const HEADER_LIMIT: u64 = 100_000_000;

/// One tensor of a safetensors file.
#[derive(Debug, Clone)]
struct Entry {
    dtype: DType,
    shape: Vec<usize>,
    start: u64,
    length: usize,
}

/// An opened file of weights.
#[derive(Debug)]
pub enum Weights {
    /// safetensors.
    Safe(Safe),
    /// A zip archive with a pickle, as `torch.save` writes it.
    Pickled(Pickle),
}

/// A safetensors file, header read.
#[derive(Debug)]
pub struct Safe {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
}

impl Weights {
    /// Opens `path` by its extension: `.safetensors`, anything else as a pickle.
    pub fn open(path: &Path) -> Result<Self> {
        match path.extension().is_some_and(|e| e == "safetensors") {
            true => Ok(Self::Safe(Safe::open(path)?)),
            false => Ok(Self::Pickled(Pickle::open(path)?)),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Safe(safe) => &safe.path,
            Self::Pickled(pickle) => pickle.path(),
        }
    }

    /// Names and shapes.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        match self {
            Self::Safe(safe) => safe.entries.iter().map(|(n, e)| (n.clone(), e.shape.clone())).collect(),
            Self::Pickled(pickle) => pickle.shapes(),
        }
    }

    /// Reads one tensor, in the dtype it is stored in. Fails, naming it, when it is absent.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        match self {
            Self::Safe(safe) => safe.read(name),
            Self::Pickled(pickle) => pickle.read(name),
        }
    }
}

impl Safe {
    fn open(path: &Path) -> Result<Self> {
        let bad = |what: String| Error::file(path, what);
        let mut file = File::open(path).map_err(|e| Error::file(path, e))?;
        let length = file.metadata().map_err(|e| Error::file(path, e))?.len();
        if length < 8 {
            return Err(bad(format!("{length} bytes are no safetensors file (expected at least 8)")));
        }
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(|e| Error::file(path, e))?;
        let size = u64::from_le_bytes(size);
        if size > HEADER_LIMIT || size > length - 8 {
            return Err(bad(format!("header of {size} bytes in a file of {length} (truncated?)")));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(|e| Error::file(path, e))?;
        let header: Value = serde_json::from_slice(&header).map_err(|e| bad(format!("the header is not JSON: {e}")))?;
        let header = header.as_object().ok_or_else(|| bad("the header is not an object".into()))?;
        let data = 8 + size;
        let mut entries = BTreeMap::new();
        for (name, value) in header.iter().filter(|(name, _)| *name != "__metadata__") {
            let entry = entry(value, data, length).map_err(|what| Error::field(path, name, what))?;
            entries.insert(name.clone(), entry);
        }
        Ok(Self { path: path.into(), entries })
    }

    fn read(&self, name: &str) -> Result<Tensor> {
        let entry = self.entries.get(name).ok_or_else(|| Error::field(&self.path, name, "no such tensor"))?;
        let mut file = File::open(&self.path).map_err(|e| Error::file(&self.path, e))?;
        file.seek(SeekFrom::Start(entry.start)).map_err(|e| Error::file(&self.path, e))?;
        let mut bytes = vec![0; entry.length];
        file.read_exact(&mut bytes).map_err(|e| Error::field(&self.path, name, e.to_string()))?;
        Ok(Tensor::from_raw_buffer(&bytes, entry.dtype, &entry.shape, &Device::Cpu)?)
    }
}

/// Checks one header entry against the length of the file.
fn entry(value: &Value, data: u64, file: u64) -> std::result::Result<Entry, String> {
    let dtype = match value["dtype"].as_str() {
        Some("F32") => DType::F32,
        Some("F16") => DType::F16,
        Some("BF16") => DType::BF16,
        Some("F64") => DType::F64,
        Some("I64") => DType::I64,
        Some("I32") => DType::I32,
        Some("U32") => DType::U32,
        // Booleans are bytes that only legacy buffers hold.
        Some("U8" | "BOOL") => DType::U8,
        other => return Err(format!("dtype {} is not supported", other.unwrap_or("missing"))),
    };
    let numbers = |key: &str| -> Option<Vec<u64>> { value[key].as_array()?.iter().map(Value::as_u64).collect() };
    let shape = numbers("shape").ok_or("shape is not a list of numbers")?;
    let offsets = numbers("data_offsets").filter(|o| o.len() == 2).ok_or("data_offsets are not two numbers")?;
    let (start, end) = (offsets[0], offsets[1]);
    if start > end || end > file - data {
        return Err(format!("bytes {start} to {end} of {} (truncated?)", file - data));
    }
    let bytes = shape.iter().try_fold(dtype.size_in_bytes() as u64, |n, &d| n.checked_mul(d));
    if bytes != Some(end - start) {
        return Err(format!("shape {shape:?} does not fill its {} bytes", end - start));
    }
    let shape = shape.iter().map(|&d| d as usize).collect();
    Ok(Entry { dtype, shape, start: data + start, length: (end - start) as usize })
}

/// Reads every tensor of a safetensors file, in the dtypes it is stored in.
pub fn load(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let safe = Safe::open(path)?;
    safe.entries.keys().map(|name| Ok((name.clone(), safe.read(name)?))).collect()
}

/// Writes a safetensors file with the metadata transformers looks for (`format: pt`); written, synced, renamed.
pub fn save(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let tensors: Vec<(&String, Tensor)> =
        tensors.iter().map(|(n, t)| Ok((n, t.contiguous()?))).collect::<Result<_>>()?;
    files::write_with(path, |temporary| {
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        let data = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        safetensors::serialize_to_file(data, Some(metadata), temporary).map_err(|e| Error::file(path, e))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_survive_a_round_trip_and_a_truncated_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let tensor = Tensor::new(&[[1.0f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        save(&path, &BTreeMap::from([("x".to_string(), tensor.t().unwrap())])).unwrap();
        let back = load(&path).unwrap();
        assert_eq!(back["x"].to_vec2::<f32>().unwrap(), [[1.0, 3.0], [2.0, 4.0]]);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.contains("a.safetensors: ") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_hostile_header_allocates_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let header = r#"{"x":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        std::fs::write(&path, &bytes).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("x: shape"));
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("header"));
    }
}
