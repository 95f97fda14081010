//! Reading and writing whole files so that a failure names the file and leaves nothing half-written.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Error, Result};

/// Reads a JSON file of at most 256 MiB.
pub fn read_json(file: &Path) -> Result<Value> {
    const LIMIT: u64 = 1 << 28;
    let reader = File::open(file).map_err(|e| Error::file(file, e))?;
    let length = reader.metadata().map_err(|e| Error::file(file, e))?.len();
    if length > LIMIT {
        return Err(Error::file(file, format!("{length} bytes (expected at most {LIMIT})")));
    }
    let mut text = Vec::new();
    reader.take(LIMIT).read_to_end(&mut text).map_err(|e| Error::file(file, e))?;
    serde_json::from_slice(&text).map_err(|e| Error::file(file, format!("not JSON: {e}")))
}

/// Writes JSON with an indent of two, through [`write`].
pub fn write_json(file: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::file(file, e))?;
    text.push('\n');
    write(file, text.as_bytes())
}

/// Writes a file through a temporary one beside it: written, synced, renamed.
pub fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    write_with(file, |temporary| {
        let mut out = File::create(temporary).map_err(|e| Error::file(file, e))?;
        out.write_all(bytes).map_err(|e| Error::file(file, e))
    })
}

/// Lets `fill` write a temporary file in the folder of `file`, then syncs and renames it. When anything fails the
/// temporary file is removed and what `file` was before is still there.
pub fn write_with(file: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask
    let temporary = builder.tempfile_in(&folder).map_err(|e| Error::file(&folder, e))?;
    fill(temporary.path())?;
    temporary.as_file().sync_all().map_err(|e| Error::file(file, e))?;
    temporary.persist(file).map_err(|e| Error::file(file, e.error))?;
    // The rename itself is durable only once the folder is synced; not every system lets a folder be opened.
    if let Ok(folder) = File::open(folder) {
        folder.sync_all().ok();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.json");
        write(&file, b"old").unwrap();
        let failed = write_with(&file, |temporary| {
            std::fs::write(temporary, b"half").unwrap();
            Err(Error::file(&file, "no space"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
