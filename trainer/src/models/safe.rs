//! The header of a safetensors file, held to the format's rules: names once, bytes in order without gaps or overlaps,
//! every shape filling its bytes, nothing outside the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::DType;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::json::one_line;
use super::tensors::{Info, regular_file};
use crate::{Error, Result};

/// Largest header believed (the format's own limit).
const HEADER_LIMIT: u64 = 100_000_000;

/// One tensor: what it is and where its bytes lie in the file.
#[derive(Debug, Clone)]
struct Entry {
    info: Info,
    start: u64,
    length: usize,
}

/// A safetensors file, header read.
#[derive(Debug)]
pub struct Safe {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
}

impl Safe {
    /// Reads the header of the file at `path`.
    ///
    /// # Errors
    /// Naming the tensor where there is one: a header longer than the file, what is not JSON, a name twice, a type that is
    /// not known, a shape that does not fill its bytes, bytes that overlap, leave a gap or end behind the file.
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |what: String| Error::file(path, what);
        let (mut file, length) = regular_file(path)?;
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
        let header: Header = serde_json::from_slice(&header)
            .map_err(|e| bad(format!("its header is damaged: {}", one_line(&e.to_string()))))?;
        let data = 8 + size;
        let mut entries = BTreeMap::new();
        for (name, raw) in header.0 {
            let entry = entry(&raw, data, length).map_err(|what| Error::field(path, one_line(&name), what))?;
            entries.insert(name, entry);
        }
        without_gaps(&entries, data, length).map_err(|(name, what)| Error::field(path, one_line(name), what))?;
        Ok(Self { path: path.into(), entries })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names, types and shapes.
    pub fn infos(&self) -> impl Iterator<Item = (&str, Info)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry.info.clone()))
    }

    /// Type and shape of one tensor.
    pub fn info(&self, name: &str) -> Option<Info> {
        self.entries.get(name).map(|entry| entry.info.clone())
    }

    /// The bytes of one tensor, in the type it is stored in, row by row.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let entry = self.entries.get(name).ok_or_else(|| Error::field(&self.path, name, "no such tensor"))?;
        let failed = |e: std::io::Error| Error::field(&self.path, name, e.to_string());
        let mut file = File::open(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(entry.start)).map_err(failed)?;
        let mut bytes = vec![0; entry.length];
        file.read_exact(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}

/// The entries of a header; `__metadata__` is passed over.
struct Header(BTreeMap<String, RawEntry>);

/// An entry as written; other keys are passed over.
#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = BTreeMap<String, RawEntry>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
                formatter.write_str("an object with an entry for each tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let named = |e: A::Error| A::Error::custom(format!("{name}: {e}"));
                    let entry = map.next_value().map_err(named)?;
                    if entries.contains_key(&name) {
                        return Err(A::Error::custom(format!("{name} is there twice")));
                    }
                    entries.insert(name, entry);
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Entries).map(Header)
    }
}

/// Checks one header entry against the length of the file.
fn entry(raw: &RawEntry, data: u64, file: u64) -> std::result::Result<Entry, String> {
    let dtype = match raw.dtype.as_str() {
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        "F64" => DType::F64,
        "I64" => DType::I64,
        "I32" => DType::I32,
        "U32" => DType::U32,
        // Booleans are bytes that only legacy buffers hold.
        "U8" | "BOOL" => DType::U8,
        other => return Err(format!("dtype {} is not supported", one_line(other))),
    };
    let (start, end) = raw.data_offsets;
    if start > end || end > file - data {
        return Err(format!("bytes {start} to {end} of {} (truncated?)", file - data));
    }
    let shape = &raw.shape;
    let bytes = shape.iter().try_fold(dtype.size_in_bytes() as u64, |n, &d| n.checked_mul(d));
    if bytes != Some(end - start) {
        let shape = one_line(&format!("{shape:?}"));
        return Err(format!("shape {shape} does not fill its {} bytes", end - start));
    }
    let shape = shape.iter().map(|&d| d as usize).collect();
    Ok(Entry { info: Info { dtype, shape }, start: data + start, length: (end - start) as usize })
}

/// Checks that the tensors' bytes follow one another to the end of the file.
fn without_gaps(entries: &BTreeMap<String, Entry>, data: u64, file: u64) -> std::result::Result<(), (&str, String)> {
    let mut order: Vec<(&String, &Entry)> = entries.iter().collect();
    order.sort_by_key(|(_, entry)| (entry.start, entry.length));
    let mut end = data;
    for (name, entry) in &order {
        if entry.start != end {
            let what = if entry.start < end { "share bytes with another tensor" } else { "leave a gap before them" };
            return Err((name, format!("its bytes from {} on {what}", entry.start - data)));
        }
        end += entry.length as u64;
    }
    match order.last() {
        Some((name, _)) if end != file => Err((name, format!("{} bytes after the last tensor", file - end))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error of a file with this header and `data` bytes behind it.
    fn error(header: &str, data: usize) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        std::fs::write(&path, &bytes).unwrap();
        let error = Safe::open(&path).unwrap_err().to_string();
        assert!(error.contains("a.safetensors: ") && !error.contains('\n'), "{error}");
        error
    }

    #[test]
    fn a_header_against_the_formats_rules_is_refused_by_the_name_of_the_tensor() {
        let x = |shape: &str, start: u64, end: u64| {
            format!(r#""x":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
        };
        let y = r#""y":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
        for (header, data, part) in [
            (format!("{{{},{y}}}", x("[2]", 0, 8)), 8, "share bytes"),
            (format!("{{{},{y}}}", x("[1]", 8, 12)), 12, "x: its bytes from 8 on leave a gap"),
            (format!("{{{}}}", x("[1]", 0, 4)), 5, "x: 1 bytes after the last tensor"),
            (format!("{{{},{}}}", x("[1]", 0, 4), x("[1]", 4, 8)), 8, "x is there twice"),
            (format!("{{{}}}", x("[1]", 4, 0)), 4, "x: bytes 4 to 0 of 4"),
            (format!("{{{}}}", x("[4611686018427387904,4]", 0, 0)), 0, "x: shape"),
            (format!("{{{}}}", x("[-1]", 0, 4)), 4, "x: invalid value"),
            (format!("{{{}}}", x("\"1\"", 0, 4)), 4, "x: invalid type"),
            (r#"{"x":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}"#.into(), 1, "x: dtype F8_E4M3"),
            (r#"{"x":{"shape":[1],"data_offsets":[0,1]}}"#.into(), 1, "x: missing field `dtype`"),
            (r#"{"x\n":3}"#.into(), 0, "x\\n: invalid type"),
            ("[]".into(), 0, "an object with an entry"),
            ("{".into(), 0, "damaged"),
            ("[".repeat(100_000), 0, "damaged"),
        ] {
            let error = error(&header, data);
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
