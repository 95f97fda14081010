//! Claim 13 of the table: where the gain of REBEL's step really is.

use super::instances::has_spectral_gap;
use super::{Claim, Features, Findings, Quantity, Tag};
use crate::experiments::linear::{LinearProblem, Size};
use crate::experiments::step_error::{Curve, Estimator, curves};
use crate::experiments::value_spread::{ValueSpread, value_spread};
use crate::policy::Softmax;
use crate::sample::{ContextSampler, Sampler};
use crate::solve::finite_sample::{Batch, Pairs};
use crate::solve::natural::natural_step;
use crate::statistics::{Estimate, log_log_slope, median};
use ndarray::Array1;
use rand::Rng;

pub(super) const CLAIM: Claim = Claim {
    id: "realisable-exactness",
    title: "With a realisable reward the step is exact from full rank on",
    statement: "If A = g^T w and labels are free of noise, D = eta w exactly once F_hat has full rank: variance 0, where natural \
                gradients with another matrix scatter as 1/N. Misspecified, N Cov has the trace of \
                (2F)^+ E[(xi-xi')^2 (g-g')(g-g')^T] (2F)^+; noise of variance s^2 a query adds s^2 F^+, twice what a known \
                V(x) pays.",
    formula: r"A=g^\top w,\ \mathrm{rank}\,\hat F=\mathrm{rank}\,F\ \Rightarrow\ D=\eta\,w",
    preconditions: &[
        "the reward is linear in the features, up to a constant of the context",
        "no label noise",
        "matrix and gradient share their samples: the exact F, or one of single scores with the paired gradient, loses it",
    ],
    tag: Tag::Sharper,
    section: "3.2",
    family: "log-linear, |X| <= 3, |Y| <= 5, mu random or a point mass; sampled: |X| = 5, |Y| = 8, d = 4, N 160..2560, 400 seeds; \
             value spread over 40 random problems with |X| = 8, |Y| = 10, d = 4",
    measure: |trials| {
        let [exact] = trials.worst("exact", |draw| {
            loop {
                let kind = [Features::Generic, Features::Collinear, Features::Wide][draw.instance() % 3];
                let bandit = draw.bandit(3, 5);
                let policy = draw.log_linear(&bandit, kind);
                let (pi, scores, eta) = (policy.policy(), policy.scores(), draw.eta());
                let mu = draw.law_within(&pi);
                let w: Array1<f64> = draw.normals(scores.dim().2);
                let bandit = bandit.with_reward(policy.at(w.view()).logits())?;
                let population = natural_step(&bandit, &pi, &pi.mixture(&mu, 0.5), scores.view(), eta)?;
                let contexts = ContextSampler::new(bandit.weights());
                let n = population.rank + draw.size(0, 40);
                let pairs = Pairs::draw(&contexts, &Sampler::new(&pi), &Sampler::new(&mu), n, draw.rng());
                if pairs.is_empty() || !has_spectral_gap(&pairs.design(scores.view()), 1e-4)? {
                    continue;
                }
                let step = Batch::new(&pairs, scores.view(), bandit.reward(), &pi)?.paired_step(eta)?;
                if step.rank == population.rank && step.rank > 0 {
                    let off = &step.delta - &population.delta;
                    return Ok([(off.dot(&off) / population.delta.dot(&population.delta)).sqrt()]);
                }
            }
        })?;
        let seed = trials.settings().seed;
        let seeds = if trials.settings().thorough { 800 } else { 400 };
        let realisable = LinearProblem::new(SIZE, 0.0, seed)?;
        let misspecified = LinearProblem::new(SIZE, 1.0, seed)?;
        let others =
            [Estimator::PairedExact, Estimator::PairedSeparate, Estimator::Reinforce(0.0), Estimator::Reinforce(10.0)];
        let clean = [&[Estimator::Paired, Estimator::KnownValue], &others[..]].concat();
        let clean = curves(&realisable, &clean, &PAIRS, 0.0, seeds, seed)?;
        let misfit = curves(&misspecified, &[Estimator::Paired, Estimator::Reinforce(1.0)], &PAIRS, 0.0, seeds, seed)?;
        let noisy = curves(&realisable, &[Estimator::Paired, Estimator::KnownValue], &PAIRS, 1.0, seeds, seed)?;
        let spreads = trials.each("spread", 40, |draw| {
            let problem = LinearProblem::new(SPREAD, 1.0, draw.rng().random())?;
            value_spread(&problem, &draw.normals(SPREAD.contexts), &LEVELS)
        })?;
        let over = |of: fn(&ValueSpread) -> f64| median(&spreads.iter().map(of).collect::<Vec<_>>());
        let flat = spreads.iter().flat_map(|s| s.paired.iter().map(|p| (p / s.paired[0] - 1.0).abs()));
        let mut findings = Findings::new()
            .measured(Quantity::at_most("realisable, full rank: D against eta w, relative", exact, 1e-9))
            .measured(Quantity::at_most("mean squared error at every N, REBEL's step", largest(&clean[0]), 1e-20))
            .measured(Quantity::at_most(
                "the same of NPG less the known V(x), F of the same scores",
                largest(&clean[1]),
                1e-20,
            ))
            .measured(Quantity::exponent("misspecified: exponent of the error in N", slope(&misfit[0]), -1.0, 0.1))
            .measured(near_limit("misspecified: N times the error over its limit, N = 2560", &misfit[0]))
            .measured(near_limit("label noise: N times the error over tr F^+, N = 2560", &noisy[0]))
            .measured(Quantity::between(
                "label noise: error over that with a known V(x), N = 2560",
                last(&noisy[0]).value / last(&noisy[1]).value,
                1.6,
                2.4,
            ))
            .measured(Quantity::at_most(
                "E3.3: limit of REBEL's step against the spread of V(x), relative change",
                flat.fold(0.0, f64::max),
                1e-9,
            ))
            .measured(Quantity::between(
                "E3.3: constant baseline, V(x) constant: limit over REBEL's, median",
                over(|s| s.constant[0] / s.paired[0]),
                0.4,
                0.65,
            ))
            .measured(Quantity::exponent(
                "E3.3: constant baseline, exponent in the spread",
                growth(&spreads[0]),
                2.0,
                0.1,
            ))
            .measured(Quantity::between(
                "E3.3: spread of V(x) from which pairs win, in residual units, median",
                over(|s| s.crossing),
                0.75,
                1.15,
            ));
        let names = [
            "RLOO with the exact F: exponent of the error in N",
            "N3.2: RLOO with F of single scores: exponent of the error in N",
            "REINFORCE, offset 0: exponent of the error in N",
            "REINFORCE, offset 10: exponent of the error in N",
        ];
        for (name, curve) in names.into_iter().zip(&clean[2..]) {
            let breaks = "the same realisable rewards, matrix and gradient not of the same differences";
            findings = findings.control(breaks, Quantity::exponent(name, slope(curve), -1.0, 0.1));
        }
        Ok(findings
            .control(
                "an unrealisable reward",
                Quantity::at_least("mean squared error of REBEL's step, N = 2560", last(&misfit[0]).value, 1e-4),
            )
            .control(
                "REINFORCE with the best constant baseline, V(x) constant: below REBEL in every problem",
                Quantity::at_most(
                    "limit over REBEL's, worst",
                    spreads.iter().map(|s| s.constant[0] / s.paired[0]).fold(0.0, f64::max),
                    1.0,
                ),
            ))
    },
};

const SIZE: Size = Size { contexts: 5, responses: 8, features: 4 };
const SPREAD: Size = Size { contexts: 8, responses: 10, features: 4 };
const PAIRS: [usize; 5] = [160, 320, 640, 1280, 2560];
const LEVELS: [f64; 8] = [0.0, 0.5, 1.0, 2.0, 10.0, 20.0, 40.0, 80.0];

fn last(curve: &Curve) -> Estimate {
    curve.error[curve.error.len() - 1]
}

fn largest(curve: &Curve) -> f64 {
    curve.error.iter().fold(0.0, |m: f64, e| m.max(e.value))
}

/// The slope of a curve that scatters; NaN, which holds nowhere, of one that does not.
fn slope(curve: &Curve) -> Estimate {
    curve.slope.unwrap_or(Estimate { value: f64::NAN, low: f64::NAN, high: f64::NAN })
}

/// The last point of a curve times its pairs over the limit, with its interval.
fn near_limit(name: &str, curve: &Curve) -> Quantity {
    let scale = PAIRS[PAIRS.len() - 1] as f64 / curve.limit.unwrap_or(f64::NAN);
    let Estimate { value, low, high } = last(curve);
    let scaled = Estimate { value: value * scale, low: low * scale, high: high * scale };
    Quantity::between(name, scaled.value, 0.75, 1.3).sampled(scaled)
}

/// The exponent of what the spread of V(x) adds to the constant baseline's limit, over the largest levels.
fn growth(spread: &ValueSpread) -> Estimate {
    let added: Vec<f64> = spread.constant[4..].iter().map(|c| c - spread.constant[0]).collect();
    log_log_slope(&spread.spread[4..], &added)
}
