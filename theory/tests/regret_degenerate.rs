//! Regret at the edge: no iterations, one response, ties, contexts of weight zero, features without rank, no coverage.

use rebel_theory::vectors::{SCHEMA, run};
use serde_json::{Value, json};

fn try_compute(op: &str, input: Value) -> Result<Value, String> {
    let file = json!({ "schema": SCHEMA, "cases": [{ "id": "edge", "op": op, "input": input }] });
    run(&file).map(|got| got["results"][0]["output"].clone()).map_err(|e| e.to_string())
}

fn compute(op: &str, input: Value) -> Value {
    try_compute(op, input).unwrap_or_else(|e| panic!("{e}"))
}

fn refusal(op: &str, input: Value) -> String {
    try_compute(op, input).expect_err("should be refused")
}

fn close(got: &Value, expected: f64) -> bool {
    got.as_f64().is_some_and(|v| (v - expected).abs() < 1e-12)
}

/// `base` with some fields replaced.
fn with(base: &Value, changes: Value) -> Value {
    let mut input = base.clone();
    for (key, value) in changes.as_object().unwrap() {
        input[key] = value.clone();
    }
    input
}

fn small_run() -> Value {
    json!({"rho": [1.0], "phi": [[[1.0], [0.0], [0.0]]], "theta0": [0.0], "r": [[1.0, 0.5, 0.0]], "eta": 0.5, "T": 2,
           "y_mode": "on_policy", "mu_mode": "offline", "n": 1, "mu": [[0.5, 0.25, 0.25]], "nu": null})
}

#[test]
fn run_of_no_iterations_has_its_start_and_no_averages() {
    let got = compute("theorem1_run", with(&small_run(), json!({"T": 0})));
    assert!(close(&got["J"][0], 0.5) && close(&got["regret_last"], 0.5) && close(&got["kl_star_T"], 3f64.ln()));
    for key in
        ["regret_avg_0_Tm1", "regret_avg_1_T", "regret_best", "md_term", "approx_term", "bound_paper", "bound_sharp"]
    {
        assert_eq!(got[key], Value::Null, "{key}");
    }
    assert_eq!((&got["eps"], &got["A_max"], &got["C_max"]), (&json!([]), &json!(0.0), &json!(0.0)));
    assert_eq!((&got["eps_max"], &got["bound_paper_valid"]), (&json!(0.0), &json!(true)));
    let input = json!({"pi0": [0.25, 0.75], "f": [], "eta": 2.0});
    let got = compute("lemma2_sequence", input);
    assert_eq!((&got["regret_max"], &got["A_max"], &got["kl_back_sum"]), (&json!(0.0), &json!(0.0), &json!(0.0)));
    assert_eq!(got["pi_T"], json!([0.25, 0.75]));
    assert!(close(&got["bound_paper"], 2f64.ln() / 2.0) && close(&got["bound_hoeffding"], 2f64.ln() / 2.0));
}

#[test]
fn single_response_has_no_regret_and_nothing_to_learn() {
    let one = json!({"phi": [[[3.0]]], "r": [[0.7]], "mu": [[1.0]]});
    let got = compute("theorem1_run", with(&small_run(), one));
    assert_eq!(got["theta_T"], json!([0.0]));
    assert_eq!((&got["eps"], &got["regret_best"], &got["bound_sharp"]), (&json!([0.0, 0.0]), &json!(0.0), &json!(0.0)));
    let got = compute("best_worst", json!({"pi": [1.0], "r": [0.3], "N": [1, 7]}));
    assert_eq!((&got["best"], &got["joint"]), (&json!([[1.0], [1.0]]), &json!([[[1.0]], [[1.0]]])));
    assert_eq!((&got["C_worst_covers_pi"], &got["C_pi"]), (&json!([1.0, 1.0]), &json!(1.0)));
    let got = compute("tight_sqrt_c_eps", json!({"K": [1], "C": [1.0], "gap": [0.5]}));
    assert_eq!((&got["eps"], &got["regret"], &got["ratio_sharp"]), (&json!([0.0]), &json!([0.0]), &json!([null])));
}

#[test]
fn uncovered_best_response_has_no_coverage_and_no_bound() {
    let got = compute("theorem1_run", with(&small_run(), json!({"mu": [[0.0, 0.5, 0.5]]})));
    assert_eq!((&got["C_inf"], &got["C_2"], &got["C_max"]), (&json!([null, null]), &json!([null, null]), &json!(null)));
    assert_eq!((&got["bound_paper"], &got["bound_sharp"]), (&Value::Null, &Value::Null));
    assert!(got["md_term"].is_number() && got["approx_term"].is_number());
    let input = json!({"rho": [1.0], "pi0": [[0.5, 0.5]], "r": [[1.0, 0.0]], "f": [[0.0, 0.0]], "mu": [[0.0, 1.0]],
                       "nu": "pi_t", "eta": 1.0, "T": 1});
    let got = compute("md_fixed_f", input);
    assert_eq!((&got["C"], &got["bound_approx_sharp"]), (&Value::Null, &Value::Null));
    assert_eq!(got["eps_train"], json!([0.5]));
}

#[test]
fn features_without_rank_leave_the_policy_and_the_whole_error() {
    let got = compute("theorem1_run", with(&small_run(), json!({"phi": [[[0.1], [0.1], [0.1]]]})));
    assert_eq!(got["theta_T"], json!([0.0]));
    assert!(close(&got["J"][2], 0.5) && got["A_max"] == json!(0.0) && got["kl_back"] == json!([0.0, 0.0]));
    // r uniform: variance 1/6; under mu mean 5/8, variance 11/64; gap 1/64
    assert!(close(&got["eps"][0], 1.0 / 6.0 + 11.0 / 64.0 + 1.0 / 64.0));
}

#[test]
fn context_of_weight_zero_is_not_fitted_and_counts_in_no_average() {
    let got = compute(
        "theorem1_run",
        with(
            &small_run(),
            json!({"rho": [0.0, 1.0], "phi": [[[9.0], [0.0], [0.0]], [[1.0], [0.0], [0.0]]],
                                           "r": [[0.0, 7.0, 0.0], [1.0, 0.5, 0.0]], "mu": [[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]}),
        ),
    );
    let alone = compute("theorem1_run", small_run());
    for key in ["theta_T", "eps", "C_2", "md_term", "approx_term", "kl_back"] {
        assert_eq!(got[key], alone[key], "{key}");
    }
    assert_eq!(got["C_inf"][0], json!(4.0)); // its policy is a policy of the table all the same
}

#[test]
fn tie_for_the_best_is_won_by_the_first_response() {
    let got = compute("best_worst", json!({"pi": [0.5, 0.25, 0.25], "r": [0.0, 1.0, 1.0], "N": [2]}));
    assert!(close(&got["best"][0][1], 0.375) && close(&got["best"][0][2], 0.375));
    assert!(close(&got["C_best"][0], 1.0 / 0.375) && close(&got["C_pi"], 4.0));
    // both draws tie: best and worst may be either, in either order
    assert!(close(&got["joint"][0][1][2], 0.0625) && close(&got["joint"][0][1][1], 0.0625));
}

#[test]
fn response_of_probability_zero_is_never_the_best_or_the_worst() {
    let got = compute("best_worst", json!({"pi": [0.0, 1.0], "r": [1.0, 0.0], "N": [1, 3]}));
    assert_eq!((&got["best"], &got["worst"]), (&json!([[0.0, 1.0], [0.0, 1.0]]), &json!([[0.0, 1.0], [0.0, 1.0]])));
    assert_eq!((&got["C_best"], &got["C_worst_covers_pi"]), (&json!([null, null]), &json!([1.0, 1.0])));
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let run = |changes: Value| refusal("theorem1_run", with(&small_run(), changes));
    let modes = "edge: y_mode: is not a mode (expected on_policy, offline, best_of_n or worst_of_n)";
    assert_eq!(run(json!({"y_mode": "telepathy"})), modes);
    assert_eq!(run(json!({"y_mode": 3})), modes);
    assert!(run(json!({"y_mode": "offline"})).starts_with("edge: nu: "));
    let draws = "edge: n: 0 (expected a whole number of draws, at least 1)";
    assert_eq!(run(json!({"mu_mode": "best_of_n", "n": 0})), draws);
    assert_eq!(run(json!({"mu": [[0.5, 0.25, 0.5]]})), "edge: mu[0]: sums to 1.25 (expected 1)");
    assert!(run(json!({"phi": [[[1.0], [0.0]]]})).starts_with("edge: phi: shape [1, 2, 1]"));
    let best_worst = |input: Value| refusal("best_worst", input);
    assert!(best_worst(json!({"pi": [0.5, 0.5], "r": [1.0], "N": [1]})).starts_with("edge: r: shape [1]"));
    assert!(best_worst(json!({"pi": [], "r": [], "N": [1]})).contains("is empty"));
    let many = json!({"pi": vec![0.001; 1000], "r": vec![0.0; 1000], "N": vec![2; 100]});
    assert!(best_worst(many).starts_with("edge: N: 100000000 (expected fewer draws or responses"));
    let tight = |input: Value| refusal("tight_sqrt_c_eps", input);
    assert_eq!(
        tight(json!({"K": [2], "C": [0.5], "gap": [1.0]})),
        "edge: C: 0.5 (expected a coverage coefficient, finite and at least 1)"
    );
    assert!(tight(json!({"K": [2, 3], "C": [2.0], "gap": [1.0]})).starts_with("edge: C: shape [1]"));
    let sequence = json!({"pi0": [0.5, 0.5], "f": [[1.0, 2.0, 3.0]], "eta": 1.0});
    assert!(refusal("lemma2_sequence", sequence).starts_with("edge: f: shape [1, 3]"));
}
