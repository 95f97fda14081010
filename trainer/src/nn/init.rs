//! Seeded initial values.

use candle_core::{DType, Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal, StandardUniform};

use super::streams::{Purpose, Streams};
use crate::Result;

/// A tensor of `shape` with independent normal entries of standard deviation `std`, drawn in f64 in row-major order from
/// the stream of `name`: the values depend on the seed and the name, not on what else is initialised.
pub fn normal(
    streams: &Streams,
    name: &str,
    shape: &[usize],
    std: f64,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let draw = |stream: &mut ChaCha8Rng| {
        let z: f64 = StandardNormal.sample(stream);
        std * z
    };
    drawn(streams, name, shape, draw, dtype, device)
}

/// The same with independent entries uniform between `-bound` and `bound`.
pub fn uniform(
    streams: &Streams,
    name: &str,
    shape: &[usize],
    bound: f64,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let draw = |stream: &mut ChaCha8Rng| {
        let u: f64 = StandardUniform.sample(stream);
        bound * (2.0 * u - 1.0)
    };
    drawn(streams, name, shape, draw, dtype, device)
}

fn drawn(
    streams: &Streams,
    name: &str,
    shape: &[usize],
    draw: impl Fn(&mut ChaCha8Rng) -> f64,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let mut stream = streams.stream(Purpose("init"), name_key(name), 0, 0);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| draw(&mut stream)).collect();
    Ok(Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?)
}

/// Folds a parameter name into a stream coordinate.
fn name_key(name: &str) -> u64 {
    name.bytes().fold(5381, |key: u64, byte| key.wrapping_mul(0x0001_0000_0001_b30b).wrapping_add(u64::from(byte) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_depend_on_seed_and_name_and_have_the_asked_spread() {
        let draw = |seed, name| {
            let t = normal(&Streams::new(seed), name, &[100, 100], 0.02, DType::F64, &Device::Cpu).unwrap();
            t.flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        let a = draw(1, "a");
        assert_eq!(a, draw(1, "a"));
        assert_ne!(a, draw(1, "b"));
        assert_ne!(a, draw(2, "a"));
        let variance = a.iter().map(|x| x * x).sum::<f64>() / a.len() as f64;
        // The variance of 10,000 draws has a relative standard deviation of 1.4%: five of them.
        assert!((variance / 0.0004 - 1.0).abs() < 0.07, "{variance}");
    }
}
