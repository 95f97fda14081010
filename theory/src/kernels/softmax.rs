//! Rows of logits: their softmax, their log-sum-exp, and mirror descent on one of them.
//!
//! A row with logits of minus infinity, or with some that are 708 below its largest, takes the general exponential and
//! keeps the support it has; any other row takes the shorter form. Both give the same bits where both apply.
//!
//! A row is cut into blocks from its front. What is left over is taken as the row's last whole block, which overlaps the one
//! before it: entries that were seen already are computed again, to the same bits, and not counted again. So its entries
//! fall to the last places of the partial sums.

use super::exp::{exp_any, exp_normal, is_normal};
use super::ln::ln;
use super::{LANES, fold, wide};

type Block = [f64; LANES];

/// The larger of two numbers. Unlike [`f64::max`], one instruction; a NaN in `a` is passed over.
#[inline(always)]
fn larger(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

/// The smaller of two numbers.
#[inline(always)]
fn smaller(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

/// The largest and the smallest of what two blocks of partial ones hold.
#[inline(always)]
fn range_of(mut top: Block, mut low: Block) -> (f64, f64) {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            top[i] = larger(top[i + half], top[i]);
            low[i] = smaller(low[i + half], low[i]);
        }
        half /= 2;
    }
    (top[0], low[0])
}

/// The last entries of a row as a block; `filler` comes before the entries of a row that is shorter than one.
#[inline(always)]
fn last_block(row: &[f64], filler: f64) -> Block {
    row.last_chunk().copied().unwrap_or_else(|| {
        let mut block = [filler; LANES];
        block[LANES - row.len()..].copy_from_slice(row);
        block
    })
}

/// Writes a block over the last entries of a row, or as many of its own last as the row has.
#[inline(always)]
fn set_last(row: &mut [f64], block: &Block) {
    match row.last_chunk_mut() {
        Some(last) => *last = *block,
        None => row.copy_from_slice(&block[LANES - row.len()..]),
    }
}

/// Adds a last block's partial sums from place `first` on: those before it belong to entries that were counted already.
#[inline(always)]
fn add_from(first: usize, sum: &mut Block, last: &Block) {
    for i in 0..LANES {
        sum[i] += if i >= first { last[i] } else { 0.0 };
    }
}

// Each loop over a row is a function of its own: it copies a block before it writes one, keeps its partial results in local
// arrays, and leaves the shorter block at the end to its caller. Only then does the compiler hold all of them in registers.

#[inline(always)]
fn extremes_of_blocks(blocks: &[Block]) -> (Block, Block) {
    let (mut top, mut low) = ([f64::NEG_INFINITY; LANES], [f64::INFINITY; LANES]);
    for block in blocks {
        for i in 0..LANES {
            top[i] = larger(block[i], top[i]);
            low[i] = smaller(block[i], low[i]);
        }
    }
    (top, low)
}

/// The largest and smallest of some exponents.
#[inline(always)]
fn extremes(exponents: &[f64]) -> (f64, f64) {
    let (top, low) = extremes_of_blocks(exponents.as_chunks::<LANES>().0);
    let last = last_block(exponents, exponents.first().copied().unwrap_or_default());
    let (last_top, last_low) = extremes_of_blocks(&[last]);
    let (mut tops, mut lows) = (top, low);
    for i in 0..LANES {
        tops[i] = larger(last_top[i], top[i]);
        lows[i] = smaller(last_low[i], low[i]);
    }
    range_of(tops, lows)
}

/// The exponent of a tilt, `log + eta f`; without a tilt `log` itself, whatever `f` is.
#[inline(always)]
fn exponent<const TILT: bool>(log: f64, f: f64, eta: f64) -> f64 {
    if TILT { f.mul_add(eta, log) } else { log }
}

/// `e^(exponent - top)`, one weight; `ANY` where an exponent may be far below the top.
#[inline(always)]
fn weight_of<const ANY: bool, const TILT: bool>(log: f64, f: f64, eta: f64, top: f64) -> f64 {
    let shifted = exponent::<TILT>(log, f, eta) - top;
    if ANY { exp_any(shifted) } else { exp_normal(shifted) }
}

#[inline(always)]
fn weigh_blocks<const ANY: bool, const TILT: bool>(
    logs: &[Block],
    fs: &[Block],
    eta: f64,
    top: f64,
    weights: &mut [Block],
) -> Block {
    let mut sum = [0.0; LANES];
    for ((log, f), weights) in logs.iter().zip(fs).zip(weights) {
        let (log, f, mut weight) = (*log, *f, [0.0; LANES]);
        for i in 0..LANES {
            weight[i] = weight_of::<ANY, TILT>(log[i], f[i], eta, top);
            sum[i] += weight[i];
        }
        *weights = weight;
    }
    sum
}

/// `weight = e^(exponent - top)`; their sum.
#[inline(always)]
fn weigh<const ANY: bool, const TILT: bool>(log: &[f64], f: &[f64], eta: f64, top: f64, weight: &mut [f64]) -> f64 {
    let ((logs, rest), (fs, _)) = (log.as_chunks::<LANES>(), f.as_chunks::<LANES>());
    let mut sum = weigh_blocks::<ANY, TILT>(logs, fs, eta, top, weight.as_chunks_mut::<LANES>().0);
    if !rest.is_empty() {
        let (log, f) = (last_block(log, top), last_block(f, 0.0));
        let mut last = [[0.0; LANES]];
        weigh_blocks::<ANY, TILT>(&[log], &[f], eta, top, &mut last);
        set_last(weight, &last[0]);
        add_from(LANES - rest.len(), &mut sum, &last[0]);
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

/// What a mirror-descent step sums over a row, for each place of a block; the range of the next step's exponents.
struct Sums {
    value: Block,
    forward: Block,
    backward: Block, // of the move, not its negative
    top: Block,
    low: Block,
}

#[inline(always)]
fn move_blocks<const ANY: bool>(
    logs: &mut [Block],
    fs: &[Block],
    eta: f64,
    (top, ln_sum): (f64, f64),
    weights: &[Block],
    olds: &[Block],
) -> Sums {
    let (mut value, mut forward, mut backward) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    let (mut tops, mut lows) = ([f64::NEG_INFINITY; LANES], [f64::INFINITY; LANES]);
    for (((logs, f), weight), old) in logs.iter_mut().zip(fs).zip(weights).zip(olds) {
        let (mut log, f, weight, old) = (*logs, *f, *weight, *old);
        for i in 0..LANES {
            let new = (f[i].mul_add(eta, log[i]) - top) - ln_sum;
            let moved = if ANY && log[i] == f64::NEG_INFINITY { 0.0 } else { new - log[i] };
            value[i] = weight[i].mul_add(f[i], value[i]);
            forward[i] = weight[i].mul_add(moved, forward[i]);
            backward[i] = old[i].mul_add(moved, backward[i]);
            let next = f[i].mul_add(eta, new);
            tops[i] = larger(next, tops[i]);
            lows[i] = smaller(next, lows[i]);
            log[i] = new;
        }
        *logs = log;
    }
    Sums { value, forward, backward, top: tops, low: lows }
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
    let ((fs, _), (weights, _), (olds, _)) = (f.as_chunks(), weight.as_chunks(), old.as_chunks());
    let (logs, rest) = log.as_chunks_mut::<LANES>();
    let mut sums = move_blocks::<ANY>(logs, fs, eta, shift, weights, olds);
    if !rest.is_empty() {
        let first = LANES - rest.len();
        let (f, weight, old) = (last_block(f, 0.0), last_block(weight, 0.0), last_block(old, 0.0));
        let before = last_block(log, 0.0);
        let mut after = [before];
        let last = move_blocks::<ANY>(&mut after, &[f], eta, shift, &[weight], &[old]);
        add_from(first, &mut sums.value, &last.value);
        add_from(first, &mut sums.forward, &last.forward);
        add_from(first, &mut sums.backward, &last.backward);
        let mut merged = before;
        for i in 0..LANES {
            let counts = i >= first;
            merged[i] = if counts { after[0][i] } else { before[i] };
            sums.top[i] = if counts { larger(last.top[i], sums.top[i]) } else { sums.top[i] };
            sums.low[i] = if counts { smaller(last.low[i], sums.low[i]) } else { sums.low[i] };
        }
        set_last(log, &merged);
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
        assert!(prob.len() == log.len() && f.len() == log.len(), "rows of one length");
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
            *backward = -(fold(sums.backward) * old_scale);
            range = range_of(sums.top, sums.low);
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
        assert!(prob.len() == log.len(), "rows of one length");
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
