//! Claim 12 of the table: whether pairs reduce the variance of the gradient is a matter of where zero is.

use super::{Claim, Draw, Findings, Quantity, Tag, over_bound};
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::policy::{Softmax, Tabular};
use crate::solve::finite_sample::{Batch, Pairs, all_pairs};
use crate::solve::gradient_variance::GradientVariance;
use crate::solve::linear::{pseudo_inverse, spectrum};
use crate::solve::natural::second_moment;
use crate::statistics::median;
use ndarray::{Array1, Array2, Array3, array};

pub(super) const CLAIM: Claim = Claim {
    id: "variance-reduction",
    title: "Pairs reduce gradient variance if the mean reward is large against its spread",
    statement: "One on-policy pair has gradient variance 1/2 E[q + 2 V kappa + V^2 tau - |G|^2] + B by REINFORCE, \
                1/2 E[q - |G|^2] + B with the exact V(x), 1/2 E[q + sigma^2 tau] + B by REBEL = RLOO(2): pairs reduce it iff \
                E[V^2 tau + 2 V kappa] > E[sigma^2 tau + |G|^2]; of one uniform table iff |V| > sigma sqrt(K/(K-1)).",
    formula: r"\mathrm{Var}_{\rm pair}<\mathrm{Var}_{\rm REINFORCE}\iff E_x[V^2\tau+2V\kappa]>E_x[\sigma^2\tau+|G_x|^2]",
    preconditions: &[
        "the comparison is with REINFORCE without a baseline",
        "a mean reward that exceeds the standard deviation of the reward, roughly",
    ],
    tag: Tag::Assumption,
    section: "3.1",
    family: "tabular and log-linear policies, |X| <= 3, |Y| <= 5, offsets -5..5, traces in the Euclidean and the Fisher metric; \
             uniform tables of 2..40 arms",
    measure: |trials| {
        let [formulas, criterion, baseline] = trials.worst("formulas", enumerated)?;
        let [interval] = trials.worst("uniform", |draw| {
            let bandit = one_context(draw)?;
            let variance = uniform(&bandit)?;
            let (value, sigma, k) = moments(&bandit);
            let half = sigma * (k / (k - 1.0)).sqrt();
            let (low, high) = variance.no_reduction().unwrap_or((f64::NAN, f64::NAN));
            Ok([((low + value + half).abs() + (high + value - half).abs()) / half])
        })?;
        let ratios = trials.each("large mean", trials.settings().instances, |draw| {
            let bandit = one_context(draw)?;
            let (value, sigma, _) = moments(&bandit);
            let variance = uniform(&bandit)?;
            // The mean at five standard deviations, then at none.
            let ratio = |mean: f64| variance.reinforce(mean - value) / variance.paired();
            Ok((ratio(5.0 * sigma), ratio(0.0)))
        })?;
        let (large, centred): (Vec<f64>, Vec<f64>) = ratios.into_iter().unzip();
        let smallest = large.iter().fold(f64::INFINITY, |m: f64, &r| m.min(r));
        let largest = centred.iter().fold(0.0, |m: f64, &r| m.max(r));
        let two = uniform(&Bandit::new(Array1::ones(1), array![[-1.0, 1.0]])?)?;
        let many = Bandit::new(Array1::ones(1), Array2::from_shape_fn((1, 1000), |(_, y)| y as f64 - 499.5))?;
        let many = uniform_of(&many, &Array2::eye(1000))?;
        let rare = rare_arm(1e-4)?;
        let growth = uniform_growth(&two);
        Ok(Findings::new()
            .measured(Quantity::at_most(
                "the three formulas against enumeration, both metrics, relative",
                formulas,
                1e-9,
            ))
            .measured(Quantity::at_most("the criterion's polynomial against enumeration, relative", criterion, 1e-9))
            .measured(Quantity::ratio("variance with the exact V(x) over that of pairs, worst", baseline))
            .measured(Quantity::at_least(
                "the same where one arm of mass 1e-4 has all the reward",
                rare.true_baseline() / rare.paired(),
                0.999,
            ))
            .measured(Quantity::at_most(
                "uniform table: ends of no reduction against -V +- sigma sqrt(K/(K-1)), relative",
                interval,
                1e-9,
            ))
            .measured(Quantity::at_least("condition holds (V = 5 sigma): REINFORCE over pairs, least", smallest, 5.0))
            .measured(Quantity::at_most("growth of REINFORCE with the offset against c^2 tau/2", growth, 1e-12))
            .control(
                "N3.1: the condition fails, centred rewards: pairs are worse in every instance",
                Quantity::at_most("REINFORCE over pairs, largest", largest, 1.0),
            )
            .control(
                "N3.1: centred rewards, 1000 uniform arms: worse by a factor of 2",
                Quantity::at_least("pairs over REINFORCE", many.paired() / many.reinforce(0.0), 1.99),
            )
            .control(
                "N3.1: centred rewards, two uniform arms: REINFORCE has no variance at all",
                Quantity::at_most("REINFORCE over pairs", two.reinforce(0.0) / two.paired(), 1e-15),
            )
            .control(
                "centred rewards: median over the family",
                Quantity::at_most("REINFORCE over pairs", median(&centred), 0.95),
            ))
    },
};

/// The three estimators' variances by enumerating every pair, against the formulas, in both metrics and under an offset.
fn enumerated(draw: &mut Draw) -> Result<[f64; 3], InputError> {
    let bandit = draw.bandit(3, 5);
    let (pi, scores) = match draw.instance() % 2 {
        0 => {
            let policy = Tabular::new(draw.normals((bandit.contexts(), bandit.responses())))?;
            (policy.policy(), policy.scores())
        }
        _ => {
            let policy = draw.log_linear(&bandit, super::Features::Generic);
            (policy.policy(), policy.scores())
        }
    };
    let offset = draw.uniform(-5.0, 5.0);
    let inverse = pseudo_inverse(&spectrum("F", &second_moment(&bandit, &pi, scores.view()))?);
    let mut worst = [0.0f64; 3];
    for metric in [Array2::eye(scores.dim().2), inverse] {
        let formula = GradientVariance::new(&bandit, &pi, scores.view(), &metric)?;
        let exact = by_enumeration(&bandit, &pi, &scores, &metric, offset)?;
        let scale = exact[0].max(exact[2]).max(1e-3);
        let got = [formula.reinforce(offset), formula.true_baseline(), formula.paired()];
        let off = got.iter().zip(&exact).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs() / scale));
        let [a, b, c] = formula.difference();
        let difference = (a * offset + b) * offset + c - (exact[0] - exact[2]);
        worst[0] = worst[0].max(off);
        worst[1] = worst[1].max(difference.abs() / scale);
        worst[2] = worst[2].max(over_bound(exact[1], exact[2]));
    }
    Ok(worst)
}

/// $$ E|v|^2_W-|E\,v|^2_W $$ over every on-policy pair, for REINFORCE, the exact value as baseline, and pairs.
fn by_enumeration(
    bandit: &Bandit,
    pi: &Policy,
    scores: &Array3<f64>,
    metric: &Array2<f64>,
    offset: f64,
) -> Result<[f64; 3], InputError> {
    let shape = (bandit.contexts(), bandit.responses());
    let reward = bandit.reward() + offset;
    let square = |v: &Array1<f64>| v.dot(&metric.dot(v));
    let mut means = [(); 3].map(|()| Array1::<f64>::zeros(scores.dim().2));
    let mut squares = [0.0; 3];
    for (x, y, z) in all_pairs(shape.0, shape.1).iter() {
        let weight = bandit.weights()[x] * pi.prob()[[x, y]] * pi.prob()[[x, z]];
        let one = Batch::new(&Pairs::new(vec![x], vec![y], vec![z], shape)?, scores.view(), &reward, pi)?;
        let plain = one.reinforce_gradient(&one.constant_baseline(0.0));
        let known = one.reinforce_gradient(one.true_baseline());
        for (i, v) in [plain, known, one.paired_gradient()].iter().enumerate() {
            squares[i] += weight * square(v);
            means[i].scaled_add(weight, v);
        }
    }
    Ok([0, 1, 2].map(|i| squares[i] - square(&means[i])))
}

/// Mean and standard deviation of the reward under the uniform policy, and the number of responses.
fn moments(bandit: &Bandit) -> (f64, f64, f64) {
    let rewards = bandit.reward();
    let mean = rewards.mean().unwrap_or(f64::NAN);
    (mean, rewards.mapv(|r| (r - mean).powi(2)).mean().unwrap_or(f64::NAN).sqrt(), rewards.len() as f64)
}

/// The variances of a uniform table of one context in the Euclidean metric.
fn uniform(bandit: &Bandit) -> Result<GradientVariance, InputError> {
    uniform_of(bandit, &Array2::eye(bandit.responses()))
}

fn uniform_of(bandit: &Bandit, metric: &Array2<f64>) -> Result<GradientVariance, InputError> {
    let table = Tabular::new(Array2::zeros(bandit.reward().raw_dim()))?;
    GradientVariance::new(bandit, &table.policy(), table.scores().view(), metric)
}

/// The variances of two arms, one of mass `p` and reward 1, the other of reward 0, in the Euclidean metric.
fn rare_arm(p: f64) -> Result<GradientVariance, InputError> {
    let bandit = Bandit::new(Array1::ones(1), array![[1.0, 0.0]])?;
    let table = Tabular::new(array![[(p / (1.0 - p)).ln(), 0.0]])?;
    GradientVariance::new(&bandit, &table.policy(), table.scores().view(), &Array2::eye(2))
}

/// How far REINFORCE's variance on two even arms of rewards -1 and 1 is from the offset's square times tau/2, tau = 1/2.
fn uniform_growth(two: &GradientVariance) -> f64 {
    [1.0f64, 3.0, 10.0].iter().fold(0.0, |m: f64, c| m.max((two.reinforce(*c) / (c * c * 0.25) - 1.0).abs()))
}

/// One context with 2 to 40 uniform arms of normal rewards around a normal mean.
fn one_context(draw: &mut Draw) -> Result<Bandit, InputError> {
    let (arms, mean) = (draw.size(2, 40), draw.normal());
    Bandit::new(Array1::ones(1), draw.normals((1, arms)) + mean)
}
