//! Log-probabilities of given tokens and entropies of their distributions, from hidden states.
//!
//! The logits `[rows, vocab]` exist only for a chunk of rows at a time; the backward computes them again. Where the
//! distribution is truncated, the logits of the tokens left out are minus infinity from there on, in the very function
//! the sampler uses.

mod chunked;

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::{CustomOp2, CustomOp3, D, DType, Layout, Tensor};
use rayon::prelude::*;

use super::linear::linear;
use super::{Input, Output, has_fused_form, on_host, widened};
use crate::nn::real::{Real, elements, lane_sum, wide};
use crate::nn::sampling::Scoring;
use crate::{Error, Result};

/// Log-probability of `targets[i]` and entropy of the whole distribution at row i, both `[rows]`, in nats, under
/// softmax(hidden weight^T / temperature), truncated and renormalised as `scoring` says: a temperature alone, a
/// [`crate::nn::Sampling`] (a target that is not kept scores minus infinity), or one of drawn tokens. `hidden`:
/// `[rows, width]`; `weight`: `[vocab, width]`. Fails on a target outside the vocabulary.
pub fn token_logprob(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    scoring: impl Into<Scoring>,
) -> Result<(Tensor, Tensor)> {
    let (vocab, _) = weight.dims2()?;
    let rows = hidden.dim(0)?;
    if targets.len() != rows {
        return Err(Error::invalid(format!("targets: {} for {rows} hidden states", targets.len())));
    }
    if let Some(target) = targets.iter().find(|&&t| t as usize >= vocab) {
        return Err(Error::invalid(format!("targets: token {target} (expected less than the vocabulary's {vocab})")));
    }
    if !has_fused_form(hidden) {
        return chunked::token_logprob(hidden, weight, targets, scoring.into());
    }
    let op = TokenLogprob { targets: targets.into(), scoring: scoring.into() };
    let all = hidden.contiguous()?.apply_op2(weight, op)?; // [3, rows]
    Ok((all.get(0)?, all.get(1)?))
}

/// The definition in candle operations, in f32 or f64 from the logits on.
pub fn composed(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    scoring: impl Into<Scoring>,
) -> Result<(Tensor, Tensor)> {
    let scoring = scoring.into();
    let raw = linear(&widened(hidden)?, &widened(weight)?, None)?;
    let mut logits = (&raw / scoring.sampling.temperature().divisor())?;
    let kept = match scoring.sampling.is_truncated() {
        true => Some(kept_tokens(&raw, targets, scoring)?),
        false => None,
    };
    if let Some(kept) = &kept {
        // So low that nothing is left of the weight, and still a number: 0 times it is 0.
        let low = Tensor::new(-1e30f64, logits.device())?.to_dtype(logits.dtype())?.broadcast_as(logits.dims())?;
        logits = kept.where_cond(&logits, &low)?;
    }
    let log_p = candle_nn::ops::log_softmax(&logits, D::Minus1)?; // [rows, vocab]
    let entropy = (&log_p * log_p.exp()?)?.sum(D::Minus1)?.neg()?;
    let targets = Tensor::new(targets, hidden.device())?.unsqueeze(1)?;
    let mut of_target = log_p.gather(&targets, 1)?.squeeze(1)?;
    if let Some(kept) = kept {
        let inside = kept.gather(&targets, 1)?.squeeze(1)?;
        let never = Tensor::new(f64::NEG_INFINITY, inside.device())?.to_dtype(of_target.dtype())?;
        of_target = inside.where_cond(&of_target, &never.broadcast_as(of_target.dims())?)?;
    }
    Ok((of_target, entropy))
}

/// Which tokens take part, `[rows, vocab]`: a constant, so it is made on the host, by the sampler's own rule.
fn kept_tokens(logits: &Tensor, targets: &[u32], scoring: Scoring) -> Result<Tensor> {
    let (rows, vocab) = logits.dims2()?;
    let mut values = logits.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    truncate_rows(&mut values, targets, scoring);
    let kept = values.into_iter().map(|z| u8::from(z > f64::NEG_INFINITY)).collect();
    Ok(Tensor::from_vec(kept, (rows, vocab), logits.device())?)
}

/// Sets the logits that take no part to minus infinity, row by row.
fn truncate_rows<T: Real>(logits: &mut [T], targets: &[u32], scoring: Scoring) {
    let vocab = logits.len() / targets.len().max(1);
    if scoring.sampling.is_truncated() {
        logits.par_chunks_mut(vocab).zip(targets).for_each(|(row, &target)| {
            scoring.sampling.truncate(row, scoring.admits.then_some(target));
        });
    }
}

/// What the softmax of one row of logits divided by `divisor` is made of. Sampler and scorer both use this.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowSoftmax<T> {
    /// Largest tempered logit.
    pub max: T,
    /// ln of the sum of exp(tempered logit - max).
    pub log_sum: T,
    /// Entropy, nats.
    pub entropy: T,
}

#[inline(always)]
pub(crate) fn row_softmax<T: Real>(logits: &[T], divisor: T) -> RowSoftmax<T> {
    let mut max = T::NEG_INFINITY;
    for &z in logits {
        max = max.larger(z / divisor);
    }
    let sum = lane_sum(logits.len(), |i| (logits[i] / divisor - max).exponential());
    let moment = lane_sum(logits.len(), |i| {
        let z = logits[i] / divisor - max;
        // A weight of 0 carries no entropy, even when its logit is minus infinity.
        let weight = z.exponential();
        if weight == T::zero() { T::zero() } else { weight * z }
    });
    let log_sum = sum.logarithm();
    RowSoftmax { max, log_sum, entropy: log_sum - moment / sum }
}

impl<T: Real> RowSoftmax<T> {
    /// Log-probability of the token with this logit.
    #[inline(always)]
    pub fn log_p(&self, logit: T, divisor: T) -> T {
        logit / divisor - self.max - self.log_sum
    }
}

wide! {
    /// [`row_softmax`] of one row, for the sampler.
    fn softmax_of<T>(logits: &[T], divisor: T, out: &mut Option<RowSoftmax<T>>) {
        *out = Some(row_softmax(logits, divisor));
    }
}

wide! {
    /// The weights whose sum [`row_softmax`] took the logarithm of: exp(tempered logit - max).
    fn weights_of<T>(logits: &[T], divisor: T, max: T, out: &mut [T]) {
        for (w, &z) in out.iter_mut().zip(logits) {
            *w = (z / divisor - max).exponential();
        }
    }
}

wide! {
    /// For each row of logits: log-probability of its target, entropy, and maximum plus log-sum.
    fn score_rows<T>(logits: &[T], targets: &[u32], divisor: T, out: &mut [[T; 3]]) {
        let vocab = logits.len() / targets.len();
        for ((logits, &target), out) in logits.chunks_exact(vocab).zip(targets).zip(out) {
            let row = row_softmax(logits, divisor);
            *out = [row.log_p(logits[target as usize], divisor), row.entropy, row.max + row.log_sum];
        }
    }
}

wide! {
    /// Turns logits into their gradient: row i from the gradients of its log-probability and of its entropy.
    fn gradient_rows<T>(logits: &mut [T], targets: &[u32], divisor: T, of: &[[T; 4]]) {
        let vocab = logits.len() / targets.len();
        for ((row, &target), &[d_log_p, d_entropy, entropy, log_sum]) in
            logits.chunks_exact_mut(vocab).zip(targets).zip(of)
        {
            let uniform = d_log_p + d_entropy * entropy;
            for z in row.iter_mut() {
                let log_p = *z / divisor - log_sum;
                let p = log_p.exponential();
                let own = if p == T::zero() { T::zero() } else { p * (uniform + d_entropy * log_p) };
                *z = T::zero() - own / divisor;
            }
            row[target as usize] += d_log_p / divisor;
        }
    }
}

/// Rows whose logits exist at a time: about 16 MiB of f32, whatever the vocabulary.
fn chunk_rows(vocab: usize) -> usize {
    ((1 << 22) / vocab.max(1)).clamp(16, 1024)
}

struct TokenLogprob {
    targets: Arc<[u32]>,
    scoring: Scoring,
}

/// From (logits, results, their gradients) of a chunk to the gradient of its logits.
struct LogitGradient<'a> {
    targets: &'a [u32],
    scoring: Scoring,
}

/// Rows one thread takes.
const ROWS: usize = 16;

fn forward<T: Real>((s1, l1): Input, (s2, l2): Input, targets: &[u32], scoring: Scoring) -> Output {
    let ((rows, width), (vocab, _)) = (l1.shape().dims2()?, l2.shape().dims2()?);
    let [row, column] = *l2.stride() else { candle_core::bail!("token-logprob: the weight is not a matrix") };
    let transposed = Layout::new((width, vocab).into(), vec![column, row], l2.start_offset());
    let divisor = T::of(scoring.sampling.temperature().divisor());
    let mut out = vec![[T::zero(); 3]; rows];
    let step = chunk_rows(vocab);
    for (c, (out, targets)) in out.chunks_mut(step).zip(targets.chunks(step)).enumerate() {
        let n = targets.len();
        let chunk = Layout::contiguous_with_offset((n, width), l1.start_offset() + c * step * width);
        let logits = s1.matmul(s2, (1, n, vocab, width), &chunk, &transposed)?;
        let mut logits = T::cpu_storage_data(logits)?;
        truncate_rows(&mut logits, targets, scoring);
        logits
            .par_chunks(ROWS * vocab)
            .zip(targets.par_chunks(ROWS).zip(out.par_chunks_mut(ROWS)))
            .for_each(|(logits, (targets, out))| score_rows(logits, targets, divisor, out));
    }
    let parts = (0..3).flat_map(|part| out.iter().map(move |row| row[part])).collect();
    Ok((T::to_cpu_storage_owned(parts), (3, rows).into()))
}

fn logit_gradient<T: Real>((s1, l1): Input, (s2, l2): Input, (s3, l3): Input, op: &LogitGradient) -> Output {
    let (n, vocab) = l1.shape().dims2()?;
    let mut logits = elements::<T>(s1, l1)?.to_vec();
    truncate_rows(&mut logits, op.targets, op.scoring);
    let divisor = T::of(op.scoring.sampling.temperature().divisor());
    let (results, gradients) = (elements::<T>(s2, l2)?, elements::<T>(s3, l3)?);
    // What cannot be drawn stays so, whichever way the logits move a little.
    let possible = |i: usize| if results[i] == T::NEG_INFINITY { T::zero() } else { gradients[i] };
    let of: Vec<[T; 4]> = (0..n).map(|i| [possible(i), gradients[n + i], results[n + i], results[2 * n + i]]).collect();
    logits
        .par_chunks_mut(ROWS * vocab)
        .zip(op.targets.par_chunks(ROWS).zip(of.par_chunks(ROWS)))
        .for_each(|(logits, (targets, of))| gradient_rows(logits, targets, divisor, of));
    Ok((T::to_cpu_storage_owned(logits), (n, vocab).into()))
}

impl CustomOp2 for TokenLogprob {
    on_host!(2, "token-logprob", forward, self, &self.targets, self.scoring);

    fn bwd(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
        results: &Tensor,
        gradients: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (hidden_tracked, weight_tracked) = (hidden.track_op(), weight.track_op());
        // Detached: what is computed here belongs to no graph.
        let (hidden, weight) = (hidden.detach(), weight.detach());
        let step = chunk_rows(weight.dim(0)?);
        let (mut d_hidden, mut d_weight) = (Vec::new(), None::<Tensor>);
        for (c, targets) in self.targets.chunks(step).enumerate() {
            let n = targets.len();
            let part = |t: &Tensor| t.detach().narrow(1, c * step, n)?.contiguous();
            let rows = hidden.narrow(0, c * step, n)?;
            let op = LogitGradient { targets, scoring: self.scoring };
            let logits = rows.matmul(&weight.t()?)?;
            let d_logits = logits.apply_op3_no_bwd(&part(results)?, &part(gradients)?, &op)?;
            if hidden_tracked {
                d_hidden.push(d_logits.matmul(&weight)?);
            }
            if weight_tracked {
                let more = d_logits.t()?.matmul(&rows)?;
                d_weight = Some(match d_weight {
                    Some(sum) => (sum + more)?,
                    None => more,
                });
            }
        }
        let d_hidden = if hidden_tracked { Some(Tensor::cat(&d_hidden, 0)?) } else { None };
        Ok((d_hidden, d_weight))
    }
}

impl CustomOp3 for LogitGradient<'_> {
    on_host!(3, "logit-gradient", logit_gradient, self, self);
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::super::testing::*;
    use super::*;
    use crate::nn::{Sampling, Temperature};

    /// No truncation, each kind, and both.
    fn truncations(t: f64) -> Vec<Sampling> {
        let temperature = Temperature::new(t).unwrap();
        let kinds = [(None, None), (Some(4), None), (None, Some(0.6)), (Some(7), Some(0.8))];
        kinds.map(|(k, p)| Sampling::new(temperature, k, p).unwrap()).to_vec()
    }

    #[test]
    fn fused_and_composed_log_probs_and_entropies_agree_over_several_chunks() {
        let stack = |(a, b): (Tensor, Tensor)| Tensor::stack(&[a, b], 0).unwrap();
        for (i, sampling) in truncations(0.7).into_iter().enumerate() {
            // Chunks of 1023 and 77 rows, and of 1024 and 76 where truncation makes rows dear.
            let (rows, width, vocab) = (1100, 5, if i == 0 { 4099 } else { 33 });
            let inputs = [random("hidden", &[rows, width], DType::F64), random("weight", &[vocab, width], DType::F64)];
            let targets: Vec<u32> = (0..rows as u32).map(|i| i * 37 % vocab as u32).collect();
            agree(
                &inputs,
                |a| stack(token_logprob(&a[0], &a[1], &targets, sampling.of_drawn()).unwrap()),
                |a| stack(composed(&a[0], &a[1], &targets, sampling.of_drawn()).unwrap()),
                [2e-5, 1e-11],
            );
        }
    }

    #[test]
    fn the_gradients_are_slopes() {
        let inputs = [random("hidden", &[9, 5], DType::F64), random("weight", &[13, 5], DType::F64)];
        let targets: Vec<u32> = (0..9).collect();
        for sampling in truncations(1.3) {
            matches_finite_differences(
                &inputs,
                |a| {
                    let (log_p, entropy) = token_logprob(&a[0], &a[1], &targets, sampling.of_drawn()).unwrap();
                    Tensor::stack(&[log_p, entropy], 0).unwrap()
                },
                1e-7,
            );
        }
    }

    /// Of 9 targets among 13 tokens some are kept and some are not; the first have the gradient of the second form, the others
    /// none, and neither form gives a NaN.
    #[test]
    fn a_target_that_is_not_kept_scores_minus_infinity_and_passes_no_gradient() {
        let hidden = random("hidden", &[9, 5], DType::F64);
        let weight = candle_core::Var::from_tensor(&random("weight", &[13, 5], DType::F64)).unwrap();
        let targets: Vec<u32> = (0..9).collect();
        for sampling in &truncations(1.3)[1..] {
            let [fused, composed] = [true, false].map(|fused| {
                let (log_p, entropy) = match fused {
                    true => token_logprob(&hidden, &weight, &targets, *sampling).unwrap(),
                    false => composed(&hidden, &weight, &targets, *sampling).unwrap(),
                };
                let values = log_p.to_vec1::<f64>().unwrap();
                let outside: Vec<bool> = values.iter().map(|&l| l == f64::NEG_INFINITY).collect();
                // Only those outside are asked for, then only those inside.
                let gradient = |wanted: bool| {
                    let of: Vec<f64> = outside.iter().map(|&o| f64::from(u8::from(o == wanted))).collect();
                    let of = Tensor::new(of, log_p.device()).unwrap();
                    let inside = Tensor::new(outside.iter().map(|&o| u8::from(!o)).collect::<Vec<_>>(), log_p.device());
                    let taken = match wanted {
                        true => log_p.clone(),
                        false => inside.unwrap().where_cond(&log_p, &log_p.zeros_like().unwrap()).unwrap(),
                    };
                    let gradients = (taken * of).unwrap().sum_all().unwrap().backward().unwrap();
                    gradients.get(&weight).unwrap().abs().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
                };
                assert!(entropy.to_vec1::<f64>().unwrap().iter().all(|e| e.is_finite()));
                (outside.clone(), gradient(true), gradient(false))
            });
            assert_eq!(fused.0, composed.0);
            assert!(fused.0.contains(&true) && fused.0.contains(&false));
            assert_eq!((fused.1, composed.1), (0.0, 0.0));
            assert!(fused.2 > 0.1 && (fused.2 - composed.2).abs() < 1e-12);
        }
    }

    #[test]
    fn truncation_lowers_the_entropy_to_at_most_that_of_its_tokens() {
        let (hidden, weight) = (random("hidden", &[9, 5], DType::F64), random("weight", &[13, 5], DType::F64));
        let entropy = |sampling: Sampling| {
            token_logprob(&hidden, &weight, &[0; 9], sampling).unwrap().1.to_vec1::<f64>().unwrap()
        };
        let two = Sampling::new(Temperature::ONE, Some(2), None).unwrap();
        for (cut, whole) in entropy(two).into_iter().zip(entropy(Sampling::ONE)) {
            assert!(cut > 0.0 && cut <= 2f64.ln() && cut < whole, "{cut} {whole}");
        }
    }

    #[test]
    fn a_target_outside_the_vocabulary_is_named() {
        let (hidden, weight) = (random("h", &[1, 2], DType::F32), random("w", &[3, 2], DType::F32));
        let error = token_logprob(&hidden, &weight, &[3], Temperature::ONE).unwrap_err().to_string();
        assert!(error.contains("token 3"), "{error}");
    }
}
