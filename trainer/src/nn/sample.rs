//! Exact draws from a categorical distribution given by logits.
//!
//! `candle_nn::sampling::gumbel_softmax` is biased (its noise is capped); this one inverts the cumulative distribution in
//! f64 over the very weights the scorer's log-probability is made of.

use candle_core::{DType, Tensor};
use rand::Rng;
use rayon::prelude::*;

use super::ops::token_logprob::{softmax_of, weights_of};
use super::real::Real;
use super::sampling::Sampling;
use crate::{Error, Result};

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    /// Drawn from the distribution.
    Sample(Sampling),
    /// The most probable token; ties go to the lowest id. Log-probabilities are those at temperature 1.
    Greedy,
}

impl Choice {
    /// The distribution of the log-probabilities reported with the choice.
    pub fn sampling(self) -> Sampling {
        match self {
            Self::Sample(sampling) => sampling,
            Self::Greedy => Sampling::ONE,
        }
    }
}

/// One token for each row of `logits` `[rows, vocab]` (f32 or f64), and its log-probability in nats. Row i draws once from
/// `streams[i]` when sampling. Fails when a row holds no finite logit.
pub fn choose(logits: &Tensor, choice: Choice, streams: &mut [impl Rng + Send]) -> Result<Vec<(u32, f64)>> {
    let logits = logits.flatten_to(logits.rank().saturating_sub(2))?;
    match logits.dtype() {
        DType::F64 => choose_rows(logits.to_vec2::<f64>()?, choice, streams),
        _ => choose_rows(logits.to_dtype(DType::F32)?.to_vec2::<f32>()?, choice, streams),
    }
}

fn choose_rows<T: Real>(rows: Vec<Vec<T>>, choice: Choice, streams: &mut [impl Rng + Send]) -> Result<Vec<(u32, f64)>> {
    if rows.len() != streams.len() {
        return Err(Error::invalid(format!("{} random streams for {} rows", streams.len(), rows.len())));
    }
    rows.into_par_iter().zip(streams).map(|(row, stream)| choose_row(row, choice, stream)).collect()
}

fn choose_row<T: Real>(mut logits: Vec<T>, choice: Choice, stream: &mut impl Rng) -> Result<(u32, f64)> {
    let sampling = choice.sampling();
    sampling.truncate(&mut logits, None);
    let divisor = T::of(sampling.temperature().divisor());
    let mut softmax = None;
    softmax_of(&logits, divisor, &mut softmax);
    let softmax = softmax.ok_or_else(|| Error::invalid("logits: no softmax"))?;
    if !softmax.log_sum.wide().is_finite() || !softmax.max.wide().is_finite() {
        return Err(Error::invalid("logits: not a distribution (a value is not a number or all are minus infinity)"));
    }
    let token = match choice {
        Choice::Greedy => arg_max(&logits),
        Choice::Sample(_) => invert(&logits, divisor, softmax.max, stream.random::<f64>()),
    };
    Ok((token as u32, softmax.log_p(logits[token], divisor).wide()))
}

/// The first of the largest logits.
fn arg_max<T: Real>(logits: &[T]) -> usize {
    (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

/// The token at which the cumulative sum of weights passes `u` (in `[0, 1)`) times their total.
fn invert<T: Real>(logits: &[T], divisor: T, max: T, u: f64) -> usize {
    let mut weights = vec![T::zero(); logits.len()];
    weights_of(logits, divisor, max, &mut weights);
    let total: f64 = weights.iter().map(|w| w.wide()).sum();
    let mut sum = 0.0;
    let mut last = 0;
    for (i, w) in weights.iter().enumerate() {
        let w = w.wide();
        if w > 0.0 {
            sum += w;
            last = i;
            if sum > u * total {
                return i;
            }
        }
    }
    last // rounding only: u * total was the total itself
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use rand::RngCore;
    use statrs::distribution::{ChiSquared, ContinuousCDF};

    use super::*;
    use crate::nn::ops::token_logprob::token_logprob;
    use crate::nn::{Purpose, Streams, Temperature};

    /// How often a right sampler is called wrong, over seeds, in each of the comparisons below. The seeds are fixed, so a
    /// test passes always or never.
    const FALSE_ALARM: f64 = 1e-4;

    /// A short head, a tail, a tie and a token that cannot be.
    fn logits() -> Vec<f32> {
        let tail = (0..24).map(|i| -0.12 * i as f32);
        [0.3, -2.0, 1.7, f32::NEG_INFINITY, 0.0, 1.69, -0.4, 0.3].into_iter().chain(tail).collect()
    }

    /// The distribution by its definition, in f64, on plain sorted lists: nothing here is shared with the sampler.
    fn defined(logits: &[f32], t: f64, k: Option<usize>, p: Option<f64>) -> Vec<f64> {
        let weight: Vec<f64> = logits.iter().map(|&z| (f64::from(z) / (t + 1e-7)).exp()).collect();
        let mut order: Vec<usize> = (0..weight.len()).collect();
        order.sort_by(|&a, &b| weight[b].total_cmp(&weight[a]).then(a.cmp(&b)));
        order.truncate(k.unwrap_or(weight.len()));
        let total: f64 = order.iter().map(|&i| weight[i]).sum();
        let mut kept = Vec::new();
        let mut sum = 0.0;
        for i in order {
            if sum < p.unwrap_or(2.0) * total {
                kept.push(i);
                sum += weight[i];
            }
        }
        (0..weight.len()).map(|i| if kept.contains(&i) { weight[i] / sum } else { 0.0 }).collect()
    }

    /// Pearson's statistic of counts against probabilities, and its p-value; 0 where something impossible was counted.
    fn p_value(counts: &[u64], p: &[f64]) -> f64 {
        let n: u64 = counts.iter().sum();
        if counts.iter().zip(p).any(|(&c, &p)| c > 0 && p == 0.0) {
            return 0.0;
        }
        let live = p.iter().filter(|&&p| p > 0.0).count();
        if live == 1 {
            return 1.0;
        }
        let term = |(&c, &p): (&u64, &f64)| (c as f64 - n as f64 * p).powi(2) / (n as f64 * p);
        let statistic: f64 = counts.iter().zip(p).filter(|(_, p)| **p > 0.0).map(term).sum();
        1.0 - ChiSquared::new((live - 1) as f64).unwrap().cdf(statistic)
    }

    /// How often each token comes out of `draws` draws, each from its own stream, and the log-probability it came with.
    fn drawn(logits: &[f32], sampling: Sampling, draws: usize) -> (Vec<u64>, Vec<f64>) {
        let at_once = ((1 << 22) / logits.len()).clamp(1, 500);
        let (mut counts, mut log_p) = (vec![0; logits.len()], vec![f64::NEG_INFINITY; logits.len()]);
        let rows = Tensor::new(logits, &Device::Cpu).unwrap().repeat((at_once, 1)).unwrap();
        for i in 0..draws.div_ceil(at_once) as u64 {
            let mut streams: Vec<_> =
                (0..at_once as u64).map(|s| Streams::new(5).stream(Purpose("test"), i, s, 0)).collect();
            for (token, lp) in choose(&rows, Choice::Sample(sampling), &mut streams).unwrap() {
                counts[token as usize] += 1;
                log_p[token as usize] = lp;
            }
        }
        (counts, log_p)
    }

    /// Draws as [`drawn`] does, by `u -> token`.
    fn drawn_by(rule: impl Fn(f64) -> usize, tokens: usize, draws: u64) -> Vec<u64> {
        let mut counts = vec![0; tokens];
        for i in 0..draws {
            counts[rule(Streams::new(5).stream(Purpose("test"), i, 0, 0).random::<f64>())] += 1;
        }
        counts
    }

    #[test]
    fn draws_follow_temperature_top_k_top_p_and_both() {
        let cases = [(0.5, None, None), (1.0, None, None), (2.0, None, None), (0.7, Some(5), None)];
        let truncated =
            [(1.0, None, Some(0.8)), (1.5, None, Some(0.95)), (0.8, Some(9), Some(0.9)), (1.0, Some(1), None)];
        for (t, k, p) in cases.into_iter().chain(truncated) {
            let sampling = Sampling::new(Temperature::new(t).unwrap(), k, p).unwrap();
            let (counts, log_p) = drawn(&logits(), sampling, 200_000);
            let defined = defined(&logits(), t, k, p);
            let passed = p_value(&counts, &defined);
            assert!(passed > FALSE_ALARM, "{t} {k:?} {p:?}: p-value {passed}: {counts:?} for {defined:?}");
            for (token, (lp, p)) in log_p.iter().zip(&defined).enumerate().filter(|(i, _)| counts[*i] > 0) {
                assert!((lp - p.ln()).abs() < 2e-6, "token {token}: {lp}, not {}", p.ln());
            }
            // The test can see: the same counts against a distribution off by 6% in one token.
            if k != Some(1) {
                let mut wrong = defined.clone();
                wrong[2] *= 1.06;
                let total: f64 = wrong.iter().sum();
                wrong.iter_mut().for_each(|w| *w /= total);
                assert!(p_value(&counts, &wrong) < FALSE_ALARM, "{t} {k:?} {p:?}");
            }
        }
    }

    /// What truncation without renormalisation does: the mass cut off falls to the last token kept.
    #[test]
    fn a_sampler_that_forgets_to_renormalise_is_caught() {
        let (whole, kept) = (defined(&logits(), 1.0, None, None), defined(&logits(), 1.0, None, Some(0.95)));
        let last = (0..kept.len()).rfind(|&i| kept[i] > 0.0).unwrap();
        let forgetful = |u: f64| {
            let mut sum = 0.0;
            (0..kept.len())
                .find(|&i| {
                    sum += if kept[i] > 0.0 { whole[i] } else { 0.0 };
                    sum > u
                })
                .unwrap_or(last)
        };
        assert!(p_value(&drawn_by(forgetful, kept.len(), 200_000), &kept) < FALSE_ALARM);
        let renormalised = |u: f64| {
            let mut sum = 0.0;
            (0..kept.len())
                .find(|&i| {
                    sum += kept[i];
                    sum > u
                })
                .unwrap_or(last)
        };
        assert!(p_value(&drawn_by(renormalised, kept.len(), 200_000), &kept) > FALSE_ALARM);
    }

    /// Likely tokens whose weights sum to a little over 2^17, then twice as many whose weight is below half a unit in the last
    /// place of that: a sum in f32 never reaches them, though together they have 1.5% of the mass.
    #[test]
    fn a_cumulative_sum_in_f32_over_a_large_vocabulary_is_caught_and_ours_passes() {
        const LIKELY: usize = 131_100;
        const ALL: usize = 3 * LIKELY;
        let weight = |i: usize| if i < LIKELY { 1.0f32 } else { 0.0077 };
        let logits: Vec<f32> = (0..ALL).map(|i| weight(i).ln()).collect();
        let shares = [1.0 / 1.0154, 0.0154 / 1.0154];
        let parts = |counts: &[u64]| [counts[..LIKELY].iter().sum::<u64>(), counts[LIKELY..].iter().sum()];
        let draws = 1_500;
        let (counts, _) = drawn(&logits, Sampling::ONE, draws);
        assert!(p_value(&parts(&counts), &shares) > FALSE_ALARM);

        let mut sum = 0.0f32;
        let mut sums = Vec::with_capacity(ALL);
        for i in 0..ALL {
            sum += weight(i);
            sums.push(sum);
        }
        let narrow = |u: f64| sums.partition_point(|&s| s <= u as f32 * sum).min(ALL - 1);
        let counts = drawn_by(narrow, ALL, draws as u64);
        assert!(p_value(&parts(&counts), &shares) < FALSE_ALARM, "{:?}", parts(&counts));
    }

    /// Weights of one entry a row make the scorer's product exact, so that both see the same logits.
    #[test]
    fn the_log_probability_of_a_draw_is_the_scorers_bit_for_bit() {
        let logits = logits();
        let finite: Vec<f32> = logits.iter().map(|z| z.max(-30.0)).collect();
        let weight = Tensor::new(finite.as_slice(), &Device::Cpu).unwrap().unsqueeze(1).unwrap(); // [vocab, 1]
        let hidden = Tensor::ones((300, 1), DType::F32, &Device::Cpu).unwrap();
        let rows = Tensor::new(finite.as_slice(), &Device::Cpu).unwrap().repeat((300, 1)).unwrap();
        for (k, p) in [(None, None), (Some(6), None), (None, Some(0.7)), (Some(20), Some(0.9))] {
            let sampling = Sampling::new(Temperature::new(0.7).unwrap(), k, p).unwrap();
            let mut streams: Vec<_> = (0..300).map(|s| Streams::new(6).stream(Purpose("test"), 0, s, 0)).collect();
            let chosen = choose(&rows, Choice::Sample(sampling), &mut streams).unwrap();
            let ids: Vec<u32> = chosen.iter().map(|c| c.0).collect();
            for scoring in [sampling.into(), sampling.of_drawn()] {
                let (scored, _) = token_logprob(&hidden, &weight, &ids, scoring).unwrap();
                let scored: Vec<f64> = scored.to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect();
                assert!(chosen.iter().zip(scored).all(|(c, s)| c.1 == s), "{k:?} {p:?}");
            }
        }
    }

    #[test]
    fn greedy_takes_the_largest_and_draws_nothing() {
        let rows = Tensor::new(logits(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let stream = Streams::new(1).stream(Purpose("test"), 0, 0, 0);
        let mut used = [stream.clone()];
        assert_eq!(choose(&rows, Choice::Greedy, &mut used).unwrap()[0].0, 2);
        assert_eq!(used[0].next_u64(), stream.clone().next_u64());
    }

    #[test]
    fn logits_that_are_no_distribution_are_refused() {
        let stream = Streams::new(1).stream(Purpose("test"), 0, 0, 0);
        let truncated = Sampling::new(Temperature::ONE, Some(1), Some(0.5)).unwrap();
        for bad in [[f32::NAN, 0.0], [f32::NEG_INFINITY; 2], [f32::INFINITY, 0.0]] {
            let rows = Tensor::new(&[bad], &Device::Cpu).unwrap();
            for sampling in [Sampling::ONE, truncated] {
                assert!(choose(&rows, Choice::Sample(sampling), &mut [stream.clone()]).is_err(), "{bad:?}");
            }
        }
    }
}
