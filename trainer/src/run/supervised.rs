//! The stages that learn from given data: pre-training, supervised fine-tuning, the reward model.

use super::config::{OptimizerConfig, SupervisedConfig};
use super::metrics::{Record, TIME, mean};
use super::world::{comparison, whole_text};
use super::{Event, Run, Stage, Watch, checkpoint};
use crate::algorithm::Objective;
use crate::algorithm::bradley_terry::BradleyTerry;
use crate::algorithm::sft::Sft;
use crate::algorithm::supervised::Supervised;
use crate::algorithm::update::{Optimizer, evaluate};
use crate::data::format::END_OF_TEXT;
use crate::models::reward::{Kind, RewardConfig, RewardModel};
use crate::models::tokenizer::Tokenizer;
use crate::models::{hf, parameters};
use crate::nn::{AdamW, AdamWSettings, Sampling, Schedule, Temperature};
use crate::tiny;
use crate::world::Group;
use crate::world::text::{Response, Responses, Text};
use crate::{Error, Result};
use std::time::Instant;

impl SupervisedConfig {
    fn walk(&self) -> Supervised {
        let schedule = Schedule { decay: self.schedule, warmup: self.warmup as u64, total: self.updates as u64 };
        Supervised { batch: self.batch, learning_rate: self.learning_rate, schedule }
    }
}

impl OptimizerConfig {
    /// The optimizer, new, for micro-batches of `micro_batch` groups.
    pub(super) fn build(&self, micro_batch: usize) -> Optimizer {
        Optimizer { adamw: AdamW::new(self.settings()), clip: self.clip, micro_batch }
    }

    /// AdamW's part.
    pub(super) fn settings(&self) -> AdamWSettings {
        let (beta1, beta2, eps, weight_decay) = (self.beta1, self.beta2, self.epsilon, self.weight_decay);
        AdamWSettings { beta1, beta2, eps, weight_decay }
    }
}

impl Run {
    /// Next-token prediction on the corpus, from random weights.
    pub(super) fn pretrain(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        let tokenizer = self.tokenizer()?;
        let config = self.config.decoder(tokenizer.vocab_len());
        let store = parameters::initial(&config, &self.streams, self.place.dtype, &self.place.device)?;
        let responses = Responses { sampling: Sampling::ONE, ..self.responses(&tokenizer)? };
        let mut world = Text::policy(config, store, tokenizer, responses)?;
        let longest = self.config.longest();
        let documents = tiny::corpus(self.config.seed, self.config.world.corpus as u64);
        let texts = documents.map(|text| text + END_OF_TEXT).enumerate();
        let data = texts.map(|(row, text)| whole_text(&world, row, &text, longest)).collect::<Result<Vec<_>>>()?;
        let data: Vec<_> = data.into_iter().flatten().collect();
        let settings = self.config.pretrain.clone();
        let held_out = self.reference_texts("validation", &world, watch)?;
        self.learn(Stage::Pretrain, &settings, &Sft, &mut world, &data, watch, |world| {
            Ok(vec![("loss/validation", evaluate(world, &Sft, &held_out, settings.micro_batch)?)])
        })
    }

    /// Next-token prediction on prompts with their human references; prompt tokens count too, as in the published code.
    pub(super) fn sft(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        let mut world = self.load_policy(Stage::Pretrain)?;
        world.set_sampling(Sampling::ONE);
        let data = self.reference_texts("train", &world, watch)?;
        let held_out = self.reference_texts("validation", &world, watch)?;
        let settings = self.config.sft.clone();
        self.learn(Stage::Sft, &settings, &Sft, &mut world, &data, watch, |world| {
            Ok(vec![("loss/validation", evaluate(world, &Sft, &held_out, settings.micro_batch)?)])
        })
    }

    /// A scalar head on the fine-tuned model, fitted to human choices; then shifted so that human references of the
    /// training split score 0 on average.
    pub(super) fn reward(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        let tokenizer = self.tokenizer()?;
        self.compare_samples(&self.load_policy(Stage::Sft)?, watch)?;
        let (decoder, language_model) = hf::load(&self.checkpoint(Stage::Sft), self.place.dtype, &self.place.device)?;
        let config = RewardConfig { decoder, kind: Kind::Scalar { shift: 0.0 }, pad: None };
        let store = RewardModel::initial(&config, &language_model, &self.streams)?;
        let mut world = Text::reward_model(&config, store, tokenizer)?;
        let rows = |run: &Self, split: &str, world: &Text, watch: &mut Watch<'_>| -> Result<Vec<Group<Response>>> {
            let rows = run.comparisons(split, world.tokenizer(), watch)?;
            rows.iter().enumerate().map(|(row, c)| comparison(world, row, c)).collect()
        };
        let data = rows(self, "train", &world, watch)?;
        let held_out = rows(self, "validation", &world, watch)?;
        let settings = self.config.reward.clone();
        self.learn(Stage::Reward, &settings, &BradleyTerry, &mut world, &data, watch, |world| {
            let loss = evaluate(world, &BradleyTerry, &held_out, settings.micro_batch)?;
            Ok(vec![("loss/validation", loss), ("eval/accuracy", accuracy(world, &held_out)?)])
        })
    }

    /// The human references' mean score, to be taken off every score.
    fn shift(&self, world: &Text, watch: &mut Watch<'_>) -> Result<f64> {
        let tokenizer = world.tokenizer();
        let references = self.references("train", tokenizer, watch)?;
        let rows = references
            .iter()
            .map(|r| Ok([tokenizer.encode(&r.query)?, tokenizer.encode(&r.reference_response)?].concat()))
            .collect::<Result<Vec<_>>>()?;
        Ok(mean(world.scores(&rows)?).unwrap_or(0.0))
    }

    /// All updates of a supervised stage, measured now and then, and its checkpoint.
    #[allow(clippy::too_many_arguments)]
    fn learn<O: Objective>(
        &mut self,
        stage: Stage,
        settings: &SupervisedConfig,
        objective: &O,
        world: &mut Text,
        data: &[Group<Response>],
        watch: &mut Watch<'_>,
        measure: impl Fn(&Text) -> Result<Vec<(&'static str, f64)>>,
    ) -> Result<()> {
        if data.is_empty() {
            return Err(Error::invalid(format!("{}: no row of the data is left to learn from", stage.name())));
        }
        watch(Event::Stage { name: stage.name(), steps: settings.updates, done: 0 });
        let walk = settings.walk();
        let mut optimizer = settings.optimizer.build(settings.micro_batch);
        for step in 0..settings.updates {
            let began = Instant::now();
            let seen = walk.iterate(world, &mut optimizer, objective, data, &self.streams, step)?;
            let done = step + 1;
            let mut record = Record::new(stage.name(), done)
                .number("loss/train", seen.loss)
                .number("gradient_norm", seen.gradient_norm)
                .number("lr", walk.rate(step))
                .count("episode", (done * settings.batch) as u64);
            if done % settings.eval_every == 0 || done == settings.updates {
                for (name, value) in measure(world)? {
                    record = record.number(name, value);
                }
            }
            let line = format!("loss {:.3}", seen.loss);
            record = record.number(&format!("{TIME}seconds"), began.elapsed().as_secs_f64());
            self.metrics.write(&record.into_value())?;
            watch(Event::Step { done, line });
        }
        if stage == Stage::Reward {
            let shift = self.shift(world, watch)?;
            world.set_shift(shift)?;
        }
        let state = self.state(stage, settings.updates, true, 0)?;
        checkpoint::save(&self.checkpoint(stage), world, &optimizer, &state, &self.card(stage, &state))
    }

    /// Prompts with their references as texts to learn whole.
    fn reference_texts(&self, split: &str, world: &Text, watch: &mut Watch<'_>) -> Result<Vec<Group<Response>>> {
        let rows = self.references(split, world.tokenizer(), watch)?;
        let texts = rows.iter().map(|r| format!("{}{}", r.query, r.reference_response)).enumerate();
        let groups = texts
            .map(|(row, text)| whole_text(world, row, &text, self.config.longest()))
            .collect::<Result<Vec<_>>>()?;
        Ok(groups.into_iter().flatten().collect())
    }

    /// The policy that `stage` left.
    pub(super) fn load_policy(&self, stage: Stage) -> Result<Text> {
        let (config, store) = hf::load(&self.checkpoint(stage), self.place.dtype, &self.place.device)?;
        let tokenizer = self.tokenizer()?;
        let responses = self.responses(&tokenizer)?;
        Text::policy(config, store, tokenizer, responses)
    }

    /// What the policy's responses are.
    pub(super) fn responses(&self, tokenizer: &Tokenizer) -> Result<Responses> {
        let online = &self.config.online;
        let (top_k, top_p) = ((online.top_k > 0).then_some(online.top_k), Some(online.top_p));
        let sampling = Sampling::new(Temperature::new(online.temperature)?, top_k, top_p)?;
        Ok(Responses { sampling, response_length: online.response_length, eos: tokenizer.eos()? })
    }
}

/// Share of comparisons in which the chosen response scores higher; ties count half.
fn accuracy(world: &Text, data: &[Group<Response>]) -> Result<f64> {
    let rows = data.iter().flat_map(|g| &g.trajectories).map(|t| [t.record.prompt.as_slice(), &t.record.ids].concat());
    let scores = world.scores(&rows.collect::<Vec<_>>())?;
    let right = scores.chunks(2).map(|pair| match pair[0].total_cmp(&pair[1]) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    });
    Ok(mean(right).unwrap_or(f64::NAN))
}
