//! `rebel reproduce`: the main job on the embedded default. It writes to `runs/` and `figures/out/`, never to committed
//! files.

use crate::{figures, train, verify};
use anyhow::Result;
use rebel_trainer::nn::Place;
use rebel_trainer::run::Mode;
use rebel_trainer::run::config::Config;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PRESET: &str = "tldr-tiny";

#[derive(clap::Args)]
pub struct Arguments {
    /// What every random stream starts from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder of runs; a tldr-tiny of the same settings in it is taken as it is, or finished
    #[arg(long, default_value = "runs")]
    runs: PathBuf,
    /// Where figures go
    #[arg(long, default_value = "figures/out")]
    out: PathBuf,
    /// Train again, even where the same run is there already
    #[arg(long)]
    overwrite: bool,
}

/// Runs everything; `true` when every claim came out as stated.
pub fn run(arguments: &Arguments, place: &Place) -> Result<bool> {
    let began = Instant::now();
    say!("== claims");
    let claims = verify::Arguments {
        claims: vec![],
        seed: 0,
        instances: 1000,
        thorough: false,
        brief: true,
        json: false,
        html: Some(arguments.out.join("claims.html")),
        list: false,
    };
    let verified = verify::run(&claims)?;
    let claims_took = began.elapsed();

    say!("== the tiny TL;DR experiment, one seed");
    let folder = arguments.runs.join(PRESET);
    let config = Config::resolve(PRESET, None, &[format!("seed={}", arguments.seed)])?;
    let trained = Instant::now();
    let begun = folder.join("config.toml").is_file();
    let mode = match (arguments.overwrite, begun) {
        (true, _) => Mode::Overwrite,
        (false, true) => Mode::Resume,
        (false, false) => Mode::New,
    };
    if mode == Mode::Resume {
        say!("{} is there already (--overwrite trains it again)", folder.display());
    }
    train::train(&folder, config, mode, None, place)?;
    let training_took = trained.elapsed();

    say!("== figures");
    let drawn = Instant::now();
    let written = figures::draw(std::slice::from_ref(&folder), &arguments.out)?;
    figures::report(&written);

    say!("\n== summary (seed {}; one seed shows that it runs, not how well)", arguments.seed);
    table(&folder)?;
    let seconds = |d: Duration| format!("{:.0} s", d.as_secs_f64());
    say!("");
    say!("  claims      {:<8} {}", seconds(claims_took), if verified { "all as stated" } else { "NOT all as stated" });
    say!("  training    {:<8} {}", seconds(training_took), folder.display());
    say!("  figures     {:<8} {}", seconds(drawn.elapsed()), arguments.out.display());
    say!("  in all      {}", seconds(began.elapsed()));
    Ok(verified)
}

/// Who scores what on held-out prompts.
fn table(folder: &Path) -> Result<()> {
    let all: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("eval.json"))?)?;
    say!("  {:<18} {:>14} {:>16} {:>10} {:>8}", "", "gold reward", "learned reward", "KL, nats", "tokens");
    for (who, label) in [("sft", "SFT"), ("policy", "REBEL"), ("reference", "human references")] {
        let cell = |key: &str, error: bool| match (all[who][key].as_f64(), all[who][format!("{key}/stderr")].as_f64()) {
            (Some(mean), Some(stderr)) if error => format!("{mean:.3} ± {:.3}", 1.96 * stderr),
            (Some(mean), _) => format!("{mean:.1}"),
            _ => "-".into(),
        };
        say!(
            "  {label:<18} {:>14} {:>16} {:>10} {:>8}",
            cell("gold", true),
            cell("scores", true),
            cell("kl", false),
            cell("length", false)
        );
    }
    if let Some(closed) = all["gap_closed"].as_f64() {
        say!("  REBEL closed {:.0}% of the gold-reward gap between SFT and the human references", 100.0 * closed);
    }
    Ok(())
}
