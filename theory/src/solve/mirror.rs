//! Mirror descent in its exact form: tilt by the exponential of the reward, and iterate.

use crate::bandit::{Bandit, Policy};
use ndarray::{Array1, Array2, Axis, Zip};

/// The exact mirror-descent step, equation (3), for a reward or predictor `f` `[x, y]`:
///
/// $$ \pi_{t+1}(y|x)=\pi_t(y|x)\,e^{\eta f(x,y)}/Z_t(x) $$
///
/// A response of probability zero keeps it.
pub fn tilt(pi: &Policy, f: &Array2<f64>, eta: f64) -> Policy {
    Policy::from_logits(&(pi.log() + &(f * eta)))
}

/// The logarithm of the normaliser of a tilt `[x]`, equation (3): $$ \ln Z_t(x)=\ln E_{y\sim\pi_t}e^{\eta f(x,y)} $$
pub fn log_normaliser(pi: &Policy, f: &Array2<f64>, eta: f64) -> Array1<f64> {
    let exponents = pi.log() + &(f * eta);
    exponents.map_axis(Axis(1), |row| {
        let top = row.fold(f64::NEG_INFINITY, |m, &s| m.max(s));
        top + row.iter().map(|&s| (s - top).exp()).sum::<f64>().ln()
    })
}

/// The objective a tilt maximises, equation (2): $$ E_xE_\pi r-\tfrac1\eta E_x\mathrm{KL}(\pi\|\pi_t) $$
pub fn regularised_value(bandit: &Bandit, pi: &Policy, old: &Policy, eta: f64) -> f64 {
    bandit.value(pi) - bandit.kl(pi, old) / eta
}

/// The reward read back from two successive policies up to a constant of the context `[x, y]`, equations (4) and (5):
///
/// $$ \tfrac1\eta\ln\frac{\pi_{t+1}(y|x)}{\pi_t(y|x)}=r(x,y)-\tfrac1\eta\ln Z_t(x) $$
///
/// Zero where both policies have probability zero: such a response says nothing about its reward.
pub fn implied_reward(new: &Policy, old: &Policy, eta: f64) -> Array2<f64> {
    let ratio = |&new: &f64, &old: &f64| if new == old { 0.0 } else { (new - old) / eta };
    Zip::from(new.log()).and(old.log()).map_collect(ratio)
}

/// What `T` exact mirror-descent steps did.
#[derive(Debug, Clone, PartialEq)]
pub struct MirrorDescent {
    /// Values $$ J(\pi_t) $$ for t = 0..T, `[T+1]`.
    pub values: Vec<f64>,
    /// $$ E_x\mathrm{KL}(\pi_{t+1}\|\pi_t) $$ `[T]`, nats.
    pub kl_forward: Vec<f64>,
    /// $$ E_x\mathrm{KL}(\pi_t\|\pi_{t+1}) $$ `[T]`, nats.
    pub kl_backward: Vec<f64>,
    /// The largest $$ \mathrm{KL}(\pi_{t+1}\|\pi_t) $$ of any step and context, 0 without steps.
    pub kl_forward_max: f64,
    /// The last policy.
    pub last: Policy,
}

/// `steps` exact mirror-descent steps of size `eta` from `start`.
pub fn mirror_descent(bandit: &Bandit, start: &Policy, eta: f64, steps: usize) -> MirrorDescent {
    let mut run = MirrorDescent {
        values: vec![bandit.value(start)],
        kl_forward: Vec::new(),
        kl_backward: Vec::new(),
        kl_forward_max: 0.0,
        last: start.clone(),
    };
    for _ in 0..steps {
        let next = tilt(&run.last, bandit.reward(), eta);
        let forward = next.kl(&run.last); // [x]
        run.kl_forward_max = forward.fold(run.kl_forward_max, |m, &kl| m.max(kl));
        run.kl_forward.push(bandit.average(&forward));
        run.kl_backward.push(bandit.kl(&run.last, &next));
        run.values.push(bandit.value(&next));
        run.last = next;
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    fn bandit() -> Bandit {
        Bandit::new(array![1.0], array![[2f64.ln(), 0.0, 5.0]]).unwrap()
    }

    #[test]
    fn tilt_equals_number_by_hand_and_keeps_zero() {
        let pi = Policy::new("pi", array![[0.5, 0.5, 0.0]]).unwrap();
        let next = tilt(&pi, bandit().reward(), 1.0);
        assert_abs_diff_eq!(next.prob(), &array![[2.0 / 3.0, 1.0 / 3.0, 0.0]], epsilon = 1e-15);
        assert_abs_diff_eq!(log_normaliser(&pi, bandit().reward(), 1.0)[0], 1.5f64.ln(), epsilon = 1e-15);
        let implied = implied_reward(&next, &pi, 1.0);
        assert_abs_diff_eq!(implied[[0, 0]] - implied[[0, 1]], 2f64.ln(), epsilon = 1e-15);
    }

    #[test]
    fn no_step_changes_nothing() {
        let start = Policy::uniform(1, 3);
        let run = mirror_descent(&bandit(), &start, 0.5, 0);
        assert_eq!((run.values.len(), run.kl_forward.len(), run.kl_forward_max), (1, 0, 0.0));
        assert_eq!(run.last, start);
    }

    #[test]
    fn divergence_stays_finite_where_probabilities_underflow() {
        let run = mirror_descent(&bandit(), &Policy::uniform(1, 3), 400.0, 2);
        assert!(run.last.prob()[[0, 0]] == 0.0 && run.kl_backward.iter().all(|kl| kl.is_finite()));
    }
}
