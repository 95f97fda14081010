//! Rotary positions (Su et al., arXiv 2104.09864): the angles by which pairs of components turn with a token's position,
//! and the ways checkpoints stretch them to longer contexts.

use std::f64::consts::TAU;

use candle_core::DType;

/// How frequencies differ from the plain ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every frequency divided by `factor`: position interpolation (Chen et al., arXiv 2306.15595).
    Linear {
        /// How many times longer the context became.
        factor: f64,
    },
    /// Llama 3.1's: slow frequencies divided by `factor`, fast ones kept, those between interpolated.
    Llama3 {
        /// Divisor of the slow frequencies.
        factor: f64,
        /// Waves longer than `original / low` positions are slow.
        low: f64,
        /// Waves shorter than `original / high` positions are fast; above `low`.
        high: f64,
        /// Longest sequence before the stretching, tokens.
        original: usize,
    },
}

/// Which components of a head turn, and how fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// The leading components of a head that turn; even. Component i is paired with component i + dims / 2.
    pub dims: usize,
    /// Base of the frequencies: pair i turns by `theta^(-2 i / dims)` a position.
    pub theta: f64,
    /// What is done to them.
    pub scaling: RopeScaling,
}

impl Rope {
    /// Radians a position for each pair, `[dims / 2]`, rounded as the arithmetic of `dtype` rounds them: checkpoints were
    /// trained with frequencies in f32, and thousands of positions make their rounding visible.
    pub fn frequencies(&self, dtype: DType) -> Vec<f64> {
        let narrow = |x: f64| if dtype == DType::F64 { x } else { f64::from(x as f32) };
        (0..self.dims / 2)
            .map(|i| {
                let exponent = narrow((2 * i) as f64 / self.dims as f64);
                let plain = narrow(narrow(self.theta.powf(exponent)).recip());
                narrow(self.scaling.apply(plain))
            })
            .collect()
    }

    /// Cosine and sine of the angles at each position, `[positions, dims / 2]`.
    pub fn turns(&self, positions: &[u32], dtype: DType) -> Vec<(f64, f64)> {
        let frequencies = self.frequencies(dtype);
        let turn = |position: u32, frequency: f64| {
            let angle = match dtype {
                DType::F64 => f64::from(position) * frequency,
                _ => f64::from(position as f32 * frequency as f32),
            };
            (angle.cos(), angle.sin())
        };
        positions.iter().flat_map(|&p| frequencies.iter().map(move |&f| turn(p, f))).collect()
    }
}

impl RopeScaling {
    /// The frequency used instead of `plain`, both in radians a position.
    fn apply(self, plain: f64) -> f64 {
        match self {
            Self::None => plain,
            Self::Linear { factor } => plain / factor,
            Self::Llama3 { factor, low, high, original } => {
                let waves = original as f64 * plain / TAU; // how often it turned round in the original context
                match waves {
                    _ if waves < low => plain / factor,
                    _ if waves > high => plain,
                    _ => {
                        let kept = (waves - low) / (high - low);
                        (1.0 - kept) * plain / factor + kept * plain
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Rope = Rope { dims: 8, theta: 10_000.0, scaling: RopeScaling::None };

    #[test]
    fn frequencies_fall_from_one_by_equal_ratios() {
        let worked = [1.0, 0.1, 0.01, 0.001]; // 10000^(-i/4)
        for (got, want) in PLAIN.frequencies(DType::F64).into_iter().zip(worked) {
            assert!((got - want).abs() < 1e-15, "{got}");
        }
        let rounded = PLAIN.frequencies(DType::F32);
        assert!(rounded.iter().all(|&f| f == f64::from(f as f32)) && rounded[1] != 0.1);
    }

    #[test]
    fn a_linear_factor_of_four_turns_four_positions_by_the_angle_of_one() {
        let stretched = Rope { scaling: RopeScaling::Linear { factor: 4.0 }, ..PLAIN };
        let (slow, fast) = (stretched.turns(&[0, 4, 40], DType::F64), PLAIN.turns(&[0, 1, 10], DType::F64));
        assert!(slow.iter().zip(&fast).all(|(a, b)| (a.0 - b.0).abs() < 1e-14 && (a.1 - b.1).abs() < 1e-14));
    }

    #[test]
    fn llama_3_keeps_fast_waves_stretches_slow_ones_and_interpolates_between() {
        // 600, 6 and 2 turns in the original context, and 0.6: fast, fast, half-way between 1 and 3, slow.
        let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 3.0, original: 600 };
        let at = |waves: f64| scaling.apply(TAU * waves / 600.0) * 600.0 / TAU;
        for (waves, want) in [(600.0, 600.0), (6.0, 6.0), (2.0, 0.5 * 2.0 / 8.0 + 0.5 * 2.0), (0.6, 0.075)] {
            assert!((at(waves) - want).abs() < 1e-12, "{waves}: {}", at(waves));
        }
    }
}
