//! Drawing many indices from one distribution that changes all the time.

use super::{Level, wide};
use rand::RngCore;
use std::hint::select_unpredictable;

/// The cumulative distribution of a row of probabilities, ready to be searched.
#[derive(Debug, Clone, Default)]
pub struct Cumulative {
    ends: Vec<f64>, // a power of two; infinite from the last index that adds weight on
}

impl Cumulative {
    /// Takes the distribution in place of the one before, without allocating if it is no longer.
    ///
    /// Limited by the latency of one addition an entry.
    pub fn set(&mut self, prob: &[f64]) {
        self.ends.clear();
        self.ends.extend_from_slice(prob);
        let mut total = 0.0;
        for end in &mut self.ends {
            total += *end;
            *end = total;
        }
        for end in &mut self.ends {
            *end = if *end >= total { f64::INFINITY } else { *end };
        }
        self.ends.resize(prob.len().next_power_of_two(), f64::INFINITY);
    }

    /// The index each uniform number in `[0, 1)` stands for: the first whose cumulative probability is above it; where
    /// rounding leaves all of them below, the last that adds weight. As [`crate::sample::Sampler::at`].
    ///
    /// A binary search without branches, which no predictor could foresee; limited by its instructions, seven for every
    /// number and halving.
    pub fn search(&self, level: Level, uniform: &[f64], index: &mut [u32]) {
        search_all(level, &self.ends, uniform, index);
    }
}

/// Uniform numbers in `[0, 1)`, made many at a time.
#[derive(Debug, Clone, Default)]
pub struct Uniform {
    bytes: Vec<u8>,
    numbers: Vec<f64>,
}

impl Uniform {
    /// The next `count` numbers of a stream: those that as many calls of `rng.random::<f64>()` would give.
    ///
    /// Limited by the generator.
    pub fn draw(&mut self, level: Level, count: usize, rng: &mut impl RngCore) -> &[f64] {
        self.bytes.resize(8 * count, 0);
        self.numbers.resize(count, 0.0);
        rng.fill_bytes(&mut self.bytes);
        numbers_of(level, &self.bytes, &mut self.numbers);
        &self.numbers
    }
}

/// The distance of two uniform numbers: 2^-53.
const UNIT: f64 = 1.0 / (1u64 << 53) as f64;

wide! {
    fn numbers_of(bytes: &[u8], numbers: &mut [f64]) {
        for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *number = (u64::from_le_bytes(*bytes) >> 11) as i64 as f64 * UNIT;
        }
    }
}

/// The index of each of `N` numbers, searched side by side so that their loads and comparisons overlap. `ends` is as long as
/// a power of two.
#[inline(always)]
fn search_some<const N: usize>(ends: &[f64], uniform: &[f64; N]) -> [u32; N] {
    let mut base = [0usize; N];
    let mut half = ends.len() / 2;
    while half > 0 {
        let middle = &ends[half - 1..]; // at a base: the last entry of the first half of what is left there
        for (base, &u) in base.iter_mut().zip(uniform) {
            let next = base.wrapping_add(half); // at most the length
            *base = select_unpredictable(middle[*base] <= u, next, *base);
        }
        half /= 2;
    }
    base.map(|index| index as u32)
}

wide! {
    fn search_all(ends: &[f64], uniform: &[f64], index: &mut [u32]) {
        let ((groups, rest), (indices, last)) = (uniform.as_chunks::<8>(), index.as_chunks_mut::<8>());
        for (index, group) in indices.iter_mut().zip(groups) {
            *index = search_some(ends, group);
        }
        for (index, &u) in last.iter_mut().zip(rest) {
            [*index] = search_some(ends, &[u]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::scattered;
    use super::*;
    use crate::bandit::Policy;
    use crate::sample::Sampler;
    use ndarray::Array2;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn numbers_are_those_of_single_draws_at_every_level() {
        let mut single = ChaCha8Rng::seed_from_u64(3);
        let want: Vec<f64> = (0..100).map(|_| single.random()).collect();
        for level in Level::available() {
            let (mut many, mut uniform) = (ChaCha8Rng::seed_from_u64(3), Uniform::default());
            let got = [uniform.draw(level, 37, &mut many).to_vec(), uniform.draw(level, 63, &mut many).to_vec()];
            assert_eq!(got.concat(), want);
        }
    }

    #[test]
    fn search_finds_what_the_sampler_finds_at_every_size() {
        let mut cumulative = Cumulative::default();
        for n in (1..40).chain([100, 257]) {
            let mut weights: Vec<f64> = scattered(n).into_iter().map(|v| v.abs() + 0.01).collect();
            weights.iter_mut().step_by(3).skip(1).for_each(|w| *w = 0.0);
            let sum: f64 = weights.iter().sum();
            let prob = Array2::from_shape_vec((1, n), weights).unwrap() / sum;
            let sampler = Sampler::new(&Policy::new("pi", prob.clone()).unwrap());
            let mut uniform: Vec<f64> = scattered(300).into_iter().map(|v| (v + 1.0) / 2.0).collect();
            uniform.extend([0.0, 1.0 - f64::EPSILON / 2.0]);
            let mut index = vec![0; uniform.len()];
            cumulative.set(prob.as_slice().unwrap());
            cumulative.search(Level::best(), &uniform, &mut index);
            for (&u, &got) in uniform.iter().zip(&index) {
                assert_eq!(got as usize, sampler.at(0, u), "{n} {u}");
            }
        }
    }
}
