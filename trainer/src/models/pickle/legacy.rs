//! The layout of `torch.save` before PyTorch 1.6: four pickles (a magic number, a version, the machine, the object), a
//! fifth with the storages' keys, then each storage as its number of elements and its bytes, in the order of the keys.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::machine::{Item, Machine};
use super::{Contents, Extent, PICKLE_LIMIT};
use crate::models::json::one_line;
use crate::{Error, Result};

/// The number 0x1950a86a20f9469cfc6c as a pickle's long integer: what a file of this layout begins with.
const MAGIC: [u8; 12] = [0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The version of the layout.
const VERSION: i64 = 1001;

/// Tensors and storages of `file`, which is `length` bytes long.
pub(super) fn read(path: &Path, mut file: File, length: u64) -> Result<Contents> {
    let failed = |e: std::io::Error| Error::file(path, e);
    let mut front = vec![0; length.min(PICKLE_LIMIT) as usize];
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    file.read_exact(&mut front).map_err(failed)?;
    // A frame may stand before the number where the pickle's protocol has frames.
    if !front[..front.len().min(32)].windows(MAGIC.len()).any(|at| at == MAGIC) {
        return Err(Error::file(path, "neither a zip archive nor an older file of torch.save (truncated?)"));
    }
    let bad = |what: String| Error::field(path, "pickle", what);
    let mut machine = Machine::new(&front);
    machine.run().map_err(bad)?;
    match machine.run().map_err(bad)? {
        Item::Int(VERSION) => {}
        _ => return Err(bad(format!("another version of the layout (expected {VERSION})"))),
    }
    let Item::Dict(system) = machine.run().map_err(bad)? else {
        return Err(bad("the machine that wrote it is not described".into()));
    };
    if machine.little_endian(system) == Some(false) {
        return Err(bad("written on a big-endian machine (not supported)".into()));
    }
    let top = machine.run().map_err(bad)?;
    let Item::List(keys) = machine.run().map_err(bad)? else {
        return Err(bad("the storages' keys are missing".into()));
    };
    let places = machine.state_dict(top).map_err(bad)?;

    let mut storages = BTreeMap::new();
    let mut at = machine.consumed() as u64;
    for key in machine.texts(keys) {
        let bad = |what: &str| Error::field(path, format!("storage {}", one_line(key)), what);
        let dtype = machine.storage_type(key).ok_or_else(|| bad("no tensor lies in it, and its type is not known"))?;
        let mut count = [0; 8];
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        file.read_exact(&mut count).map_err(|_| bad("missing (truncated?)"))?;
        let bytes = u64::from_le_bytes(count).checked_mul(dtype.size_in_bytes() as u64);
        let start = at + 8;
        let bytes =
            bytes.filter(|&n| n <= length - start).ok_or_else(|| bad("it ends behind the file (truncated?)"))?;
        if storages.insert(key.to_string(), Extent { start, length: bytes }).is_some() {
            return Err(bad("it is there twice"));
        }
        at = start + bytes;
    }
    Ok((places, storages))
}
