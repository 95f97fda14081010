//! The distribution a token is drawn from and scored under: one value for the sampler, the scorer and training.
//!
//! The order is transformers': temperature first, then top-k, then top-p of what top-k has left; the mass that remains is
//! divided by its sum. Log-probabilities and entropies are those of that distribution, so truncation raises the first
//! and lowers the second, and a token that was not kept has log-probability minus infinity. Which tokens are kept depends
//! on the order of the logits, which has no useful derivative: gradients hold the kept set constant.

use std::cmp::Ordering;

use super::ops::token_logprob::weights_of;
use super::real::Real;
use super::temperature::Temperature;
use crate::{Error, Result};

/// Temperature and truncation of a distribution over tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    temperature: Temperature,
    top_k: Option<usize>,
    top_p: Option<f64>,
}

impl Sampling {
    /// The model's own distribution: temperature 1, every token kept.
    pub const ONE: Self = Self { temperature: Temperature::ONE, top_k: None, top_p: None };

    /// The distribution at `temperature`, of which the `top_k` most probable tokens are kept, and of these the fewest
    /// whose mass reaches `top_p` of theirs, at least one. Where probabilities are equal the lower id goes first, so that
    /// no more than `top_k` tokens are kept (transformers keeps all that equal the last). A `top_p` of 1 keeps everything.
    ///
    /// # Errors
    /// A `top_k` of 0; a `top_p` that is not above 0 and at most 1.
    pub fn new(temperature: Temperature, top_k: Option<usize>, top_p: Option<f64>) -> Result<Self> {
        if top_k == Some(0) {
            return Err(Error::invalid("top_k: 0 (expected at least 1)"));
        }
        if let Some(p) = top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return Err(Error::invalid(format!("top_p: {p} (expected a number above 0 and at most 1)")));
        }
        Ok(Self { temperature, top_k, top_p: top_p.filter(|&p| p < 1.0) })
    }

    /// What the logits are divided by.
    pub fn temperature(self) -> Temperature {
        self.temperature
    }

    /// How many tokens are kept at most.
    pub fn top_k(self) -> Option<usize> {
        self.top_k
    }

    /// Which share of the mass is kept.
    pub fn top_p(self) -> Option<f64> {
        self.top_p
    }

    /// Whether tokens can be left out.
    pub fn is_truncated(self) -> bool {
        self.top_k.is_some() || self.top_p.is_some()
    }

    /// How tokens are scored that were drawn from this distribution of some policy: see [`Scoring::admits`].
    pub fn of_drawn(self) -> Scoring {
        Scoring { sampling: self, admits: true }
    }

    /// Where one row of logits is cut; none where every token is kept, or where a logit is not a number (whoever takes the
    /// softmax finds that out).
    fn cut<T: Real>(self, logits: &[T]) -> Option<Cut<T>> {
        let k = self.top_k.filter(|&k| k < logits.len());
        if (k.is_none() && self.top_p.is_none()) || logits.iter().any(|z| z.wide().is_nan()) {
            return None;
        }
        let mut ranked: Vec<(T, u32)> = logits.iter().copied().zip(0..).collect();
        if let Some(k) = k {
            let (_, &mut (least, last), _) = ranked.select_nth_unstable_by(k - 1, more_probable);
            if self.top_p.is_none() {
                return Some(Cut { least, last });
            }
            ranked.truncate(k);
        }
        let divisor = T::of(self.temperature.divisor());
        let max = ranked.iter().fold(T::NEG_INFINITY, |max, (z, _)| max.larger(*z / divisor));
        let weights = |of: &[(T, u32)]| -> Vec<f64> {
            let logits: Vec<T> = of.iter().map(|(z, _)| *z).collect();
            let mut weights = vec![T::zero(); logits.len()];
            weights_of(&logits, divisor, max, &mut weights);
            weights.into_iter().map(T::wide).collect()
        };
        let wanted = self.top_p? * weights(&ranked).iter().sum::<f64>();
        // Most rows reach their mass in a few tokens: the rest is never put in order.
        let (mut sorted, mut mass) = (0, 0.0);
        while sorted < ranked.len() {
            let end = (8 * sorted).max(64).min(ranked.len());
            let rest = &mut ranked[sorted..];
            if end - sorted < rest.len() {
                rest.select_nth_unstable_by(end - sorted - 1, more_probable);
            }
            let next = &mut rest[..end - sorted];
            next.sort_unstable_by(more_probable);
            for (&(least, last), weight) in next.iter().zip(weights(next)) {
                mass += weight;
                if mass >= wanted {
                    return Some(Cut { least, last });
                }
            }
            sorted = end;
        }
        let &(least, last) = ranked.last()?; // rounding only: top-p was all of what top-k had left
        Some(Cut { least, last })
    }

    /// Sets to minus infinity the logits of all tokens that are not kept, except that of `admitted`.
    pub(crate) fn truncate<T: Real>(self, logits: &mut [T], admitted: Option<u32>) {
        if let Some(cut) = self.cut(logits) {
            for (z, id) in logits.iter_mut().zip(0..) {
                if !cut.keeps(*z, id) && admitted != Some(id) {
                    *z = T::NEG_INFINITY;
                }
            }
        }
    }
}

impl From<Temperature> for Sampling {
    fn from(temperature: Temperature) -> Self {
        Self { temperature, ..Self::ONE }
    }
}

/// The last token that is kept, in falling order of probability.
struct Cut<T> {
    least: T,
    last: u32,
}

impl<T: Real> Cut<T> {
    fn keeps(&self, logit: T, id: u32) -> bool {
        logit > self.least || (logit == self.least && id <= self.last)
    }
}

/// Falling probability, then rising id. The logits are numbers.
fn more_probable<T: Real>(a: &(T, u32), b: &(T, u32)) -> Ordering {
    b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1))
}

/// How given tokens are scored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scoring {
    /// The distribution.
    pub sampling: Sampling,
    /// What becomes of a token outside the kept set. `false`: its log-probability is minus infinity, and passes no
    /// gradient. `true`: it is added to the set, as its last member. That is how training scores a token which was
    /// certainly kept when it was drawn, and which a step of the optimizer, the reference policy, or the last bit of a
    /// sum has since moved across the edge: at the edge itself the two sets are the same, and the score stays finite.
    pub admits: bool,
}

impl From<Sampling> for Scoring {
    fn from(sampling: Sampling) -> Self {
        Self { sampling, admits: false }
    }
}

impl From<Temperature> for Scoring {
    fn from(temperature: Temperature) -> Self {
        Sampling::from(temperature).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(logits: &[f64], k: usize, p: f64) -> Vec<usize> {
        let sampling = Sampling::new(Temperature::ONE, (k > 0).then_some(k), Some(p)).unwrap();
        let mut cut = logits.to_vec();
        sampling.truncate(&mut cut, None);
        (0..cut.len()).filter(|&i| cut[i] > f64::NEG_INFINITY).collect()
    }

    /// ln of 0.1, 0.4, 0.2, 0.05, 0.25.
    fn five() -> Vec<f64> {
        [0.1f64, 0.4, 0.2, 0.05, 0.25].map(f64::ln).to_vec()
    }

    #[test]
    fn the_kept_sets_are_those_worked_by_hand() {
        assert_eq!(kept(&five(), 2, 1.0), [1, 4]);
        assert_eq!(kept(&five(), 0, 0.6), [1, 4]); // 0.65 is the first sum to reach 0.6
        assert_eq!(kept(&five(), 0, 0.66), [1, 2, 4]);
        assert_eq!(kept(&five(), 0, 1e-9), [1]);
        assert_eq!(kept(&five(), 9, 1.0), [0, 1, 2, 3, 4]);
        // Of the mass that the first three have, 0.85, the first two have 0.76: not yet 0.8 of it, but 0.65 < 0.8 of all.
        assert_eq!(kept(&five(), 3, 0.76), [1, 4]);
        assert_eq!(kept(&five(), 3, 0.77), [1, 2, 4]);
    }

    #[test]
    fn equal_logits_are_kept_from_the_lowest_id() {
        assert_eq!(kept(&[0.0; 6], 2, 1.0), [0, 1]);
        assert_eq!(kept(&[0.0; 6], 0, 0.5), [0, 1, 2]);
        assert_eq!(kept(&[0.0, 1.0, 0.0, 1.0], 3, 1.0), [0, 1, 3]);
    }

    /// A thousand tokens in falling order of a known mass: the kept set is a prefix, found past the first piece sorted.
    #[test]
    fn long_kept_sets_end_where_the_sum_does() {
        let logits: Vec<f64> = (0..1000).map(|i| f64::from(i * 7919 % 1000) * -0.003).collect();
        for p in [0.05, 0.3, 0.9, 0.999] {
            let mut mass: Vec<f64> = logits.iter().map(|z| z.exp()).collect();
            mass.sort_by(|a, b| b.total_cmp(a));
            let total: f64 = mass.iter().sum();
            let mut sum = 0.0;
            let wanted = 1 + mass
                .iter()
                .take_while(|&m| {
                    sum += m;
                    sum < p * total
                })
                .count();
            let got = kept(&logits, 0, p);
            assert_eq!(got.len(), wanted, "{p}");
            assert!(got.iter().all(|&i| i * 7919 % 1000 < wanted));
        }
    }

    #[test]
    fn an_admitted_token_joins_the_kept_set_and_no_other_does() {
        let sampling = Sampling::new(Temperature::ONE, Some(1), None).unwrap();
        let mut logits = five();
        sampling.truncate(&mut logits, Some(3));
        let live: Vec<usize> = (0..5).filter(|&i| logits[i] > f64::NEG_INFINITY).collect();
        assert_eq!(live, [1, 3]);
    }

    #[test]
    fn impossible_truncations_are_refused() {
        for (k, p) in [(Some(0), None), (None, Some(0.0)), (None, Some(1.1)), (None, Some(f64::NAN))] {
            assert!(Sampling::new(Temperature::ONE, k, p).is_err(), "{k:?} {p:?}");
        }
        assert!(!Sampling::new(Temperature::ONE, None, Some(1.0)).unwrap().is_truncated());
    }
}
