//! The first stage, and how later ones read what it wrote: data, tokenizer, rows as trajectories.

use super::{Event, Run, Stage, Watch};
use crate::Result;
use crate::data::columns::Tokens;
use crate::data::format::fitted_prompt;
use crate::data::jsonl::{self, Comparison, Limits, Reference};
use crate::models::tokenizer::Tokenizer;
use crate::tiny::grammar::{Split, post};
use crate::tiny::preference::{Candidate, Compared};
use crate::tiny::{self, TinyTldr};
use crate::world::text::{Prompt, Text};
use crate::world::{Group, World};
use std::path::PathBuf;

/// Compared samples are drawn with step numbers of their own, so that they share no stream with the online stage.
const COMPARED: u64 = 1 << 40;

/// Folder of the comparisons of the policy's own samples.
const SAMPLES: &str = "sft-samples";

impl Run {
    pub(super) fn make_world(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        watch(Event::Stage { name: Stage::World.name(), steps: 2, done: 0 });
        let w = &self.config.world;
        let texts = tiny::corpus(self.config.seed, w.corpus as u64);
        let tokenizer = Tokenizer::train(texts, w.vocabulary)?;
        watch(Event::Step { done: 1, line: format!("tokenizer of {} tokens", tokenizer.vocab_len()) });
        tokenizer.save(&self.data())?;
        // its manifest is the last file: a folder with a manifest is a whole world
        self.with_columns(&tokenizer, |tokens| tiny::write(&self.data(), &self.settings(), Some(tokens)))?;
        watch(Event::Step { done: 2, line: format!("{} references, {} comparisons", w.train, w.comparisons) });
        Ok(())
    }

    /// The world's settings.
    fn settings(&self) -> TinyTldr {
        let w = &self.config.world;
        TinyTldr {
            seed: self.config.seed,
            train: w.train,
            validation: w.validation,
            test: w.validation,
            comparisons: w.comparisons,
            comparisons_validation: w.comparisons_validation,
            beta: w.judge_beta,
            command: "rebel train --preset tldr-tiny --stage world".into(),
        }
    }

    /// Calls `write` with the token columns that files of this run have.
    fn with_columns<T>(&self, tokenizer: &Tokenizer, write: impl FnOnce(&Tokens<'_>) -> Result<T>) -> Result<T> {
        let encode = |text: &str| tokenizer.encode(text).unwrap_or_default();
        let (query, response) = (self.config.world.prompt_length, self.config.online.response_length);
        let query_response = query + response;
        write(&Tokens { encode: &encode, pad: tokenizer.pad()?, query, response, query_response })
    }

    /// Pairs of the policy's own samples on posts of their own, labelled by the world's judges, as files beside the
    /// world's comparisons. Without them a reward model has never seen what it will be asked about.
    pub(super) fn compare_samples(&self, policy: &Text, watch: &mut Watch<'_>) -> Result<()> {
        let w = &self.config.world;
        let folder = self.data().join(SAMPLES);
        let splits = [
            (Split::ComparisonTrain, w.comparisons, w.comparisons_of_samples),
            (Split::ComparisonValidation, w.comparisons_validation, w.comparisons_of_samples / 10),
        ];
        for (split, first, count) in splits {
            let file = self.file(split.name(), true);
            if count == 0 || file.is_file() {
                continue;
            }
            let posts: Vec<_> = (first..first + count).map(|row| post(self.config.seed, split, row as u64)).collect();
            let most = self.config.world.prompt_length;
            let measure = |text: &str| length(policy.tokenizer(), text);
            let posts = posts.into_iter().filter_map(|post| {
                let fitted = fitted_prompt(post.subreddit, &post.title, &post.body, most, measure)?;
                Some((post, fitted))
            });
            let (posts, texts): (Vec<_>, Vec<_>) = posts.filter(|(post, fitted)| post.prompt() == *fitted).unzip();
            let prompts = texts.iter().map(|text| self.prompt(text, policy.tokenizer()));
            let prompts = prompts.collect::<Result<Vec<Prompt>>>()?;
            let numbered: Vec<(u64, &Prompt)> = prompts.iter().enumerate().map(|(i, p)| (i as u64, p)).collect();
            let drawn = policy.rollout(&numbered, 2, &self.streams, COMPARED + split as u64)?;
            let judge = self.settings().judge();
            let pairs = posts.into_iter().zip(drawn).enumerate().map(|(i, (post, pair))| {
                let text = |k: usize| Candidate { text: pair[k].record.text.clone(), policy: "sft".into() };
                Compared::of(&judge, split, (first + i) as u64, post, [text(0), text(1)])
            });
            // two equal texts say nothing, and an empty one cannot be read
            let pairs =
                pairs.filter(|c| c.summaries[0] != c.summaries[1] && c.summaries.iter().all(|s| !s.text.is_empty()));
            let pairs: Vec<Compared> = pairs.collect();
            watch(Event::Note(format!(
                "{} pairs of the policy's own samples compared ({})",
                pairs.len(),
                split.name()
            )));
            self.with_columns(policy.tokenizer(), |tokens| {
                tiny::write_comparisons(&folder, split, &pairs, Some(tokens))
            })?;
        }
        Ok(())
    }

    fn prompt(&self, text: &str, tokenizer: &Tokenizer) -> Result<Prompt> {
        Ok(Prompt { ids: tokenizer.encode(text)?, text: text.into() })
    }

    pub(super) fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::load(&self.data())
    }

    fn file(&self, split: &str, samples: bool) -> PathBuf {
        let folder = if samples { self.data().join(SAMPLES) } else { self.data() };
        folder.join("preferences").join(format!("{split}.jsonl"))
    }

    /// References of a split, and a note about rows that were dropped.
    pub(super) fn references(
        &self,
        split: &str,
        tokenizer: &Tokenizer,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Reference>> {
        let rows = jsonl::references(&self.data().join("references").join(format!("{split}.jsonl")), None)?;
        let read = rows.rows.len();
        let cut = rows.rows.into_iter().filter_map(|mut row| {
            let most = self.config.world.prompt_length;
            row.query = fitted_prompt(&row.subreddit, &row.title, &row.post, most, |t| length(tokenizer, t))?;
            Some(row)
        });
        let kept: Vec<Reference> = cut.collect();
        if kept.len() < read {
            watch(Event::Note(format!("{split}: dropped {} prompts that no cut makes fit", read - kept.len())));
        }
        Ok(kept)
    }

    /// Comparisons of a split that fit the model.
    pub(super) fn comparisons(
        &self,
        split: &str,
        tokenizer: &Tokenizer,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Comparison>> {
        let measure = |text: &str| length(tokenizer, text);
        let limits = Limits {
            length: &measure,
            prompt: self.config.world.prompt_length,
            response: 2 * self.config.online.response_length, // rambling ones too
        };
        let mut all = vec![];
        for file in [self.file(split, false), self.file(split, true)].iter().filter(|file| file.is_file()) {
            let rows = jsonl::comparisons(file, Some(&limits))?;
            if !rows.dropped.is_empty() {
                watch(Event::Note(format!("{}: dropped {}", file.display(), rows.dropped_in_words())));
            }
            all.extend(rows.rows);
        }
        Ok(all)
    }

    /// The prompts of a split, in the file's order.
    pub(super) fn prompts(&self, split: &str, tokenizer: &Tokenizer, watch: &mut Watch<'_>) -> Result<Vec<Prompt>> {
        let rows = self.references(split, tokenizer, watch)?;
        rows.iter().map(|row| self.prompt(&row.query, tokenizer)).collect()
    }
}

fn length(tokenizer: &Tokenizer, text: &str) -> usize {
    tokenizer.encode(text).map_or(usize::MAX, |ids| ids.len())
}

/// Text that is learned whole: every token after the first counts. At most `longest` tokens.
pub(super) fn whole_text(
    world: &Text,
    row: usize,
    text: &str,
    longest: usize,
) -> Result<Option<Group<crate::world::text::Response>>> {
    let mut ids = world.tokenizer().encode(text)?;
    ids.truncate(longest);
    if ids.len() < 2 {
        return Ok(None);
    }
    let rest = ids.split_off(1);
    Ok(Some(Group { trajectories: vec![world.given(row as u64, "", ids, rest, text)], rewards: vec![] }))
}

/// A comparison as (chosen, rejected).
pub(super) fn comparison(world: &Text, row: usize, c: &Comparison) -> Result<Group<crate::world::text::Response>> {
    let side = |response: &str| -> Result<_> {
        let (query, ids) = (world.tokenizer().encode(&c.query)?, world.tokenizer().encode(response)?);
        Ok(world.given(row as u64, &c.query, query, ids, response))
    };
    Ok(Group { trajectories: vec![side(&c.chosen)?, side(&c.rejected)?], rewards: vec![] })
}
