//! Lanes as an array: what the others must equal, on any processor.

use super::{LANES, Simd};
use crate::gemm;

/// The portable lanes.
#[derive(Clone, Copy)]
pub struct Portable;

type V = [f32; LANES];

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> V {
    let mut v = [0.0; LANES];
    for (i, x) in v.iter_mut().enumerate() {
        *x = f(i);
    }
    v
}

/// Halves are folded until one lane is left.
#[inline(always)]
fn fold(mut v: V, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut n = LANES;
    while n > 1 {
        n /= 2;
        for i in 0..n {
            v[i] = f(v[i], v[i + n]);
        }
    }
    v[0]
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// `a b + c` with one rounding.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// The same where the instruction may be missing and the library's function is a call: the product is exact in f64, and the
/// sum is rounded to odd there (Boldo and Melquiond, IEEE Transactions on Computers 57, 2008), so that rounding it again
/// to f32 gives what one rounding gives.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    let of_c = sum - product;
    let lost = (product - (sum - of_c)) + (c - of_c);
    let bits = sum.to_bits();
    // Away from zero where what was lost has the sum's sign, else towards it; not where nothing was, nor what is no number.
    let even = u64::from(lost.abs() > 0.0) & !bits & 1;
    let away = if (lost.to_bits() ^ bits) >> 63 == 0 { even } else { even.wrapping_neg() };
    f64::from_bits(bits.wrapping_add(away)) as f32
}

impl Simd for Portable {
    type V = V;
    const WIDE: usize = 1;
    const TALL: usize = 4;

    #[inline(always)]
    unsafe fn load(p: *const f32) -> V {
        p.cast::<V>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: V) {
        p.cast::<V>().write_unaligned(v);
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: V, b: V, c: V) -> V {
        each(|i| fused(a[i], b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        each(|i| larger(a[i], b[i]))
    }
    #[inline(always)]
    unsafe fn min(a: V, b: V) -> V {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn sqrt(a: V) -> V {
        each(|i| a[i].sqrt())
    }
    #[inline(always)]
    unsafe fn abs(a: V) -> V {
        each(|i| a[i].abs())
    }
    #[inline(always)]
    unsafe fn power(a: V) -> V {
        each(|i| f32::from_bits(a[i].to_bits().wrapping_add(127) << 23))
    }
    #[inline(always)]
    unsafe fn select_less(a: V, b: V, x: V, y: V) -> V {
        each(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    unsafe fn first(n: isize, x: V, y: V) -> V {
        each(|i| if (i as isize) < n { x[i] } else { y[i] })
    }
    #[inline(always)]
    unsafe fn sum(a: V) -> f32 {
        fold(a, |x, y| x + y)
    }
    #[inline(always)]
    unsafe fn largest(a: V) -> f32 {
        fold(a, larger)
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
    #[inline(always)]
    unsafe fn prefetch_near(_: *const f32) {}
    #[inline(always)]
    unsafe fn transpose8(source: *const f32, from: usize, target: *mut f32, to: usize) {
        for i in 0..8 {
            for j in 0..8 {
                *target.add(j * to + i) = *source.add(i * from + j);
            }
        }
    }
    unsafe fn tile_rows(tall: usize, t: &gemm::Tile) {
        gemm::tile_rows::<Self>(tall, t);
    }
    unsafe fn outer_block(rows: usize, a: *const f32, b: *const f32, c: *mut f32, ahead: *const f32) {
        gemm::outer_block::<Self>(rows, a, b, c, ahead);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of every size, and triples that a rounding to f64 on the way gets wrong.
    #[test]
    fn a_multiply_add_without_the_instruction_rounds_once() {
        let mut state = 1u64;
        let mut bits = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        let (mut twice_wrong, mut compared) = (0, 0);
        for round in 0..3_000_000 {
            let (a, b) = (f32::from_bits(bits()), f32::from_bits(bits()));
            let c = match round % 4 {
                0 => f32::from_bits(bits()),
                // Near the product, or so small that it only decides how a tie is broken.
                1 => -(a * b) * (1.0 + (bits() % 9) as f32 * f32::EPSILON),
                2 => a * b * 2f32.powi((bits() % 60) as i32 - 30),
                _ => {
                    let (a, b) = (1.0 + (bits() % 4096) as f32 / 4096.0, 1.0 + (bits() % 4096) as f32 / 4096.0);
                    a * b * 2f32.powi(-(25 + (bits() % 30) as i32))
                }
            };
            let (a, b) = if round % 4 == 3 {
                (1.0 + (bits() % 4096) as f32 / 4096.0, 1.0 + (bits() % 4096) as f32 / 4096.0)
            } else {
                (a, b)
            };
            let (got, want) = (fused(a, b, c), a.mul_add(b, c));
            assert!(
                got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
                "{a} {b} {c}: {got}, not {want}"
            );
            twice_wrong += usize::from((f64::from(a) * f64::from(b) + f64::from(c)) as f32 != want && !want.is_nan());
            compared += usize::from(want.is_finite());
        }
        assert!(compared > 1_000_000);
        println!("{twice_wrong} of {compared} are wrong when rounded twice");
    }
}
