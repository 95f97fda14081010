//! Properties of the wide kernels and of the solvers built on them, on any input; and their degenerate cases.

use ndarray::{Array1, Array2, Array3};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rebel_theory::bandit::{Bandit, Policy};
use rebel_theory::game::{Game, fast::SelfPlay};
use rebel_theory::kernels::{exp_in_place, ln_in_place};
use rebel_theory::solve::batched::{Pair, draw_pairs, gauss_newton_batch};
use rebel_theory::solve::linear::least_squares;
use rebel_theory::solve::mirror::{log_normaliser, mirror_descent, tilt};
use rebel_theory::solve::pair_graph::pair_least_squares;

fn one(function: fn(&mut [f64]), x: f64) -> f64 {
    let mut value = [x];
    function(&mut value);
    value[0]
}

/// A table of logits, some of them minus infinity; each row has a finite one.
fn logits(contexts: usize, responses: usize) -> impl Strategy<Value = Array2<f64>> {
    let entry = prop_oneof![8 => -30.0..30.0, 1 => Just(f64::NEG_INFINITY), 1 => -2000.0..2000.0];
    prop::collection::vec(entry, contexts * responses).prop_map(move |mut entries: Vec<f64>| {
        entries.iter_mut().step_by(responses).for_each(|first| *first = first.max(0.0));
        Array2::from_shape_vec((contexts, responses), entries).unwrap()
    })
}

proptest! {
    #[test]
    fn exponential_and_logarithm_of_any_number_are_the_librarys_to_the_last_place(x: f64, small in -750.0..720.0f64) {
        for x in [x, small] {
            for (ours, library) in [(one(exp_in_place, x), x.exp()), (one(ln_in_place, x.abs()), x.abs().ln())] {
                let apart = ours.to_bits().abs_diff(library.to_bits());
                prop_assert!(apart <= 1 || ours == library || (ours.is_nan() && library.is_nan()), "{x:e}: {ours:e} {library:e}");
            }
        }
    }

    #[test]
    fn softmax_of_any_row_is_a_distribution_and_its_own_logarithm((x, y, table) in (1usize..4, 1usize..50)
        .prop_flat_map(|(x, y)| (Just(x), Just(y), logits(x, y))))
    {
        let pi = Policy::from_logits(&table);
        for row in pi.prob().rows() {
            prop_assert!((row.sum() - 1.0).abs() < 1e-13, "{x} {y}: {}", row.sum());
        }
        for ((&p, &log), &logit) in pi.prob().iter().zip(pi.log()).zip(&table) {
            prop_assert!(p < 1e-300 || (log.exp() / p - 1.0).abs() < 1e-12);
            prop_assert_eq!(log == f64::NEG_INFINITY, logit == f64::NEG_INFINITY);
        }
    }

    #[test]
    fn layout_of_a_table_does_not_matter(table in logits(5, 7)) {
        let mut other = Array2::zeros((7, 5)).reversed_axes();
        other.assign(&table);
        prop_assert_eq!(Policy::from_logits(&other), Policy::from_logits(&table));
    }

    #[test]
    fn two_tilts_are_the_tilt_by_the_sum(table in logits(2, 19), eta in 0.01..3.0f64) {
        let pi = Policy::from_logits(&table);
        let f = Array2::from_shape_fn((2, 19), |(x, y)| ((x * 19 + y) as f64 * 1.1).sin());
        let twice = tilt(&tilt(&pi, &f, eta), &f, eta);
        prop_assert!(twice.distance(&tilt(&pi, &f, 2.0 * eta)) < 1e-11);
        // ln Z of both halves is ln Z of the whole
        let halves = log_normaliser(&pi, &f, eta) + log_normaliser(&tilt(&pi, &f, eta), &f, eta);
        let whole = log_normaliser(&pi, &f, 2.0 * eta);
        prop_assert!(halves.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-11));
    }

    #[test]
    fn pairs_solved_as_a_graph_are_the_generic_least_squares(
        n in 1usize..25,
        raw in prop::collection::vec((0usize..1000, 0usize..1000, -3.0..3.0f64), 0..60),
    ) {
        let pairs: Vec<[usize; 2]> = raw.iter().map(|&(y, z, _)| [y % n, z % n]).collect();
        let targets: Vec<f64> = raw.iter().map(|&(.., target)| target).collect();
        let mut design = Array2::zeros((pairs.len(), n));
        for (m, &[y, z]) in pairs.iter().enumerate() {
            design[[m, y]] += 1.0;
            design[[m, z]] -= 1.0;
        }
        let generic = least_squares(&design, &Array1::from(targets.clone())).unwrap();
        let graph = pair_least_squares(&pairs, &targets, n).unwrap();
        prop_assert_eq!(graph.rank, generic.rank);
        let apart = (&graph.solution - &generic.solution).fold(0.0, |m: f64, d| m.max(d.abs()));
        prop_assert!(apart < 1e-10, "{apart}");
    }
}

#[test]
fn features_that_are_zero_or_constant_have_step_zero_and_rank_zero() {
    let bandit = Bandit::new(Array1::ones(1), Array2::from_shape_fn((1, 4), |(_, y)| y as f64)).unwrap();
    let pi = Policy::uniform(1, 4);
    let pairs = draw_pairs(&bandit, &pi, &pi, 30, &mut ChaCha8Rng::seed_from_u64(1));
    for level in [0.0, 2.5] {
        let features = Array3::from_elem((1, 4, 3), level);
        let steps = gauss_newton_batch(&bandit, features.view(), &[pairs.clone(), vec![]], 1.0).unwrap();
        for step in steps {
            assert_eq!((step.rank, step.solution), (0, Array1::zeros(3)));
        }
    }
}

#[test]
fn nearly_collinear_features_are_cut_off_as_by_the_singular_values() {
    let mut features = Array3::from_shape_fn((1, 5, 2), |(_, y, _)| (y as f64 * 1.3).sin());
    features[[0, 2, 1]] += 1e-9; // a second direction, far below the cutoff
    let reward = Array2::from_shape_fn((1, 5), |(_, y)| (y as f64).cos());
    let bandit = Bandit::new(Array1::ones(1), reward).unwrap();
    let pi = Policy::uniform(1, 5);
    let pairs: Vec<Pair> = draw_pairs(&bandit, &pi, &pi, 50, &mut ChaCha8Rng::seed_from_u64(2));
    let step = gauss_newton_batch(&bandit, features.view(), &[pairs], 1.0).unwrap().remove(0);
    assert_eq!(step.rank, 1);
    assert!((step.solution[0] - step.solution[1]).abs() < 1e-6);
}

#[test]
fn one_response_stays_certain_under_every_kind_of_feedback() {
    let bandit = Bandit::new(Array1::ones(1), Array2::from_elem((1, 1), 3.0)).unwrap();
    let run = mirror_descent(&bandit, &Policy::uniform(1, 1), 0.5, 3);
    assert_eq!((run.last.prob()[[0, 0]], run.kl_forward, run.values), (1.0, vec![0.0; 3], vec![3.0; 4]));
    let game = Game::single(Array2::zeros((1, 1))).unwrap();
    let mut play = SelfPlay::new(&game, &Policy::uniform(1, 1), 0.5).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    play.exact(2);
    play.bernoulli(2, &mut rng);
    play.pairs(2, 5, &mut rng);
    assert_eq!((play.average().prob()[[0, 0]], play.last().prob()[[0, 0]], play.iterations()), (1.0, 1.0, 6));
}

#[test]
fn response_of_probability_zero_is_never_played_again() {
    let game = Game::single(Array2::from_shape_fn((3, 3), |(y, z)| z as f64 * 0.3 - y as f64 * 0.3)).unwrap();
    let start = Policy::from_logits(&ndarray::array![[f64::NEG_INFINITY, 0.0, 0.0]]);
    let mut play = SelfPlay::new(&game, &start, 0.5).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    play.exact(10);
    play.bernoulli(10, &mut rng);
    play.pairs(10, 8, &mut rng);
    assert_eq!(play.average().prob()[[0, 0]], 0.0);
    assert!((play.last().prob().sum() - 1.0).abs() < 1e-12);
}
