//! Claim 4 of the table: an exact step raises the value, by an amount that is known.

use super::hybrid_improvement::{COUNTER_ETA, counter_example};
use super::{Claim, Findings, Quantity, Tag, over_bound};
use crate::bandit::Policy;
use crate::policy::Softmax;
use crate::solve::mirror::tilt;
use ndarray::Array2;

pub(super) const CLAIM: Claim = Claim {
    id: "monotone-improvement",
    title: "Improvement is an identity",
    statement: "J_{t+1} - J_t = (1/eta) E [KL(pi_{t+1} || pi_t) + KL(pi_t || pi_{t+1})] >= 0, in each context alone too; zero \
                only if r is constant on the support of pi_t: at least Var_pi_t r (1 - exp(-eta R))/R, R the range of r there.",
    formula: r"J_{t+1}-J_t=\tfrac1\eta\,E_x\big[\mathrm{KL}(\pi_{t+1}\|\pi_t)+\mathrm{KL}(\pi_t\|\pi_{t+1})\big]\ge0",
    preconditions: &["the step is the exact tilt; a fitted step with mu != pi_t may lower J"],
    tag: Tag::Sharper,
    section: "1.4",
    family: "random bandits, |X| <= 4, |Y| <= 8; zero-probability responses among them",
    measure: |trials| {
        let [identity, fall, least, constant] = trials.worst("identity", |draw| {
            let bandit = draw.bandit(4, 8);
            let (pi, eta) = (draw.partial_policy(&bandit), draw.eta());
            let next = tilt(&pi, bandit.reward(), eta);
            let gain = next.expectation(bandit.reward()) - pi.expectation(bandit.reward()); // [x]
            let divergence = (next.kl(&pi) + pi.kl(&next)) / eta; // [x]
            let level = Array2::from_elem(bandit.reward().raw_dim(), draw.normal());
            Ok([
                (&gain - &divergence).fold(0.0, |m: f64, d| m.max(d.abs())),
                gain.fold(f64::NEG_INFINITY, |m, &g| m.max(-g)),
                gain.iter()
                    .zip(least_gain(&pi, bandit.reward(), eta))
                    .fold(0.0, |m, (&g, least)| over_bound(least, g).max(m)),
                tilt(&pi, &level, eta).distance(&pi),
            ])
        })?;
        let (bandit, policy, mu) = counter_example()?;
        let step = super::hybrid_improvement::step(&bandit, &policy, &mu, COUNTER_ETA)?;
        let change = bandit.value(&policy.moved(&step.delta).policy()) - bandit.value(&policy.policy());
        Ok(Findings::new()
            .measured(Quantity::at_most("gain against (1/eta)(KL + reverse KL), reward", identity, 1e-11))
            .measured(Quantity::at_most("largest fall of a context's value, reward", fall, 1e-12))
            .measured(Quantity::ratio("Var r (1 - exp(-eta R))/R over the gain of a context, worst", least))
            .measured(Quantity::at_most("move under a constant reward, probability", constant, 1e-14))
            .control(
                "N2.5: a log-linear step with mu a point mass, misspecified features",
                Quantity::at_most("change of J over eta", change / COUNTER_ETA, -0.005),
            ))
    },
};

/// What a step gains at least in each context, as densities between the old and the new policy fall by at most exp(-s R):
///
/// $$ J_{t+1}-J_t=\int_0^\eta\mathrm{Var}_{\pi_s}r\,ds\ge\mathrm{Var}_{\pi_t}r\,\frac{1-e^{-\eta R}}R $$
fn least_gain(pi: &Policy, reward: &Array2<f64>, eta: f64) -> Vec<f64> {
    let squared = pi.expectation(&(reward * reward)) - pi.expectation(reward).mapv(|mean| mean * mean); // [x]
    let of_context = |(x, variance): (usize, &f64)| {
        let supported = reward.row(x).into_iter().zip(pi.prob().row(x)).filter(|(_, p)| **p > 0.0);
        let (low, high) =
            supported.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (&r, _)| (r.min(low), r.max(high)));
        let range = high - low;
        if range == 0.0 { 0.0 } else { variance * -(-eta * range).exp_m1() / range }
    };
    squared.iter().enumerate().map(of_context).collect()
}
