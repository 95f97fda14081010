//! The sections of an experiment's file: the data, the models, the stages, and what is measured.

use crate::nn::Decay;
use serde::{Deserialize, Serialize};

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

/// A share that leaves nothing out.
fn everything() -> f64 {
    1.0
}
