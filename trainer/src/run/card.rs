//! The card that goes with a checkpoint: what the run's settings say of it, and nothing else, so that a run resumed ends with
//! the bytes of one that was not.

use super::checkpoint::State;
use super::config::Part;
use super::{Run, Stage};
use crate::models::card::Card;

impl Run {
    /// The card of a checkpoint of `stage`, in the layout that the run's settings give it.
    pub(super) fn card(&self, stage: Stage, state: &State) -> Card {
        let card = self.card_of_model(stage, state);
        match stage == Stage::Online && self.config.train.part == Part::Lora {
            true => Card { library: "peft", summary: summary("low-rank adapter beside ../sft"), ..card },
            false => card,
        }
    }

    /// The card of an ordinary model that `stage` made.
    pub(super) fn card_of_model(&self, stage: Stage, state: &State) -> Card {
        let method = match stage {
            Stage::Online => self.config.online.algorithm.name(),
            Stage::Reward => "bradley-terry",
            Stage::World | Stage::Pretrain | Stage::Sft => "cross-entropy",
        };
        let (pipeline, what) = match stage {
            Stage::Reward => ("text-classification", "reward model"),
            _ => ("text-generation", "language model"),
        };
        let mut tags = ["rebel", method].map(String::from).to_vec();
        tags.dedup(); // the method may be called as the program is
        if stage == Stage::Online && self.config.train.part == Part::Lora {
            tags.push("lora".into());
        }
        let fact = |what: &str, value: String| (what.to_string(), value);
        Card {
            title: format!("{}, step {}", stage.name(), state.step),
            base_model: None,
            pipeline,
            library: "transformers",
            tags,
            datasets: Vec::new(),
            summary: summary(what),
            facts: vec![
                fact("stage", stage.name().into()),
                fact("method", method.into()),
                fact("steps", format!("{}{}", state.step, if state.finished { "" } else { " (not finished)" })),
                fact("seed", state.seed.to_string()),
                fact("command", "`rebel train --config config.toml`, with the run's config.toml".into()),
                fact("program", format!("rebel {}", env!("CARGO_PKG_VERSION"))),
            ],
        }
    }
}

fn summary(what: &str) -> String {
    format!("A {what}, trained from scratch on made-up posts and summaries by `rebel train`.")
}
