//! Names of the Hub looked up in the local Hugging Face cache; nothing is ever fetched.
//!
//! The cache is a folder `models--ORG--NAME` a repository: `refs/REVISION` holds the commit a branch or tag stands for,
//! `snapshots/COMMIT` the files (most of them links into `blobs`, which are followed).

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::{Error, Result};

/// Longest name of a repository on the Hub, organisation included.
const LONGEST_NAME: usize = 96;
/// The file of a ref holds a commit and nothing else.
const LONGEST_REF: u64 = 256;

/// The folder that `name` means: a path that exists, or else `org/name` or `org/name@revision` in the local cache
/// (`HF_HUB_CACHE`, `HF_HOME/hub`, `XDG_CACHE_HOME/huggingface/hub` or `~/.cache/huggingface/hub`, the first that is set).
/// Without a revision, the branch `main`.
///
/// # Errors
/// In one line, saying what was looked for and where, and how it gets there.
pub fn folder(name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.is_dir() {
        return Ok(path.into());
    }
    if path.exists() {
        return Err(Error::file(path, "not a folder (expected a model's folder)"));
    }
    match Wanted::parse(name)? {
        Some(wanted) => wanted.find(cache(|variable| std::env::var_os(variable)).as_deref()),
        None => Err(Error::file(path, "no such folder (expected a model's folder, or org/name of the local cache)")),
    }
}

/// The cache's folder by the variables that huggingface_hub reads, in its order; none where there is no home.
fn cache(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let home = set("HOME").or_else(|| set("USERPROFILE")).map(PathBuf::from);
    let expanded = |value: OsString| match (PathBuf::from(&value).strip_prefix("~"), &home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(value),
    };
    set("HF_HUB_CACHE")
        .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
        .map(expanded)
        .or_else(|| set("HF_HOME").map(|home| expanded(home).join("hub")))
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| expanded(cache).join("huggingface/hub")))
        .or_else(|| home.as_ref().map(|home| home.join(".cache/huggingface/hub")))
}

/// A repository and a revision of it.
#[derive(Debug, PartialEq)]
struct Wanted<'a> {
    repository: &'a str,
    revision: &'a str,
}

impl<'a> Wanted<'a> {
    /// What `name` asks for; none where it can only be a path.
    ///
    /// # Errors
    /// When it has the shape of a name but would leave the cache, or is none the Hub allows.
    fn parse(name: &'a str) -> Result<Option<Self>> {
        let (repository, revision) = name.split_once('@').unwrap_or((name, "main"));
        let parts: Vec<&str> = repository.split('/').collect();
        let as_path = |part: &&str| part.is_empty() || matches!(*part, "." | ".." | "~");
        if parts.len() > 2 || parts.iter().any(as_path) {
            return Ok(None);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        let edge = |part: &str| part.starts_with(['-', '.']) || part.ends_with(['-', '.']);
        let doubled = repository.contains("--") || repository.contains("..");
        if !repository.chars().all(allowed)
            || doubled
            || parts.iter().any(|part| edge(part))
            || repository.len() > LONGEST_NAME
        {
            return Err(Error::file(name, "no such folder, and no name of a model (expected org/name)"));
        }
        // A revision may be a path of its own (refs/pr/1), but only downwards.
        let inside = |component| matches!(component, Component::Normal(_));
        if revision.is_empty() || !revision.chars().all(allowed) || !Path::new(revision).components().all(inside) {
            return Err(Error::file(name, "its revision is no branch, tag or commit (expected org/name@revision)"));
        }
        Ok(Some(Self { repository, revision }))
    }

    /// The snapshot in `cache`.
    fn find(&self, cache: Option<&Path>) -> Result<PathBuf> {
        let Self { repository, revision } = *self;
        let get = match revision {
            "main" => format!("huggingface-cli download {repository}"),
            _ => format!("huggingface-cli download {repository} --revision {revision}"),
        };
        let cache = cache
            .ok_or_else(|| Error::file(repository, "no such folder, and no home to hold a cache (set HF_HOME)"))?;
        let missing = |what: String| Error::file(repository, format!("{what} (to get it: {get})"));
        let home = cache.join(format!("models--{}", repository.replace('/', "--")));
        if !home.is_dir() {
            let what = format!("no such folder, and it is not in the Hugging Face cache {}", cache.display());
            return Err(missing(what));
        }
        let commit = match commit(&home.join("refs").join(revision))? {
            Some(commit) => commit,
            None => revision.to_string(), // as one may name a commit itself
        };
        let snapshot = home.join("snapshots").join(&commit);
        match snapshot.is_dir() {
            true => Ok(snapshot),
            false => Err(missing(format!("revision {revision} is not in the Hugging Face cache {}", home.display()))),
        }
    }
}

/// The commit in the file of a ref, none where there is no such file.
fn commit(file: &Path) -> Result<Option<String>> {
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= LONGEST_REF => {}
        Ok(metadata) if metadata.is_dir() => return Ok(None),
        Ok(_) => return Err(Error::file(file, "not the file of a ref (expected a commit)")),
        Err(_) => return Ok(None),
    }
    let bytes = std::fs::read(file).map_err(|e| Error::file(file, e))?;
    let commit = String::from_utf8_lossy(&bytes).trim().to_string();
    match !commit.is_empty() && commit.chars().all(|c| c.is_ascii_alphanumeric()) {
        true => Ok(Some(commit)),
        false => Err(Error::file(file, "holds no commit (expected hexadecimal digits)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache with one snapshot of `org/name` whose branch `main` points at it.
    fn cached() -> tempfile::TempDir {
        let cache = tempfile::tempdir().unwrap();
        let home = cache.path().join("models--org--name");
        std::fs::create_dir_all(home.join("refs/refs/pr")).unwrap();
        std::fs::create_dir_all(home.join("snapshots/abc123")).unwrap();
        std::fs::create_dir_all(home.join("blobs")).unwrap();
        std::fs::write(home.join("refs/main"), "abc123\n").unwrap();
        std::fs::write(home.join("refs/refs/pr/1"), "abc123").unwrap();
        std::fs::write(home.join("refs/gone"), "ffff").unwrap();
        std::fs::write(home.join("refs/outside"), "../../../x").unwrap();
        std::fs::write(home.join("blobs/0f"), "{}").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("../../blobs/0f", home.join("snapshots/abc123/config.json")).unwrap();
        cache
    }

    fn find(name: &str, cache: &Path) -> Result<PathBuf> {
        Wanted::parse(name).unwrap().unwrap().find(Some(cache))
    }

    #[test]
    fn a_name_is_found_by_branch_pull_request_and_commit() {
        let cache = cached();
        for name in ["org/name", "org/name@main", "org/name@refs/pr/1", "org/name@abc123"] {
            let folder = find(name, cache.path()).unwrap();
            assert_eq!(folder, cache.path().join("models--org--name/snapshots/abc123"));
            assert!(cfg!(not(unix)) || std::fs::read(folder.join("config.json")).unwrap() == b"{}");
        }
    }

    #[test]
    fn what_is_not_there_is_said_with_where_it_was_looked_for_and_how_to_get_it() {
        let cache = cached();
        let error = |name: &str| find(name, cache.path()).unwrap_err().to_string();
        let at = cache.path().display();
        assert_eq!(
            error("org/other"),
            format!(
                "org/other: no such folder, and it is not in the Hugging Face cache {at} \
                 (to get it: huggingface-cli download org/other)"
            )
        );
        let gone = error("org/name@gone");
        assert!(gone.contains("revision gone is not in") && gone.contains("org/name --revision gone"), "{gone}");
        assert!(error("org/name@outside").contains("refs/outside: holds no commit"));
        assert!(error("org/name@refs").contains("revision refs is not in"));
    }

    #[test]
    fn no_name_leaves_the_cache() {
        for path in ["../x", "/etc", "a/b/c", "./a", "~/a", "org/..", "", "a//b"] {
            assert_eq!(Wanted::parse(path).unwrap(), None, "{path:?}");
            assert!(folder(path).is_err() || Path::new(path).is_dir());
        }
        for name in ["org/na--me", "-org/x", "org/x.", "o g/x", "org/x@../../y", "org/x@/etc", "org/x@", "org\n/x"] {
            let error = Wanted::parse(name).unwrap_err().to_string();
            assert!(error.contains("expected org/name"), "{error}");
        }
        assert!(Wanted::parse(&"x".repeat(97)).is_err());
    }

    #[test]
    fn a_path_that_exists_wins_and_a_file_is_no_folder() {
        let here = tempfile::tempdir().unwrap();
        assert_eq!(folder(&here.path().to_string_lossy()).unwrap(), here.path());
        let file = here.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(folder(&file.to_string_lossy()).unwrap_err().to_string().contains("not a folder"));
    }

    #[test]
    fn the_cache_is_where_the_first_variable_that_is_set_says() {
        let with = |set: &[(&str, &str)]| {
            cache(|name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)))
                .map(|path| path.to_string_lossy().into_owned())
        };
        let home = ("HOME", "/h");
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[home, ("HF_HOME", "")]).unwrap(), "/h/.cache/huggingface/hub");
        assert_eq!(with(&[home, ("XDG_CACHE_HOME", "/x")]).unwrap(), "/x/huggingface/hub");
        assert_eq!(with(&[home, ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")]).unwrap(), "/h/hf/hub");
        assert_eq!(with(&[home, ("HF_HUB_CACHE", "/c"), ("HF_HOME", "/y")]).unwrap(), "/c");
    }
}
