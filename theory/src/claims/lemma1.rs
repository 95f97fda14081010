//! Claim 16 of the table, Lemma 1 of the paper: what an error on pairs consists of.

use super::{Claim, Findings, Quantity, Tag, over_bound};
use crate::distribution::best_and_worst;
use crate::solve::decomposition::pair_error;
use crate::solve::mirror::tilt;
use crate::solve::regression::{PairLaw, pair_loss};
use crate::statistics::median;
use ndarray::Array2;
use std::num::NonZeroUsize;

pub(super) const CLAIM: Claim = Claim {
    id: "lemma1",
    title: "The error on pairs is three terms",
    statement: "For independent y ~ pi, y' ~ mu the error eps of a predictor on reward differences is the variance of its error \
                under pi, plus that under mu, plus the square of the difference of the two means; the paper bounds each by eps.",
    formula: r"\epsilon=\underbrace{E_x\mathrm{Var}_\pi\Delta}_a+\underbrace{E_x\mathrm{Var}_\mu\Delta}_b+\underbrace{E_x(\Delta_\pi-\Delta_\mu)^2}_c,\qquad\Delta=f-r",
    preconditions: &["the two responses are independent given the context"],
    tag: Tag::Sharper,
    section: "5",
    family: "random bandits, |X| <= 4, |Y| <= 8, any predictor; mu random or a point mass, ties and weightless contexts among them",
    measure: |trials| {
        let [error, share] = trials.worst("identity", |draw| {
            let bandit = draw.bandit(4, 8);
            let (pi, eta) = (draw.policy(&bandit), draw.eta());
            let mu = draw.law_within(&pi);
            let fit: Array2<f64> = draw.normals(bandit.reward().raw_dim());
            // Every pair of responses, by way of the loss (1) of the policy that the predictor stands for.
            let eps = pair_loss(&bandit, &PairLaw::independent(&pi, &mu), &pi, &tilt(&pi, &fit, eta), eta);
            let terms = pair_error(bandit.weights(), &pi, &mu, &(&fit - bandit.reward()));
            let largest = terms.var_first.max(terms.var_second).max(terms.gap);
            Ok([over_bound((terms.total() - eps).abs(), eps), over_bound(largest, eps)])
        })?;
        let dropped = trials.each("dropped", FIXED, |draw| {
            let bandit = draw.bandit(4, 8);
            let (pi, mu) = (draw.policy(&bandit), draw.policy(&bandit));
            let delta: Array2<f64> = draw.normals(bandit.reward().raw_dim());
            let terms = pair_error(bandit.weights(), &pi, &mu, &delta);
            Ok([terms.var_first, terms.var_second, terms.gap].map(|term| term / terms.total()))
        })?;
        let missing = |i: usize| median(&dropped.iter().map(|d| d[i]).collect::<Vec<_>>());
        let dependent = trials.each("dependent", FIXED, |draw| {
            let bandit = draw.bandit(1, 8);
            let pi = draw.policy(&bandit);
            let law = best_and_worst(&pi, bandit.reward(), NonZeroUsize::new(4).expect("four draws"));
            let fit: Array2<f64> = draw.normals(bandit.reward().raw_dim());
            let eps = pair_loss(&bandit, &law, &pi, &tilt(&pi, &fit, 1.0), 1.0);
            let (first, second) = law.marginals();
            let terms = pair_error(bandit.weights(), &first, &second, &(&fit - bandit.reward()));
            Ok((terms.total() / eps - 1.0).abs())
        })?;
        Ok(Findings::new()
            .measured(Quantity::at_most("three terms against the loss over all pairs, relative", error, 1e-10))
            .measured(Quantity::ratio("the paper's form: largest term over eps, worst", share))
            .control("the variance under pi dropped", Quantity::at_least("median share missing", missing(0), 0.1))
            .control("the variance under mu dropped", Quantity::at_least("median share missing", missing(1), 0.1))
            .control(
                "the difference of the means dropped",
                Quantity::at_least("median share missing", missing(2), 0.01),
            )
            .control(
                "dependent responses: best and worst of the same 4 draws",
                Quantity::at_least("median relative error of the three terms", median(&dependent), 0.005),
            ))
    },
};

/// Instances of what is shown by a median.
const FIXED: usize = 200;
