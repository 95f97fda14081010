//! Files that are either whole or not there: written beside their place, synced, then renamed.

use crate::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes `path` by `fill`; nothing is left in its place unless all of it arrived on the disk.
///
/// # Errors
/// Whatever `fill` fails with, named by `path`.
pub fn write_whole(path: &Path, fill: impl FnOnce(&mut BufWriter<&File>) -> std::io::Result<()>) -> Result<()> {
    let failed = |e: std::io::Error| Error::file(path, e);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let partial = tempfile::Builder::new().prefix(".partial-").tempfile_in(folder).map_err(failed)?; // removed when dropped
    let mut writer = BufWriter::new(partial.as_file());
    fill(&mut writer).and_then(|()| writer.flush()).map_err(failed)?;
    drop(writer);
    partial.as_file().sync_all().map_err(failed)?;
    readable(partial.as_file()).map_err(failed)?;
    partial.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

/// Temporary files are private; what replaces them should be as readable as any new file.
fn readable(file: &File) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    let _ = file;
    Ok(())
}

/// Writes the folder `path` by `fill`, which is given a temporary folder beside it. An earlier `path` is replaced only
/// after `fill` has succeeded and everything is on the disk.
///
/// # Errors
/// Whatever `fill` fails with; then nothing of it is left.
pub fn write_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let failed = |e: std::io::Error| Error::file(path, e);
    let above = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(above).map_err(failed)?;
    let partial = tempfile::Builder::new().prefix(".partial-").tempdir_in(above).map_err(failed)?; // removed when dropped
    fill(partial.path())?;
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
    let old: Option<PathBuf> = aside.as_ref().map(|folder| folder.path().join("old"));
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
    File::open(above).and_then(|f| f.sync_all()).map_err(failed)
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
        let full = |w: &mut BufWriter<&File>| w.write_all(b"half").and(Err(std::io::Error::other("disk full")));
        assert!(write_whole(&path, full).unwrap_err().to_string().ends_with("a.json: disk full"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.json"]);
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
        let fails = |at: &Path| put("three")(at).and(Err(Error::invalid("no")));
        assert!(write_folder(&path, fails).is_err());
        assert_eq!(std::fs::read(path.join("weights")).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["model"]);
    }
}
