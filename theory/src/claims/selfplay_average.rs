//! Claim 25 of the table: the average of self-play is nearly unexploitable; the last iterate spirals out.

use super::preference_games::{interior_game, policy_for, random_game, sampled_at_most, seeds};
use super::{Claim, Findings, Quantity, Tag, Trials};
use crate::bandit::Policy;
use crate::error::InputError;
use crate::experiments::preference_queries::per_seed;
use crate::game::Game;
use crate::game::minimax::minimax_winner;
use crate::game::named::rock_paper_scissors;
use crate::game::selfplay::{Run, average_gap_bound, best_eta, coin_step, exact_run, exact_step, outward_step};
use crate::statistics::{bootstrap_mean, log_log_slope, mean_interval};
use ndarray::array;

pub(super) const CLAIM: Claim = Claim {
    id: "selfplay-average",
    title: "The average of self-play approaches the minimax winner, its last iterate does not",
    statement: "DG of the average of pi_0..pi_{T-1} is at most 2[max ln 1/pi_0 /(eta T) + eta l^2/2], l = max|L| <= 1; with the best eta \
                2 sqrt(2 ln|Y|/T). Each exact step takes KL(mw || pi_t) up by ln E_{pi_t} e^{eta r_t} > 0 where the winner plays \
                every response: the last iterate spirals out.",
    formula: r"\mathrm{DG}\Big(\tfrac1T\sum_{t<T}\pi_t\Big)\le2\Big[\frac{\ln|Y|}{\eta T}+\frac\eta2\Big],\qquad \mathrm{KL}(\pi^*\|\pi_{t+1})-\mathrm{KL}(\pi^*\|\pi_t)=\ln E_{\pi_t}e^{\eta r_t}",
    preconditions: &[
        "the policy that is returned is the average, per context",
        "the outward spiral: a winner that plays every response, and a start that is not the winner",
    ],
    tag: Tag::Sharper,
    section: "6.1-6.3",
    family: "random games (uniform margins, or all of 1), |X| <= 3, |Y| <= 7, T <= 60; interior winners, |Y| 3..8; two responses",
    measure: |trials| {
        let [bound, losing, ambiguous] = trials.worst("bound", |draw| {
            let game = random_game(draw, 3, 7)?;
            let (steps, uniform) = (draw.size(1, 60), Policy::uniform(game.contexts(), game.responses()));
            let start = if draw.chance(0.5) { uniform } else { policy_for(draw, &game) };
            let eta = if draw.chance(0.5) { draw.eta() } else { best_eta(game.responses(), steps) };
            let gap = game.duality_gap(&exact_run(&game, &start, eta, steps).average());
            let winner = minimax_winner(&game)?;
            let odd = |x: usize| winner.policy.prob().row(x).iter().filter(|p| **p > 0.0).count() % 2 == 1;
            let doubtful = (0..game.contexts()).any(|x| winner.unique[x] && !odd(x));
            let largest = game.largest_margin();
            Ok([
                gap / average_gap_bound(&start, eta, steps, largest),
                game.duality_gap(&winner.policy) / largest,
                f64::from(u8::from(doubtful)),
            ])
        })?;
        let [identity, inward] = trials.worst("outward", |draw| {
            let responses = draw.size(3, 8);
            let (game, winner) = interior_game(draw, responses)?;
            let (pi, eta) = (policy_for(draw, &game), draw.eta());
            let grown = outward_step(&game, &pi, eta);
            let measured = game.kl(&winner, &exact_step(&game, &pi, eta)) - game.kl(&winner, &pi);
            let variance = pi.expectation(&game.reward(&pi).mapv(|r| r * r))[0];
            Ok([(measured - grown).abs(), -grown / (eta * eta * variance / 2.0)])
        })?;
        let slopes = trials.each("slope", 60, |draw| gap_slope(&interior_game(draw, 3 + draw.instance() % 3)?.0))?;
        let slope = bootstrap_mean(&slopes, 1000, trials.settings().seed);
        let findings = Findings::new()
            .measured(Quantity::ratio("DG of the average over its bound, worst", bound))
            .measured(Quantity::at_least(
                "the same on two responses, l = 1, eta = .001, T = 20000",
                two_responses(1.0, 1e-3, 20_000)?,
                0.98,
            ))
            .measured(Quantity::at_least(
                "the same on two responses, l = .22, T = 256, eta = sqrt(2 ln 2/T)",
                two_responses(0.22, best_eta(2, 256), 256)?,
                0.93,
            ))
            .measured(Quantity::exponent("exponent of DG(average) in T, 64..4096, best eta", slope, -0.5, 0.15))
            .measured(Quantity::at_most("KL(mw || next) - KL(mw || pi) against ln E e^{eta r}, worst", identity, 1e-12))
            .measured(Quantity::at_least("the increase over eta^2 Var r/2, least", -inward, 0.05))
            .measured(Quantity::at_most(
                "DG of the winner found by linear programming over max|L|, worst",
                losing,
                1e-9,
            ))
            .measured(Quantity::at_most("winners called unique with an even support", ambiguous, 0.0));
        controls(trials, findings)
    },
};

fn controls(trials: &Trials, findings: Findings) -> Result<Findings, InputError> {
    let weighted = rock_paper_scissors([0.9, 0.45, 0.225])?;
    let uniform = Policy::uniform(1, 3);
    let steps = 4000;
    let run = exact_run(&weighted, &uniform, 0.1, steps);
    let even = exact_run(&rock_paper_scissors([1.0; 3])?, &uniform, 0.5, 100);
    // 0 beats both others: a winner that is not inside
    let pure = Game::single(array![[0.0, 0.4, 0.2], [-0.4, 0.0, 0.9], [-0.2, -0.9, 0.0]])?;
    let settled = exact_run(&pure, &uniform, 0.1, steps);
    let coins = |flips: usize| -> Result<Vec<f64>, InputError> {
        let seeds: Vec<u64> = seeds(trials.settings()).collect();
        per_seed(&seeds, 0, |rng| {
            let mut noisy = Run::new(uniform.clone());
            for _ in 0..400 {
                let next = coin_step(&weighted, noisy.last(), best_eta(3, 400), flips, rng);
                noisy.advance(next);
            }
            Ok(weighted.duality_gap(&noisy.average()))
        })
    };
    let bound = average_gap_bound(&uniform, best_eta(3, 400), 400, 1.0);
    let of_bound = |gaps: Vec<f64>| mean_interval(&gaps.iter().map(|gap| gap / bound).collect::<Vec<_>>());
    Ok(findings
        .measured(sampled_at_most(
            "16 coin flips a response: mean DG over the exact bound, T = 400",
            of_bound(coins(16)?),
            1.0,
        ))
        .measured(sampled_at_most("4 coin flips a response: the same", of_bound(coins(4)?), 1.0))
        .control(
            "N6.3: the last iterate instead of the average, weighted cycle, T = 4000",
            Quantity::at_least(
                "DG(last) over the bound",
                weighted.duality_gap(run.last()) / average_gap_bound(&uniform, 0.1, steps, 1.0),
                1.5,
            ),
        )
        .control(
            "N6.3: what the average has then",
            Quantity::at_most("DG(average)", weighted.duality_gap(&run.average()), 0.1),
        )
        .control(
            "N6.1: the symmetric cycle from uniform starts on its winner and shows nothing",
            Quantity::at_most("movement in 100 steps", even.last().distance(&uniform), 1e-15),
        )
        .control(
            "a winner that plays one response: the last iterate converges to it",
            Quantity::at_most("DG(last)", pure.duality_gap(settled.last()), 1e-9),
        ))
}

/// DG(average) over its bound on two responses of which one beats the other by `margin`, from uniform.
fn two_responses(margin: f64, eta: f64, steps: usize) -> Result<f64, InputError> {
    let game = Game::single(array![[0.0, margin], [-margin, 0.0]])?;
    let start = Policy::uniform(1, 2);
    let average = exact_run(&game, &start, eta, steps).average();
    Ok(game.duality_gap(&average) / average_gap_bound(&start, eta, steps, margin))
}

/// The exponent of DG(average) in the number of steps, from uniform with the best step size for each.
fn gap_slope(game: &Game) -> Result<f64, InputError> {
    let start = Policy::uniform(1, game.responses());
    let steps = [64usize, 128, 256, 512, 1024, 2048, 4096];
    let gap = |&t: &usize| game.duality_gap(&exact_run(game, &start, best_eta(game.responses(), t), t).average());
    Ok(log_log_slope(&steps.map(|t| t as f64), &steps.each_ref().map(gap)).value)
}
