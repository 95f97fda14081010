//! Properties of the baselines' objectives, and of PPO's optima, that hold for every instance.

use ndarray::{Array1, ArrayD, Axis};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rebel_theory::bandit::Policy;
use rebel_theory::objective::{
    Beta, Clip, Eta, Lambda, Tau, apa, dpo, ipo, iterative_dpo, ppo_clip, ppo_clip_without_min, ppo_value,
    ppo_value_clipped, rebel, rebel_preference, reinforce, rloo, sppo,
};
use rebel_theory::solve::ppo::Surrogate;

/// Numbers in (-3, 3) of the given shape.
fn batch(rng: &mut ChaCha8Rng, shape: &[usize]) -> ArrayD<f64> {
    ArrayD::from_shape_simple_fn(shape, || rng.random_range(-3.0..3.0))
}

proptest! {
    #[test]
    fn minimum_only_ever_raises_the_loss_of_ppo(seed: u64, rows in 1usize..5, steps in 1usize..6, clip in 0.01f64..0.9) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let [new, old, advantage] = [0; 3].map(|_| batch(rng, &[rows, steps]));
        let (mask, clip) = (ArrayD::ones(new.shape()), Clip::new(clip).unwrap());
        let with = ppo_clip(&new, &old, &advantage, &mask, clip).unwrap().sum();
        let without = ppo_clip_without_min(&new, &old, &advantage, &mask, clip).unwrap().sum();
        prop_assert!(with >= without - 1e-12);
        // and it is never below that of the free surrogate
        let free = -((&new - &old).mapv(f64::exp) * &advantage).sum();
        prop_assert!(with >= free - 1e-12 * free.abs().max(1.0));
    }

    #[test]
    fn padding_changes_no_token_loss(seed: u64, rows in 1usize..5, steps in 1usize..6) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let inputs = [0; 3].map(|_| batch(rng, &[rows, steps]));
        let pad = batch(rng, &[rows, 2]);
        let padded = inputs.each_ref().map(|a| ndarray::concatenate(Axis(1), &[a.view(), pad.view()]).unwrap());
        let ones = ArrayD::ones(inputs[0].shape());
        let mask = ndarray::concatenate(Axis(1), &[ones.view(), ArrayD::zeros(pad.shape()).view()]).unwrap();
        let clip = Clip::new(0.2).unwrap();
        let losses = |[a, b, c]: &[ArrayD<f64>; 3], mask: &ArrayD<f64>| [
            ppo_clip(a, b, c, mask, clip).unwrap().sum(),
            ppo_clip_without_min(a, b, c, mask, clip).unwrap().sum(),
            ppo_value(a, b, mask).unwrap().sum(),
            ppo_value_clipped(a, b, c, mask, clip).unwrap().sum(),
        ];
        for (one, other) in losses(&inputs, &ones).into_iter().zip(losses(&padded, &mask)) {
            prop_assert!((one - other).abs() <= 1e-12 * one.abs().max(1.0), "{one} {other}");
        }
    }

    #[test]
    fn clipped_value_loss_is_at_least_the_plain_one_and_equal_near_the_old_value(seed: u64, clip in 0.05f64..1.0) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let [value, old, target] = [0; 3].map(|_| batch(rng, &[3, 4]));
        let (mask, clipped) = (ArrayD::ones(value.shape()), Clip::new(clip).unwrap());
        let plain = ppo_value(&value, &target, &mask).unwrap().sum();
        prop_assert!(ppo_value_clipped(&value, &old, &target, &mask, clipped).unwrap().sum() >= plain - 1e-12);
        let near = &value + &(&old * (clip / 3.1));
        let kept = ppo_value_clipped(&value, &near, &target, &mask, clipped).unwrap().sum();
        prop_assert!((kept - plain).abs() < 1e-12 * plain.max(1.0));
    }

    #[test]
    fn iterative_dpo_is_dpo_against_the_sampled_policy_with_the_better_one_first(seed: u64, beta in 0.05f64..3.0) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let [new, old, reward] = [0; 3].map(|_| batch(rng, &[1, 2]));
        let beta = Beta::new(beta).unwrap();
        let order = if reward[[0, 0]] > reward[[0, 1]] { [0, 1] } else { [1, 0] };
        let by_dpo = dpo(&new.select(Axis(1), &order), &old.select(Axis(1), &order), beta).unwrap().sum();
        prop_assert!((iterative_dpo(&new, &old, &reward, beta).unwrap().sum() - by_dpo).abs() < 1e-13);
    }

    #[test]
    fn preference_form_is_rebel_on_margins(seed: u64, pairs in 1usize..6, eta in 0.05f64..5.0) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let [new, old, logit] = [0; 3].map(|_| batch(rng, &[pairs, 2]));
        let win = logit.mapv(|z| 1.0 / (1.0 + (-z).exp()));
        let (margin, eta) = (win.mapv(|p| 2.0 * p - 1.0), Eta::new(eta).unwrap());
        let preference = rebel_preference(&new, &old, &win, eta).unwrap().sum();
        let reward = rebel(&new, &old, &margin, eta).unwrap().sum();
        prop_assert!((preference - reward).abs() <= 1e-12 * reward.max(1.0));
    }

    #[test]
    fn pair_losses_do_not_see_a_shift_of_both_responses_and_single_ones_do(seed: u64, shift in 0.5f64..2.0) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let [new, reference, told] = [0; 3].map(|_| batch(rng, &[4, 2]));
        let (tau, eta, lambda) = (Tau::new(0.3).unwrap(), Eta::new(0.8).unwrap(), Lambda::new(1.1).unwrap());
        let moved = &new + shift;
        let change = |loss: &dyn Fn(&ArrayD<f64>) -> f64| (loss(&moved) - loss(&new)).abs();
        prop_assert!(change(&|new| ipo(new, &reference, tau).unwrap().sum()) < 1e-11);
        prop_assert!(change(&|new| rloo(new, &told).unwrap().sum()) < 1e-11);
        // a quadratic in the shift s: 8 s^2 + 2 s (sum of residuals), zero for two shifts only
        let by = |loss: &dyn Fn(&ArrayD<f64>) -> f64| loss(&moved) + loss(&(&new - shift)) - 2.0 * loss(&new);
        let curvature = 2.0 * 8.0 * shift * shift;
        prop_assert!((by(&|new| apa(new, &reference, &told, lambda).unwrap().sum()) - curvature).abs() < 1e-9);
        prop_assert!((by(&|new| sppo(new, &reference, &told, eta).unwrap().sum()) - curvature).abs() < 1e-9);
    }

    #[test]
    fn leave_one_out_is_reinforce_with_the_other_as_baseline(seed: u64, prompts in 1usize..6) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let [new, reward] = [0; 2].map(|_| batch(rng, &[prompts, 2]));
        let other = reward.select(Axis(1), &[1, 0]);
        let by_baseline = reinforce(&new, &reward, &other).unwrap().sum() / 2.0;
        prop_assert!((rloo(&new, &reward).unwrap().sum() - by_baseline).abs() < 1e-12);
    }

    #[test]
    fn no_policy_beats_the_nearest_maximiser_and_no_maximiser_is_nearer(seed: u64, arms in 1usize..9, clip in 0.01f64..0.9) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let mut row = || Policy::from_logits(&batch(rng, &[1, arms]).into_dimensionality().unwrap());
        let (pi, other, wild) = (row(), row(), row());
        let reward: Array1<f64> = wild.log().row(0).to_owned();
        let one = Surrogate::new(&pi.prob().row(0).to_owned(), &reward, Clip::new(clip).unwrap()).unwrap();
        let nearest = one.nearest_maximiser();
        let scale = reward.fold(0.0, |m: f64, r| m.max(r.abs()));
        prop_assert!((nearest.prob().sum() - 1.0).abs() < 1e-12);
        prop_assert!(one.value(&other) <= one.maximum() + 1e-12 * scale);
        prop_assert!(one.maximum() <= one.closed_form() + 1e-12 * scale);
        // nearer to the sampled policy, on the way, the surrogate is strictly lower
        let short = nearest.mixture(&pi, 1e-3);
        if one.better_mass() > 0.0 {
            prop_assert!(one.value(&short) < one.maximum());
        }
        if let (Some(restricted), true) = (one.restriction(), one.is_feasible()) {
            prop_assert!((one.value(&restricted) - one.maximum()).abs() <= 1e-12 * scale);
            prop_assert!(nearest.kl(&pi)[0] <= restricted.kl(&pi)[0] + 1e-12);
        }
    }
}
