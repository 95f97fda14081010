//! `rebel score`: log-probabilities or rewards of answers that are already there.

use crate::progress::Progress;
use anyhow::Result;
use rebel_trainer::data::exchange::{Exchange, Rows, exchanges};
use rebel_trainer::models::hub;
use rebel_trainer::nn::{Place, Temperature};
use rebel_trainer::run::Event;
use rebel_trainer::scoring::{Details, Row, Scorer};
use rebel_trainer::{Error, files};
use serde_json::{Map, Value};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "\
Rows are JSON objects, one a line, with a prompt and an answer in the columns data sets have:
  prompt + completion or response      texts, or lists of messages with role and content
  messages                             the last one is the answer
  prompt + chosen + rejected           both are scored: chosen_reward, rejected_reward ...
  query + reference_response           the TL;DR set; query + chosen + rejected, its comparisons
An answer counts as finished, its end of text included, unless its row has \"stopped\" (or \"ended\"): false.
Answers are texts and are taken apart anew: tokens that were drawn in another way than their text is split count as that split.
Every row is written back with its results; a row that cannot be scored ends the work, named by file, line and column.

Examples:
  rebel score --model runs/tldr-tiny/checkpoints/reward samples.jsonl
  rebel score --model runs/tldr-tiny/checkpoints/online --temperature 0.7 --token-logprobs samples.jsonl
  rebel score --model RLHFlow/ArmoRM-Llama3-8B-v0.1 --objectives chats.jsonl --out scored.jsonl")]
pub struct Arguments {
    /// A policy (log-probabilities are written) or a reward model (rewards are): its folder, or org/name of the local cache
    #[arg(long, value_name = "DIR")]
    model: String,
    /// The rows
    #[arg(value_name = "FILE.jsonl")]
    file: PathBuf,
    /// Where the scored rows go, once all are there [default: standard output, as they come]
    #[arg(long, value_name = "OUT.jsonl")]
    out: Option<PathBuf>,
    /// Answers that go through the model together
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = batch)]
    batch: usize,
    /// The policy's distribution is the one at this temperature [default: 1]
    #[arg(long, value_name = "T", value_parser = temperature)]
    temperature: Option<Temperature>,
    /// A policy reads texts as a user's message and its answer, through its chat template
    #[arg(long)]
    chat: bool,
    /// Write the log-probability of each token too
    #[arg(long)]
    token_logprobs: bool,
    /// Write the objectives a reward is made of, and their weights, too
    #[arg(long)]
    objectives: bool,
}

/// Batches that are sorted by length together.
const WINDOW: usize = 16;

fn batch(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=4096).contains(n));
    number.ok_or_else(|| "expected a whole number from 1 to 4096".to_owned())
}

fn temperature(text: &str) -> Result<Temperature, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number above 0".to_owned())?;
    Temperature::new(number).map_err(|_| "expected a number above 0".to_owned())
}

/// Runs it; `true` when done.
pub fn run(arguments: &Arguments, place: &Place) -> Result<bool> {
    // A bad row should show before a large model is read, and not hours later.
    let rows = count(&arguments.file)?;
    let scorer = Scorer::load(&hub::folder(&arguments.model)?, arguments.temperature, place)?;
    let mut progress = Progress::new();
    progress.show(Event::Stage { name: "score", steps: rows, done: 0 });
    let outcome = match &arguments.out {
        Some(out) => files::write_through(out, |temporary| {
            let failed = |e: std::io::Error| Error::file(out, format!("cannot be written: {e}"));
            let mut file = BufWriter::new(std::fs::File::create(temporary).map_err(failed)?);
            score(arguments, &scorer, &mut progress, &mut |line| writeln!(file, "{line}").map_err(failed))?;
            file.flush().map_err(failed)
        }),
        None => score(arguments, &scorer, &mut progress, &mut |line| {
            say!("{line}");
            Ok(())
        }),
    };
    progress.finish();
    outcome?;
    Ok(true)
}

/// How many rows a file has, all of which hold an exchange.
fn count(file: &Path) -> Result<usize, Error> {
    if file.is_dir() {
        return Err(Error::file(file, "is a folder (expected a jsonl file)"));
    }
    if !std::fs::metadata(file).map_err(|e| Error::file(file, format!("cannot be read: {e}")))?.is_file() {
        return Ok(0); // a pipe can be read once
    }
    let mut rows = Rows::open(file)?;
    let mut count = 0;
    while let Some(row) = rows.next_row()? {
        answers(&rows.place(), &row)?;
        count += 1;
    }
    Ok(count)
}

/// The exchanges of a row; errors name it.
fn answers(place: &str, row: &Map<String, Value>) -> Result<Vec<(&'static str, Exchange)>, Error> {
    exchanges(row).map_err(|(column, what)| Error::field(place, column, what))
}

/// A row that waits for its results.
struct Waiting {
    place: String,
    row: Map<String, Value>,
    prefixes: Vec<&'static str>,
}

/// Scores the file, a window of rows at a time, and hands every row on as a line.
fn score(
    arguments: &Arguments,
    scorer: &Scorer,
    progress: &mut Progress,
    write: &mut dyn FnMut(String) -> Result<(), Error>,
) -> Result<(), Error> {
    let details = Details { token_logprobs: arguments.token_logprobs, objectives: arguments.objectives };
    let mut rows = Rows::open(&arguments.file)?;
    let (mut waiting, mut tokens, mut done) = (Vec::<Waiting>::new(), Vec::<Row>::new(), 0);
    loop {
        let row = rows.next_row()?;
        let ended = row.is_none();
        if let Some(row) = row {
            let place = rows.place();
            let named = |error: Error| Error::file(&place, error);
            let mut prefixes = Vec::with_capacity(2);
            for (prefix, exchange) in answers(&place, &row)? {
                tokens.push(scorer.row(&exchange, arguments.chat).map_err(named)?);
                prefixes.push(prefix);
            }
            waiting.push(Waiting { place, row, prefixes });
        }
        if ended || tokens.len() >= WINDOW * arguments.batch {
            let mut verdicts = scorer.verdicts(&tokens, arguments.batch)?.into_iter();
            for Waiting { place, mut row, prefixes } in waiting.drain(..) {
                for (prefix, verdict) in prefixes.into_iter().zip(verdicts.by_ref()) {
                    scorer.write(&verdict, prefix, details, &mut row).map_err(|error| Error::file(&place, error))?;
                }
                write(Value::Object(row).to_string())?;
                done += 1;
            }
            tokens.clear();
            progress.show(Event::Step { done, line: scorer.gives().into() });
        }
        if ended {
            return Ok(());
        }
    }
}
