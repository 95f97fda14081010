//! `rebel figures`: draw from files of results; nothing is trained here.

use crate::experiment;
use anyhow::Result;
use rebel_figures::Written;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    /// A run's folder; several are seeds of one experiment
    #[arg(long = "run", value_name = "DIR")]
    pub runs: Vec<PathBuf>,
    /// Where SVG and PNG go
    #[arg(long, default_value = "figures/out", value_name = "DIR")]
    pub out: PathBuf,
    /// Compute this figure's numbers anew and write them to figures/data (run in a checkout)
    #[arg(long, value_name = "NAME", conflicts_with = "runs")]
    pub make: Option<String>,
    /// List the figures and draw none
    #[arg(long)]
    pub list: bool,
}

/// Draws; `true` when done.
pub fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        for figure in rebel_figures::names() {
            let source = match (figure.from_runs, figure.long) {
                (true, _) => "from runs",
                (false, false) => "committed numbers",
                (false, true) => "committed numbers; --make takes minutes",
            };
            say!("{:<24} {} ({source})", figure.name, figure.shows);
        }
        say!("{:<24} {} (--make)", experiment::NAME, experiment::SHOWS);
        return Ok(true);
    }
    let written = match &arguments.make {
        Some(name) if name == experiment::NAME => experiment::make(&std::env::current_dir()?, &arguments.out)?,
        Some(name) if !rebel_figures::names().iter().any(|f| f.name == name && !f.from_runs) => {
            let what = format!("--make {name}: no such figure of numbers (see rebel figures --list)");
            return Err(rebel_trainer::Error::Usage(what).into());
        }
        Some(name) => vec![rebel_figures::make(name, &std::env::current_dir()?, &arguments.out)?],
        None => draw(&arguments.runs, &arguments.out)?,
    };
    report(&written);
    Ok(true)
}

/// Every figure of the runs (if any) and of the theory.
pub fn draw(runs: &[PathBuf], out: &std::path::Path) -> Result<Vec<Written>> {
    let mut written = if runs.is_empty() { vec![] } else { rebel_figures::from_run(runs, out)? };
    written.extend(rebel_figures::from_committed(out)?);
    Ok(written)
}

/// One line a figure.
pub fn report(written: &[Written]) {
    for figure in written {
        match figure {
            Written::Drawn { name, files } => {
                let files: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
                say!("{name:<24} {}", files.join("  "));
            }
            Written::Skipped { name, reason } => say!("{name:<24} not drawn: {reason}"),
        }
    }
}
