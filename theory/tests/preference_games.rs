//! Preference games at the edge: one response, no steps, ties, missing responses; and what must hold for every game.

use ndarray::{Array1, Array2, Axis};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rebel_theory::bandit::Policy;
use rebel_theory::game::Game;
use rebel_theory::game::bradley_terry::Comparisons;
use rebel_theory::game::ipo::ipo_step;
use rebel_theory::game::minimax::minimax_winner;
use rebel_theory::game::regularised::Regularised;
use rebel_theory::game::selfplay::{average_gap_bound, exact_run, exact_step};
use rebel_theory::solve::laplacian::laplacian_solve;
use rebel_theory::vectors::compare::{Tolerance, differences};
use rebel_theory::vectors::{SCHEMA, run};
use serde_json::{Value, json};

fn outcome(op: &str, input: Value) -> Result<Value, String> {
    let file = json!({ "schema": SCHEMA, "cases": [{ "id": "edge", "op": op, "input": input }] });
    run(&file).map(|got| got["results"][0]["output"].clone()).map_err(|e| e.to_string())
}

fn compute(op: &str, input: Value) -> Value {
    outcome(op, input).unwrap_or_else(|e| panic!("{e}"))
}

fn close(got: &Value, expected: f64) -> bool {
    got.as_f64().is_some_and(|v| (v - expected).abs() < 1e-14)
}

#[test]
fn committed_vectors_of_regularised_self_play_are_reproduced() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/theory/selfplay.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let ours = |case: &&Value| case["op"] == "regularised_selfplay";
    let cases: Vec<&Value> = file["cases"].as_array().unwrap().iter().filter(ours).collect();
    assert!(!cases.is_empty());
    for case in cases {
        let number = |key: &str| case["tol"][key].as_f64().unwrap();
        let tolerance = Tolerance { rel: number("rel"), abs: number("abs") };
        let got = compute("regularised_selfplay", case["input"].clone());
        assert_eq!(differences(&case["expected"], &got, tolerance), [""; 0], "{}", case["id"]);
    }
}

#[test]
fn game_of_one_response_is_over() {
    let got = compute("minimax_winner", json!({ "rho": [1.0], "L": [[[0.0]]] }));
    assert_eq!((&got["mw"], &got["unique"], &got["dg_pure"]), (&json!([[1.0]]), &json!([true]), &json!([0.0])));
    let input = json!({ "rho": [1.0], "L": [[[0.0]]], "pi0": [[1.0]], "eta": 1.0, "T": 2, "checkpoints": [0, 2] });
    let got = compute("spo_run", input);
    assert_eq!(
        (&got["dg_avg"], &got["kl_mw"], &got["bound_optimal_eta"]),
        (&json!([0.0, 0.0]), &json!([0.0, 0.0]), &json!(0.0))
    );
    let got = compute("ipo_fixed_ref", json!({ "L": [[0.0]], "ref": [1.0], "eta": 3.0 }));
    assert_eq!((&got["pi"], &got["residual_below"]), (&json!([1.0]), &json!(true)));
    let got = compute("bt_fit", json!({ "P": [[0.5]], "W": [[0.0]], "beta": 1.0 }));
    assert_eq!((&got["reward"], &got["argmax"]), (&json!([0.0]), &json!(0)));
}

#[test]
fn run_of_no_steps_has_its_start_as_average_and_no_bound() {
    let l = json!([[[0.0, 1.0], [-1.0, 0.0]]]);
    let input = json!({ "rho": [1.0], "L": l, "pi0": [[0.25, 0.75]], "eta": 0.5, "T": 0, "checkpoints": [0] });
    let got = compute("spo_run", input);
    assert_eq!((&got["pi_avg"], &got["pi_last"]), (&json!([[0.25, 0.75]]), &json!([[0.25, 0.75]])));
    assert_eq!((&got["dg_avg"], &got["bound"], &got["bound_optimal_eta"]), (&json!([1.5]), &Value::Null, &Value::Null));
    assert!(close(&got["kl_mw"][0], 4f64.ln()));
    let got = compute("spo_replay", json!({ "pi0": [0.25, 0.75], "eta": 1.0, "iterations": [] }));
    assert_eq!(got, json!({ "pi_after_first": null, "pi_last": [0.25, 0.75], "pi_avg": null }));
}

#[test]
fn empty_batch_and_pairs_of_equal_responses_move_nothing() {
    let batch = json!({ "y": [0, 1], "y2": [0, 1], "o": [1, 0], "o2": [0, 1] });
    let empty = json!({ "y": [], "y2": [], "o": [], "o2": [] });
    let got = compute("spo_replay", json!({ "pi0": [0.25, 0.75], "eta": 1.0, "iterations": [batch, empty] }));
    let same = json!({ "pi_after_first": [0.25, 0.75], "pi_last": [0.25, 0.75], "pi_avg": [0.25, 0.75] });
    assert_eq!(differences(&same, &got, Tolerance { rel: 1e-15, abs: 1e-15 }), [""; 0]);
}

#[test]
fn context_of_weight_zero_keeps_its_winner_and_counts_nothing() {
    let l = json!([[[0.0, 1.0], [-1.0, 0.0]], [[0.0, -0.5], [0.5, 0.0]]]);
    let got = compute("minimax_winner", json!({ "rho": [0.0, 1.0], "L": l }));
    assert_eq!(got["mw"], json!([[1.0, 0.0], [0.0, 1.0]]));
    assert_eq!(got["dg_pure"], json!([1.0, 0.0]));
}

#[test]
fn response_that_is_missed_stays_missed_and_makes_distances_infinite() {
    let l = json!([[0.0, 1.0], [-1.0, 0.0]]);
    let input = json!({ "L": l, "ref": [0.5, 0.5], "pi0": [0.0, 1.0], "tau": 0.5, "eta": 0.25, "T": 3, "checkpoints": [3], "outer": 0 });
    let got = compute("regularised_selfplay", input);
    assert_eq!((&got["pi_last"], &got["kl_to_fixed_point"]), (&json!([0.0, 1.0]), &json!([null])));
    let got = compute("preference_steps", json!({ "L": l, "pi": [0.0, 1.0], "mu": [1.0, 0.0], "eta": 1.0 }));
    for key in ["spo_rebel", "online_ipo_on_policy", "online_ipo_mu", "sppo", "md_half_eta"] {
        assert_eq!(got[key], json!([0.0, 1.0]), "{key}");
    }
}

#[test]
fn game_without_margins_stays_at_its_reference() {
    let input = json!({ "L": [[0.0, 0.0], [0.0, 0.0]], "ref": [0.25, 0.75], "pi0": [0.5, 0.5], "tau": 0.3, "eta": 1.5, "T": 1,
                        "checkpoints": [0, 1], "outer": 1 });
    let got = compute("regularised_selfplay", input);
    assert_eq!((&got["dg_tau"], &got["contraction_valid"]), (&json!(0.0), &json!(true)));
    assert!(close(&got["pi_tau"][0], 0.25) && close(&got["proximal_pi"][0], 0.25));
}

#[test]
fn tie_of_rewards_is_won_by_the_first() {
    let p = json!([[0.5, 0.2, 0.8], [0.8, 0.5, 0.2], [0.2, 0.8, 0.5]]);
    let w = json!([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]);
    assert_eq!(compute("bt_fit", json!({ "P": p, "W": w, "beta": 0.1 }))["argmax"], json!(0));
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_index() {
    let l = json!([[0.0, 1.0], [-1.0, 0.0]]);
    let refused = |op: &str, input: Value| outcome(op, input).unwrap_err();
    let replay = |batch: Value| refused("spo_replay", json!({ "pi0": [0.5, 0.5], "eta": 1.0, "iterations": [batch] }));
    assert_eq!(
        replay(json!({ "y": [0, 2], "y2": [0, 1], "o": [0, 0], "o2": [0, 0] })),
        "edge: iterations[0].y[1]: 2 (expected an index below 2)"
    );
    assert_eq!(
        replay(json!({ "y": [0], "y2": [0, 1], "o": [0], "o2": [0] })),
        "edge: iterations[0].y2: shape [2] (expected [1])"
    );
    assert_eq!(replay(json!({ "y": [0] })), "edge: iterations[0].y2: is missing (expected a list of indices)");
    assert_eq!(replay(json!(7)), "edge: iterations[0]: 7 (expected an object)");
    let run = |checkpoints: Value| json!({ "rho": [1.0], "L": [l], "pi0": [[0.5, 0.5]], "eta": 1.0, "T": 3, "checkpoints": checkpoints });
    assert_eq!(refused("spo_run", run(json!([4]))), "edge: checkpoints[0]: 4 (expected an index below 4)");
    let skew = json!({ "L": [[0.0, 1.0], [1.0, 0.0]], "ref": [0.5, 0.5], "eta": 1.0 });
    assert_eq!(refused("ipo_fixed_ref", skew), "edge: L[0, 0, 1]: 1 and its mirror image 1 do not add up to 0");
    let long = json!({ "L": l, "ref": [0.5, 0.25, 0.25], "eta": 1.0 });
    assert_eq!(refused("ipo_fixed_ref", long), "edge: ref: shape [3] (expected [2])");
    let sure = json!({ "P": [[0.5, 1.0], [0.0, 0.5]], "W": [[0.0, 2.0], [0.0, 0.0]], "beta": 1.0 });
    assert!(refused("bt_fit", sure).starts_with("edge: W: no finite fit: responses [0]"));
    assert!(refused("minimax_winner", json!({ "rho": [1.0], "L": [] })).starts_with("edge: L"));
    assert!(refused("minimax_winner", json!({ "rho": [0.5, 0.5], "L": l })).starts_with("edge: L: shape"));
}

/// A random game, and a random policy in it.
fn instance(seed: u64, responses: usize) -> (Game, Policy, ChaCha8Rng) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let half = Array2::from_shape_simple_fn((responses, responses), || rng.random_range(-0.5..0.5));
    let game = Game::single(&half - &half.t()).unwrap();
    let pi = Policy::from_logits(&Array2::from_shape_simple_fn((1, responses), || rng.random_range(-3.0..3.0)));
    (game, pi, rng)
}

/// The solver once left a probability of 1e-11 on a response of this game that loses by 3e-7.
#[test]
fn a_response_that_loses_is_not_played_at_all() {
    let (game, _, _) = instance(14_291_793_345_507_562_357, 16);
    let winner = minimax_winner(&game).unwrap();
    let losing = game.reward(&winner.policy).mapv(|gain| gain < -1e-9);
    assert!(winner.policy.prob().iter().zip(&losing).all(|(&p, &losing)| !losing || p == 0.0));
    assert!(game.duality_gap(&winner.policy) <= 1e-12);
}

proptest! {
    #[test]
    fn no_response_beats_the_winner(seed: u64, responses in 1usize..30) {
        let (game, _, _) = instance(seed, responses);
        let winner = minimax_winner(&game).unwrap();
        prop_assert!(game.duality_gap(&winner.policy) <= 1e-12);
        let odd = winner.policy.prob().iter().filter(|p| **p > 0.0).count() % 2 == 1;
        prop_assert!(odd == winner.unique[0]); // of a generic game both hold
    }

    #[test]
    fn a_copied_response_makes_the_winner_ambiguous_exactly_if_it_is_played(seed: u64, responses in 2usize..9) {
        let (game, _, _) = instance(seed, responses);
        let played = minimax_winner(&game).unwrap().policy.prob()[[0, 0]] > 0.0;
        let at = |y: usize| if y == responses { 0 } else { y };
        let copied = Array2::from_shape_fn((responses + 1, responses + 1), |(y, z)| game.margin()[[0, at(y), at(z)]]);
        let winner = minimax_winner(&Game::single(copied).unwrap()).unwrap();
        prop_assert_eq!(winner.unique[0], !played);
    }

    #[test]
    fn average_of_self_play_keeps_its_bound(seed: u64, responses in 2usize..9, eta in 0.01f64..3.0, steps in 1usize..80) {
        let (game, pi, _) = instance(seed, responses);
        let gap = game.duality_gap(&exact_run(&game, &pi, eta, steps).average());
        prop_assert!(gap <= average_gap_bound(&pi, eta, steps, game.largest_margin()));
    }

    #[test]
    fn fixed_point_stays_and_its_gap_keeps_its_bound(seed: u64, responses in 1usize..12, tau in 1e-4f64..10.0) {
        let (game, pi, _) = instance(seed, responses);
        let held = Regularised::new(&game, pi, tau).unwrap();
        let fixed = held.fixed_point().unwrap();
        prop_assert!(held.step(&fixed, held.largest_eta()).distance(&fixed) <= 1e-9);
        prop_assert!(game.duality_gap(&fixed) <= held.gap_bound(&fixed) + 1e-10);
    }

    #[test]
    fn ipo_from_its_own_samples_is_self_play(seed: u64, responses in 1usize..9, eta in 0.01f64..5.0) {
        let (game, pi, _) = instance(seed, responses);
        prop_assert!(ipo_step(&game, &pi, &pi, eta).distance(&exact_step(&game, &pi, eta)) <= 1e-13);
    }

    #[test]
    fn fitted_utility_balances_wins_expected_and_counted(seed: u64, responses in 2usize..9) {
        let (_, _, mut rng) = instance(seed, responses);
        let mut wins = Array2::from_shape_simple_fn((responses, responses), || rng.random_range(0.01..20.0));
        wins.diag_mut().fill(0.0);
        let utility = Comparisons::new(wins.clone()).unwrap().fit().unwrap();
        for y in 0..responses {
            let expected: f64 = (0..responses)
                .map(|z| (wins[[y, z]] + wins[[z, y]]) / (1.0 + (utility[z] - utility[y]).exp()))
                .sum();
            prop_assert!((expected - wins.row(y).sum()).abs() <= 1e-10 * wins.sum());
        }
        prop_assert!(utility.sum().abs() <= 1e-12);
    }

    #[test]
    fn laplacian_solution_solves_its_equation(seed: u64, responses in 1usize..12) {
        let (_, _, mut rng) = instance(seed, responses);
        let mut weights = Array2::<f64>::zeros((responses, responses));
        for y in 0..responses {
            for z in 0..y {
                let weight = if rng.random_bool(0.4) { rng.random_range(-6f64..6.0).exp() } else { 0.0 };
                (weights[[y, z]], weights[[z, y]]) = (weight, weight);
            }
        }
        let wanted = Array1::from_shape_simple_fn(responses, || rng.random_range(-1.0..1.0));
        let flow = |h: &Array1<f64>| &weights.sum_axis(Axis(1)) * h - weights.dot(h);
        let got = laplacian_solve(&weights, &flow(&wanted));
        prop_assert!((flow(&got.value) - flow(&wanted)).iter().all(|e| e.abs() <= 1e-12 * weights.sum().max(1.0)));
        for g in 0..got.groups() {
            let sum: f64 = got.value.iter().zip(&got.group).filter(|(_, group)| **group == g).map(|(h, _)| h).sum();
            prop_assert!(sum.abs() <= 1e-12);
        }
    }
}
