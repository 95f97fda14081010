//! Claim 33 of the table: iterative DPO with sign labels has nothing to converge to.

use super::{Claim, Draw, Findings, Quantity, Tag};
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::experiments::inner_steps::{Curve, inner_steps, one_better};
use crate::experiments::methods::{Method, Round, Settings};
use crate::objective::{Beta, Clip, Eta, iterative_dpo};
use crate::policy::{Softmax, Tabular};
use crate::solve::mirror::tilt;
use crate::statistics::{largest, log_log_slope, median};
use ndarray::{Array1, Array2};

pub(super) const CLAIM: Claim = Claim {
    id: "sign-dpo",
    title: "Iterative DPO with sign labels has no finite minimiser",
    statement: "The population loss of (21) has no stationary point where rewards differ: at every policy it falls along the \
                reward, and tilting for ever takes it to its infimum ln 2 times the probability of a tie. Only signs of reward \
                differences count, so the KL goes to ln 1/pi_t(y*) with inner steps for any gap; two arms: 1 - pi(y*) ~ \
                k^{-1/beta} after k. Labels drawn from Bradley-Terry have the tilt with eta = 1/beta as their minimiser.",
    formula: r"\nabla_r L(\pi)<0\ \ \forall\pi,\qquad \inf L=\ln2\cdot P\big(r(y)=r(y')\big)\ \text{not attained}",
    preconditions: &["labels are signs of reward differences, not draws", "some two responses differ in reward"],
    tag: Tag::True,
    section: "7",
    family: "random bandits, |X| <= 3, |Y| <= 6, ties among them, beta 0.1..1; 20 arms with a gap of 0.01",
    measure: |trials| {
        let [slope, remaining, monotone, drawn, tied] = trials.worst("population", population)?;
        let sampled_off = trials.each("signs at the tilt", trials.settings().instances, |draw| {
            let (bandit, pi, settings) = instance(draw)?;
            let tilted = tilt(&pi, bandit.reward(), 1.0 / settings.beta.get());
            gradient(Method::IterativeDpo, &bandit, &pi, &tilted, &settings)
        })?;
        let (bandit, start) = one_better(20, 0.01)?;
        let settings = Settings::standard(10.0)?;
        let run = |method, steps: &[usize]| inner_steps(method, &bandit, &start, &settings, steps);
        let signs_run = run(Method::IterativeDpo, &[100, 300, 1000, 3000])?;
        let certain = 20f64.ln();
        let tilted = tilt(&start.policy(), bandit.reward(), 1.0).kl(&start.policy())[0];
        let drawn_run = run(Method::SampledDpo, &[1000])?;
        let falls = largest(&signs_run.divergence.windows(2).map(|w| w[0] / w[1]).collect::<Vec<_>>());
        Ok(Findings::new()
            .measured(Quantity::at_most("largest slope of the loss along the reward, over its size", slope, -1e-6))
            .measured(Quantity::at_most("loss after a tilt of 10^4 in every gap, above ln 2 P(tie)", remaining, 1e-12))
            .measured(Quantity::at_most("change of the gradient under a monotone change of rewards", monotone, 0.0))
            .measured(Quantity::at_most("Bradley-Terry labels: gradient at the tilt with eta = 1/beta", drawn, 1e-12))
            .measured(Quantity::at_least(
                "20 arms, gap 0.01: KL over ln 20 after 3000 inner steps",
                signs_run.divergence[3] / certain,
                0.35,
            ))
            .measured(Quantity::at_most("the same, KL after 100, 300, 1000 steps over the next, worst", falls, 0.9))
            .measured(Quantity::at_most(
                "two arms: exponent of 1 - pi(y*) in inner steps against -1/beta",
                certainty_error()?,
                0.1,
            ))
            .control(
                "N7.2: labels drawn from Bradley-Terry stay at the tilt",
                Quantity::at_most(
                    "KL after 1000 inner steps against the tilt's, relative",
                    (drawn_run.divergence[0] / tilted - 1.0).abs(),
                    1e-3,
                ),
            )
            .control(
                "N7.2: sign labels do not",
                Quantity::at_least("median gradient at the tilt", median(&sampled_off), 1e-3),
            )
            .control("all rewards tied: no label, no gradient", Quantity::at_most("largest gradient", tied, 0.0)))
    },
};

/// A bandit with at least two levels of reward in some context of positive weight, a sampled policy, settings.
fn instance(draw: &mut Draw) -> Result<(Bandit, Policy, Settings), InputError> {
    let bandit = loop {
        let bandit = draw.bandit(3, 6);
        let differs = |(row, w): (ndarray::ArrayView1<f64>, &f64)| *w > 0.0 && row.iter().any(|r| *r != row[0]);
        if bandit.reward().rows().into_iter().zip(bandit.weights()).any(differs) {
            break bandit;
        }
    };
    let pi = draw.policy(&bandit);
    let beta = Beta::new(draw.uniform(0.1, 1.0))?;
    Ok((bandit, pi, Settings { eta: Eta::new(1.0)?, beta, clip: Clip::new(0.2)?, rate: 1.0 }))
}

fn gradient(
    method: Method,
    bandit: &Bandit,
    old: &Policy,
    at: &Policy,
    settings: &Settings,
) -> Result<f64, InputError> {
    let gradient = slope(method, bandit, old, at, settings)?;
    Ok(gradient.dot(&gradient).sqrt())
}

/// The gradient in the logits at the policy `at`.
fn slope(
    method: Method,
    bandit: &Bandit,
    old: &Policy,
    at: &Policy,
    settings: &Settings,
) -> Result<Array1<f64>, InputError> {
    Round::population(method, bandit, old)?.gradient(&Tabular::new(at.log().clone())?, settings)
}

/// The population's loss at the log-ratio `moved` `[x, y]`, each pair with its probability.
fn loss(bandit: &Bandit, old: &Policy, moved: &Array2<f64>, beta: Beta) -> Result<f64, InputError> {
    let mut sum = 0.0;
    let (contexts, responses) = moved.dim();
    for x in 0..contexts {
        for y in 0..responses {
            for z in 0..responses {
                let pair = |table: &Array2<f64>| ndarray::arr2(&[[table[[x, y]], table[[x, z]]]]).into_dyn();
                let one = iterative_dpo(&pair(moved), &pair(&(moved * 0.0)), &pair(bandit.reward()), beta)?;
                sum += bandit.weights()[x] * old.prob()[[x, y]] * old.prob()[[x, z]] * one.sum();
            }
        }
    }
    Ok(sum)
}

fn population(draw: &mut Draw) -> Result<[f64; 5], InputError> {
    let (bandit, pi, settings) = instance(draw)?;
    let anywhere = draw.policy(&bandit);
    let at = |bandit: &Bandit| slope(Method::IterativeDpo, bandit, &pi, &anywhere, &settings);
    let (here, along) = (at(&bandit)?, bandit.reward().iter().copied().collect::<Array1<f64>>());
    let downhill = here.dot(&along) / (along.dot(&along) * settings.beta.get());
    let stretched = bandit.with_reward(bandit.reward().mapv(|r| r.exp() * 1e-3))?;
    let change = at(&stretched)? - &here;
    // Every gap becomes at least 10^4 over beta: beyond, the loss no longer changes.
    let mut levels: Vec<f64> = bandit.reward().iter().copied().collect();
    levels.sort_by(f64::total_cmp);
    levels.dedup();
    let rank = |r: f64| levels.iter().position(|level| *level == r).expect("a level") as f64;
    let far = bandit.reward().mapv(|r| 1e4 / settings.beta.get() * rank(r));
    let tied = |x: usize| {
        let (p, r) = (pi.prob().row(x), bandit.reward().row(x));
        let equal = |y: usize| (0..p.len()).filter(|&z| r[z] == r[y]).map(|z| p[y] * p[z]).sum::<f64>();
        (0..p.len()).map(equal).sum::<f64>()
    };
    let infimum = 2f64.ln() * bandit.average(&Array1::from_shape_fn(bandit.contexts(), tied));
    let level = bandit.with_reward(Array2::from_elem(bandit.reward().raw_dim(), draw.normal()))?;
    let tilted = tilt(&pi, bandit.reward(), 1.0 / settings.beta.get());
    Ok([
        downhill,
        (loss(&bandit, &pi, &far, settings.beta)? - infimum).abs(),
        change.dot(&change).sqrt(),
        gradient(Method::SampledDpo, &bandit, &pi, &tilted, &settings)?,
        gradient(Method::IterativeDpo, &level, &pi, &anywhere, &settings)?,
    ])
}

/// The largest error of the exponent of 1 - pi(y*) in the number of inner steps, for beta 1 and 1/2.
fn certainty_error() -> Result<f64, InputError> {
    let (bandit, start) = one_better(2, 0.01)?;
    let mut errors = Vec::new();
    for beta in [1.0, 0.5] {
        let settings = Settings { beta: Beta::new(beta)?, ..Settings::standard(100.0)? };
        let Curve { steps, ratio, .. } =
            inner_steps(Method::IterativeDpo, &bandit, &start, &settings, &[200, 400, 800, 1600])?;
        let doubt: Vec<f64> = ratio.iter().map(|ratio| 1.0 - ratio / 2.0).collect();
        let steps: Vec<f64> = steps.iter().map(|&k| k as f64).collect();
        let exponent = log_log_slope(&steps, &doubt).value;
        errors.push((exponent * beta + 1.0).abs());
    }
    Ok(largest(&errors))
}
