//! Claim 29 of the table: regressing the log-ratio itself, as APA and SPPO do, misses the tilt by the third order.

use super::{Claim, Draw, Findings, Quantity, Tag};
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::experiments::log_ratio_distance::{apa_distance, leading_constant, sppo_distance};
use crate::game::Game;
use crate::objective::{self, Eta, Lambda};
use crate::policy::Tabular;
use crate::solve::descent::Batch;
use crate::solve::log_ratio::log_ratio_minimiser;
use crate::solve::mirror::{log_normaliser, tilt};
use crate::statistics::{bootstrap_mean, largest, log_log_slope, median};
use ndarray::{Array1, Array2, Array3, Axis};

pub(super) const CLAIM: Claim = Claim {
    id: "sppo-apa",
    title: "Regressing the log-ratio itself misses the tilt at third order",
    statement: "The exact minimiser of APA (b = eta A) and SPPO (b = eta r_t / 2) is ln pi/pi_t = b - W0(lambda e^b), lambda from \
                normalisation; with E_pi_t b = 0 its TV to the tilt by b is E[Var b E|b|]/4 to third order. Only the missing \
                normaliser is to blame.",
    formula: r"\ln\frac\pi{\pi_t}=b-W_0(\lambda e^b),\qquad \mathrm{TV}=\tfrac14E_x\,\mathrm{Var}_{\pi_t}(b)\,E_{\pi_t}|b|+O(b^4)",
    preconditions: &["a small step: the target b is of the order of eta", "E b = 0 under pi_t, an advantage"],
    tag: Tag::True,
    section: "6.6",
    family: "random bandits and games, |X| <= 3, |Y| <= 6, eta 0.05..3; exponents: one context, |Y| = 5, eta 0.01..0.1",
    measure: |trials| {
        let [apa, sppo, least] = trials.worst("minimiser", |draw| {
            let bandit = draw.bandit(3, 6);
            let game = game(draw, bandit.weights(), bandit.responses())?;
            let (pi, eta) = (draw.policy(&bandit), draw.eta());
            let target = bandit.advantage(&pi) * eta;
            let (minimiser, _) = log_ratio_minimiser(&pi, &target);
            let loss =
                |new: &Policy| bandit.average(&pi.expectation(&(new.log() - pi.log() - &target).mapv(|v| v * v)));
            // Along the way to another policy the loss is least at the start, first of all nearby.
            let other = draw.policy(&bandit);
            let near = minimiser.mixture(&other, draw.uniform(0.0, 0.1));
            let others = [&other, &near, &tilt(&pi, &target, 1.0)].map(loss);
            Ok([
                apa_slope(&bandit, &pi, &minimiser, eta)?,
                sppo_slope(&game, &pi, eta)?,
                largest(&others.map(|other| super::over_bound(loss(&minimiser), other))),
            ])
        })?;
        let orders = trials.each("orders", 100, |draw| {
            const ETAS: [f64; 5] = [0.01, 0.0178, 0.0316, 0.0562, 0.1];
            let bandit = Bandit::new(Array1::ones(1), draw.normals((1, 5)))?;
            let (pi, game) = (draw.policy(&bandit), game(draw, bandit.weights(), 5)?);
            let predicted = leading_constant(bandit.weights(), &pi, &bandit.advantage(&pi));
            Ok([
                log_log_slope(&ETAS, &ETAS.map(|eta| apa_distance(&bandit, &pi, eta))).value,
                log_log_slope(&ETAS, &ETAS.map(|eta| sppo_distance(&game, &pi, eta))).value,
                apa_distance(&bandit, &pi, 0.002) / (predicted * 0.002f64.powi(3)),
                apa_distance(&bandit, &pi, 2.0),
                apa_distance(&bandit, &pi, 8.0) / (predicted * 8f64.powi(3)),
                normalised_distance(&bandit, &pi, 2.0),
            ])
        })?;
        let column = |i: usize| orders.iter().map(|row| row[i]).collect::<Vec<_>>();
        let exponent = |i: usize| bootstrap_mean(&column(i), 1000, trials.settings().seed);
        let off_constant: Vec<f64> = column(2).iter().map(|ratio| (ratio - 1.0).abs()).collect();
        Ok(Findings::new()
            .measured(Quantity::at_most("gradient of the APA loss at its closed form", apa, 1e-10))
            .measured(Quantity::at_most("gradient of the SPPO loss at its closed form", sppo, 1e-10))
            .measured(Quantity::ratio("loss at the closed form over that of other policies, worst", least))
            .measured(Quantity::exponent("APA: exponent of TV to the tilt in eta, 0.01..0.1", exponent(0), 3.0, 0.15))
            .measured(Quantity::exponent("SPPO: exponent of TV to the tilt in eta, 0.01..0.1", exponent(1), 3.0, 0.15))
            .measured(Quantity::at_most(
                "TV over its leading term at eta = 0.002, largest error",
                largest(&off_constant),
                0.05,
            ))
            .control(
                "a small step: eta = 2",
                Quantity::at_least("median TV to the tilt, probability", median(&column(3)), 0.03),
            )
            .control(
                "a small step: at eta = 8 the third order is left behind",
                Quantity::at_most("median of TV over its leading term", median(&column(4)), 0.05),
            )
            .control(
                "the missing normaliser: subtract ln Z from the target, at eta = 2",
                Quantity::at_most("largest TV to the tilt, probability", largest(&column(5)), 1e-12),
            ))
    },
};

/// A game with margins uniform in [-1, 1].
fn game(draw: &mut Draw, weights: &Array1<f64>, responses: usize) -> Result<Game, InputError> {
    let mut margin = Array3::zeros((weights.len(), responses, responses));
    for x in 0..weights.len() {
        for y in 0..responses {
            for z in 0..y {
                margin[[x, y, z]] = draw.uniform(-1.0, 1.0);
                margin[[x, z, y]] = -margin[[x, y, z]];
            }
        }
    }
    Game::new(weights.clone(), margin)
}

/// The size of the gradient in the logits of the APA objective, averaged over the population, at `new`.
fn apa_slope(bandit: &Bandit, pi: &Policy, new: &Policy, eta: f64) -> Result<f64, InputError> {
    let batch = Batch::of_responses(bandit.weights(), pi);
    let (old, advantage) = (batch.values(pi.log()), batch.values(&bandit.advantage(pi)));
    let lambda = Lambda::new(1.0 / eta)?;
    let at = Tabular::new(new.log().clone())?;
    let evaluated = batch.evaluate(&at, |tape, new| {
        objective::apa(new, &tape.input(old.clone()), &tape.input(advantage.clone()), lambda)
    })?;
    Ok(evaluated.gradient.dot(&evaluated.gradient).sqrt())
}

/// The same of the SPPO objective, at its own closed form.
fn sppo_slope(game: &Game, pi: &Policy, eta: f64) -> Result<f64, InputError> {
    let margin = game.reward(pi);
    let (minimiser, _) = log_ratio_minimiser(pi, &(&margin * (eta / 2.0)));
    let batch = Batch::of_responses(game.weights(), pi);
    let (old, win) = (batch.values(pi.log()), batch.values(&margin.mapv(|l| (1.0 + l) / 2.0)));
    let at = Tabular::new(minimiser.log().clone())?;
    let eta = Eta::new(eta)?;
    let evaluated = batch
        .evaluate(&at, |tape, new| objective::sppo(new, &tape.input(old.clone()), &tape.input(win.clone()), eta))?;
    Ok(evaluated.gradient.dot(&evaluated.gradient).sqrt())
}

/// TV between the tilt and the minimiser of the regression on the whole log-ratio of the tilt, its normaliser included.
fn normalised_distance(bandit: &Bandit, pi: &Policy, eta: f64) -> f64 {
    let advantage = bandit.advantage(pi);
    let normaliser = log_normaliser(pi, &advantage, eta).insert_axis(Axis(1)); // [x, 1]
    let target: Array2<f64> = &advantage * eta - &normaliser;
    let (minimiser, _) = log_ratio_minimiser(pi, &target);
    bandit.average(&minimiser.total_variation(&tilt(pi, &advantage, eta)))
}
