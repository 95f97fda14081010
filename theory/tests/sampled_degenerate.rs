//! Sampled runs at the edge: no iterations, empty batches, one response, no rank, a context without weight, ties; and what
//! is refused, by its name.

use rebel_theory::vectors::{SCHEMA, run};
use serde_json::{Value, json};

fn try_compute(op: &str, input: &Value) -> Result<Value, String> {
    let file = json!({ "schema": SCHEMA, "cases": [{ "id": "edge", "op": op, "input": input }] });
    run(&file).map(|got| got["results"][0]["output"].clone()).map_err(|error| error.to_string())
}

fn compute(op: &str, input: &Value) -> Value {
    try_compute(op, input).unwrap_or_else(|e| panic!("{e}"))
}

fn close(got: &Value, expected: f64) -> bool {
    got.as_f64().is_some_and(|v| (v - expected).abs() < 1e-12)
}

fn bandit() -> Value {
    json!({"rho": [1.0], "phi": [[[1.0, 0.0], [0.0, 1.0]]], "theta0": [0.0, 0.0], "r": [[1.0, 0.5]], "mu": [[0.25, 0.75]],
           "eta": 2.0, "iterations": [{"x": [0, 0], "y": [0, 1], "y2": [1, 1], "r1": [1.0, 0.0], "r2": [0.0, 1.0]}]})
}

fn game() -> Value {
    json!({"rho": [1.0], "phi": [[[1.0], [0.0], [0.0]]], "theta0": [0.0],
           "L": [[[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]]], "mu": [[0.5, 0.25, 0.25]], "eta": 1.0,
           "iterations": [{"x": [0], "y": [0], "y2": [1], "y3": [1], "o": [1], "o2": [0]}]})
}

fn with(mut input: Value, key: &str, value: Value) -> Value {
    input[key] = value;
    input
}

fn baselines(steps: usize) -> Value {
    let u: Vec<f64> = (0..steps).map(|t| (0.37 * t as f64) % 1.0).collect();
    json!({"rewards": [[1.0, 0.0, 1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]],
           "means": [0.5, 0.25, 0.75], "u": u, "T": steps, "eta_exp3": 0.2, "eta_rebel": 1.0})
}

#[test]
fn one_iteration_equals_numbers_by_hand() {
    let got = compute("bandit_replay", &bandit());
    // one informative pair, label 1: f = (1/2, -1/2), theta = (1, -1)
    assert!(close(&got["theta_T"][0], 1.0) && got["rank"] == json!([1]) && got["queries"] == json!(4));
    // the fit's difference is 1, the reward's 1/2; pairs differ with probability 1/2
    assert!(close(&got["eps"][0], 0.5 * 0.25) && close(&got["eps_approx"][0], 0.0));
    assert!(
        close(&got["regret_paid"], 0.5 * 3.0 / 4.0) && close(&got["C_inf"][0], 4.0) && close(&got["A_abs"][0], 0.5)
    );
    // KL(p || pi_0) = ln 2, eta T = 2, range 1; b + c = 3/16 * 1/4 + 1/16 * 1/4, C_2 = 4
    let bound = 2f64.ln() / 2.0 + 2.0 / 8.0;
    assert!(close(&got["md_bound"], bound) && close(&got["bound_sharp"], bound + (4.0f64 / 16.0).sqrt()));
}

#[test]
fn run_of_no_iterations_keeps_its_start_and_has_no_averages() {
    let got = compute("bandit_replay", &with(bandit(), "iterations", json!([])));
    assert_eq!((&got["J"], &got["rank"], &got["queries"]), (&json!([0.75]), &json!([]), &json!(0)));
    for key in [
        "regret_avg",
        "regret_best",
        "regret_paid",
        "md_term",
        "approx_term",
        "sampling_term",
        "md_bound",
        "bound_sharp",
    ] {
        assert_eq!(got[key], Value::Null, "{key}");
    }
    assert!(close(&got["regret_last"], 0.25));
    let got = compute("spo_decomposition", &with(game(), "iterations", json!([])));
    for key in ["pi_avg", "dg_avg", "best_response", "margin", "md_term", "bound", "bound_sharp"] {
        assert_eq!(got[key], Value::Null, "{key}");
    }
    assert_eq!((&got["A_max"], &got["eps_max"], &got["dg"]), (&json!(0.0), &json!(0.0), &json!([])));
    assert!(close(&got["C"], 4.0) && close(&got["dg_last"], 0.0));
}

#[test]
fn empty_batch_moves_nothing_and_counts_as_an_iteration() {
    let empty = json!({"x": [], "y": [], "y2": [], "r1": [], "r2": []});
    let got = compute("bandit_replay", &with(bandit(), "iterations", json!([empty, empty])));
    assert_eq!((&got["J"], &got["rank"]), (&json!([0.75, 0.75, 0.75]), &json!([0, 0])));
    assert_eq!((&got["regret_paid"], &got["kl_back"]), (&Value::Null, &json!([0.0, 0.0])));
    // the whole regret is what the missing samples would have told
    assert!(close(&got["sampling_term"], 0.25) && close(&got["md_term"], 0.0));
}

#[test]
fn single_response_has_no_regret_and_no_margin() {
    let input = json!({"rho": [1.0], "phi": [[[3.0]]], "theta0": [1.0], "L": [[[0.0]]], "mu": [[1.0]], "eta": 1.0,
                       "iterations": [{"x": [0], "y": [0], "y2": [0], "y3": [0], "o": [1], "o2": [0]}]});
    let got = compute("spo_decomposition", &input);
    assert_eq!((&got["dg_avg"], &got["margin"], &got["rank"]), (&json!(0.0), &Value::Null, &json!([0])));
    assert!(close(&got["bound"], 0.0) && close(&got["bound_sharp"], 0.0));
}

#[test]
fn features_without_rank_leave_all_error_to_misfit() {
    let got = compute("bandit_replay", &with(bandit(), "phi", json!([[[0.3, 1.0], [0.3, 1.0]]])));
    assert_eq!((&got["rank"], &got["theta_T"]), (&json!([0]), &json!([0.0, 0.0])));
    assert!(
        close(&got["eps_approx"][0], 0.125) && close(&got["eps_sampling"][0], 0.0) && close(&got["approx_term"], 0.25)
    );
}

#[test]
fn context_of_weight_zero_moves_its_policy_and_no_average() {
    let mut input = bandit();
    input["rho"] = json!([0.0, 1.0]);
    input["phi"] = json!([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]]);
    input["r"] = json!([[9.0, 0.0], [1.0, 0.5]]);
    input["mu"] = json!([[0.0, 1.0], [0.5, 0.5]]);
    let got = compute("bandit_replay", &input);
    // only context 0 was sampled: f = 1 on its first response
    assert!(close(&got["theta_T"][0], 2.0) && close(&got["J_star"], 1.0));
    assert!(close(&got["J"][1], 0.75) && close(&got["kl_back"][0], 0.0));
    assert_eq!(got["C_inf"], json!([null])); // a maximum over all contexts, and mu misses the best response of one
    assert!(got["bound_sharp"].is_number());
}

#[test]
fn second_law_that_misses_the_best_response_has_no_bound() {
    let got = compute("bandit_replay", &with(bandit(), "mu", json!([[0.0, 1.0]])));
    assert_eq!((&got["C_inf"], &got["bound_sharp"]), (&json!([null]), &Value::Null));
    let got = compute("spo_decomposition", &with(game(), "mu", json!([[0.5, 0.5, 0.0]])));
    assert_eq!((&got["C"], &got["bound"]), (&Value::Null, &Value::Null));
}

#[test]
fn first_of_tied_rewards_is_the_comparator() {
    let got = compute("bandit_replay", &with(bandit(), "r", json!([[0.5, 0.5]])));
    assert!(close(&got["C_inf"][0], 4.0) && close(&got["regret_paid"], 0.0));
}

#[test]
fn players_without_pulls_have_no_averages_and_no_index() {
    let got = compute("bandit_baselines", &baselines(0));
    assert_eq!((&got["ucb1_arms"], &got["ucb1_pulls"]), (&json!([]), &json!([0, 0, 0])));
    assert_eq!((&got["ucb1_index"], &got["ucb1_recommend"]), (&json!([null, null, null]), &json!(0)));
    for key in ["ucb1_regret", "exp3_regret", "exp3_p_avg"] {
        assert_eq!(got[key], Value::Null, "{key}");
    }
    assert_eq!((&got["one_pair_pairs"], &got["one_pair_theta"]), (&json!([]), &json!([0.0, 0.0, 0.0])));
}

#[test]
fn fewer_pulls_than_arms_leave_arms_without_an_index_and_an_odd_number_its_last_draw_unpaired() {
    let got = compute("bandit_baselines", &baselines(1));
    assert_eq!((&got["ucb1_arms"], &got["ucb1_index"]), (&json!([0]), &json!([1.0, null, null])));
    assert_eq!(got["one_pair_pairs"], json!([]));
    assert_eq!(compute("bandit_baselines", &baselines(5))["one_pair_pairs"].as_array().unwrap().len(), 2);
}

#[test]
fn bad_input_is_refused_by_the_name_of_its_field() {
    let record = |key: &str, value: Value| {
        let mut input = bandit();
        input["iterations"][0][key] = value;
        try_compute("bandit_replay", &input).unwrap_err()
    };
    assert_eq!(record("y", json!([0, 2])), "edge: iterations[0].y[1]: 2 (expected an index below 2)");
    assert_eq!(record("y2", json!([0])), "edge: iterations[0].y2: shape [1] (expected [2])");
    assert_eq!(record("r2", json!([0.0])), "edge: iterations[0].r2: shape [1] (expected [2])");
    assert_eq!(record("x", json!([0, -1])), "edge: iterations[0].x[1]: -1 (expected an index)");
    let refused = |key: &str, value: Value| try_compute("bandit_replay", &with(bandit(), key, value)).unwrap_err();
    assert_eq!(refused("mu", json!([[0.5, 0.6]])), "edge: mu[0]: sums to 1.1 (expected 1)");
    assert_eq!(refused("mu", json!("pi")), "edge: mu: pi (expected a list)".replace("pi (", "\"pi\" ("));
    assert_eq!(refused("eta", json!(0.0)), "edge: eta: 0 (expected a finite number above 0)");
    assert_eq!(refused("theta0", json!([0.0])), "edge: theta0: shape [1] (expected [2])");
    assert_eq!(refused("iterations", json!([7])), "edge: iterations[0]: 7 (expected an object)");
    let mut input = game();
    input["iterations"][0]["y3"] = json!([5]);
    let error = try_compute("spo_decomposition", &input).unwrap_err();
    assert_eq!(error, "edge: iterations[0].y3[0]: 5 (expected an index below 3)");
    let error = try_compute("spo_decomposition", &with(game(), "L", json!([[[0.0, 1.0], [1.0, 0.0]]]))).unwrap_err();
    assert!(error.starts_with("edge: L[0, 0, 1]: "), "{error}");
    let error = try_compute("bandit_baselines", &with(baselines(2), "u", json!([0.5, 1.5]))).unwrap_err();
    assert_eq!(error, "edge: u[1]: 1.5 is above 1 (expected a probability)");
    let error = try_compute("bandit_baselines", &with(baselines(2), "rewards", json!([[], [], []]))).unwrap_err();
    assert_eq!(error, "edge: rewards[0, 0]: 0 (expected an index below 0)");
}

#[test]
fn committed_self_play_runs_are_taken_apart_as_expected() {
    use rebel_theory::vectors::compare::{Tolerance, differences};
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/theory/selfplay.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = file["cases"].as_array().unwrap().iter().filter(|case| case["op"] == "spo_decomposition");
    let mut judged = 0;
    for case in cases {
        let number = |key: &str| case["tol"][key].as_f64().unwrap();
        let tolerance = Tolerance { rel: number("rel"), abs: number("abs") };
        let got = compute("spo_decomposition", &case["input"]);
        assert_eq!(differences(&case["expected"], &got, tolerance), [""; 0], "{}", case["id"]);
        judged += 1;
    }
    assert!(judged >= 2);
}
