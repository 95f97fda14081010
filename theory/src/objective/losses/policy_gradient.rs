//! Policy gradients: log-probabilities weighted by what the responses were worth, plain and with PPO's clip, and the loss
//! of PPO's critic.

use super::super::{Arith, ArithError, Clip};

/// REINFORCE with a baseline (Williams 1992), summed over responses:
///
/// $$ -\sum_i (r_i-b_i)\ln\pi(y_i) $$
///
/// `new`: log-probability of each whole response, nats; `reward`; `baseline`: one number everywhere, a value of the
/// prompt, or zero; all of one shape, `[rows]` or any other. With the exact value it is the gradient of the advantage.
/// The gradient is that of minus the expected reward; the value itself means nothing.
///
/// # Errors
/// When the shapes differ.
pub fn reinforce<A: Arith>(new: &A, reward: &A, baseline: &A) -> Result<A, A::Error> {
    reward.minus(baseline)?.times(new)?.total()?.scale(-1.0)
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

/// The policy part of proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347, equation 7), summed over
/// counted tokens:
///
/// $$ -\sum_{i,t}m_{it}\min\big(\rho_{it}A_{it},\ \mathrm{clip}(\rho_{it},1-\epsilon,1+\epsilon)A_{it}\big),
///    \qquad\rho=\frac{\pi}{\pi_t} $$
///
/// `new`, `old`: log-probability of each token (or of a whole response) under the policy being trained and under the one
/// that was sampled, nats; `advantage`; `mask`: 1 on counted tokens, else 0; all of one shape, `[rows, steps]`. What lies
/// under a mask of 0 does not matter, as long as it is finite.
///
/// At the sampled policy its gradient is the plain policy gradient. A ratio exactly at the clip still has its slope.
///
/// # Errors
/// When the shapes differ.
pub fn ppo_clip<A: Arith>(new: &A, old: &A, advantage: &A, mask: &A, clip: Clip) -> Result<A, A::Error> {
    let ratio = masked_ratio(new, old, mask)?;
    let counted = advantage.times(mask)?;
    let free = ratio.times(&counted)?;
    let clipped = ratio.clamp(1.0 - clip.get(), 1.0 + clip.get())?.times(&counted)?;
    free.minimum(&clipped)?.total()?.scale(-1.0)
}

/// Equation (7) of the paper: the clipped ratio without the minimum, summed over counted tokens:
///
/// $$ -\sum_{i,t}m_{it}\,\mathrm{clip}(\rho_{it},1-\epsilon,1+\epsilon)\,A_{it} $$
///
/// Arguments as in [`ppo_clip`]. A ratio that has left the clip has no gradient on either side: where the advantage is
/// positive and the ratio too small, nothing pulls it back.
///
/// # Errors
/// When the shapes differ.
pub fn ppo_clip_without_min<A: Arith>(new: &A, old: &A, advantage: &A, mask: &A, clip: Clip) -> Result<A, A::Error> {
    let counted = advantage.times(mask)?;
    let clipped = masked_ratio(new, old, mask)?.clamp(1.0 - clip.get(), 1.0 + clip.get())?;
    clipped.times(&counted)?.total()?.scale(-1.0)
}

/// The probability ratio, 1 under a mask of 0: there the exponential could overflow, and infinity times 0 is no number.
fn masked_ratio<A: Arith>(new: &A, old: &A, mask: &A) -> Result<A, A::Error> {
    new.minus(old)?.times(mask)?.exp()
}

/// The critic's part of PPO, summed over counted tokens:
///
/// $$ \tfrac12\sum_{i,t}m_{it}\,(v_{it}-R_{it})^2 $$
///
/// `value`: the critic's estimate; `target`: the return it should predict; `mask`: 1 on counted tokens, else 0; all of
/// one shape, `[rows, steps]`. The caller multiplies by the coefficient of the critic (0.1 in the published code).
///
/// # Errors
/// When the shapes differ.
pub fn ppo_value<A: Arith>(value: &A, target: &A, mask: &A) -> Result<A, A::Error> {
    value.minus(target)?.square()?.times(mask)?.total()?.scale(0.5)
}

/// The same with the value kept near the old one, as the published code has it: the larger of two squared errors,
///
/// $$ \tfrac12\sum_{i,t}m_{it}\max\big((v_{it}-R_{it})^2,\ (\bar v_{it}-R_{it})^2\big),\qquad
///    \bar v=v_{\rm old}+\mathrm{clip}(v-v_{\rm old},-\epsilon,\epsilon) $$
///
/// `old`: the critic's estimate when the batch was sampled; the other arguments as in [`ppo_value`].
///
/// # Errors
/// When the shapes differ.
pub fn ppo_value_clipped<A: Arith>(value: &A, old: &A, target: &A, mask: &A, clip: Clip) -> Result<A, A::Error> {
    let kept = value.minus(old)?.clamp(-clip.get(), clip.get())?.plus(old)?;
    let (free, clipped) = (value.minus(target)?.square()?, kept.minus(target)?.square()?);
    free.maximum(&clipped)?.times(mask)?.total()?.scale(0.5)
}

#[cfg(test)]
mod tests {
    use super::super::super::tape::{Tape, Var};
    use super::super::tests::pairs;
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::{ArrayD, arr1, arr2};

    fn clip() -> Clip {
        Clip::new(0.25).unwrap()
    }

    /// One row of logarithms.
    fn ln(values: &[f64]) -> ArrayD<f64> {
        arr1(values).mapv(f64::ln).into_dyn()
    }

    fn row(values: &[f64]) -> ArrayD<f64> {
        arr1(values).into_dyn()
    }

    /// The value of an objective at `at`, and its slope there.
    fn slope(at: ArrayD<f64>, loss: impl for<'t> Fn(&'t Tape, &Var<'t>) -> Var<'t>) -> (f64, ArrayD<f64>) {
        let tape = Tape::new();
        let at = tape.input(at);
        let loss = loss(&tape, &at);
        (loss.value().sum(), tape.cotangents(&loss).unwrap().of(&at))
    }

    #[test]
    fn reinforce_weights_log_probabilities_by_reward_above_baseline() {
        let (loss, slope) = slope(row(&[-1.0, -2.0]), |tape, new| {
            reinforce(new, &tape.input(row(&[3.0, 1.0])), &tape.input(row(&[2.0, 2.0]))).unwrap()
        });
        assert_eq!((loss, slope), (1.0 - 2.0, row(&[-1.0, 1.0])));
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

    /// Ratios 2, 2, 1/2, 1/2, 1 with advantages of both signs.
    const RATIOS: [f64; 5] = [2.0, 2.0, 0.5, 0.5, 1.0];
    const ADVANTAGES: [f64; 5] = [1.0, -1.0, 1.0, -1.0, 3.0];

    #[test]
    fn ppo_takes_the_smaller_of_free_and_clipped_surrogate() {
        // min(2, 1.25), min(-2, -1.25), min(.5, .75), min(-.5, -.75), 3; slopes where the free one is taken
        let (loss, slope) = slope(ln(&RATIOS), |tape, new| {
            let [old, advantage, mask] = [row(&[0.0; 5]), row(&ADVANTAGES), row(&[1.0; 5])].map(|a| tape.input(a));
            ppo_clip(new, &old, &advantage, &mask, clip()).unwrap()
        });
        assert_abs_diff_eq!(loss, -(1.25 - 2.0 + 0.5 - 0.75 + 3.0), epsilon = 1e-14);
        assert_abs_diff_eq!(slope, row(&[0.0, 2.0, -0.5, 0.0, -3.0]), epsilon = 1e-14);
    }

    #[test]
    fn without_the_minimum_no_ratio_outside_the_clip_is_pulled_back() {
        let (loss, slope) = slope(ln(&RATIOS), |tape, new| {
            let [old, advantage, mask] = [row(&[0.0; 5]), row(&ADVANTAGES), row(&[1.0; 5])].map(|a| tape.input(a));
            ppo_clip_without_min(new, &old, &advantage, &mask, clip()).unwrap()
        });
        assert_abs_diff_eq!(loss, -(1.25 - 1.25 + 0.75 - 0.75 + 3.0), epsilon = 1e-14);
        assert_abs_diff_eq!(slope, row(&[0.0, 0.0, 0.0, 0.0, -3.0]), epsilon = 1e-14);
    }

    #[test]
    fn masked_token_changes_nothing_however_far_it_is_off() {
        let [new, old, advantage] = [row(&[-1.0, 900.0]), row(&[-1.0, -900.0]), row(&[2.0, 5.0])];
        let mask = row(&[1.0, 0.0]);
        assert_eq!(ppo_clip(&new, &old, &advantage, &mask, clip()).unwrap().sum(), -2.0);
        assert_eq!(ppo_clip_without_min(&new, &old, &advantage, &mask, clip()).unwrap().sum(), -2.0);
        let (_, slope) = slope(new, |tape, new| {
            let [old, advantage, mask] = [&old, &advantage, &mask].map(|a| tape.input(a.clone()));
            ppo_clip(new, &old, &advantage, &mask, clip()).unwrap()
        });
        assert_eq!(slope, row(&[-2.0, 0.0]));
    }

    #[test]
    fn value_loss_is_half_the_larger_squared_error() {
        // old 0, clip .25.  v .5 kept at .25, target 1: .25 or .5625.  target 0: .25 or .0625.  v .125: kept.  masked.
        let value = row(&[0.5, 0.5, 0.125, 7.0]);
        let (old, target) = (row(&[0.0; 4]), row(&[1.0, 0.0, 0.625, 0.0]));
        let mask = row(&[1.0, 1.0, 1.0, 0.0]);
        assert_eq!(ppo_value(&value, &target, &mask).unwrap().sum(), 0.5 * (0.25 + 0.25 + 0.25));
        assert_eq!(
            ppo_value_clipped(&value, &old, &target, &mask, clip()).unwrap().sum(),
            0.5 * (0.5625 + 0.25 + 0.25)
        );
        let (_, slope) = slope(value, |tape, value| {
            let [old, target, mask] = [&old, &target, &mask].map(|a| tape.input(a.clone()));
            ppo_value_clipped(value, &old, &target, &mask, clip()).unwrap()
        });
        assert_eq!(slope, row(&[0.0, 0.5, -0.5, 0.0]));
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let (two, three) = (pairs(&[[1.0, 2.0]]), arr2(&[[1.0, 2.0, 3.0]]).into_dyn());
        assert!(rloo(&arr2(&[[1.0]]).into_dyn(), &arr2(&[[1.0]]).into_dyn()).is_err());
        assert!(rloo(&row(&[1.0]), &row(&[1.0])).is_err());
        assert!(reinforce(&two, &two, &three).is_err());
        assert!(ppo_clip(&two, &two, &two, &three, clip()).is_err());
        assert!(ppo_clip_without_min(&two, &two, &three, &two, clip()).is_err());
        assert!(ppo_value(&two, &two, &three).is_err() && ppo_value_clipped(&two, &three, &two, &two, clip()).is_err());
    }
}
