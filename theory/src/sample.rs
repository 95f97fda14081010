//! Sampling: contexts and responses drawn exactly from their tables, one uniform number a draw.

use crate::bandit::Policy;
use ndarray::{Array1, Array2, ArrayView1};
use rand::Rng;

/// Draws responses of a policy by inverting its cumulative distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampler {
    cumulative: Array2<f64>, // [x, y]
}

impl Sampler {
    /// A sampler of `policy`.
    pub fn new(policy: &Policy) -> Self {
        let mut cumulative = policy.prob().clone();
        cumulative.rows_mut().into_iter().for_each(|mut row| {
            row.iter_mut().fold(0.0, |sum, p| {
                *p += sum;
                *p
            });
        });
        Self { cumulative }
    }

    /// The response that a uniform number `u` in `[0, 1)` stands for in context `x`: the first `y` whose cumulative
    /// probability is above `u`. A response of probability zero is never the answer.
    pub fn at(&self, x: usize, u: f64) -> usize {
        first_above(self.cumulative.row(x), u)
    }

    /// One response of context `x`.
    pub fn draw(&self, x: usize, rng: &mut impl Rng) -> usize {
        self.at(x, rng.random())
    }
}

/// Draws contexts from their weights.
#[derive(Debug, Clone, PartialEq)]
pub struct ContextSampler {
    cumulative: Array1<f64>, // [x]
}

impl ContextSampler {
    /// A sampler of contexts with these weights `[x]`, which sum to one.
    pub fn new(weights: &Array1<f64>) -> Self {
        let mut cumulative = weights.clone();
        cumulative.iter_mut().fold(0.0, |sum, p| {
            *p += sum;
            *p
        });
        Self { cumulative }
    }

    /// The context that a uniform number `u` in `[0, 1)` stands for. A context of weight zero is never the answer.
    pub fn at(&self, u: f64) -> usize {
        first_above(self.cumulative.view(), u)
    }

    /// One context. A context of weight zero is never drawn.
    pub fn draw(&self, rng: &mut impl Rng) -> usize {
        self.at(rng.random())
    }
}

/// The first index whose cumulative weight is above `u`; where rounding leaves the last one below `u`, the last index
/// that adds weight.
fn first_above(cumulative: ArrayView1<f64>, u: f64) -> usize {
    let total = cumulative[cumulative.len() - 1];
    cumulative.iter().position(|&c| c > u || c == total).expect("the last entry is the total")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn uniform_number_falls_into_its_interval_and_never_on_zero_probability() {
        let sampler = Sampler::new(&Policy::new("pi", array![[0.0, 0.25, 0.0, 0.75, 0.0]]).unwrap());
        let at = [0.0, 0.2499, 0.25, 0.999_999, 1.0].map(|u| sampler.at(0, u));
        assert_eq!(at, [1, 1, 3, 3, 3]);
    }

    #[test]
    fn frequencies_pass_a_chi_square_test() {
        // false-alarm rate 1e-6: chi-square with 3 degrees of freedom above 30.66
        let p = array![[0.1, 0.2, 0.3, 0.4]];
        let sampler = Sampler::new(&Policy::new("pi", p.clone()).unwrap());
        let contexts = ContextSampler::new(&p.row(0).to_owned());
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let n = 100_000;
        let (mut responses, mut seen) = ([0.0; 4], [0.0; 4]);
        for _ in 0..n {
            responses[sampler.draw(0, &mut rng)] += 1.0;
            seen[contexts.draw(&mut rng)] += 1.0;
        }
        for counts in [responses, seen] {
            let expected = p.row(0).mapv(|q| q * n as f64);
            let chi: f64 = counts.iter().zip(&expected).map(|(c, e)| (c - e).powi(2) / e).sum();
            assert!(chi < 30.66, "{chi}");
        }
    }
}
