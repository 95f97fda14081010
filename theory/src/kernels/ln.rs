//! The natural logarithm, within one unit in the last place.

use super::{LANES, filled, wide};

/// ln 2 to 32 bits, so that its product with an exponent is exact, and the rest.
const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// Coefficients of `(2 artanh(s) / s - 2) / s^2` as a polynomial in `s^2`, for `|s| <= 3 - 2 sqrt 2`: a Remez fit of degree
/// 6, error 2.3e-18 in the logarithm's relative terms.
const TAIL: [f64; 7] = [
    0.666_666_666_666_671,
    0.399_999_999_995_198_25,
    0.285_714_287_292_846_54,
    0.222_221_990_909_069_86,
    0.181_835_715_404_781_94,
    0.153_131_643_924_150_2,
    0.148_105_198_206_888_1,
];

/// The natural logarithm: minus infinity of 0, NaN of a negative number, infinity of infinity.
///
/// With `x = 2^k m`, `m` between `sqrt(1/2)` and `sqrt 2`, and `f = m - 1`, `s = f / (2 + f)`:
/// `ln m = 2 artanh s = f - f^2/2 + s (f^2/2 + R)`, where only the last, small term is approximated.
#[inline(always)]
pub(super) fn ln(x: f64) -> f64 {
    const ROOT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    let tiny = x < f64::MIN_POSITIVE;
    let bits = (if tiny { x * 18_014_398_509_481_984.0 } else { x }).to_bits(); // 2^54 lifts a subnormal number
    let k = (bits.wrapping_sub(ROOT_HALF) as i64) >> 52;
    let f = f64::from_bits(bits.wrapping_sub((k as u64) << 52)) - 1.0;
    let k = k as f64 - if tiny { 54.0 } else { 0.0 };
    let s = f / (2.0 + f);
    let z = s * s;
    let mut r = TAIL[6];
    r = r.mul_add(z, TAIL[5]);
    r = r.mul_add(z, TAIL[4]);
    r = r.mul_add(z, TAIL[3]);
    r = r.mul_add(z, TAIL[2]);
    r = r.mul_add(z, TAIL[1]);
    r = r.mul_add(z, TAIL[0]);
    let half = 0.5 * f * f;
    let small = s.mul_add(r.mul_add(z, half), k * LN_2_LOW);
    let ln = k.mul_add(LN_2_HIGH, f - (half - small));
    let ln = if x > 0.0 { ln } else { f64::NAN };
    let ln = if x == 0.0 { f64::NEG_INFINITY } else { ln };
    if x == f64::INFINITY { x } else { ln }
}

wide! {
    /// Replaces every number of a slice by its logarithm, [`ln`].
    fn logarithms(values: &mut [f64]) {
        let (blocks, tail) = values.as_chunks_mut::<LANES>();
        for block in blocks {
            for value in block {
                *value = ln(*value);
            }
        }
        let mut last = filled(tail, 1.0);
        for value in &mut last {
            *value = ln(*value);
        }
        tail.copy_from_slice(&last[..tail.len()]);
    }
}

/// Replaces every number by its natural logarithm, within one unit in the last place; as [`f64::ln`] at zero, negative
/// numbers, infinity and NaN.
pub fn ln_in_place(values: &mut [f64]) {
    logarithms(super::Level::best(), values);
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn arguments() -> Vec<f64> {
        let near = (1..200_000).map(|i| f64::from(i) * 1e-5 * 1.000_123);
        let powers = (-1074..1024).flat_map(|k| [2f64.powi(k), 2f64.powi(k) * 1.37, 2f64.powi(k) * 0.72]);
        let special = [0.0, -0.0, -1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::MAX, 5e-324, 1.0];
        near.chain(powers).chain(special).collect()
    }

    #[test]
    fn logarithm_is_within_one_unit_in_the_last_place_of_the_library() {
        let arguments = arguments();
        let mut ours = arguments.clone();
        ln_in_place(&mut ours);
        for (&x, &got) in arguments.iter().zip(&ours) {
            let want = x.ln();
            let apart = got.to_bits().abs_diff(want.to_bits());
            assert!(apart <= 1 || got == want || (got.is_nan() && want.is_nan()), "ln({x:e}) = {got:e}, not {want:e}");
        }
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let at = |level: Level| {
            let mut values = arguments();
            logarithms(level, &mut values);
            values.into_iter().map(f64::to_bits).collect::<Vec<_>>()
        };
        Level::available().into_iter().for_each(|level| assert_eq!(at(level), at(Level::best()), "{level:?}"));
    }
}
