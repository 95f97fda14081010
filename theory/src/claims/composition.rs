//! Claim 2 of the table: steps on a fixed reward compose.

use super::{Claim, Findings, Quantity, Tag};
use crate::bandit::Policy;
use crate::solve::mirror::{mirror_descent, tilt};
use crate::statistics::median;
use ndarray::Array2;

pub(super) const CLAIM: Claim = Claim {
    id: "composition",
    title: "Small steps add up to one large step",
    statement: "T exact steps of size eta on a fixed reward are one exact step of size eta T: pi_T is pi_0 exp(eta T r)/Z.",
    formula: r"\pi_T(y|x)\propto\pi_0(y|x)\,e^{\eta T\,r(x,y)}",
    preconditions: &["the reward is the same at every step"],
    tag: Tag::True,
    section: "1.2",
    family: "random bandits, |X| <= 4, |Y| <= 8, T <= 20; zero-probability responses among them",
    measure: |trials| {
        let [composed] = trials.worst("identity", |draw| {
            let bandit = draw.bandit(4, 8);
            let (start, eta, steps) = (draw.partial_policy(&bandit), draw.eta(), draw.size(0, 20));
            let last = mirror_descent(&bandit, &start, eta, steps).last;
            Ok([last.distance(&tilt(&start, bandit.reward(), eta * steps as f64))])
        })?;
        // Each step sees another reward: the sum of them is what counts, and the last alone does not tell it.
        let moving = trials.each("moving", trials.settings().instances.max(100), |draw| {
            let bandit = draw.bandit(4, 8);
            let (start, eta, steps) = (draw.policy(&bandit), draw.eta(), draw.size(2, 20));
            let mut last: Policy = start.clone();
            let mut sum = Array2::zeros(bandit.reward().raw_dim());
            let mut reward: Array2<f64> = bandit.reward().clone();
            for _ in 0..steps {
                reward = draw.normals(reward.raw_dim());
                last = tilt(&last, &reward, eta);
                sum += &reward;
            }
            let by_last = tilt(&start, &reward, eta * steps as f64);
            Ok((last.distance(&by_last), last.distance(&tilt(&start, &sum, eta))))
        })?;
        let (by_last, by_sum): (Vec<f64>, Vec<f64>) = moving.into_iter().unzip();
        Ok(Findings::new()
            .measured(Quantity::at_most("T steps against one, probability", composed, 1e-12))
            .measured(Quantity::at_most(
                "moving reward: T steps against one by the sum, probability",
                by_sum.iter().fold(0.0, |m: f64, &d| m.max(d)),
                1e-12,
            ))
            .control(
                "a reward that moves, one large step by the last",
                Quantity::at_least("median distance, probability", median(&by_last), 0.05),
            ))
    },
};
