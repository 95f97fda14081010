//! Rows of logits: their softmax, their log-sum-exp, and mirror descent on one of them.
//!
//! A row with logits of minus infinity, or with some that are 708 below its largest, takes the general exponential and
//! keeps the support it has; any other row takes the shorter form. Both give the same bits where both apply.

use super::exp::{exp_any, exp_normal, is_normal};
use super::ln::ln;
use super::{LANES, filled, fold, wide};

type Block = [f64; LANES];

/// The largest and the smallest of some numbers, kept apart for each place of a block.
struct Extremes {
    top: Block,
    low: Block,
}

impl Extremes {
    #[inline(always)]
    fn none() -> Self {
        Self { top: [f64::NEG_INFINITY; LANES], low: [f64::INFINITY; LANES] }
    }

    /// Takes in the number at place `i`.
    #[inline(always)]
    fn see(&mut self, i: usize, value: f64) {
        self.top[i] = if value > self.top[i] { value } else { self.top[i] };
        self.low[i] = if value < self.low[i] { value } else { self.low[i] };
    }

    #[inline(always)]
    fn get(&self) -> (f64, f64) {
        let top = self.top.iter().fold(f64::NEG_INFINITY, |m, &v| if v > m { v } else { m });
        let low = self.low.iter().fold(f64::INFINITY, |m, &v| if v < m { v } else { m });
        (top, low)
    }
}

/// The largest and smallest of some exponents.
#[inline(always)]
fn extremes(exponents: &[f64]) -> (f64, f64) {
    let mut seen = Extremes::none();
    let (blocks, tail) = exponents.as_chunks::<LANES>();
    for block in blocks {
        for (i, &value) in block.iter().enumerate() {
            seen.see(i, value);
        }
    }
    for (i, &value) in tail.iter().enumerate() {
        seen.see(i, value);
    }
    seen.get()
}

/// The exponent of a tilt, `log + eta f`; without a tilt `log` itself, whatever `f` is.
#[inline(always)]
fn exponent<const TILT: bool>(log: f64, f: f64, eta: f64) -> f64 {
    if TILT { f.mul_add(eta, log) } else { log }
}

/// One block of [`weigh`], of which the first `count` places are the row's.
#[inline(always)]
fn weigh_block<const ANY: bool, const TILT: bool>(
    count: usize,
    log: &Block,
    f: &Block,
    eta: f64,
    top: f64,
    sum: &mut Block,
) -> Block {
    let mut weights = [0.0; LANES];
    for i in 0..LANES {
        let shifted = exponent::<TILT>(log[i], f[i], eta) - top;
        let weight = if ANY { exp_any(shifted) } else { exp_normal(shifted) };
        let weight = if i < count { weight } else { 0.0 };
        weights[i] = weight;
        sum[i] += weight;
    }
    weights
}

/// `weight = e^(exponent - top)`; their sum.
#[inline(always)]
fn weigh<const ANY: bool, const TILT: bool>(log: &[f64], f: &[f64], eta: f64, top: f64, weight: &mut [f64]) -> f64 {
    let mut sum = [0.0; LANES];
    let ((logs, log_tail), (fs, f_tail)) = (log.as_chunks::<LANES>(), f.as_chunks::<LANES>());
    let (weights, weight_tail) = weight.as_chunks_mut::<LANES>();
    for ((log, f), weight) in logs.iter().zip(fs).zip(weights) {
        *weight = weigh_block::<ANY, TILT>(LANES, log, f, eta, top, &mut sum);
    }
    let count = log_tail.len();
    if count > 0 {
        let last = weigh_block::<ANY, TILT>(count, &filled(log_tail, 0.0), &filled(f_tail, 0.0), eta, top, &mut sum);
        weight_tail.copy_from_slice(&last[..count]);
    }
    fold(sum)
}

/// [`weigh`] by the form of the exponential that `low`, the smallest exponent, allows.
#[inline(always)]
fn weigh_row<const TILT: bool>(log: &[f64], f: &[f64], eta: f64, (top, low): (f64, f64), weight: &mut [f64]) -> f64 {
    match is_normal(low - top) {
        true => weigh::<false, TILT>(log, f, eta, top, weight),
        false => weigh::<true, TILT>(log, f, eta, top, weight),
    }
}

/// What a mirror-descent step sums over a row, for each place of a block.
struct Sums {
    value: Block,
    forward: Block,
    backward: Block,
    seen: Extremes,
}

/// One block of the second half of a mirror-descent step: moves `log` to the new policy, and adds to the sums.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn move_block<const ANY: bool>(
    count: usize,
    log: &mut Block,
    f: &Block,
    eta: f64,
    (top, ln_sum): (f64, f64),
    weight: &Block,
    old: &Block,
    sums: &mut Sums,
) {
    for i in 0..LANES {
        let new = (f[i].mul_add(eta, log[i]) - top) - ln_sum;
        let moved = if ANY && log[i] == f64::NEG_INFINITY { 0.0 } else { new - log[i] };
        sums.value[i] = weight[i].mul_add(f[i], sums.value[i]);
        sums.forward[i] = weight[i].mul_add(moved, sums.forward[i]);
        sums.backward[i] = old[i].mul_add(-moved, sums.backward[i]);
        if i < count {
            sums.seen.see(i, f[i].mul_add(eta, new));
        }
        log[i] = new;
    }
}

/// The second half of a mirror-descent step: `log` becomes that of the new policy. The sums are over unnormalised weights.
#[inline(always)]
fn move_row<const ANY: bool>(
    log: &mut [f64],
    f: &[f64],
    eta: f64,
    shift: (f64, f64),
    weight: &[f64],
    old: &[f64],
) -> Sums {
    let zeros = [0.0; LANES];
    let mut sums = Sums { value: zeros, forward: zeros, backward: zeros, seen: Extremes::none() };
    let ((fs, f_tail), (weights, weight_tail)) = (f.as_chunks::<LANES>(), weight.as_chunks::<LANES>());
    let ((olds, old_tail), (logs, log_tail)) = (old.as_chunks::<LANES>(), log.as_chunks_mut::<LANES>());
    for (((log, f), weight), old) in logs.iter_mut().zip(fs).zip(weights).zip(olds) {
        move_block::<ANY>(LANES, log, f, eta, shift, weight, old, &mut sums);
    }
    let count = log_tail.len();
    if count > 0 {
        let mut log = filled(log_tail, 0.0);
        let (f, weight, old) = (filled(f_tail, 0.0), filled(weight_tail, 0.0), filled(old_tail, 0.0));
        move_block::<ANY>(count, &mut log, &f, eta, shift, &weight, &old, &mut sums);
        log_tail.copy_from_slice(&log[..count]);
    }
    sums
}

/// What mirror descent traces on one row, a number a step.
#[derive(Debug)]
pub struct Traces<'a> {
    /// The expectation of `f` under the new policy.
    pub value: &'a mut [f64],
    /// The divergence of the new policy from the old, nats.
    pub forward: &'a mut [f64],
    /// The divergence of the old policy from the new, nats.
    pub backward: &'a mut [f64],
}

wide! {
    /// Exact mirror-descent steps on one row, as many as `traces` has places for:
    ///
    /// $$ \pi_{t+1}(y)\propto\pi_t(y)\,e^{\eta f(y)} $$
    ///
    /// `log` and `prob` `[y]` hold the policy before and after; an entry of `log` may be minus infinity, and stays so.
    ///
    /// Two passes over the row a step: one for the exponentials and their sum, one for the new log-probabilities, the
    /// traces and the largest exponent of the next step. Rows of 1000 stay in the first-level cache; the multiplications
    /// of the exponential are what limits it (15 of the 20 of a block).
    pub fn mirror_row(log: &mut [f64], prob: &mut [f64], f: &[f64], eta: f64, traces: Traces<'_>) {
        let mut spare = vec![0.0; log.len()];
        // The unnormalised weights of the old policy and the place for those of the new change places each step.
        let (mut old, mut weight) = (&mut prob[..], &mut spare[..]);
        let mut old_scale = 1.0;
        let mut odd = false;
        weight.copy_from_slice(log);
        for (weight, f) in weight.iter_mut().zip(f) {
            *weight = f.mul_add(eta, *weight);
        }
        let mut range = extremes(weight);
        for ((value, forward), backward) in traces.value.iter_mut().zip(traces.forward).zip(traces.backward) {
            let sum = weigh_row::<true>(log, f, eta, range, weight);
            let (shift, scale) = ((range.0, ln(sum)), 1.0 / sum);
            let sums = match is_normal(range.1 - range.0) {
                true => move_row::<false>(log, f, eta, shift, weight, old),
                false => move_row::<true>(log, f, eta, shift, weight, old),
            };
            *value = fold(sums.value) * scale;
            *forward = fold(sums.forward) * scale;
            *backward = fold(sums.backward) * old_scale;
            range = sums.seen.get();
            (old, weight) = (weight, old);
            old_scale = scale;
            odd = !odd;
        }
        if odd {
            weight.copy_from_slice(old);
        }
        for p in prob {
            *p *= old_scale;
        }
    }
}

wide! {
    /// The softmax of a row of logits: `log` becomes the log-probabilities, `prob` the probabilities, both `[y]`. The
    /// logarithm of the normaliser, $$ \ln\sum_y e^{s(y)} $$
    ///
    /// A logit of minus infinity is a response of probability zero; one at least must be finite, none infinite or NaN.
    pub fn normalise_row(log: &mut [f64], prob: &mut [f64]) -> f64 {
        let range = extremes(log);
        let sum = weigh_row::<false>(log, log, 0.0, range, prob);
        let (ln_sum, scale) = (ln(sum), 1.0 / sum);
        for (log, prob) in log.iter_mut().zip(prob) {
            *log = (*log - range.0) - ln_sum;
            *prob *= scale;
        }
        range.0 + ln_sum
    }
}

wide! {
    /// `sum += factor * row`, each product and sum rounded once.
    pub fn add_scaled(sum: &mut [f64], factor: f64, row: &[f64]) {
        for (sum, &value) in sum.iter_mut().zip(row) {
            *sum = value.mul_add(factor, *sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Level, tests::scattered};
    use super::*;

    /// Mirror descent as it is written on paper.
    struct Plain {
        log: Vec<f64>,
        prob: Vec<f64>,
        traces: Vec<[f64; 3]>,
    }

    fn plain(start: &[f64], f: &[f64], eta: f64, steps: usize) -> Plain {
        let mut log = start.to_vec();
        let mut traces = vec![];
        for _ in 0..steps {
            let z: Vec<f64> = log.iter().zip(f).map(|(l, f)| l + eta * f).collect();
            let top = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let ln_sum = top + z.iter().map(|z| (z - top).exp()).sum::<f64>().ln();
            let new: Vec<f64> = z.iter().map(|z| z - ln_sum).collect();
            let kl = |p: &[f64], q: &[f64]| -> f64 {
                p.iter().zip(q).filter(|(p, _)| p.exp() > 0.0).map(|(p, q)| p.exp() * (p - q)).sum()
            };
            let value = new.iter().zip(f).map(|(l, f)| l.exp() * f).sum();
            traces.push([value, kl(&new, &log), kl(&log, &new)]);
            log = new;
        }
        let prob = log.iter().map(|l| l.exp()).collect();
        Plain { log, prob, traces }
    }

    fn uniform(n: usize) -> Vec<f64> {
        vec![-(n as f64).ln(); n]
    }

    fn run(level: Level, start: &[f64], f: &[f64], eta: f64, steps: usize) -> Plain {
        let mut log = start.to_vec();
        let mut prob = vec![0.0; log.len()];
        normalise_row(level, &mut log, &mut prob);
        let [mut value, mut forward, mut backward] = [(); 3].map(|()| vec![f64::NAN; steps]);
        let traces = Traces { value: &mut value, forward: &mut forward, backward: &mut backward };
        mirror_row(level, &mut log, &mut prob, f, eta, traces);
        Plain { log, prob, traces: (0..steps).map(|t| [value[t], forward[t], backward[t]]).collect() }
    }

    #[test]
    fn mirror_descent_equals_the_plain_loop_at_every_length() {
        for n in (1..70).chain([1000]) {
            let f = scattered(n);
            for steps in [0, 1, 2, 7] {
                let (got, want) = (run(Level::best(), &uniform(n), &f, 0.7, steps), plain(&uniform(n), &f, 0.7, steps));
                let near = |a: f64, b: f64| (a - b).abs() <= 1e-13 * b.abs().max(1.0);
                assert!(got.log.iter().zip(&want.log).all(|(&a, &b)| near(a, b)), "log, {n} {steps}");
                assert!(got.prob.iter().zip(&want.prob).all(|(&a, &b)| near(a, b)), "prob, {n} {steps}");
                let traces = got.traces.iter().flatten().zip(want.traces.iter().flatten());
                traces.for_each(|(&a, &b)| assert!(near(a, b), "{n} {steps}: {a} {b}"));
            }
        }
    }

    #[test]
    fn rows_without_full_support_or_with_tails_that_underflow_stay_finite_and_keep_their_zeros() {
        let start = [0.0, f64::NEG_INFINITY, -1.0, -800.0, f64::NEG_INFINITY];
        let f = [0.5, 900.0, -0.5, 3.0, -900.0];
        let (got, want) = (run(Level::best(), &start, &f, 2.0, 5), plain(&start, &f, 2.0, 5));
        assert_eq!((got.prob[1], got.log[1], got.prob[4]), (0.0, f64::NEG_INFINITY, 0.0));
        for (a, b) in got.traces.iter().flatten().zip(want.traces.iter().flatten()).skip(3) {
            assert!((a - b).abs() <= 1e-12, "{a} {b}");
        }
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let bits = |run: Plain| {
            let numbers = run.log.into_iter().chain(run.prob).chain(run.traces.into_iter().flatten());
            numbers.map(f64::to_bits).collect::<Vec<_>>()
        };
        for n in [1, 5, 16, 37, 100] {
            let mut start = scattered(n);
            for deep in [false, true] {
                if deep && n > 1 {
                    start[0] = f64::NEG_INFINITY;
                    start[n / 2] = -900.0;
                }
                let f = scattered(n + 3);
                let want = bits(run(Level::best(), &start, &f[3..], 0.3, 4));
                for level in Level::available() {
                    assert_eq!(bits(run(level, &start, &f[3..], 0.3, 4)), want, "{level:?} {n} {deep}");
                }
            }
        }
    }

    #[test]
    fn normaliser_is_the_logarithm_of_the_sum_of_exponentials() {
        let (mut log, mut prob) = ([1000.0, 1000.0 + 3f64.ln(), f64::NEG_INFINITY], [0.0; 3]);
        let normaliser = normalise_row(Level::best(), &mut log, &mut prob);
        assert!((normaliser - (1000.0 + 4f64.ln())).abs() < 1e-12);
        assert!((prob[0] - 0.25).abs() < 1e-13 && (prob[1] - 0.75).abs() < 1e-13 && prob[2] == 0.0);
    }
}
