//! Weights in files: opened by their header or pickle, read tensor by tensor, written as safetensors.
//!
//! Lengths are checked against the file before anything is allocated, and only tensors that are asked for are read. What
//! is written is asked for tensor by tensor too, so that no more than one need be in memory.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use safetensors::{Dtype, View};

use super::pickle::Pickle;
use super::safe::Safe;
use crate::files;
use crate::{Error, Result};

/// Type and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Type of its elements.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl Info {
    /// Bytes it takes in a file.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product::<u64>() * self.dtype.size_in_bytes() as u64
    }
}

/// An opened file of weights.
#[derive(Debug)]
pub enum Weights {
    /// safetensors.
    Safe(Safe),
    /// What `torch.save` writes.
    Pickled(Pickle),
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
            Self::Safe(safe) => safe.path(),
            Self::Pickled(pickle) => pickle.path(),
        }
    }

    /// Names, types and shapes.
    pub fn infos(&self) -> BTreeMap<String, Info> {
        let owned = |(name, info): (&str, Info)| (name.to_string(), info);
        match self {
            Self::Safe(safe) => safe.infos().map(owned).collect(),
            Self::Pickled(pickle) => pickle.infos().map(owned).collect(),
        }
    }

    /// Names and shapes.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.infos().into_iter().map(|(name, info)| (name, info.shape)).collect()
    }

    /// The bytes of one tensor as a safetensors file holds them: row by row, the lowest byte first. Fails, naming it,
    /// when it is absent.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        match self {
            Self::Safe(safe) => safe.bytes(name),
            Self::Pickled(pickle) => pickle.bytes(name),
        }
    }

    /// Reads one tensor, in the dtype it is stored in. Fails, naming it, when it is absent.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        let info = match self {
            Self::Safe(safe) => safe.info(name),
            Self::Pickled(pickle) => pickle.info(name),
        };
        let Info { dtype, shape } = info.ok_or_else(|| Error::field(self.path(), name, "no such tensor"))?;
        Ok(Tensor::from_raw_buffer(&self.bytes(name)?, dtype, &shape, &Device::Cpu)?)
    }
}

/// Opens a regular file and gives its length: a pipe or a device would never end.
pub(super) fn regular_file(path: &Path) -> Result<(File, u64)> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::file(path, e))?;
    if !metadata.is_file() {
        return Err(Error::file(path, "not a file"));
    }
    Ok((File::open(path).map_err(|e| Error::file(path, e))?, metadata.len()))
}

/// Reads every tensor of a safetensors file, in the dtypes it is stored in.
pub fn load(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let weights = Weights::Safe(Safe::open(path)?);
    weights.infos().into_keys().map(|name| Ok((name.clone(), weights.read(&name)?))).collect()
}

/// A tensor to be written: what it is, and its bytes when they are asked for.
pub(super) struct Source<'a> {
    /// Its name in the file.
    pub name: String,
    /// Its type and shape in the file.
    pub info: Info,
    /// Its bytes in that type, row by row, the lowest byte first.
    pub bytes: Box<dyn Fn() -> Result<Vec<u8>> + 'a>,
}

impl<'a> Source<'a> {
    /// A tensor in memory, written as `dtype`.
    pub fn tensor(name: &str, tensor: &'a Tensor, dtype: DType) -> Self {
        let info = Info { dtype, shape: tensor.dims().to_vec() };
        let called = name.to_string();
        let bytes = move || {
            converted(bytes_of(tensor)?, tensor.dtype(), dtype)
                .map_err(|what| Error::invalid(format!("{called}: {what}")))
        };
        Self { name: name.into(), info, bytes: Box::new(bytes) }
    }

    /// A tensor of a file, written as `dtype`.
    pub fn file(weights: &'a Weights, name: &str, info: &Info, dtype: DType) -> Self {
        let (from, asked) = (info.dtype, name.to_string());
        let bytes = move || {
            let stored = weights.bytes(&asked)?;
            converted(stored, from, dtype).map_err(|what| Error::field(weights.path(), &asked, what))
        };
        Self { name: name.into(), info: Info { dtype, shape: info.shape.clone() }, bytes: Box::new(bytes) }
    }
}

/// A source under the eyes of the writer, which cannot be told of a failure: it is kept for whoever called it.
struct Asked<'a> {
    source: Source<'a>,
    dtype: Dtype,
    failure: &'a RefCell<Option<Error>>,
}

impl View for Asked<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.source.info.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if self.failure.borrow().is_none() {
            match (self.source.bytes)() {
                Ok(bytes) => return bytes.into(),
                Err(error) => drop(self.failure.replace(Some(error))),
            }
        }
        Cow::Borrowed(&[]) // the file is thrown away
    }

    fn data_len(&self) -> usize {
        self.source.info.bytes() as usize
    }
}

/// Writes a safetensors file with the metadata transformers looks for (`format: pt`), one tensor at a time; written,
/// synced, renamed.
pub(super) fn write<'a>(path: &Path, sources: impl IntoIterator<Item = Source<'a>>) -> Result<()> {
    let failure = RefCell::new(None);
    let mut views = Vec::new();
    for source in sources {
        let dtype = safe_dtype(source.info.dtype)?;
        views.push((source.name.clone(), Asked { source, dtype, failure: &failure }));
    }
    files::write_through(path, |temporary| {
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        let written = safetensors::serialize_to_file(views, Some(metadata), temporary);
        match failure.take() {
            Some(error) => Err(error),
            None => written.map_err(|e| Error::file(path, e)),
        }
    })
}

/// Writes tensors, each in its own dtype, to a safetensors file.
pub fn save(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    write(path, tensors.iter().map(|(name, tensor)| Source::tensor(name, tensor, tensor.dtype())))
}

fn safe_dtype(dtype: DType) -> Result<Dtype> {
    Ok(match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::U32 => Dtype::U32,
        DType::U8 => Dtype::U8,
        other => return Err(Error::invalid(format!("{other:?} cannot be written (expected a float or an integer)"))),
    })
}

/// The elements of a tensor row by row, the lowest byte first.
fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>> {
    let flat = tensor.to_device(&Device::Cpu)?.flatten_all()?;
    macro_rules! bytes {
        ($ty:ty) => {
            flat.to_vec1::<$ty>()?.into_iter().flat_map(<$ty>::to_le_bytes).collect()
        };
    }
    Ok(match tensor.dtype() {
        DType::F64 => bytes!(f64),
        DType::F32 => bytes!(f32),
        DType::F16 => bytes!(f16),
        DType::BF16 => bytes!(bf16),
        DType::I64 => bytes!(i64),
        DType::I32 => bytes!(i32),
        DType::U32 => bytes!(u32),
        DType::U8 => flat.to_vec1()?,
        other => return Err(Error::invalid(format!("{other:?} cannot be written (expected a float or an integer)"))),
    })
}

/// Elements of the type `from` as elements of the type `to`, rounded to nearest by way of f32, as torch rounds.
///
/// # Errors
/// What is no float, and a number that `to` could only call infinite.
fn converted(bytes: Vec<u8>, from: DType, to: DType) -> std::result::Result<Vec<u8>, String> {
    if from == to {
        return Ok(bytes);
    }
    macro_rules! numbers {
        ($size:literal, $of:expr) => {
            Box::new(bytes.as_chunks::<$size>().0.iter().map(|&b| $of(b)))
        };
    }
    let numbers: Box<dyn Iterator<Item = f32>> = match from {
        DType::F64 => numbers!(8, |b| f64::from_le_bytes(b) as f32),
        DType::F32 => numbers!(4, f32::from_le_bytes),
        DType::F16 => numbers!(2, |b| f16::from_le_bytes(b).to_f32()),
        DType::BF16 => numbers!(2, |b| bf16::from_le_bytes(b).to_f32()),
        other => return Err(format!("dtype {other:?} (expected a float)")),
    };
    let fits = |x: f32, finite: bool| match finite || !x.is_finite() {
        true => Ok(()),
        false => Err(format!("{x} is out of the range of {to:?}")),
    };
    let mut out = Vec::with_capacity(bytes.len() / from.size_in_bytes() * to.size_in_bytes());
    match to {
        DType::F32 => numbers.for_each(|x| out.extend(x.to_le_bytes())),
        DType::F16 => {
            for x in numbers {
                let y = f16::from_f32(x);
                fits(x, y.is_finite())?;
                out.extend(y.to_le_bytes());
            }
        }
        DType::BF16 => {
            for x in numbers {
                let y = bf16::from_f32(x);
                fits(x, y.is_finite())?;
                out.extend(y.to_le_bytes());
            }
        }
        other => return Err(format!("{other:?} is no type of weights (expected F32, F16 or BF16)")),
    }
    Ok(out)
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
    fn bytes_are_converted_as_the_tensors_they_are_would_be() {
        let values = [0.0f32, -1.5, 1e-7, 3.3, 60000.0, f32::INFINITY, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0];
        let tensor = Tensor::new(&values, &Device::Cpu).unwrap();
        for from in [DType::F32, DType::F16, DType::BF16, DType::F64] {
            let stored = tensor.to_dtype(from).unwrap();
            for to in [DType::F32, DType::F16, DType::BF16] {
                let expected = bytes_of(&stored.to_dtype(DType::F32).unwrap().to_dtype(to).unwrap()).unwrap();
                let got = converted(bytes_of(&stored).unwrap(), from, to).unwrap();
                assert_eq!(got, expected, "{from:?} {to:?}");
            }
        }
        let large = bytes_of(&Tensor::new(&[65536.0f32], &Device::Cpu).unwrap()).unwrap();
        assert!(converted(large.clone(), DType::F32, DType::F16).unwrap_err().contains("65536 is out of the range"));
        assert!(converted(large, DType::F32, DType::BF16).is_ok());
    }

    #[test]
    fn a_source_that_fails_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let source = |name: &str, fails: bool| Source {
            name: name.into(),
            info: Info { dtype: DType::U8, shape: vec![2] },
            bytes: Box::new(move || if fails { Err(Error::invalid("gone")) } else { Ok(vec![1, 2]) }),
        };
        write(&path, [source("a", false), source("b", false)]).unwrap();
        assert_eq!(load(&path).unwrap()["b"].to_vec1::<u8>().unwrap(), [1, 2]);
        let error = write(&path, [source("a", false), source("b", true)]).unwrap_err();
        assert_eq!(error.to_string(), "gone");
        assert_eq!(load(&path).unwrap().len(), 2);
    }
}
