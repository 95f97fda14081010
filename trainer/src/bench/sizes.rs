//! Size of the measured model and batch, and whether a step with them is possible.

use serde::{Deserialize, Serialize};

use super::{Workload, machine};
use crate::models::{DecoderConfig, parameters};
use crate::nn::{DType, Place};
use crate::{Error, Result};

/// A GPT-NeoX of Pythia's proportions, and how much it reads in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Attention heads; they divide `hidden`.
    pub heads: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Tokens of a row; where there is a prompt it is the first half.
    pub seq: usize,
    /// Rows of cross-entropy, pairs of REBEL, prompts of sampling.
    pub batch: usize,
}

impl Sizes {
    /// The model.
    pub fn config(&self) -> DecoderConfig {
        DecoderConfig::neox(self.vocab, self.hidden, self.layers, self.heads, self.seq.max(2048))
    }

    /// Numbers in the model.
    pub fn parameters(&self) -> usize {
        let config = self.config();
        let shapes = parameters::parameters(&config, config.family.names().trunk, true);
        shapes.values().map(|shape| shape.iter().product::<usize>()).sum()
    }

    /// Tokens of a prompt.
    pub fn prompt(&self) -> usize {
        self.seq / 2
    }

    /// Refuses what is no model or no batch.
    ///
    /// # Errors
    /// [`Error::Usage`], naming the flag of `rebel bench`.
    pub(super) fn check(&self) -> Result<()> {
        let ranges = [
            ("--layers", self.layers, 1, 4096),
            ("--hidden", self.hidden, 1, 1 << 16),
            ("--heads", self.heads, 1, 1 << 16),
            ("--vocab", self.vocab, 2, 1 << 24),
            ("--seq", self.seq, 4, 1 << 20),
            ("--batch", self.batch, 1, 1 << 16),
        ];
        for (flag, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(Error::Usage(format!("{flag}: {value} (expected a whole number from {least} to {most})")));
            }
        }
        if !self.hidden.is_multiple_of(self.heads) {
            let (heads, hidden) = (self.heads, self.hidden);
            return Err(Error::Usage(format!(
                "--heads: {heads} does not divide --hidden {hidden} (expected a divisor)"
            )));
        }
        self.config().check().map_err(|(_, what)| {
            Error::Usage(format!("--hidden: {} with --heads {}: {what}", self.hidden, self.heads))
        })?;
        Ok(())
    }

    /// Refuses a `workload`, `micro_batch` groups a pass, that this machine has no memory for.
    ///
    /// # Errors
    /// [`Error::Invalid`], saying what it takes and what is free.
    pub(super) fn check_memory(&self, workload: Workload, micro_batch: usize, place: &Place) -> Result<()> {
        let needed = self.bytes_at_least(workload, micro_batch, place.dtype);
        match machine::available().filter(|&free| place.device.is_cpu() && needed > free as f64) {
            None => Ok(()),
            Some(free) => {
                let [needed, free] = [needed, free as f64].map(|bytes| bytes / f64::from(1 << 30));
                Err(Error::invalid(format!(
                    "{}: a step takes more than {needed:.1} GiB (expected at most the {free:.1} GiB that are free)",
                    workload.name()
                )))
            }
        }
    }

    /// What no way of computing a step does without: the weights, in training their gradients and two moments, and the
    /// input of every block (its keys in sampling).
    fn bytes_at_least(&self, workload: Workload, micro_batch: usize, dtype: DType) -> f64 {
        let (copies, rows) = if workload == Workload::Sample { (1.0, self.batch) } else { (4.0, micro_batch) };
        let inputs: f64 = [rows, self.seq, self.hidden, self.layers].map(|n| n as f64).iter().product();
        dtype.size_in_bytes() as f64 * (copies * self.parameters() as f64 + inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Sizes = Sizes { layers: 1, hidden: 16, heads: 2, vocab: 50, seq: 12, batch: 3 };

    #[test]
    fn the_usual_model_has_the_peers_number_of_parameters() {
        let usual = Sizes { layers: 6, hidden: 256, heads: 8, vocab: 2048, seq: 128, batch: 8 };
        assert_eq!(usual.parameters(), 5_787_648);
        usual.check().unwrap();
        usual.check_memory(Workload::Rebel, 8, &Place::HOST).unwrap();
    }

    #[test]
    fn impossible_sizes_are_refused_by_the_name_of_their_flag() {
        for (sizes, part) in [
            (Sizes { layers: 0, ..TINY }, "--layers: 0 "),
            (Sizes { hidden: usize::MAX, ..TINY }, "--hidden: 18"),
            (Sizes { heads: 3, ..TINY }, "--heads: 3 does not divide --hidden 16"),
            (Sizes { heads: 16, ..TINY }, "--hidden: 16 with --heads 16: "),
            (Sizes { vocab: 1, ..TINY }, "--vocab: 1 "),
            (Sizes { seq: 3, ..TINY }, "--seq: 3 "),
            (Sizes { batch: 0, ..TINY }, "--batch: 0 "),
        ] {
            let error = sizes.check().unwrap_err();
            assert!(matches!(&error, Error::Usage(what) if what.starts_with(part)), "{error}");
        }
        TINY.check().unwrap();
    }

    #[test]
    fn what_no_memory_holds_is_refused_before_it_is_begun() {
        let many = Sizes { layers: 100, hidden: 1 << 14, seq: 1 << 14, batch: 1 << 16, ..TINY };
        assert!(
            many.bytes_at_least(Workload::Sft, 1 << 16, DType::F32)
                > 1e3 * many.bytes_at_least(Workload::Sft, 1, DType::F32)
        );
        let huge = Sizes { layers: 4096, hidden: 1 << 16, heads: 1 << 10, ..TINY };
        huge.check().unwrap();
        if cfg!(target_os = "linux") {
            let error = huge.check_memory(Workload::Sample, 3, &Place::HOST).unwrap_err().to_string();
            assert!(error.starts_with("sample: a step takes more than "), "{error}");
        }
    }
}
