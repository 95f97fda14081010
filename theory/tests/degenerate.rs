//! Instances at the edge: one context, two responses, no steps, ties, zero weights, no rank.

use rebel_theory::vectors::{SCHEMA, run};
use serde_json::{Value, json};

/// The output of one case.
fn compute(op: &str, input: Value) -> Value {
    let file = json!({ "schema": SCHEMA, "cases": [{ "id": "edge", "op": op, "input": input }] });
    let got = run(&file).unwrap_or_else(|e| panic!("{e}"));
    got["results"][0]["output"].clone()
}

fn close(got: &Value, expected: f64) -> bool {
    got.as_f64().is_some_and(|v| (v - expected).abs() < 1e-14)
}

#[test]
fn run_of_no_steps_has_its_start_and_no_averages() {
    let got = compute("md_run", json!({"rho": [1.0], "pi0": [[0.25, 0.75]], "r": [[1.0, 0.0]], "eta": 0.5, "T": 0}));
    assert_eq!(got["J"], json!([0.25]));
    assert_eq!((&got["kl_fwd"], &got["kl_bwd"], &got["kl_fwd_max_x"]), (&json!([]), &json!([]), &json!(0.0)));
    assert_eq!((&got["regret_bound_T"], &got["regret_bound_lnY"]), (&Value::Null, &Value::Null));
    assert_eq!(got["regret_T"], json!(0.75));
    let got =
        compute("pg_tabular_run", json!({"rho": [1.0], "theta": [[0.0, 0.0]], "r": [[1.0, 0.0]], "step": 1.0, "T": 0}));
    assert_eq!(got, json!({"J": [0.5], "pi_T": [[0.5, 0.5]]}));
}

#[test]
fn context_of_weight_zero_moves_its_policy_and_no_average() {
    let input =
        json!({"rho": [0.0, 1.0], "pi0": [[0.5, 0.5], [0.5, 0.5]], "r": [[9.0, 0.0], [1.0, 0.0]], "eta": 1.0, "T": 1});
    let got = compute("md_run", input);
    let tilted = |r: f64| r.exp() / (1.0 + r.exp());
    assert!(close(&got["J"][1], tilted(1.0)) && close(&got["J_star"], 1.0));
    assert!(close(&got["pi_T"][0][0], tilted(9.0)));
    let input =
        json!({"rho": [0.0, 1.0], "theta": [[0.0, 0.0], [0.0, 0.0]], "r": [[9.0, 0.0], [1.0, 0.0]], "eta": 1.0});
    let got = compute("npg_tabular_step", input);
    assert_eq!((&got["fisher_rank"], &got["dtheta"][0]), (&json!(1), &json!([0.0, 0.0])));
    assert!(close(&got["dtheta"][1][0], 0.5) && close(&got["pi_md"][0][0], tilted(9.0)));
}

#[test]
fn tie_is_won_by_the_first_response() {
    let input = json!({"rho": [1.0], "pi0": [[0.125, 0.75, 0.125]], "r": [[1.0, 1.0, 0.0]], "eta": 1.0, "T": 2});
    assert!(close(&compute("md_run", input)["regret_bound_T"], 8f64.ln() / 2.0));
}

#[test]
fn bound_is_null_where_the_best_response_cannot_be_reached() {
    let input = json!({"rho": [1.0], "pi0": [[0.0, 1.0]], "r": [[1.0, 0.0]], "eta": 1.0, "T": 3});
    let got = compute("md_run", input);
    assert_eq!(got["regret_bound_T"], Value::Null);
    assert_eq!(
        (&got["pi_T"], &got["kl_fwd"], &got["regret_T"]),
        (&json!([[0.0, 1.0]]), &json!([0.0, 0.0, 0.0]), &json!(1.0))
    );
}

#[test]
fn limits_at_zero_range_and_one_arm_are_taken() {
    assert_eq!(
        compute("kl_tilt_sharp", json!({"s": [0.0]})),
        json!({"bound": [0.0], "p_star": [0.5], "hoeffding": [0.0]})
    );
    assert_eq!(
        compute("worst_case_rate", json!({"K": [1]})),
        json!({"constant": [0.0], "scaled_gap": [1.0], "ln_K": [0.0]})
    );
    let got = compute("pg_hitting", json!({"K": [1, 2], "gap": 0.5, "delta": 0.3, "eta": 0.1}));
    assert_eq!((&got["pg_steps"], &got["md_steps"]), (&json!([0, 0]), &json!([0, 0])));
}

#[test]
fn features_without_rank_do_not_move_the_policy() {
    let input = json!({"rho": [1.0], "phi": [[[0.1, 2.3], [0.1, 2.3], [0.1, 2.3]]], "theta": [0.3, 0.1], "r": [[0.7, 0.2, -1.0]],
                       "mu": [[0.3, 0.1, 0.6]], "eta": 0.5});
    let got = compute("claim1_loglinear", input);
    assert_eq!((&got["rank"], &got["delta"]), (&json!(0), &json!([0.0, 0.0])));
    assert_eq!(got["loss_before"], got["loss_after"]);
}

#[test]
fn pairs_of_equal_responses_teach_nothing() {
    let input = json!({"rho": [1.0], "phi": [[[0.0], [1.0]]], "theta": [0.0], "r": [[1.0, 0.0]],
                       "joint": [[[0.5, 0.0], [0.0, 0.5]]], "eta": 1.0});
    let got = compute("claim1_joint", input);
    assert_eq!((&got["rank_ls"], &got["delta_ls"]), (&json!(0), &json!([0.0])));
    assert!(close(&got["gap"], 1.0)); // the formula sees F = 1/4, b = -1/4
}

#[test]
fn on_policy_first_draw_has_no_gap() {
    let policy = json!([[0.5, 0.25, 0.25]]);
    let theta = [2f64.ln()];
    let input = json!({"rho": [1.0], "phi": [[[1.0], [0.0], [0.0]]], "theta": theta, "r": [[1.0, 0.0, 5.0]],
                       "nu": policy, "mu": [[0.0, 0.0, 1.0]], "eta": 1.0});
    assert!(close(&compute("claim1_offpolicy", input)["gap"], 0.0));
}
