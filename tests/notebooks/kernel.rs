//! The real kernel, through the launcher and the checker, as a reader of the notebooks has it.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What is needed to run a notebook, all of it found, and a folder for the notebooks that a test writes.
pub struct Kernel {
    python: PathBuf,
    folder: PathBuf,
    written: TempDir,
}

/// How a check ended, and what the checker printed.
pub struct Check {
    pub code: i32,
    pub output: String,
}

/// A notebook for the kernel `name` with these code cells.
pub fn notebook(name: &str, cells: &[&str]) -> Value {
    let cells: Vec<_> = cells.iter().enumerate().map(|(n, source)| {
        json!({"cell_type": "code", "id": format!("c{n}"), "metadata": {}, "execution_count": null, "outputs": [], "source": source})
    }).collect();
    json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": {"name": name, "display_name": name, "language": "rust"}}, "cells": cells})
}

impl Kernel {
    /// The installed kernel; None, and a line saying what to type, where it is not installed, or where neither the
    /// standard library's sources nor its documentation are. Under `make test`, which installs it, its lack is an error.
    pub fn find(test: &str) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let kernel = Self {
            python: root.join(".venv/bin/python"),
            folder: root.join("notebooks"),
            written: tempfile::tempdir().unwrap(),
        };
        if !kernel.python_says_yes("install_kernel.py", "--check") {
            assert!(std::env::var_os("REBEL_KERNEL_REQUIRED").is_none(), "the notebooks' kernel is not installed");
            println!("skipped: {test}: the kernel is not installed, or older than the sources (type: make notebooks)");
            return None;
        }
        let sources = kernel.written.path().join("std");
        if !kernel.python_says_yes("std_sources.py", sources.to_str().unwrap()) {
            println!("skipped: {test}: no sources of the standard library (type: rustup component add rust-src)");
            return None;
        }
        Some(kernel)
    }

    fn python_says_yes(&self, script: &str, argument: &str) -> bool {
        let answer = Command::new(&self.python).arg(self.folder.join(script)).arg(argument).output();
        answer.is_ok_and(|answer| answer.status.success())
    }

    /// Writes a notebook of the test's own; returns its path.
    pub fn write(&self, name: &str, notebook: &Value) -> PathBuf {
        let path = self.written.path().join(format!("{name}.ipynb"));
        fs::write(&path, notebook.to_string()).unwrap();
        path
    }

    /// Runs the checker on one notebook, whose cells see the course's folder as theirs.
    pub fn check(&self, path: &Path, options: &[&str]) -> Check {
        let answer = Command::new(&self.python)
            .arg(self.folder.join("check_notebook.py"))
            .args(options)
            .arg("--folder")
            .args([&self.folder, path])
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).into_owned();
        Check { code: answer.status.code().unwrap_or(-1), output }
    }

    /// The kernel asks rustup where the compiler is; it must never ask it to install anything.
    pub fn assert_rustup_was_only_asked_which(&self) {
        let log = fs::read_to_string(self.folder.join(".kernel/rustup-calls.log")).unwrap();
        assert!(log.contains("rustup which rustc"), "the stub was not called: {log}");
        let other: Vec<_> = log.lines().filter(|line| !line.starts_with("rustup which ")).collect();
        assert!(other.is_empty(), "{other:?}");
    }
}
