//! The zip archive of `torch.save`: where its members lie. Members are stored as they are, so only the directory is read
//! (PKWARE's APPNOTE 4.3, zip64 included); what is compressed or lies outside the file is refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::Extent;
use crate::models::json::one_line;
use crate::{Error, Result};

/// How the file of an archive that is not empty begins.
pub(super) const MAGIC: &[u8; 4] = b"PK\x03\x04";
/// Largest directory believed: some hundred thousand members.
const DIRECTORY_LIMIT: u64 = 1 << 25;
/// Bytes of an end record, and the longest comment behind it.
const END: usize = 22;
const COMMENT: u64 = 0xffff;

/// A member as the directory describes it.
#[derive(Debug, Clone, Copy)]
struct Member {
    /// Where its local header lies.
    header: u64,
    length: u64,
    stored: bool,
}

/// An opened archive.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    file: File,
    length: u64,
    members: BTreeMap<String, Member>,
}

/// A little-endian number of `N` bytes at `at`.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let taken = bytes.get(at..at.checked_add(N)?)?;
    Some(taken.iter().rev().fold(0, |value, &b| value << 8 | u64::from(b)))
}

impl Archive {
    /// Reads the directory of `file`, which is `length` bytes long.
    pub fn open(path: &Path, file: File, length: u64) -> Result<Self> {
        let mut archive = Self { path: path.into(), file, length, members: BTreeMap::new() };
        let (start, size) = archive.directory()?;
        let directory = archive.read(start, size)?;
        archive.members = members(&directory).map_err(|what| Error::file(path, what))?;
        Ok(archive)
    }

    /// Names of the members.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// Where the bytes of a member lie.
    pub fn extent(&mut self, name: &str) -> Result<Extent> {
        let bad = |path: &Path, what: String| Error::field(path, one_line(name), what);
        let member = self.members.get(name).copied();
        let member = member.ok_or_else(|| bad(&self.path, "no such member of the archive".into()))?;
        if !member.stored {
            return Err(bad(&self.path, "it is compressed (expected what torch.save writes)".into()));
        }
        let local = self.read(member.header, 30)?;
        let skipped = number::<2>(&local, 26).zip(number::<2>(&local, 28)).filter(|_| local.starts_with(MAGIC));
        let (name_length, extra) =
            skipped.ok_or_else(|| bad(&self.path, "its header is not where it should be".into()))?;
        let start = member.header + 30 + name_length + extra;
        if start > self.length || member.length > self.length - start {
            return Err(bad(&self.path, format!("{} bytes in a file of {} (truncated?)", member.length, self.length)));
        }
        Ok(Extent { start, length: member.length })
    }

    /// The bytes of a member of at most `limit`.
    pub fn bytes(&mut self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let extent = self.extent(name)?;
        if extent.length > limit {
            let what = format!("{} bytes (expected at most {limit})", extent.length);
            return Err(Error::field(&self.path, one_line(name), what));
        }
        self.read(extent.start, extent.length)
    }

    /// Start and size of the directory, by the record at the end of the file.
    fn directory(&mut self) -> Result<(u64, u64)> {
        let tail_start = self.length.saturating_sub(END as u64 + COMMENT);
        let tail = self.read(tail_start, self.length - tail_start)?;
        let ends = (0..(tail.len() + 1).saturating_sub(END)).rev();
        let mut ends = ends.filter(|&at| tail[at..].starts_with(b"PK\x05\x06"));
        let at = ends.next().ok_or_else(|| Error::file(&self.path, "not a whole zip archive (truncated?)"))?;
        let (size, start) = (number::<4>(&tail, at + 12).unwrap_or(0), number::<4>(&tail, at + 16).unwrap_or(0));
        let (size, start) = match size == 0xffff_ffff || start == 0xffff_ffff {
            true => self.directory64(tail_start + at as u64)?,
            false => (size, start),
        };
        if start > self.length || size > self.length - start || size > DIRECTORY_LIMIT {
            let what = format!("a directory of {size} bytes at {start} in a file of {} (truncated?)", self.length);
            return Err(Error::file(&self.path, what));
        }
        Ok((start, size))
    }

    /// Size and start of the directory by the zip64 record, whose place is told just before the `end` record.
    fn directory64(&mut self, end: u64) -> Result<(u64, u64)> {
        let missing = Error::file(&self.path, "its zip64 record is missing (truncated?)");
        let locator = self.read(end.saturating_sub(20), 20)?;
        let Some(at) = number::<8>(&locator, 8).filter(|_| locator.starts_with(b"PK\x06\x07")) else {
            return Err(missing);
        };
        let record = self.read(at, 56)?;
        let found = number::<8>(&record, 40).zip(number::<8>(&record, 48));
        found.filter(|_| record.starts_with(b"PK\x06\x06")).ok_or(missing)
    }

    /// `count` bytes at `start`, both inside the file.
    fn read(&mut self, start: u64, count: u64) -> Result<Vec<u8>> {
        let failed = |path: &Path, e: std::io::Error| Error::file(path, e);
        if start.checked_add(count).is_none_or(|end| end > self.length) {
            return Err(Error::file(
                &self.path,
                format!("bytes {start} to {start}+{count} of {} (truncated?)", self.length),
            ));
        }
        self.file.seek(SeekFrom::Start(start)).map_err(|e| failed(&self.path, e))?;
        let mut bytes = vec![0; count as usize];
        self.file.read_exact(&mut bytes).map_err(|e| failed(&self.path, e))?;
        Ok(bytes)
    }
}

/// The members a directory lists.
fn members(directory: &[u8]) -> std::result::Result<BTreeMap<String, Member>, String> {
    let mut members = BTreeMap::new();
    let mut at = 0;
    let cut = "its directory is cut short";
    while at < directory.len() {
        if !directory[at..].starts_with(b"PK\x01\x02") {
            return Err("its directory is damaged".into());
        }
        let field = |n: usize| number::<2>(directory, at + n).map(|n| n as usize).ok_or(cut);
        let long = |n: usize| number::<4>(directory, at + n).ok_or(cut);
        let (method, name, extra, comment) = (field(10)?, field(28)?, field(30)?, field(32)?);
        let (packed, length, header) = (long(20)?, long(24)?, long(42)?);
        let name_at = at + 46;
        let text = directory.get(name_at..name_at + name).ok_or(cut)?;
        let extra_at = name_at + name;
        let extras = directory.get(extra_at..extra_at + extra).ok_or(cut)?;
        let [length, packed, header] = widened(extras, [length, packed, header])?;
        let text = std::str::from_utf8(text).map_err(|_| "its directory has a name that is not UTF-8")?;
        let member = Member { header, length, stored: method == 0 && packed == length };
        if members.insert(text.to_string(), member).is_some() {
            return Err(format!("its directory has {} twice", one_line(text)));
        }
        at = extra_at + extra + comment;
    }
    Ok(members)
}

/// Length, packed length and place of a member, those of them that do not fit 32 bits taken from the zip64 field, in its
/// order.
fn widened(mut extras: &[u8], mut values: [u64; 3]) -> std::result::Result<[u64; 3], String> {
    while let (Some(kind), Some(size)) = (number::<2>(extras, 0), number::<2>(extras, 2)) {
        let end = 4 + size as usize;
        if kind == 1 {
            let field = extras.get(4..end).ok_or("its directory has a zip64 field that is cut short")?;
            let wide = values.iter_mut().filter(|value| **value == 0xffff_ffff);
            for (i, value) in wide.enumerate() {
                *value = number::<8>(field, 8 * i).ok_or("its directory has a zip64 field that is cut short")?;
            }
            break;
        }
        extras = extras.get(end..).unwrap_or_default();
    }
    Ok(values)
}
