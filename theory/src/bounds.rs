//! Every bound of the paper's regret analysis with its constants, by the paper's route and by the sharp one (theory 5, 6).
//!
//! [`Constants`] are what a bound speaks of, measured on one iteration of a run; the functions are the bounds. Rewards and
//! predictors share one unit, divergences are in nats, `eta` is nats a unit of reward. Bounds of an average over no
//! iterations are not numbers.

use crate::bandit::{Policy, average};
use crate::solve::decomposition::{Iteration, PairError, pair_error};
use crate::solve::mirror::tilt;
use crate::statistics::mean;
use ndarray::{Array1, Array2, Zip};
use serde::{Deserialize, Serialize};

/// The coverage coefficient, equation (10): $$ C_{\mu\to p}=\max_{x,y}\frac{p(y|x)}{\mu(y|x)} $$
/// Infinite where `mu` misses a response of `p`.
pub fn coverage(p: &Policy, mu: &Policy) -> f64 {
    Zip::from(p.prob()).and(mu.prob()).fold(0.0, |worst: f64, &p, &m| if p > 0.0 { worst.max(p / m) } else { worst })
}

/// The mean coverage: $$ C_2=E_xE_{y\sim p}\frac{p(y|x)}{\mu(y|x)}=1+E_x\chi^2(p\|\mu)\le C_{\mu\to p} $$
pub fn mean_coverage(weights: &Array1<f64>, p: &Policy, mu: &Policy) -> f64 {
    let ratio = Zip::from(p.prob()).and(mu.prob()).map_collect(|&p, &m| if p > 0.0 { p / m } else { 0.0 });
    average(weights, &p.expectation(&ratio))
}

/// The largest range of a predictor `[x, y]` in any context: $$ \max_x\big(\max_yf-\min_yf\big) $$
pub fn range(f: &Array2<f64>) -> f64 {
    let spread = |row: ndarray::ArrayView1<f64>| {
        row.fold(f64::NEG_INFINITY, |m, &v| m.max(v)) - row.fold(f64::INFINITY, |m, &v| m.min(v))
    };
    f.rows().into_iter().map(spread).fold(0.0, f64::max)
}

/// What the bounds speak of, measured on one iteration; maxima over all contexts, averages over their weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Constants {
    /// The error of the fit on pairs, $$ \epsilon_t=a_t+b_t+c_t $$ split by Lemma 1.
    pub error: PairError,
    /// [`coverage`] of the comparator by the law of the second response.
    pub coverage: f64,
    /// [`mean_coverage`] of the same.
    pub mean_coverage: f64,
    /// $$ \max_{x,y}|A_t|,\quad A_t=f_t-E_{\pi_t}f_t $$ of the fitted predictor.
    pub amplitude: f64,
    /// [`range`] of the fitted predictor.
    pub range: f64,
    /// The largest over-estimation $$ \max_{x,y}(\Delta_t-E_{\pi_t}\Delta_t) $$
    pub overestimation: f64,
    /// $$ E_x\mathrm{Var}_{\pi_t}\Delta_t $$ which is `a_t` where the first response is on-policy.
    pub policy_variance: f64,
    /// $$ E_x\mathrm{KL}(\pi_t\|\pi_{t+1}) $$
    pub kl_backward: f64,
    /// $$ E_x\mathrm{KL}(\pi_{t+1}\|\pi_t) $$
    pub kl_forward: f64,
    /// What misfit costs in this iteration: $$ E_x(E_{\pi_t}-E_p)\Delta_t $$
    pub approximation: f64,
}

impl Constants {
    /// Measures an iteration whose pairs are drawn independently from `first` and `second`, for a comparator and a step of
    /// size `eta`.
    pub fn measure(
        weights: &Array1<f64>,
        iteration: &Iteration,
        (first, second): (&Policy, &Policy),
        comparator: &Policy,
        eta: f64,
    ) -> Self {
        let Iteration { policy, fit, reward, .. } = iteration;
        let next = tilt(policy, fit, eta);
        let delta = fit - reward;
        let centred = |f: &Array2<f64>| f - &policy.expectation(f).insert_axis(ndarray::Axis(1));
        let over = centred(&delta); // [x, y]
        Self {
            error: pair_error(weights, first, second, &delta),
            coverage: coverage(comparator, second),
            mean_coverage: mean_coverage(weights, comparator, second),
            amplitude: centred(fit).fold(0.0, |m: f64, a| m.max(a.abs())),
            range: range(fit),
            overestimation: over.fold(0.0, |m: f64, &d| m.max(d)),
            policy_variance: average(weights, &policy.expectation(&over.mapv(|d| d * d))),
            kl_backward: average(weights, &policy.kl(&next)),
            kl_forward: average(weights, &next.kl(policy)),
            approximation: -average(weights, &comparator.expectation(&over)),
        }
    }

    /// The sharp bound of [`Constants::approximation`] for an on-policy first response: $$ \sqrt{C_2\,(b_t+c_t)}\le\sqrt{C\,\epsilon_t} $$
    pub fn misfit(&self) -> f64 {
        (self.mean_coverage * (self.error.var_second + self.error.gap)).sqrt()
    }
}

/// A bound on an average regret, by what causes it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// The distance of the start, $$ \frac{\mathrm{KL}(p\|\pi_0)}{\eta T} $$
    pub start: f64,
    /// The price of steps that are not infinitely small.
    pub steps: f64,
    /// The price of an inexact regression.
    pub misfit: f64,
}

impl Bound {
    /// The sum.
    pub fn total(&self) -> f64 {
        self.start + self.steps + self.misfit
    }

    /// The same, several times as large: a duality gap is twice a regret.
    fn times(self, factor: f64) -> Self {
        Self { start: factor * self.start, steps: factor * self.steps, misfit: factor * self.misfit }
    }
}

/// Lemma 2 by the paper's route, for the *sum* over `steps` rounds, from a uniform start:
///
/// $$ \sum_tE_pA_t\le\frac{\ln|Y|}\eta+\eta TA^2,\qquad|A_t|\le A $$
///
/// Its proof uses $$ e^z\le1+z+z^2 $$ for $$ z=\eta A_t $$ and so needs $$ \eta A\le1 $$.
pub fn lemma2_paper(responses: usize, eta: f64, steps: usize, amplitude: f64) -> f64 {
    (responses as f64).ln() / eta + eta * steps as f64 * amplitude.powi(2)
}

/// Lemma 2 by Hoeffding's lemma, for the sum over rounds in which the predictor has these ranges, from any start and
/// without a condition on `eta`; `divergence` is $$ \mathrm{KL}(p\|\pi_0) $$:
///
/// $$ \sum_tE_pA_t\le\frac{\mathrm{KL}(p\|\pi_0)}\eta+\frac\eta8\sum_t\mathrm{range}(f_t)^2
///    \le\frac{\mathrm{KL}(p\|\pi_0)}\eta+\frac{\eta TA^2}2 $$
pub fn lemma2_sharp(divergence: f64, eta: f64, ranges: &[f64]) -> f64 {
    divergence / eta + eta / 8.0 * ranges.iter().map(|r| r * r).sum::<f64>()
}

/// Lemma 2 at its best step size, for the sum over `steps` rounds: $$ A\sqrt{2T\,\mathrm{KL}(p\|\pi_0)} $$
/// The paper's route has 2 in the place of $$ \sqrt2 $$.
pub fn lemma2_best(divergence: f64, steps: usize, amplitude: f64) -> f64 {
    amplitude * (2.0 * steps as f64 * divergence).sqrt()
}

/// The step size of [`lemma2_best`]: $$ \eta=\sqrt{\frac{2\,\mathrm{KL}(p\|\pi_0)}{A^2T}} $$
pub fn lemma2_best_eta(divergence: f64, steps: usize, amplitude: f64) -> f64 {
    (2.0 * divergence / steps as f64).sqrt() / amplitude
}

/// Theorem 1 by the paper's route, for the best of `steps` iterates from a uniform start:
///
/// $$ \frac{\ln|Y|}{\eta T}+\eta A^2+2\sqrt{C\epsilon} $$
///
/// with the largest amplitude, coverage and pair error of any iteration. It needs $$ \eta A\le1 $$; at
/// $$ \eta=\sqrt{\ln|Y|/(A^2T)} $$ it is $$ 2A\sqrt{\ln|Y|/T}+2\sqrt{C\epsilon} $$.
pub fn theorem1_paper(responses: usize, eta: f64, steps: usize, run: Worst) -> Bound {
    Bound {
        start: (responses as f64).ln() / (eta * steps as f64),
        steps: eta * run.amplitude.powi(2),
        misfit: 2.0 * (run.coverage * run.eps).sqrt(),
    }
}

/// The largest constants of a run, as the paper's bounds want them; 0 of a run without iterations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worst {
    /// A: the largest amplitude.
    pub amplitude: f64,
    /// C: the largest coverage coefficient.
    pub coverage: f64,
    /// The largest pair error.
    pub eps: f64,
}

impl Worst {
    /// The largest of every iteration.
    pub fn of(run: &[Constants]) -> Self {
        let largest = |of: fn(&Constants) -> f64| run.iter().map(of).fold(0.0, f64::max);
        Self {
            amplitude: largest(|c| c.amplitude),
            coverage: largest(|c| c.coverage),
            eps: largest(|c| c.error.total()),
        }
    }
}

/// Theorem 1, sharp, for the average of $$ \pi_0..\pi_{T-1} $$, `y ~ pi_t`; `divergence` is $$ E_x\mathrm{KL}(p\|\pi_0) $$:
///
/// $$ \frac{\mathrm{KL}(p\|\pi_0)}{\eta T}+\frac\eta8\,\overline{\mathrm{range}(f_t)^2}+\overline{\sqrt{C_2\,(b_t+c_t)}} $$
pub fn theorem1_sharp(divergence: f64, eta: f64, run: &[Constants]) -> Bound {
    Bound {
        start: divergence / (eta * run.len() as f64),
        steps: eta / 8.0 * mean_of(run, |c| c.range.powi(2)),
        misfit: mean_of(run, Constants::misfit),
    }
}

/// Theorem 1 without the price of large steps, for the average of $$ \pi_1..\pi_T $$, `y ~ pi_t`, on a fixed reward:
///
/// $$ \frac{\mathrm{KL}(p\|\pi_0)}{\eta T}+(e-2)\,\eta\,\overline{a_t}+\overline{\sqrt{C_2\,(b_t+c_t)}} $$
///
/// It needs bounded over-estimation, see [`overestimates`], and so allows a constant `eta`: O(1/T) and what misfit costs.
pub fn theorem1_constant_eta(divergence: f64, eta: f64, run: &[Constants]) -> Bound {
    Bound {
        start: divergence / (eta * run.len() as f64),
        steps: (std::f64::consts::E - 2.0) * eta * mean_of(run, |c| c.policy_variance),
        misfit: mean_of(run, Constants::misfit),
    }
}

/// Whether some iteration breaks the condition of [`theorem1_constant_eta`]: $$ \eta\max_{x,y}(\Delta_t-E_{\pi_t}\Delta_t)\le1 $$
pub fn overestimates(eta: f64, run: &[Constants]) -> bool {
    run.iter().any(|c| eta * c.overestimation > 1.0)
}

/// What misfit can cost in one iteration if the first response comes from `first` and not from the policy:
///
/// $$ E_x(E_{\pi_t}-E_p)\Delta_t\le\sqrt{\big(\chi^2(p\|\mu)+\chi^2(\pi_t\|\nu)+1\big)\,\epsilon_t} $$
///
/// the divergences averaged over contexts.
pub fn off_policy_misfit(
    weights: &Array1<f64>,
    policy: &Policy,
    (first, second): (&Policy, &Policy),
    comparator: &Policy,
    eps: f64,
) -> f64 {
    let by_second = mean_coverage(weights, comparator, second); // 1 + chi^2
    let by_first = mean_coverage(weights, policy, first);
    ((by_second + by_first - 1.0) * eps).sqrt()
}

/// Theorem 2 with its constants (theory 6.2), the duality gap of the average policy:
///
/// $$ \mathrm{DG}\le2\Big[\frac{\mathrm{KL}(p\|\pi_0)}{\eta T}+\frac{\eta A^2}2+\sqrt{C\epsilon}\Big] $$
///
/// with the largest constants of any iteration; `C` is the coverage of every response, at least |Y|. An exact regression has
/// eps = 0, and its `A` is at most the largest margin.
pub fn theorem2(divergence: f64, eta: f64, steps: usize, run: Worst) -> Bound {
    Bound {
        start: divergence / (eta * steps as f64),
        steps: eta * run.amplitude.powi(2) / 2.0,
        misfit: (run.coverage * run.eps).sqrt(),
    }
    .times(2.0)
}

/// Theorem 2 by the paper's route at its step size, $$ 4A\sqrt{\frac{\ln|Y|}T}+4\sqrt{C\epsilon} $$
pub fn theorem2_paper(responses: usize, steps: usize, run: Worst) -> f64 {
    4.0 * run.amplitude * ((responses as f64).ln() / steps as f64).sqrt() + 4.0 * (run.coverage * run.eps).sqrt()
}

fn mean_of(run: &[Constants], value: impl Fn(&Constants) -> f64) -> f64 {
    mean(&run.iter().map(value).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    #[test]
    fn coverages_equal_numbers_by_hand() {
        let p = Policy::new("p", array![[0.5, 0.5], [1.0, 0.0]]).unwrap();
        let mu = Policy::new("mu", array![[0.25, 0.75], [0.2, 0.8]]).unwrap();
        assert_eq!(coverage(&p, &mu), 5.0);
        // context 0: .5 * 2 + .5 * 2/3 = 4/3; context 1: 5
        assert_abs_diff_eq!(mean_coverage(&array![0.75, 0.25], &p, &mu), 1.0 + 1.25, epsilon = 1e-15);
        assert_eq!(coverage(&mu, &p), f64::INFINITY);
    }

    #[test]
    fn constants_of_one_iteration_equal_numbers_by_hand() {
        let half = Policy::uniform(1, 2);
        let iteration = Iteration {
            policy: half.clone(),
            fit: array![[3.0, 0.0]],
            population: array![[3.0, 0.0]],
            reward: array![[1.0, 0.0]],
        };
        let mu = Policy::new("mu", array![[0.2, 0.8]]).unwrap();
        let star = Policy::pure(&[0], 2);
        let got = Constants::measure(&array![1.0], &iteration, (&half, &mu), &star, 1e-3);
        // delta = (2, 0): variances 1 and .64, means 1 and .4
        assert_abs_diff_eq!(got.error.var_first, 1.0, epsilon = 1e-15);
        assert_abs_diff_eq!(got.error.var_second, 0.64, epsilon = 1e-15);
        assert_abs_diff_eq!(got.error.gap, 0.36, epsilon = 1e-15);
        assert_eq!((got.coverage, got.mean_coverage), (5.0, 5.0));
        assert_eq!((got.amplitude, got.range, got.overestimation), (1.5, 3.0, 1.0));
        assert_abs_diff_eq!(got.approximation, -1.0, epsilon = 1e-15); // the comparator is over-estimated
        assert_abs_diff_eq!(got.policy_variance, 1.0, epsilon = 1e-15);
        assert_abs_diff_eq!(got.misfit(), 5f64.sqrt(), epsilon = 1e-15);
        assert_abs_diff_eq!(got.kl_backward, 9.0 / 8.0 * 1e-6, epsilon = 1e-11); // eta^2 Var f / 2
        assert!(overestimates(1.1, &[got]) && !overestimates(0.9, &[got]));
    }

    #[test]
    fn bounds_at_their_best_step_are_the_closed_forms() {
        let (responses, steps, amplitude) = (7, 50, 1.3);
        let ln = 7f64.ln();
        let eta = lemma2_best_eta(ln, steps, amplitude);
        let sharp = lemma2_sharp(ln, eta, &vec![2.0 * amplitude; steps]);
        assert_abs_diff_eq!(sharp, lemma2_best(ln, steps, amplitude), epsilon = 1e-12);
        let eta = eta / 2f64.sqrt();
        let paper = 2.0 * amplitude * (50.0 * ln).sqrt();
        assert_abs_diff_eq!(lemma2_paper(responses, eta, steps, amplitude), paper, epsilon = 1e-12);
        let run = Worst { amplitude, coverage: 4.0, eps: 0.25 };
        assert_abs_diff_eq!(theorem1_paper(responses, eta, steps, run).total(), paper / 50.0 + 2.0, epsilon = 1e-12);
        let twice = theorem2_paper(responses, steps, run);
        assert_abs_diff_eq!(twice, 2.0 * theorem1_paper(responses, eta, steps, run).total(), epsilon = 1e-12);
        let best = (2.0 * ln / 50.0).sqrt();
        let exact = Worst { amplitude: 1.0, coverage: 4.0, eps: 0.0 };
        assert_abs_diff_eq!(theorem2(ln, best, steps, exact).total(), 2.0 * best, epsilon = 1e-12);
    }

    #[test]
    fn bound_of_no_iterations_is_not_a_number_and_its_worst_constants_are_zero() {
        assert!(!theorem1_sharp(1.0, 0.5, &[]).total().is_finite());
        assert_eq!(Worst::of(&[]), Worst { amplitude: 0.0, coverage: 0.0, eps: 0.0 });
        assert!(!theorem1_paper(3, 0.5, 0, Worst::of(&[])).total().is_finite());
    }
}
