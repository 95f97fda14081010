//! Claim 3 of the table: the natural gradient of tabular softmax logits is the tilt.

use super::{Claim, Draw, Findings, Quantity, Tag};
use crate::bandit::Policy;
use crate::error::InputError;
use crate::experiments::token_distance::token_distance;
use crate::solve::mirror::tilt;
use crate::solve::natural::tabular_npg_step;
use crate::statistics::{bootstrap_mean, log_log_slope};
use ndarray::{Array2, Axis};

pub(super) const CLAIM: Claim = Claim {
    id: "tabular-npg",
    title: "The tabular natural gradient is mirror descent",
    statement: "For one softmax logit a response, eta F^+ grad J = eta (r - mean_y r), the unweighted mean, and the policy is \
                the tilt for every eta; rank F = |X|(|Y|-1).",
    formula: r"\eta F^+\nabla J=\eta\Big(r(x,\cdot)-\tfrac1{|Y|}\sum_y r(x,y)\Big)",
    preconditions: &[
        "one softmax over whole responses, full support",
        "rho(x) > 0: a context of weight zero does not move",
    ],
    tag: Tag::True,
    section: "1.3",
    family: "random bandits, |X| <= 4, |Y| <= 8, eta 0.05..3",
    measure: |trials| {
        let [closed_form, policy, rank] = trials.worst("identity", |draw| {
            let bandit = draw.bandit(4, 8);
            let (pi, eta) = (draw.policy(&bandit), draw.eta());
            let (step, rank) = tabular_npg_step(&bandit, &pi, eta)?;
            let mean = bandit.reward().mean_axis(Axis(1)).expect("a response").insert_axis(Axis(1)); // [x, 1]
            let mut expected = (bandit.reward() - &mean) * eta;
            let weightless = bandit.weights().iter().filter(|w| **w == 0.0).count();
            expected
                .rows_mut()
                .into_iter()
                .zip(bandit.weights())
                .filter(|(_, w)| **w == 0.0)
                .for_each(|(mut row, _)| row.fill(0.0));
            let next = Policy::from_logits(&(pi.log() + &step));
            let moved = Policy::from_logits(&(pi.log() + &expected));
            let full_rank = (bandit.contexts() - weightless) * (bandit.responses() - 1);
            let tilted = if weightless == 0 { tilt(&pi, bandit.reward(), eta) } else { moved };
            let error = (&step - &expected).fold(0.0, |m: f64, d| m.max(d.abs()));
            Ok([error / eta, next.distance(&tilted), rank.abs_diff(full_rank) as f64])
        })?;
        let slopes = trials.each("tokens", trials.settings().instances.clamp(50, 200), slope_of_token_error)?;
        let slope = bootstrap_mean(&slopes, 1000, trials.settings().seed);
        Ok(Findings::new()
            .measured(Quantity::at_most("step against r minus its unweighted mean, reward", closed_form, 1e-9))
            .measured(Quantity::at_most("policy against the tilt, probability", policy, 1e-9))
            .measured(Quantity::at_most("rank of F against |X|(|Y|-1)", rank, 0.0))
            .control(
                "one softmax a token (E8.2): TV(token NPG, tilt) is of order eta^2, not 0",
                Quantity::exponent("exponent of TV in eta, 0.01..0.1", slope, 2.0, 0.1),
            ))
    },
};

/// The exponent in eta of the distance between token-level NPG and the tilt, for sequences of two tokens out of three.
fn slope_of_token_error(draw: &mut Draw) -> Result<f64, InputError> {
    const ETAS: [f64; 5] = [0.01, 0.0178, 0.0316, 0.0562, 0.1];
    let first = Policy::from_logits(&draw.normals((1, 3)));
    let second = Policy::from_logits(&draw.normals((3, 3))); // [first token, second token]
    let reward: Array2<f64> = draw.normals((3, 3));
    let distance = |&eta: &f64| token_distance(&first, &second, &reward, eta);
    let distances = ETAS.iter().map(distance).collect::<Result<Vec<_>, InputError>>()?;
    Ok(log_log_slope(&ETAS, &distances).value)
}
