//! Distributions over tokens from rows of logits: log-probabilities, entropies and their gradients.

use crate::math::exp;
use crate::panel::{Matrix, PANEL};
use crate::simd::{LANES, Simd};

/// What the softmax of a row of logits divided by a temperature is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RowSoftmax {
    /// Largest tempered logit.
    pub max: f32,
    /// ln of the sum of exp(tempered logit - max).
    pub log_sum: f32,
    /// Entropy, nats.
    pub entropy: f32,
}

impl RowSoftmax {
    /// Log-probability of the token with this logit.
    pub fn log_p(&self, logit: f32, divisor: f32) -> f32 {
        logit / divisor - self.max - self.log_sum
    }
}

/// The softmax of each row of `logits` `[rows, vocab]` divided by `divisor`.
#[derive(Clone, Copy)]
pub struct Softmax {
    pub logits: Matrix,
    pub vocab: usize,
    pub rows: usize,
    pub divisor: f32,
    /// `[rows]`.
    pub out: *mut RowSoftmax,
}

/// Vector `c` of a row of logits, those beyond the vocabulary `other`.
#[inline(always)]
unsafe fn vector<S: Simd>(logits: Matrix, row: usize, c: usize, vocab: usize, other: f32) -> S::V {
    let x = S::load(logits.at(c / 2, row).wrapping_add(c % 2 * LANES));
    match vocab >= LANES * (c + 1) {
        true => x,
        false => S::first(vocab as isize - (LANES * c) as isize, x, S::splat(other)),
    }
}

/// See [`Softmax`].
#[inline(always)]
pub unsafe fn softmax<S: Simd>(p: &Softmax) {
    let (divisor, zero) = (S::splat(p.divisor), S::splat(0.0));
    let n = p.vocab.div_ceil(LANES);
    for row in 0..p.rows {
        let tempered = |c: usize| S::div(vector::<S>(p.logits, row, c, p.vocab, f32::NEG_INFINITY), divisor);
        let mut max = S::splat(f32::NEG_INFINITY);
        for c in 0..n {
            max = S::max(tempered(c), max);
        }
        let max = S::largest(max);
        let m = S::splat(max);
        let (mut sum, mut moment) = (zero, zero);
        for c in 0..n {
            let z = S::sub(tempered(c), m);
            let weight = exp::<S>(z);
            sum = S::add(sum, weight);
            // A weight of 0 carries no entropy, even when its logit is minus infinity.
            moment = S::add(moment, S::select_less(zero, weight, S::mul(weight, z), S::mul(weight, zero)));
        }
        let (sum, moment) = (S::sum(sum), S::sum(moment));
        let log_sum = sum.ln();
        *p.out.add(row) = RowSoftmax { max, log_sum, entropy: log_sum - moment / sum };
    }
}

/// One row's target and the gradients of its outputs.
#[derive(Debug, Clone, Copy, Default)]
pub struct RowGradient {
    pub target: u32,
    pub entropy: f32,
    /// Maximum plus log-sum.
    pub log_sum: f32,
    pub d_log_p: f32,
    pub d_entropy: f32,
}

/// Logits become the gradient of logits, in place: `dz = (d_log_p (1[target] - p) - d_entropy p (ln p + H)) / divisor`;
/// 0 beyond the vocabulary.
#[derive(Clone, Copy)]
pub struct SoftmaxBack {
    pub logits: Matrix,
    pub vocab: usize,
    pub rows: usize,
    pub divisor: f32,
    pub of: *const RowGradient,
}

/// See [`SoftmaxBack`].
#[inline(always)]
pub unsafe fn softmax_back<S: Simd>(p: &SoftmaxBack) {
    let divisor = S::splat(p.divisor);
    let zero = S::splat(0.0);
    for row in 0..p.rows {
        let of = &*p.of.add(row);
        let uniform = S::splat(of.d_log_p + of.d_entropy * of.entropy);
        let (d_entropy, log_sum) = (S::splat(of.d_entropy), S::splat(of.log_sum));
        for c in 0..2 * p.vocab.div_ceil(PANEL) {
            let place = p.logits.at(c / 2, row).wrapping_add(c % 2 * LANES);
            let z = vector::<S>(p.logits, row, c, p.vocab, f32::NEG_INFINITY);
            let log_p = S::sub(S::div(z, divisor), log_sum);
            let weight = exp::<S>(log_p);
            let own = S::mul(weight, S::add(uniform, S::mul(d_entropy, log_p)));
            let own = S::select_less(zero, weight, own, zero);
            S::store(place, S::sub(zero, S::div(own, divisor)));
        }
        let target = of.target as usize;
        *p.logits.at(target / PANEL, row).wrapping_add(target % PANEL) += of.d_log_p / p.divisor;
    }
}
