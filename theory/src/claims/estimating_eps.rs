//! Claim 15 of the table: what a held-out loss says about the error of the regression, and what the training loss does not.

use super::{Claim, Draw, Features, Findings, Quantity, Tag, over_bound};
use crate::bandit::Policy;
use crate::error::InputError;
use crate::experiments::linear::{LinearProblem, Size};
use crate::experiments::pair_loss::{Row, Setup, scatter, table};
use crate::experiments::pair_loss_failures::{
    after_the_update, frozen_model, lowest_checkpoint, null_loss_along_tilts, shared_draws, shared_noise, split_pairs,
};
use crate::policy::Softmax;
use crate::solve::decomposition::pair_error;
use crate::solve::estimation::DrawnPairs;
use crate::solve::excess::{Design, pair_covariance};
use crate::solve::finite_sample::all_pairs;
use crate::solve::regression::{PairLaw, gauss_newton_step};
use crate::statistics::{Estimate, median};
use ndarray::Array1;

pub(super) const CLAIM: Claim = Claim {
    id: "estimating-eps",
    title: "The held-out pair loss is noise plus error; the training loss says nothing",
    statement: "With label noise of variance s^2 = 2 sigma^2, the loss of any predictor on fresh pairs of the same law is s^2 + eps \
                in expectation; the training loss is s^2 (1 - d/N) where the class expresses the reward, whatever eps is. eps is \
                estimated by L_out - s^2, or by the mean of (p-z1)(p-z2) without knowing s^2, to within (N/d) sqrt(2/labels) \
                of itself near the floor.",
    formula: r"E\,L_{\rm out}=s^2+\epsilon,\qquad E\,L_{\rm in}=s^2\big(1-\tfrac dN\big)+\tfrac1N|(I-H)b|^2",
    preconditions: &[
        "fresh pairs of the law that was fitted, on prompts that were not",
        "noise that is independent of the fit and between the responses of a pair",
        "labels of the reward that is meant, not of a model of it",
    ],
    tag: Tag::Sharper,
    section: "4.1",
    family: "log-linear, |X| <= 3, |Y| <= 5, pairs that share draws; sampled: |X| = 20, |Y| = 20, d = 10, s^2 = 2, N 12..1600, \
             400 seeds",
    measure: |trials| {
        let [held_out, floor] = trials.worst("held out", held_out_identities)?;
        let [training, excess] = trials.worst("in sample", in_sample_identities)?;
        let seed = trials.settings().seed;
        let seeds = if trials.settings().thorough { 800 } else { 400 };
        let setup = Setup { sigma: 1.0, held_out: 200, seeds, seed };
        let realisable = LinearProblem::new(SIZE, 0.0, seed)?;
        let misspecified = LinearProblem::new(SIZE, FLOOR, seed)?;
        let rows = table(&realisable, &[15, 20, 40, 100, 400, 1600], setup)?;
        let floor_rows = table(&misspecified, &[40, 400, 1600], setup)?;
        let both = || rows.iter().chain(&floor_rows);
        // How many standard errors the held-out loss is from s^2 + eps; the t-interval is 1.96 of them wide.
        let standard = |e: &Estimate| (e.value / (0.5 * (e.high - e.low) / 1.96)).abs();
        let off = both().map(|row| standard(&row.unexplained)).fold(0.0, f64::max);
        let textbook = rows.iter().map(|row| (row.in_sample.value / row.in_sample_expected - 1.0).abs());
        let rising = rows.windows(2).all(|pair| pair[0].in_sample.value < pair[1].in_sample.value);
        let falling = rows.windows(2).all(|pair| pair[0].error.value > pair[1].error.value);
        let (end, floor_end) = (&rows[5], &floor_rows[2]);
        let scatters = scatter(&realisable, 100, &[50, 200, 800, 3200], setup)?;
        let by_formula =
            scatters.iter().flat_map(|s| [s.known_noise[0] / s.known_noise[1], s.two_labels[0] / s.two_labels[1]]);
        let (low, high) = by_formula.fold((f64::INFINITY, 0.0f64), |(low, high), r| (low.min(r), high.max(r)));
        let findings = Findings::new()
            .measured(Quantity::at_most("E (p-z)^2 against s^2 + eps, enumerated, relative", held_out, 1e-9))
            .measured(Quantity::at_most("eps against floor + E|p - p_best|^2, relative", floor, 1e-9))
            .measured(Quantity::at_most(
                "training loss against OLS run on noise, shared draws, relative",
                training,
                1e-9,
            ))
            .measured(Quantity::at_most("E eps against OLS run on noise, shared draws, relative", excess, 1e-9))
            .measured(Quantity::at_most(
                "E4.3: held-out loss from s^2 + eps, standard errors, largest of 9 rows",
                off,
                4.5,
            ))
            .measured(Quantity::at_most(
                "E4.3: training loss against s^2 (1 - d/N), relative, largest over N 15..1600",
                textbook.fold(0.0, f64::max),
                0.15,
            ))
            .measured(estimated("E4.3: two labels at N = 40, over eps", &rows[2], rows[2].two_labels, (0.6, 1.4)))
            .measured(Quantity::between("estimates of eps: standard error over its formula, least", low, 0.85, 1.15))
            .measured(Quantity::between("estimates of eps: standard error over its formula, largest", high, 0.85, 1.15))
            .measured(Quantity::between(
                "standard error over eps = s^2 d/N against (N/d) sqrt(2/labels), 3200 labels",
                scatters[3].known_noise[0] / scatters[3].rule,
                0.85,
                1.3,
            ))
            .control(
                "the training loss instead: it rises while eps falls by a factor of 100",
                Quantity::at_least(
                    "eps at N = 15 over N = 1600, where both are monotone",
                    if rising && falling { rows[0].error.value / end.error.value } else { 0.0 },
                    100.0,
                ),
            )
            .control(
                "the training loss instead: at N = 1600 it is s^2, 1% of it eps",
                Quantity::between("training loss over s^2", end.in_sample.value / 2.0, 0.95, 1.05),
            )
            .control(
                "the corrected training loss is blind to the floor, misspecified N = 1600",
                Quantity::at_most(
                    "its estimate over eps",
                    floor_end.corrected.map_or(f64::NAN, |c| c.value) / floor_end.error.value,
                    0.3,
                ),
            )
            .control(
                "the corrected training loss where two labels see it, misspecified N = 1600",
                estimated("two labels over eps", floor_end, floor_end.two_labels, (0.75, 1.25)),
            );
        failures(trials.settings().seed, seeds, findings, &realisable, &misspecified)
    },
};

const SIZE: Size = Size { contexts: 20, responses: 20, features: 10 };
/// The error of the best coefficients on the misspecified problem.
const FLOOR: f64 = 0.4685;

/// An estimate of the error of a row over the error itself.
fn estimated(name: &str, row: &Row, estimate: Estimate, (low, high): (f64, f64)) -> Quantity {
    let over = |v: f64| v / row.error.value;
    let scaled = Estimate { value: over(estimate.value), low: over(estimate.low), high: over(estimate.high) };
    Quantity::between(name, scaled.value, low, high).sampled(scaled)
}

/// The rows of N4.2.
fn failures(
    seed: u64,
    seeds: usize,
    findings: Findings,
    realisable: &LinearProblem,
    misspecified: &LinearProblem,
) -> Result<Findings, InputError> {
    let setup = Setup { sigma: 1.0, held_out: 200, seeds, seed };
    let noise = shared_noise(realisable, 100, 0.5, setup)?;
    let frozen = frozen_model(realisable, 0.5, seed)?;
    let draws = shared_draws(realisable, 20, 4, Setup { held_out: 30, ..setup })?;
    let identities = (draws.in_sample_identity - 1.0).abs().max((draws.excess_identity - 1.0).abs());
    let split = split_pairs(realisable, 40, 4, setup)?;
    let seen = |of: Estimate| (of.value - 2.0) / (split.truth.value - 2.0);
    let after = after_the_update(misspecified, 400, 1.0, Setup { seeds: 100, ..setup })?;
    let moved: Vec<f64> = after.iter().map(|[before, after]| (after / before - 1.0).abs()).collect();
    let lowest = lowest_checkpoint(realisable, 100, 10, Setup { held_out: 100, seeds: seeds / 2, ..setup })?;
    let null = null_loss_along_tilts(&misspecified.bandit, &misspecified.pi, 0.5, 8);
    Ok(findings
        .control(
            "(i) noise shared by both responses (q = 1/2), 2 sigma^2 subtracted: the right eps is positive",
            Quantity::between(
                "wrong estimate of eps less eps (by hand -1)",
                noise.wrong.value - noise.truth.value,
                -1.1,
                -0.9,
            )
            .sampled(shifted(noise.wrong, noise.truth.value)),
        )
        .control(
            "(i) remedy: two labels a pair",
            Quantity::between("right estimate of eps over eps", noise.right.value / noise.truth.value, 0.6, 1.4),
        )
        .control(
            "(ii) frozen error of a reward model, a table fitted to it",
            Quantity::at_most("error seen against the model", frozen.table_seen, 1e-20),
        )
        .control(
            "(ii) frozen error of a reward model, the table's true error",
            Quantity::at_least("error against the reward", frozen.table_true, 0.3),
        )
        .control(
            "(ii) frozen error, log-linear fit: the class filters it, the reverse of the table",
            Quantity::at_least("error seen over true error", frozen.linear_seen / frozen.linear_true, 5.0),
        )
        .control(
            "(iii) all pairs of 4 draws: N = n k(k-1)/2 counts too much; n(k-1) is exact",
            Quantity::at_most("training loss and E eps against their formulas, relative", identities, 1e-9),
        )
        .control(
            "(iii) all pairs of 4 draws, with N = n k(k-1)/2 in s^2 (1 - d/N)",
            Quantity::at_most("training loss over the wrong formula", draws.in_sample_naive, 0.97),
        )
        .control(
            "(iii) standard error of the held-out loss as if pairs were independent",
            Quantity::at_most("over the true one", draws.naive_error / draws.deviation, 0.88),
        )
        .control(
            "(iii) remedy: clustered by prompt",
            Quantity::between("over the true one", draws.clustered_error / draws.deviation, 0.8, 1.2),
        )
        .control(
            "(iv) pairs split instead of prompts",
            Quantity::at_most("share of eps that is seen", seen(split.wrong), 0.7),
        )
        .control(
            "(iv) remedy: prompts split",
            Quantity::between("share of eps that is seen", seen(split.right), 0.75, 1.25),
        )
        .control(
            "(v) pairs of pi_{t+1} instead of pi_t",
            Quantity::at_least("median relative change of eps", median(&moved), 0.05),
        )
        .control(
            "(vi) the lowest of 10 checkpoints of one fit",
            Quantity::at_most("held-out loss less s^2 + eps", lowest.wrong.value - lowest.truth.value, -0.2)
                .sampled(shifted(lowest.wrong, lowest.truth.value)),
        )
        .control(
            "(vi) remedy: one checkpoint, chosen before",
            Quantity::between("held-out loss over s^2 + eps", lowest.right.value / lowest.truth.value, 0.9, 1.1),
        )
        .control(
            "a falling regression loss: predictor 0 along 8 exact tilts, eta = 1/2",
            Quantity::at_most("null loss after over before", null[8] / null[0], 0.5),
        ))
}

fn shifted(estimate: Estimate, by: f64) -> Estimate {
    Estimate { value: estimate.value - by, low: estimate.low - by, high: estimate.high - by }
}

/// The loss of a random predictor over every pair and four equally likely noises, against noise plus error; and
/// Pythagoras around the best predictor of the class.
fn held_out_identities(draw: &mut Draw) -> Result<[f64; 2], InputError> {
    let bandit = draw.bandit(3, 5);
    let policy = draw.log_linear(&bandit, Features::Generic);
    let pi = policy.policy();
    let (mu, sigma) = (draw.law_within(&pi), draw.uniform(0.1, 2.0));
    let w: Array1<f64> = draw.normals(policy.features().dim().2);
    let prediction = policy.at(w.view()).logits();
    let (delta, s2) = (&prediction - bandit.reward(), 2.0 * sigma * sigma);
    let mut loss = 0.0;
    for (x, y, z) in all_pairs(bandit.contexts(), bandit.responses()).iter() {
        let weight = bandit.weights()[x] * pi.prob()[[x, y]] * mu.prob()[[x, z]];
        let (p, r) = (prediction[[x, y]] - prediction[[x, z]], bandit.reward()[[x, y]] - bandit.reward()[[x, z]]);
        for noise in [-2.0, 0.0, 0.0, 2.0].map(|e| e * sigma) {
            loss += weight / 4.0 * (p - r - noise).powi(2); // each query's noise is +-sigma with even odds
        }
    }
    let error = |delta| pair_error(bandit.weights(), &pi, &mu, &delta).total();
    let eps = error(delta);
    let best = gauss_newton_step(&bandit, &PairLaw::independent(&pi, &mu), policy.scores().view(), 1.0)?.solution;
    let best = policy.at(best.view()).logits();
    let split = error(&best - bandit.reward()) + error(&prediction - &best);
    Ok([over_bound((loss - s2 - eps).abs(), s2 + eps), over_bound((eps - split).abs(), eps)])
}

/// The expected training loss and error of a design whose pairs share draws, by running least squares on noise in every
/// draw, against the formulas.
fn in_sample_identities(draw: &mut Draw) -> Result<[f64; 2], InputError> {
    let (bandit, policy, pi, mu, pairs) = loop {
        let bandit = draw.bandit(3, 5);
        let policy = draw.log_linear(&bandit, Features::Generic);
        let pi = policy.policy();
        let mu = draw.law_within(&pi);
        let pairs = shared(draw, bandit.reward().dim())?;
        if super::instances::has_spectral_gap(&pairs.pairs().design(policy.features().view()), 1e-5)? {
            break (bandit, policy, pi, mu, pairs);
        }
    };
    let sigma = draw.uniform(0.1, 2.0);
    let covariance = pair_covariance(&bandit, &pi, &mu, policy.features());
    let design = Design::new(pairs.pairs().design(policy.features().view()))?;
    let clean = pairs.pairs().differences(bandit.reward());
    let error = |w: &Array1<f64>, mu: &Policy| {
        let delta = policy.at(w.view()).logits() - bandit.reward();
        pair_error(bandit.weights(), &pi, mu, &delta).total()
    };
    let both = |noise: &Array1<f64>| -> Result<[f64; 2], InputError> {
        let labels = &clean + &pairs.differences(noise)?;
        let w = design.fit(&labels)?;
        let left = design.rows().dot(&w) - &labels;
        Ok([left.dot(&left) / labels.len() as f64, error(&w, &mu)])
    };
    let none = both(&Array1::zeros(pairs.draws()))?;
    let mut expected = none;
    for n in 0..pairs.draws() {
        let unit = |step: f64| Array1::from_shape_fn(pairs.draws(), |i| if i == n { step } else { 0.0 });
        let (up, down) = (both(&unit(sigma))?, both(&unit(-sigma))?);
        (0..2).for_each(|i| expected[i] += 0.5 * (up[i] + down[i]) - none[i]);
    }
    let training = pairs.in_sample_expected(&design, &clean, sigma);
    let excess = error(&design.fit(&clean)?, &mu) + pairs.noise_excess(&design, &covariance, sigma);
    let scale = training.max(1e-3 * sigma * sigma); // an interpolating fit leaves rounding
    Ok([(expected[0] - training).abs() / scale, over_bound((expected[1] - excess).abs(), excess)])
}

/// One to three prompts of two to four uniform draws each, most of their pairs.
fn shared(draw: &mut Draw, (contexts, responses): (usize, usize)) -> Result<DrawnPairs, InputError> {
    let (mut x, mut y, mut i, mut j) = (Vec::new(), Vec::new(), vec![0], vec![1]);
    for _ in 0..draw.size(1, 3) {
        let (context, start, count) = (draw.size(0, contexts - 1), x.len(), draw.size(2, 4));
        for first in start..start + count {
            x.push(context);
            y.push(draw.size(0, responses - 1));
            for second in first + 1..start + count {
                if draw.chance(0.7) {
                    i.push(first);
                    j.push(second);
                }
            }
        }
    }
    DrawnPairs::new(&x, &y, i, j, (contexts, responses))
}
