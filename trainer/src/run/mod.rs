//! Experiments: a configuration, stages with files between them, and what a run leaves behind.
//!
//! ```text
//! runs/NAME/
//!   config.toml            every setting, resolved
//!   data/                  the world: posts, references, comparisons, tokenizer
//!   metrics.jsonl          one JSON object an update or iteration
//!   samples.jsonl          prompts and responses with their rewards
//!   checkpoints/STAGE/     a Hugging Face (or PEFT) folder with its card; optimizer.safetensors and state.json beside the
//!                          weights
//!   merged/                on request: the trained adapter worked into the model's weights
//! ```
//!
//! A stage is finished when its checkpoint says so. Interrupted, the online stage goes on from its last checkpoint, and a
//! supervised one, which is short, starts again; either way the run ends with the bytes of an uninterrupted one.

mod card;
pub mod checkpoint;
pub mod config;
pub mod metrics;
mod online;
mod supervised;
mod world;

use crate::nn::{Place, Streams};
use crate::{Error, Result, files};
use checkpoint::State;
use config::Config;
use metrics::JsonLines;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Folder of the final policy with its adapter worked into the weights.
const MERGED: &str = "merged";

/// The steps of an experiment, in order. Each reads what the earlier ones wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Makes the data and the tokenizer.
    World,
    /// Next-token prediction on the corpus.
    Pretrain,
    /// Supervised fine-tuning on human references.
    Sft,
    /// The Bradley-Terry reward model.
    Reward,
    /// REBEL, or another online method.
    Online,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Stage; 5] = [Stage::World, Stage::Pretrain, Stage::Sft, Stage::Reward, Stage::Online];

    /// The stage's name in metrics, folders and progress.
    pub fn name(self) -> &'static str {
        match self {
            Stage::World => "world",
            Stage::Pretrain => "pretrain",
            Stage::Sft => "sft",
            Stage::Reward => "reward",
            Stage::Online => "online",
        }
    }
}

/// What a run tells whoever watches it.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A stage begins; it has this many steps, of which so many were done before.
    Stage { name: &'static str, steps: usize, done: usize },
    /// So many of its steps are done; `line` says how it goes.
    Step { done: usize, line: String },
    /// Something worth a line.
    Note(String),
}

/// Whoever watches a run.
pub type Watch<'a> = dyn FnMut(Event) + 'a;

/// What to do about an earlier run of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Refuse.
    New,
    /// Go on with it; its configuration must be the same.
    Resume,
    /// Remove it.
    Overwrite,
}

/// An open run.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    config: Config,
    place: Place,
    metrics: JsonLines,
    samples: JsonLines,
    streams: Streams,
    /// Held as long as the run is open: two processes must not write to one run.
    _lock: File,
}

impl Run {
    /// Opens `folder` for `config`; models will live in `place`, which is no part of a run's settings.
    ///
    /// # Errors
    /// When the folder holds a run and `mode` is [`Mode::New`], is to be resumed and was made with other settings, or is
    /// something else than a run.
    pub fn open(folder: &Path, config: Config, mode: Mode, place: &Place) -> Result<Self> {
        let settings = folder.join("config.toml");
        if folder.exists() && mode != Mode::Resume {
            let empty = std::fs::read_dir(folder).map_err(|e| Error::file(folder, e))?.next().is_none();
            match mode {
                _ if empty => {}
                Mode::Overwrite => {
                    let what = "not a run (expected one's config.toml in it)";
                    Config::load(&settings).map_err(|_| Error::file(folder, what))?;
                    let held = lock(folder)?;
                    remove_run(folder)?;
                    drop(held);
                }
                _ => {
                    let what = "exists already (expected a new --name, or --resume, or --overwrite)";
                    return Err(Error::file(folder, what));
                }
            }
        }
        if mode == Mode::Resume && !settings.is_file() {
            return Err(Error::file(folder, "no run to go on with (expected its config.toml)"));
        }
        if mode == Mode::Resume {
            let before = Config::load(&settings)?;
            if before.to_toml() != config.to_toml() {
                let what = "made with other settings (expected the same preset, --config, --set and --seed as before)";
                return Err(Error::file(settings, what));
            }
        } else {
            files::write_whole(&settings, |w| w.write_all(config.to_toml().as_bytes()))?;
        }
        let lock = lock(folder)?;
        for part in ["", "checkpoints", "data", "data/references", "data/comparisons", "data/preferences"] {
            files::recover(&folder.join(part))?;
        }
        let at = Self::last_state(folder)?;
        let (metrics, samples) = (folder.join("metrics.jsonl"), folder.join("samples.jsonl"));
        Ok(Self {
            metrics: JsonLines::open(&metrics, at.as_ref().map_or(0, |s| s.metrics_bytes))?,
            samples: JsonLines::open(&samples, at.as_ref().map_or(0, |s| s.samples_bytes))?,
            streams: Streams::new(config.seed),
            folder: folder.into(),
            config,
            place: place.clone(),
            _lock: lock,
        })
    }

    /// The state of the last stage that has a checkpoint.
    fn last_state(folder: &Path) -> Result<Option<State>> {
        for stage in Stage::ALL.iter().rev() {
            let at = folder.join("checkpoints").join(stage.name());
            if at.is_dir() {
                return checkpoint::load_state(&at).map(Some);
            }
        }
        Ok(None)
    }

    /// Runs `stages` in order; those whose checkpoint says they are finished are passed over.
    ///
    /// # Errors
    /// When an earlier stage's files are missing or bad, or training fails.
    pub fn stages(&mut self, stages: Vec<Stage>, watch: &mut Watch<'_>) -> Result<()> {
        for stage in stages {
            if self.finished(stage)? {
                watch(Event::Stage { name: stage.name(), steps: 0, done: 0 });
                watch(Event::Note("finished already".into()));
                continue;
            }
            match stage {
                Stage::World => self.make_world(watch)?,
                Stage::Pretrain => self.pretrain(watch)?,
                Stage::Sft => self.sft(watch)?,
                Stage::Reward => self.reward(watch)?,
                Stage::Online => self.online(watch)?,
            }
        }
        Ok(())
    }

    fn finished(&self, stage: Stage) -> Result<bool> {
        match stage {
            Stage::World => Ok(self.data().join("manifest.json").is_file()),
            _ if self.checkpoint(stage).is_dir() => Ok(checkpoint::load_state(&self.checkpoint(stage))?.finished),
            _ => Ok(false),
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn checkpoint(&self, stage: Stage) -> PathBuf {
        self.folder.join("checkpoints").join(stage.name())
    }

    /// Where this stage stands: the step it goes on with, and its unfinished checkpoint if there is one.
    fn standing(&self, stage: Stage) -> Result<Option<State>> {
        let at = self.checkpoint(stage);
        let state = at.is_dir().then(|| checkpoint::load_state(&at)).transpose()?;
        match &state {
            Some(found) if found.stage != stage.name() || found.seed != self.config.seed => {
                let what = format!("of stage {} and seed {} (expected {})", found.stage, found.seed, stage.name());
                Err(Error::file(at.join("state.json"), what))
            }
            _ => Ok(state),
        }
    }

    /// The state of `stage` after `step` of its steps, as a checkpoint remembers it.
    fn state(&self, stage: Stage, step: usize, finished: bool, queries: u64) -> Result<State> {
        Ok(State {
            stage: stage.name().into(),
            step,
            finished,
            seed: self.config.seed,
            queries,
            metrics_bytes: self.metrics.synced_length()?,
            samples_bytes: self.samples.synced_length()?,
        })
    }
}

/// Removes what a run has written, and the folder if nothing else is in it.
fn remove_run(folder: &Path) -> Result<()> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |e: std::io::Error| Error::file(path, e)
    };
    for name in ["data", "checkpoints", MERGED] {
        let path = folder.join(name);
        if path.is_dir() {
            std::fs::remove_dir_all(&path).map_err(failed(&path))?;
        }
    }
    let files =
        ["metrics.jsonl", "samples.jsonl", "eval.json", "samples-sft.json", "samples-policy.json", "config.toml"];
    for path in files.map(|name| folder.join(name)).iter().filter(|path| path.exists()) {
        std::fs::remove_file(path).map_err(failed(path))?;
    }
    Ok(())
}

/// Claims the run for this process.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(".lock");
    let file = File::create(&path).map_err(|e| Error::file(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(Error::file(folder, "in use by another process (expected to be the only one)")),
    }
}
