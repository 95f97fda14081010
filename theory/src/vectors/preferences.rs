//! The operations of `preferences.json`: self-play, its winner, and what else is fitted to preferences (theory 6).

use super::input::Fields;
use super::{Failure, list, number, table};
use crate::bandit::Policy;
use crate::error::{self, InputError};
use crate::game::Game;
use crate::game::bradley_terry::Comparisons;
use crate::game::ipo::ipo_step;
use crate::game::minimax::minimax_winner;
use crate::game::regularised::Regularised;
use crate::game::selfplay::{Run, average_gap_bound, best_eta, exact_step, pairs_step};
use crate::solve::log_ratio::log_ratio_minimiser;
use crate::solve::mirror::tilt;
use crate::solve::pairs::Pair;
use ndarray::{Array1, Axis};
use serde_json::{Value, json};

/// Rewards closer than this are a tie.
const TIE: f64 = 1e-12;

pub(super) fn minimax_winner_of(input: &Fields) -> Result<Value, Failure> {
    let game = input.game()?;
    let winner = minimax_winner(&game)?;
    let (contexts, responses) = (game.contexts(), game.responses());
    let pure = |y: usize| number(game.duality_gap(&Policy::pure(&vec![y; contexts], responses)));
    Ok(json!({
        "mw": table(winner.policy.prob()),
        "value": list(&winner.value),
        "unique": winner.unique,
        "dg_mw": number(game.duality_gap(&winner.policy)),
        "dg_uniform": number(game.duality_gap(&Policy::uniform(contexts, responses))),
        "dg_pure": (0..responses).map(pure).collect::<Value>(),
    }))
}

pub(super) fn spo_run(input: &Fields) -> Result<Value, Failure> {
    let game = input.game()?;
    let start = policy_of(input, "pi0", &game)?;
    let (eta, steps) = (input.positive("eta")?, input.count("T")?);
    let checkpoints = input.indices("checkpoints")?;
    error::indices("checkpoints", &checkpoints, steps + 1)?;
    let winner = minimax_winner(&game)?.policy;
    let mut at = vec![[f64::NAN; 3]; checkpoints.len()];
    let mut run = Run::new(start.clone());
    loop {
        for (values, _) in at.iter_mut().zip(&checkpoints).filter(|(_, t)| **t == run.steps()) {
            let far = game.kl(&winner, run.last());
            *values = [game.duality_gap(&run.average()), game.duality_gap(run.last()), far];
        }
        if run.steps() == steps {
            break;
        }
        let next = exact_step(&game, run.last(), eta);
        run.advance(next);
    }
    let column = |i: usize| at.iter().map(|values| number(values[i])).collect::<Value>();
    Ok(json!({
        "dg_avg": column(0),
        "dg_last": column(1),
        "kl_mw": column(2),
        "pi_avg": table(run.average().prob()),
        "pi_last": table(run.last().prob()),
        "mw": table(winner.prob()),
        "bound": number(average_gap_bound(&start, eta, steps, 1.0)),
        "bound_optimal_eta": number(2.0 * best_eta(game.responses(), steps)),
    }))
}

pub(super) fn bt_fit(input: &Fields) -> Result<Value, Failure> {
    let (probability, beta) = (input.matrix("P")?, input.positive("beta")?);
    let reward = Comparisons::expected(&input.matrix("W")?, &probability)?.fit()?;
    let game = Game::single(probability.mapv(|p| 2.0 * p - 1.0))?;
    let top = reward.fold(f64::NEG_INFINITY, |m, &r| m.max(r));
    let best = reward.iter().position(|&r| r >= top - TIE).unwrap_or(0);
    let tempered = Policy::from_logits(&(&reward / beta).insert_axis(Axis(0)));
    Ok(json!({
        "reward": list(&reward),
        "argmax": best,
        "dg_argmax": number(game.duality_gap(&Policy::pure(&[best], reward.len()))),
        "rlhf_policy": list(tempered.prob()),
        "dg_rlhf": number(game.duality_gap(&tempered)),
    }))
}

pub(super) fn spo_replay(input: &Fields) -> Result<Value, Failure> {
    let start = row_policy("pi0", input.vector("pi0")?)?;
    let eta = input.positive("eta")?;
    let responses = start.prob().ncols();
    let batches = input.records("iterations", |record| {
        let column = |key: &'static str, below: usize| {
            let column = record.indices(key)?;
            error::indices(key, &column, below)?;
            Ok::<_, Failure>(column)
        };
        let (y, y2, o, o2) = (column("y", responses)?, column("y2", responses)?, column("o", 2)?, column("o2", 2)?);
        for (key, column) in [("y2", &y2), ("o", &o), ("o2", &o2)] {
            error::shape(key, &[column.len()], &[y.len()])?;
        }
        let pair = |n: usize| {
            let label = 2.0 * (o[n] as f64 - o2[n] as f64);
            Pair { context: 0, first: y[n], second: y2[n], label }
        };
        Ok((0..y.len()).map(pair).collect::<Vec<_>>())
    })?;
    let mut run = Run::new(start);
    let mut first = Value::Null;
    for batch in batches {
        let next = pairs_step(run.last(), batch, eta)?;
        run.advance(next);
        if run.steps() == 1 {
            first = list(run.last().prob());
        }
    }
    let average = if run.steps() == 0 { Value::Null } else { list(run.average().prob()) };
    Ok(json!({ "pi_after_first": first, "pi_last": list(run.last().prob()), "pi_avg": average }))
}

pub(super) fn preference_steps(input: &Fields) -> Result<Value, Failure> {
    let game = input.game()?;
    let (pi, mu) = (one_policy(input, "pi", &game)?, one_policy(input, "mu", &game)?);
    let eta = input.positive("eta")?;
    let reward = game.reward(&pi);
    let (sppo, multiplier) = log_ratio_minimiser(&pi, &(&reward * (eta / 2.0)));
    Ok(json!({
        "r_t": list(&reward),
        "spo_rebel": list(exact_step(&game, &pi, eta).prob()),
        "online_ipo_on_policy": list(ipo_step(&game, &pi, &pi, eta).prob()),
        "online_ipo_mu": list(ipo_step(&game, &pi, &mu, eta).prob()),
        "sppo": list(sppo.prob()),
        "sppo_lambda": number(multiplier[0]),
        "md_half_eta": list(tilt(&pi, &reward, eta / 2.0).prob()),
    }))
}

pub(super) fn ipo_fixed_ref(input: &Fields) -> Result<Value, Failure> {
    let game = input.game()?;
    let reference = one_policy(input, "ref", &game)?;
    let eta = input.positive("eta")?;
    let fixed = Regularised::new(&game, reference.clone(), 1.0 / eta)?.fixed_point()?;
    let residual = tilt(&reference, &game.reward(&fixed), eta).distance(&fixed);
    Ok(json!({
        "pi": list(fixed.prob()),
        "dg": number(game.duality_gap(&fixed)),
        "residual_below": residual <= 1e-10,
    }))
}

/// A policy of the game's shape `[x, y]`.
fn policy_of(input: &Fields, key: &'static str, game: &Game) -> Result<Policy, Failure> {
    let policy = Policy::new(key, input.matrix(key)?)?;
    error::shape(key, policy.prob().shape(), &[game.contexts(), game.responses()])?;
    Ok(policy)
}

/// A policy `[y]` of a game of one context.
pub(super) fn one_policy(input: &Fields, key: &'static str, game: &Game) -> Result<Policy, Failure> {
    error::shape("L", &[game.contexts()], &[1])?;
    let policy = row_policy(key, input.vector(key)?)?;
    error::shape(key, &[policy.prob().ncols()], &[game.responses()])?;
    Ok(policy)
}

/// The policy of one context from its probabilities `[y]`.
fn row_policy(key: &'static str, prob: Array1<f64>) -> Result<Policy, InputError> {
    error::distribution(key, &[], prob.view())?;
    Policy::new(key, prob.insert_axis(Axis(0)))
}
