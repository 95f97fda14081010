//! One REBEL update of a small language model for each part that can be trained, and the memory it takes.

use std::collections::BTreeMap;

use candle_core::{DType, Device};
use peak_alloc::PeakAlloc;
use rebel_theory::objective::Eta;
use rebel_trainer::algorithm::rebel::Rebel;
use rebel_trainer::algorithm::update::{Optimizer, update};
use rebel_trainer::models::peft::{LoraConfig, Modules};
use rebel_trainer::models::{DecoderConfig, Tokenizer, Trained, parameters};
use rebel_trainer::nn::{AdamW, AdamWSettings, Sampling, Store, Streams};
use rebel_trainer::tiny;
use rebel_trainer::world::text::{Response, Responses, Text};
use rebel_trainer::world::{Group, World};

/// Counts every byte this program holds.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Pairs an update, and tokens of a prompt and of a response.
const PAIRS: usize = 4;
const PROMPT: u32 = 96;
const RESPONSE: u32 = 32;

/// How the layers see what is not trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frozen {
    /// As variables that nobody asks for: what a graph does that does not know.
    Tracked,
    /// As constants.
    Detached,
}

/// What one mode took. All in bytes above what was held before the model was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Numbers that are trained.
    pub trained: usize,
    /// Held before the first update: weights, and the reference's where it has its own.
    pub weights: usize,
    /// Held after it: the optimizer's moments, panels of weights, and buffers that wait for the next update besides.
    pub held: usize,
    /// The most that was held at any moment of the second update.
    pub peak: usize,
    /// Of what is held, the optimizer's moments.
    pub moments: usize,
}

/// The model: 3.1 million parameters, 6 blocks.
pub fn config() -> DecoderConfig {
    DecoderConfig::neox(1024, 192, 6, 6, 256)
}

/// The parts that are compared.
pub fn parts() -> Vec<(&'static str, Trained)> {
    let everywhere = LoraConfig { targets: Modules::AllLinear, ..LoraConfig::new(8, 16.0) };
    vec![
        ("full", Trained::Full),
        ("last-blocks, 1 of 6", Trained::LastBlocks(1)),
        ("lora, query_key_value, rank 8", Trained::Adapter(LoraConfig::new(8, 16.0))),
        ("lora, all-linear, rank 8", Trained::Adapter(everywhere)),
    ]
}

/// The policy, and its reference where the policy does not hold it.
fn policy(part: &Trained, recompute: bool, frozen: Frozen, tokenizer: Tokenizer) -> (Text, Option<Store>) {
    let (config, streams) = (config(), Streams::new(1));
    let responses = Responses { sampling: Sampling::ONE, response_length: RESPONSE as usize, eos: 0 };
    let mut store = parameters::initial(&config, &streams, DType::F32, &Device::Cpu).unwrap();
    if frozen == Frozen::Detached {
        let policy = Text::policy(config, store, tokenizer, responses).unwrap();
        return (policy.begin(part.clone(), recompute, &streams).unwrap(), None);
    }
    part.prepare(&config, &mut store, &streams).unwrap();
    let trained: Vec<String> = store.trainable().map(|(name, _)| name.to_string()).collect();
    let reference = store.reference().unwrap();
    store.freeze(|_| false);
    let mut policy = Text::policy(config, store, tokenizer, responses).unwrap();
    policy.store().freeze(|name| !trained.iter().any(|other| other == name));
    (policy, Some(reference))
}

fn pairs(policy: &Text) -> Vec<Group<Response>> {
    let response = |pair: u32, side: u32| {
        let ids = |from: u32, count: u32| (0..count).map(|i| (from + 7 * i) % 1024).collect::<Vec<u32>>();
        let mut response =
            policy.given(u64::from(pair), "", ids(pair, PROMPT), ids(100 * pair + 31 * side, RESPONSE), "");
        response.old = vec![-7.0; RESPONSE as usize];
        response
    };
    let pair = |i: u32| Group { trajectories: vec![response(i, 0), response(i, 1)], rewards: vec![1.0, f64::from(i)] };
    (0..PAIRS as u32).map(pair).collect()
}

/// Two updates of `part`.
pub fn measure(part: &Trained, recompute: bool, frozen: Frozen) -> Taken {
    let tokenizer = Tokenizer::train(tiny::corpus(1, 20), 300).unwrap();
    let before = MEMORY.current_usage();
    let (mut policy, _reference) = policy(part, recompute, frozen, tokenizer);
    let groups = pairs(&policy);
    let weights = MEMORY.current_usage() - before;
    let trained = numbers(policy.parameters());
    let mut optimizer =
        Optimizer { adamw: AdamW::new(AdamWSettings::default()), clip: f64::INFINITY, micro_batch: PAIRS };
    let objective = Rebel { eta: Eta::new(1.0).unwrap() };
    update(&mut policy, &mut optimizer, &objective, &groups, 1e-4).unwrap();
    let held = MEMORY.current_usage() - before;
    MEMORY.reset_peak_usage();
    update(&mut policy, &mut optimizer, &objective, &groups, 1e-4).unwrap();
    let peak = MEMORY.peak_usage() - before;
    let with = MEMORY.current_usage();
    drop(optimizer);
    Taken { trained, weights, held, peak, moments: with - MEMORY.current_usage() }
}

fn numbers(store: &Store) -> usize {
    let sizes: BTreeMap<&str, usize> = store.trainable().map(|(name, var)| (name, var.elem_count())).collect();
    sizes.values().sum()
}
