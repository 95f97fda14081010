//! An experiment as a TOML file: a preset, what is laid over it, and the checked settings that come out.
//!
//! A preset names every key. Whatever is laid over it (`--config FILE`, `--set a.b=c`) may name only those, and with
//! values of the same type, so a misspelt key is an error that names the nearest one.

mod check;
mod overlay;
mod sections;

use crate::models::peft::{LoraConfig, Modules};
use crate::models::{DecoderConfig, Trained};
use crate::{Error, Result};
use overlay::{lay_over, parse_set};
use rebel_theory::objective::Eta;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::Table;

pub use sections::{
    EvalConfig, LoraSettings, Method, ModelConfig, OnlineConfig, OptimizerConfig, Part, SupervisedConfig, TrainConfig,
    WorldConfig,
};

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
