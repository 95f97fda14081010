//! Writing a file so that it is there whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::{Error, Result};

/// Writes `path` through `fill`: into a temporary file of the same folder, synced, then renamed. On an error (a full
/// disk, an unwritable folder, `fill`'s own) the temporary file is gone and what was at `path` before is still there.
///
/// # Errors
/// One line that names `path` and what the system said.
pub fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    write_inner(path, fill).map_err(|error| Error::file(path, format!("cannot be written: {error}")))
}

fn write_inner(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".partial");
    #[cfg(unix)]
    {
        // A temporary file is private by default; the finished one is as readable as the user's umask says.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    let mut buffered = BufWriter::new(file.as_file_mut());
    fill(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Makes the rename itself durable, where a folder can be synced.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn written_file_is_whole_and_alone_in_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/rows.jsonl");
        write(&path, |out| out.write_all(b"one\n")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\n");
        assert_eq!(names(path.parent().unwrap()), ["rows.jsonl"]);
    }

    #[test]
    fn failed_write_keeps_the_old_file_and_leaves_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        write(&path, |out| out.write_all(b"old")).unwrap();
        let error = write(&path, |out| {
            out.write_all(&[b'x'; 100_000])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        })
        .unwrap_err()
        .to_string();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["rows.jsonl"]);
        assert!(error.contains("rows.jsonl: cannot be written") && !error.contains('\n'), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn unwritable_folder_is_one_line_that_names_the_file() {
        let error = write(Path::new("/proc/rows.jsonl"), |out| out.write_all(b"x")).unwrap_err().to_string();
        assert!(error.starts_with("/proc/rows.jsonl: cannot be written") && !error.contains('\n'), "{error}");
    }
}
