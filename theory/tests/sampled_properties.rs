//! Properties of sampled regressions and of runs of them that hold for every batch.

use ndarray::{Array1, Array2, Array3, array};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rebel_theory::bandit::{Bandit, Policy};
use rebel_theory::players::{Bernoulli, Explore, Play, Ucb1, play};
use rebel_theory::solve::pairs::{Pair, PairBatch, PredictorClass};
use rebel_theory::solve::trajectory::{Rebel, SecondLaw, run};

fn batch(rng: &mut ChaCha8Rng, contexts: usize, responses: usize, count: usize) -> PairBatch {
    let mut pair = |_| {
        let context = rng.random_range(0..contexts);
        let (first, second) = (rng.random_range(0..responses), rng.random_range(0..responses));
        Pair { context, first, second, label: rng.random_range(-2.0..2.0) }
    };
    PairBatch::new(contexts, responses, (0..count).map(&mut pair).collect()).unwrap()
}

fn normalised(mut table: Array2<f64>) -> Policy {
    table.rows_mut().into_iter().for_each(|mut row| row /= row.sum());
    Policy::new("p", table).unwrap()
}

fn largest(w: &Array1<f64>) -> f64 {
    w.iter().fold(0.0, |m: f64, v| m.max(v.abs()))
}

proptest! {
    #[test]
    fn order_of_a_pair_and_of_the_pairs_does_not_matter(seed: u64, count in 0usize..30, responses in 1usize..7) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let batch = batch(rng, 2, responses, count);
        let mut swapped: Vec<Pair> = batch.pairs().iter()
            .map(|p| Pair { first: p.second, second: p.first, label: -p.label, ..*p })
            .collect();
        swapped.reverse();
        let swapped = PairBatch::new(2, responses, swapped).unwrap();
        let class = PredictorClass::tabular(2, responses);
        let (a, b) = (class.fit(&batch, 0.0).unwrap(), class.fit(&swapped, 0.0).unwrap());
        prop_assert!(largest(&(&a.solution - &b.solution)) < 1e-10);
        prop_assert_eq!(a.rank, b.rank);
    }

    #[test]
    fn residual_of_a_fit_is_orthogonal_to_every_feature(seed: u64, count in 1usize..30, features in 1usize..6) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let batch = batch(rng, 2, 4, count);
        let class = PredictorClass::linear(Array3::from_shape_simple_fn((2, 4, features), || rng.random_range(-1.0..1.0))).unwrap();
        let f = class.predict(&class.fit(&batch, 0.0).unwrap().solution);
        let residual = |p: &Pair| Pair { label: p.label - (f[[p.context, p.first]] - f[[p.context, p.second]]), ..*p };
        let residuals = PairBatch::new(2, 4, batch.pairs().iter().map(residual).collect()).unwrap();
        // directions with an eigenvalue below 1e-10 of the largest are left alone
        prop_assert!(largest(&class.moment(&residuals)) < 1e-3);
    }

    #[test]
    fn regret_is_the_sum_of_its_terms_against_every_comparator(seed: u64, steps in 1usize..8, count in 0usize..20, features in 1usize..5) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let mut table = || Array2::from_shape_simple_fn((2, 4), || rng.random_range(0.05..1.0));
        let bandit = Bandit::new(array![0.3, 0.7], table()).unwrap();
        let (second, comparator) = (SecondLaw::Fixed(normalised(table())), normalised(table()));
        let class = PredictorClass::linear(Array3::from_shape_simple_fn((2, 4, features), || rng.random_range(-1.0..1.0))).unwrap();
        let rebel = Rebel::new(bandit.weights(), &class, &second, 0.3, 1e-3).unwrap();
        let run = run(&rebel, Array1::zeros(features), steps, |_| bandit.reward().clone(), |_, _, _| Ok(batch(rng, 2, 4, count))).unwrap();
        let values = run.iterations().iter().map(|one| bandit.value(&one.policy)).sum::<f64>() / steps as f64;
        let terms = run.decomposition(&comparator);
        let scale = 1.0 + terms.mirror_descent.abs() + terms.sampling.abs();
        prop_assert!((terms.total() - (bandit.value(&comparator) - values)).abs() < 1e-10 * scale);
    }

    #[test]
    fn paid_regret_of_every_player_lies_between_no_gap_and_the_largest(seed: u64, arms in 1usize..6, queries in 1usize..60) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let means = Array2::from_shape_simple_fn((1, arms), || rng.random::<f64>());
        let spread = means.fold(0.0, |m: f64, &v| m.max(v)) - means.fold(1.0, |m: f64, &v| m.min(v));
        let env = Bernoulli::new(Bandit::new(array![1.0], means).unwrap()).unwrap();
        let ucb1 = play(&mut Ucb1::new(1, arms), &mut Play::new(&env, rng.clone()), &[queries]);
        let explore = play(&mut Explore::new(&PredictorClass::tabular(1, arms)), &mut Play::new(&env, rng), &[queries]);
        for regrets in [ucb1[0], explore[0]] {
            prop_assert!((0.0..=spread + 1e-12).contains(&regrets.paid) && (0.0..=spread + 1e-12).contains(&regrets.last));
        }
    }
}
