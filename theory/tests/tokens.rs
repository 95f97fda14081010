//! Sequences of tokens: properties of every instance, and instances at the edge.

use ndarray::{Array1, Array2, Array3};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rebel_theory::policy::Autoregressive;
use rebel_theory::solve::mirror::tilt;
use rebel_theory::solve::tree::ChanceTree;
use rebel_theory::vectors::{SCHEMA, run};
use serde_json::{Value, json};

/// A policy over sequences and rewards `[V^H]`, numbers in (-3, 3).
fn sequences(seed: u64, vocabulary: usize, length: u32) -> (Autoregressive, Array1<f64>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut number = || rng.random_range(-3.0..3.0);
    let table = |h: u32| Array2::from_shape_simple_fn((vocabulary.pow(h), vocabulary), &mut number);
    let logits: Vec<_> = (0..length).map(table).collect();
    let reward = Array1::from_shape_simple_fn(vocabulary.pow(length), &mut number);
    (Autoregressive::new(vocabulary, &logits).unwrap(), reward)
}

fn chance_tree(seed: u64, (a, s, b): (usize, usize, usize)) -> ChanceTree {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let chance = Array2::from_shape_simple_fn((a, s), || rng.random_range(0.01..1.0));
    let sums = chance.sum_axis(ndarray::Axis(1)).insert_axis(ndarray::Axis(1));
    let mut number = || rng.random_range(-3.0..3.0);
    let theta1 = Array1::from_shape_simple_fn(a, &mut number);
    let theta2 = Array3::from_shape_simple_fn((a, s, b), &mut number);
    let reward = Array3::from_shape_simple_fn((a, s, b), &mut number);
    ChanceTree::new(&theta1, &theta2, chance / &sums, &reward).unwrap()
}

proptest! {
    #[test]
    fn tilt_of_sequences_is_the_product_of_its_conditionals(seed: u64, v in 1usize..6, h in 0u32..5, eta in 0.01f64..5.0) {
        let (policy, reward) = sequences(seed, v, h);
        let whole = tilt(&policy.sequence(), &reward.clone().insert_axis(ndarray::Axis(0)), eta);
        prop_assert!(policy.tilted(&reward, eta).unwrap().sequence().distance(&whole) <= 1e-12);
    }

    #[test]
    fn soft_value_lies_between_the_value_and_the_largest_reward(seed: u64, v in 1usize..6, h in 0u32..5, eta in 0.01f64..5.0) {
        let (policy, reward) = sequences(seed, v, h);
        let (value, soft) = (policy.values(&reward).unwrap().root, policy.soft_values(&reward, eta).unwrap().root);
        prop_assert!(value <= soft + 1e-12 && soft <= reward.fold(f64::NEG_INFINITY, |m, &r| m.max(r)) + 1e-12);
    }

    #[test]
    fn divergences_of_positions_add_up_for_any_two_policies(seed: u64, v in 1usize..6, h in 0u32..5) {
        let (new, _) = sequences(seed, v, h);
        let (old, _) = sequences(seed ^ 1, v, h);
        let whole = new.sequence().kl(&old.sequence())[0];
        prop_assert!((new.kl_by_position(&old).iter().sum::<f64>() - whole).abs() <= 1e-11 * whole.max(1.0));
    }

    #[test]
    fn constant_added_to_the_reward_moves_no_step(seed: u64, v in 1usize..5, h in 1u32..4, c in -50.0f64..50.0) {
        let (policy, reward) = sequences(seed, v, h);
        let shifted = &reward + c;
        let same = |a: &Autoregressive, b: &Autoregressive| a.sequence().distance(&b.sequence()) <= 1e-12;
        prop_assert!(same(&policy.tilted(&reward, 1.0).unwrap(), &policy.tilted(&shifted, 1.0).unwrap()));
        prop_assert!(same(&policy.token_npg(&reward, 1.0).unwrap(), &policy.token_npg(&shifted, 1.0).unwrap()));
    }

    #[test]
    fn linear_error_is_the_floor_wherever_the_rank_is_full(seed: u64, a in 1usize..4, s in 1usize..4, b in 1usize..4) {
        let tree = chance_tree(seed, (a, s, b));
        let step = tree.natural_step(0.5).unwrap();
        prop_assume!(step.rank == (a - 1) + a * s * (b - 1));
        prop_assert!((tree.linear_error(&step, 0.5) - tree.error_floor()).abs() <= 1e-9);
    }

    #[test]
    fn best_policy_of_a_tree_is_worth_more_than_any(seed: u64, a in 1usize..4, s in 1usize..4, b in 1usize..4) {
        let tree = chance_tree(seed, (a, s, b));
        prop_assert!(tree.value() <= tree.best().value() + 1e-12);
        prop_assert!(tree.value() <= tree.token_npg(0.1).unwrap().value() + 1e-12);
    }
}

fn file(op: &str, input: Value) -> Value {
    json!({ "schema": SCHEMA, "cases": [{ "id": "edge", "op": op, "input": input }] })
}

fn compute(op: &str, input: Value) -> Value {
    run(&file(op, input)).unwrap_or_else(|e| panic!("{e}"))["results"][0]["output"].clone()
}

fn refused(op: &str, input: Value) -> String {
    run(&file(op, input)).unwrap_err().to_string()
}

fn close(got: &Value, expected: f64) -> bool {
    got.as_f64().is_some_and(|v| (v - expected).abs() < 1e-14)
}

#[test]
fn one_token_makes_both_steps_the_tilt() {
    let input = json!({"V": 2, "H": 1, "eta": 1.0, "logits": [[[0.0, 0.0]]], "r": [3f64.ln(), 0.0]});
    let got = compute("autoreg_step", input);
    assert!(
        close(&got["seq_exact"][0], 0.75) && close(&got["seq_npg"][0], 0.75) && close(&got["soft_value"], 2f64.ln())
    );
    assert_eq!(got["tv_exact_npg"], json!(0.0));
    assert!(close(&got["kl_per_position"][0], got["kl_seq"].as_f64().unwrap()));
}

#[test]
fn one_word_or_no_position_leaves_nothing_to_choose() {
    let got = compute("autoreg_step", json!({"V": 1, "H": 2, "eta": 1.0, "logits": [[[0.3]], [[-2.0]]], "r": [5.0]}));
    assert_eq!((&got["seq_npg"], &got["value"], &got["soft_value"]), (&json!([1.0]), &json!(5.0), &json!(5.0)));
    assert_eq!((&got["kl_seq"], &got["kl_per_position"]), (&json!(0.0), &json!([0.0, 0.0])));
    let got = compute("autoreg_step", json!({"V": 3, "H": 0, "eta": 1.0, "logits": [], "r": [5.0]}));
    assert_eq!((&got["seq_prob"], &got["J_npg"], &got["cond_npg"]), (&json!([1.0]), &json!(5.0), &json!([])));
}

#[test]
fn constant_reward_moves_no_token() {
    let logits = json!([[[0.0, 1.0]], [[2.0, 0.0], [0.0, 0.5]]]);
    let got = compute("autoreg_step", json!({"V": 2, "H": 2, "eta": 2.0, "logits": logits, "r": [1.0, 1.0, 1.0, 1.0]}));
    assert!(close(&got["kl_seq"], 0.0) && close(&got["tv_exact_npg"], 0.0) && close(&got["J_exact"], 1.0));
}

#[test]
fn tables_that_do_not_fit_are_refused_by_name() {
    let with = |v: u64, h: u64, logits: Value, r: Value| {
        refused("autoreg_step", json!({"V": v, "H": h, "eta": 1.0, "logits": logits, "r": r}))
    };
    let row = json!([[[0.0, 0.0]]]);
    assert_eq!(with(2, 2, row.clone(), json!([0.0])), "edge: logits: shape [1] (expected [2])");
    assert_eq!(with(3, 1, row.clone(), json!([0.0])), "edge: logits: shape [1, 2] (expected [1, 3])");
    assert_eq!(with(2, 1, row.clone(), json!([0.0])), "edge: r: shape [1] (expected [2])");
    assert_eq!(with(0, 0, json!([]), json!([0.0])), "edge: V: is empty (expected at least one entry)");
    assert_eq!(with(1_000_000, 999_999, row, json!([0.0])), "edge: logits: shape [1] (expected [999999])");
    assert_eq!(
        with(2, 1, json!([[[0.0, "a"]]]), json!([0.0])),
        "edge: logits[0][0][1]: \"a\" (expected a finite number)"
    );
    assert_eq!(
        with(2, 1, json!([[[0.0], [1.0, 2.0]]]), json!([0.0])),
        "edge: logits: its rows differ in length (expected a table)"
    );
    let tree = json!({"theta1": [0.0], "theta2": [[[0.0]]], "q": [[0.5]], "r": [[[0.0]]], "eta": 1.0});
    assert_eq!(refused("stochastic_tree", tree), "edge: q[0]: sums to 0.5 (expected 1)");
    let tree = json!({"theta1": [], "theta2": [], "q": [], "r": [], "eta": 1.0});
    assert_eq!(refused("stochastic_tree", tree), "edge: theta1: is empty (expected at least one entry)");
}

#[test]
fn tree_of_one_path_has_no_rank_and_no_error() {
    let got = compute(
        "stochastic_tree",
        json!({"theta1": [0.4], "theta2": [[[1.0]]], "q": [[1.0]], "r": [[[2.0]]], "eta": 1.0}),
    );
    assert_eq!((&got["rank"], &got["delta"]), (&json!(0), &json!([0.0, 0.0])));
    assert_eq!((&got["eps_linear"], &got["eps_floor"], &got["pi2_gn"]), (&json!(0.0), &json!(0.0), &json!([[[1.0]]])));
}

#[test]
fn state_that_is_never_reached_moves_in_the_closed_form_only() {
    let got = compute(
        "stochastic_tree",
        json!({"theta1": [0.0], "theta2": [[[0.0, 0.0], [0.0, 0.0]]], "q": [[1.0, 0.0]],
               "r": [[[3f64.ln(), 0.0], [3f64.ln(), 0.0]]], "eta": 1.0}),
    );
    assert_eq!((&got["rank"], &got["pi2_gn"][0][1]), (&json!(1), &json!([0.5, 0.5])));
    assert!(close(&got["pi2_gn"][0][0][0], 0.75) && close(&got["pi2_npg"][0][1][0], 0.75));
    assert!(close(&got["eps_floor"], 0.0) && close(&got["eps_linear"], 0.0));
}
