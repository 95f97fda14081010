//! `regularised_selfplay` of `selfplay.json`: self-play held to a reference, fixed and moving (theory 6.10).

use super::input::Fields;
use super::preferences::one_policy;
use super::{Failure, list, number};
use crate::error;
use crate::game::minimax::minimax_winner;
use crate::game::regularised::Regularised;
use serde_json::{Value, json};

pub(super) fn regularised_selfplay(input: &Fields) -> Result<Value, Failure> {
    let game = input.game()?;
    let (reference, start) = (one_policy(input, "ref", &game)?, one_policy(input, "pi0", &game)?);
    let (tau, eta) = (input.positive("tau")?, input.positive("eta")?);
    let (steps, outer) = (input.count("T")?, input.count("outer")?);
    let checkpoints = input.indices("checkpoints")?;
    error::indices("checkpoints", &checkpoints, steps + 1)?;
    let winner = minimax_winner(&game)?.policy;
    let held = Regularised::new(&game, reference, tau)?;
    let fixed = held.fixed_point()?;
    let far = game.kl(&fixed, &start);

    let mut at = vec![[f64::NAN; 2]; checkpoints.len()];
    let mut policy = start;
    for t in 0..=steps {
        for (values, _) in at.iter_mut().zip(&checkpoints).filter(|(_, when)| **when == t) {
            *values = [game.kl(&fixed, &policy), game.duality_gap(&policy)];
        }
        if t < steps {
            policy = held.step(&policy, eta);
        }
    }
    let mut proximal = held.clone();
    let mut path = vec![[game.kl(&winner, proximal.reference()), game.duality_gap(proximal.reference())]];
    for _ in 0..outer {
        proximal = proximal.with_fixed_point_as_reference()?;
        path.push([game.kl(&winner, proximal.reference()), game.duality_gap(proximal.reference())]);
    }
    let shrunk = |&t: &usize| number((1.0 - eta * tau).powf(t as f64) * far);
    Ok(json!({
        "pi_tau": list(fixed.prob()),
        "dg_tau": number(game.duality_gap(&fixed)),
        "dg_identity": number(held.gap_of_fixed_point(&fixed)),
        "dg_bound": number(held.gap_bound(&fixed)),
        "kl_to_fixed_point": at.iter().map(|values| number(values[0])).collect::<Value>(),
        "dg_last": at.iter().map(|values| number(values[1])).collect::<Value>(),
        "contraction_bound": checkpoints.iter().map(shrunk).collect::<Value>(),
        "contraction_valid": eta <= held.largest_eta(),
        "pi_last": list(policy.prob()),
        "mw": list(winner.prob()),
        "proximal_kl_mw": path.iter().map(|values| number(values[0])).collect::<Value>(),
        "proximal_dg": path.iter().map(|values| number(values[1])).collect::<Value>(),
        "proximal_pi": list(proximal.reference().prob()),
    }))
}
