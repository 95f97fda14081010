//! Properties of sampled batches, their limits, and bootstrap intervals that hold for every instance.

use ndarray::{Array1, Array2, Array3, Axis};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rebel_theory::bandit::{Bandit, Policy};
use rebel_theory::policy::{LogLinear, Softmax};
use rebel_theory::solve::estimation::{DrawnPairs, ErrorMoments};
use rebel_theory::solve::excess::{Design, pair_covariance, quadratic};
use rebel_theory::solve::finite_sample::{Batch, Pairs, all_pairs};
use rebel_theory::solve::gradient_variance::GradientVariance;
use rebel_theory::solve::limit::Limit;
use rebel_theory::statistics::{interquartile_mean, mean, stratified_bootstrap};

/// Numbers in (-2, 2).
fn numbers(rng: &mut ChaCha8Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| rng.random_range(-2.0..2.0)).collect()
}

struct Problem {
    bandit: Bandit,
    policy: LogLinear,
    pi: Policy,
    scores: Array3<f64>,
}

fn problem(rng: &mut ChaCha8Rng, contexts: usize, responses: usize, features: usize) -> Problem {
    let phi = Array3::from_shape_vec((contexts, responses, features), numbers(rng, contexts * responses * features));
    let policy = LogLinear::new(phi.unwrap(), Array1::from(numbers(rng, features)) * 0.5).unwrap();
    let weights = Array1::from(numbers(rng, contexts)).mapv(f64::exp);
    let reward = Array2::from_shape_vec((contexts, responses), numbers(rng, contexts * responses)).unwrap();
    let bandit = Bandit::new(&weights / weights.sum(), reward).unwrap();
    Problem { pi: policy.policy(), scores: policy.scores(), bandit, policy }
}

/// The expectation over every on-policy pair of a number a pair.
fn over_pairs(problem: &Problem, mut number: impl FnMut(usize, usize, usize) -> f64) -> f64 {
    let (contexts, responses) = problem.bandit.reward().dim();
    let weight = |x, y, z| problem.bandit.weights()[x] * problem.pi.prob()[[x, y]] * problem.pi.prob()[[x, z]];
    all_pairs(contexts, responses).iter().map(|(x, y, z)| weight(x, y, z) * number(x, y, z)).sum()
}

fn indices(rng: &mut ChaCha8Rng, n: usize, below: usize) -> Vec<usize> {
    (0..n).map(|_| rng.random_range(0..below)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn limit_of_the_paired_step_equals_its_enumeration(seed: u64, contexts in 1usize..4, responses in 2usize..6, features in 1usize..4) {
        let problem = problem(&mut ChaCha8Rng::seed_from_u64(seed), contexts, responses, features);
        let limit = Limit::new(&problem.bandit, &problem.pi, problem.scores.view()).unwrap();
        let fisher = rebel_theory::solve::natural::second_moment(&problem.bandit, &problem.pi, problem.scores.view());
        let spectrum = rebel_theory::solve::linear::spectrum("F", &fisher).unwrap();
        let smallest = spectrum.values.iter().copied().filter(|v| *v > 1e-12).fold(f64::INFINITY, f64::min);
        prop_assume!(smallest > 1e-4);
        let inverse = rebel_theory::solve::linear::pseudo_inverse(&spectrum);
        let xi = limit.residual();
        let exact = over_pairs(&problem, |x, y, z| {
            let rows = problem.scores.index_axis(Axis(0), x);
            let moved = inverse.dot(&(&rows.row(y) - &rows.row(z))) / 2.0;
            (xi[[x, y]] - xi[[x, z]]).powi(2) * moved.dot(&moved)
        });
        prop_assert!((limit.paired() - exact).abs() <= 1e-9 * exact.max(1e-3), "{} {exact}", limit.paired());
        // The same gradients under the exact matrix: RLOO.
        let metric = GradientVariance::new(&problem.bandit, &problem.pi, problem.scores.view(), &inverse.dot(&inverse)).unwrap();
        prop_assert_eq!(limit.paired_exact(), metric.paired());
    }

    #[test]
    fn order_of_pairs_and_of_responses_changes_no_step(seed: u64, n in 1usize..20) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let problem = problem(rng, 2, 4, 3);
        let (x, y, z) = (indices(rng, n, 2), indices(rng, n, 4), indices(rng, n, 4));
        let step = |x: Vec<usize>, y: Vec<usize>, z: Vec<usize>| {
            let pairs = Pairs::new(x, y, z, (2, 4)).unwrap();
            let batch = Batch::new(&pairs, problem.scores.view(), problem.bandit.reward(), &problem.pi).unwrap();
            (batch.difference_moment(), batch.paired_gradient())
        };
        let reversed = |v: &[usize]| v.iter().rev().copied().collect::<Vec<_>>();
        let there = step(x.clone(), y.clone(), z.clone());
        let back = step(reversed(&x), reversed(&z), reversed(&y));
        prop_assert!((&there.0 - &back.0).iter().chain((&there.1 - &back.1).iter()).all(|d| d.abs() < 1e-13));
    }

    #[test]
    fn paired_variance_is_never_below_that_of_the_exact_value(seed: u64, contexts in 1usize..4, responses in 1usize..6) {
        let problem = problem(&mut ChaCha8Rng::seed_from_u64(seed), contexts, responses, 2);
        let variance = GradientVariance::new(&problem.bandit, &problem.pi, problem.scores.view(), &Array2::eye(2)).unwrap();
        prop_assert!(variance.true_baseline() <= variance.paired() + 1e-13);
        if let Some((low, high)) = variance.no_reduction() {
            let gap = |c: f64| variance.reinforce(c) - variance.paired();
            prop_assert!(gap(low - 0.1) > 0.0 && gap(high + 0.1) > 0.0 && gap(0.5 * (low + high)) <= 1e-12);
        }
    }

    #[test]
    fn fit_to_noise_free_labels_errs_by_its_bias_alone(seed: u64, n in 0usize..9) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let problem = problem(rng, 2, 5, 4);
        let pairs = Pairs::new(indices(rng, n, 2), indices(rng, n, 5), indices(rng, n, 5), (2, 5)).unwrap();
        let design = Design::new(pairs.design(problem.policy.features().view())).unwrap();
        let w = Array1::from(numbers(rng, 4));
        let sigma = pair_covariance(&problem.bandit, &problem.pi, &problem.pi, problem.policy.features());
        let off = design.fit(&design.rows().dot(&w)).unwrap() - &w;
        let excess = design.expected_excess(&sigma, &w, 1.0);
        prop_assert!((quadratic(&sigma, &off) - excess.bias).abs() <= 1e-9 * quadratic(&sigma, &w).max(1.0));
        prop_assert!(excess.variance >= 0.0 && design.rank() <= n.min(4));
    }

    #[test]
    fn error_moments_equal_their_enumeration_and_keep_their_order(seed: u64, contexts in 1usize..4, responses in 1usize..6) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let problem = problem(rng, contexts, responses, 2);
        let delta = Array2::from_shape_vec((contexts, responses), numbers(rng, contexts * responses)).unwrap();
        let moments = ErrorMoments::new(problem.bandit.weights(), &problem.pi, &problem.pi, &delta);
        let power = |p: i32| over_pairs(&problem, |x, y, z| (delta[[x, y]] - delta[[x, z]]).powi(p));
        prop_assert!((moments.second - power(2)).abs() < 1e-12 && (moments.fourth - power(4)).abs() < 1e-11);
        let (known, two) = (moments.known_noise_error(1.5, 7), moments.two_label_error(1.5, 7));
        prop_assert!(two <= known, "a second label on the same pair cannot hurt: {two} > {known}");
    }

    #[test]
    fn training_loss_of_disjoint_pairs_is_the_textbook_formula(seed: u64, n in 1usize..12, sigma in 0.0f64..2.0) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let problem = problem(rng, 1, 5, 3);
        let draws = DrawnPairs::new(&vec![0; 2 * n], &indices(rng, 2 * n, 5), (0..n).collect(), (n..2 * n).collect(), (1, 5)).unwrap();
        let design = Design::new(draws.pairs().design(problem.policy.features().view())).unwrap();
        let clean = design.rows().dot(&Array1::from(numbers(rng, 3)));
        let textbook = 2.0 * sigma * sigma * (1.0 - design.rank() as f64 / n as f64);
        prop_assert!((draws.in_sample_expected(&design, &clean, sigma) - textbook).abs() < 1e-10);
    }

    #[test]
    fn bootstrap_interval_stays_within_the_sample(seed: u64, sizes in prop::collection::vec(1usize..8, 1..5)) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let strata: Vec<Vec<f64>> = sizes.iter().map(|&n| numbers(rng, n)).collect();
        let all = strata.concat();
        let (least, most) = all.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)));
        let got = stratified_bootstrap(&strata, |s| interquartile_mean(&s.concat()), 50, seed).unwrap();
        prop_assert!(least <= got.low && got.low <= got.high && got.high <= most);
        let shifted: Vec<Vec<f64>> = strata.iter().map(|s| s.iter().map(|v| v + 3.0).collect()).collect();
        let moved = stratified_bootstrap(&shifted, |s| mean(&s.concat()), 50, seed).unwrap();
        let still = stratified_bootstrap(&strata, |s| mean(&s.concat()), 50, seed).unwrap();
        prop_assert!((moved.low - still.low - 3.0).abs() < 1e-12 && (moved.high - still.high - 3.0).abs() < 1e-12);
    }
}
