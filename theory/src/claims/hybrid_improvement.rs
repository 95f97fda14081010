//! Claim 10 of the table, false as worded: a REBEL step with `mu != pi_t` need not improve the policy.

use super::{Claim, Findings, Quantity, Tag};
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::policy::{LogLinear, Softmax};
use crate::solve::natural::{NaturalStep, natural_step, policy_gradient};
use ndarray::{Array1, array};

pub(super) const CLAIM: Claim = Claim {
    id: "hybrid-improvement",
    title: "A step with an offline second response may lower the value",
    statement: "False: that REBEL's linearised step raises J also for mu != pi_t. With phi = (-1, 0, 1), pi_t uniform, \
                r = (0, -1, 0.1) and mu on the first response, grad J . D < 0, and J falls for every small eta.",
    formula: r"\nabla J^\top D<0\quad\text{for some }\mu\ne\pi_t",
    preconditions: &["mu != pi_t", "features that cannot represent the reward"],
    tag: Tag::False,
    section: "2 (N2.5)",
    family: "the counter-example; one context, |Y| = 5, one random feature, mu a point mass",
    measure: |trials| {
        let (bandit, policy, mu) = counter_example()?;
        let slope = improvement(&bandit, &policy, &mu)?;
        let mut largest = f64::NEG_INFINITY;
        for eta in [1e-4, 1e-3, 1e-2, 1e-1] {
            let step = step(&bandit, &policy, &mu, eta)?;
            let change = bandit.value(&policy.moved(&step.delta).policy()) - bandit.value(&policy.policy());
            largest = largest.max(change / eta);
        }
        let random = trials.each("random", trials.settings().instances.max(200), |draw| {
            let bandit = Bandit::new(Array1::ones(1), draw.normals((1, 5)))?;
            let policy = LogLinear::new(draw.normals((1, 5, 1)), draw.normals(1) * 0.3)?;
            let mu = Policy::pure(&[draw.size(0, 4)], 5);
            let realisable = bandit.with_reward(policy.at(draw.normals(1).view()).logits())?;
            Ok([
                improvement(&bandit, &policy, &mu)?,
                improvement(&bandit, &policy, &policy.policy())?,
                improvement(&realisable, &policy, &mu)?,
            ])
        })?;
        let descending = random.iter().filter(|d| d[0] < -1e-9).count() as f64 / random.len() as f64;
        let lowest = |i: usize| random.iter().map(|d| d[i]).fold(f64::INFINITY, f64::min);
        Ok(Findings::new()
            .measured(Quantity::at_most(
                "counter-example: grad J . D over eta against -2/375 by hand, error",
                (slope + 2.0 / 375.0).abs(),
                1e-14,
            ))
            .measured(Quantity::at_most("counter-example: largest change of J over eta, 1e-4..1e-1", largest, -0.003))
            .measured(Quantity::at_least("share of random instances with a descent direction", descending, 0.03))
            .control("mu = pi_t: never a descent", Quantity::at_least("lowest grad J . D over eta", lowest(1), -1e-9))
            .control(
                "a realisable reward: never a descent",
                Quantity::at_least("lowest grad J . D over eta", lowest(2), -1e-9),
            ))
    },
};

/// A step size at which the counter-example shows.
pub(super) const COUNTER_ETA: f64 = 0.01;

/// The counter-example: bandit, policy and the law of the second response.
pub(super) fn counter_example() -> Result<(Bandit, LogLinear, Policy), InputError> {
    let bandit = Bandit::new(array![1.0], array![[0.0, -1.0, 0.1]])?;
    let policy = LogLinear::new(array![[[-1.0], [0.0], [1.0]]], array![0.0])?;
    Ok((bandit, policy, Policy::pure(&[0], 3)))
}

/// REBEL's linearised step for `y ~ pi`, `y' ~ mu`, by Claim 1.
pub(super) fn step(bandit: &Bandit, policy: &LogLinear, mu: &Policy, eta: f64) -> Result<NaturalStep, InputError> {
    let pi = policy.policy();
    natural_step(bandit, &pi, &pi.mixture(mu, 0.5), policy.scores().view(), eta)
}

/// The derivative of the value along the step, over eta: $$ \nabla J\cdot D/\eta $$
fn improvement(bandit: &Bandit, policy: &LogLinear, mu: &Policy) -> Result<f64, InputError> {
    let gradient = policy_gradient(bandit, &policy.policy(), policy.scores().view());
    Ok(gradient.dot(&step(bandit, policy, mu, 1.0)?.delta))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_example_has_the_slope_by_hand() {
        // A = (.3, -.7, .4), grad J = 1/30, b = 1/60 - .3/2 = -2/15, F = 5/6, D = -4/25
        let (bandit, policy, mu) = counter_example().unwrap();
        assert!((improvement(&bandit, &policy, &mu).unwrap() + 2.0 / 375.0).abs() < 1e-15);
    }
}
