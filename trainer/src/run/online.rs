//! The online stage: REBEL (or another method) on the policy's own samples, measured on prompts it does not train on.

use super::config::Method;
use super::metrics::{Record, TIME, mean};
use super::{Event, MERGED, Run, Stage, Watch, checkpoint};
use crate::Result;
use crate::algorithm::Objective;
use crate::algorithm::online::{Iteration, Online};
use crate::algorithm::rebel::Rebel;
use crate::algorithm::rloo::Rloo;
use crate::data::jsonl::Reference;
use crate::files;
use crate::nn::{Schedule, Streams};
use crate::reward::{Recipe, Rewarded, Score};
use crate::rewards::{Gold, LearnedReward};
use crate::world::text::{Prompt, Response, Text};
use crate::world::{Ask, Group, Outputs, Trajectory, World};
use ndarray::arr2;
use rebel_theory::objective;
use serde_json::json;
use std::time::Instant;

/// Validation prompts are drawn with numbers of their own, so that they share no stream with training prompts.
const VALIDATION: u64 = 1 << 32;

impl Run {
    /// The online stage, from the fine-tuned policy or from its own last checkpoint.
    pub(super) fn online(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        match self.config.online.algorithm {
            Method::Rebel => self.online_with(&Rebel { eta: self.config.eta()? }, watch),
            Method::Rloo => self.online_with(&Rloo { k: self.config.online.samples }, watch),
        }
    }

    /// What is done to a score before it is a reward.
    fn recipe(&self) -> Recipe {
        Recipe { missing_eos: Some(self.config.online.missing_eos), kl: self.config.online.kl }
    }

    /// What metrics and figures call the online stage: the method, and how many samples a prompt where that varies.
    fn stage_label(&self) -> String {
        match self.config.online.algorithm {
            Method::Rebel => "rebel".into(),
            Method::Rloo => format!("rloo-{}", self.config.online.samples),
        }
    }

    fn online_with<O: Objective>(&mut self, objective: &O, watch: &mut Watch<'_>) -> Result<()> {
        let o = self.config.online.clone();
        let at = self.checkpoint(Stage::Online);
        let standing = self.standing(Stage::Online)?;
        let training = self.config.trained(&format!("../{}", Stage::Sft.name()));
        let policy = self.load_policy(Stage::Sft)?;
        let mut world = policy.begin(training, self.config.train.recompute, &self.streams)?;
        let mut optimizer = o.optimizer.build(o.micro_batch);
        if standing.is_some() {
            world.restore(&at)?;
            optimizer.adamw = checkpoint::load_moments(&at, o.optimizer.settings(), &world)?;
        }
        let mut score = LearnedReward::load(&self.checkpoint(Stage::Reward), &self.place)?;
        score.count_from(standing.as_ref().map_or(0, |s| s.queries));
        let prompts = self.prompts("train", world.tokenizer(), watch)?;
        let validation = self.prompts("validation", world.tokenizer(), watch)?;
        let recipe = self.recipe();
        let online = Online { prompts: o.prompts, samples: o.samples, epochs: o.epochs };
        let schedule = Schedule { decay: o.schedule, warmup: 0, total: o.iterations as u64 };
        let done = standing.as_ref().map_or(0, |s| s.step);
        watch(Event::Stage { name: Stage::Online.name(), steps: o.iterations, done });
        if standing.is_none() {
            self.final_evaluation("sft", &world, &validation, watch)?;
        }
        for step in standing.map_or(0, |s| s.step)..o.iterations {
            let (began, done) = (Instant::now(), step + 1);
            let rate = o.learning_rate * schedule.multiplier(step as u64);
            let measured = step % self.config.eval.every == 0 || done == o.iterations;
            let held_out = match measured {
                true => Some(self.draw_held_out(&online, &world, &validation, &mut score, &recipe, step)?),
                false => None,
            };
            let chosen: Vec<(u64, &Prompt)> = online
                .prompts_at(prompts.len(), &self.streams, step)
                .into_iter()
                .map(|i| (i as u64, &prompts[i]))
                .collect();
            let iteration = online.iterate(
                &mut world,
                &mut optimizer,
                objective,
                &chosen,
                &mut score,
                &recipe,
                &self.streams,
                step as u64,
                rate,
            )?;
            let mut record =
                iteration_record(&self.stage_label(), &iteration, done, o.prompts * done, score.queries(), rate);
            if let Some(held_out) = held_out {
                record = self.measure(record, &held_out, &world)?;
            }
            let shown = |key: &str| record.get(key).unwrap_or(f64::NAN);
            let line = format!(
                "loss {:.3}  score {:.2}  gold {:.2}  kl {:.2}",
                shown("loss/first"),
                shown("objective/scores"),
                shown("objective/gold"),
                shown("objective/kl"),
            );
            record = record.number(&format!("{TIME}seconds"), began.elapsed().as_secs_f64());
            self.metrics.write(&record.into_value())?;
            watch(Event::Step { done, line });
            let last = done == o.iterations;
            if last {
                self.final_evaluation("policy", &world, &validation, watch)?;
            }
            if last || done % o.checkpoint_every == 0 {
                let state = self.state(Stage::Online, done, last, score.queries())?;
                if last && self.config.train.merge {
                    files::write_folder(&self.folder.join(MERGED), |folder| {
                        world.save_merged(folder)?;
                        self.card_of_model(Stage::Online, &state).write(folder)
                    })?;
                }
                checkpoint::save(&at, &world, &optimizer, &state, &self.card(Stage::Online, &state))?;
            }
        }
        Ok(())
    }

    /// Pairs of the current policy on validation prompts, with their rewards. Their queries are not the run's.
    fn draw_held_out(
        &self,
        online: &Online,
        world: &Text,
        validation: &[Prompt],
        score: &mut LearnedReward,
        recipe: &Recipe,
        step: usize,
    ) -> Result<(Vec<Group<Response>>, Vec<Rewarded>)> {
        let prompts: Vec<(u64, &Prompt)> = validation
            .iter()
            .take(self.config.eval.prompts)
            .enumerate()
            .map(|(i, p)| (VALIDATION + i as u64, p))
            .collect();
        let charged = score.queries();
        let drawn = online.draw(world, &prompts, score, recipe, &self.streams, step as u64)?;
        score.count_from(charged);
        Ok(drawn)
    }

    /// What held-out pairs, drawn before the update, say after it: theory.md 4.1. The training loss is not eps.
    fn measure(
        &mut self,
        record: Record,
        held_out: &(Vec<Group<Response>>, Vec<Rewarded>),
        world: &Text,
    ) -> Result<Record> {
        let (groups, rewarded) = held_out;
        let gold = |g: &Group<Response>| mean(g.trajectories.iter().map(|t| Gold::of(&t.record))).unwrap_or(f64::NAN);
        for group in groups.iter().take(self.config.eval.samples) {
            let t = &group.trajectories[0];
            self.samples.write(&json!({
                "stage": self.stage_label(), "step": record.get("step").unwrap_or(0.0) as u64,
                "query": t.record.query, "response": t.record.text, "reward": group.rewards[0],
                "gold": Gold::of(&t.record), "ended": t.ended,
            }))?;
        }
        let mut record = record
            .number("eval/scores", mean(rewarded.iter().map(|r| r.score)).unwrap_or(f64::NAN))
            .number("eval/kl", mean(rewarded.iter().map(|r| r.kl)).unwrap_or(f64::NAN))
            .number("eval/gold", mean(groups.iter().map(gold)).unwrap_or(f64::NAN));
        if self.config.online.algorithm == Method::Rebel {
            let losses = self.pair_losses(world, groups)?;
            let (loss, stderr) = mean_and_error(&losses); // one pair a prompt: independent
            let null = groups.iter().map(|g| (g.rewards[0] - g.rewards[1]).powi(2));
            record = record
                .number("heldout/pair_loss", loss)
                .number("heldout/stderr", stderr)
                .number("heldout/null_loss", mean(null).unwrap_or(f64::NAN));
        }
        Ok(record)
    }

    /// Equation 1 of each pair under the current parameters, in squared units of reward.
    fn pair_losses(&self, world: &Text, groups: &[Group<Response>]) -> Result<Vec<f64>> {
        let mut losses = vec![];
        for groups in groups.chunks(self.config.online.micro_batch) {
            let rows: Vec<&Trajectory<Response>> = groups.iter().flat_map(|g| &g.trajectories).collect();
            let (outputs, _) = world.outputs(&rows, Ask::LogProbabilities)?;
            let Outputs::LogProbabilities { values, .. } = outputs else { unreachable!("asked for log-probabilities") };
            let new: Vec<f64> = values.rows().into_iter().map(|row| row.sum()).collect();
            let old: Vec<f64> = rows.iter().map(|t| t.old_total()).collect();
            for (i, group) in groups.iter().enumerate() {
                let pair = |of: &[f64]| arr2(&[[of[0], of[1]]]).into_dyn(); // [1, 2]
                let (new, old) = (pair(&new[2 * i..]), pair(&old[2 * i..]));
                losses.push(objective::rebel(&new, &old, &pair(&group.rewards), self.config.eta()?)?.sum());
            }
        }
        Ok(losses)
    }

    /// One sample for every validation prompt: mean gold reward, learned score and KL, with standard errors, into
    /// `eval.json` under `who`, beside the human references'.
    fn final_evaluation(&self, who: &str, world: &Text, validation: &[Prompt], watch: &mut Watch<'_>) -> Result<()> {
        let prompts: Vec<(u64, &Prompt)> =
            validation.iter().enumerate().map(|(i, p)| (VALIDATION + i as u64, p)).collect();
        // the same streams for every policy: common random numbers
        let drawn: Vec<Trajectory<Response>> = world
            .rollout(&prompts, 1, &Streams::new(self.config.seed ^ 0x5eed), u64::MAX)?
            .into_iter()
            .flatten()
            .collect();
        let mut learned = LearnedReward::load(&self.checkpoint(Stage::Reward), &self.place)?;
        let flat: Vec<&Trajectory<Response>> = drawn.iter().collect();
        let recipe = self.recipe();
        let raw = learned.score(&flat)?;
        let scores: Vec<f64> = flat.iter().zip(&raw).map(|(t, &raw)| recipe.apply(raw, t).score).collect();
        let gold: Vec<f64> = drawn.iter().map(|t| Gold::of(&t.record)).collect();
        let file = self.folder.join("eval.json");
        let mut all = if file.is_file() { files::read_json(&file)? } else { json!({}) };
        let kl: Vec<f64> = drawn.iter().map(Trajectory::kl).collect();
        let length: Vec<f64> = drawn.iter().map(|t| t.steps as f64).collect();
        let levels = [("gold", &gold), ("scores", &scores), ("kl", &kl), ("length", &length)];
        all[who] = summary(&levels);
        all[who]["ended"] = json!(mean(drawn.iter().map(|t| f64::from(u8::from(t.ended)))));
        let references = self.references("validation", world.tokenizer(), watch)?;
        let judged = |r: &Reference| crate::tiny::gold::gold(&r.query, &format!(" {}", r.summary));
        let human: Vec<f64> = references.iter().map(judged).collect();
        all["reference"] = summary(&[("gold", &human), ("scores", &learned.of_references(&references)?)]);
        if let (Some(sft), Some(policy), Some(human)) =
            (gold_of(&all, "sft"), gold_of(&all, "policy"), gold_of(&all, "reference"))
        {
            all["gap_closed"] = json!((policy - sft) / (human - sft));
        }
        let lines: Vec<_> = drawn.iter().zip(&gold).zip(&scores).take(20).map(|((t, gold), score)| {
            json!({ "stage": who, "query": t.record.query, "response": t.record.text, "score": score, "gold": gold })
        }).collect();
        files::write_json(&self.folder.join(format!("samples-{who}.json")), &json!(lines))?;
        files::write_json(&file, &all)?;
        watch(Event::Note(format!(
            "{who}: gold {:.3}, learned score {:.3}",
            mean(gold).unwrap_or(f64::NAN),
            mean(scores).unwrap_or(f64::NAN)
        )));
        Ok(())
    }
}

fn gold_of(all: &serde_json::Value, who: &str) -> Option<f64> {
    all[who]["gold"].as_f64()
}

/// Mean and standard error of each of some numbers a prompt.
fn summary(levels: &[(&str, &Vec<f64>)]) -> serde_json::Value {
    let mut all = json!({ "prompts": levels[0].1.len() });
    for (name, values) in levels {
        let (mean, stderr) = mean_and_error(values);
        all[*name] = json!(mean);
        all[format!("{name}/stderr")] = json!(stderr);
    }
    all
}

/// Mean, and its standard error for independent values.
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let m = mean(values.iter().copied()).unwrap_or(f64::NAN);
    let n = values.len() as f64;
    let variance = values.iter().map(|v| (v - m).powi(2)).sum::<f64>() / (n - 1.0);
    (m, (variance / n).sqrt())
}

/// What one iteration says, under TRL's names.
fn iteration_record(
    stage: &str,
    iteration: &Iteration<Response>,
    step: usize,
    episodes: usize,
    queries: u64,
    rate: f64,
) -> Record {
    let rewarded = &iteration.rewarded;
    let of = |f: fn(&Rewarded) -> f64| mean(rewarded.iter().map(f)).unwrap_or(f64::NAN);
    let trajectories = || iteration.groups.iter().flat_map(|g| &g.trajectories);
    let updates = &iteration.updates;
    let (first, last) = (updates.first(), updates.last());
    let number = |v: Option<f64>| v.unwrap_or(f64::NAN);
    Record::new(stage, step)
        .count("episode", episodes as u64)
        .count("queries", queries)
        .number("objective/kl", of(|r| r.kl))
        .number("objective/entropy", number(mean(trajectories().map(|t| -t.old_total()))))
        .number("objective/scores", of(|r| r.score))
        .number("objective/rlhf_reward", of(|r| r.reward))
        .number("objective/gold", number(mean(trajectories().map(|t| Gold::of(&t.record)))))
        .number(
            if stage == "rebel" { "loss/regression" } else { "loss/policy_avg" },
            number(mean(updates.iter().map(|u| u.loss))),
        )
        .number("loss/first", number(first.map(|u| u.loss)))
        .number("loss/last", number(last.map(|u| u.loss)))
        .number("policy/approxkl_avg", number(mean(updates.iter().map(|u| u.approximate_kl))))
        .number("policy/entropy_avg", number(mean(updates.iter().map(|u| u.entropy))))
        .number("val/ratio", number(mean(updates.iter().map(|u| u.ratio))))
        .count("val/num_eos_tokens", trajectories().filter(|t| t.ended).count() as u64)
        .number("gradient_norm", number(mean(updates.iter().map(|u| u.gradient_norm))))
        .number("lr", rate)
}
