//! Regressions of log-ratios on rewards: REBEL, which regresses differences, and those that regress the log-ratio itself.

use super::super::{Arith, Eta, Lambda};

/// REBEL's regression loss, equation (1) of the paper, summed over pairs:
///
/// $$ \sum_i\Big(\tfrac1\eta\big[\Delta\ln\pi(y_i)-\Delta\ln\pi(y'_i)\big]-\big[r(y_i)-r(y'_i)\big]\Big)^2 $$
///
/// `new`, `old`: log-probability of each whole response under the policy being trained and under the one that was
/// sampled, nats, `[pairs, 2]`; `reward`: `[pairs, 2]`. The value is in squared units of reward.
///
/// The published code minimises `eta^2` times this: the same minimiser, gradients that differ by `eta^2`.
///
/// # Errors
/// When the three shapes are not one and the same `[pairs, 2]`.
pub fn rebel<A: Arith>(new: &A, old: &A, reward: &A, eta: Eta) -> Result<A, A::Error> {
    let moved = new.minus(old)?.difference_of_pair()?; // [pairs] how far the log-ratio has moved
    let wanted = reward.difference_of_pair()?; // [pairs]
    moved.scale(1.0 / eta.get())?.minus(&wanted)?.square()?.total()
}

/// REBEL for general preferences (Appendix C of the paper), summed over pairs: equation (1) with the reward of a response
/// replaced by its margin $$ l=2P-1 $$ over a third response that both of the pair are compared with,
///
/// $$ \sum_i\Big(\tfrac1\eta\big[\Delta\ln\pi(y_i)-\Delta\ln\pi(y'_i)\big]-2\big[P(y_i\succ y''_i)-P(y'_i\succ y''_i)\big]\Big)^2 $$
///
/// `new`, `old`: as in [`rebel`]; `win`: the probability that each response is preferred to the common opponent, or the
/// outcome of one comparison, 1 for won and 0 for lost, `[pairs, 2]`.
///
/// The factor 2 turns outcomes into margins: leaving it out halves `eta`.
///
/// # Errors
/// When the three shapes are not one and the same `[pairs, 2]`.
pub fn rebel_preference<A: Arith>(new: &A, old: &A, win: &A, eta: Eta) -> Result<A, A::Error> {
    rebel(new, old, &win.scale(2.0)?, eta)
}

/// Advantage-induced policy alignment (Zhu et al. 2023, arXiv 2306.02231), summed over responses:
///
/// $$ \sum_i\Big(\ln\frac{\pi(y_i)}{\pi_{\rm ref}(y_i)}-\tfrac1\lambda A(y_i)\Big)^2 $$
///
/// `new`, `reference`: log-probability of each whole response, nats; `advantage`: of each response under the policy that
/// was sampled; all of one shape, `[rows]` or any other.
///
/// It takes the normaliser of the tilt to be 1, which is wrong by the third order of the step (theory 6.6).
///
/// # Errors
/// When the shapes differ.
pub fn apa<A: Arith>(new: &A, reference: &A, advantage: &A, lambda: Lambda) -> Result<A, A::Error> {
    let wanted = advantage.scale(1.0 / lambda.get())?;
    new.minus(reference)?.minus(&wanted)?.square()?.total()
}

/// Self-play preference optimisation (Wu et al. 2024, arXiv 2405.00675), summed over responses:
///
/// $$ \sum_i\Big(\ln\frac{\pi(y_i)}{\pi_t(y_i)}-\eta\big[P(y_i\succ\pi_t)-\tfrac12\big]\Big)^2 $$
///
/// `new`, `old`: log-probability of each whole response, nats; `win`: the probability that it is preferred to a response
/// of the policy that was sampled; all of one shape, `[rows]` or any other.
///
/// $$ P-\tfrac12 $$ is half the margin, so its step is that of [`rebel_preference`] at `eta / 2`, to second order.
///
/// # Errors
/// When the shapes differ.
pub fn sppo<A: Arith>(new: &A, old: &A, win: &A, eta: Eta) -> Result<A, A::Error> {
    let wanted = win.shift(-0.5)?.scale(eta.get())?;
    new.minus(old)?.minus(&wanted)?.square()?.total()
}

#[cfg(test)]
mod tests {
    use super::super::super::rloo;
    use super::super::super::tape::Tape;
    use super::super::tests::{eta, pairs};
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::arr1;

    #[test]
    fn rebel_is_the_squared_residual_worked_by_hand() {
        // pair 1: moved .3 - (-.1) = .4, /eta = .8, wanted 1 - .5 = .5: .3^2 = .09.  pair 2: moved 0, wanted -1: 1.
        let old = pairs(&[[-1.0, -2.0], [-1.5, -0.5]]);
        let new = pairs(&[[-0.7, -2.1], [-1.5, -0.5]]);
        let reward = pairs(&[[1.0, 0.5], [0.0, 1.0]]);
        assert_abs_diff_eq!(rebel(&new, &old, &reward, eta(0.5)).unwrap().sum(), 1.09, epsilon = 1e-12);
    }

    #[test]
    fn rebel_equals_the_golden_numbers_of_the_published_code_over_eta_squared() {
        let (new, old) = (pairs(&[[-10.0, -9.0], [-12.0, -8.0]]), pairs(&[[-11.0, -9.5], [-11.5, -8.25]]));
        let reward = pairs(&[[1.2, 0.4], [-1.0, 0.3]]);
        for (step, mean) in [(1.0, 0.19625), (0.3, 0.0986 / 0.09), (2.0, 2.31625 / 4.0)] {
            let loss = rebel(&new, &old, &reward, eta(step)).unwrap().sum();
            assert_abs_diff_eq!(loss / 2.0, mean, epsilon = 1e-12);
        }
    }

    #[test]
    fn rebel_ignores_a_constant_added_to_both_rewards() {
        let (old, new) = (pairs(&[[-1.0, -2.0]]), pairs(&[[-0.25, -1.0]]));
        let loss = |r: f64| rebel(&new, &old, &pairs(&[[0.5 + r, 0.25 + r]]), eta(1.0)).unwrap().sum();
        assert_eq!(loss(0.0), loss(8.0));
    }

    #[test]
    fn first_gradient_of_rebel_is_a_multiple_of_rloo_with_two_samples() {
        // theory.md 0: at theta_t the gradient of (1) is -(4/eta) times the policy-gradient estimate; RLOO's loss is minus that objective.
        let old = pairs(&[[-1.0, -2.0], [-0.3, -0.1]]);
        let reward = pairs(&[[1.0, 0.5], [-2.0, 1.0]]);
        for step in [0.5, 1.0, 3.0] {
            let tape = Tape::new();
            let new = tape.input(old.clone());
            let loss = rebel(&new, &tape.input(old.clone()), &tape.input(reward.clone()), eta(step)).unwrap();
            let from_rebel = tape.cotangents(&loss).unwrap().of(&new);
            let tape = Tape::new();
            let new = tape.input(old.clone());
            let loss = rloo(&new, &tape.input(reward.clone())).unwrap();
            let from_rloo = tape.cotangents(&loss).unwrap().of(&new);
            assert_abs_diff_eq!(from_rebel, from_rloo * (4.0 / step), epsilon = 1e-12);
        }
    }

    #[test]
    fn won_and_lost_comparison_ask_for_a_margin_of_two() {
        // won and lost: margins 1 and -1; moved .5 over eta .5 = 1, wanted 2: 1.  Both won: moved 0, wanted 0.
        let old = pairs(&[[-1.0, -1.0], [-2.0, -1.0]]);
        let new = pairs(&[[-0.5, -1.0], [-2.0, -1.0]]);
        let outcome = pairs(&[[1.0, 0.0], [1.0, 1.0]]);
        assert_eq!(rebel_preference(&new, &old, &outcome, eta(0.5)).unwrap().sum(), 1.0);
    }

    #[test]
    fn apa_is_the_squared_residual_worked_by_hand() {
        // .5 - 1/2 = 0;  -1 - (-3)/2 = .5: .25
        let (new, reference) = (arr1(&[-1.0, -3.0]).into_dyn(), arr1(&[-1.5, -2.0]).into_dyn());
        let loss = apa(&new, &reference, &arr1(&[1.0, -3.0]).into_dyn(), Lambda::new(2.0).unwrap()).unwrap();
        assert_eq!(loss.sum(), 0.25);
    }

    #[test]
    fn sppo_is_the_squared_residual_worked_by_hand() {
        // .5 - 2 * .25 = 0;  -1 - 2 * (-.5) = 0;  0 - 2 * .5 = -1: 1
        let (new, old) = (arr1(&[-1.0, -3.0, -1.0]).into_dyn(), arr1(&[-1.5, -2.0, -1.0]).into_dyn());
        assert_eq!(sppo(&new, &old, &arr1(&[0.75, 0.0, 1.0]).into_dyn(), eta(2.0)).unwrap().sum(), 1.0);
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let (three, two) = (arr1(&[1.0, 2.0, 3.0]).into_dyn(), pairs(&[[1.0, 2.0]]));
        assert!(rebel(&three, &three, &three, eta(1.0)).is_err());
        assert!(rebel(&two, &two, &pairs(&[[1.0, 2.0], [1.0, 2.0]]), eta(1.0)).is_err());
        assert!(rebel_preference(&two, &two, &three, eta(1.0)).is_err());
        assert!(
            apa(&two, &three, &two, Lambda::new(1.0).unwrap()).is_err() && sppo(&two, &two, &three, eta(1.0)).is_err()
        );
    }
}
