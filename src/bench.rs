//! `rebel bench`: what a step of training and of sampling takes on this machine, for a model of any size.

use anyhow::Result;
use rebel_trainer::Error;
use rebel_trainer::bench::{Measured, Settings, Sizes, Workload, measure};
use rebel_trainer::nn::{Place, instructions};
use std::process::Command;

#[derive(clap::Args)]
#[command(after_help = "\
A GPT-NeoX with random weights and random tokens goes through what rebel train and rebel generate go through:
  sft             cross-entropy of BATCH rows of SEQ tokens, backward, AdamW
  rebel           BATCH pairs: two responses to one prompt, half of SEQ each; clipped gradient, AdamW
  rebel-unshared  the same rows with a prompt of its own each
  sample          SEQ / 2 new tokens for each of BATCH prompts, temperature 0.7
Two steps (one of sampling) go before the timed ones. Tokens are those of all rows in training, new ones in sampling. docs/speed.md says
more, and how PyTorch is measured beside it (make bench BENCH=lm).

Examples:
  rebel bench
  rebel bench --mode rebel --micro-batch 2 --threads 1
  rebel bench --layers 12 --hidden 768 --heads 12 --vocab 50304 --seq 512 --batch 4 --repeat 3
  rebel bench --json > bench.jsonl")]
pub struct Arguments {
    /// What is timed; all runs each in a process of its own, whose peak memory is then its own
    #[arg(long, value_enum, default_value = "all", overrides_with = "mode")]
    mode: Mode,
    /// Blocks of the model
    #[arg(long, default_value_t = 6, value_name = "N")]
    layers: usize,
    /// Its width
    #[arg(long, default_value_t = 256, value_name = "N")]
    hidden: usize,
    /// Its attention heads
    #[arg(long, default_value_t = 8, value_name = "N")]
    heads: usize,
    /// Its vocabulary
    #[arg(long, default_value_t = 2048, value_name = "N")]
    vocab: usize,
    /// Tokens of a row, prompt included
    #[arg(long, default_value_t = 128, value_name = "N")]
    seq: usize,
    /// Rows of sft, pairs of rebel, prompts of sample
    #[arg(long, default_value_t = 8, value_name = "N")]
    batch: usize,
    /// Rows of sft, or pairs of rebel, that go forward and backward together [default: all]
    #[arg(long, value_name = "N")]
    micro_batch: Option<usize>,
    /// Timed steps; sample takes half as many, at least 3
    #[arg(long, default_value_t = 12, value_name = "N")]
    repeat: usize,
    /// Print what --instructions can name on this machine, the best first, and measure nothing
    #[arg(long)]
    list_instructions: bool,
    /// One JSON object a workload
    #[arg(long, overrides_with = "json")]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Mode {
    /// Every workload
    All,
    /// Supervised fine-tuning
    Sft,
    /// REBEL
    Rebel,
    /// REBEL without a shared prompt
    RebelUnshared,
    /// Sampling
    Sample,
}

impl Mode {
    fn workload(self) -> Option<Workload> {
        match self {
            Self::All => None,
            Self::Sft => Some(Workload::Sft),
            Self::Rebel => Some(Workload::Rebel),
            Self::RebelUnshared => Some(Workload::RebelUnshared),
            Self::Sample => Some(Workload::Sample),
        }
    }
}

impl Arguments {
    fn settings(&self) -> Result<Settings, Error> {
        let Self { layers, hidden, heads, vocab, seq, batch, micro_batch, repeat, .. } = *self;
        for (flag, number) in [("--repeat", repeat), ("--micro-batch", micro_batch.unwrap_or(1))] {
            if !(1..=100_000).contains(&number) {
                return Err(Error::Usage(format!("{flag}: {number} (expected a whole number from 1 to 100000)")));
            }
        }
        Ok(Settings { sizes: Sizes { layers, hidden, heads, vocab, seq, batch }, micro_batch, repeat })
    }
}

/// Runs it; `true` when done.
pub fn run(arguments: &Arguments, place: &Place) -> Result<bool> {
    if arguments.list_instructions {
        instructions::available().iter().for_each(|name| say!("{name}"));
        return Ok(true);
    }
    let settings = arguments.settings()?;
    let workloads = match arguments.mode.workload() {
        Some(workload) => vec![workload],
        None => Workload::ALL.to_vec(),
    };
    workloads.iter().try_for_each(|&workload| settings.check(workload, place))?;
    let mut head = !arguments.json;
    for workload in workloads {
        let measured = match arguments.mode {
            Mode::All => in_own_process(workload)?,
            _ => measure(workload, &settings, place)?,
        };
        if std::mem::take(&mut head) {
            say_head(&measured);
        }
        match arguments.json {
            true => say!("{}", serde_json::to_string(&measured)?),
            false => say_row(&measured),
        }
    }
    Ok(true)
}

/// What this program says when it is called as it was, but for `workload` alone.
fn in_own_process(workload: Workload) -> Result<Measured> {
    let failed = |what: String| Error::invalid(format!("{}: {what}", workload.name()));
    let program = std::env::current_exe().map_err(|e| failed(format!("this program is not found: {e}")))?;
    let output = Command::new(program)
        .args(std::env::args_os().skip(1))
        .args(["--mode", workload.name(), "--json"])
        .output()
        .map_err(|e| failed(format!("cannot be started: {e}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let why = said.lines().rev().find_map(|line| line.strip_prefix("rebel: "));
        return Err(failed(why.map_or(output.status.to_string(), str::to_owned)).into());
    }
    serde_json::from_slice(&output.stdout).map_err(|e| failed(format!("its numbers cannot be read: {e}")).into())
}

fn say_head(of: &Measured) {
    let Sizes { layers, hidden, heads, vocab, seq, batch } = of.sizes;
    let millions = of.parameters as f64 / 1e6;
    say!(
        "GPT-NeoX, {millions:.2} million parameters: {layers} layers of width {hidden}, {heads} heads, vocabulary {vocab}"
    );
    let threads = if of.threads == 1 { "1 thread".into() } else { format!("{} threads", of.threads) };
    say!("rows of {seq} tokens, batch {batch}; {}, {threads}, instructions: {}", of.dtype, of.instructions);
    say!("{:14} {:>10} {:>10} {:>10} {:>10} {:>10}", "", "step, ms", "best, ms", "tokens/s", "CPU s/step", "peak, MiB");
}

fn say_row(of: &Measured) {
    let or_dash = |number: Option<f64>, digits: usize| number.map_or("-".into(), |n| format!("{n:.digits$}"));
    say!(
        "{:14} {:10.1} {:10.1} {:10.0} {:>10} {:>10}",
        of.mode.name(),
        1e3 * of.step_s,
        1e3 * of.step_s_min,
        of.tokens_per_s,
        or_dash(of.step_cpu_s_min, 3),
        or_dash(of.peak_rss_mb, 0)
    );
}
