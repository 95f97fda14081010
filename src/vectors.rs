//! `rebel vectors run`: test vectors recomputed from their inputs alone.

use anyhow::{Context, Result};
use rebel_trainer::Error;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Compute one file or case; what it expects is not read
    ///
    /// A theory file (FILE.json) is answered on standard output as {"results": [...]}, with operations that are not
    /// known listed under "skipped". With --out, CASE is the folder of a model case (language models, adapters, and
    /// the scalar reward model) and DIR receives got.safetensors and got.json.
    Run {
        /// A theory vector file, or with --out a model case
        case: PathBuf,
        /// Where a model case's results go
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// Runs it; `true` when done.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let Command::Run { case, out } = &arguments.command;
    match out {
        Some(out) => rebel_trainer::vectors::run_case(case, out)?,
        None if case.is_dir() => {
            let what = format!("{}: a folder is a model case (expected --out DIR with it)", case.display());
            return Err(Error::Usage(what).into());
        }
        None => {
            let text = std::fs::read_to_string(case).map_err(|e| Error::file(case, e))?;
            let file: serde_json::Value = serde_json::from_str(&text).map_err(|e| Error::file(case, e))?;
            let outcome = rebel_theory::vectors::run_all(&file).with_context(|| case.display().to_string())?;
            say!("{}", outcome.answers);
            for failure in &outcome.failed {
                eprintln!("rebel: {}: {failure}", case.display());
            }
            return Ok(outcome.failed.is_empty());
        }
    }
    Ok(true)
}
