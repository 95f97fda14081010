//! Claim 31 of the table: held to a reference, the last iterate of self-play converges.

use super::preference_games::{interior_game, policy_for, random_game, sampled_at_most, seeds};
use super::{Claim, Findings, Quantity, Tag, Trials, over_bound};
use crate::bandit::Policy;
use crate::error::InputError;
use crate::experiments::preference_queries::{Preferences, per_seed, play_regularised};
use crate::game::Game;
use crate::game::minimax::minimax_winner;
use crate::game::named::rock_paper_scissors;
use crate::game::regularised::Regularised;
use crate::game::selfplay::{best_eta, exact_run, exact_step};
use crate::statistics::mean_interval;
use ndarray::array;

pub(super) const CLAIM: Claim = Claim {
    id: "regularised-last-iterate",
    title: "With a reference the last iterate converges: near the winner if it is fixed, to the winner if it moves",
    statement: "REBEL on r_t - tau ln(pi_t/ref) with eta <= tau/(l^2+tau^2), l = max|L|, contracts KL(pi_tau || pi_t) by 1 - eta tau a \
                step, to the only pi_tau = ref e^{L pi_tau/tau}/Z, with DG(pi_tau) <= 2 tau [ln 1/min ref - KL(pi_tau || ref)]. Put in the \
                place of ref, pi_tau is nearer to the winner by KL(pi_tau || ref).",
    formula: r"\mathrm{KL}(\pi_\tau\|\pi_{t+1})\le(1-\eta\tau)\,\mathrm{KL}(\pi_\tau\|\pi_t),\qquad l(p,\pi_\tau)=\tau\,[\mathrm{KL}(p\|\mathrm{ref})-\mathrm{KL}(p\|\pi_\tau)-\mathrm{KL}(\pi_\tau\|\mathrm{ref})]",
    preconditions: &[
        "eta <= tau/(l^2 + tau^2): beyond, steps may move away",
        "a reference of full support; a fixed one leaves a gap linear in tau",
        "DG itself need not fall from one reference to the next",
    ],
    tag: Tag::Sharper,
    section: "6.10",
    family: "random games, |X| <= 3, |Y| <= 7, tau .05..2, the largest eta; interior winners; two responses; E6.8: 100 seeds",
    measure: |trials| {
        let [contraction, identity, gap_error, gap_ratio, solver, proximal] = trials.worst("fixed", |draw| {
            let game = random_game(draw, 3, 7)?;
            let (reference, start, p) = (policy_for(draw, &game), policy_for(draw, &game), policy_for(draw, &game));
            let tau = draw.uniform(0.05f64.ln(), 2f64.ln()).exp();
            let held = Regularised::new(&game, reference.clone(), tau)?;
            let (fixed, eta) = (held.fixed_point()?, held.largest_eta());
            let mut worst = 0.0f64;
            let mut pi = start;
            for _ in 0..10 {
                let next = held.step(&pi, eta);
                let bound = (1.0 - eta * tau) * game.kl(&fixed, &pi);
                // once rounding is left of the distance, its ratio says nothing
                if bound > 1e-10 {
                    worst = worst.max(game.kl(&fixed, &next) / bound);
                }
                pi = next;
            }
            let gained = tau * (game.kl(&p, &reference) - game.kl(&p, &fixed) - game.kl(&fixed, &reference));
            let gap = game.duality_gap(&fixed);
            let winner = minimax_winner(&game)?.policy;
            let nearer = game.kl(&winner, &fixed) + game.kl(&fixed, &reference);
            Ok([
                worst,
                (game.margin_of(&p, &fixed) - gained).abs(),
                (gap - held.gap_of_fixed_point(&fixed)).abs(),
                over_bound(gap, held.gap_bound(&fixed)),
                held.step(&fixed, eta).distance(&fixed),
                over_bound(nearer, game.kl(&winner, &reference)),
            ])
        })?;
        let [interior] = trials.worst("interior", |draw| {
            let responses = draw.size(3, 8);
            let (game, winner) = interior_game(draw, responses)?;
            let reference = policy_for(draw, &game);
            let fixed = Regularised::new(&game, reference.clone(), draw.uniform(0.05, 1.0))?.fixed_point()?;
            let nearer = game.kl(&winner, &fixed) + game.kl(&fixed, &reference);
            Ok([(nearer / game.kl(&winner, &reference) - 1.0).abs()])
        })?;
        let findings = Findings::new()
            .measured(Quantity::ratio(
                "KL(pi_tau || pi_{t+1}) over (1 - eta tau) KL(pi_tau || pi_t), worst",
                contraction,
            ))
            .measured(Quantity::at_least("the same from a start 1e5 nats away, two responses", far_start()?, 0.999))
            .measured(Quantity::at_most("l(p, pi_tau) against its three divergences, worst", identity, 1e-11))
            .measured(Quantity::at_most("DG(pi_tau) against 2 tau [max ln pi_tau/ref - KL], worst", gap_error, 1e-11))
            .measured(Quantity::ratio("DG(pi_tau) over its bound, worst", gap_ratio))
            .measured(Quantity::at_least("the same, one response better by 1, tau = .04", better_response()?, 0.95))
            .measured(Quantity::at_most("movement of pi_tau in one step, worst", solver, 1e-11))
            .measured(Quantity::ratio("[KL(mw || pi_tau) + KL(pi_tau || ref)] over KL(mw || ref), worst", proximal))
            .measured(Quantity::at_most(
                "that ratio less 1 where the winner plays every response, worst",
                interior,
                1e-9,
            ));
        controls(trials, table(findings)?)
    },
};

/// The exact part of E6.8: weighted cycle above three dominated responses, from uniform, uniform reference.
fn table(mut findings: Findings) -> Result<Findings, InputError> {
    let game = Preferences::Cycle.game()?;
    let uniform = Policy::uniform(1, game.responses());
    for (tau, wanted) in [(0.5, 0.499), (0.1, 0.060), (0.02, 0.015)] {
        let held = Regularised::new(&game, uniform.clone(), tau)?;
        let gap = game.duality_gap(&held.fixed_point()?);
        let text = format!("E6.8, tau = {tau}: DG(pi_tau) less {wanted}");
        findings = findings.measured(Quantity::at_most(&text, (gap - wanted).abs(), 0.0006));
    }
    let held = Regularised::new(&game, uniform.clone(), 0.1)?;
    let (fixed, eta) = (held.fixed_point()?, held.largest_eta());
    let mut pi = uniform;
    for _ in 0..4000 {
        pi = held.step(&pi, eta);
    }
    let mut moving = held;
    for _ in 0..30 {
        moving = moving.with_fixed_point_as_reference()?;
    }
    Ok(findings
        .measured(Quantity::at_most(
            "tau = .1: distance of the last iterate to pi_tau after 4000 steps",
            pi.distance(&fixed),
            1e-9,
        ))
        .measured(Quantity::at_most("tau = .1: DG after 30 references", game.duality_gap(moving.reference()), 1e-11)))
}

fn controls(trials: &Trials, findings: Findings) -> Result<Findings, InputError> {
    let game = Preferences::Cycle.game()?;
    let uniform = Policy::uniform(1, game.responses());
    let cycle = rock_paper_scissors([0.9, 0.45, 0.225])?;
    let winner = minimax_winner(&cycle)?.policy;
    let start = Policy::uniform(1, 3);
    let grown = cycle.kl(&winner, &exact_step(&cycle, &start, 0.1)) / cycle.kl(&winner, &start);
    let last = exact_run(&game, &uniform, 0.1, 4000);
    let held = Regularised::new(&cycle, start.clone(), 0.1)?;
    let fixed = held.fixed_point()?;
    let near = fixed.mixture(&start, 0.01);
    let away = cycle.kl(&fixed, &held.step(&near, 5.0)) / cycle.kl(&fixed, &near);
    let seeds: Vec<u64> = seeds(trials.settings()).collect();
    let budget = (3000, 30);
    let eta = best_eta(game.responses(), 50);
    let noisy = per_seed(&seeds, 0, |rng| play_regularised(&game, 0.1, budget, eta, rng))?;
    let wide = per_seed(&seeds, 1, |rng| play_regularised(&game, 0.3, budget, eta, rng))?;
    Ok(findings
        .measured(sampled_at_most("E6.8, 3000 queries, tau = .1: DG of the last iterate", mean_interval(&noisy), 0.22))
        .control(
            "no reference: a step from the winner, not to it",
            Quantity::at_least("KL(mw || pi_1) over KL(mw || pi_0)", grown, 1.0 + 1e-6),
        )
        .control(
            "N6.3: no reference, the last iterate after 4000 steps of .1",
            Quantity::at_least("its DG", game.duality_gap(last.last()), 0.3),
        )
        .control(
            "eta = 5, far beyond tau/(l^2 + tau^2) = .12, though eta tau <= 1",
            Quantity::at_least("KL(pi_tau || next) over KL(pi_tau || pi)", away, 1.5),
        )
        .control(
            "tau too large for the budget: the floor of the fixed point stays",
            super::preference_games::sampled_at_least("DG of the last iterate, tau = .3", mean_interval(&wide), 0.25),
        ))
}

/// The contraction's ratio on two responses from a start that gives one of them a probability of e^-100000: the term that is
/// lost to the bound does not grow with the distance.
fn far_start() -> Result<f64, InputError> {
    let game = Game::single(array![[0.0, 1.0], [-1.0, 0.0]])?;
    let held = Regularised::new(&game, Policy::uniform(1, 2), 1.0)?;
    let (fixed, eta) = (held.fixed_point()?, held.largest_eta());
    let start = Policy::from_logits(&array![[-1e5, 0.0]]);
    Ok(game.kl(&fixed, &held.step(&start, eta)) / ((1.0 - eta) * game.kl(&fixed, &start)))
}

/// DG(pi_tau) over its bound where one of two responses beats the other by 1: with `q = e^{-1/tau}` on the other, `q ln 1/q`
/// against `q ln 1/q + q`.
fn better_response() -> Result<f64, InputError> {
    let game = Game::single(array![[0.0, 1.0], [-1.0, 0.0]])?;
    let held = Regularised::new(&game, Policy::uniform(1, 2), 0.04)?;
    let fixed = held.fixed_point()?;
    Ok(held.gap_of_fixed_point(&fixed) / held.gap_bound(&fixed))
}
