//! The laws that responses are drawn from: offline, on-policy, hybrid, best and worst of several draws.
//!
//! Best-of-N and worst-of-N are exact, with ties: the best of N draws is one of the drawn responses of the highest reward,
//! each as likely as the other, and the worst likewise (Remark 2 of the paper; theory 5). [`best_and_worst`] is the law of
//! both from the same draws, which is not the product of the two.

use crate::bandit::{Bandit, Policy};
use crate::error::{self, InputError};
use crate::solve::regression::PairLaw;
use ndarray::{Array1, Array2, Array3, ArrayView1};
use std::num::NonZeroUsize;

/// Where the responses of a run come from. What depends on the policy moves with it.
#[derive(Debug, Clone, PartialEq)]
pub enum Law {
    /// The policy itself.
    OnPolicy,
    /// A fixed table of distributions.
    Offline(Policy),
    /// The policy with some probability, a fixed table else, see [`Law::hybrid`].
    Hybrid(Hybrid),
    /// The response of the highest reward among that many draws from the policy.
    BestOf(NonZeroUsize),
    /// The response of the lowest.
    WorstOf(NonZeroUsize),
}

/// Both parts of a hybrid law, made by [`Law::hybrid`].
#[derive(Debug, Clone, PartialEq)]
pub struct Hybrid {
    offline: Policy,
    share: f64, // of the fixed table
}

impl Law {
    /// The hybrid law $$ (1-a)\,\pi_t+a\,\mu $$ with `share = a` in `[0, 1]`.
    pub fn hybrid(offline: Policy, share: f64) -> Result<Self, InputError> {
        if !(0.0..=1.0).contains(&share) {
            let expected = "a probability from 0 to 1";
            return Err(InputError::Domain { argument: "share", value: share, expected });
        }
        Ok(Law::Hybrid(Hybrid { offline, share }))
    }

    /// Refuses a fixed table whose shape is not that of the bandit; `argument` names it.
    pub fn fits(&self, argument: &'static str, bandit: &Bandit) -> Result<(), InputError> {
        match self {
            Law::Offline(offline) | Law::Hybrid(Hybrid { offline, .. }) => {
                error::shape(argument, offline.prob().shape(), bandit.reward().shape())
            }
            Law::OnPolicy | Law::BestOf(_) | Law::WorstOf(_) => Ok(()),
        }
    }

    /// The distributions over responses `[x, y]` while the policy is `pi`. A fixed table must fit `pi`, see [`Law::fits`].
    pub fn given(&self, bandit: &Bandit, pi: &Policy) -> Policy {
        match self {
            Law::OnPolicy => pi.clone(),
            Law::Offline(offline) => offline.clone(),
            Law::Hybrid(Hybrid { offline, share }) => pi.mixture(offline, *share),
            Law::BestOf(n) => best_of(pi, bandit.reward(), *n),
            Law::WorstOf(n) => worst_of(pi, bandit.reward(), *n),
        }
    }
}

/// The law of the best of `n` draws from `pi`, by `reward` `[x, y]`:
///
/// $$ \frac{best(y)}{\pi(y)}=\frac{F(r_y)^n-F(r_y^-)^n}{q(r_y)} $$
///
/// `F`: the probability of a reward at most that high, `q` of exactly that reward.
pub fn best_of(pi: &Policy, reward: &Array2<f64>, n: NonZeroUsize) -> Policy {
    extreme_of(pi, reward, n)
}

/// The law of the worst of `n` draws from `pi`: [`best_of`] for the negated reward.
pub fn worst_of(pi: &Policy, reward: &Array2<f64>, n: NonZeroUsize) -> Policy {
    extreme_of(pi, &-reward, n)
}

fn extreme_of(pi: &Policy, reward: &Array2<f64>, n: NonZeroUsize) -> Policy {
    let mut law = Array2::zeros(pi.prob().raw_dim());
    for (x, mut row) in law.rows_mut().into_iter().enumerate() {
        let levels = Levels::new(pi.prob().row(x), reward.row(x));
        let highest = levels.highest_of(n.get() as f64); // [level]
        for (y, p) in row.iter_mut().enumerate() {
            *p = highest[levels.of[y]] * levels.within(pi.prob()[[x, y]], y);
        }
        let sum = row.sum();
        row.mapv_inplace(|p| p / sum);
    }
    Policy::new("law", law).expect("normalised")
}

/// The law of the best and the worst `[x, best, worst]` of the same `n` draws from `pi`. With `a..b` the mass of the levels
/// of reward from `a` to `b`,
///
/// $$ P(b,w)=G(w,b)^n-G(w+1,b)^n-G(w,b-1)^n+G(w+1,b-1)^n,\qquad G(a,b)=\sum_{a\le k\le b}q_k $$
///
/// and the responses are independent given their levels. Of two or more draws best and worst are different draws, so that
/// both may be the same response only if it was drawn twice. For `n = 2` this is an independent pair in order of reward.
pub fn best_and_worst(pi: &Policy, reward: &Array2<f64>, n: NonZeroUsize) -> PairLaw {
    let (contexts, responses) = pi.prob().dim();
    let mut joint = Array3::zeros((contexts, responses, responses));
    for (x, mut table) in joint.outer_iter_mut().enumerate() {
        let (p, levels) = (pi.prob().row(x), Levels::new(pi.prob().row(x), reward.row(x)));
        let extremes = levels.extremes_of(n.get() as f64); // [best level, worst level]
        for ((b, w), out) in table.indexed_iter_mut() {
            let both = extremes[[levels.of[b], levels.of[w]]];
            *out = match n.get() {
                1 => {
                    if b == w {
                        p[b]
                    } else {
                        0.0
                    }
                }
                _ => both * levels.within(p[b], b) * levels.within(p[w], w),
            };
        }
        let sum = table.sum();
        table.mapv_inplace(|p| p / sum);
    }
    PairLaw::new(joint).expect("normalised")
}

/// The responses of one context, gathered by equal reward in ascending order.
struct Levels {
    of: Vec<usize>,  // [y] level of each response
    mass: Vec<f64>,  // [level]
    up_to: Vec<f64>, // [level] mass of the level and all below, the last exactly 1
}

impl Levels {
    fn new(p: ArrayView1<f64>, reward: ArrayView1<f64>) -> Self {
        let mut order: Vec<usize> = (0..p.len()).collect();
        order.sort_by(|&a, &b| reward[a].total_cmp(&reward[b]));
        let (mut of, mut mass) = (vec![0; p.len()], Vec::<f64>::new());
        for (rank, &y) in order.iter().enumerate() {
            if rank == 0 || reward[y] > reward[order[rank - 1]] {
                mass.push(0.0);
            }
            of[y] = mass.len() - 1;
            *mass.last_mut().expect("a level") += p[y];
        }
        let total: f64 = mass.iter().sum();
        mass.iter_mut().for_each(|q| *q /= total);
        let mut up_to: Vec<f64> = mass
            .iter()
            .scan(0.0, |sum, q| {
                *sum += q;
                Some(*sum)
            })
            .collect();
        // Rounding must not leave the highest levels short of certainty: powers would magnify it.
        let last = mass.iter().rposition(|&q| q > 0.0).expect("probabilities sum to one");
        up_to[last..].fill(1.0);
        Self { of, mass, up_to }
    }

    /// The probability of a response given its level.
    fn within(&self, p: f64, y: usize) -> f64 {
        if p > 0.0 { p / self.mass[self.of[y]] } else { 0.0 }
    }

    /// The probability that each level is the highest of `n` draws `[level]`: $$ F^n-(F-q)^n $$
    fn highest_of(&self, n: f64) -> Array1<f64> {
        // As one factor times another: the difference of two powers would lose the rare levels.
        let probability =
            |(&f, &q): (&f64, &f64)| if q > 0.0 { f.powf(n) * -(n * (-q / f).max(-1.0).ln_1p()).exp_m1() } else { 0.0 };
        self.up_to.iter().zip(&self.mass).map(probability).collect()
    }

    /// The probability that the highest and the lowest of `n >= 2` draws are of these levels `[best, worst]`.
    fn extremes_of(&self, n: f64) -> Array2<f64> {
        let count = self.mass.len();
        let probability = |(b, w): (usize, usize)| {
            if b < w {
                return 0.0;
            }
            let (top, bottom) = (self.mass[b], self.mass[w]);
            if b == w {
                return top.powf(n);
            }
            let between: f64 = self.mass[w + 1..b].iter().sum();
            let missing = (between + top).powf(n) + (between + bottom).powf(n) - between.powf(n);
            ((between + top + bottom).powf(n) - missing).max(0.0)
        };
        Array2::from_shape_fn((count, count), probability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::{assert_abs_diff_eq, assert_relative_eq};
    use ndarray::array;

    fn draws(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).unwrap()
    }

    #[test]
    fn tie_is_shared_among_the_drawn() {
        // levels 3/4 and 1/4: high twice 9/16, high and low 6/16, low twice 1/16
        let pi = Policy::new("pi", array![[0.5, 0.25, 0.25]]).unwrap();
        let reward = array![[1.0, 1.0, 0.0]];
        let joint = best_and_worst(&pi, &reward, draws(2));
        let by_hand = array![[[0.25, 0.125, 0.25], [0.125, 0.0625, 0.125], [0.0, 0.0, 0.0625]]];
        assert_abs_diff_eq!(joint.joint(), &by_hand, epsilon = 1e-15);
        assert_abs_diff_eq!(best_of(&pi, &reward, draws(2)).prob(), &array![[0.625, 0.3125, 0.0625]], epsilon = 1e-15);
        assert_abs_diff_eq!(worst_of(&pi, &reward, draws(2)).prob(), &array![[0.375, 0.1875, 0.4375]], epsilon = 1e-15);
        // one draw is both
        let alone = best_and_worst(&pi, &reward, draws(1));
        assert_abs_diff_eq!(
            alone.joint(),
            &array![[[0.5, 0.0, 0.0], [0.0, 0.25, 0.0], [0.0, 0.0, 0.25]]],
            epsilon = 1e-15
        );
    }

    #[test]
    fn best_and_worst_of_two_equal_numbers_by_hand() {
        let pi = Policy::new("pi", array![[0.5, 0.3, 0.2]]).unwrap();
        let joint = best_and_worst(&pi, &array![[2.0, 1.0, 0.0]], draws(2));
        assert_abs_diff_eq!(
            joint.joint(),
            &array![[[0.25, 0.3, 0.2], [0.0, 0.09, 0.12], [0.0, 0.0, 0.04]]],
            epsilon = 1e-15
        );
        let best = best_of(&pi, &array![[2.0, 1.0, 0.0]], draws(2));
        assert_abs_diff_eq!(best.prob(), &array![[0.75, 0.21, 0.04]], epsilon = 1e-15);
    }

    #[test]
    fn rare_level_keeps_its_digits() {
        // The top arm is the worst of 5 draws only if all five are it.
        let pi = Policy::new("pi", array![[1e-9, 1.0 - 1e-9]]).unwrap();
        let worst = worst_of(&pi, &array![[1.0, 0.0]], draws(5));
        assert_relative_eq!(worst.prob()[[0, 0]], 1e-45, max_relative = 1e-12);
    }

    #[test]
    fn number_of_draws_without_end_leaves_the_extremes() {
        let pi = Policy::new("pi", array![[0.2, 0.0, 0.5, 0.3]]).unwrap();
        let reward = array![[0.5, 9.0, 0.1, 0.5]];
        let n = draws(9_000_000_000_000_000);
        assert_abs_diff_eq!(best_of(&pi, &reward, n).prob(), &array![[0.4, 0.0, 0.0, 0.6]], epsilon = 1e-12);
        assert_abs_diff_eq!(worst_of(&pi, &reward, n).prob(), &array![[0.0, 0.0, 1.0, 0.0]], epsilon = 1e-12);
        assert_abs_diff_eq!(best_and_worst(&pi, &reward, n).joint()[[0, 3, 2]], 0.6, epsilon = 1e-12);
    }

    #[test]
    fn laws_follow_the_policy_or_stay() {
        let bandit = Bandit::new(array![1.0], array![[1.0, 0.0]]).unwrap();
        let pi = Policy::new("pi", array![[0.25, 0.75]]).unwrap();
        let offline = Policy::pure(&[1], 2);
        assert_eq!(Law::OnPolicy.given(&bandit, &pi), pi);
        assert_eq!(Law::Offline(offline.clone()).given(&bandit, &pi), offline);
        let hybrid = Law::hybrid(offline.clone(), 0.5).unwrap().given(&bandit, &pi);
        assert_abs_diff_eq!(hybrid.prob(), &array![[0.125, 0.875]], epsilon = 1e-15);
        let best = Law::BestOf(draws(2)).given(&bandit, &pi);
        assert_abs_diff_eq!(best.prob(), &array![[1.0 - 0.5625, 0.5625]], epsilon = 1e-15);
        assert!(Law::hybrid(offline.clone(), 1.5).is_err() && Law::hybrid(offline, f64::NAN).is_err());
        assert!(Law::Offline(Policy::uniform(1, 3)).fits("mu", &bandit).is_err());
    }
}
