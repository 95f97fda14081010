//! PPO's clipped surrogate over all policies of one context: its maximum, and which policies attain it (theory 7).
//!
//! $$ S(q)=\sum_y\pi_t(y)\min\big(\rho_yA_y,\ \mathrm{clip}(\rho_y,1-\epsilon,1+\epsilon)A_y\big),\qquad \rho=q/\pi_t $$
//!
//! A policy attains the maximum exactly if every better response has at least the ratio $$ 1+\epsilon $$ and every worse
//! one at most $$ 1-\epsilon $$, if there are such policies: only the signs of the advantage count.

use crate::bandit::Policy;
use crate::error::{self, InputError};
use crate::objective::Clip;
use ndarray::{Array1, Array2, Axis, Zip};

/// The clipped surrogate of one context.
#[derive(Debug, Clone, PartialEq)]
pub struct Surrogate {
    pi: Policy,             // [1, y]
    advantage: Array1<f64>, // [y]
    clip: f64,
    better: f64,  // mass of positive advantage
    worse: f64,   // of negative advantage
    neutral: f64, // of advantage zero
}

impl Surrogate {
    /// The surrogate for a sampled policy `pi` `[y]` (a distribution) and rewards `r` `[y]` (finite).
    ///
    /// Responses of probability zero have no ratio; they stay at zero.
    pub fn new(pi: &Array1<f64>, reward: &Array1<f64>, clip: Clip) -> Result<Self, InputError> {
        error::distribution("pi", &[], pi.view())?;
        error::finite("r", reward)?;
        error::shape("r", reward.shape(), pi.shape())?;
        // What subtraction leaves of an average reward is rounding, and has no sign.
        let rounding = 8.0 * f64::EPSILON * reward.fold(0.0, |m: f64, r| m.max(r.abs()));
        let mean = pi.dot(reward);
        let advantage = reward.mapv(|r| if (r - mean).abs() <= rounding { 0.0 } else { r - mean });
        let mass = |sign: f64| {
            Zip::from(pi).and(&advantage).fold(0.0, |sum, &p, &a: &f64| if a * sign > 0.0 { sum + p } else { sum })
        };
        let neutral = Zip::from(pi).and(&advantage).fold(0.0, |sum, &p, &a| if a == 0.0 { sum + p } else { sum });
        let (better, worse) = (mass(1.0), mass(-1.0));
        let pi = Policy::new("pi", pi.clone().insert_axis(Axis(0)))?;
        Ok(Self { pi, advantage, clip: clip.get(), better, worse, neutral })
    }

    /// The sampled policy `[1, y]`.
    pub fn sampled(&self) -> &Policy {
        &self.pi
    }

    /// The advantage of each response `[y]`, zero where it is rounding.
    pub fn advantage(&self) -> &Array1<f64> {
        &self.advantage
    }

    /// The mass on responses that are better than average, $$ P_+ $$
    pub fn better_mass(&self) -> f64 {
        self.better
    }

    /// The ratio below which a worse response gains nothing; never negative.
    fn floor(&self) -> f64 {
        (1.0 - self.clip).max(0.0)
    }

    /// The surrogate of a policy `[1, y]`.
    pub fn value(&self, policy: &Policy) -> f64 {
        let (low, high) = (1.0 - self.clip, 1.0 + self.clip);
        let rows = (self.pi.prob().row(0), policy.prob().row(0));
        Zip::from(&rows.0).and(&rows.1).and(&self.advantage).fold(0.0, |sum, &p, &q, &a| {
            let ratio = if p > 0.0 { q / p } else { 0.0 };
            sum + p * (ratio * a).min(ratio.clamp(low, high) * a)
        })
    }

    /// Whether every better response can be given its full ratio: $$ (1+\epsilon)P_+\le1 $$
    pub fn is_feasible(&self) -> bool {
        (1.0 + self.clip) * self.better <= 1.0
    }

    /// The maximum where it is feasible and the clip is at most 1, an upper bound elsewhere: $$ 2\epsilon\,E[A^+] $$
    pub fn closed_form(&self) -> f64 {
        let gain = Zip::from(&self.pi.prob().row(0)).and(&self.advantage).fold(0.0, |sum, &p, &a| sum + p * a.max(0.0));
        2.0 * self.clip * gain
    }

    /// The maximum over all policies.
    pub fn maximum(&self) -> f64 {
        self.value(&self.nearest_maximiser())
    }

    /// The maximiser of least $$ \mathrm{KL}(q\|\pi_t) $$ `[1, y]`.
    ///
    /// Where it is feasible: one common ratio, raised to $$ 1+\epsilon $$ on better responses and lowered to
    /// $$ 1-\epsilon $$ on worse ones. Elsewhere the best responses are filled up to their ratio, one after the other.
    pub fn nearest_maximiser(&self) -> Policy {
        let ratio = if self.is_feasible() { self.clipped_ratios() } else { self.filled_ratios() };
        normalised(self.pi.prob().row(0).to_owned() * ratio)
    }

    /// The ratios $$ \max(c,1+\epsilon) $$, `c`, $$ \min(c,1-\epsilon) $$ by sign, with the `c` that makes them a policy.
    fn clipped_ratios(&self) -> Array1<f64> {
        let (low, high) = (self.floor(), 1.0 + self.clip);
        let below = ((1.0 - high * self.better) / (self.worse + self.neutral)).max(0.0);
        let above = (1.0 - low * self.worse) / (self.better + self.neutral);
        let common = if below <= low {
            below
        } else if above >= high {
            above
        } else {
            (1.0 - high * self.better - low * self.worse) / self.neutral
        };
        self.advantage.mapv(|a| {
            if a > 0.0 {
                common.max(high)
            } else if a < 0.0 {
                common.min(low)
            } else {
                common
            }
        })
    }

    /// The ratios that spend all mass on the best responses, up to $$ 1+\epsilon $$ each; equal ones share what is left.
    fn filled_ratios(&self) -> Array1<f64> {
        let prob = self.pi.prob().row(0);
        let mut levels: Vec<f64> = self.advantage.iter().copied().filter(|a| *a > 0.0).collect();
        levels.sort_by(|a, b| b.total_cmp(a));
        levels.dedup();
        let (mut ratio, mut left) = (Array1::zeros(prob.len()), 1.0);
        for level in levels {
            let here = |a: f64| a == level;
            let mass =
                Zip::from(&prob).and(&self.advantage).fold(0.0, |sum, &p, &a| if here(a) { sum + p } else { sum });
            let filled = if mass > 0.0 { (1.0 + self.clip).min(left / mass) } else { 0.0 };
            Zip::from(&mut ratio).and(&self.advantage).for_each(|r, &a| {
                if here(a) {
                    *r = filled
                }
            });
            left = f64::max(left - filled * mass, 0.0);
        }
        ratio
    }

    /// The sampled policy restricted to better responses `[1, y]`: a maximiser too, where that is feasible, at
    /// $$ \mathrm{KL}=\ln1/P_+ $$ None if no response is better than average.
    pub fn restriction(&self) -> Option<Policy> {
        let kept =
            Zip::from(&self.pi.prob().row(0)).and(&self.advantage).map_collect(|&p, &a| if a > 0.0 { p } else { 0.0 });
        (self.better > 0.0).then(|| normalised(kept))
    }

    /// The largest $$ \mathrm{KL}(q\|\pi_t) $$ of any maximiser, nats, if exactly one response is better than average:
    /// that response alone, or it at its ratio and the rest on one response of advantage zero.
    pub fn farthest_divergence(&self) -> Option<f64> {
        let prob = self.pi.prob().row(0);
        let of_sign = |better: bool| {
            let fits = move |a: f64| if better { a > 0.0 } else { a == 0.0 };
            prob.iter().zip(&self.advantage).filter(move |(p, a)| **p > 0.0 && fits(**a)).map(|(p, _)| *p)
        };
        let mut better = of_sign(true);
        let (Some(p), None) = (better.next(), better.next()) else { return None };
        let moved = (1.0 + self.clip) * p;
        let split = |neutral: f64| {
            let rest = 1.0 - moved;
            let term = |q: f64, p: f64| if q > 0.0 { q * (q / p).ln() } else { 0.0 };
            if rest < 0.0 { 0.0 } else { term(moved, p) + term(rest, neutral) }
        };
        Some(of_sign(false).map(split).fold(-p.ln(), f64::max))
    }

    /// What every maximiser spends at least, nats, attained by [`Self::nearest_maximiser`] where it is feasible and no
    /// advantage is zero: the binary divergence
    ///
    /// $$ \mathrm{kl}\big(P_++\epsilon\max(P_+,P_-)\,\big\|\,P_+\big) $$
    ///
    /// It grows without bound as $$ P_+\to0 $$, however small the advantages are.
    pub fn least_divergence(&self) -> f64 {
        binary_divergence(self.better + self.clip.min(1.0) * self.worse.max(self.better), self.better)
    }
}

/// The divergence of two Bernoulli laws, nats: $$ \mathrm{kl}(q\|p)=q\ln\frac qp+(1-q)\ln\frac{1-q}{1-p} $$
pub fn binary_divergence(q: f64, p: f64) -> f64 {
    let term = |q: f64, p: f64| if q > 0.0 { q * (q / p).ln() } else { 0.0 };
    term(q, p) + term(1.0 - q, 1.0 - p)
}

/// A row of masses that sum to one up to rounding, as a policy of one context.
fn normalised(mass: Array1<f64>) -> Policy {
    let logits: Array2<f64> = mass.mapv(f64::ln).insert_axis(Axis(0));
    Policy::from_logits(&logits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    fn surrogate(pi: Array1<f64>, reward: Array1<f64>) -> Surrogate {
        Surrogate::new(&pi, &reward, Clip::new(0.2).unwrap()).unwrap()
    }

    #[test]
    fn rare_better_response_takes_a_fifth_of_the_mass() {
        // theory 7 (a): an arm of mass 1e-3, better by 1e-3; P+ = .001, q = .001 + .2 * .999
        let one = surrogate(array![0.001, 0.5, 0.499], array![1e-3, 0.0, -1e-9]);
        let nearest = one.nearest_maximiser();
        assert_abs_diff_eq!(nearest.prob(), &array![[0.2008, 0.4, 0.3992]], epsilon = 1e-12);
        assert_abs_diff_eq!(nearest.kl(one.sampled())[0], 0.886367398863452, epsilon = 1e-12);
        assert_abs_diff_eq!(one.least_divergence(), 0.886367398863452, epsilon = 1e-12);
        assert_abs_diff_eq!(one.farthest_divergence().unwrap(), 1000f64.ln(), epsilon = 1e-12);
        assert_abs_diff_eq!(one.maximum(), one.closed_form(), epsilon = 1e-18);
    }

    #[test]
    fn frequent_better_response_is_raised_by_the_clip_and_no_more() {
        let one = surrogate(array![0.75, 0.25], array![1.0, 0.0]);
        assert_abs_diff_eq!(one.nearest_maximiser().prob(), &array![[0.9, 0.1]], epsilon = 1e-15);
        assert_abs_diff_eq!(one.nearest_maximiser().kl(one.sampled())[0], one.least_divergence(), epsilon = 1e-15);
        assert_abs_diff_eq!(one.closed_form(), 2.0 * 0.2 * 0.75 * 0.25, epsilon = 1e-15);
    }

    #[test]
    fn where_not_all_better_responses_fit_the_best_is_filled_first() {
        // A = (.44, .34, -3.56); P+ = .9, and 1.2 of it does not fit: .6 to the best, .4 to the second
        let one = surrogate(array![0.5, 0.4, 0.1], array![1.0, 0.9, -3.0]);
        assert!(!one.is_feasible());
        assert_abs_diff_eq!(one.nearest_maximiser().prob(), &array![[0.6, 0.4, 0.0]], epsilon = 1e-15);
        assert!(one.maximum() < one.closed_form());
        let tied = surrogate(array![0.5, 0.4, 0.1], array![1.0, 1.0, 0.0]); // .9 shared in proportion
        assert_abs_diff_eq!(tied.nearest_maximiser().prob(), &array![[5.0 / 9.0, 4.0 / 9.0, 0.0]], epsilon = 1e-15);
    }

    #[test]
    fn average_response_takes_the_common_ratio() {
        let one = surrogate(array![0.25, 0.25, 0.5], array![1.0, -1.0, 0.0]);
        assert_abs_diff_eq!(one.nearest_maximiser().prob(), &array![[0.3, 0.2, 0.5]], epsilon = 1e-15);
        // all on the better: ln 4; or .3 on it and .7 on the average one
        assert_abs_diff_eq!(one.farthest_divergence().unwrap(), 4f64.ln(), epsilon = 1e-15);
        let even = surrogate(array![0.9, 0.001, 0.099], array![1.0, 1.0, 1.0]);
        assert_abs_diff_eq!(even.nearest_maximiser().prob(), even.sampled().prob(), epsilon = 1e-15);
        assert_eq!((even.maximum(), even.restriction(), even.farthest_divergence()), (0.0, None, None));
    }

    #[test]
    fn constant_reward_that_rounds_has_no_better_response() {
        let one = surrogate(array![0.2, 0.3, 0.5], array![0.1, 0.1, 0.1]);
        assert_eq!((one.better_mass(), one.least_divergence()), (0.0, 0.0));
    }

    #[test]
    fn rewards_of_another_length_are_refused() {
        let clip = Clip::new(0.2).unwrap();
        assert!(Surrogate::new(&array![0.5, 0.5], &array![1.0], clip).is_err());
        assert!(Surrogate::new(&array![0.5, 0.6], &array![1.0, 0.0], clip).is_err());
    }
}
