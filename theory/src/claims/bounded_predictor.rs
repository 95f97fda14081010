//! Claim 21 of the table: which quantity it is that must be bounded.

use super::{Claim, Features, Findings, Quantity, Tag, over_bound};
use crate::bandit::Policy;
use crate::bounds::range;
use crate::distribution::Law;
use crate::error::InputError;
use crate::solve::decomposition::pair_error;
use crate::solve::mirror::tilt;
use crate::solve::population::Rebel;
use crate::solve::rates::tilt_bound;
use crate::statistics::log_log_slope;
use ndarray::array;

pub(super) const CLAIM: Claim = Claim {
    id: "bounded-predictor",
    title: "The fitted predictor must be bounded, a small error is not enough",
    statement: "A step along a fitted f moves the policy by at most KL <= Z-1-ln Z, s = eta range(f). The range of r does not \
                do, and neither does a small eps: on K uniform arms with f = r + 2 ln K on one bad arm, eps ~ 8 (ln K)^2/K vanishes \
                while one step of size 1 moves the policy onto that arm, KL ~ ln K.",
    formula: r"\epsilon\sim\frac{8\ln^2K}K\to0\quad\text{and yet}\quad\mathrm{KL}(\pi_1\|\pi_0)\to\ln K",
    preconditions: &["A bounds the learned f_t, not r"],
    tag: Tag::Assumption,
    section: "5 (N5.4)",
    family: "population fits of log-linear policies, |X| <= 3, |Y| <= 6, mu a point mass or on-policy; K = 1e2..1e8 arms",
    measure: |trials| {
        let [forward, backward] = trials.worst("fitted", |draw| {
            let bandit = draw.bandit(3, 6);
            let policy = draw.log_linear(&bandit, Features::Generic);
            let (start, eta) = (crate::policy::Softmax::policy(&policy), draw.eta());
            let mu = draw.law_within(&start);
            let second = if draw.chance(0.5) { Law::OnPolicy } else { Law::Offline(mu) };
            let step = Rebel::new(&bandit, policy, (Law::OnPolicy, second), eta)?.step()?;
            let next = tilt(&start, &step.iteration.fit, eta);
            let bound = tilt_bound(eta * range(&step.iteration.fit)).sharp;
            let largest = |kl: ndarray::Array1<f64>| kl.fold(0.0, |m: f64, &v| m.max(v));
            Ok([over_bound(largest(next.kl(&start)), bound), over_bound(largest(start.kl(&next)), bound)])
        })?;
        let arms = [1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8];
        let outliers = arms.iter().map(|&k| outlier(k, 2.0)).collect::<Result<Vec<_>, _>>()?;
        let formula = |k: f64| 8.0 * k.ln().powi(2) / k;
        let scaled: Vec<f64> = outliers.iter().zip(&arms).map(|(o, k)| o.eps / k.ln().powi(2)).collect();
        let last = outliers[arms.len() - 1];
        let tame = outlier(1e8, 0.2)?;
        Ok(Findings::new()
            .measured(Quantity::ratio("KL(new || old) over Z-1-ln Z of the fit, worst", forward))
            .measured(Quantity::ratio("KL(old || new) over Z-1-ln Z of the fit, worst", backward))
            .measured(Quantity::exponent(
                "N5.4: exponent of eps/(ln K)^2 in K",
                log_log_slope(&arms, &scaled),
                -1.0,
                0.1,
            ))
            .measured(Quantity::at_most(
                "N5.4: eps against 8 (ln K)^2/K at K = 1e8, relative",
                (last.eps / formula(1e8) - 1.0).abs(),
                1e-6,
            ))
            .measured(Quantity::at_most("N5.4 with an excess of 0.2 ln K: KL of one step", tame.kl, 0.01))
            .control(
                "N5.4: a fit with eps < 1e-4 and an unbounded range",
                Quantity::at_least("KL of one step over ln K at K = 1e8", last.kl / 1e8f64.ln(), 0.99),
            )
            .control("N5.4: how small that eps is", Quantity::at_most("eps", last.eps, 1e-4))
            .control(
                "the range of r, which is 1, in the place of that of f",
                Quantity::at_least("KL of one step over its bound", last.kl / tilt_bound(1.0).sharp, 100.0),
            )
            .control(
                "A from r in Theorem 1: eta A^2/2 + sqrt(C eps) with C = 1, p = pi_0",
                Quantity::at_least("regret of pi_1 over the bound", last.regret / (0.5 + last.eps.sqrt()), 1.9),
            ))
    },
};

/// What one step of size 1 does along a predictor that is right but for one arm.
#[derive(Debug, Clone, Copy)]
struct Outlier {
    eps: f64,
    kl: f64,
    regret: f64,
}

/// K uniform arms, one of them worse by 1, where the predictor exceeds the reward by `excess` times ln K; pairs from
/// `pi_0` twice. The arms that are right are taken as one.
fn outlier(arms: f64, excess: f64) -> Result<Outlier, InputError> {
    let p = 1.0 / arms;
    let pi = Policy::new("pi", array![[p, 1.0 - p]])?;
    let reward = array![[-1.0, 0.0]];
    let delta = array![[excess * arms.ln(), 0.0]];
    let next = tilt(&pi, &(&reward + &delta), 1.0);
    Ok(Outlier {
        eps: pair_error(&array![1.0], &pi, &pi, &delta).total(),
        kl: next.kl(&pi)[0],
        regret: (pi.expectation(&reward) - next.expectation(&reward))[0],
    })
}
