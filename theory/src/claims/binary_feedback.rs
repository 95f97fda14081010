//! Claim 27 of the table: what binary outcomes say about the reward of self-play, and how noisily.

use super::{Claim, Draw, Findings, Quantity, Settings, Tag};
use crate::bandit::{Policy, average};
use crate::error::InputError;
use crate::experiments::selfplay_decomposition::{SelfPlay, Split, duels, splits};
use crate::game::Game;
use crate::sample::{ContextSampler, Sampler};
use crate::solve::pairs::{Pair, PairBatch};
use crate::solve::trajectory::Rebel;
use crate::statistics::{mean, mean_interval, median};
use ndarray::{Array1, Array3, array};

pub(super) const CLAIM: Claim = Claim {
    id: "binary-feedback",
    title: "One shared opponent saves noise if mu = pi_t, not always otherwise",
    statement: "The target 2 (o - o') of two outcomes against one opponent y'' ~ pi_t is unbiased for r_t(y) - r_t(y'); o - o' halves eta. \
                Over pairs from pi_t x pi_t a shared opponent saves exactly 2 Var r_t of residual variance against two \
                independent ones; over other pairs it may cost some.",
    formula: r"E[2(o-o')\,|\,y,y']=r_t(y)-r_t(y'),\qquad
        E_{\pi_t\times\pi_t}\big[\mathrm{Var}_{\text{two}}-\mathrm{Var}_{\text{shared}}\big]=2\,E_x\mathrm{Var}_{\pi_t}r_t\ge0",
    preconditions: &[
        "both responses meet the same opponent, drawn from pi_t",
        "for the saving: both responses come from pi_t",
    ],
    tag: Tag::Assumption,
    section: "6.4 (E6.4, E6.7)",
    family: "random games, |X| <= 3, |Y| 3..8; the weighted cycle with three dominated options, N = 16 and 64, 100 runs",
    measure: |trials| {
        let Settings { seed, thorough, .. } = *trials.settings();
        let [bias, saving, cost] = trials.worst("enumeration", enumerated)?;
        let [halved] = trials.worst("half", half_step)?;
        let elsewhere = trials.each("other mu", 1000, |draw| {
            let (game, pi) = random_game(draw)?;
            let mu = Policy::from_logits(&draw.normals(pi.prob().raw_dim()));
            Ok([mean_saving(&game, &pi, &mu), half_distance(draw)?])
        })?;
        let noisier = elsewhere.iter().filter(|one| one[0] < 0.0).count() as f64 / elsewhere.len() as f64;
        let half = 1.96 * (noisier * (1.0 - noisier) / elsewhere.len() as f64).sqrt();
        let unequal: Vec<f64> = elsewhere.iter().map(|one| one[1]).collect();

        let cycle = Game::single(array![[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])?;
        let (shared, two) = label_variance(&cycle, &Policy::uniform(1, 3), 0, (0, 1));

        let runs = (if thorough { 150 } else { 100 }, seed);
        let task = SelfPlay::tabular()?;
        let (few, many) = (splits(&task, 100, 16, runs)?, splits(&task, 100, 64, runs)?);
        let short = splits(&task, 25, 64, runs)?;
        let of = |runs: &[Split], value: fn(&Split) -> f64| mean_interval(&runs.iter().map(value).collect::<Vec<_>>());
        let gap = |runs: &[Split]| of(runs, |one| one.gap_average).value;
        let charged = mean(&few.iter().map(|one| 2.0 * (6.0 * one.eps_sampling).sqrt()).collect::<Vec<_>>());
        Ok(Findings::new()
            .measured(Quantity::at_most("bias of 2 (o - o'), by enumeration, worst", bias, 1e-12))
            .measured(Quantity::at_most(
                "mu = pi_t: saving of a shared opponent against 2 Var r_t, worst",
                saving,
                1e-12,
            ))
            .measured(Quantity::at_most("mu = pi_t: cost of a shared opponent, worst", cost, 1e-12))
            .measured(Quantity::at_most(
                "step by o - o' at 2 eta against 2 (o - o') at eta, probability",
                halved,
                1e-10,
            ))
            .measured(Quantity::at_most(
                "T = 100: DG(average) with N = 16 over that with N = 64",
                gap(&few) / gap(&many),
                1.7,
            ))
            .measured(Quantity::at_most(
                "N = 64: DG(average) at T = 100 over that at T = 25",
                gap(&many) / gap(&short),
                0.75,
            ))
            .measured(Quantity::at_most(
                "N = 16: sampling term over 2 sqrt(C eps)",
                of(&few, |one| one.sampling).value / charged,
                0.1,
            ))
            .control(
                "a factor of 2 in the target: o - o' at the same eta",
                Quantity::at_least("median distance of one step, probability", median(&unequal), 0.01),
            )
            .control(
                "pairs from pi_t x pi_t: rock against paper, shared opponent",
                Quantity::at_least("label variance, 8/3 by hand", shared, 8.0 / 3.0 - 1e-12),
            )
            .control("the same, two opponents", Quantity::at_most("label variance, 2 by hand", two, 2.0 + 1e-12))
            .control(
                "mu = pi_t: share of random mu for which a shared opponent is noisier",
                Quantity {
                    interval: Some((noisier - half, noisier + half)),
                    ..Quantity::at_least("share", noisier, 0.02)
                },
            ))
    },
};

/// A random game of up to three contexts and three to eight responses, and a policy.
fn random_game(draw: &mut Draw) -> Result<(Game, Policy), InputError> {
    let (contexts, responses) = (draw.size(1, 3), draw.size(3, 8));
    let half = Array3::from_shape_simple_fn((contexts, responses, responses), || draw.uniform(-0.5, 0.5));
    let margin = &half - &half.clone().permuted_axes([0, 2, 1]);
    let mut weights: Array1<f64> = draw.normals(contexts).mapv(f64::exp);
    weights /= weights.sum();
    Ok((Game::new(weights, margin)?, Policy::from_logits(&draw.normals((contexts, responses)))))
}

/// The variance of `2 (o - o')` for the responses `pair` of context `x`: against one opponent from `pi` for both, and
/// against one each. By enumeration of opponents and outcomes.
fn label_variance(game: &Game, pi: &Policy, x: usize, pair: (usize, usize)) -> (f64, f64) {
    let opponents = pi.prob().row(x);
    let wins = |y: usize, z: usize| game.probability(x, y, z);
    let mean_of = |y: usize| opponents.iter().enumerate().map(|(z, p)| p * wins(y, z)).sum::<f64>();
    let (first, second) = (mean_of(pair.0), mean_of(pair.1));
    // E(o - o')^2 = E[o] + E[o'] - 2 E[o o'], the outcomes being 0 or 1
    let together = opponents.iter().enumerate().map(|(z, p)| p * wins(pair.0, z) * wins(pair.1, z)).sum::<f64>();
    let variance = |both: f64| 4.0 * (first + second - 2.0 * both - (first - second).powi(2));
    (variance(together), variance(first * second))
}

/// What a shared opponent saves of the label's variance, averaged over contexts and pairs `y ~ pi`, `y' ~ mu`.
fn mean_saving(game: &Game, pi: &Policy, mu: &Policy) -> f64 {
    let (contexts, responses) = (game.contexts(), game.responses());
    let saved = |x: usize| -> f64 {
        let pairs = (0..responses).flat_map(|y| (0..responses).map(move |z| (y, z)));
        let one = |(y, z)| {
            let (shared, two) = label_variance(game, pi, x, (y, z));
            pi.prob()[[x, y]] * mu.prob()[[x, z]] * (two - shared)
        };
        pairs.map(one).sum()
    };
    average(game.weights(), &Array1::from_shape_fn(contexts, saved))
}

/// On one random game: the largest bias of the target, the error of the saving, and what a shared opponent costs at most.
fn enumerated(draw: &mut Draw) -> Result<[f64; 3], InputError> {
    let (game, pi) = random_game(draw)?;
    let reward = game.reward(&pi);
    let mut bias = 0.0f64;
    for x in 0..game.contexts() {
        for y in 0..game.responses() {
            for z in 0..game.responses() {
                let label = |(opponent, p): (usize, &f64)| {
                    2.0 * p * (game.probability(x, y, opponent) - game.probability(x, z, opponent))
                };
                let expected: f64 = pi.prob().row(x).iter().enumerate().map(label).sum();
                bias = bias.max((expected - (reward[[x, y]] - reward[[x, z]])).abs());
            }
        }
    }
    let variance = average(game.weights(), &pi.expectation(&reward.mapv(|r| r * r))); // E_pi r_t = 0
    let saving = mean_saving(&game, &pi, &pi);
    Ok([bias, (saving - 2.0 * variance).abs(), -saving])
}

/// One REBEL step on a batch of the weighted cycle, its labels multiplied by `factor`.
fn step(task: &SelfPlay, batch: &PairBatch, factor: f64, eta: f64) -> Result<Policy, InputError> {
    let scaled = batch.pairs().iter().map(|pair| Pair { label: pair.label * factor, ..*pair }).collect();
    let rebel = Rebel::new(task.game.weights(), &task.class, &task.second, eta, 0.0)?;
    let mut theta = Array1::zeros(task.class.parameters());
    rebel.step(&mut theta, &PairBatch::new(task.game.contexts(), task.game.responses(), scaled)?)?;
    Ok(rebel.policy(&theta))
}

fn batch(draw: &mut Draw, task: &SelfPlay) -> Result<PairBatch, InputError> {
    let uniform = Sampler::new(&Policy::uniform(task.game.contexts(), task.game.responses()));
    let (contexts, pairs) = (ContextSampler::new(task.game.weights()), draw.size(1, 40));
    duels(&task.game, &contexts, &uniform, &uniform, pairs, draw.rng())
}

/// How far a step by `o - o'` with `2 eta` is from one by `2 (o - o')` with `eta`.
fn half_step(draw: &mut Draw) -> Result<[f64; 1], InputError> {
    let (task, eta) = (SelfPlay::log_linear()?, draw.eta());
    let batch = batch(draw, &task)?;
    Ok([step(&task, &batch, 0.5, 2.0 * eta)?.distance(&step(&task, &batch, 1.0, eta)?)])
}

/// How far the two are apart at the same `eta`.
fn half_distance(draw: &mut Draw) -> Result<f64, InputError> {
    let (task, eta) = (SelfPlay::tabular()?, draw.eta());
    let batch = batch(draw, &task)?;
    Ok(step(&task, &batch, 0.5, eta)?.distance(&step(&task, &batch, 1.0, eta)?))
}
