//! The workloads: random batches, and a closure that takes one step on them.

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use rebel_theory::objective::Eta;
use serde::{Deserialize, Serialize};

use super::Sizes;
use crate::Result;
use crate::algorithm::Objective;
use crate::algorithm::rebel::Rebel;
use crate::algorithm::sft::Sft;
use crate::algorithm::update::{Optimizer, update};
use crate::models::{Generation, Tokenizer, generate, hf, parameters};
use crate::nn::{AdamW, AdamWSettings, Choice, Place, Purpose, Sampling, Store, Streams, Temperature};
use crate::world::text::{Response, Responses, Text};
use crate::world::{Group, Trajectory};

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Cross-entropy of `batch` rows, of all tokens but the first; AdamW.
    Sft,
    /// REBEL on `batch` pairs: two responses to one prompt, half of each row; clipped gradient, AdamW.
    Rebel,
    /// The same where every row has a prompt of its own, so that nothing can be computed once for both.
    RebelUnshared,
    /// `seq / 2` new tokens for each of `batch` prompts, at temperature 0.7.
    Sample,
}

/// A step that can be taken again and again; a number that came out of it.
pub(super) type Step = Box<dyn FnMut() -> Result<f64>>;

/// The temperature of REBEL's log-probabilities and of sampling.
const TEMPERATURE: f64 = 0.7;
const LEARNING_RATE: f64 = 3e-4;
/// Global norm to which REBEL's gradient is clipped.
const CLIP: f64 = 1.0;

impl Workload {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Sft, Self::Rebel, Self::RebelUnshared, Self::Sample];

    /// Its name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Rebel => "rebel",
            Self::RebelUnshared => "rebel-unshared",
            Self::Sample => "sample",
        }
    }

    /// Tokens that a step counts: all of every row in training, however they are computed; the new ones in sampling.
    pub fn tokens(self, sizes: &Sizes) -> usize {
        match self {
            Self::Sft => sizes.batch * sizes.seq,
            Self::Rebel | Self::RebelUnshared => 2 * sizes.batch * sizes.seq,
            Self::Sample => sizes.batch * sizes.prompt(),
        }
    }

    /// A step on a fresh model with weights of N(0, 0.02^2), `micro_batch` groups a pass.
    pub(super) fn prepare(self, sizes: &Sizes, micro_batch: usize, place: &Place) -> Result<Step> {
        let config = sizes.config();
        let store = parameters::initial(&config, &streams(), place.dtype, &place.device)?;
        let tempered = Sampling::from(Temperature::new(TEMPERATURE)?);
        let policy = |store, sampling| {
            // Every token is given as an id: the tokenizer has the bytes alone.
            let tokenizer = Tokenizer::train(std::iter::empty(), 258)?;
            Text::policy(config.clone(), store, tokenizer, Responses { sampling, response_length: sizes.seq, eos: 0 })
        };
        match self {
            Self::Sft => {
                let world = policy(store, Sampling::ONE)?;
                let groups = (0..sizes.batch).map(|row| whole_row(&world, sizes, row)).collect();
                Ok(training(world, groups, Sft, f64::INFINITY, micro_batch))
            }
            Self::Rebel | Self::RebelUnshared => {
                let world = policy(store, tempered)?;
                let groups = (0..sizes.batch).map(|i| pair(&world, sizes, i, self == Self::Rebel)).collect();
                let objective = Rebel { eta: Eta::new(1.0).expect("1 is an eta") };
                Ok(training(world, groups, objective, CLIP, micro_batch))
            }
            Self::Sample => sampling(&store, sizes, tempered),
        }
    }
}

fn streams() -> Streams {
    Streams::new(1)
}

/// `count` uniform ids, other ones for another `what` and `row`.
fn ids(what: &'static str, row: usize, count: usize, vocab: usize) -> Vec<u32> {
    let mut stream = streams().stream(Purpose(what), 0, row as u64, 0);
    (0..count).map(|_| stream.random_range(0..vocab as u32)).collect()
}

/// A row whose tokens all count but the first.
fn whole_row(world: &Text, sizes: &Sizes, row: usize) -> Group<Response> {
    let rest = ids("bench response", row, sizes.seq - 1, sizes.vocab);
    let first = ids("bench prompt", row, 1, sizes.vocab);
    Group { trajectories: vec![world.given(row as u64, "", first, rest, "")], rewards: vec![] }
}

/// A pair with old log-probabilities near those of a model that knows nothing, and rewards of N(0, 1).
fn pair(world: &Text, sizes: &Sizes, number: usize, shared: bool) -> Group<Response> {
    let new = sizes.seq - sizes.prompt();
    let response = |side: usize| -> (Trajectory<Response>, f64) {
        let row = 2 * number + side;
        let prompt = ids("bench prompt", if shared { 2 * number } else { row }, sizes.prompt(), sizes.vocab);
        let mut stream = streams().stream(Purpose("bench reward"), 0, row as u64, 0);
        let [off, reward]: [f64; 2] = std::array::from_fn(|_| StandardNormal.sample(&mut stream));
        let ids = ids("bench response", row, new, sizes.vocab);
        let old = vec![0.1 * off / new as f64 - (sizes.vocab as f64).ln(); new];
        (Trajectory { old, ..world.given(number as u64, "", prompt, ids, "") }, reward)
    };
    let (trajectories, rewards) = [response(0), response(1)].into_iter().unzip();
    Group { trajectories, rewards }
}

fn training<O: Objective + 'static>(
    mut world: Text,
    groups: Vec<Group<Response>>,
    objective: O,
    clip: f64,
    micro_batch: usize,
) -> Step {
    let adamw = AdamW::new(AdamWSettings { eps: 1e-5, weight_decay: 0.0, ..AdamWSettings::default() });
    let mut optimizer = Optimizer { adamw, clip, micro_batch };
    Box::new(move || {
        let seen = update(&mut world, &mut optimizer, &objective, &groups, LEARNING_RATE)?;
        world.parameters().device().synchronize()?; // a GPU may still be at it
        Ok(seen.loss)
    })
}

/// Every second prompt is a quarter shorter, so that rows differ in length as real ones do.
fn sampling(store: &Store, sizes: &Sizes, sampling: Sampling) -> Result<Step> {
    let decoder = hf::decoder(&sizes.config(), store)?.detached();
    let (prompt, new) = (sizes.prompt(), sizes.prompt());
    let length = move |row: usize| if row.is_multiple_of(2) { prompt - prompt / 4 } else { prompt };
    let prompts: Vec<Vec<u32>> =
        (0..sizes.batch).map(|row| ids("bench prompt", row, length(row), sizes.vocab)).collect();
    let (choice, batch, mut step) = (Choice::Sample(sampling), sizes.batch, 0);
    Ok(Box::new(move || {
        step += 1;
        let generation = Generation { max_new: new, choice, stop: &[], samples: 1, batch };
        let stream = |prompt: usize, _| streams().stream(Purpose("bench sample"), step, prompt as u64, 0);
        let drawn = generate(&decoder, &prompts, generation, stream)?;
        let total: f64 = drawn.iter().flat_map(|completion| &completion.log_probs).sum();
        Ok(total / (batch * new) as f64)
    }))
}
