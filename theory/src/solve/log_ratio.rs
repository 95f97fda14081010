//! Regressing the log-ratio itself, as APA and SPPO do, in place of its differences (theory 6.6).

use crate::bandit::Policy;
use crate::solve::rates::lambert_w0_exp;
use ndarray::{Array1, Array2, Zip};

/// The exact minimiser over all policies of the regression of the log-ratio on a target `b` `[x, y]`,
///
/// $$ \min_\pi E_{y\sim\pi_t}\Big[\ln\frac{\pi(y)}{\pi_t(y)}-b(y)\Big]^2,\qquad
///    \ln\frac{\pi}{\pi_t}=b-W_0(\lambda e^b),\quad \lambda:\ E_{\pi_t}\frac{\pi}{\pi_t}=1 $$
///
/// and the multiplier of each context `[x]`. The target's mean under `pi` is taken to be zero (an advantage), so
/// the multiplier is not negative. Off the tilt by the target by the third order of the target.
pub fn log_ratio_minimiser(pi: &Policy, target: &Array2<f64>) -> (Policy, Array1<f64>) {
    let mut logits = pi.log().clone();
    let mut multipliers = Array1::zeros(logits.nrows());
    for (x, mut row) in logits.rows_mut().into_iter().enumerate() {
        let (prob, target) = (pi.prob().row(x), target.row(x));
        let ratio = |b: f64, log_lambda: f64| b - lambert_w0_exp(log_lambda + b);
        // E ratio - 1, decreasing in the multiplier
        let excess = |log_lambda: f64| {
            let term = |sum: f64, &p: &f64, &b: &f64| if p > 0.0 { sum + p * ratio(b, log_lambda).exp() } else { sum };
            Zip::from(&prob).and(&target).fold(-1.0, term)
        };
        if excess(f64::NEG_INFINITY) <= 0.0 {
            Zip::from(&mut row).and(&target).for_each(|log, &b| *log += b);
            continue;
        }
        let (mut low, mut high) = (-745.0, 1.0);
        while excess(high) > 0.0 {
            (low, high) = (high, 2.0 * high);
        }
        // Halving a bracket of at most a few thousand leaves nothing after 80 rounds.
        for _ in 0..80 {
            let middle = 0.5 * (low + high);
            if excess(middle) > 0.0 { low = middle } else { high = middle }
        }
        let log_lambda = 0.5 * (low + high);
        multipliers[x] = log_lambda.exp();
        Zip::from(&mut row).and(&target).for_each(|log, &b| *log += ratio(b, log_lambda));
    }
    (Policy::from_logits(&logits), multipliers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::mirror::tilt;
    use ndarray::array;

    fn loss(pi: &Policy, new: &Policy, target: &Array2<f64>) -> f64 {
        let residual = new.log() - pi.log() - target;
        (pi.prob() * &residual.mapv(|v| v * v)).sum()
    }

    #[test]
    fn no_nearby_policy_has_less_loss() {
        let pi = Policy::new("pi", array![[0.5, 0.3, 0.2]]).unwrap();
        let target = array![[0.8, -0.5, -1.25]];
        let (best, multiplier) = log_ratio_minimiser(&pi, &target);
        assert!(multiplier[0] > 0.0);
        for direction in [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]] {
            for step in [1e-3, -1e-3] {
                let near = tilt(&best, &array![direction], step);
                assert!(loss(&pi, &near, &target) > loss(&pi, &best, &target) + 1e-9);
            }
        }
    }

    #[test]
    fn distance_to_the_tilt_is_of_third_order() {
        let pi = Policy::new("pi", array![[0.5, 0.3, 0.2]]).unwrap();
        let advantage = array![[0.8, -0.5, -1.25]];
        let off = |eta: f64| {
            let (new, _) = log_ratio_minimiser(&pi, &(&advantage * eta));
            new.total_variation(&tilt(&pi, &advantage, eta))[0]
        };
        let ratio = off(0.1) / off(0.05);
        assert!((ratio - 8.0).abs() < 0.6, "{ratio}");
    }

    #[test]
    fn constant_reward_and_missing_responses_stay() {
        let pi = Policy::new("pi", array![[0.5, 0.0, 0.5]]).unwrap();
        let (same, multiplier) = log_ratio_minimiser(&pi, &Array2::zeros((1, 3)));
        assert_eq!((same.distance(&pi), multiplier[0]), (0.0, 0.0));
        let (far, _) = log_ratio_minimiser(&pi, &array![[900.0, 5.0, -900.0]]);
        assert!(far.prob()[[0, 1]] == 0.0 && (far.prob().sum() - 1.0).abs() < 1e-12);
    }
}
