//! The objectives themselves, one function each, to be minimised.

use super::{Arith, ArithError, Beta, Eta};

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

/// REINFORCE with a leave-one-out baseline, RLOO(k) (Kool et al. 2019; Ahmadian et al. 2024, arXiv 2402.14740), summed
/// over prompts:
///
/// $$ -\sum_i \tfrac1k\sum_j\Big(r_{ij}-\tfrac1{k-1}\sum_{l\ne j}r_{il}\Big)\ln\pi(y_{ij}) $$
///
/// `new`: log-probability of each whole response, nats, `[prompts, k]`; `reward`: `[prompts, k]`, k at least 2.
/// The gradient is that of minus the expected reward; the value itself means nothing.
///
/// # Errors
/// When the shapes differ, or k < 2 leaves nothing out.
pub fn rloo<A: Arith>(new: &A, reward: &A) -> Result<A, A::Error> {
    let k = match reward.dims()[..] {
        [_, k] if k >= 2 => k as f64,
        ref other => {
            let what = format!("shape {other:?} has no other samples to compare with (expected [prompts, k], k >= 2)");
            return Err(ArithError::Shape(what).into());
        }
    };
    let others = reward.row_total()?.minus(reward)?.scale(1.0 / (k - 1.0))?; // [prompts, k] mean of the other rewards
    reward.minus(&others)?.times(new)?.total()?.scale(-1.0 / k)
}

/// Cross-entropy of given tokens (supervised fine-tuning), summed over counted tokens:
///
/// $$ -\sum_{i,t} m_{it}\ln\pi(y_{it}\mid y_{i,<t}) $$
///
/// `new`: log-probability of each token, nats, `[rows, steps]`; `mask`: 1 on counted tokens, else 0, `[rows, steps]`.
/// The caller divides by the number of counted tokens of the whole batch.
///
/// # Errors
/// When the shapes differ.
pub fn cross_entropy<A: Arith>(new: &A, mask: &A) -> Result<A, A::Error> {
    new.times(mask)?.total()?.scale(-1.0)
}

/// The Bradley-Terry likelihood of human choices (reward modelling; Stiennon et al. 2020, arXiv 2009.01325), summed over
/// comparisons:
///
/// $$ -\sum_i \ln\sigma\big(r(y^w_i)-r(y^l_i)\big) $$
///
/// `score`: the model's reward of each response, `[comparisons, 2]`, the chosen one first.
///
/// # Errors
/// When the shape is not `[comparisons, 2]`.
pub fn bradley_terry<A: Arith>(score: &A) -> Result<A, A::Error> {
    score.difference_of_pair()?.log_sigmoid()?.total()?.scale(-1.0)
}

#[cfg(test)]
mod tests {
    use super::super::tape::Tape;
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::{ArrayD, arr1, arr2};

    fn pairs(values: &[[f64; 2]]) -> ArrayD<f64> {
        ndarray::Array2::from(values.to_vec()).into_dyn()
    }

    fn eta(value: f64) -> Eta {
        Eta::new(value).unwrap()
    }

    #[test]
    fn rebel_is_the_squared_residual_worked_by_hand() {
        // pair 1: moved .3 - (-.1) = .4, /eta = .8, wanted 1 - .5 = .5: .3^2 = .09.  pair 2: moved 0, wanted -1: 1.
        let old = pairs(&[[-1.0, -2.0], [-1.5, -0.5]]);
        let new = pairs(&[[-0.7, -2.1], [-1.5, -0.5]]);
        let reward = pairs(&[[1.0, 0.5], [0.0, 1.0]]);
        assert_abs_diff_eq!(rebel(&new, &old, &reward, eta(0.5)).unwrap().sum(), 1.09, epsilon = 1e-12);
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
    fn dpo_at_the_reference_is_ln_2_and_its_slope_is_half_of_beta() {
        let tape = Tape::new();
        let new = tape.input(pairs(&[[-3.0, -4.0]]));
        let loss = dpo(&new, &tape.input(pairs(&[[-3.0, -4.0]])), Beta::new(0.1).unwrap()).unwrap();
        assert_abs_diff_eq!(loss.value().sum(), 2f64.ln(), epsilon = 1e-15);
        assert_abs_diff_eq!(tape.cotangents(&loss).unwrap().of(&new), pairs(&[[-0.05, 0.05]]), epsilon = 1e-16);
    }

    #[test]
    fn rloo_weights_are_rewards_minus_the_mean_of_the_others() {
        let tape = Tape::new();
        let new = tape.input(arr2(&[[0.0, 0.0, 0.0]]).into_dyn());
        let loss = rloo(&new, &tape.input(arr2(&[[1.0, 2.0, 6.0]]).into_dyn())).unwrap();
        // 1 - 4, 2 - 3.5, 6 - 1.5, over -k
        let expected = arr2(&[[1.0, 0.5, -1.5]]).into_dyn();
        assert_abs_diff_eq!(tape.cotangents(&loss).unwrap().of(&new), expected, epsilon = 1e-12);
    }

    #[test]
    fn cross_entropy_counts_masked_tokens_only() {
        let new = arr2(&[[-1.0, -2.0], [-4.0, -8.0]]).into_dyn();
        let mask = arr2(&[[1.0, 1.0], [1.0, 0.0]]).into_dyn();
        assert_eq!(cross_entropy(&new, &mask).unwrap().sum(), 7.0);
    }

    #[test]
    fn bradley_terry_of_a_tie_is_ln_2_and_of_a_sure_choice_is_small() {
        assert_abs_diff_eq!(bradley_terry(&pairs(&[[1.5, 1.5]])).unwrap().sum(), 2f64.ln(), epsilon = 1e-15);
        assert_abs_diff_eq!(bradley_terry(&pairs(&[[800.0, 0.0]])).unwrap().sum(), 0.0);
        assert_abs_diff_eq!(bradley_terry(&pairs(&[[0.0, 800.0]])).unwrap().sum(), 800.0);
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let three = arr2(&[[1.0, 2.0, 3.0]]).into_dyn();
        let two = pairs(&[[1.0, 2.0]]);
        assert!(rebel(&three, &three, &three, eta(1.0)).is_err());
        assert!(rebel(&two, &two, &pairs(&[[1.0, 2.0], [1.0, 2.0]]), eta(1.0)).is_err());
        assert!(rloo(&arr2(&[[1.0]]).into_dyn(), &arr2(&[[1.0]]).into_dyn()).is_err());
        assert!(rloo(&arr1(&[1.0]).into_dyn(), &arr1(&[1.0]).into_dyn()).is_err());
        assert!(cross_entropy(&two, &three).is_err());
        assert!(Eta::new(0.0).is_err() && Eta::new(f64::NAN).is_err() && Beta::new(f64::INFINITY).is_err());
    }

    const NAMES: [&str; 5] = ["rebel", "dpo", "rloo", "cross_entropy", "bradley_terry"];

    /// The objective called `name` at log-probabilities (or scores) `x`; `a` and `b` play its fixed inputs.
    fn evaluate<A: Arith>(name: &str, x: &A, a: &A, b: &A) -> A
    where
        A::Error: std::fmt::Debug,
    {
        match name {
            "rebel" => rebel(x, a, b, eta(0.7)),
            "dpo" => dpo(x, a, Beta::new(0.3).unwrap()),
            "rloo" => rloo(x, b),
            "cross_entropy" => cross_entropy(x, b),
            _ => bradley_terry(x),
        }
        .unwrap()
    }

    /// Three pairs; the second sits on the kink of every log-sigmoid (margin 0) and has tied rewards.
    fn instance() -> [ArrayD<f64>; 3] {
        [
            pairs(&[[-1.0, -2.5], [0.3, 0.3], [-7.0, 2.0]]),
            pairs(&[[-1.1, -2.0], [0.3, 0.3], [1.0, -2.0]]),
            pairs(&[[0.2, 1.0], [1.0, 1.0], [-0.5, 0.25]]),
        ]
    }

    fn value_and_cotangent(name: &str) -> (f64, ArrayD<f64>) {
        let [x, a, b] = instance();
        let tape = Tape::new();
        let (x, a, b) = (tape.input(x), tape.input(a), tape.input(b));
        let loss = evaluate(name, &x, &a, &b);
        (loss.value().sum(), tape.cotangents(&loss).unwrap().of(&x))
    }

    #[test]
    fn tape_equals_arrays_in_value_and_central_differences_in_slope() {
        let [at, a, b] = instance();
        for name in NAMES {
            let (value, slope) = value_and_cotangent(name);
            assert_eq!(value, evaluate(name, &at, &a, &b).sum(), "{name}");
            for i in 0..at.len() {
                let moved = |h: f64| {
                    let mut x = at.clone();
                    x.as_slice_mut().unwrap()[i] += h;
                    evaluate(name, &x, &a, &b).sum()
                };
                let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert_abs_diff_eq!(slope.as_slice().unwrap()[i], numeric, epsilon = 1e-8);
            }
        }
    }

    #[cfg(feature = "candle")]
    #[test]
    fn candle_equals_the_tape_in_value_and_slope() {
        use candle_core::{Device, Tensor, Var as Tracked};
        let tensor = |x: &ArrayD<f64>| Tensor::from_slice(x.as_slice().unwrap(), x.shape(), &Device::Cpu).unwrap();
        let [x, a, b] = instance().map(|array| tensor(&array));
        for name in NAMES {
            let x = Tracked::from_tensor(&x).unwrap();
            let loss = evaluate(name, x.as_tensor(), &a, &b);
            let slope = loss.backward().unwrap().get(&x).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let (value, expected) = value_and_cotangent(name);
            assert_abs_diff_eq!(loss.to_scalar::<f64>().unwrap(), value, epsilon = 1e-13);
            assert_abs_diff_eq!(slope.as_slice(), expected.as_slice().unwrap(), epsilon = 1e-13);
        }
    }
}
