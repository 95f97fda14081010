//! The baselines at the edge: empty batches, ties, one response, missing responses, what does not fit.

use rebel_theory::vectors::{SCHEMA, run};
use serde_json::{Value, json};

fn answer(op: &str, input: Value) -> Result<Value, String> {
    let file = json!({ "schema": SCHEMA, "cases": [{ "id": "edge", "op": op, "input": input }] });
    run(&file).map(|got| got["results"][0]["output"].clone()).map_err(|e| e.to_string())
}

fn compute(op: &str, input: Value) -> Value {
    answer(op, input).unwrap()
}

/// Two responses, one context; the current policy is the one that was sampled, and the reference.
fn batch() -> Value {
    json!({
        "phi": [[[1.0, 3.0], [0.0, 3.0]]], "theta": [0.5, 2.0], "theta_t": [0.5, 2.0], "theta_ref": [0.5, 2.0],
        "r": [[1.0, 0.0]], "P": [[[0.5, 0.75], [0.25, 0.5]]],
        "x": [0, 0], "y": [0, 1], "y2": [1, 1], "label": [1, 0],
        "hyper": { "eta": 0.5, "beta": 2.0, "tau": 0.25, "clip": 0.2, "lambda": 2.0, "baseline": 0.0 },
    })
}

fn with(key: &str, value: Value) -> Value {
    let mut input = batch();
    input[key] = value;
    input
}

#[test]
fn losses_at_the_sampled_policy_equal_numbers_by_hand() {
    let got = compute("batch_losses", batch());
    let p = 1.0 / (1.0 + (-0.5f64).exp());
    let close = |name: &str, expected: f64| {
        let loss = got[name]["loss"].as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-14, "{name}: {loss} against {expected}");
    };
    // ratios are 1, margins 0; advantages 1 - p and -p
    close("ppo_clip", -0.5 * (1.0 - 2.0 * p));
    close("ppo_clip_no_min", -0.5 * (1.0 - 2.0 * p));
    close("dpo", 2f64.ln());
    close("ipo", 4.0);
    close("iterative_dpo", 2f64.ln());
    close("rebel", 0.5); // one pair differs by 1, the other is one response twice
    close("apa", 0.5 * ((1.0 - p).powi(2) + p * p) / 4.0);
    close("sppo", 0.5 * 0.25 * ((0.25 * (1.0 - p)).powi(2) + (0.25 * p).powi(2)));
    assert_eq!(got["ppo_clip"]["clip_fraction"], json!(0.0));
    // the tied pair has no gradient: half of that of the other, -(beta/2) (g - g')
    let slope = got["iterative_dpo"]["grad"][0].as_f64().unwrap();
    assert!((slope + 0.5).abs() < 1e-14, "{slope}");
    // the second feature depends on the context alone
    for loss in got.as_object().unwrap().values() {
        assert!(loss["grad"][1].as_f64().unwrap().abs() < 1e-14);
    }
}

#[test]
fn mean_over_no_pairs_is_not_defined() {
    let mut input = batch();
    for key in ["x", "y", "y2", "label"] {
        input[key] = json!([]);
    }
    let got = compute("batch_losses", input);
    assert_eq!(got["rebel"], json!({ "loss": null, "grad": [null, null] }));
    assert_eq!(got["ppo_clip"]["clip_fraction"], Value::Null);
}

#[test]
fn features_of_zero_give_losses_and_no_gradient() {
    let got = compute("batch_losses", with("phi", json!([[[0.0, 0.0], [0.0, 0.0]]])));
    assert_eq!(got["rebel"], json!({ "loss": 0.5, "grad": [0.0, 0.0] }));
    assert_eq!(got["reinforce"]["grad"], json!([0.0, 0.0]));
}

#[test]
fn what_does_not_fit_is_named() {
    let refused = |key: &str, value: Value| answer("batch_losses", with(key, value)).unwrap_err();
    assert_eq!(refused("y", json!([0, 2])), "edge: y[1]: 2 (expected an index below 2)");
    assert_eq!(refused("y2", json!([5, 1])), "edge: y2[0]: 5 (expected an index below 2)");
    assert_eq!(refused("x", json!([0, 1])), "edge: x[1]: 1 (expected an index below 1)");
    assert_eq!(refused("label", json!([0, 2])), "edge: label[1]: 2 (expected an index below 2)");
    assert_eq!(refused("label", json!([0])), "edge: label: shape [1] (expected [2])");
    assert_eq!(refused("theta_ref", json!([0.5])), "edge: theta_ref: shape [1] (expected [2])");
    assert_eq!(refused("P", json!([[[0.5, 1.5], [-0.5, 0.5]]])), "edge: P[0][0][1]: 1.5 (expected a probability)");
    let mut input = batch();
    input["hyper"]["clip"] = json!(0.0);
    let error = answer("batch_losses", input).unwrap_err();
    assert_eq!(error, "edge: clip: 0 is not usable (expected a finite number above 0)");
    assert!(refused("hyper", json!(1.0)).starts_with("edge: hyper: "));
    let bad = json!({ "pi": [0.5, 0.5], "r": [1.0], "clip": 0.2, "eta": 1.0 });
    assert_eq!(answer("ppo_tabular", bad).unwrap_err(), "edge: r: shape [1] (expected [2])");
    let bad = json!({ "pi": [0.5, 0.5], "r": [1.0, 0.0], "clip": 0.2, "eta": 0.0 });
    assert_eq!(answer("ppo_tabular", bad.clone()).unwrap_err(), "edge: eta: 0 (expected a finite number above 0)");
    assert!(answer("tabular_optima", bad).is_err());
}

#[test]
fn constant_reward_leaves_every_optimum_where_it_is() {
    for pi in [json!([0.2, 0.3, 0.5]), json!([1.0])] {
        let reward = json!(vec![0.1; pi.as_array().unwrap().len()]);
        let got = compute("ppo_tabular", json!({ "pi": pi, "r": reward, "clip": 0.2, "eta": 1.0 }));
        assert_eq!((&got["surrogate_max"], &got["closed_form_max"]), (&json!(0.0), &json!(0.0)));
        assert_eq!((&got["feasible"], &got["all_on_positive"]), (&json!(true), &Value::Null));
        assert_eq!((&got["kl_all_on_positive"], &got["kl_max_maximiser"]), (&Value::Null, &Value::Null));
        assert!(got["kl_min"].as_f64().unwrap().abs() < 1e-15 && got["kl_md"].as_f64().unwrap().abs() < 1e-15);
        let got = compute("tabular_optima", json!({ "pi": pi, "r": reward, "eta": 1.0 }));
        assert!(got["tv_apa_md"].as_f64().unwrap() < 1e-15 && got["apa_multiplier"].as_f64().unwrap() < 1e-15);
    }
}

#[test]
fn response_of_probability_zero_stays_there() {
    let input = json!({ "pi": [0.0, 0.5, 0.5], "r": [9.0, 1.0, 0.0], "clip": 0.2, "eta": 1.0 });
    let got = compute("ppo_tabular", input.clone());
    assert_eq!(
        (&got["min_kl_maximiser"][0], &got["md"][0], &got["all_on_positive"][0]),
        (&json!(0.0), &json!(0.0), &json!(0.0))
    );
    assert!((got["min_kl_maximiser"][1].as_f64().unwrap() - 0.6).abs() < 1e-15);
    assert!((got["kl_max_maximiser"].as_f64().unwrap() - 2f64.ln()).abs() < 1e-15);
    assert_eq!(compute("tabular_optima", input)["apa"][0], json!(0.0));
}

#[test]
fn better_responses_that_do_not_all_fit_share_the_mass_by_rank() {
    let input = json!({ "pi": [0.5, 0.4, 0.1], "r": [1.0, 0.9, -3.0], "clip": 0.2, "eta": 1.0 });
    let got = compute("ppo_tabular", input);
    assert_eq!(got["feasible"], json!(false));
    assert!((got["min_kl_maximiser"][0].as_f64().unwrap() - 0.6).abs() < 1e-15);
    assert!(got["surrogate_max"].as_f64().unwrap() < got["closed_form_max"].as_f64().unwrap());
}
