//! Properties of the objectives that hold for every batch.

use ndarray::{ArrayD, Axis};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rebel_theory::objective::tape::Tape;
use rebel_theory::objective::{Beta, Eta, dpo, rebel, rloo};

/// Numbers in (-4, 4) of the given shape, from a seed that proptest draws.
fn batch(rng: &mut ChaCha8Rng, shape: &[usize]) -> ArrayD<f64> {
    ArrayD::from_shape_simple_fn(shape, || rng.random_range(-4.0..4.0))
}

fn swapped(pairs: &ArrayD<f64>) -> ArrayD<f64> {
    pairs.select(Axis(1), &[1, 0])
}

proptest! {
    #[test]
    fn rebel_does_not_care_which_response_of_a_pair_comes_first(seed: u64, pairs in 1usize..9, eta in 0.05f64..20.0) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let [new, old, reward] = [0; 3].map(|_| batch(rng, &[pairs, 2]));
        let eta = Eta::new(eta).unwrap();
        let there = rebel(&new, &old, &reward, eta).unwrap().sum();
        let back = rebel(&swapped(&new), &swapped(&old), &swapped(&reward), eta).unwrap().sum();
        prop_assert!((there - back).abs() <= 1e-12 * there.max(1.0));
    }

    #[test]
    fn rebel_is_zero_exactly_at_the_tilt(seed: u64, pairs in 1usize..9, eta in 0.05f64..20.0, shift in -3.0f64..3.0) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let [old, reward] = [0; 2].map(|_| batch(rng, &[pairs, 2]));
        let tilted = &old + &(&reward * eta) - shift; // ln Z is one number a prompt: it drops out
        let loss = rebel(&tilted, &old, &reward, Eta::new(eta).unwrap()).unwrap().sum();
        prop_assert!(loss <= 1e-20 * pairs as f64 / (eta * eta).min(1.0), "{loss:e}");
    }

    #[test]
    fn a_preference_and_its_opposite_lose_at_least_ln_4_together(seed: u64, beta in 0.01f64..5.0) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let [new, reference] = [0; 2].map(|_| batch(rng, &[1, 2]));
        let loss = |new: &ArrayD<f64>, reference: &ArrayD<f64>| dpo(new, reference, Beta::new(beta).unwrap()).unwrap().sum();
        let both = loss(&new, &reference) + loss(&swapped(&new), &swapped(&reference));
        prop_assert!(both >= 4f64.ln() - 1e-12, "{both}");
    }

    #[test]
    fn weights_of_rloo_cancel_within_every_prompt(seed: u64, prompts in 1usize..6, k in 2usize..7) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let [new, reward] = [0; 2].map(|_| batch(rng, &[prompts, k]));
        let tape = Tape::new();
        let new = tape.input(new);
        let loss = rloo(&new, &tape.input(reward)).unwrap();
        for row in tape.cotangents(&loss).unwrap().of(&new).rows() {
            prop_assert!(row.sum().abs() <= 1e-12);
        }
    }
}
