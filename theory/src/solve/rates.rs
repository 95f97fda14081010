//! Sharp constants and hitting times: how far one tilt can move, how fast its iteration arrives, how slowly a gradient.

use crate::error::{self, InputError};

/// How far one tilt of reward range `s = eta * range` can move a policy, and where that is attained (theory 1.5).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TiltBound {
    /// $$ \mathrm{KL}\le Z-1-\ln Z,\quad Z=s/(1-e^{-s}) $$ for both directions, nats; attained by the forward one.
    pub sharp: f64,
    /// The mass on the higher of two reward levels at which it is attained: $$ p=(Z-1)/(e^s-1) $$
    pub mass: f64,
    /// Hoeffding's bound $$ s^2/8 $$
    pub hoeffding: f64,
}

/// [`TiltBound`] for `s >= 0`. At `s = 0` the bound is 0 and the mass its limit 1/2.
pub fn tilt_bound(s: f64) -> TiltBound {
    let hoeffding = s * s / 8.0;
    if s < 0.05 {
        // The closed forms cancel here; the series' next terms are below 1e-12 of the first.
        let sharp = hoeffding - s.powi(4) / 576.0 + s.powi(6) / 25920.0;
        let mass = 0.5 - s / 6.0 + s.powi(3) / 180.0 - s.powi(5) / 5040.0;
        return TiltBound { sharp, mass, hoeffding };
    }
    let z = s / -(-s).exp_m1();
    TiltBound { sharp: z - 1.0 - z.ln(), mass: (z - 1.0) / s.exp_m1(), hoeffding }
}

/// The principal branch of Lambert's W for `a >= 0`: the `w >= 0` with $$ w\,e^w=a $$
pub fn lambert_w0(a: f64) -> f64 {
    if a == 0.0 {
        return 0.0;
    }
    let mut w = if a > std::f64::consts::E { a.ln() - a.ln().ln() } else { a.ln_1p() };
    // Halley's iteration triples the digits; a dozen rounds are more than any start needs.
    for _ in 0..12 {
        let excess = w - a * (-w).exp();
        let step = excess / (1.0 + w - excess * (w + 2.0) / (2.0 * w + 2.0));
        w -= step;
        if step.abs() <= f64::EPSILON * w.abs() {
            break;
        }
    }
    w
}

/// Lambert's $$ W_0(e^s) $$, also where $$ e^s $$ overflows: the `w` with $$ w+\ln w=s $$ 0 at minus infinity.
pub fn lambert_w0_exp(s: f64) -> f64 {
    if s < 700.0 {
        return lambert_w0(s.exp());
    }
    // Newton's iteration from above converges in a handful of rounds.
    (0..8).fold(s - s.ln(), |w, _| w - (w + w.ln() - s) / (1.0 + 1.0 / w))
}

/// The sharp constant of the fast rate from a start with probability `p` on the best response (theory 1.6):
///
/// $$ \sup_r\ \eta T\,(J^*-J(\pi_T))=W_0\Big(\frac{1-p}{e\,p}\Big) $$
///
/// attained when all other responses have the same gap `(1 + W_0)/(eta T)`.
pub fn worst_case_rate(p: f64) -> f64 {
    lambert_w0((1.0 - p) / (std::f64::consts::E * p))
}

/// A bandit of `arms` arms in which one is better than all others by `gap`, started uniform, and the regret `delta` to be
/// reached: the instance on which mirror descent and softmax policy gradient are timed (theory 1.7).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Race {
    arms: f64,
    gap: f64,
    delta: f64,
}

impl Race {
    /// A race of `arms >= 1` arms with `gap > 0` to a regret `delta > 0`.
    pub fn new(arms: usize, gap: f64, delta: f64) -> Result<Self, InputError> {
        if arms == 0 {
            return Err(InputError::Empty { argument: "K" });
        }
        Ok(Self { arms: arms as f64, gap: error::positive("gap", gap)?, delta: error::positive("delta", delta)? })
    }

    /// Whether the uniform start is already there.
    fn starts_at_goal(&self) -> bool {
        self.gap * (1.0 - 1.0 / self.arms) <= self.delta
    }

    /// Time to the goal of the continuous mirror-descent flow, 0 if it starts there:
    ///
    /// $$ \frac1\Delta\Big[\ln\frac{p_1}{1-p_1}+\ln(K-1)\Big],\quad p_1=1-\delta/\Delta $$
    pub fn mirror_time(&self) -> f64 {
        if self.starts_at_goal() {
            return 0.0;
        }
        let p = 1.0 - self.delta / self.gap;
        ((p / (1.0 - p)).ln() + (self.arms - 1.0).ln()) / self.gap
    }

    /// Time to the goal of the continuous softmax-gradient flow, 0 if it starts there:
    ///
    /// $$ \frac{K-1}{K\Delta}\,[G(p_1)-G(1/K)],\quad G(p)=\frac1{1-p}-\frac1p+2\ln\frac p{1-p} $$
    pub fn gradient_time(&self) -> f64 {
        if self.starts_at_goal() {
            return 0.0;
        }
        let g = |p: f64| 1.0 / (1.0 - p) - 1.0 / p + 2.0 * (p / (1.0 - p)).ln();
        (self.arms - 1.0) / (self.arms * self.gap) * (g(1.0 - self.delta / self.gap) - g(1.0 / self.arms))
    }

    /// Steps of size `eta` after which exact mirror descent has regret at most `delta`.
    pub fn mirror_steps(&self, eta: f64) -> usize {
        (self.mirror_time() / eta).ceil() as usize
    }

    /// Steps of size `eta` after which gradient ascent on softmax logits has regret at most `delta`.
    ///
    /// By symmetry the losing logits stay equal, so one number, the lead `d` of the best logit, carries the state:
    /// $$ d\leftarrow d+\eta\,\Delta\,p(1-p)\frac K{K-1} $$
    ///
    /// Fails where the flow's time says that more than 1e9 steps would be needed.
    pub fn gradient_steps(&self, eta: f64) -> Result<usize, InputError> {
        if self.gradient_time() / eta > 1e9 {
            let value = self.gradient_time() / eta;
            return Err(InputError::Domain { argument: "K", value, expected: "a race of at most 1e9 gradient steps" });
        }
        let others = self.arms - 1.0;
        let (mut lead, mut steps) = (0.0f64, 0);
        if self.starts_at_goal() {
            return Ok(0);
        }
        loop {
            let p = 1.0 / (1.0 + others * (-lead).exp());
            if self.gap * (1.0 - p) <= self.delta {
                return Ok(steps);
            }
            lead += eta * self.gap * p * (1.0 - p) * self.arms / others;
            steps += 1;
        }
    }
}

/// The family on which the price of misfit is attained (theory 5): one context of `arms` arms, one of them better than all
/// others by `gap`, a policy class that merges the arms and so stays uniform, and a `mu` that plays the good arm with
/// probability `1/coverage`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Merged {
    arms: f64,
    coverage: f64,
    gap: f64,
}

impl Merged {
    /// The member with `arms >= 1` arms, `coverage >= 1` and `gap > 0`.
    pub fn new(arms: usize, coverage: f64, gap: f64) -> Result<Self, InputError> {
        if arms == 0 {
            return Err(InputError::Empty { argument: "K" });
        }
        if !(coverage.is_finite() && coverage >= 1.0) {
            let expected = "a coverage coefficient, finite and at least 1";
            return Err(InputError::Domain { argument: "C", value: coverage, expected });
        }
        Ok(Self { arms: arms as f64, coverage, gap: error::positive("gap", gap)? })
    }

    /// The pair error of the only predictor there is, a constant: $$ \epsilon=\Delta^2(p+m-2pm),\quad p=\tfrac1K,\ m=\tfrac1C $$
    pub fn eps(&self) -> f64 {
        let (p, m) = (1.0 / self.arms, 1.0 / self.coverage);
        self.gap * self.gap * (p * (1.0 - m) + m * (1.0 - p))
    }

    /// The regret of every iterate: $$ \Delta\,(1-\tfrac1K) $$
    pub fn regret(&self) -> f64 {
        self.gap * (1.0 - 1.0 / self.arms)
    }

    /// How much of its bound the regret is, $$ \mathrm{regret}/\sqrt{C\epsilon}\to1 $$ as K/C grows. Not a number where both
    /// are zero.
    pub fn tightness(&self) -> f64 {
        self.regret() / (self.coverage * self.eps()).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bandit::{Bandit, Policy};
    use crate::policy::Tabular;
    use crate::solve::{mirror, natural};
    use approx::{assert_abs_diff_eq, assert_relative_eq};
    use ndarray::{Array2, array};

    #[test]
    fn series_and_closed_form_of_tilt_bound_meet() {
        let (below, above) = (tilt_bound(0.05 - 1e-12), tilt_bound(0.05));
        assert_relative_eq!(below.sharp, above.sharp, max_relative = 1e-9);
        assert_relative_eq!(below.mass, above.mass, max_relative = 1e-10);
        assert_eq!((tilt_bound(0.0).sharp, tilt_bound(0.0).mass), (0.0, 0.5));
    }

    #[test]
    fn tilt_bound_at_large_range_approaches_s_minus_one_minus_ln_s() {
        assert_abs_diff_eq!(tilt_bound(40.0).sharp, 39.0 - 40f64.ln(), epsilon = 1e-12);
        assert!(tilt_bound(2000.0).sharp.is_finite() && tilt_bound(2000.0).mass == 0.0);
    }

    #[test]
    fn lambert_inverts_w_exp_w() {
        for w in [1e-12, 1e-3, 0.5, 1.0, 2.0, 10.0, 300.0] {
            assert_relative_eq!(lambert_w0(w * f64::exp(w)), w, max_relative = 1e-13);
        }
        assert_relative_eq!(lambert_w0_exp(700.0 - 1e-9), lambert_w0_exp(700.0), max_relative = 1e-11);
        assert_eq!(lambert_w0_exp(f64::NEG_INFINITY), 0.0);
        assert_abs_diff_eq!(worst_case_rate(0.5), 0.278464542761074, epsilon = 1e-14); // W0(1/e)
    }

    #[test]
    fn race_steps_equal_those_of_the_full_algorithms() {
        let race = Race::new(5, 0.6, 0.1).unwrap();
        let bandit = Bandit::new(array![1.0], array![[0.6, 0.0, 0.0, 0.0, 0.0]]).unwrap();
        let arrives = |values: &[f64]| values.iter().position(|j| 0.6 - j <= 0.1 + 1e-12).unwrap();
        let start = Tabular::new(Array2::zeros((1, 5))).unwrap();
        let (values, _) = natural::policy_gradient_run(&bandit, &start, 0.4, 200);
        assert_eq!(race.gradient_steps(0.4).unwrap(), arrives(&values));
        let run = mirror::mirror_descent(&bandit, &Policy::uniform(1, 5), 0.4, 200);
        assert_eq!(race.mirror_steps(0.4), arrives(&run.values));
    }

    #[test]
    fn race_that_starts_at_its_goal_takes_no_step() {
        for race in [Race::new(1, 0.5, 0.1).unwrap(), Race::new(4, 0.1, 0.2).unwrap()] {
            assert_eq!((race.mirror_steps(0.1), race.gradient_steps(0.1).unwrap()), (0, 0));
        }
    }
}
