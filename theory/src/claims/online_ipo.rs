//! Claim 28 of the table: on-policy IPO is self-play REBEL, at half the noise and half the queries.

use super::instances::has_spectral_gap;
use super::preference_games::{policy_for, random_game, sampled_at_least, seeds};
use super::{Claim, Draw, Features, Findings, Quantity, Tag, Trials};
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::experiments::preference_queries::{Learner, Preferences, per_seed, play};
use crate::game::Game;
use crate::game::ipo::ipo_step;
use crate::game::named::rock_paper_scissors;
use crate::game::regularised::Regularised;
use crate::game::selfplay::{best_eta, exact_run, exact_step};
use crate::policy::Softmax;
use crate::solve::linear::least_squares;
use crate::solve::regression::{PairLaw, pair_design};
use crate::statistics::{mean_interval, median};
use ndarray::{Array1, Array2, array};

pub(super) const CLAIM: Claim = Claim {
    id: "online-ipo",
    title: "Online IPO from its own samples is self-play REBEL with half the noise",
    statement: "For y, y' ~ pi_t and reference pi_t, the population minimisers of IPO (target l(y,y')) and of self-play REBEL (target \
                r_t(y) - r_t(y')) agree in every class: the losses differ by a constant. One-query IPO has exactly half the \
                residual variance of the two-query difference, for binary and for exact preferences.",
    formula: r"E_{\pi_t\times\pi_t}\big(h-h^\prime-\eta\,l\big)^2=E_{\pi_t\times\pi_t}\big(h-h^\prime-\eta(r_t-r_t^\prime)\big)^2+\mathrm{const}",
    preconditions: &[
        "both responses from pi_t: with mu != pi_t the minimisers differ",
        "the reference moves with the policy: a fixed one leaves a duality gap",
    ],
    tag: Tag::True,
    section: "6.5",
    family: "random games, |X| <= 3, |Y| <= 6; tabular and log-linear (generic, collinear, wide) classes; E6.8 games, 100 seeds",
    measure: |trials| {
        let [loss, table] = trials.worst("loss", |draw| {
            let game = random_game(draw, 3, 6)?;
            let (pi, eta) = (policy_for(draw, &game), draw.eta());
            let table = ipo_step(&game, &pi, &pi, eta).distance(&exact_step(&game, &pi, eta));
            Ok([loss_difference(draw, &game, &pi, &pi, eta), table])
        })?;
        let [class] = trials.worst("class", |draw| Ok([parametric_difference(draw)?]))?;
        let [binary, exact] = trials.worst("noise", |draw| {
            let game = random_game(draw, 1, 6)?;
            let noise = Noise::of(&game, &policy_for(draw, &game));
            Ok([(noise.two_binary / noise.one_binary - 2.0).abs(), noise.exact_difference()])
        })?;
        let mut findings = Findings::new()
            .measured(Quantity::at_most("difference of the losses between two policies, relative, worst", loss, 1e-12))
            .measured(Quantity::at_most("tabular: step of IPO against the tilt, worst", table, 1e-10))
            .measured(Quantity::at_most("log-linear: minimiser of IPO against REBEL's, relative, worst", class, 1e-9))
            .measured(Quantity::at_most(
                "binary: residual variance of two queries over one, less 2, worst",
                binary,
                1e-10,
            ))
            .measured(Quantity::at_most(
                "exact l: two-query residual less twice the one-query one, worst",
                exact,
                1e-12,
            ));
        for (preferences, name) in [(Preferences::Cycle, "cycle and dominated"), (Preferences::BradleyTerry, "utility")]
        {
            let saved = saved_by_one_query(trials, preferences)?;
            let text = format!("E6.8, {name}: DG of two-query self-play less that of IPO at 3000 queries");
            findings = findings.measured(sampled_at_least(&text, mean_interval(&saved), 0.0));
        }
        controls(trials, findings)
    },
};

fn controls(trials: &Trials, findings: Findings) -> Result<Findings, InputError> {
    let off = trials.each("mu", trials.settings().instances.max(100), |draw| {
        let game = loop {
            let game = random_game(draw, 1, 6)?;
            if game.responses() > 2 {
                break game;
            }
        };
        let (pi, mu) = (policy_for(draw, &game), policy_for(draw, &game));
        let apart = ipo_step(&game, &pi, &mu, 1.0).total_variation(&exact_step(&game, &pi, 1.0))[0];
        Ok((apart, loss_difference(draw, &game, &pi, &mu, 1.0)))
    })?;
    let (apart, loss): (Vec<f64>, Vec<f64>) = off.into_iter().unzip();
    let game = rock_paper_scissors([0.9, 0.45, 0.225])?;
    let reference = Policy::new("ref", array![[0.1, 0.8, 0.1]])?;
    let gap = |eta: f64| -> Result<f64, InputError> {
        let fixed = Regularised::new(&game, reference.clone(), 1.0 / eta)?.fixed_point()?;
        Ok(game.duality_gap(&fixed))
    };
    let [low, middle, high] = [gap(1.0)?, gap(4.0)?, gap(16.0)?];
    let moving = game.duality_gap(&exact_run(&game, &reference, 0.05, 20_000).average());
    Ok(findings
        .control(
            "mu != pi_t: another step",
            Quantity::at_least("median TV to self-play, eta = 1", median(&apart), 0.01),
        )
        .control(
            "mu != pi_t: the losses differ by more than a constant",
            Quantity::at_least("median difference, relative", median(&loss), 0.01),
        )
        .control(
            "a fixed reference, eta = 1: the gap that stays",
            Quantity::at_least("DG of the fixed point", low, 1.2),
        )
        .control("a fixed reference, eta = 4", Quantity::at_least("DG of the fixed point", middle, 0.4))
        .control(
            "a fixed reference, eta = 16: smaller, but it stays",
            Quantity::at_least("DG of the fixed point over that of 20000 steps of self-play", high / moving, 1.5),
        ))
}

/// The loss of log-ratios `h` `[x, y]` on pairs `y ~ pi`, `y' ~ mu` with target `eta` times `wanted(x, y, y')`.
fn pair_loss(
    game: &Game,
    pi: &Policy,
    mu: &Policy,
    h: &Array2<f64>,
    wanted: impl Fn(usize, usize, usize) -> f64,
) -> f64 {
    let law = PairLaw::independent(pi, mu);
    let term = |((x, y, z), p): ((usize, usize, usize), &f64)| {
        game.weights()[x] * p * (h[[x, y]] - h[[x, z]] - wanted(x, y, z)).powi(2)
    };
    law.joint().indexed_iter().map(term).sum()
}

/// How much the difference of IPO's loss and self-play's varies between two random log-ratios, relative to the losses.
fn loss_difference(draw: &mut Draw, game: &Game, pi: &Policy, mu: &Policy, eta: f64) -> f64 {
    let reward = game.reward(pi);
    let mut difference = || {
        let h: Array2<f64> = draw.normals(reward.raw_dim());
        let ipo = pair_loss(game, pi, mu, &h, |x, y, z| eta * game.margin()[[x, y, z]]);
        let play = pair_loss(game, pi, mu, &h, |x, y, z| eta * (reward[[x, y]] - reward[[x, z]]));
        (ipo - play, ipo + play)
    };
    let ((first, size), (second, other)) = (difference(), difference());
    (first - second).abs() / (size + other)
}

/// The relative distance of the minimum-norm minimisers of both losses in a log-linear class with a clear rank.
fn parametric_difference(draw: &mut Draw) -> Result<f64, InputError> {
    let kind = [Features::Generic, Features::Collinear, Features::Wide][draw.instance() % 3];
    loop {
        let game = random_game(draw, 2, 5)?;
        let flat = Bandit::new(game.weights().clone(), Array2::zeros((game.contexts(), game.responses())))?;
        let policy = draw.log_linear(&flat, kind);
        let pi = policy.policy();
        let bandit = flat.with_reward(game.reward(&pi))?;
        let law = PairLaw::independent(&pi, &pi);
        let (design, target) = pair_design(&bandit, &law, policy.features().view());
        if !has_spectral_gap(&design, 1e-5)? {
            continue;
        }
        // the rows of the design, in its order
        let weighted = |((x, y, z), p): ((usize, usize, usize), &f64)| {
            let weight = game.weights()[x] * p;
            (y != z && weight > 0.0).then(|| weight.sqrt() * game.margin()[[x, y, z]])
        };
        let preference: Array1<f64> = law.joint().indexed_iter().filter_map(weighted).collect();
        let (play, ipo) = (least_squares(&design, &target)?.solution, least_squares(&design, &preference)?.solution);
        let norm = |v: &Array1<f64>| v.dot(v).sqrt();
        // relative to what the preferences could move the parameters by
        return Ok(norm(&(&play - &ipo)) / norm(&play).max(0.1 * norm(&ipo)).max(1e-3));
    }
}

/// Residual variances of the labels of a pair from `pi x pi` in one context, by enumeration of opponents and outcomes.
struct Noise {
    one_binary: f64,
    two_binary: f64,
    one_exact: f64,
    two_exact: f64,
}

impl Noise {
    fn of(game: &Game, pi: &Policy) -> Self {
        let (p, reward, responses) = (pi.prob().row(0), game.reward(pi), game.responses());
        let mut noise = Self { one_binary: 0.0, two_binary: 0.0, one_exact: 0.0, two_exact: 0.0 };
        for y in 0..responses {
            for z in 0..responses {
                let mean = reward[[0, y]] - reward[[0, z]];
                let (pair, won) = (p[y] * p[z], game.probability(0, y, z));
                noise.one_binary += pair * (won * (1.0 - mean).powi(2) + (1.0 - won) * (-1.0 - mean).powi(2));
                noise.one_exact += pair * (game.margin()[[0, y, z]] - mean).powi(2);
                for w in 0..responses {
                    let (first, second) = (game.probability(0, y, w), game.probability(0, z, w));
                    let (up, down) = (first * (1.0 - second), second * (1.0 - first));
                    let even = 1.0 - up - down;
                    let squares = up * (2.0 - mean).powi(2) + down * (-2.0 - mean).powi(2) + even * mean * mean;
                    noise.two_binary += pair * p[w] * squares;
                    let difference = game.margin()[[0, y, w]] - game.margin()[[0, z, w]];
                    noise.two_exact += pair * p[w] * (difference - mean).powi(2);
                }
            }
        }
        noise
    }

    /// How far two exact queries are from twice the noise of one; absolute, since both vanish for two responses.
    fn exact_difference(&self) -> f64 {
        (self.two_exact - 2.0 * self.one_exact).abs()
    }
}

/// Per seed, the gap of the average of two-query self-play less that of online IPO, 3000 queries each, 30 pairs an iteration.
fn saved_by_one_query(trials: &Trials, preferences: Preferences) -> Result<Vec<f64>, InputError> {
    let (game, budget) = (preferences.game()?, (3000, 30));
    let seeds: Vec<u64> = seeds(trials.settings()).collect();
    per_seed(&seeds, 0, |rng| {
        let mut gap = |learner: Learner| {
            let eta = best_eta(game.responses(), learner.iterations(budget.0, budget.1));
            play(&game, learner, budget, eta, rng)
        };
        Ok(gap(Learner::TwoQueries)?.average - gap(Learner::OneQuery)?.average)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn residual_variances_of_the_uniform_cycle_equal_numbers_by_hand() {
        // reward 0 everywhere: a label of one query is +-1; of two queries 0 or +-2, exact 0, +-1 or +-2
        let noise = Noise::of(&rock_paper_scissors([1.0; 3]).unwrap(), &Policy::uniform(1, 3));
        assert!((noise.one_binary - 1.0).abs() < 1e-15 && (noise.two_binary - 2.0).abs() < 1e-15);
        assert!((noise.one_exact - 2.0 / 3.0).abs() < 1e-15 && (noise.two_exact - 4.0 / 3.0).abs() < 1e-15);
    }
}
