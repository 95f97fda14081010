//! Learning-rate schedules: the multiplier of the base rate at each step, as transformers' `get_scheduler` gives it.

use serde::{Deserialize, Serialize};

/// Shape of the multiplier after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// 1 for ever.
    Constant,
    /// A straight line from 1 to 0 at the last step.
    Linear,
    /// Half a cosine from 1 to 0 at the last step.
    Cosine,
    /// 1 / sqrt(1 + n / W) after n steps, W the steps of warm-up (10,000 where there are none): no last step.
    InverseSqrt,
}

/// A decay behind a linear warm-up from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// What follows the warm-up.
    pub decay: Decay,
    /// Steps of warm-up.
    pub warmup: u64,
    /// All steps, warm-up included.
    pub total: u64,
}

impl Schedule {
    /// What transformers' `get_scheduler` makes of a name, every other argument as it stands by default: `cosine_with_restarts`
    /// has one cycle and so is the cosine, `constant` has no warm-up. None for a name that depends on more.
    pub fn named(kind: &str, warmup: u64, total: u64) -> Option<Self> {
        let (decay, warmup) = match kind {
            "constant" => (Decay::Constant, 0),
            "constant_with_warmup" => (Decay::Constant, warmup),
            "linear" => (Decay::Linear, warmup),
            "cosine" | "cosine_with_restarts" => (Decay::Cosine, warmup),
            "inverse_sqrt" => (Decay::InverseSqrt, warmup),
            _ => return None,
        };
        Some(Self { decay, warmup, total })
    }

    /// Multiplier of the base rate at `step` (0 is the first update).
    pub fn multiplier(&self, step: u64) -> f64 {
        let Self { decay, warmup, total } = *self;
        if step < warmup {
            return step as f64 / warmup.max(1) as f64;
        }
        let length = total.saturating_sub(warmup).max(1) as f64;
        match decay {
            Decay::Constant => 1.0,
            Decay::Linear => total.saturating_sub(step) as f64 / length,
            Decay::Cosine => {
                let progress = (step - warmup) as f64 / length;
                (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0)
            }
            Decay::InverseSqrt => {
                let scale = if warmup == 0 { 10_000.0 } else { warmup as f64 };
                (1.0 + (step - warmup) as f64 / scale).sqrt().recip()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // transformers' own values are compared where the vectors of the optimizer are run.
    #[test]
    fn schedules_at_points_worked_by_hand() {
        for (kind, warmup, total, step, expected) in [
            ("constant", 5, 10, 0, 1.0),
            ("constant_with_warmup", 5, 10, 2, 0.4),
            ("linear", 2, 12, 7, 0.5),
            ("linear", 0, 10, 11, 0.0),
            ("linear", 20, 10, 5, 0.25),
            ("cosine", 0, 4, 1, 0.5 + 0.5f64.powf(1.5)),
            ("cosine_with_restarts", 0, 4, 2, 0.5),
            ("inverse_sqrt", 4, 100, 2, 0.5),
            ("inverse_sqrt", 4, 100, 16, 0.5),
            ("inverse_sqrt", 0, 100, 30_000, 0.5),
        ] {
            let got = Schedule::named(kind, warmup, total).unwrap().multiplier(step);
            assert!((got - expected).abs() < 1e-15, "{kind} {warmup} {total} at {step}: {got}");
        }
        assert_eq!(Schedule::named("polynomial", 0, 10), None);
    }
}
