//! Preference losses on the margin by which the preferred response of a pair leads: DPO, IPO, iterative DPO.

use super::super::{Arith, Beta, Tau};

/// Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, equation 7), summed over preferences:
///
/// $$ -\sum_i \ln\sigma\big(\beta\,[h(y^w_i)-h(y^l_i)]\big),\qquad h=\ln\pi-\ln\pi_{\rm ref} $$
///
/// `new`, `reference`: log-probability of each whole response, nats, `[preferences, 2]`, the preferred one first.
///
/// # Errors
/// When the shapes are not one and the same `[preferences, 2]`.
pub fn dpo<A: Arith>(new: &A, reference: &A, beta: Beta) -> Result<A, A::Error> {
    let margin = new.minus(reference)?.difference_of_pair()?; // [preferences]
    margin.scale(beta.get())?.log_sigmoid()?.total()?.scale(-1.0)
}

/// Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036, equation 17), summed over preferences:
///
/// $$ \sum_i\Big(h(y^w_i)-h(y^l_i)-\tfrac1{2\tau}\Big)^2,\qquad h=\ln\pi-\ln\pi_{\rm ref} $$
///
/// `new`, `reference`: log-probability of each whole response, nats, `[preferences, 2]`, the preferred one first.
///
/// # Errors
/// When the shapes are not one and the same `[preferences, 2]`.
pub fn ipo<A: Arith>(new: &A, reference: &A, tau: Tau) -> Result<A, A::Error> {
    let margin = new.minus(reference)?.difference_of_pair()?; // [preferences]
    margin.shift(-0.5 / tau.get())?.square()?.total()
}

/// Iterative DPO, equation (21) of the paper, summed over pairs: DPO against the policy that was sampled, the response of
/// higher reward being the preferred one:
///
/// $$ -\sum_i\ln\sigma\Big(\beta\,\mathrm{sgn}\big(r(y_i)-r(y'_i)\big)
///    \Big[\ln\frac{\pi(y_i)}{\pi_t(y_i)}-\ln\frac{\pi(y'_i)}{\pi_t(y'_i)}\Big]\Big) $$
///
/// `new`, `old`: log-probability of each whole response, nats, `[pairs, 2]`; `reward`: `[pairs, 2]`. A pair of equal
/// rewards has the sign 0: it adds ln 2 and no gradient.
///
/// Only signs count, so there is no finite minimiser: the margin of every pair is pushed up for ever.
///
/// # Errors
/// When the three shapes are not one and the same `[pairs, 2]`.
pub fn iterative_dpo<A: Arith>(new: &A, old: &A, reward: &A, beta: Beta) -> Result<A, A::Error> {
    let moved = new.minus(old)?.difference_of_pair()?; // [pairs]
    let preferred = reward.difference_of_pair()?.sign()?; // [pairs] 1, -1, or 0 for a tie
    moved.times(&preferred)?.scale(beta.get())?.log_sigmoid()?.total()?.scale(-1.0)
}

#[cfg(test)]
mod tests {
    use super::super::super::tape::Tape;
    use super::super::tests::pairs;
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::arr2;

    #[test]
    fn dpo_at_the_reference_is_ln_2_and_its_slope_is_half_of_beta() {
        let tape = Tape::new();
        let new = tape.input(pairs(&[[-3.0, -4.0]]));
        let loss = dpo(&new, &tape.input(pairs(&[[-3.0, -4.0]])), Beta::new(0.1).unwrap()).unwrap();
        assert_abs_diff_eq!(loss.value().sum(), 2f64.ln(), epsilon = 1e-15);
        assert_abs_diff_eq!(tape.cotangents(&loss).unwrap().of(&new), pairs(&[[-0.05, 0.05]]), epsilon = 1e-16);
    }

    #[test]
    fn dpo_equals_number_by_hand() {
        // h = (1, -1), margin 2, beta .5: ln(1 + e^-1)
        let loss = dpo(&pairs(&[[-1.0, -3.0]]), &pairs(&[[-2.0, -2.0]]), Beta::new(0.5).unwrap()).unwrap();
        assert_abs_diff_eq!(loss.sum(), (-1f64).exp().ln_1p(), epsilon = 1e-15);
    }

    #[test]
    fn ipo_is_zero_exactly_at_its_margin() {
        // tau 1/4: a margin of 2 is wanted; h = (1, -1) has it, h = (0, 0) misses it by 2
        let (new, reference) = (pairs(&[[-1.0, -3.0], [-1.0, -1.0]]), pairs(&[[-2.0, -2.0], [-1.0, -1.0]]));
        assert_eq!(ipo(&new, &reference, Tau::new(0.25).unwrap()).unwrap().sum(), 4.0);
    }

    #[test]
    fn iterative_dpo_equals_the_golden_number_and_sees_signs_only() {
        let (new, old) = (pairs(&[[-10.0, -9.0], [-12.0, -8.0]]), pairs(&[[-11.0, -9.5], [-11.5, -8.25]]));
        let loss =
            |reward: [[f64; 2]; 2]| iterative_dpo(&new, &old, &pairs(&reward), Beta::new(0.05).unwrap()).unwrap().sum();
        assert_abs_diff_eq!(loss([[1.2, 0.4], [-1.0, 0.3]]) / 2.0, 0.677649127518, epsilon = 1e-12);
        assert_eq!(loss([[1.2, 0.4], [-1.0, 0.3]]), loss([[1e-9, 0.0], [-70.0, 0.3]]));
    }

    #[test]
    fn tied_pair_adds_ln_2_and_no_gradient() {
        let tape = Tape::new();
        let new = tape.input(pairs(&[[-3.0, -4.0]]));
        let (old, reward) = (tape.input(pairs(&[[-1.0, -1.0]])), tape.input(pairs(&[[0.5, 0.5]])));
        let loss = iterative_dpo(&new, &old, &reward, Beta::new(2.0).unwrap()).unwrap();
        assert_abs_diff_eq!(loss.value().sum(), 2f64.ln(), epsilon = 1e-15);
        assert_eq!(tape.cotangents(&loss).unwrap().of(&new), pairs(&[[0.0, 0.0]]));
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let (three, two) = (arr2(&[[1.0, 2.0, 3.0]]).into_dyn(), pairs(&[[1.0, 2.0]]));
        assert!(
            dpo(&three, &three, Beta::new(1.0).unwrap()).is_err() && ipo(&two, &three, Tau::new(1.0).unwrap()).is_err()
        );
        assert!(iterative_dpo(&two, &two, &three, Beta::new(1.0).unwrap()).is_err());
    }
}
