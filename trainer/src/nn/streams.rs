//! Random streams that depend on what they are for and on nothing else.
//!
//! Each draw site names its purpose, step, prompt and sample and gets its own ChaCha stream, so that neither the batch
//! size, nor the order of work, nor the number of threads changes a draw (candle's CPU generator cannot be seeded).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// What a stream is for. The text is part of the key: a stable, unique name such as `"sample"` or `"shuffle"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purpose(pub &'static str);

/// All streams of one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    seed: u64,
}

impl Streams {
    /// The streams of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The stream of (`purpose`, `step`, `prompt`, `sample`). Key: seed, hash of the purpose, step and prompt, 64 bits
    /// each, little-endian; stream number: sample. Only the purpose is hashed, so no other two ever collide.
    pub fn stream(&self, purpose: Purpose, step: u64, prompt: u64, sample: u64) -> ChaCha8Rng {
        let mut key = [0u8; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([self.seed, fnv1a(purpose.0), step, prompt]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let mut stream = ChaCha8Rng::from_seed(key);
        stream.set_stream(sample);
        stream
    }
}

/// 64-bit FNV-1a: fixed for ever, unlike the standard library's hasher.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn each_coordinate_gives_another_stream_and_the_same_one_again() {
        let draw = |seed, purpose, step, prompt, sample| {
            Streams::new(seed).stream(Purpose(purpose), step, prompt, sample).random::<u64>()
        };
        let base = draw(1, "sample", 2, 3, 4);
        assert_eq!(base, draw(1, "sample", 2, 3, 4));
        for other in [
            draw(2, "sample", 2, 3, 4),
            draw(1, "shuffle", 2, 3, 4),
            draw(1, "sample", 3, 3, 4),
            draw(1, "sample", 2, 4, 4),
            draw(1, "sample", 2, 3, 5),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn the_hash_of_a_purpose_is_the_published_one() {
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c);
    }
}
