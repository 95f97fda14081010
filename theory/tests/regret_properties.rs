//! Properties of regret, its bounds and the laws of best and worst draws that hold for every instance.

use ndarray::{Array1, Array2, Array3, Axis};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rebel_theory::bandit::{Bandit, Policy};
use rebel_theory::bounds::{Constants, coverage, lemma2_sharp, mean_coverage, theorem1_sharp};
use rebel_theory::distribution::{Law, best_and_worst, best_of, worst_of};
use rebel_theory::policy::LogLinear;
use rebel_theory::solve::decomposition::{Iteration, decompose};
use rebel_theory::solve::population::{Lemma2, Rebel, population_fit};
use rebel_theory::solve::projected::nearest_distribution;
use std::num::NonZeroUsize;

fn table(rng: &mut ChaCha8Rng, shape: (usize, usize)) -> Array2<f64> {
    Array2::from_shape_simple_fn(shape, || rng.random_range(-2.0..2.0))
}

fn policy(rng: &mut ChaCha8Rng, shape: (usize, usize)) -> Policy {
    Policy::from_logits(&table(rng, shape))
}

/// A bandit whose rewards are whole numbers, so that they tie, if `tied`.
fn bandit(rng: &mut ChaCha8Rng, (contexts, responses): (usize, usize), tied: bool) -> Bandit {
    let weights = policy(rng, (1, contexts)).prob().row(0).to_owned();
    let reward = table(rng, (contexts, responses));
    Bandit::new(weights, if tied { reward.mapv(f64::round) } else { reward }).unwrap()
}

fn largest(a: &Array2<f64>) -> f64 {
    a.fold(0.0, |m: f64, v| m.max(v.abs()))
}

proptest! {
    #[test]
    fn extreme_draws_are_at_most_n_times_as_likely_and_are_the_marginals_of_their_joint_law(
        seed: u64, contexts in 1usize..4, responses in 1usize..9, n in 1usize..40, tied: bool,
    ) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let bandit = bandit(rng, (contexts, responses), tied);
        let (pi, n) = (policy(rng, (contexts, responses)), NonZeroUsize::new(n).unwrap());
        let (best, worst) = (best_of(&pi, bandit.reward(), n), worst_of(&pi, bandit.reward(), n));
        prop_assert!(coverage(&best, &pi) <= n.get() as f64 * (1.0 + 1e-12));
        prop_assert!(coverage(&worst, &pi) <= n.get() as f64 * (1.0 + 1e-12));
        let joint = best_and_worst(&pi, bandit.reward(), n);
        prop_assert!(largest(&(joint.joint().sum_axis(Axis(2)) - best.prob())) < 1e-12);
        prop_assert!(largest(&(joint.joint().sum_axis(Axis(1)) - worst.prob())) < 1e-12);
        prop_assert!(bandit.value(&best) >= bandit.value(&pi) - 1e-12 && bandit.value(&worst) <= bandit.value(&pi) + 1e-12);
    }

    #[test]
    fn coverage_is_at_least_its_mean_and_that_at_least_one(seed: u64, contexts in 1usize..4, responses in 1usize..7) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let bandit = bandit(rng, (contexts, responses), false);
        let (p, mu) = (policy(rng, (contexts, responses)), policy(rng, (contexts, responses)));
        let mean = mean_coverage(bandit.weights(), &p, &mu);
        prop_assert!(mean >= 1.0 - 1e-12 && mean <= coverage(&p, &mu) + 1e-12);
    }

    #[test]
    fn fit_ignores_constants_of_the_context_and_which_response_comes_first(
        seed: u64, contexts in 1usize..4, responses in 2usize..6, k in 1usize..4,
    ) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let shape = (contexts, responses);
        let bandit = bandit(rng, shape, false);
        let features = Array3::from_shape_simple_fn((contexts, responses, k), || rng.random_range(-1.0..1.0));
        let (nu, mu) = (policy(rng, shape), policy(rng, shape));
        let fit = population_fit(&bandit, &features, (&nu, &mu)).unwrap();
        let size = 1.0 + fit.solution.fold(0.0, |m: f64, w| m.max(w.abs()));
        let swapped = population_fit(&bandit, &features, (&mu, &nu)).unwrap();
        let level = Array1::from_shape_simple_fn(contexts, || rng.random_range(-9.0..9.0)).insert_axis(Axis(1));
        let lifted = bandit.with_reward(bandit.reward() + &level).unwrap();
        let lifted = population_fit(&lifted, &features, (&nu, &mu)).unwrap();
        for other in [swapped, lifted] {
            prop_assert_eq!(other.rank, fit.rank);
            prop_assert!((&other.solution - &fit.solution).iter().all(|d| d.abs() < 1e-7 * size));
        }
    }

    #[test]
    fn regret_of_a_run_is_its_decomposition_and_below_the_sharp_bound(
        seed: u64, contexts in 1usize..4, responses in 2usize..6, k in 1usize..4, eta in 0.05f64..1.0, steps in 1usize..8,
    ) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let shape = (contexts, responses);
        let bandit = bandit(rng, shape, true);
        let features = Array3::from_shape_simple_fn((contexts, responses, k), || rng.random_range(-1.0..1.0));
        let start = LogLinear::new(features, Array1::zeros(k)).unwrap();
        let (offline, comparator) = (policy(rng, shape), policy(rng, shape));
        let second = Law::hybrid(offline, 0.5).unwrap();
        let run = Rebel::new(&bandit, start, (Law::OnPolicy, second), eta).unwrap().steps(steps).unwrap();
        let iterations: Vec<Iteration> = run.iter().map(|s| s.iteration.clone()).collect();
        let mean = iterations.iter().map(|i| bandit.value(&i.policy)).sum::<f64>() / steps as f64;
        let regret = bandit.value(&comparator) - mean;
        let terms = decompose(bandit.weights(), &iterations, &comparator, eta);
        let size = 1.0 + terms.mirror_descent.abs() + terms.approximation.abs();
        prop_assert!((terms.total() - regret).abs() < 1e-10 * size, "{} {regret}", terms.total());
        let measure = |s: &rebel_theory::solve::population::Step| {
            Constants::measure(bandit.weights(), &s.iteration, (&s.first, &s.second), &comparator, eta)
        };
        let measured: Vec<Constants> = run.iter().map(measure).collect();
        let divergence = bandit.kl(&comparator, &iterations[0].policy);
        prop_assert!(regret <= theorem1_sharp(divergence, eta, &measured).total() + 1e-9 * size);
    }

    #[test]
    fn mirror_descent_on_any_predictors_has_the_regret_of_lemma_two(
        seed: u64, responses in 1usize..7, steps in 0usize..40, eta in 0.01f64..5.0,
    ) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let start = policy(rng, (1, responses));
        let mut run = Lemma2::new(start.clone()).unwrap();
        for f in table(rng, (steps, responses)).rows() {
            run.round(f, eta);
        }
        for y in 0..responses {
            let bound = lemma2_sharp(-start.log()[[0, y]], eta, &run.ranges);
            prop_assert!(run.advantage[y] <= bound + 1e-9 * (1.0 + bound), "{} {bound}", run.advantage[y]);
        }
        prop_assert!(run.kl_backward >= -1e-12);
    }

    #[test]
    fn projection_is_a_distribution_nearer_than_any_other(seed: u64, responses in 1usize..9) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let v = table(rng, (1, responses)).row(0).to_owned();
        let nearest = nearest_distribution(v.view());
        prop_assert!((nearest.sum() - 1.0).abs() < 1e-12 && nearest.iter().all(|&p| p >= 0.0));
        let distance = |p: &Array1<f64>| (p - &v).mapv(|d| d * d).sum();
        for _ in 0..20 {
            let other = policy(rng, (1, responses)).prob().row(0).to_owned();
            prop_assert!(distance(&nearest) <= distance(&other) + 1e-12);
        }
        let again = nearest_distribution(nearest.view());
        prop_assert!((again - &nearest).iter().all(|d| d.abs() < 1e-12));
    }
}
