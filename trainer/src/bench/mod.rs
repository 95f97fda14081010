//! The language benchmark: how long a step of training and of sampling takes on this machine, for a model of any size.
//!
//! It goes through what a run goes through: [`algorithm::update`](crate::algorithm::update::update) on the text world,
//! and [`generate`](mod@crate::models::generate). `docs/speed.md` describes the [`Workload`]s, which
//! `trainer/benches/lm/peer_torch.py` computes too; [`measure`] times one of them, in a process of its own where its
//! peak memory shall be its own.

pub mod machine;
mod sizes;
mod workload;

pub use sizes::Sizes;
pub use workload::Workload;

use std::time::{Duration, Instant};

use rebel_theory::statistics::median;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::nn::{DType, Place, instructions};

/// How often and in which pieces a workload is run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The model and the batch.
    pub sizes: Sizes,
    /// Groups (rows of cross-entropy, pairs of REBEL) in one forward and backward pass; all of them where it is `None`.
    pub micro_batch: Option<usize>,
    /// Timed steps of training; sampling takes half as many, at least 3.
    pub repeat: usize,
}

impl Settings {
    /// Groups of a pass.
    fn groups(&self) -> usize {
        self.micro_batch.map_or(self.sizes.batch, |groups| groups.min(self.sizes.batch))
    }

    /// Whether `workload` can be measured in `place`; checked before anything large is made.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when the sizes are none, naming the flag of `rebel bench`;
    /// [`Error::Invalid`](crate::Error::Invalid) when a step does not fit into the memory that is free.
    pub fn check(&self, workload: Workload, place: &Place) -> Result<()> {
        self.sizes.check()?;
        self.sizes.check_memory(workload, self.groups(), place)
    }
}

/// What one workload took. `None`: this system does not tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The workload.
    pub mode: Workload,
    /// Tokens of a step by the median of its seconds.
    pub tokens_per_s: f64,
    /// The same by the least.
    pub best_tokens_per_s: f64,
    /// Median of a step's seconds.
    pub step_s: f64,
    /// Least of them.
    pub step_s_min: f64,
    /// Least CPU seconds of a step, all threads together.
    pub step_cpu_s_min: Option<f64>,
    /// The most memory of this process that was resident since it began, MiB.
    pub peak_rss_mb: Option<f64>,
    /// Tokens a step counts: of whole rows in training, new ones in sampling.
    pub tokens_per_step: usize,
    /// Timed steps.
    pub repeats: usize,
    /// Numbers in the model.
    pub parameters: usize,
    /// The model and the batch.
    #[serde(flatten)]
    pub sizes: Sizes,
    /// Groups in one pass of training; 0 for sampling.
    pub micro_batch: usize,
    /// Threads that compute.
    pub threads: usize,
    /// Type of the weights.
    pub dtype: String,
    /// The instruction set of the kernels.
    pub instructions: String,
    /// Of the last step: the loss, or the mean log-probability of a drawn token, nats.
    pub value: f64,
}

/// Steps whose time does not count: caches, clock rate, first pages, the optimizer's moments.
fn warm_up(workload: Workload) -> usize {
    if workload == Workload::Sample { 1 } else { 2 }
}

/// Runs `workload` in `place` and says what it took.
///
/// # Errors
/// When the sizes are impossible or do not fit into memory, or a step fails.
pub fn measure(workload: Workload, settings: &Settings, place: &Place) -> Result<Measured> {
    settings.check(workload, place)?;
    let (Settings { sizes, repeat, .. }, micro_batch) = (*settings, settings.groups());
    let mut step = workload.prepare(&sizes, micro_batch, place)?;
    for _ in 0..warm_up(workload) {
        step()?;
    }
    let repeats = if workload == Workload::Sample { (repeat / 2).max(3) } else { repeat };
    let (mut seconds, mut cpu, mut value) = (Vec::with_capacity(repeats), Vec::with_capacity(repeats), 0.0);
    for _ in 0..repeats {
        let (clock, processor) = (Instant::now(), machine::cpu_time());
        value = step()?;
        seconds.push(clock.elapsed().as_secs_f64());
        cpu.extend(
            machine::cpu_time().zip(processor).map(|(after, before): (Duration, _)| (after - before).as_secs_f64()),
        );
    }
    let least = |sample: &[f64]| sample.iter().copied().reduce(f64::min);
    let (typical, best) = (median(&seconds), least(&seconds).unwrap_or(f64::NAN));
    let tokens = workload.tokens(&sizes);
    let kernels = place.device.is_cpu() && place.dtype == DType::F32;
    Ok(Measured {
        mode: workload,
        tokens_per_s: rounded(tokens as f64 / typical, 1),
        best_tokens_per_s: rounded(tokens as f64 / best, 1),
        step_s: rounded(typical, 6),
        step_s_min: rounded(best, 6),
        step_cpu_s_min: least(&cpu).map(|s| rounded(s, 6)),
        peak_rss_mb: machine::peak_resident().map(|bytes| rounded(bytes as f64 / f64::from(1 << 20), 1)),
        tokens_per_step: tokens,
        repeats,
        parameters: sizes.parameters(),
        sizes,
        micro_batch: if workload == Workload::Sample { 0 } else { micro_batch },
        threads: rayon::current_num_threads(),
        dtype: place.dtype.as_str().into(),
        instructions: if kernels { instructions::current() } else { "candle" }.into(),
        value,
    })
}

/// `value` to `digits` places: more would be noise in a file.
fn rounded(value: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (value * unit).round() / unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_every_workload_computes_what_its_tokens_are_worth() {
        let sizes = Sizes { layers: 1, hidden: 16, heads: 2, vocab: 50, seq: 12, batch: 3 };
        let settings = Settings { sizes, micro_batch: None, repeat: 1 };
        let uniform = f64::from(50).ln();
        for (workload, tokens) in
            [(Workload::Sft, 36), (Workload::Rebel, 72), (Workload::RebelUnshared, 72), (Workload::Sample, 18)]
        {
            let found = measure(workload, &settings, &Place::HOST).unwrap();
            assert_eq!(found.tokens_per_step, tokens);
            assert_eq!(found.repeats, if workload == Workload::Sample { 3 } else { 1 });
            // Fresh weights know nothing: each token costs about what it would among equals.
            match workload {
                Workload::Sft => assert!((found.value - uniform).abs() < 0.2, "{}", found.value),
                Workload::Sample => assert!((found.value + uniform).abs() < 0.2, "{}", found.value),
                // the squared difference of two rewards, each with variance 1: not nothing, and not far from 2
                _ => assert!(found.value > 0.01 && found.value < 20.0, "{}", found.value),
            }
        }
    }

    #[test]
    fn pieces_of_a_batch_do_not_change_the_loss() {
        let sizes = Sizes { layers: 1, hidden: 16, heads: 2, vocab: 50, seq: 12, batch: 4 };
        for workload in [Workload::Sft, Workload::Rebel, Workload::RebelUnshared] {
            let loss = |micro_batch| {
                let settings = Settings { sizes, micro_batch, repeat: 2 };
                measure(workload, &settings, &Place::HOST).unwrap().value
            };
            let whole = loss(None);
            assert!((loss(Some(1)) / whole - 1.0).abs() < 1e-4, "{workload:?}");
            assert_eq!(loss(Some(100)), whole);
        }
    }
}
