//! The operations of `autoreg.json`: a sequence of tokens as one arm, and chance between tokens (theory 8).

use super::input::Fields;
use super::{Failure, list, number, table};
use crate::error;
use crate::policy::Autoregressive;
use crate::solve::tree::ChanceTree;
use ndarray::{Array2, Axis};
use serde_json::{Value, json};

pub(super) fn autoreg_step(input: &Fields) -> Result<Value, Failure> {
    let (vocabulary, length, logits) = (input.count("V")?, input.count("H")?, input.tables_of_any_size("logits")?);
    error::shape("logits", &[logits.len()], &[length])?;
    let policy = Autoregressive::new(vocabulary, &logits)?;
    let (reward, eta) = (input.vector("r")?, input.positive("eta")?);
    let (exact, by_token) = (policy.tilted(&reward, eta)?, policy.token_npg(&reward, eta)?);
    let [old, new, npg] = [&policy, &exact, &by_token].map(Autoregressive::sequence);
    let conditionals =
        |policy: &Autoregressive| policy.conditionals().iter().map(|pi| table(pi.prob())).collect::<Value>();
    Ok(json!({
        "seq_prob": list(old.prob()),
        "value": number(policy.values(&reward)?.root),
        "soft_value": number(policy.soft_values(&reward, eta)?.root),
        "seq_exact": list(new.prob()),
        "cond_exact": conditionals(&exact),
        "cond_npg": conditionals(&by_token),
        "seq_npg": list(npg.prob()),
        "tv_exact_npg": number(new.total_variation(&npg)[0]),
        "kl_seq": number(new.kl(&old)[0]),
        "kl_per_position": list(&exact.kl_by_position(&policy)),
        "J_exact": number(exact.values(&reward)?.root),
        "J_npg": number(by_token.values(&reward)?.root),
    }))
}

pub(super) fn stochastic_tree(input: &Fields) -> Result<Value, Failure> {
    let (theta1, theta2) = (input.vector("theta1")?, input.tables("theta2")?);
    let tree = ChanceTree::new(&theta1, &theta2, input.matrix("q")?, &input.tables("r")?)?;
    let eta = input.positive("eta")?;
    let step = tree.natural_step(eta)?;
    let (moved, npg) = (tree.moved(&step), tree.token_npg(eta)?);
    let states = theta2.dim().1;
    // [a*|S|+s, b] as [a][s][b]
    let second = |pi: &Array2<f64>| -> Value {
        pi.axis_chunks_iter(Axis(0), states).map(|rows| table(&rows.to_owned())).collect()
    };
    Ok(json!({
        "rank": step.rank,
        "delta": list(step.first.iter().chain(&step.second)),
        "pi1_gn": list(moved.first().prob()),
        "pi2_gn": second(moved.second().prob()),
        "pi1_npg": list(npg.first().prob()),
        "pi2_npg": second(npg.second().prob()),
        "eps_linear": number(tree.linear_error(&step, eta)),
        "eps_floor": number(tree.error_floor()),
    }))
}
