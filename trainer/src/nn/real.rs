//! The arithmetic of the fused operations, for f32 and f64, and how it is made wide.
//!
//! Loops are written so that every sum has one order, whatever the width of the machine's registers: a product is one
//! chain of fused multiply-adds, a reduction keeps [`LANES`] partial sums and folds them by halves. The compiler may then
//! use any vector width without changing a bit.

use candle_core::{CpuStorage, Layout, WithDType};
use rebel_kernels::math::{TAIL_C, TAIL_Q};

/// Partial sums of a reduction.
pub(crate) const LANES: usize = 16;

/// A float type of the fused operations.
pub(crate) trait Real: WithDType {
    /// `value` rounded to this type.
    fn of(value: f64) -> Self;
    /// This number in f64.
    fn wide(self) -> f64;
    /// `self * a + b` with one rounding.
    fn fma(self, a: Self, b: Self) -> Self;
    /// Square root.
    fn root(self) -> Self;
    /// Exponential; 0 for very negative arguments (a masked score of minus infinity weighs nothing).
    fn exponential(self) -> Self;
    /// Natural logarithm.
    fn logarithm(self) -> Self;
    /// `u * Phi(u)` and its derivative `Phi(u) + u * phi(u)`: the exact Gaussian error linear unit.
    fn gelu(self) -> (Self, Self);
    /// `x sigmoid(x)` and its derivative `sigmoid(x) (1 + x (1 - sigmoid(x)))`.
    #[inline(always)]
    fn silu(self) -> (Self, Self) {
        let sigmoid = Self::one() / (Self::one() + (Self::zero() - self).exponential());
        (self * sigmoid, sigmoid * (Self::one() + self * (Self::one() - sigmoid)))
    }
    /// The larger of two numbers.
    fn larger(self, other: Self) -> Self;
    /// Minus infinity.
    const NEG_INFINITY: Self;
}

impl Real for f32 {
    const NEG_INFINITY: Self = f32::NEG_INFINITY;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value as f32
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        self.mul_add(a, b)
    }

    #[inline(always)]
    fn root(self) -> Self {
        self.sqrt()
    }

    /// About 1 ulp: `2^n` times a polynomial of degree 7 on `[-ln 2 / 2, ln 2 / 2]` (Taylor's, which is enough there).
    #[inline(always)]
    fn exponential(self) -> Self {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
        // Comparisons rather than `clamp`, so that a NaN stays one.
        let x = if self < -87.0 { -87.0 } else { self };
        let x = if x > 88.0 { 88.0 } else { x };
        let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
        let n = shifted - ROUND;
        let r = n.mul_add(-0.693_359_4, x); // ln 2 in two parts: the first product is exact
        let r = n.mul_add(2.121_944_4e-4, r);
        let mut p = 1.984_127e-4f32;
        p = p.mul_add(r, 1.388_888_9e-3);
        p = p.mul_add(r, 8.333_334e-3);
        p = p.mul_add(r, 4.166_666_8e-2);
        p = p.mul_add(r, 1.666_666_7e-1);
        p = p.mul_add(r, 0.5);
        let e = (r * r).mul_add(p, r) + 1.0;
        let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
        if self < -87.0 { 0.0 } else { e * power }
    }

    #[inline(always)]
    fn logarithm(self) -> Self {
        self.ln()
    }

    #[inline(always)]
    fn gelu(self) -> (Self, Self) {
        let e = (self * self * -0.5).exponential();
        let t = 1.0 / self.abs().mul_add(TAIL_C, 1.0);
        let q = TAIL_Q.iter().rev().fold(0.0f32, |q, &c| q.mul_add(t, c));
        let tail = q * t * e;
        let cdf = if self < 0.0 { tail } else { 1.0 - tail };
        (self * cdf, (self * e).mul_add(0.398_942_3, cdf))
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

impl Real for f64 {
    const NEG_INFINITY: Self = f64::NEG_INFINITY;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }

    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        self.mul_add(a, b)
    }

    #[inline(always)]
    fn root(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn exponential(self) -> Self {
        self.exp()
    }

    #[inline(always)]
    fn logarithm(self) -> Self {
        self.ln()
    }

    #[inline(always)]
    fn gelu(self) -> (Self, Self) {
        let cdf = 0.5 * candle_core::cpu::erf::erfc_f64(-self * std::f64::consts::FRAC_1_SQRT_2);
        let density = (-0.5 * self * self).exp() * 0.398_942_280_401_432_7; // 1 / sqrt(2 pi)
        (self * cdf, cdf + self * density)
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

/// The elements of a contiguous host tensor.
pub(crate) fn elements<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<T>()?[start..end]),
        None => candle_core::bail!("a fused operation was given a tensor that is not contiguous"),
    }
}

/// Sum of `f(i)` for `i` in `0..n`: [`LANES`] partial sums, element `i` in lane `i % LANES`, folded by halves (as
/// the kernels of decoders fold theirs).
#[inline(always)]
pub(crate) fn lane_sum<T: Real>(n: usize, f: impl Fn(usize) -> T) -> T {
    let mut lanes = [T::zero(); LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane += f(i + l);
        }
        i += LANES;
    }
    for (l, lane) in lanes.iter_mut().enumerate().take(n - whole) {
        *lane += f(whole + l);
    }
    let mut n = LANES;
    while n > 1 {
        n /= 2;
        for l in 0..n {
            lanes[l] += lanes[l + n];
        }
    }
    lanes[0]
}

/// Defines a function over a [`Real`] that is compiled a second time for AVX2 and FMA and picks at run time. Both give
/// the same bits (a machine without FMA emulates it: correct and slow).
macro_rules! wide {
    ($(#[$attribute:meta])* fn $name:ident<$t:ident>($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$attribute])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name<$t: $crate::nn::real::Real>($($arg: $ty),*) {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<$t: $crate::nn::real::Real>($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2<$t: $crate::nn::real::Real>($($arg: $ty),*) {
                    body($($arg),*)
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the machine has just said that it has these instructions.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use wide;

/// How a matrix lies in a slice: element (i, j) at `i * row + j * column`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strides {
    pub row: usize,
    pub column: usize,
}

/// Columns of a tile of [`product`].
const COLUMNS: usize = 16;

/// One step of k of a tile: `sums[r] += a[r] * line`. A function, because a closure would not be inlined into code that is
/// compiled for wider registers.
#[inline(always)]
fn add_line<T: Real, const R: usize>(sums: &mut [[T; COLUMNS]; R], a: &[T], row: usize, line: &[T; COLUMNS]) {
    for (r, sums) in sums.iter_mut().enumerate() {
        let x = a[r * row];
        for (sum, &y) in sums.iter_mut().zip(line) {
            *sum = x.fma(y, *sum);
        }
    }
}

/// `R` rows and at most [`COLUMNS`] columns of a product, summed in registers; `a`, `b` and `c` begin at the tile.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn tile<T: Real, const R: usize>(
    columns: usize,
    k: usize,
    a: &[T],
    at: Strides,
    b: &[T],
    ldb: usize,
    c: &mut [T],
    ldc: usize,
) {
    let mut sums = [[T::zero(); COLUMNS]; R];
    if columns == COLUMNS {
        for l in 0..k {
            let line = b[l * ldb..][..COLUMNS].try_into().expect("COLUMNS elements");
            add_line(&mut sums, &a[l * at.column..], at.row, line);
        }
    } else {
        let mut line = [T::zero(); COLUMNS];
        for l in 0..k {
            line[..columns].copy_from_slice(&b[l * ldb..][..columns]);
            add_line(&mut sums, &a[l * at.column..], at.row, &line);
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        c[r * ldc..][..columns].copy_from_slice(&sums[..columns]);
    }
}

wide! {
    /// `c[m, n] = a[m, k] b[k, n]` for small matrices; `b` and `c` row-major with leading dimensions `ldb`, `ldc`.
    /// Each element of `c` is one chain of fused multiply-adds in ascending k, whatever m and n are.
    fn product<T>(m: usize, n: usize, k: usize, a: &[T], at: Strides, b: &[T], ldb: usize, c: &mut [T], ldc: usize) {
        const ROWS: usize = 4;
        let mut i = 0;
        while i < m {
            let a = &a[i * at.row..];
            let rows = if m - i >= ROWS { ROWS } else { 1 };
            for j in (0..n).step_by(COLUMNS) {
                let columns = COLUMNS.min(n - j);
                let c = &mut c[i * ldc + j..];
                match rows {
                    ROWS => tile::<T, ROWS>(columns, k, a, at, &b[j..], ldb, c, ldc),
                    _ => tile::<T, 1>(columns, k, a, at, &b[j..], ldb, c, ldc),
                }
            }
            i += rows;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_within_two_units_in_the_last_place() {
        for i in -8_700..8_800 {
            let x = i as f32 / 100.0 + 0.003;
            let (got, want) = (x.exponential(), f64::from(x).exp());
            assert!((f64::from(got) / want - 1.0).abs() < 2.4e-7, "exp({x}) = {got}");
        }
        assert_eq!(f32::NEG_INFINITY.exponential(), 0.0);
        assert!(f32::NAN.exponential().is_nan());
    }

    #[test]
    fn gelu_in_f32_is_that_of_f64() {
        for i in -1200..1200 {
            let u = i as f32 / 100.0;
            let ((y, d), (wide_y, wide_d)) = (u.gelu(), f64::from(u).gelu());
            assert!((f64::from(y) - wide_y).abs() < 6e-7 * wide_y.abs().max(0.1), "gelu({u}) = {y}, not {wide_y}");
            assert!((f64::from(d) - wide_d).abs() < 4e-7, "gelu'({u}) = {d}, not {wide_d}");
        }
    }

    #[test]
    fn a_small_product_is_the_sum_it_claims_to_be() {
        let (m, n, k) = (5, 19, 3);
        let a: Vec<f64> = (0..m * k).map(|i| i as f64 - 4.0).collect();
        let b: Vec<f64> = (0..k * n).map(|i| (i * i % 7) as f64).collect();
        let mut c = vec![0.0; m * n];
        product(m, n, k, &a, Strides { row: k, column: 1 }, &b, n, &mut c, n);
        for i in 0..m {
            for j in 0..n {
                let want: f64 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
                assert_eq!(c[i * n + j], want);
            }
        }
    }
}
