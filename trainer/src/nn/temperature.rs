//! Temperature, in one place for the sampler and for the scorer.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What logits are divided by before the softmax.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Temperature {
    divisor: f64,
}

impl Temperature {
    /// The model's own distribution: logits are divided by exactly 1.
    pub const ONE: Self = Self { divisor: 1.0 };

    /// The distribution at temperature `t`: logits are divided by `t + 1e-7`, as the paper's code does.
    /// Fails unless `t` is a positive number.
    pub fn new(t: f64) -> Result<Self> {
        match t.is_finite() && t > 0.0 {
            true => Ok(Self { divisor: t + 1e-7 }),
            false => Err(Error::invalid(format!("temperature: {t} (expected a number above 0; greedy is a mode)"))),
        }
    }

    /// The divisor of the logits.
    pub fn divisor(self) -> f64 {
        self.divisor
    }
}
