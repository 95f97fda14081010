//! Claim 1 of the table: exact regression on pairs is mirror descent.

use super::{Claim, Findings, Quantity, Tag};
use crate::bandit::{Bandit, Policy};
use crate::solve::mirror::{implied_reward, mirror_descent, regularised_value, tilt};
use crate::solve::regression::{PairLaw, exact_rebel};
use crate::statistics::median;
use ndarray::Array2;

pub(super) const CLAIM: Claim = Claim {
    id: "md-equivalence",
    title: "Exact REBEL is mirror descent",
    statement: "The minimiser of the regression (1) over all policies is the tilt (3), the maximiser of the KL-regularised \
                value (2), for every law mu of the second response; any other policy falls short of it by exactly \
                (1/eta) E KL(pi || pi_{t+1}).",
    formula: r"\pi_{t+1}(y|x)=\frac{\pi_t(y|x)\,e^{\eta r(x,y)}}{Z_t(x)},\qquad \mathcal L(\pi_{t+1})-\mathcal L(\pi)=\tfrac1\eta\,E_x\mathrm{KL}(\pi\,\|\,\pi_{t+1})",
    preconditions: &[
        "y ~ pi_t with full support; responses that pi_t misses stay at probability zero",
        "mu within the support of pi_t, else arbitrary, a point mass included",
    ],
    tag: Tag::True,
    section: "1.1",
    family: "random bandits, |X| <= 4, |Y| <= 8; ties, contexts of weight zero, zero-probability responses, point-mass mu",
    measure: |trials| {
        let [minimiser, differences, other_mu, variational, revived] = trials.worst("identity", |draw| {
            let bandit = draw.bandit(4, 8);
            let old = if draw.chance(0.5) { draw.policy(&bandit) } else { draw.partial_policy(&bandit) };
            let (mu, other, eta) = (draw.law_within(&old), draw.law_within(&old), draw.eta());
            let exact = exact_rebel(&bandit, &PairLaw::independent(&old, &mu), &old, eta)?;
            let by_other = exact_rebel(&bandit, &PairLaw::independent(&old, &other), &old, eta)?;
            let tilted = tilt(&old, bandit.reward(), eta);
            let gap = regularised_value(&bandit, &tilted, &old, eta) - regularised_value(&bandit, &other, &old, eta);
            let divergence = bandit.kl(&other, &tilted) / eta;
            Ok([
                exact.distance(&tilted),
                worst_difference(&bandit, &exact, &old, eta),
                exact.distance(&by_other),
                (gap - divergence).abs() / (1.0 + divergence),
                mass_outside(&exact, &old),
            ])
        })?;
        // The best response is missing at the start: no number of exact steps brings it back.
        let unsupported = trials.each("support", trials.settings().instances.max(100), |draw| {
            let bandit = draw.bandit(4, 8);
            let best = bandit.best();
            let mut logits: Array2<f64> = draw.normals((bandit.contexts(), bandit.responses()));
            best.iter().enumerate().for_each(|(x, &y)| logits[[x, y]] = f64::NEG_INFINITY);
            let last = mirror_descent(&bandit, &Policy::from_logits(&logits), 1.0, 200).last;
            let regained = best.iter().enumerate().map(|(x, &y)| last.prob()[[x, y]]).fold(0.0, f64::max);
            Ok((regained, bandit.optimum() - bandit.value(&last)))
        })?;
        let (regained, regret): (Vec<f64>, Vec<f64>) = unsupported.into_iter().unzip();
        // Both draws miss the first response: nothing compares it, so the regression leaves it where it was.
        let uncompared = trials.each("uncompared", trials.settings().instances.max(100), |draw| {
            let bandit = draw.bandit(4, 8);
            let (old, eta) = (draw.policy(&bandit), draw.eta());
            let mut logits = old.log().clone();
            logits.column_mut(0).fill(f64::NEG_INFINITY);
            let blind = Policy::from_logits(&logits);
            let fit = exact_rebel(&bandit, &PairLaw::independent(&blind, &blind), &old, eta)?;
            Ok(fit.distance(&tilt(&old, bandit.reward(), eta)))
        })?;
        Ok(Findings::new()
            .measured(Quantity::at_most("exact minimiser of (1) against tilt (3), probability", minimiser, 1e-10))
            .measured(Quantity::at_most("reward differences read back by (5), reward", differences, 1e-10))
            .measured(Quantity::at_most("minimiser under one mu against another, probability", other_mu, 1e-10))
            .measured(Quantity::at_most("value (2) lost against (1/eta) KL, relative", variational, 1e-10))
            .measured(Quantity::at_most("mass on responses pi_t misses", revived, 0.0))
            .control(
                "full support: the best response starts at probability zero and is never regained",
                Quantity::at_most(
                    "largest probability of it after 200 exact steps",
                    regained.iter().fold(0.0, |m: f64, &p| m.max(p)),
                    0.0,
                ),
            )
            .control(
                "full support: what that costs",
                Quantity::at_least("median regret left after 200 exact steps, reward", median(&regret), 0.1),
            )
            .control(
                "y ~ pi_t: one response is in no pair",
                Quantity::at_least("median distance of the minimiser to the tilt", median(&uncompared), 0.01),
            ))
    },
};

/// The largest error of the reward differences that two successive policies imply, equation (5).
fn worst_difference(bandit: &Bandit, new: &Policy, old: &Policy, eta: f64) -> f64 {
    let error = implied_reward(new, old, eta) - bandit.reward(); // [x, y], constant in y where exact
    let spread = |(row, log): (ndarray::ArrayView1<f64>, ndarray::ArrayView1<f64>)| {
        let on_support = || row.iter().zip(log).filter(|(_, l)| **l > f64::NEG_INFINITY).map(|(e, _)| *e);
        on_support().fold(f64::NEG_INFINITY, f64::max) - on_support().fold(f64::INFINITY, f64::min)
    };
    error.rows().into_iter().zip(old.log().rows()).map(spread).fold(0.0, f64::max)
}

/// The largest probability of a response that `old` misses.
fn mass_outside(new: &Policy, old: &Policy) -> f64 {
    let missed = new.prob().iter().zip(old.prob()).filter(|(_, old)| **old == 0.0);
    missed.map(|(new, _)| *new).fold(0.0, f64::max)
}
