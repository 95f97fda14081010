//! Where regret comes from, exactly: mirror descent, misfit and sampling (theory 5, 5.1, 6.8), and the error of one fit
//! split by Lemma 1.
//!
//! A run is a list of [`Iteration`]s: the policy, the predictor that was fitted, the best predictor of the class under the
//! same law of pairs, and the true reward. The next policy is always the tilt by the fitted predictor.

use crate::bandit::{Policy, average};
use crate::solve::mirror::tilt;
use ndarray::{Array1, Array2, Axis};

/// The error of a predictor on pairs, split by Lemma 1; all in squared units of reward, averaged over contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairError {
    /// The error's variance under the law of the first response.
    pub var_first: f64,
    /// The error's variance under the law of the second response.
    pub var_second: f64,
    /// The square of the difference of its two means.
    pub gap: f64,
}

impl PairError {
    /// The mean squared error on pairs: $$ \epsilon=a+b+c $$
    pub fn total(&self) -> f64 {
        self.var_first + self.var_second + self.gap
    }
}

/// Lemma 1 as an equality, for `y ~ first`, `y' ~ second`, independent, and an error `delta` `[x, y]` of a predictor:
///
/// $$ E[\Delta(y)-\Delta(y')]^2=E_x\mathrm{Var}_{first}\Delta+E_x\mathrm{Var}_{second}\Delta
///    +E_x(\Delta_{first}-\Delta_{second})^2 $$
pub fn pair_error(weights: &Array1<f64>, first: &Policy, second: &Policy, delta: &Array2<f64>) -> PairError {
    let (mean_first, mean_second) = (first.expectation(delta), second.expectation(delta)); // [x]
    // Centred before squaring: an error that is constant in y leaves nothing but rounding.
    let variance = |law: &Policy, mean: &Array1<f64>| {
        let centred = delta - &mean.view().insert_axis(Axis(1));
        average(weights, &law.expectation(&centred.mapv(|d| d * d)))
    };
    PairError {
        var_first: variance(first, &mean_first),
        var_second: variance(second, &mean_second),
        gap: average(weights, &(&mean_first - &mean_second).mapv(|d| d * d)),
    }
}

/// One iteration of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Iteration {
    /// The policy $$ \pi_t $$.
    pub policy: Policy,
    /// The predictor that was fitted, $$ f_t $$ `[x, y]`.
    pub fit: Array2<f64>,
    /// The best predictor of the class under the law of the pairs, $$ \bar f_t $$ `[x, y]`; the fit itself where nothing
    /// was sampled.
    pub population: Array2<f64>,
    /// The true reward $$ r_t $$ `[x, y]`.
    pub reward: Array2<f64>,
}

/// The average regret of the policies of a run against a comparator, split into what causes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decomposition {
    /// What mirror descent with the fitted predictors pays.
    pub mirror_descent: f64,
    /// What the misfit of the class costs: $$ \tfrac1T\sum_t E_x(E_{\pi_t}-E_p)[\bar f_t-r_t] $$
    pub approximation: f64,
    /// What sampling costs: $$ \tfrac1T\sum_t E_x(E_{\pi_t}-E_p)[f_t-\bar f_t] $$
    pub sampling: f64,
}

impl Decomposition {
    /// The regret itself: the sum of the three.
    pub fn total(&self) -> f64 {
        self.mirror_descent + self.approximation + self.sampling
    }
}

/// The exact decomposition of the average regret of a run of steps of size `eta` against a comparator `p`:
///
/// $$ \tfrac1T\sum_{t<T}E_x(E_p-E_{\pi_t})r_t=\frac{\mathrm{KL}(p\|\pi_0)-\mathrm{KL}(p\|\pi_T)+\sum_t\mathrm{KL}(\pi_t\|\pi_{t+1})}
///    {\eta T}+\tfrac1T\sum_tE_x(E_{\pi_t}-E_p)[\bar f_t-r_t]+\tfrac1T\sum_tE_x(E_{\pi_t}-E_p)[f_t-\bar f_t] $$
///
/// An equality for every `p` in the support of the policies. Of no iterations, every term is NaN.
pub fn decompose(weights: &Array1<f64>, run: &[Iteration], comparator: &Policy, eta: f64) -> Decomposition {
    let steps = run.len() as f64;
    let kl = |p: &Policy, q: &Policy| average(weights, &p.kl(q));
    let mut sum = Decomposition { mirror_descent: 0.0, approximation: 0.0, sampling: 0.0 };
    for (t, one) in run.iter().enumerate() {
        let next = tilt(&one.policy, &one.fit, eta);
        if t == 0 {
            sum.mirror_descent += kl(comparator, &one.policy);
        }
        if t + 1 == run.len() {
            sum.mirror_descent -= kl(comparator, &next);
        }
        sum.mirror_descent += kl(&one.policy, &next);
        let advantage = |h: Array2<f64>| average(weights, &(one.policy.expectation(&h) - comparator.expectation(&h)));
        sum.approximation += advantage(&one.population - &one.reward);
        sum.sampling += advantage(&one.fit - &one.population);
    }
    Decomposition {
        mirror_descent: sum.mirror_descent / (eta * steps),
        approximation: sum.approximation / steps,
        sampling: sum.sampling / steps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    #[test]
    fn three_terms_are_the_pair_error_by_enumeration() {
        let (weights, delta) = (array![0.25, 0.75], array![[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]]);
        let first = Policy::new("first", array![[0.2, 0.3, 0.5], [0.1, 0.6, 0.3]]).unwrap();
        let second = Policy::new("second", array![[0.7, 0.0, 0.3], [0.4, 0.4, 0.2]]).unwrap();
        let mut eps = 0.0;
        for (x, w) in weights.iter().enumerate() {
            for y in 0..3 {
                for z in 0..3 {
                    let difference: f64 = delta[[x, y]] - delta[[x, z]];
                    eps += w * first.prob()[[x, y]] * second.prob()[[x, z]] * difference.powi(2);
                }
            }
        }
        assert_abs_diff_eq!(pair_error(&weights, &first, &second, &delta).total(), eps, epsilon = 1e-14);
    }

    #[test]
    fn terms_add_up_to_the_regret_of_a_run_with_any_predictors() {
        let (weights, eta) = (array![0.4, 0.6], 0.8);
        let comparator = Policy::new("p", array![[0.0, 1.0], [0.3, 0.7]]).unwrap();
        let mut policy = Policy::new("pi", array![[0.9, 0.1], [0.5, 0.5]]).unwrap();
        let (mut run, mut regret) = (vec![], 0.0);
        for t in 0..5 {
            let t = f64::from(t);
            let reward = array![[0.1 * t, 1.0], [0.5, -0.2 * t]];
            let population = &reward + &array![[0.3, -0.1], [0.0, 0.2]];
            let fit = &population + &(array![[0.05, 0.4], [-0.3, 0.1]] * t);
            regret += average(&weights, &(comparator.expectation(&reward) - policy.expectation(&reward))) / 5.0;
            let next = tilt(&policy, &fit, eta);
            run.push(Iteration { policy, fit, population, reward });
            policy = next;
        }
        let terms = decompose(&weights, &run, &comparator, eta);
        assert_abs_diff_eq!(terms.total(), regret, epsilon = 1e-14);
        assert!(terms.sampling.abs() > 0.01 && terms.approximation.abs() > 0.01);
    }
}
