//! One line for a panic, where the reader is looking.
//!
//! A notebook shows a cell's stderr late, under another cell or not at all, and the kernel adds a backtrace of itself.
//! The hook set here prints the message alone, to stdout. It holds for every later cell, since all share one std.

use std::panic::{self, PanicHookInfo};
use std::sync::Once;

/// Sets the notebook up: from now on a panic prints its message as one line under its own cell. Every notebook calls it
/// first; calling it again changes nothing.
pub fn start() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| panic::set_hook(Box::new(|info| println!("{}", one_line(message(info))))));
}

/// What the panic says.
fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    info.payload_as_str().unwrap_or("panic without a message")
}

/// The lines of `message`, trimmed and joined by commas.
fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn failed_assertion_becomes_one_line() {
        let message = "assertion `left == right` failed: sizes\n  left: 1\n right: 2\n";
        assert_eq!(one_line(message), "assertion `left == right` failed: sizes, left: 1, right: 2");
    }
}
