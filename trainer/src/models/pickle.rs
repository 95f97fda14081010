//! `pytorch_model.bin` read as data: a zip archive whose pickle is interpreted by a short list of operations.
//!
//! Nothing is executed: the only names the pickle may call are those that build a dictionary of tensors, and they are
//! answered here. Everything else is refused by name.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use candle_core::{DType, Device, Tensor};
use zip::ZipArchive;

use crate::{Error, Result};

/// Largest pickle believed; a state dict needs some hundred bytes a tensor.
const PICKLE_LIMIT: u64 = 1 << 26;
/// Deepest nesting of tuples.
const DEPTH_LIMIT: usize = 16;

/// Where a tensor lies: a storage, and how it is strided there.
#[derive(Debug, Clone)]
struct Place {
    storage: Storage,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

#[derive(Debug, Clone)]
struct Storage {
    key: String,
    dtype: DType,
}

/// An opened archive: the tensors its pickle names.
#[derive(Debug)]
pub struct Pickle {
    path: PathBuf,
    /// Folder inside the archive, with its slash.
    root: String,
    tensors: BTreeMap<String, Place>,
}

type Dict = Rc<RefCell<BTreeMap<String, Place>>>;

#[derive(Debug, Clone)]
enum Item {
    Text(Rc<str>),
    Int(i64),
    Tuple(Rc<[Item]>, usize),
    Dict(Dict),
    Callable(Rc<str>),
    Storage(Storage),
    Tensor(Place),
    /// A value of a kind that no tensor depends on.
    Opaque,
}

impl Pickle {
    /// Reads the pickle of the archive at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let mut archive = archive(path)?;
        let member = (0..archive.len())
            .filter_map(|i| archive.name_for_index(i).map(str::to_string))
            .find(|name| name == "data.pkl" || name.ends_with("/data.pkl"))
            .ok_or_else(|| Error::file(path, "no data.pkl in the archive (expected what torch.save writes)"))?;
        let root = member.strip_suffix("data.pkl").unwrap_or_default().to_string();
        let bytes = member_bytes(&mut archive, path, &member, PICKLE_LIMIT)?;
        let tensors = interpret(&bytes).map_err(|what| Error::field(path, "data.pkl", what))?;
        Ok(Self { path: path.into(), root, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names and shapes.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.tensors.iter().map(|(name, place)| (name.clone(), place.shape.clone())).collect()
    }

    /// Reads one tensor in the dtype it is stored in.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        let bad = |what: String| Error::field(&self.path, name, what);
        let place = self.tensors.get(name).ok_or_else(|| bad("no such tensor".into()))?;
        let mut archive = archive(&self.path)?;
        let member = format!("{}data/{}", self.root, place.storage.key);
        let bytes = member_bytes(&mut archive, &self.path, &member, u64::MAX)?;
        let size = place.storage.dtype.size_in_bytes();
        let count = bytes.len() / size;
        let last = place
            .shape
            .iter()
            .zip(&place.strides)
            .try_fold(place.offset, |at, (&n, &stride)| at.checked_add(n.checked_sub(1)?.checked_mul(stride)?));
        let elements = place.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
        // An expanded (stride 0) tensor could ask for more than the file holds.
        if last.is_none_or(|last| last >= count) || elements > count {
            return Err(bad(format!("shape {:?} does not fit its storage of {count} elements", place.shape)));
        }
        let storage = Tensor::from_raw_buffer(&bytes[..count * size], place.storage.dtype, &[count], &Device::Cpu)?;
        let mut index = vec![place.offset as u32; 1];
        if contiguous(&place.shape, &place.strides) {
            return Ok(storage.narrow(0, place.offset, elements)?.reshape(place.shape.as_slice())?.copy()?);
        }
        for (&n, &stride) in place.shape.iter().zip(&place.strides) {
            index = index.iter().flat_map(|&i| (0..n as u32).map(move |j| i + j * stride as u32)).collect();
        }
        Ok(storage.index_select(&Tensor::new(index, &Device::Cpu)?, 0)?.reshape(place.shape.as_slice())?)
    }
}

fn contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&n, &stride)| {
        let fits = n == 1 || stride == expected;
        expected *= n;
        fits
    })
}

fn archive(path: &Path) -> Result<ZipArchive<File>> {
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    ZipArchive::new(file).map_err(|e| Error::file(path, format!("not a zip archive: {e} (truncated?)")))
}

fn member_bytes(archive: &mut ZipArchive<File>, path: &Path, member: &str, limit: u64) -> Result<Vec<u8>> {
    let length = std::fs::metadata(path).map_err(|e| Error::file(path, e))?.len();
    let bad = |what: String| Error::field(path, member, what);
    let mut entry = archive.by_name(member).map_err(|e| bad(e.to_string()))?;
    // Members are stored, not compressed, so one larger than the file is a lie.
    if entry.size() > length.min(limit) {
        return Err(bad(format!("{} bytes in a file of {length}", entry.size())));
    }
    let mut bytes = Vec::with_capacity(entry.size() as usize);
    entry.read_to_end(&mut bytes).map_err(|e| bad(e.to_string()))?;
    Ok(bytes)
}

type Step<T> = std::result::Result<T, String>;

/// The machine: a stack, marks on it, a memo, and the bytes still to read.
struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Item>,
    marks: Vec<usize>,
    memo: HashMap<u32, Item>,
}

/// The dictionary of tensors a pickle builds.
fn interpret(bytes: &[u8]) -> Step<BTreeMap<String, Place>> {
    let mut machine = Machine { rest: bytes, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
    while machine.step()? {}
    match machine.stack.pop() {
        Some(Item::Dict(dict)) => Ok(dict.borrow().clone()),
        _ => Err("it does not build a dictionary of tensors".into()),
    }
}

impl Machine<'_> {
    fn bytes(&mut self, n: usize) -> Step<&[u8]> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or("it ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self, n: usize) -> Step<u64> {
        Ok(self.bytes(n)?.iter().rev().fold(0, |value, &b| value << 8 | u64::from(b)))
    }

    fn text(&mut self, n: usize) -> Step<Rc<str>> {
        Ok(std::str::from_utf8(self.bytes(n)?).map_err(|_| "a string that is not UTF-8")?.into())
    }

    fn line(&mut self) -> Step<Rc<str>> {
        let n = self.rest.iter().position(|&b| b == b'\n').ok_or("it ends too early")?;
        let line = self.text(n)?;
        self.bytes(1)?;
        Ok(line)
    }

    fn pop(&mut self) -> Step<Item> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("its stack is empty".into());
        }
        self.stack.pop().ok_or_else(|| "its stack is empty".into())
    }

    fn since_mark(&mut self) -> Step<Vec<Item>> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn push_tuple(&mut self, items: Vec<Item>) -> Step<()> {
        let depth = items.iter().map(|i| if let Item::Tuple(_, d) = i { d + 1 } else { 1 }).max().unwrap_or(1);
        if depth > DEPTH_LIMIT {
            return Err(format!("tuples nested more than {DEPTH_LIMIT} deep"));
        }
        self.stack.push(Item::Tuple(items.into(), depth));
        Ok(())
    }

    fn last_tuple(&mut self, n: usize) -> Step<()> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Step<Vec<_>>>()?;
        items.reverse();
        self.push_tuple(items)
    }

    fn remember(&mut self, key: u32) -> Step<()> {
        let top = self.stack.last().cloned().ok_or("its stack is empty")?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Step<()> {
        let item = self.memo.get(&key).cloned().ok_or("it recalls what it never stored")?;
        self.stack.push(item);
        Ok(())
    }

    /// Executes one operation; false at the end.
    fn step(&mut self) -> Step<bool> {
        let op = self.bytes(1)?[0];
        match op {
            0x80 => drop(self.bytes(1)?),
            0x95 => drop(self.bytes(8)?),
            b'.' => return Ok(false),
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push_tuple(Vec::new())?,
            b't' => {
                let items = self.since_mark()?;
                self.push_tuple(items)?;
            }
            0x85..=0x87 => self.last_tuple(usize::from(op - 0x84))?,
            b'}' => self.stack.push(Item::Dict(Dict::default())),
            b']' | b'N' | 0x88 | 0x89 => self.stack.push(Item::Opaque),
            b'G' => {
                self.bytes(8)?;
                self.stack.push(Item::Opaque);
            }
            b'K' => self.push_int(1, false)?,
            b'M' => self.push_int(2, false)?,
            b'J' => self.push_int(4, true)?,
            0x8a => {
                let n = self.number(1)? as usize;
                if n > 8 {
                    return Err("an integer of more than 8 bytes".into());
                }
                self.push_int(n, true)?;
            }
            b'X' => {
                let n = self.number(4)? as usize;
                let text = self.text(n)?;
                self.stack.push(Item::Text(text));
            }
            0x8c => {
                let n = self.number(1)? as usize;
                let text = self.text(n)?;
                self.stack.push(Item::Text(text));
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(Item::Callable(format!("{module}.{name}").into()));
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Item::Text(name), Item::Text(module)) => {
                    self.stack.push(Item::Callable(format!("{module}.{name}").into()));
                }
                _ => return Err("a name that is not text".into()),
            },
            b'q' => {
                let key = self.number(1)? as u32;
                self.remember(key)?;
            }
            b'r' => {
                let key = self.number(4)? as u32;
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let key = self.number(1)? as u32;
                self.recall(key)?;
            }
            b'j' => {
                let key = self.number(4)? as u32;
                self.recall(key)?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.stack.push(Item::Storage(storage(id)?));
            }
            b'R' => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.stack.push(call(callable, arguments)?);
            }
            // State set on an object: transformers' `_metadata`, of no use here.
            b'b' => drop(self.pop()?),
            b'a' => drop(self.pop()?),
            b'e' => drop(self.since_mark()?),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(vec![key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set_items(items)?;
            }
            other => return Err(format!("operation {other:#04x} is refused")),
        }
        Ok(true)
    }

    fn push_int(&mut self, n: usize, signed: bool) -> Step<()> {
        let value = self.number(n)?;
        let unused = 64 - 8 * n as u32;
        let value = match (signed, n) {
            (_, 0) => 0,
            (true, _) => (value << unused) as i64 >> unused,
            (false, _) => value as i64,
        };
        self.stack.push(Item::Int(value));
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Item>) -> Step<()> {
        let Some(Item::Dict(dict)) = self.stack.last() else { return Err("items set on what is no dictionary".into()) };
        for pair in items.chunks_exact(2) {
            if let (Item::Text(name), Item::Tensor(place)) = (&pair[0], &pair[1]) {
                dict.borrow_mut().insert(name.to_string(), place.clone());
            }
        }
        Ok(())
    }
}

/// The storage a persistent id names: ("storage", type, key, location, number of elements).
fn storage(id: Item) -> Step<Storage> {
    if let Item::Tuple(parts, _) = &id
        && let [Item::Text(kind), Item::Callable(of), Item::Text(key), ..] = &**parts
        && &**kind == "storage"
    {
        let dtype = match &**of {
            "torch.FloatStorage" => DType::F32,
            "torch.HalfStorage" => DType::F16,
            "torch.BFloat16Storage" => DType::BF16,
            "torch.DoubleStorage" => DType::F64,
            "torch.LongStorage" => DType::I64,
            "torch.IntStorage" => DType::I32,
            "torch.BoolStorage" | "torch.ByteStorage" => DType::U8,
            other => return Err(format!("{other} is not supported")),
        };
        // The key becomes the name of a member of the archive, never of a file.
        return Ok(Storage { key: key.to_string(), dtype });
    }
    Err("a persistent id that is no storage".into())
}

/// The few calls a state dict is made of.
fn call(callable: Item, arguments: Item) -> Step<Item> {
    let (Item::Callable(name), Item::Tuple(arguments, _)) = (callable, arguments) else {
        return Err("a call of what cannot be called".into());
    };
    let sizes = |item: &Item| -> Option<Vec<usize>> {
        let Item::Tuple(items, _) = item else { return None };
        items.iter().map(|i| if let Item::Int(n) = i { usize::try_from(*n).ok() } else { None }).collect()
    };
    match (&*name, &*arguments) {
        ("collections.OrderedDict", []) => Ok(Item::Dict(Dict::default())),
        ("torch._utils._rebuild_tensor_v2", [Item::Storage(storage), Item::Int(offset), shape, strides, ..]) => {
            let offset = usize::try_from(*offset).map_err(|_| "a negative offset")?;
            let (shape, strides) = (sizes(shape).ok_or("a shape of no sizes")?, sizes(strides).ok_or("bad strides")?);
            if shape.len() != strides.len() || shape.len() > 8 {
                return Err("shape and strides do not match".into());
            }
            Ok(Item::Tensor(Place { storage: storage.clone(), offset, shape, strides }))
        }
        ("torch._utils._rebuild_parameter", [Item::Tensor(place), ..]) => Ok(Item::Tensor(place.clone())),
        (other, _) => Err(format!("a call of {other} is refused (expected the calls of a state dict)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pickle_that_calls_anything_else_is_refused_by_name() {
        let error = interpret(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.").unwrap_err();
        assert!(error.contains("os.system"), "{error}");
    }

    #[test]
    fn broken_pickles_are_errors_and_not_panics() {
        for bytes in [&b""[..], b"\x80", b"R.", b"(", b"X\xff\xff\xff\xff", b"h\x05.", b"}(K\x01u.", b"\x87.", b"s"] {
            assert!(interpret(bytes).is_err() || bytes == b"}(K\x01u.", "{bytes:?}");
        }
        let nested = [vec![b')'], vec![0x85; 1_000_000], vec![b'.']].concat();
        assert!(interpret(&nested).unwrap_err().contains("nested"));
    }
}
