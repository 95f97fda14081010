//! Exponential, GELU and SiLU with their derivatives, sixteen lanes at a time.

use crate::simd::Simd;

/// exp(x), about 1 ulp: `2^n` times a polynomial on `[-ln 2 / 2, ln 2 / 2]`; exactly 0 below -87 (a masked score of minus
/// infinity weighs nothing), the value at 88 above it.
#[inline(always)]
pub unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    let low = S::splat(-87.0);
    // In this order of arguments what is not a number stays so.
    let inside = S::min(S::splat(88.0), S::max(low, x));
    let shifted = S::fma(inside, S::splat(std::f32::consts::LOG2_E), S::splat(ROUND));
    let n = S::sub(shifted, S::splat(ROUND));
    let r = S::fma(n, S::splat(-0.693_359_4), inside); // ln 2 in two parts: the first product is exact
    let r = S::fma(n, S::splat(2.121_944_4e-4), r);
    let mut p = S::splat(1.984_127e-4);
    for c in [1.388_888_9e-3, 8.333_334e-3, 4.166_666_8e-2, 1.666_666_7e-1, 0.5] {
        p = S::fma(p, r, S::splat(c));
    }
    let e = S::add(S::fma(S::mul(r, r), p, r), S::splat(1.0));
    S::select_less(x, low, S::splat(0.0), S::mul(e, S::power(shifted)))
}

/// Coefficients of `t q(t) = exp(u^2 / 2) (1 - Phi(u))`, `t = 1 / (1 + TAIL_C u)`, `u >= 0`: a least-squares fit on
/// Chebyshev points, reweighted towards equal ripples; relative error 1.7e-8.
#[allow(clippy::excessive_precision)] // nine digits name an f32, whether or not fewer would
pub const TAIL_Q: [f32; 9] = [
    0.083_711_475,
    0.085_070_445,
    0.069_181_56,
    0.124_911_98,
    -0.094_013_25,
    0.349_523_7,
    -0.330_357_22,
    0.283_637_43,
    -0.071_666_11,
];
/// See [`TAIL_Q`].
pub const TAIL_C: f32 = 0.21;

/// `u Phi(u)` and its derivative `Phi(u) + u phi(u)`: the exact Gaussian error linear unit. They share one exponential.
#[inline(always)]
pub unsafe fn gelu<S: Simd>(u: S::V) -> (S::V, S::V) {
    let one = S::splat(1.0);
    let e = exp::<S>(S::mul(S::mul(u, u), S::splat(-0.5)));
    let t = S::div(one, S::fma(S::abs(u), S::splat(TAIL_C), one));
    let mut q = S::splat(TAIL_Q[8]);
    for c in [7, 6, 5, 4, 3, 2, 1, 0] {
        q = S::fma(q, t, S::splat(TAIL_Q[c]));
    }
    let tail = S::mul(S::mul(q, t), e);
    let cdf = S::select_less(u, S::splat(0.0), tail, S::sub(one, tail));
    (S::mul(u, cdf), S::fma(S::mul(u, e), S::splat(0.398_942_3), cdf)) // 1 / sqrt(2 pi)
}

/// The approximation of GELU by tanh, `u sigmoid(2 k (u + 0.044715 u^3))` with k = sqrt(2 / pi), and its derivative.
#[inline(always)]
pub unsafe fn gelu_tanh<S: Simd>(u: S::V) -> (S::V, S::V) {
    const TWICE_K: f32 = 1.595_769_2;
    const CUBIC: f32 = 0.044_715;
    let square = S::mul(u, u);
    let inner = S::mul(S::mul(u, S::splat(TWICE_K)), S::fma(square, S::splat(CUBIC), S::splat(1.0)));
    let slope = S::mul(S::splat(TWICE_K), S::fma(square, S::splat(3.0 * CUBIC), S::splat(1.0)));
    let s = sigmoid::<S>(inner);
    let y = S::mul(u, s);
    (y, S::fma(S::mul(y, S::sub(S::splat(1.0), s)), slope, s))
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    let one = S::splat(1.0);
    S::div(one, S::add(one, exp::<S>(S::sub(S::splat(0.0), x))))
}

/// `x sigmoid(x)` and its derivative `sigmoid(x) (1 + x (1 - sigmoid(x)))`.
#[inline(always)]
pub unsafe fn silu<S: Simd>(x: S::V) -> (S::V, S::V) {
    let one = S::splat(1.0);
    let s = sigmoid::<S>(x);
    (S::mul(x, s), S::mul(s, S::add(one, S::mul(x, S::sub(one, s)))))
}

/// `max(x, 0)` and its derivative.
#[inline(always)]
pub unsafe fn relu<S: Simd>(x: S::V) -> (S::V, S::V) {
    let zero = S::splat(0.0);
    (S::max(zero, x), S::select_less(zero, x, S::splat(1.0), zero))
}
