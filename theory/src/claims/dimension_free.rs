//! Claim 7 of the table: what is, and what is not, independent of the number of responses.

use super::{Claim, Draw, Findings, Quantity, Tag, Trials};
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::experiments::hitting_time::{GAP, GOAL, plateau, projected_steps, steps};
use crate::experiments::one_pair::{Arrival, Learner, Race};
use crate::policy::Tabular;
use crate::solve::mirror::tilt;
use crate::solve::natural::policy_gradient_run;
use crate::solve::rates;
use crate::statistics::{Estimate, log_log_slope, median_interval};
use ndarray::{Array1, Array2};

pub(super) const CLAIM: Claim = Claim {
    id: "dimension-free",
    title: "Dimension-free in iterations, against the softmax gradient",
    statement: "Exact REBEL plays the best of |Y| responses with probability 1-d after at most \
                (ln(|Y|-1) + ln((1-d)/d))/(eta gap) iterations; gradient ascent on softmax logits needs a number linear in |Y|. \
                Gradient ascent projected on the simplex is as free of |Y|, and counted in reward queries the order reverses.",
    formula: r"T_{\rm REBEL}\le\Big\lceil\frac{\ln(|Y|-1)+\ln\frac{1-\delta}{\delta}}{\eta\,\mathrm{gap}}\Big\rceil,\qquad T_{\rm softmax}=\Theta\Big(\frac{|Y|}{\eta\,\mathrm{gap}}\Big)",
    preconditions: &[
        "exact regression: a batch that covers the responses",
        "gradient ascent means softmax logits, from the uniform policy",
        "counted in iterations, not in queries",
    ],
    tag: Tag::Assumption,
    section: "1.7",
    family: "random bandits of one context, |Y| 2..64; one better arm among K = 4..4096; starts with probability 1e-2..1e-4 on the \
             better of two arms; 200 sampled races, K = 4, 16, 64",
    measure: |trials| {
        let [late] = trials.worst("mirror", probability_left)?;
        let races = (2..=12).map(|k| steps(1 << k, 0.1)).collect::<Result<Vec<_>, _>>()?;
        let arms: Vec<f64> = races.iter().map(|r| r.arms as f64).collect();
        let large = &races[7..]; // 512 and more: below, the additive term shows
        let softmax: Vec<f64> = large.iter().map(|r| r.softmax as f64).collect();
        let projected: Vec<f64> = races.iter().map(|r| r.projected as f64).collect();
        let affine = |r: &crate::experiments::hitting_time::Steps| {
            let logarithm = (r.arms as f64 - 1.0).ln() + (GAP / GOAL - 1.0).ln();
            (r.mirror as f64 - logarithm / (0.1 * GAP)).abs()
        };
        let starts = [1e-2, 1e-3, 1e-4];
        let plateaus = starts.iter().map(|&p| plateau(p)).collect::<Result<Vec<_>, _>>()?;
        let waits: Vec<f64> = plateaus.iter().map(|p| p.softmax as f64).collect();
        let inverse = starts.map(|p| 1.0 / p);
        let shrinking = [4usize, 16, 64, 256, 1024];
        let slowed =
            shrinking.iter().map(|&k| projected_steps(k, 0.5 / (k as f64).sqrt())).collect::<Result<Vec<_>, _>>()?;
        let slowed: Vec<f64> = slowed.into_iter().map(|n| n as f64).collect();
        let findings = Findings::new()
            .measured(Quantity::ratio("REBEL: probability left over d after the stated iterations, worst", late))
            .measured(Quantity::at_most(
                "REBEL: iterations against an affine function of ln(K-1), K 4..4096",
                races.iter().map(affine).fold(0.0, f64::max),
                1.0,
            ))
            .measured(Quantity::exponent(
                "softmax gradient: exponent of its steps in K, 512..4096",
                log_log_slope(&arms[7..], &softmax),
                1.0,
                0.1,
            ))
            .measured(Quantity::between(
                "softmax gradient, K = 1024: steps at half of eta over those at eta = .1",
                softmax_steps(GAP, 0.05)? / softmax_steps(GAP, 0.1)?,
                1.98,
                2.02,
            ))
            .measured(Quantity::between(
                "softmax gradient, K = 1024: steps at half of the gap over those at gap = .5",
                softmax_steps(GAP / 2.0, 0.1)? / softmax_steps(GAP, 0.1)?,
                1.98,
                2.02,
            ))
            .measured(Quantity::at_most(
                "softmax gradient followed through all logits against one number, steps",
                reduction_error()?,
                0.0,
            ))
            .measured(Quantity::exponent(
                "plateau: exponent of the softmax gradient's steps in 1/p",
                log_log_slope(&inverse, &waits),
                1.0,
                0.1,
            ))
            .measured(Quantity::at_most(
                "plateau: REBEL's iterations over ln(1/p)/gap",
                plateaus.iter().map(|p| p.mirror as f64 * GAP / -p.start.ln()).fold(0.0, f64::max),
                1.1,
            ))
            .control(
                "N1.1: gradient ascent projected on the simplex does not see |Y| either",
                Quantity::exponent("exponent of its steps in K, 4..4096", log_log_slope(&arms, &projected), 0.0, 0.05),
            )
            .control(
                "N1.1: the projected gradient with a step of order 1/sqrt(K), as noise would force",
                Quantity::exponent(
                    "exponent of its steps in K, 4..1024",
                    log_log_slope(&shrinking.map(|k| k as f64), &slowed),
                    0.5,
                    0.1,
                ),
            );
        queries(trials, findings)
    },
};

/// The steps of the softmax gradient until one of 1024 arms, better by `gap`, is played nine times in ten.
fn softmax_steps(gap: f64, eta: f64) -> Result<f64, InputError> {
    Ok(rates::Race::new(1024, gap, gap * GOAL / GAP)?.gradient_steps(eta)? as f64)
}

/// The probability that REBEL leaves on other responses after the iterations of the claim, over the `d` it states.
fn probability_left(draw: &mut Draw) -> Result<[f64; 1], InputError> {
    let responses = draw.size(2, 64);
    let bandit = Bandit::new(Array1::ones(1), draw.normals((1, responses)))?;
    let (best, eta, d) = (bandit.best()[0], draw.eta(), draw.uniform(0.001, 0.5));
    let top = bandit.reward()[[0, best]];
    let gap = bandit
        .reward()
        .indexed_iter()
        .filter(|((_, y), _)| *y != best)
        .map(|(_, r)| top - r)
        .fold(f64::INFINITY, f64::min);
    let bound = ((responses as f64 - 1.0).ln() + ((1.0 - d) / d).ln()) / (eta * gap);
    let steps = bound.max(0.0).ceil();
    let last = tilt(&Policy::uniform(1, responses), bandit.reward(), eta * steps); // steps of a fixed reward compose
    let left: f64 = last.prob().indexed_iter().filter(|((_, y), _)| *y != best).map(|(_, p)| p).sum();
    Ok([left / d])
}

/// How many steps the symmetric form of the softmax gradient is off the one that follows every logit, K = 4, 16, 64.
fn reduction_error() -> Result<f64, InputError> {
    let mut worst = 0.0f64;
    for arms in [4, 16, 64] {
        let mut reward = Array2::zeros((1, arms));
        reward[[0, 0]] = GAP;
        let bandit = Bandit::new(Array1::ones(1), reward)?;
        let reduced = steps(arms, 1.0)?.softmax;
        let (values, _) = policy_gradient_run(&bandit, &Tabular::new(Array2::zeros((1, arms)))?, 1.0, reduced + 1);
        let full = values.iter().position(|j| GAP - j <= GOAL).unwrap_or(usize::MAX);
        worst = worst.max(full.abs_diff(reduced) as f64);
    }
    Ok(worst)
}

/// N5.5: iterations and queries of batches and of single pairs, medians of sampled races.
fn queries(trials: &Trials, mut findings: Findings) -> Result<Findings, InputError> {
    const RACES: usize = 200;
    let race = |arms: usize, learner: Learner, pairs: usize| -> Result<(Estimate, Estimate), InputError> {
        let race = Race::new(arms, learner, pairs, 1.0)?;
        let name = format!("race {arms} {learner:?} {pairs}");
        let arrivals: Vec<Arrival> = trials.each(&name, RACES, |draw| Ok(race.run(draw.rng())))?;
        let median_of =
            |of: fn(&Arrival) -> usize| median_interval(&arrivals.iter().map(|a| of(a) as f64).collect::<Vec<_>>());
        Ok((median_of(|a| a.iterations), median_of(|a| a.queries)))
    };
    for (arms, fewer_iterations, more_queries) in [(4, 2.5, 2.0), (16, 4.0, 10.0), (64, 8.0, 30.0)] {
        let batch = (2.0 * arms as f64 * (arms as f64).ln()) as usize; // enough pairs to meet every arm
        let single = race(arms, Learner::RebelOnPolicy, 1)?;
        let covered = race(arms, Learner::RebelUniform, batch)?;
        let over =
            |a: Estimate, b: Estimate| Estimate { value: a.value / b.value, low: a.low / b.high, high: a.high / b.low };
        let iterations = over(single.0, covered.0);
        findings = findings.measured(Quantity {
            interval: Some((iterations.low, iterations.high)),
            ..Quantity::at_least(
                &format!("sampled, K = {arms}: iterations with one pair over those with 2K ln K pairs"),
                iterations.value,
                fewer_iterations,
            )
        });
        let queries = over(covered.1, single.1);
        findings = findings.control(
            &format!("N5.5: queries instead of iterations, K = {arms}"),
            Quantity {
                interval: Some((queries.low, queries.high)),
                ..Quantity::at_least("queries of 2K ln K pairs over those of one pair", queries.value, more_queries)
            },
        );
    }
    Ok(findings)
}
