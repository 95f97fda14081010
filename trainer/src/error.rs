//! One error type for the trainer. A bad file is reported in one line a person can act on:
//! `models/sft/config.json: hidden_size: 0 is not a width (expected at least 1)`.

use std::path::{Path, PathBuf};

/// What can go wrong while loading, training, sampling or saving.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, and the field or tensor in it, that cannot be used. `what` says what is wrong and, in brackets, what was expected.
    #[error("{}: {field}: {what}", file.display())]
    Field { file: PathBuf, field: String, what: String },
    /// A file that cannot be read or written as a whole.
    #[error("{}: {what}", file.display())]
    File { file: PathBuf, what: String },
    /// Settings that contradict each other, or a request that cannot be met.
    #[error("{0}")]
    Invalid(String),
    /// What was asked for on the command line is wrong in itself.
    #[error("{0}")]
    Usage(String),
    /// A computation that failed inside candle.
    #[error("{}", first_line(.0))]
    Candle(#[from] candle_core::Error),
    /// A loss that could not be computed.
    #[error("{0}")]
    Objective(#[from] rebel_theory::objective::ArithError),
}

/// candle attaches a backtrace when `RUST_BACKTRACE` is set; a person wants the first line.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}

/// The text with its control characters escaped: what a file says must not break the line, or paint the terminal.
fn visible(text: String) -> String {
    match text.contains(char::is_control) {
        true => text.chars().fold(String::new(), |mut line, c| {
            match c.is_control() {
                true => line.extend(c.escape_debug()),
                false => line.push(c),
            }
            line
        }),
        false => text,
    }
}

impl Error {
    /// A bad `field` of `file`.
    pub fn field(file: impl AsRef<Path>, field: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Field { file: file.as_ref().into(), field: visible(field.into()), what: visible(what.into()) }
    }

    /// A `file` that is bad as a whole.
    pub fn file(file: impl AsRef<Path>, what: impl ToString) -> Self {
        Self::File { file: file.as_ref().into(), what: visible(what.to_string()) }
    }

    /// The same error about a file that is called `to` where it was called `from`, or lies under it.
    pub(crate) fn moved(mut self, from: &Path, to: &Path) -> Self {
        if let Self::Field { file, .. } | Self::File { file, .. } = &mut self
            && let Ok(rest) = file.strip_prefix(from)
        {
            *file = if rest.as_os_str().is_empty() { to.into() } else { to.join(rest) };
        }
        self
    }

    /// A request that cannot be met.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid(visible(what.into()))
    }
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;
