//! Files that are either whole or not there: written beside their place, synced, then renamed.

use crate::{Error, Result};
use serde_json::Value;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Largest JSON file that is read.
const JSON_LIMIT: u64 = 1 << 28;

/// Reads a JSON file of at most 256 MiB.
///
/// # Errors
/// When it cannot be read, is larger, or is not JSON.
pub fn read_json(path: &Path) -> Result<Value> {
    let failed = |e: std::io::Error| Error::file(path, e);
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > JSON_LIMIT {
        return Err(Error::file(path, format!("{length} bytes (expected at most {JSON_LIMIT})")));
    }
    let mut text = vec![];
    file.take(JSON_LIMIT).read_to_end(&mut text).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|e| Error::file(path, format!("not JSON: {e}")))
}

/// Writes JSON with an indent of two.
///
/// # Errors
/// When the file cannot be written.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_whole(path, |out| {
        serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
        out.write_all(b"\n")
    })
}

/// Writes `path` by `fill`, making its folder where there is none; nothing is left in its place unless all of it arrived
/// on the disk.
///
/// # Errors
/// Whatever `fill` fails with, named by `path`.
pub fn write_whole(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let failed = |e: std::io::Error| unwritable(path, &e);
    std::fs::create_dir_all(folder_of(path)).map_err(failed)?;
    write_through(path, |temporary| {
        let file = File::create(temporary).map_err(failed)?;
        let mut writer = BufWriter::new(file);
        fill(&mut writer).and_then(|()| writer.flush()).map_err(failed)
    })
}

/// Lets `fill` write a temporary file in the folder of `path`, then syncs and renames it. When anything fails the
/// temporary file is removed and what `path` was before is still there. Where `path` is a link, the file it leads to is
/// replaced; a device or a pipe is written to as it is.
///
/// # Errors
/// Whatever `fill` fails with; when the file cannot be synced or renamed.
pub fn write_through(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let failed = |e: std::io::Error| unwritable(path, &e);
    let there = std::fs::metadata(path).ok();
    match &there {
        Some(there) if there.is_dir() => return Err(Error::file(path, "is a folder (expected a file)")),
        Some(there) if !there.is_file() => return fill(path),
        _ => {}
    }
    let resolved = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let folder = folder_of(&resolved);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".partial-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // as readable as the umask says
    let temporary = builder.tempfile_in(folder).map_err(failed)?;
    // `fill` may put another file at that path (safetensors does): it gets the first one's permissions, and is synced
    let permissions = match there {
        Some(there) => there.permissions(),
        None => temporary.as_file().metadata().map_err(failed)?.permissions(),
    };
    fill(temporary.path())?;
    std::fs::set_permissions(temporary.path(), permissions).map_err(failed)?;
    File::open(temporary.path()).and_then(|file| file.sync_all()).map_err(failed)?;
    temporary.persist(&resolved).map_err(|e| failed(e.error))?;
    // The rename itself is durable only once the folder is synced; not every system lets a folder be opened.
    if let Ok(folder) = File::open(folder) {
        folder.sync_all().ok();
    }
    Ok(())
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::file(path, format!("cannot be written: {error}"))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes the folder `path` by `fill`, which is given a temporary folder beside it. An earlier `path` is replaced only
/// after `fill` has succeeded and everything is on the disk.
///
/// # Errors
/// Whatever `fill` fails with, its files named as they would have been in `path`; then nothing of it is left.
pub fn write_folder<T>(path: &Path, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let failed = |e: std::io::Error| Error::file(path, e);
    let above = folder_of(path);
    std::fs::create_dir_all(above).map_err(failed)?;
    let partial = tempfile::Builder::new().prefix(".partial-").tempdir_in(above).map_err(failed)?; // removed when dropped
    let made = fill(partial.path()).map_err(|error| error.moved(partial.path(), path))?;
    for entry in std::fs::read_dir(partial.path()).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        File::open(entry.path()).and_then(|f| f.sync_all()).map_err(|e| Error::file(entry.path(), e))?;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(partial.path(), open).map_err(failed)?;
    }
    // An old folder cannot be replaced in one step: it steps aside, and goes once the new one is in its place.
    let aside = path.is_dir().then(|| tempfile::Builder::new().prefix(".replaced-").tempdir_in(above));
    let aside = aside.transpose().map_err(failed)?;
    let name = path.file_name().unwrap_or_default();
    let old: Option<PathBuf> = aside.as_ref().map(|folder| folder.path().join(name));
    if let Some(old) = &old {
        std::fs::rename(path, old).map_err(failed)?;
    }
    if let Err(error) = std::fs::rename(partial.path(), path) {
        if let Some(old) = &old {
            std::fs::rename(old, path).map_err(failed)?;
        }
        return Err(failed(error));
    }
    let _ = partial.keep(); // its name is gone: nothing to remove
    File::open(above).and_then(|f| f.sync_all()).map_err(failed)?;
    Ok(made)
}

/// Puts right what a process that was killed inside [`write_folder`] left in `above`: a folder that had stepped aside
/// and was not replaced goes back to its place, and everything unfinished is removed.
///
/// # Errors
/// When something cannot be moved or removed.
pub fn recover(above: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Error::file(above, e);
    if !above.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(above).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(".replaced-") && path.is_dir() {
            for old in std::fs::read_dir(&path).map_err(failed)? {
                let old = old.map_err(failed)?;
                if !above.join(old.file_name()).exists() {
                    std::fs::rename(old.path(), above.join(old.file_name())).map_err(failed)?;
                }
            }
        }
        if name.starts_with(".replaced-") || name.starts_with(".partial-") {
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }.map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_whole(&path, |w| w.write_all(b"old")).unwrap();
        let full = |w: &mut dyn Write| w.write_all(b"half").and(Err(std::io::Error::other("disk full")));
        assert!(write_whole(&path, full).unwrap_err().to_string().ends_with("a.json: cannot be written: disk full"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.json"]);
    }

    #[test]
    fn a_kill_between_the_two_renames_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join(".replaced-x1/model")).unwrap();
        std::fs::write(folder.path().join(".replaced-x1/model/weights"), "one").unwrap();
        std::fs::create_dir(folder.path().join(".partial-y2")).unwrap();
        recover(folder.path()).unwrap();
        assert_eq!(std::fs::read(folder.path().join("model/weights")).unwrap(), b"one");
        assert_eq!(names(folder.path()), ["model"]);
    }

    #[test]
    fn a_folder_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let put =
            |text: &'static str| move |at: &Path| write_whole(&at.join("weights"), |w| w.write_all(text.as_bytes()));
        write_folder(&path, put("one")).unwrap();
        write_folder(&path, put("two")).unwrap();
        assert_eq!(std::fs::read(path.join("weights")).unwrap(), b"two");
        let fails = |at: &Path| put("three")(at).and(Err::<(), _>(Error::file(at.join("weights"), "no")));
        let error = write_folder(&path, fails).unwrap_err().to_string();
        assert_eq!(error, format!("{}: no", path.join("weights").display()));
        assert_eq!(std::fs::read(path.join("weights")).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["model"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_a_device_a_device() {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        std::fs::write(&target, "old").unwrap();
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o600)).unwrap();
        symlink("target", &link).unwrap();
        write_whole(&link, |out| out.write_all(b"new")).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
        let null = folder.path().join("null");
        symlink("/dev/null", &null).unwrap();
        write_whole(&null, |out| out.write_all(b"gone")).unwrap();
        assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        assert!(write_whole(folder.path(), |_| Ok(())).unwrap_err().to_string().ends_with("(expected a file)"));
    }
}
