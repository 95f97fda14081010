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
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn multipliers_are_those_of_transformers() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/hf/optim/optim.json");
        let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let mut compared = 0;
        for (name, values) in json["lr_multiplier_by_step"].as_object().unwrap() {
            let parts: Vec<&str> = name.split('_').collect();
            let decay = match parts[0] {
                "linear" | "repo" => Decay::Linear,
                "cosine" => Decay::Cosine,
                "constant" => Decay::Constant,
                other => panic!("unknown schedule {other}"),
            };
            let number = |c: char| parts.iter().find_map(|p| p.strip_prefix(c)?.parse().ok());
            let schedule = Schedule { decay, warmup: number('w').unwrap_or(0), total: number('t').unwrap() };
            for (step, value) in values.as_array().unwrap().iter().enumerate() {
                let got = schedule.multiplier(step as u64);
                assert!((got - value.as_f64().unwrap()).abs() < 1e-12, "{name}[{step}]: {got}, expected {value}");
                compared += 1;
            }
        }
        assert!(compared > 50);
    }
}
