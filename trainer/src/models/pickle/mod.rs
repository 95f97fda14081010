//! `pytorch_model.bin` read as data: what `torch.save` writes, its pickle interpreted by a short list of operations.
//!
//! Two containers: a zip archive with a member for each storage ([`archive`]), and before PyTorch 1.6 a row of pickles
//! with the storages behind them ([`legacy`]). Nothing is executed: [`machine`] carries out the operations that a dictionary
//! of tensors is written in, [`torch`] answers the few calls that rebuild one, and everything else is refused by name.

mod archive;
mod legacy;
mod machine;
mod place;
mod torch;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::tensors::{Info, regular_file};
use crate::{Error, Result};
use archive::Archive;
use machine::Machine;
use place::Place;

/// Largest pickle believed; a state dict needs some hundred bytes a tensor.
const PICKLE_LIMIT: u64 = 1 << 24;

/// Where the bytes of a storage lie in the file.
#[derive(Debug, Clone, Copy)]
struct Extent {
    start: u64,
    length: u64,
}

/// One tensor: its storage's bytes, and where it lies in them.
#[derive(Debug, Clone)]
struct Stored {
    storage: Extent,
    place: Place,
}

/// An opened file: the tensors its pickle names.
#[derive(Debug)]
pub struct Pickle {
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
}

impl Pickle {
    /// Reads the pickle of the file at `path`; storages are left where they are.
    ///
    /// # Errors
    /// What is no file of `torch.save`, calls anything, is compressed or big-endian, and a tensor that does not fit its
    /// storage.
    pub fn open(path: &Path) -> Result<Self> {
        let (mut file, length) = regular_file(path)?;
        let mut magic = [0; 4];
        let known = length >= 4 && file.read_exact(&mut magic).is_ok() && magic == *archive::MAGIC;
        let (places, storages) = match known {
            true => from_archive(path, file, length)?,
            false => legacy::read(path, file, length)?,
        };
        let mut tensors = BTreeMap::new();
        for (name, place) in places {
            let bad = |what: String| Error::field(path, name.as_ref(), what);
            let storage = storages.get(&place.storage).copied();
            let storage = storage.ok_or_else(|| bad(format!("its storage {:?} is missing", place.storage)))?;
            place.check(storage.length).map_err(bad)?;
            let place = Place::clone(&place);
            tensors.insert(name.to_string(), Stored { storage, place });
        }
        Ok(Self { path: path.into(), tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names, types and shapes.
    pub fn infos(&self) -> impl Iterator<Item = (&str, Info)> {
        self.tensors.iter().map(|(name, Stored { place, .. })| (name.as_str(), place.info()))
    }

    /// Type and shape of one tensor.
    pub fn info(&self, name: &str) -> Option<Info> {
        self.tensors.get(name).map(|stored| stored.place.info())
    }

    /// The bytes of one tensor, in the type it is stored in, row by row.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let Stored { storage, place } =
            self.tensors.get(name).ok_or_else(|| Error::field(&self.path, name, "no such tensor"))?;
        let size = place.dtype.size_in_bytes();
        let failed = |e: std::io::Error| Error::field(&self.path, name, e.to_string());
        let mut file = File::open(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(storage.start + (place.offset * size) as u64)).map_err(failed)?;
        let mut span = vec![0; place.span() * size];
        file.read_exact(&mut span).map_err(failed)?;
        Ok(match place.contiguous() {
            true => span,
            false => place.gather(&span),
        })
    }
}

/// Tensors by name, and where each storage that they lie in is.
type Contents = (BTreeMap<std::rc::Rc<str>, std::rc::Rc<Place>>, BTreeMap<String, Extent>);

fn from_archive(path: &Path, file: File, length: u64) -> Result<Contents> {
    let mut archive = Archive::open(path, file, length)?;
    let member = archive.names().find(|name| *name == "data.pkl" || name.ends_with("/data.pkl")).map(str::to_string);
    let member =
        member.ok_or_else(|| Error::file(path, "no data.pkl in the archive (expected what torch.save writes)"))?;
    let root = member.strip_suffix("data.pkl").unwrap_or_default();
    if archive.names().any(|name| name == format!("{root}byteorder")) {
        let order = archive.bytes(&format!("{root}byteorder"), 16)?;
        if order != b"little" {
            return Err(Error::field(path, "byteorder", "not little (big-endian files are not supported)"));
        }
    }
    let pickle = archive.bytes(&member, PICKLE_LIMIT)?;
    let bad = |what: String| Error::field(path, "data.pkl", what);
    let mut machine = Machine::new(&pickle);
    let top = machine.run().map_err(bad)?;
    let places = machine.state_dict(top).map_err(bad)?;
    let mut storages = BTreeMap::new();
    for place in places.values() {
        if !storages.contains_key(&place.storage) {
            // The key becomes the name of a member of the archive, never of a file.
            storages.insert(place.storage.clone(), archive.extent(&format!("{root}data/{}", place.storage))?);
        }
    }
    Ok((places, storages))
}

#[cfg(test)]
mod tests;
