//! The program `rebel`. Arguments only: what they mean is one short file a subcommand, what it does is in the crates.

/// Prints a line. Whoever reads may stop reading (`rebel verify | head`): that ends the program, and is no fault.
macro_rules! say {
    ($($text:tt)*) => { $crate::say_line(format_args!($($text)*)) };
}

/// Prints a part of a line at once, as [`say!`] prints lines.
macro_rules! say_part {
    ($($text:tt)*) => { $crate::say_text(format_args!($($text)*)) };
}

mod bench;
mod convert;
mod experiment;
mod figures;
mod generate;
mod progress;
mod reproduce;
mod score;
mod train;
mod vectors;
mod verify;

use clap::{Parser, Subcommand};
use rebel_trainer::Error;
use rebel_trainer::nn::{DType, DeviceName, Place};
use std::process::ExitCode;

// candle allocates and frees large buffers all the time; this allocator keeps them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Check, train, draw and teach REBEL (arXiv 2404.16767).
#[derive(Parser)]
#[command(
    name = "rebel",
    version,
    after_help = "\
Examples:
  rebel reproduce                           everything in small, on this machine, in minutes
  rebel verify                              check the paper's claims, each beside its negative control
  rebel verify --claim md-equivalence --json
  rebel verify --html claims.html           the same as a page, with formulas and figures
  rebel train --preset tldr-tiny --seed 2 --name second
  rebel train --preset tldr-tiny --set online.eta=0.5 --dry-run
  rebel generate --model runs/tldr-tiny/checkpoints/online --prompt 'SUBREDDIT: r/cats'
  rebel score --model runs/tldr-tiny/checkpoints/reward samples.jsonl
  rebel figures --run runs/tldr-tiny
  rebel convert EleutherAI/pythia-160m models/pythia --dtype bf16
  rebel bench --layers 12 --hidden 768 --heads 12 --vocab 50304 --threads 4

Exit codes:
  0  done, and what was asked holds
  1  a claim did not come out as the project states it, or a file was bad
  2  wrong usage"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Threads to compute with; 0 takes one per core. Results do not depend on it beyond what the README states.
    #[arg(long, global = true, default_value_t = 0, value_name = "N", value_parser = threads)]
    threads: usize,
    /// Where models run: cpu, cuda (docs/cuda.md) or cuda:N [default: what REBEL_DEVICE says, or cpu]
    #[arg(long, global = true, value_name = "NAME")]
    device: Option<DeviceName>,
    /// Instructions of the CPU that decoders compute with: avx512, avx2 or portable [default: the best there are]. Results do
    /// not depend on it
    #[arg(long, global = true, value_name = "NAME")]
    instructions: Option<String>,
    /// Type of the weights of models that are trained, sampled or asked for scores; bf16 is for GPUs
    #[arg(long, global = true, value_name = "TYPE", default_value = "f32")]
    precision: Precision,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Precision {
    F32,
    Bf16,
}

#[derive(Subcommand)]
enum Command {
    /// Verify the claims, make the tiny world, train in it, draw the figures
    Reproduce(reproduce::Arguments),
    /// Check the paper's claims numerically, with their negative controls
    Verify(verify::Arguments),
    /// Run an experiment: a preset, or its stages one by one
    Train(train::Arguments),
    /// Continue prompts with a language model
    Generate(generate::Arguments),
    /// Score answers that are already there: log-probabilities by a policy, rewards by a reward model
    Score(score::Arguments),
    /// Draw figures from finished runs, and those of the theory
    Figures(figures::Arguments),
    /// Write a model's folder anew: another type of weights, other files
    Convert(convert::Arguments),
    /// Recompute test vectors, from their inputs alone
    Vectors(vectors::Arguments),
    /// Time a step of training and of sampling on this machine
    Bench(bench::Arguments),
}

fn say_line(text: std::fmt::Arguments<'_>) {
    say_text(format_args!("{text}\n"));
}

fn say_text(text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let mut out = std::io::stdout();
    if let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        let _ = writeln!(std::io::stderr(), "rebel: standard output: {error}");
        std::process::exit(1);
    }
}

/// The error and its causes on one line; a cause that the line tells already is not told again.
fn one_line(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |line, cause| match cause.to_string() {
        cause if line.is_empty() => cause,
        cause if line.contains(&cause) => line,
        cause => format!("{line}: {cause}"),
    })
}

/// Opens the device that --device names, or else REBEL_DEVICE.
fn place(device: Option<DeviceName>, precision: Precision) -> anyhow::Result<Place> {
    let variable = std::env::var("REBEL_DEVICE").ok().filter(|name| !name.is_empty());
    let (who, name) = match (device, variable) {
        (None, Some(text)) => {
            let name = text.parse().map_err(|what| Error::Usage(format!("REBEL_DEVICE: {text:?}: {what}")))?;
            ("REBEL_DEVICE", name)
        }
        (name, _) => ("--device", name.unwrap_or(DeviceName::Cpu)),
    };
    let dtype = match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    };
    let device = name.open().map_err(|error| Error::invalid(format!("{who}: {error}")))?;
    Ok(Place { device, dtype })
}

/// A number of threads that a machine could have.
fn threads(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n <= 1024).ok_or_else(|| "expected a whole number from 0 to 1024".to_owned())
}

fn main() -> ExitCode {
    let Arguments { command, threads, device, instructions, precision } = Arguments::parse();
    let place = || place(device, precision);
    let set = rebel_trainer::nn::threads::set(threads)
        .and_then(|()| instructions.as_deref().map_or(Ok(()), rebel_trainer::nn::instructions::force));
    let outcome = set.map_err(anyhow::Error::from).and_then(|()| match command {
        Command::Reproduce(a) => reproduce::run(&a, &place()?),
        Command::Verify(a) => verify::run(&a),
        Command::Train(a) => train::run(&a, &place()?),
        Command::Generate(a) => generate::run(&a, &place()?),
        Command::Score(a) => score::run(&a, &place()?),
        Command::Figures(a) => figures::run(&a),
        Command::Convert(a) => convert::run(&a),
        Command::Vectors(a) => vectors::run(&a, &place()?),
        Command::Bench(a) => bench::run(&a, &place()?),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "rebel: {}", one_line(&error));
            let usage = matches!(error.downcast_ref(), Some(Error::Usage(_)));
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}
