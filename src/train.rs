//! `rebel train`: one experiment, or some of its stages.

use crate::progress::Progress;
use anyhow::Result;
use rebel_trainer::Error;
use rebel_trainer::nn::Place;
use rebel_trainer::run::config::Config;
use rebel_trainer::run::{Mode, Run, Stage};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Arguments {
    /// The experiment
    #[arg(long, default_value = "tldr-tiny")]
    pub preset: String,
    /// A TOML file laid over the preset
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Change one setting; can be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// The method of the online stage (the same as --set online.algorithm=...)
    #[arg(long, value_name = "NAME")]
    pub algorithm: Option<String>,
    /// What every random stream starts from (the same as --set seed=...)
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: Option<u64>,
    /// Run only this stage, on what the earlier ones left in the run's folder
    #[arg(long, value_enum)]
    pub stage: Option<StageName>,
    /// Folder of runs
    #[arg(long, default_value = "runs")]
    pub runs: PathBuf,
    /// Name of the run [default: the preset's]
    #[arg(long)]
    pub name: Option<String>,
    /// Go on where an interrupted run of this name stopped
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Throw away an earlier run of this name
    #[arg(long)]
    pub overwrite: bool,
    /// Print the resolved settings, and run nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum StageName {
    /// Make the data and the tokenizer
    World,
    /// Train the base model
    Pretrain,
    /// Fine-tune it on human references
    Sft,
    /// Train the reward model on human choices
    Reward,
    /// Train the policy on its own samples
    Online,
}

impl From<StageName> for Stage {
    fn from(name: StageName) -> Self {
        match name {
            StageName::World => Stage::World,
            StageName::Pretrain => Stage::Pretrain,
            StageName::Sft => Stage::Sft,
            StageName::Reward => Stage::Reward,
            StageName::Online => Stage::Online,
        }
    }
}

/// Runs it; `true` when done.
pub fn run(arguments: &Arguments, place: &Place) -> Result<bool> {
    let mut sets = arguments.sets.clone();
    sets.extend(arguments.algorithm.iter().map(|name| format!("online.algorithm=\"{name}\"")));
    sets.extend(arguments.seed.iter().map(|seed| format!("seed={seed}")));
    let config = Config::resolve(&arguments.preset, arguments.config.as_deref(), &sets)?;
    if arguments.dry_run {
        say!("{}", config.to_toml().trim_end());
        return Ok(true);
    }
    let name = arguments.name.as_deref().unwrap_or(&arguments.preset);
    if Path::new(name).file_name() != Some(name.as_ref()) {
        return Err(
            Error::Usage(format!("--name {name:?}: not a name (expected one for a folder within --runs)")).into()
        );
    }
    let begins = arguments.stage.is_none_or(|stage| Stage::from(stage) == Stage::World);
    if arguments.overwrite && !begins {
        let what = "--overwrite: throws away what --stage goes on from (expected it alone, or with --stage world)";
        return Err(Error::Usage(what.into()).into());
    }
    let folder = arguments.runs.join(name);
    let mode = match (arguments.resume, arguments.overwrite) {
        (true, _) => Mode::Resume,
        (_, true) => Mode::Overwrite,
        _ if !begins => Mode::Resume,
        _ => Mode::New,
    };
    train(&folder, config, mode, arguments.stage.map(Stage::from), place)?;
    say!("run: {}", folder.display());
    Ok(true)
}

/// Trains into `folder`, with models in `place`, showing progress.
pub fn train(folder: &Path, config: Config, mode: Mode, only: Option<Stage>, place: &Place) -> Result<()> {
    let mut progress = Progress::new();
    let outcome = Run::open(folder, config, mode, place).and_then(|mut run| {
        run.stages(only.map_or(Stage::ALL.to_vec(), |stage| vec![stage]), &mut |e| progress.show(e))
    });
    progress.finish();
    Ok(outcome?)
}
