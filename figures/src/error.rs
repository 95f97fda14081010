//! What can go wrong: every error is one line that names the file, the line and the field.

use std::path::{Path, PathBuf};

/// Why a figure could not be drawn, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of a file does not hold what it should.
    #[error("{}:{line}: {what}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// A file as a whole does not hold what it should.
    #[error("{}: {what}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// The data cannot be put on the axes that were asked for.
    #[error("figure `{figure}`: {what}")]
    Data {
        /// The figure's or panel's title.
        figure: String,
        /// What is wrong.
        what: String,
    },
    /// No figure has this name.
    #[error("no figure is called `{name}` (there are: {known})")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names there are, separated by commas.
        known: String,
    },
    /// The drawing library refused.
    #[error("figure `{figure}`: could not be rendered: {what}")]
    Render {
        /// The figure's title.
        figure: String,
        /// What the library said.
        what: String,
    },
}

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failed read or write of `path`.
    pub fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_path_buf(), source }
    }

    /// A wrong line (from 1) of `path`.
    pub fn line(path: &Path, line: usize, what: impl Into<String>) -> Self {
        Self::Line { path: path.to_path_buf(), line, what: what.into() }
    }

    /// A wrong `path`.
    pub fn content(path: &Path, what: impl Into<String>) -> Self {
        Self::Content { path: path.to_path_buf(), what: what.into() }
    }
}
