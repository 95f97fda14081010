//! Drawing many indices from one distribution that changes all the time.

use super::{Level, wide};
use rand::RngCore;

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
    /// Limited by the steps of a binary search without branches, of which the processor keeps several going at once.
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

wide! {
    fn search_all(ends: &[f64], uniform: &[f64], index: &mut [u32]) {
        for (index, &u) in index.iter_mut().zip(uniform) {
            let mut rest = ends;
            let mut base = 0;
            while rest.len() > 1 {
                let (left, right) = rest.split_at(rest.len() / 2);
                let above = left[left.len() - 1] <= u;
                base += if above { left.len() } else { 0 };
                rest = if above { right } else { left };
            }
            *index = base as u32;
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
