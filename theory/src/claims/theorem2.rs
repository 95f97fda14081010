//! Claim 26 of the table: Theorem 2, self-play with a restricted class, as an identity and a bound.

use super::instances::split_error;
use super::{Claim, Draw, Findings, Quantity, Settings, Tag, over_bound};
use crate::bandit::Policy;
use crate::error::InputError;
use crate::experiments::selfplay_decomposition::{SelfPlay, row, split, splits};
use crate::game::Game;
use crate::solve::mirror::tilt;
use crate::solve::pairs::PredictorClass;
use crate::solve::trajectory::SecondLaw;
use crate::statistics::{mean, mean_interval};
use ndarray::{Array1, Array2, Array3, array};

pub(super) const CLAIM: Claim = Claim {
    id: "theorem2",
    title: "Self-play's duality gap is regret plus misfit plus noise",
    statement: "DG(average) = 2 [regret + approximation + sampling], exactly, for sampled fits f_t of any linear class, with \
                eps_t = eps_t^approx + eps_t^sampling; and DG(average) <= 2 [ln|Y|/(eta T) + eta A^2/2 + sqrt(C eps)], A of the fitted \
                predictors, C = max 1/mu.",
    formula: r"\mathrm{DG}(\bar\pi)=\tfrac2T\Big[\tfrac{\mathrm{KL}(p\|\pi_0)-\mathrm{KL}(p\|\pi_T)+\sum_t\mathrm{KL}(\pi_t\|\pi_{t+1})}{\eta}
        +\sum_tG_t[\bar f_t-r_t]+\sum_tG_t[f_t-\bar f_t]\Big]\le2\Big[\tfrac{\ln|Y|}{\eta T}+\tfrac{\eta A^2}2+\sqrt{C\epsilon}\Big]",
    preconditions: &[
        "p is a best response to the average policy",
        "A bounds the fitted predictors, not the preferences",
        "mu has full support: C >= |Y|",
    ],
    tag: Tag::Sharper,
    section: "6.2, 6.8 (E6.7, N6.4)",
    family: "random games and classes, |X| <= 3, |Y| <= 8, d < 2|Y|, N >= 2; merged options, K = 2..1000; a weighted cycle with \
             three dominated options, 100 runs",
    measure: |trials| {
        let Settings { seed, thorough, .. } = *trials.settings();
        let [identity, pythagoras, bound, sharp] = trials.worst("identity", random_run)?;

        let (mut by_hand, mut tight) = (0.0f64, 0.0f64);
        for arms in [2, 3, 10, 100, 1000] {
            for p in [1.0 / arms as f64, 1.0 / (arms * arms) as f64] {
                let k = arms as f64;
                let (ratio, formula) = (merged(arms, p)?, (1.0 - p) / (1.0 + p * k - 2.0 * p).sqrt());
                by_hand = by_hand.max((ratio - formula).abs());
                tight = tight.max(ratio);
            }
        }

        let runs = (if thorough { 150 } else { 100 }, seed);
        let (table, features) = (SelfPlay::tabular()?, SelfPlay::log_linear()?);
        let noisy = splits(&table, 100, 20, runs)?;
        let charged: Vec<f64> = noisy.iter().map(|one| 2.0 * (6.0 * one.eps_sampling).sqrt()).collect();
        let charge = mean(&charged);
        let noise = mean_interval(&noisy.iter().map(|one| one.sampling / charge).collect::<Vec<_>>());
        let (short, long) = (splits(&features, 100, 80, runs)?, splits(&features, 400, 80, runs)?);
        let (short_row, long_row) = (row(100, 80, &short), row(400, 80, &long));
        let forgotten = long.iter().map(|one| (one.gap_average - one.regret - one.sampling).abs());
        let on_policy = SelfPlay { second: SecondLaw::Current, ..table.clone() };
        let eta = on_policy.step_size(100);
        let uncovered = trials.each("on policy", 100, |draw| {
            let trajectory = on_policy.run(eta, 100, 320, draw.rng())?;
            let least = trajectory.policies().flat_map(|pi| pi.prob()).fold(1.0, |m: f64, &p| m.min(p));
            Ok(1.0 / (6.0 * least))
        })?;
        Ok(Findings::new()
            .measured(Quantity::at_most("DG(average) against its three terms, worst", identity, 1e-11))
            .measured(Quantity::at_most("eps against eps_approx + eps_sampling, relative, worst", pythagoras, 1e-9))
            .measured(Quantity::ratio("DG(average) over the bound, worst", bound))
            .measured(Quantity::ratio("DG(average) over the sharp bound, worst", sharp))
            .measured(Quantity::at_most("merged options: DG/2 sqrt(C eps) against (1-p)/sqrt(1+pK-2p)", by_hand, 1e-12))
            .measured(Quantity::at_least("merged options: largest DG/2 sqrt(C eps)", tight, 0.999))
            .measured(Quantity::at_least(
                "two options, exact feedback: DG over the regret half of its bound",
                two_options(),
                0.93,
            ))
            .measured(
                Quantity::at_most("tabular, T = 100, N = 20: sampling term over 2 sqrt(C eps)", noise.value, 0.1)
                    .sampled(noise),
            )
            .measured(Quantity::at_least(
                "three features, N = 80: DG after 400 iterations above that after 100",
                long_row.gap_average.value - short_row.gap_average.value,
                0.02,
            ))
            .measured(Quantity::at_most("the same: regret term after 400 iterations", long_row.regret.value, -0.1))
            .control(
                "N6.4: the approximation column forgotten, all error taken for noise",
                Quantity::at_least("error of the sum, mean over runs", mean(&forgotten.collect::<Vec<_>>()), 0.3),
            )
            .control(
                "a mu that covers: mu = pi_t",
                Quantity::at_least("largest 1/(|Y| mu) of a run, mean over runs", mean(&uncovered), 3.0),
            ))
    },
};

/// The worst errors of one random run: DG against its terms, `eps` against its parts, DG over its two bounds.
fn random_run(draw: &mut Draw) -> Result<[f64; 4], InputError> {
    let (contexts, responses) = (draw.size(1, 3), draw.size(2, 8));
    let sure = draw.chance(0.2); // l = +1 or -1
    let mut margin = Array3::zeros((contexts, responses, responses));
    for x in 0..contexts {
        for y in 0..responses {
            for z in 0..y {
                let l = draw.uniform(-1.0, 1.0);
                margin[[x, y, z]] = if sure { l.signum() } else { l };
                margin[[x, z, y]] = -margin[[x, y, z]];
            }
        }
    }
    let mut weights: Array1<f64> = draw.normals(contexts).mapv(f64::exp);
    weights /= weights.sum();
    let game = Game::new(weights, margin)?;
    let features = draw.size(1, 2 * responses - 1);
    let class = match draw.chance(0.25) {
        true => PredictorClass::tabular(contexts, responses),
        false => PredictorClass::linear(draw.normals((contexts, responses, features)))?,
    };
    let mu = Policy::from_logits(&draw.normals((contexts, responses)));
    let task = SelfPlay { second: SecondLaw::Fixed(mu), ..SelfPlay::new(game, class) };
    let (steps, pairs, eta) = (draw.size(1, 10), draw.size(2, 40), draw.uniform(0.05, 1.0));
    let trajectory = task.run(eta, steps, pairs, draw.rng())?;
    let split = split(&task.game, &trajectory, eta).ok_or(InputError::Empty { argument: "iterations" })?;
    Ok([
        split.identity() / (1.0 + split.sharp),
        split_error(task.game.weights(), &task.class, &trajectory)?,
        over_bound(split.gap_average, split.bound),
        over_bound(split.gap_average, split.sharp),
    ])
}

/// DG over `2 sqrt(C eps)` where the first of `arms` options, played with probability `p`, beats all others, which tie and
/// share the rest, and the class cannot tell any two apart; `mu` uniform.
fn merged(arms: usize, p: f64) -> Result<f64, InputError> {
    let beats = |(y, z): (usize, usize)| match (y, z) {
        (0, 0) => 0.0,
        (0, _) => 0.5,
        (_, 0) => -0.5,
        _ => 0.0,
    };
    let game = Game::single(Array2::from_shape_fn((arms, arms), beats))?;
    let rest = (1.0 - p) / (arms - 1) as f64;
    // Predictors that cannot tell two options apart never move the policy, and predict no difference.
    let start = Policy::new("pi", Array2::from_shape_fn((1, arms), |(_, y)| if y == 0 { p } else { rest }))?;
    let uniform = Policy::uniform(1, arms);
    let reward = game.reward(&start);
    let eps = crate::solve::decomposition::pair_error(game.weights(), &start, &uniform, &reward).total();
    Ok(game.duality_gap(&start) / (2.0 * (arms as f64 * eps).sqrt()))
}

/// DG of the average of 256 exact steps over `2 [ln 2/(eta T) + eta A^2/2]`, for two options of which one wins by .22.
fn two_options() -> f64 {
    let game = Game::single(array![[0.0, 0.22], [-0.22, 0.0]]).expect("skew");
    let steps = 256.0;
    let eta = (2.0 * 2f64.ln() / steps).sqrt();
    let mut policy = Policy::uniform(1, 2);
    let (mut sum, mut advantage) = (Array2::zeros((1, 2)), 0.0f64);
    for _ in 0..256 {
        let reward = game.reward(&policy); // its own advantage
        advantage = reward.fold(advantage, |m, r| m.max(r.abs()));
        sum += policy.prob();
        policy = tilt(&policy, &reward, eta);
    }
    let average = Policy::new("average", sum / steps).expect("a mean of distributions");
    game.duality_gap(&average) / (2.0 * (2f64.ln() / (eta * steps) + eta * advantage.powi(2) / 2.0))
}
