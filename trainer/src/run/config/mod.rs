//! An experiment as a TOML file: a preset, what is laid over it, and the checked settings that come out.
//!
//! A preset names every key. Whatever is laid over it (`--config FILE`, `--set a.b=c`) may name only those, and with
//! values of the same type, so a misspelt key is an error that names the nearest one.

mod check;
mod overlay;

use crate::models::peft::{LoraConfig, Modules};
use crate::models::{DecoderConfig, Trained};
use crate::nn::Decay;
use crate::{Error, Result};
use overlay::{lay_over, parse_set};
use rebel_theory::objective::Eta;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::Table;

/// The presets that the program carries, by name.
pub const PRESETS: [(&str, &str); 1] = [("tldr-tiny", include_str!("../../../../presets/tldr-tiny.toml"))];

/// One experiment: the tiny TL;DR world, its models, its stages.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every random stream starts from.
    pub seed: u64,
    /// The generated data.
    pub world: WorldConfig,
    /// The transformer, trained from scratch.
    pub model: ModelConfig,
    /// Next-token prediction on posts with summaries of any quality.
    pub pretrain: SupervisedConfig,
    /// Next-token prediction on human references.
    pub sft: SupervisedConfig,
    /// Bradley-Terry on human choices.
    pub reward: SupervisedConfig,
    /// Which method the online stage uses.
    pub online: OnlineConfig,
    /// What of the policy the online stage trains.
    pub train: TrainConfig,
    /// What is measured while training.
    pub eval: EvalConfig,
}

/// Sizes of the generated data.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorldConfig {
    /// Posts to pre-train on.
    pub corpus: usize,
    /// Posts with a reference summary, training split.
    pub train: usize,
    /// The same, validation split.
    pub validation: usize,
    /// Compared pairs of summaries, training split.
    pub comparisons: usize,
    /// The same, validation split.
    pub comparisons_validation: usize,
    /// Compared pairs of the fine-tuned policy's own samples, which join the training split; a tenth as many more join
    /// the validation split.
    pub comparisons_of_samples: usize,
    /// The judges' inverse noise level, per unit of gold reward.
    pub judge_beta: f64,
    /// Size of the byte-level BPE vocabulary, special tokens included.
    pub vocabulary: usize,
    /// Longest prompt, tokens; posts are cut at a line's end to fit.
    pub prompt_length: usize,
}

/// Shape of the transformer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub intermediate: usize,
}

/// A stage that learns from given data.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupervisedConfig {
    /// Rows (pairs, for the reward model) an update.
    pub batch: usize,
    /// Rows in one forward pass.
    pub micro_batch: usize,
    pub updates: usize,
    pub learning_rate: f64,
    pub schedule: Decay,
    /// Updates during which the learning rate rises from 0.
    pub warmup: usize,
    /// Updates between measurements on held-out rows.
    pub eval_every: usize,
    pub optimizer: OptimizerConfig,
}

/// AdamW and clipping.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
    /// Largest global norm of the gradient; `inf` never clips.
    pub clip: f64,
}

/// The methods of the online stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    Rebel,
    Rloo,
}

impl Method {
    /// The method's name in configurations, metrics and figures.
    pub fn name(self) -> &'static str {
        match self {
            Method::Rebel => "rebel",
            Method::Rloo => "rloo",
        }
    }
}

/// The stage that learns from the policy's own samples.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnlineConfig {
    pub algorithm: Method,
    /// REBEL's step size, nats per unit of reward.
    pub eta: f64,
    /// Samples a prompt; REBEL needs 2.
    pub samples: usize,
    /// Prompts an iteration.
    pub prompts: usize,
    /// Prompts in one forward pass.
    pub micro_batch: usize,
    pub iterations: usize,
    /// Optimizer steps an iteration, each over all of its samples.
    pub epochs: usize,
    pub learning_rate: f64,
    pub schedule: Decay,
    /// Sampling temperature; log-probabilities are of the tempered policy.
    pub temperature: f64,
    /// How many of the most probable tokens can be sampled; 0: all. Log-probabilities are of the truncated policy.
    #[serde(default)]
    pub top_k: usize,
    /// The share of the probability that can be sampled, most probable tokens first; 1: all.
    #[serde(default = "everything")]
    pub top_p: f64,
    /// Longest response, tokens.
    pub response_length: usize,
    /// Coefficient of the KL penalty in the reward.
    pub kl: f64,
    /// Score of a response without EOS.
    pub missing_eos: f64,
    /// Iterations between checkpoints.
    pub checkpoint_every: usize,
    pub optimizer: OptimizerConfig,
}

/// Which parameters of the policy the online stage trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// All of them.
    Full,
    /// A low-rank adapter beside the model; its checkpoints hold the adapter alone.
    Lora,
    /// The last blocks, the final norm and the output head.
    LastBlocks,
}

/// What is trained, and at which cost in memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    pub part: Part,
    /// Blocks that `last-blocks` trains.
    pub blocks: usize,
    /// Gradient checkpointing: blocks are computed again in the backward.
    pub recompute: bool,
    /// Whether the end of the run also writes the adapter worked into the model's weights, to `merged/`.
    pub merge: bool,
    pub lora: LoraSettings,
}

/// The adapter that `lora` trains.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraSettings {
    pub rank: usize,
    /// Corrections are multiplied by alpha / rank.
    pub alpha: f64,
    /// By alpha / sqrt(rank) instead.
    pub rslora: bool,
    /// Names of adapted modules; none: the family's default, `all-linear`: every linear map but the head.
    pub targets: Vec<String>,
}

/// What is measured on validation prompts in the online stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Iterations between measurements.
    pub every: usize,
    /// Validation prompts measured.
    pub prompts: usize,
    /// Samples written to `samples.jsonl` each time.
    pub samples: usize,
}

impl Config {
    /// The preset called `name`, with `file` (if any) and then `sets` (`a.b=c`) laid over it, checked.
    ///
    /// # Errors
    /// One line that names the file or `--set`, the key, and what was expected.
    pub fn resolve(name: &str, file: Option<&Path>, sets: &[String]) -> Result<Self> {
        let Some((_, text)) = PRESETS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = PRESETS.iter().map(|(known, _)| *known).collect();
            return Err(Error::Usage(format!(
                "--preset {name}: no such preset (expected one of {})",
                known.join(", ")
            )));
        };
        let mut table: Table = toml::from_str(text).map_err(|e| Error::file(preset_file(name), e.message()))?;
        if let Some(file) = file {
            let text = std::fs::read_to_string(file).map_err(|e| Error::file(file, e))?;
            let over: Table = toml::from_str(&text).map_err(|e| Error::file(file, one_line(&e.to_string())))?;
            lay_over(&mut table, over, file, "")?;
        }
        let from_files = file.map_or_else(|| preset_file(name), PathBuf::from);
        Self::checked(table.clone(), &from_files)?;
        // what was typed is wrong usage, whatever the files say
        let typed = |error: Error| Error::Usage(error.to_string());
        for set in sets {
            let over = parse_set(set, &table)?;
            lay_over(&mut table, over, Path::new("--set"), "").map_err(typed)?;
        }
        Self::checked(table, Path::new("--set")).map_err(typed)
    }

    fn checked(table: Table, file: &Path) -> Result<Self> {
        let config: Config =
            table.try_into().map_err(|e: toml::de::Error| Error::file(file, one_line(&e.to_string())))?;
        config.check(file)?;
        Ok(config)
    }

    /// A configuration that a run has written, whole.
    ///
    /// # Errors
    /// As [`Config::resolve`].
    pub fn load(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|e| Error::file(file, e))?;
        let config: Config = toml::from_str(&text).map_err(|e| Error::file(file, one_line(&e.to_string())))?;
        config.check(file)?;
        Ok(config)
    }

    /// As TOML, every key named.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration is plain data")
    }

    /// REBEL's step size, checked.
    ///
    /// # Errors
    /// When it is not a finite number above 0.
    pub fn eta(&self) -> Result<Eta> {
        Ok(Eta::new(self.online.eta)?)
    }

    /// Longest text the models see, tokens.
    pub fn longest(&self) -> usize {
        self.world.prompt_length + self.online.response_length
    }

    /// The transformer, for a vocabulary of `vocab`.
    pub fn decoder(&self, vocab: usize) -> DecoderConfig {
        let m = &self.model;
        let neox = DecoderConfig::neox(vocab, m.hidden, m.layers, m.heads, 2 * self.longest());
        DecoderConfig { inner: m.intermediate, ..neox }
    }

    /// What of the policy is trained; `base`: where an adapter says that its model is.
    pub fn trained(&self, base: &str) -> Trained {
        let (t, lora) = (&self.train, &self.train.lora);
        match t.part {
            Part::Full => Trained::Full,
            Part::LastBlocks => Trained::LastBlocks(t.blocks),
            Part::Lora => Trained::Adapter(LoraConfig {
                rank_stabilised: lora.rslora,
                targets: match lora.targets.as_slice() {
                    [] => Modules::Default,
                    [all] if all == "all-linear" => Modules::AllLinear,
                    names => Modules::Named(names.to_vec()),
                },
                base: Some(base.into()),
                ..LoraConfig::new(lora.rank, lora.alpha)
            }),
        }
    }
}

/// A share that leaves nothing out.
fn everything() -> f64 {
    1.0
}

fn preset_file(name: &str) -> PathBuf {
    PathBuf::from(format!("presets/{name}.toml"))
}

/// toml's errors show the place over several lines; a person wants one.
fn one_line(text: &str) -> String {
    text.lines().filter(|l| !l.contains(" | ") && !l.trim_start().starts_with('|')).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(sets: &[&str]) -> Result<Config> {
        Config::resolve("tldr-tiny", None, &sets.iter().map(|s| s.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn every_preset_resolves_and_survives_a_round_trip() {
        for (name, _) in PRESETS {
            let config = Config::resolve(name, None, &[]).unwrap();
            let again: Config = toml::from_str(&config.to_toml()).unwrap();
            assert_eq!(again.to_toml(), config.to_toml());
        }
    }

    #[test]
    fn a_set_changes_its_key_and_whole_numbers_do_for_numbers() {
        assert_eq!(resolve(&["online.eta=2"]).unwrap().online.eta, 2.0);
        assert_eq!(resolve(&["online.algorithm=rloo", "online.samples=4"]).unwrap().online.algorithm, Method::Rloo);
    }

    #[test]
    fn a_misspelt_key_is_an_error_that_names_the_nearest() {
        let error = resolve(&["online.etta=2"]).unwrap_err().to_string();
        assert_eq!(error, "--set: online.etta: unknown key (did you mean online.eta?)");
    }

    #[test]
    fn wrong_types_and_ranges_are_errors_that_name_the_key() {
        for (set, part) in [
            ("online.eta=fast", "online.eta: \"fast\" is a text (expected a number)"),
            ("online.eta=0", "--set: online.eta: 0 is not usable (expected a finite number above 0)"),
            ("online.eta=inf", "--set: online.eta: inf is not usable (expected a finite number above 0)"),
            (
                "sft.optimizer.beta2=1",
                "--set: sft.optimizer.beta2: 1 is not usable (expected a number from 0 to below 1)",
            ),
            ("online.algorithm=ppo", "--set: "),
            ("online.top_p=1.5", "online.top_p: 1.5 is not usable (expected a number above 0 and at most 1)"),
            ("online.top_k=-1", "online"),
            ("online.samples=3", "online.samples: 3 samples a prompt (expected 2"),
            ("train.part=some", "--set: "),
            ("train.blocks=9", "train.blocks: 9 of 3 blocks"),
            ("train.lora.rank=0", "train.lora.rank: 0 is too small"),
            ("train.lora.targets=[\"dense\", 3]", "--set: "),
            ("model.heads=7", "model.heads: 7 heads do not divide"),
            ("online", "--set online: not an assignment"),
            ("seed=-1", "seed"),
        ] {
            let error = resolve(&[set]).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{set}: {error}");
        }
    }

    #[test]
    fn a_configuration_written_before_truncation_existed_loads_and_truncates_nothing() {
        let text = resolve(&["online.top_k=5", "online.top_p=0.5"]).unwrap().to_toml();
        let old: String = text.lines().filter(|l| !l.starts_with("top_")).map(|l| format!("{l}\n")).collect();
        assert_ne!(old, text);
        let config: Config = toml::from_str(&old).unwrap();
        assert_eq!((config.online.top_k, config.online.top_p), (0, 1.0));
    }

    #[test]
    fn an_adapter_that_cannot_be_is_refused_before_anything_runs() {
        for (set, part) in [
            ("train.lora.targets=[\"q_proj\"]", "train.lora (target_modules): no linear map of the model is meant"),
            ("train.lora.rank=1000", "train.lora (r): 1000 is no rank for gpt_neox.layers.0.attention.query_key_value"),
        ] {
            let error = resolve(&["train.part=lora", set]).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{set}: {error}");
            assert!(resolve(&[set]).is_ok());
        }
    }

    #[test]
    fn an_unknown_preset_lists_the_known() {
        let error = Config::resolve("tldr-tyni", None, &[]).unwrap_err().to_string();
        assert!(error.contains("tldr-tiny"), "{error}");
    }
}
