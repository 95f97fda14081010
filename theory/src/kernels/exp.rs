//! The exponential, within one unit in the last place: a power of two times a polynomial, without branches.

use super::{LANES, filled, wide};
use std::f64::consts::{LN_2, LOG2_E};

/// Adding it leaves the nearest integer in the low bits: 1.5 * 2^52.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// ln 2 minus [`LN_2`]; with fused multiply-adds the first part needs no zeros at its end.
const LN_2_REST: f64 = 2.319_046_813_846_299_6e-17;

/// Coefficients of `(e^r - 1 - r) / r^2` on `[-ln 2 / 2, ln 2 / 2]`: a Remez fit of degree 9, relative error 9.5e-18 of `e^r`.
const TAIL: [f64; 10] = [
    0.500_000_000_000_001,
    0.166_666_666_666_666_74,
    0.041_666_666_666_521_99,
    0.008_333_333_333_322_207,
    0.001_388_888_894_782_089_1,
    0.000_198_412_698_865_91,
    2.480_148_732_601_234_3e-5,
    2.755_724_233_668_041e-6,
    2.763_265_575_933_008_3e-7,
    2.511_004_989_583_968e-8,
];

/// Arguments at least this far from zero may leave the range of normal numbers.
const SAFE: f64 = 708.0;

/// Whether every argument from `low` up, none of them above zero, is in the range of [`exp_normal`].
#[inline(always)]
pub(super) fn is_normal(low: f64) -> bool {
    low >= -SAFE
}

/// `e^r` and `n + ROUND` for `x = n ln 2 + r`.
#[inline(always)]
fn reduced(x: f64) -> (f64, f64) {
    let shifted = x.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_REST, n.mul_add(-LN_2, x));
    let mut q = TAIL[9];
    q = q.mul_add(r, TAIL[8]);
    q = q.mul_add(r, TAIL[7]);
    q = q.mul_add(r, TAIL[6]);
    q = q.mul_add(r, TAIL[5]);
    q = q.mul_add(r, TAIL[4]);
    q = q.mul_add(r, TAIL[3]);
    q = q.mul_add(r, TAIL[2]);
    q = q.mul_add(r, TAIL[1]);
    q = q.mul_add(r, TAIL[0]);
    ((r * r).mul_add(q, r) + 1.0, shifted)
}

/// `2^n` from `n + ROUND`, for `n` in -1022..=1023.
#[inline(always)]
fn power(shifted: f64) -> f64 {
    f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52)
}

/// The exponential of `|x| <= 708`.
#[inline(always)]
pub(super) fn exp_normal(x: f64) -> f64 {
    let (e, shifted) = reduced(x);
    e * power(shifted)
}

/// The exponential of any number: 0 of minus infinity, infinity above 709.78, gradual underflow, NaN of NaN. Where
/// [`exp_normal`] applies it gives the same bits.
#[inline(always)]
pub(super) fn exp_any(x: f64) -> f64 {
    // Comparisons rather than `clamp`, so that a NaN stays one.
    let bounded = if x < -746.0 { -746.0 } else { x };
    let bounded = if bounded > 710.0 { 710.0 } else { bounded };
    let (e, shifted) = reduced(bounded);
    // Two factors, as 2^1024 and 2^-1075 are none; the first product is exact, so it is rounded once.
    let n = shifted - ROUND;
    let half = n.mul_add(0.5, ROUND);
    e * power(half) * power(n - (half - ROUND) + ROUND)
}

wide! {
    /// Replaces every number of a slice by its exponential, [`exp_any`].
    ///
    /// Limited by arithmetic: 15 instructions that multiply for every 8 numbers under AVX-512, 0.6 ns a number.
    fn exponentials(values: &mut [f64]) {
        let (blocks, tail) = values.as_chunks_mut::<LANES>();
        for block in blocks {
            for value in block {
                *value = exp_any(*value);
            }
        }
        let mut last = filled(tail, 0.0);
        for value in &mut last {
            *value = exp_any(*value);
        }
        tail.copy_from_slice(&last[..tail.len()]);
    }
}

/// Replaces every number by its exponential, within one unit in the last place; as [`f64::exp`] at infinities, NaN and in
/// the range of subnormal results.
pub fn exp_in_place(values: &mut [f64]) {
    exponentials(super::Level::best(), values);
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    /// Arguments over the whole range, dense around zero.
    fn arguments() -> Vec<f64> {
        let wide = (-760_000..=720_000).map(|i| f64::from(i) * 1e-3 + 1.7e-5);
        let near = (-40_000..40_000).map(|i| f64::from(i) * 1e-5 * 1.000_123);
        let small = (0..1080).flat_map(|k| [2f64.powi(-k), -2f64.powi(-k)]);
        let special = [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::MAX, f64::MIN, 709.78, -745.13];
        wide.chain(near).chain(small).chain(special).collect()
    }

    #[test]
    fn exponential_is_within_one_unit_in_the_last_place_of_the_library() {
        let arguments = arguments();
        let mut ours = arguments.clone();
        exp_in_place(&mut ours);
        for (&x, &got) in arguments.iter().zip(&ours) {
            let want = x.exp();
            let apart = got.to_bits().abs_diff(want.to_bits());
            assert!(apart <= 1 || (got.is_nan() && want.is_nan()), "exp({x:e}) = {got:e}, not {want:e}");
        }
    }

    #[test]
    fn both_forms_and_every_level_give_the_same_bits() {
        let arguments = arguments();
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let mut first = arguments.clone();
        exp_in_place(&mut first);
        for level in Level::available() {
            let mut again = arguments.clone();
            exponentials(level, &mut again);
            assert_eq!(bits(&first), bits(&again), "{level:?}");
        }
        for (&x, &got) in arguments.iter().zip(&first).filter(|(x, _)| x.abs() <= SAFE) {
            assert_eq!(exp_normal(x).to_bits(), got.to_bits(), "{x:e}");
        }
    }

    #[test]
    fn place_in_the_slice_does_not_matter() {
        for n in 0..40 {
            let mut row: Vec<f64> = (0..n).map(|i| i as f64 * 0.37 - 5.0).collect();
            let alone = row.iter().map(|&x| exp_any(x)).collect::<Vec<_>>();
            exp_in_place(&mut row);
            assert_eq!(row, alone);
        }
    }
}
