//! Which settings an experiment cannot have: counts, sizes and numbers out of range, and parts that do not fit each other.

use super::{Config, Method, OptimizerConfig};
use crate::models::{Trained, peft};
use crate::{Error, Result};
use std::path::Path;

/// Largest count that a configuration may name: beyond it memory ends before the run does.
const MOST: usize = 1_000_000;
/// Weights that a model made from nothing may have.
const MOST_WEIGHTS: u128 = 1_000_000_000;

impl Config {
    /// What a run could not be made of, by its key.
    pub(super) fn check(&self, file: &Path) -> Result<()> {
        let at_least = |key: &str, value: usize, least: usize| match value {
            v if v < least => Err(Error::field(file, key, format!("{v} is too small (expected at least {least})"))),
            v if v > MOST => Err(Error::field(file, key, format!("{v} is too large (expected at most {MOST})"))),
            _ => Ok(()),
        };
        let positive = |key: &str, value: f64| match value {
            v if v > 0.0 && v.is_finite() => Ok(()),
            v => Err(Error::field(file, key, format!("{v} is not usable (expected a finite number above 0)"))),
        };
        let not_negative = |key: &str, value: f64| match value {
            v if v >= 0.0 && v.is_finite() => Ok(()),
            v => Err(Error::field(file, key, format!("{v} is not usable (expected a number of at least 0)"))),
        };
        let w = &self.world;
        at_least("world.corpus", w.corpus, 1)?;
        at_least("world.train", w.train, 1)?;
        at_least("world.validation", w.validation, 1)?;
        at_least("world.comparisons", w.comparisons, 1)?;
        at_least("world.comparisons_validation", w.comparisons_validation, 1)?;
        positive("world.judge_beta", w.judge_beta)?;
        at_least("world.vocabulary", w.vocabulary, 258)?;
        at_least("world.prompt_length", w.prompt_length, 16)?;
        let m = &self.model;
        at_least("model.hidden", m.hidden, 1)?;
        at_least("model.layers", m.layers, 1)?;
        at_least("model.heads", m.heads, 1)?;
        at_least("model.intermediate", m.intermediate, 1)?;
        let (hidden, layers) = (m.hidden as u128, m.layers as u128);
        let weights = layers * hidden * (4 * hidden + 2 * m.intermediate as u128) + 2 * hidden * w.vocabulary as u128;
        if weights > MOST_WEIGHTS {
            let what =
                format!("{weights} weights (expected at most {MOST_WEIGHTS}: the tiny world's models are small)");
            return Err(Error::field(file, "model", what));
        }
        if !m.hidden.is_multiple_of(m.heads) {
            let what = format!("{} heads do not divide a width of {}", m.heads, m.hidden);
            return Err(Error::field(file, "model.heads", what));
        }
        for (name, s) in [("pretrain", &self.pretrain), ("sft", &self.sft), ("reward", &self.reward)] {
            at_least(&format!("{name}.batch"), s.batch, 1)?;
            at_least(&format!("{name}.micro_batch"), s.micro_batch, 1)?;
            at_least(&format!("{name}.updates"), s.updates, 1)?;
            at_least(&format!("{name}.eval_every"), s.eval_every, 1)?;
            not_negative(&format!("{name}.learning_rate"), s.learning_rate)?;
            s.optimizer.check(file, name)?;
        }
        let o = &self.online;
        positive("online.eta", o.eta)?;
        at_least("online.samples", o.samples, 2)?;
        if o.algorithm == Method::Rebel && o.samples != 2 {
            let what = format!("{} samples a prompt (expected 2: REBEL compares pairs)", o.samples);
            return Err(Error::field(file, "online.samples", what));
        }
        at_least("online.prompts", o.prompts, 1)?;
        at_least("online.micro_batch", o.micro_batch, 1)?;
        at_least("online.iterations", o.iterations, 1)?;
        at_least("online.epochs", o.epochs, 1)?;
        at_least("online.checkpoint_every", o.checkpoint_every, 1)?;
        at_least("online.response_length", o.response_length, 1)?;
        not_negative("online.learning_rate", o.learning_rate)?;
        positive("online.temperature", o.temperature)?;
        if !(o.top_p > 0.0 && o.top_p <= 1.0) {
            let what = format!("{} is not usable (expected a number above 0 and at most 1)", o.top_p);
            return Err(Error::field(file, "online.top_p", what));
        }
        not_negative("online.kl", o.kl)?;
        if !o.missing_eos.is_finite() {
            let what = format!("{} is not usable (expected a finite number)", o.missing_eos);
            return Err(Error::field(file, "online.missing_eos", what));
        }
        o.optimizer.check(file, "online")?;
        let t = &self.train;
        if t.blocks == 0 || t.blocks > m.layers {
            let what = format!("{} of {} blocks (expected at least 1 and no more than there are)", t.blocks, m.layers);
            return Err(Error::field(file, "train.blocks", what));
        }
        at_least("train.lora.rank", t.lora.rank, 1)?;
        positive("train.lora.alpha", t.lora.alpha)?;
        if let Trained::Adapter(lora) = self.trained("") {
            let fits = peft::check(&lora, &self.decoder(w.vocabulary));
            fits.map_err(|(field, what)| Error::field(file, format!("train.lora ({field})"), what))?;
        }
        at_least("eval.every", self.eval.every, 1)?;
        at_least("eval.prompts", self.eval.prompts, 1)
    }
}

impl OptimizerConfig {
    fn check(&self, file: &Path, stage: &str) -> Result<()> {
        for (name, value, fits, expected) in [
            ("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "a number from 0 to below 1"),
            ("beta2", self.beta2, (0.0..1.0).contains(&self.beta2), "a number from 0 to below 1"),
            ("epsilon", self.epsilon, self.epsilon > 0.0 && self.epsilon.is_finite(), "a finite number above 0"),
            (
                "weight_decay",
                self.weight_decay,
                self.weight_decay >= 0.0 && self.weight_decay.is_finite(),
                "a number of at least 0",
            ),
            ("clip", self.clip, self.clip > 0.0, "a number above 0, or inf"),
        ] {
            if !fits {
                let what = format!("{value} is not usable (expected {expected})");
                return Err(Error::field(file, format!("{stage}.optimizer.{name}"), what));
            }
        }
        Ok(())
    }
}
