//! Claim 4 of the table: an exact step raises the value, by an amount that is known.

use super::hybrid_improvement::{COUNTER_ETA, counter_example};
use super::{Claim, Findings, Quantity, Tag};
use crate::policy::Softmax;
use crate::solve::mirror::tilt;
use ndarray::Array2;

pub(super) const CLAIM: Claim = Claim {
    id: "monotone-improvement",
    title: "Improvement is an identity",
    statement: "J_{t+1} - J_t = (1/eta) E [KL(pi_{t+1} || pi_t) + KL(pi_t || pi_{t+1})] >= 0, in each context alone too; zero \
                only if r is constant on the support of pi_t.",
    formula: r"J_{t+1}-J_t=\tfrac1\eta\,E_x\big[\mathrm{KL}(\pi_{t+1}\|\pi_t)+\mathrm{KL}(\pi_t\|\pi_{t+1})\big]\ge0",
    preconditions: &["the step is the exact tilt; a fitted step with mu != pi_t may lower J"],
    tag: Tag::Sharper,
    section: "1.4",
    family: "random bandits, |X| <= 4, |Y| <= 8; zero-probability responses among them",
    measure: |trials| {
        let [identity, fall, constant] = trials.worst("identity", |draw| {
            let bandit = draw.bandit(4, 8);
            let (pi, eta) = (draw.partial_policy(&bandit), draw.eta());
            let next = tilt(&pi, bandit.reward(), eta);
            let gain = next.expectation(bandit.reward()) - pi.expectation(bandit.reward()); // [x]
            let divergence = (next.kl(&pi) + pi.kl(&next)) / eta; // [x]
            let level = Array2::from_elem(bandit.reward().raw_dim(), draw.normal());
            Ok([
                (&gain - &divergence).fold(0.0, |m: f64, d| m.max(d.abs())),
                gain.fold(f64::NEG_INFINITY, |m, &g| m.max(-g)),
                tilt(&pi, &level, eta).distance(&pi),
            ])
        })?;
        let (bandit, policy, mu) = counter_example()?;
        let step = super::hybrid_improvement::step(&bandit, &policy, &mu, COUNTER_ETA)?;
        let change = bandit.value(&policy.moved(&step.delta).policy()) - bandit.value(&policy.policy());
        Ok(Findings::new()
            .measured(Quantity::at_most("gain against (1/eta)(KL + reverse KL), reward", identity, 1e-11))
            .measured(Quantity::at_most("largest fall of a context's value, reward", fall, 1e-12))
            .measured(Quantity::at_most("move under a constant reward, probability", constant, 1e-14))
            .control(
                "N2.5: a log-linear step with mu a point mass, misspecified features",
                Quantity::at_most("change of J over eta", change / COUNTER_ETA, -0.005),
            ))
    },
};
