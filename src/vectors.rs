//! `rebel vectors run`: test vectors recomputed from their inputs alone.

use anyhow::{Context, Result};
use rebel_trainer::nn::Place;
use rebel_trainer::{Error, vectors};
use std::path::{Path, PathBuf};
use std::time::Instant;

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
    /// known listed under "skipped". With --out, CASE is the folder of a model case (language models, adapters and
    /// reward models) and DIR receives got.safetensors and got.json.
    Run {
        /// A theory vector file, or with --out a model case
        case: PathBuf,
        /// Where a model case's results go
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Compute every model case of a set, a line each, and go on after one that fails
    ///
    /// The results of ROOT/lm/NAME go to DIR/lm/NAME, where the set's judge looks for them. With --device cuda this is the
    /// check of a GPU: it needs the program and the set, nothing else.
    RunAll {
        /// The folder of the set: what holds lm/, tok/ ...
        root: PathBuf,
        /// Where the results go
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Runs it; `true` when done.
pub fn run(arguments: &Arguments, place: &Place) -> Result<bool> {
    let (case, out) = match &arguments.command {
        Command::Run { case, out } => (case, out),
        Command::RunAll { root, out } => return run_all(root, out, place),
    };
    match out {
        Some(out) => vectors::run_case(case, out, &place.device)?,
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

/// Every case of the set at `root`; `true` when none failed.
fn run_all(root: &Path, out: &Path, place: &Place) -> Result<bool> {
    let cases = vectors::cases(root)?;
    let mut failed = 0;
    for case in &cases {
        let began = Instant::now();
        let outcome = vectors::run_case(&root.join(case), &out.join(case), &place.device);
        let outcome = match outcome {
            Ok(()) => format!("{:.1} s", began.elapsed().as_secs_f64()),
            Err(error) => {
                failed += 1;
                format!("failed: {error}")
            }
        };
        say!("{:<28} {outcome}", case.display());
    }
    say!("{} of {} cases computed", cases.len() - failed, cases.len());
    Ok(failed == 0)
}
