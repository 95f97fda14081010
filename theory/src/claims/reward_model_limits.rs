//! Claim 30 of the table: where a frozen reward model must fail on preferences, and where it wins.

use super::preference_games::{policy_for, random_game, sampled_at_least, sampled_at_most, seeds};
use super::{Claim, Draw, Findings, Quantity, Tag, Trials};
use crate::bandit::{Policy, best_responses};
use crate::error::InputError;
use crate::experiments::preference_queries::{Budget, Preferences, compare};
use crate::game::Game;
use crate::game::bradley_terry::Comparisons;
use crate::game::named::{bradley_terry_game, order_without_utility, rock_paper_scissors, with_dominated};
use crate::game::selfplay::{best_eta, exact_run};
use ndarray::{Array1, Array2, Axis, array, s};

pub(super) const CLAIM: Claim = Claim {
    id: "reward-model-limits",
    title: "A frozen reward model fails on cycles and on orders without a utility, and wins where there is one",
    statement: "The Bradley-Terry fit recovers a utility from any connected comparisons. Without one it depends on what was \
                compared: on a cycle its best response has DG = 2 max l, on a strict order of three it is the second best, for ever. \
                Refitted on pairs of pi_t alone it is self-play: E tanh((u(y) - u(y'))/2) = r_t(y).",
    formula: r"E_{y^\prime\sim\pi_t}\tanh\frac{\hat u(y)-\hat u(y^\prime)}2=r_t(y)",
    preconditions: &[
        "failure: preferences that no utility gives, comparisons that do not follow the policy",
        "success: P(y > y') = sigma(u(y) - u(y')), a connected set of comparisons",
    ],
    tag: Tag::Sharper,
    section: "6.7, 6.9",
    family: "random games and comparison counts, |Y| <= 7; E6.8: four games, 3000 queries, 100 seeds",
    measure: |trials| {
        let [refit, disorder] = trials.worst("refit", refitted)?;
        let [recovered] = trials.worst("utility", |draw| Ok([recovered(draw)?]))?;
        let cycle = rock_paper_scissors([0.8; 3])?;
        let even = fit(&cycle, &Array2::ones((3, 3)))?;
        let skewed = model_gap(&cycle, &array![[0.0, 8.0, 1.0], [8.0, 0.0, 1.0], [1.0, 1.0, 0.0]])?;
        let larger = with_dominated(&cycle, 3, 0.6)?;
        let mut counts = Array2::ones((6, 6));
        (counts[[0, 1]], counts[[1, 0]]) = (8.0, 8.0);
        let larger_gap = model_gap(&larger, &counts)?;
        let (order, everywhere) = (order_without_utility()?, Array2::ones((3, 3)));
        let ordered = fit(&order, &everywhere)?;
        let findings = Findings::new()
            .measured(Quantity::at_most("refit on pi_t: E tanh((u - u')/2) less r_t, worst", refit, 1e-9))
            .measured(Quantity::at_most("refit on pi_t: responses whose order differs from that of r_t", disorder, 0.0))
            .measured(Quantity::at_most(
                "a utility from random comparisons: error of its differences, worst",
                recovered,
                1e-9,
            ))
            .measured(Quantity::at_most(
                "even cycle, even counts: largest reward",
                even.fold(0.0, |m: f64, u| m.max(u.abs())),
                1e-12,
            ))
            .measured(Quantity::at_most(
                "cycle of .8, skewed counts: DG of the best response less 2 max l",
                (skewed - 1.6).abs(),
                1e-12,
            ))
            .measured(Quantity::at_most("the same above three dominated responses", (larger_gap - 1.6).abs(), 1e-12))
            .measured(Quantity::at_least(
                "strict order: fitted reward of the second less that of the first",
                ordered[1] - ordered[0],
                0.1,
            ))
            .measured(Quantity::at_most(
                "strict order: DG of the best response less .2",
                (model_gap(&order, &everywhere)? - 0.2).abs(),
                1e-12,
            ))
            .measured(Quantity::at_most(
                "self-play on the cycle: DG of the average of 20000 steps",
                self_play_gap(&cycle)?,
                0.02,
            ))
            .measured(Quantity::at_most("self-play above the dominated: the same", self_play_gap(&larger)?, 0.03));
        sampled(trials, findings)
    },
};

/// E6.8 in a small form.
fn sampled(trials: &Trials, mut findings: Findings) -> Result<Findings, InputError> {
    let run = |preferences| compare(preferences, (3000, 30), seeds(trials.settings()));
    let cycle = run(Preferences::Cycle)?;
    let intransitive = run(Preferences::Intransitive)?;
    let order = run(Preferences::Order)?;
    let utility = run(Preferences::BradleyTerry)?;
    for (name, budget, floor) in
        [("cycle", &cycle, 0.4), ("random intransitive", &intransitive, 0.4), ("strict order", &order, 0.19)]
    {
        let Budget { model_best, one_query, .. } = *budget;
        let text = format!("E6.8, {name}: DG of the model's best response at 3000 queries");
        findings = findings.measured(sampled_at_least(&text, model_best, floor));
        findings = findings.measured(sampled_at_most(&format!("{name}: DG of online IPO"), one_query, floor / 1.8));
    }
    findings = findings
        .measured(sampled_at_least("cycle: DG of the model at its best temperature", cycle.model_tempered, 0.2))
        .measured(sampled_at_most("cycle: DG of models refitted on the policy", cycle.refit, 0.25));
    let game = Preferences::BradleyTerry.game()?;
    let exact = exact_run(&game, &Policy::uniform(1, game.responses()), 1.0, 2000);
    Ok(findings
        .control(
            "N6.2, no utility: with one, 3000 comparisons find the best response",
            sampled_at_most("DG of the model's best response", utility.model_best, 0.02),
        )
        .control("N6.2: self-play's average pays more for it", sampled_at_least("its DG", utility.one_query, 0.15))
        .control("N6.2: its last iterate less", sampled_at_most("its DG", utility.two_queries_last, 0.06))
        .control(
            "N6.2: in the limit the last iterate agrees with the model",
            Quantity::at_most("DG(last) after 2000 exact steps", game.duality_gap(exact.last()), 1e-9),
        ))
}

/// The error of the identity of the refitted model, and how many neighbours in the order of `r_t` its utility exchanges.
fn refitted(draw: &mut Draw) -> Result<[f64; 2], InputError> {
    let game = random_game(draw, 1, 7)?;
    let pi = policy_for(draw, &game);
    let p = pi.prob().row(0);
    let drawn = Array2::from_shape_fn((p.len(), p.len()), |(y, z)| p[y] * p[z]);
    // margins of 1 have no finite fit: soften them a little, which leaves a game
    let game = Game::single(game.margin().slice(s![0, .., ..]).mapv(|l| 0.95 * l))?;
    let (utility, reward) = (fit(&game, &drawn)?, game.reward(&pi));
    let implied = |y: usize| -> f64 { (0..p.len()).map(|z| p[z] * (0.5 * (utility[y] - utility[z])).tanh()).sum() };
    let error = (0..p.len()).map(|y| (implied(y) - reward[[0, y]]).abs()).fold(0.0, f64::max);
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| reward[[0, a]].total_cmp(&reward[[0, b]]));
    let clear = |w: &&[usize]| reward[[0, w[1]]] - reward[[0, w[0]]] > 1e-9;
    let exchanged = order.windows(2).filter(clear).filter(|w| utility[w[1]] <= utility[w[0]]).count();
    Ok([error, exchanged as f64])
}

/// How far the fit is from a random utility whose comparisons were counted along a random tree and a few edges more.
fn recovered(draw: &mut Draw) -> Result<f64, InputError> {
    let responses = draw.size(2, 7);
    let utility: Array1<f64> = draw.normals(responses) * 2.0;
    let mut counts = Array2::zeros((responses, responses));
    for y in 1..responses {
        let parent = draw.size(0, y - 1);
        counts[[y, parent]] = draw.uniform(0.1, 50.0);
        let other = draw.size(0, y - 1);
        counts[[other, y]] += draw.uniform(0.0, 5.0);
    }
    let fitted = fit(&bradley_terry_game(&utility)?, &counts)?;
    let error = fitted - &utility + utility.sum() / responses as f64;
    Ok(error.fold(0.0, |m: f64, e| m.max(e.abs())))
}

/// The utility fitted to the expected outcomes of `counts` `[y, y']` comparisons.
fn fit(game: &Game, counts: &Array2<f64>) -> Result<Array1<f64>, InputError> {
    let probability = game.margin().slice(s![0, .., ..]).mapv(|l| 0.5 + 0.5 * l);
    Comparisons::expected(counts, &probability)?.fit()
}

/// The duality gap of the best response to that utility.
fn model_gap(game: &Game, counts: &Array2<f64>) -> Result<f64, InputError> {
    let best = best_responses(&fit(game, counts)?.insert_axis(Axis(0)));
    Ok(game.duality_gap(&Policy::pure(&best, game.responses())))
}

/// The duality gap of the average of 20000 exact steps of self-play, from a start that is not the winner.
fn self_play_gap(game: &Game) -> Result<f64, InputError> {
    let steps = 20_000;
    let start = Policy::from_logits(&Array2::from_shape_fn((1, game.responses()), |(_, y)| -0.3 * y as f64));
    Ok(game.duality_gap(&exact_run(game, &start, best_eta(game.responses(), steps), steps).average()))
}
