//! Checkpoints: a Hugging Face folder with the optimizer's moments and the run's place beside the weights.
//!
//! `state.json` is written last and the folder is renamed into its place, so a checkpoint is whole or not there.

use crate::algorithm::update::Optimizer;
use crate::models::card::Card;
use crate::models::tensors;
use crate::nn::{AdamW, AdamWSettings};
use crate::world::text::Text;
use crate::{Error, Result, files};
use serde::{Deserialize, Serialize};
use std::path::Path;

const MOMENTS: &str = "optimizer.safetensors";
const STATE: &str = "state.json";

/// Where a run stands. Random draws depend on (seed, step) alone, so this is all there is to go on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The stage's name.
    pub stage: String,
    /// Updates or iterations done.
    pub step: usize,
    /// Whether the stage has come to its end.
    pub finished: bool,
    /// What the run's random streams start from.
    pub seed: u64,
    /// Reward queries so far.
    pub queries: u64,
    /// Length of `metrics.jsonl` at this point.
    pub metrics_bytes: u64,
    /// Length of `samples.jsonl` at this point.
    pub samples_bytes: u64,
}

/// Writes a checkpoint to `folder`, replacing an earlier one only when the new one is whole.
///
/// # Errors
/// When something cannot be written; then the earlier one is still there.
pub fn save(folder: &Path, world: &Text, optimizer: &Optimizer, state: &State, card: &Card) -> Result<()> {
    files::write_folder(folder, |at| {
        world.save(at)?;
        card.write(at)?;
        tensors::save(&at.join(MOMENTS), &optimizer.adamw.to_tensors(world.parameters())?)?;
        let text = serde_json::to_string_pretty(state).expect("plain data");
        files::write_whole(&at.join(STATE), |w| w.write_all(text.as_bytes()))
    })
}

/// The state of the checkpoint in `folder`.
///
/// # Errors
/// When there is none, or it is not whole.
pub fn load_state(folder: &Path) -> Result<State> {
    let file = folder.join(STATE);
    let text = std::fs::read_to_string(&file).map_err(|e| Error::file(&file, e))?;
    serde_json::from_str(&text).map_err(|e| Error::file(&file, e))
}

/// The optimizer's moments of the checkpoint in `folder`, for the parameters of `world`.
///
/// # Errors
/// When they are missing or belong to other parameters.
pub fn load_moments(folder: &Path, settings: AdamWSettings, world: &Text) -> Result<AdamW> {
    let file = folder.join(MOMENTS);
    let tensors = tensors::load(&file)?;
    AdamW::load(settings, world.parameters(), &tensors)
}
