//! Sampled batches at the edge: no pairs, one response, no rank, pairs of equal responses; and what is refused.

use rebel_theory::vectors::{SCHEMA, run};
use serde_json::{Value, json};

fn answer(op: &str, input: &Value) -> Result<Value, String> {
    let file = json!({ "schema": SCHEMA, "cases": [{ "id": "edge", "op": op, "input": input }] });
    let got = run(&file).map_err(|e| e.to_string())?;
    Ok(got["results"][0]["output"].clone())
}

/// The input with one field replaced; `key` may be a path like `train.i`.
fn with(input: &Value, key: &str, value: Value) -> Value {
    let mut input = input.clone();
    *key.split('.').fold(&mut input, |at, part| &mut at[part]) = value;
    input
}

fn batch() -> Value {
    json!({"phi": [[[0.0], [1.0]]], "theta": [0.0], "r": [[1.0, 3.0]], "eta": 0.5, "x": [0, 0], "y": [0, 1], "y2": [1, 1], "offset": 0.0})
}

fn regression() -> Value {
    json!({"rho": [1.0], "phi": [[[0.0], [2.0]]], "theta": [0.0], "mu": [[0.5, 0.5]], "w_true": [3.0],
           "x": [0], "y": [1], "y2": [0], "sigma": 1.0, "noise": [0.5], "eta": 1.0})
}

fn losses() -> Value {
    let sample = json!({"x": [0, 0], "y": [0, 1], "noise": [0.0, 1.0], "noise2": [1.0, 0.0], "i": [0], "j": [1]});
    json!({"rho": [1.0], "phi": [[[0.0], [2.0]]], "theta": [0.0], "mu": [[0.5, 0.5]], "r": [[0.0, 1.0]], "sigma": 1.0, "eta": 1.0,
           "train": sample, "heldout": sample})
}

#[test]
fn pair_of_equal_responses_moves_nothing() {
    let got = answer("gn_finite", &with(&with(&batch(), "y", json!([1, 1])), "y2", json!([1, 1]))).unwrap();
    assert_eq!((&got["rank_diff"], &got["delta_rebel_gn"]), (&json!(0), &json!([0.0])));
    assert_eq!((&got["rank_sep"], &got["grad_rebel"]), (&json!(1), &json!([0.0])));
}

#[test]
fn single_response_and_features_of_the_context_alone_have_no_variance_and_no_interval() {
    for (phi, r) in [(json!([[[0.7]]]), json!([[2.0]])), (json!([[[0.1], [0.1], [0.1]]]), json!([[1.0, 0.0, 5.0]]))] {
        let input = json!({"rho": [1.0], "phi": phi, "theta": [0.3], "r": r, "offsets": [0.0, -4.0]});
        let got = answer("grad_variance", &input).unwrap();
        assert_eq!(got["rank"], json!(0));
        assert_eq!(got["euclid"]["reinforce"], json!([0.0, 0.0]));
        assert_eq!(got["fisher_inv"]["no_reduction_interval"], Value::Null);
        let got = answer("gn_asymptotic", &input).unwrap();
        assert_eq!((&got["rank"], &got["direction"], &got["trace_rebel_gn"]), (&json!(0), &json!([0.0]), &json!(0.0)));
    }
}

#[test]
fn context_of_weight_zero_adds_no_variance() {
    let alone = json!({"rho": [1.0], "phi": [[[0.0], [1.0]]], "theta": [0.0], "r": [[1.0, 2.0]], "offsets": [1.0]});
    let beside = json!({"rho": [1.0, 0.0], "phi": [[[0.0], [1.0]], [[5.0], [-3.0]]], "theta": [0.0],
                        "r": [[1.0, 2.0], [9.0, -9.0]], "offsets": [1.0]});
    for op in ["grad_variance", "gn_asymptotic"] {
        assert_eq!(answer(op, &alone).unwrap(), answer(op, &beside).unwrap(), "{op}");
    }
}

#[test]
fn equal_rewards_leave_an_interval_of_one_offset() {
    let input =
        json!({"rho": [1.0], "phi": [[[0.1], [0.7], [0.3]]], "theta": [0.4], "r": [[0.3, 0.3, 0.3]], "offsets": [0.0]});
    let interval = answer("grad_variance", &input).unwrap()["euclid"]["no_reduction_interval"].clone();
    let ends: Vec<f64> = interval.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert!(ends.iter().all(|end| (end + 0.3).abs() < 1e-6), "{ends:?}");
}

#[test]
fn regression_on_no_pairs_knows_nothing_and_says_so() {
    let mut input = regression();
    for key in ["x", "y", "y2", "noise"] {
        input[key] = json!([]);
    }
    let got = answer("ols_excess", &input).unwrap();
    assert_eq!((&got["rank_design"], &got["w_hat"], &got["eps_bias_part"]), (&json!(0), &json!([0.0]), &json!(18.0)));
    assert_eq!((&got["eps_asymptotic"], &got["in_sample_expected"]), (&Value::Null, &Value::Null));
}

#[test]
fn samples_without_pairs_have_no_losses_and_one_pair_no_standard_error() {
    let empty = json!({"x": [], "y": [], "noise": [], "noise2": [], "i": [], "j": []});
    let got =
        answer("pair_loss_estimation", &with(&with(&losses(), "train", empty.clone()), "heldout", empty)).unwrap();
    for key in ["in_sample_loss", "in_sample_expected", "heldout_loss", "eps_hat_known_noise", "se_naive", "se_cluster"]
    {
        assert_eq!(got[key], Value::Null, "{key}");
    }
    assert_eq!(
        (&got["eps"], &got["eps_expected_given_design"], &got["eps_floor"]),
        (&json!(0.5), &json!(0.5), &json!(0.0))
    );
    let got = answer("pair_loss_estimation", &losses()).unwrap();
    assert_eq!(
        (&got["se_naive"], &got["se_cluster"], &got["eps_hat_train_corrected"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!((&got["in_sample_loss"], &got["heldout_loss"]), (&json!(0.0), &json!(0.0)));
}

#[test]
fn pair_of_a_draw_with_itself_has_no_noise() {
    let got = answer("pair_loss_estimation", &with(&losses(), "train.j", json!([0]))).unwrap();
    assert_eq!(
        (&got["rank_design"], &got["in_sample_expected"], &got["in_sample_loss"]),
        (&json!(0), &json!(0.0), &json!(0.0))
    );
}

#[test]
fn bad_input_is_one_line_naming_field_and_index() {
    let refused = |op: &str, input: &Value, key: &str, value: Value| answer(op, &with(input, key, value)).unwrap_err();
    assert_eq!(refused("gn_finite", &batch(), "y", json!([0, 2])), "edge: y[1]: 2 (expected an index below 2)");
    assert_eq!(refused("gn_finite", &batch(), "x", json!([0, -1])), "edge: x[1]: -1 (expected an index)");
    assert_eq!(refused("gn_finite", &batch(), "y2", json!([0])), "edge: y2: shape [1] (expected [2])");
    assert_eq!(refused("gn_finite", &batch(), "eta", json!(0.0)), "edge: eta: 0 (expected a finite number above 0)");
    assert_eq!(refused("gn_finite", &batch(), "r", json!([[1.0]])), "edge: r: shape [1, 1] (expected [1, 2])");
    let none = with(&with(&with(&batch(), "x", json!([])), "y", json!([])), "y2", json!([]));
    assert_eq!(answer("gn_finite", &none).unwrap_err(), "edge: x: is empty (expected at least one entry)");
    assert_eq!(
        refused("ols_excess", &regression(), "sigma", json!(-1.0)),
        "edge: sigma: -1 (expected a finite number, at least 0)"
    );
    assert_eq!(
        refused("ols_excess", &regression(), "w_true", json!([1.0, 2.0])),
        "edge: w_true: shape [2] (expected [1])"
    );
    assert_eq!(refused("ols_excess", &regression(), "noise", json!([])), "edge: noise: shape [0] (expected [1])");
    assert_eq!(
        refused("pair_loss_estimation", &losses(), "train.i", json!([5])),
        "edge: train.i[0]: 5 (expected an index below 2)"
    );
    assert_eq!(
        refused("pair_loss_estimation", &losses(), "heldout", json!(3)),
        "edge: heldout: 3 (expected an object)"
    );
    assert_eq!(
        refused("pair_loss_estimation", &losses(), "heldout.noise2", json!([1.0])),
        "edge: heldout.noise2: shape [1] (expected [2])"
    );
}
