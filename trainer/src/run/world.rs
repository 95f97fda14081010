//! The first stage, and how later ones read what it wrote: data, tokenizer, rows as trajectories.

use super::{Event, Run, Stage, Watch};
use crate::Result;
use crate::data::columns::Tokens;
use crate::data::format::fitted_prompt;
use crate::data::jsonl::{self, Comparison, Limits, Reference};
use crate::models::tokenizer::Tokenizer;
use crate::tiny::{self, TinyTldr};
use crate::world::Group;
use crate::world::text::{Prompt, Text};
use std::path::PathBuf;

impl Run {
    pub(super) fn make_world(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        watch(Event::Stage { name: Stage::World.name(), steps: 2 });
        let w = &self.config.world;
        let texts = tiny::corpus(self.config.seed, w.corpus as u64);
        let tokenizer = Tokenizer::train(texts, w.vocabulary)?;
        watch(Event::Step { done: 1, line: format!("tokenizer of {} tokens", tokenizer.vocab_len()) });
        let settings = TinyTldr {
            seed: self.config.seed,
            train: w.train,
            validation: w.validation,
            test: w.validation,
            comparisons: w.comparisons,
            comparisons_validation: w.comparisons_validation,
            command: "rebel train --preset tldr-tiny --stage world".into(),
            ..TinyTldr::default()
        };
        let encode = |text: &str| tokenizer.encode(text).unwrap_or_default();
        let tokens = Tokens {
            encode: &encode,
            pad: tokenizer.pad(),
            query: w.prompt_length,
            response: self.config.online.response_length,
            query_response: w.prompt_length + self.config.online.response_length,
        };
        tiny::write(&self.data(), &settings, Some(&tokens))?;
        tokenizer.save(&self.data())?;
        watch(Event::Step { done: 2, line: format!("{} references, {} comparisons", w.train, w.comparisons) });
        Ok(())
    }

    pub(super) fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::load(&self.data())
    }

    fn file(&self, kind: &str, split: &str) -> PathBuf {
        self.data().join(kind).join(format!("{split}.jsonl"))
    }

    /// References of a split, and a note about rows that were dropped.
    pub(super) fn references(
        &self,
        split: &str,
        tokenizer: &Tokenizer,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Reference>> {
        let rows = jsonl::references(&self.file("references", split), None)?;
        let cut = rows.rows.into_iter().filter_map(|mut row| {
            let most = self.config.world.prompt_length;
            row.query = fitted_prompt(&row.subreddit, &row.title, &row.post, most, |t| length(tokenizer, t))?;
            Some(row)
        });
        let kept: Vec<Reference> = cut.collect();
        let _ = watch;
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
            response: 2 * self.config.online.response_length,
        };
        let file = self.file("preferences", split);
        let rows = jsonl::comparisons(&file, Some(&limits))?;
        if !rows.dropped.is_empty() {
            watch(Event::Note(format!("{}: dropped {}", file.display(), rows.dropped_in_words())));
        }
        Ok(rows.rows)
    }

    /// The prompts of a split, in the file's order.
    pub(super) fn prompts(&self, split: &str, tokenizer: &Tokenizer, watch: &mut Watch<'_>) -> Result<Vec<Prompt>> {
        let rows = self.references(split, tokenizer, watch)?;
        rows.into_iter().map(|row| Ok(Prompt { ids: tokenizer.encode(&row.query)?, text: row.query })).collect()
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
