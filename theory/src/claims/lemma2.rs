//! Claim 17 of the table, Lemma 2 of the paper: the regret of mirror descent on whatever predictors it is given.

use super::{Claim, Draw, Findings, Quantity, Tag};
use crate::bandit::Policy;
use crate::bounds::{lemma2_best, lemma2_best_eta, lemma2_paper, lemma2_sharp};
use crate::error::InputError;
use crate::solve::population::Lemma2;
use ndarray::{Array1, Array2, array};

pub(super) const CLAIM: Claim = Claim {
    id: "lemma2",
    title: "Mirror descent has low regret on any predictors",
    statement: "For any f_t, any start and any eta, sum_t E_p A_t <= KL(p || pi_0)/eta + (eta/8) sum_t range(f_t)^2 for every p, so at \
                most A sqrt(2 T ln|Y|) at the best eta from a uniform start: sqrt 2 in the place of the paper's 2, unimprovable, \
                and without the paper's condition T >= ln|Y|.",
    formula: r"\sum_{t<T}E_pA_t\le\frac{\mathrm{KL}(p\|\pi_0)}\eta+\frac\eta8\sum_{t<T}\mathrm{range}(f_t)^2\;\xrightarrow{\text{best }\eta}\;A\sqrt{2T\ln|Y|}",
    preconditions: &["A_t = f_t - E_{pi_t} f_t, |A_t| <= A", "the paper's form: a uniform start and eta A <= 1"],
    tag: Tag::Sharper,
    section: "5",
    family: "random sequences, |Y| <= 8, T <= 60, also eta A > 1 and starts that are not uniform; the two-arm sequence of E5.3, \
             T = 1e3, 1e4, 1e5",
    measure: |trials| {
        let [every, pure, paper] = trials.worst("bound", random_sequence)?;
        let [sharp, condition] = trials.worst("large eta", |draw| {
            // The condition is broken: few rounds, a large step.
            let [every, pure, _] = sequence(draw, 4.0)?;
            Ok([every, pure])
        })?;
        let tight = [1_000, 10_000, 100_000].map(tight_ratio);
        let [thousand, ten_thousand, hundred_thousand] = tight;
        let lopsided = lopsided_start()?;
        Ok(Findings::new()
            .measured(Quantity::ratio("random p: regret over its bound, worst", every))
            .measured(Quantity::ratio("best response: regret over its bound, worst", pure))
            .measured(Quantity::ratio("uniform start, eta A <= 1: regret over the paper's bound, worst", paper))
            .measured(Quantity::ratio("eta A > 1: regret over its bound, worst", sharp.max(condition)))
            .measured(Quantity::at_least("E5.3: regret over A sqrt(2 T ln 2), T = 1e3", thousand, 0.915))
            .measured(Quantity::at_least("E5.3: the same, T = 1e4", ten_thousand, 0.965))
            .measured(Quantity::at_least("E5.3: the same, T = 1e5", hundred_thousand, 0.985))
            .measured(Quantity::ratio("E5.3: the same, largest", tight.into_iter().fold(0.0, f64::max)))
            .control(
                "a constant below sqrt 2: E5.3 against 1.38 A sqrt(T ln 2)",
                Quantity::at_least("regret over bound, T = 1e5", hundred_thousand * 2f64.sqrt() / 1.38, 1.005),
            )
            .control(
                "ln|Y| from a start that is not uniform (pi_0(y*) = 1e-6) instead of KL(p || pi_0)",
                Quantity::at_least("regret over bound", lopsided, 3.0),
            )
            .control(
                "the paper's step e^z <= 1 + z + z^2 without eta A <= 1",
                Quantity::at_least("e^z over 1 + z + z^2 at z = 2.5", 2.5f64.exp() / (1.0 + 2.5 + 6.25), 1.2),
            ))
    },
};

fn random_sequence(draw: &mut Draw) -> Result<[f64; 3], InputError> {
    sequence(draw, 0.3)
}

/// The largest ratios of regret to bound along one random sequence: for a random comparator, for the best response, and of the
/// best response to the paper's bound (0 where its conditions fail). `scale` is the typical eta A.
fn sequence(draw: &mut Draw, scale: f64) -> Result<[f64; 3], InputError> {
    let (responses, steps) = (draw.size(2, 8), draw.size(1, 60));
    let eta = scale * draw.eta();
    let logits: Array2<f64> = draw.normals((1, responses));
    let uniform = draw.chance(0.5);
    let start = if uniform { Policy::uniform(1, responses) } else { Policy::from_logits(&logits) };
    let comparator = Policy::from_logits(&(draw.normals((1, responses)) * 2.0));
    // A drift makes some response good in the long run: without one the regret is small against its bound.
    let drift: Array1<f64> = draw.normals(responses);
    let mut run = Lemma2::new(start.clone())?;
    for _ in 0..steps {
        let f = &drift + &draw.normals(responses);
        run.round(f.view(), eta);
    }
    let bound = |p: &Policy| lemma2_sharp(p.kl(&start)[0], eta, &run.ranges);
    let table = run.advantage.view().insert_axis(ndarray::Axis(0)).to_owned();
    let mut pure = f64::NEG_INFINITY;
    for y in 0..responses {
        pure = pure.max(run.advantage[y] / bound(&Policy::pure(&[y], responses)));
    }
    let best = run.advantage.fold(f64::NEG_INFINITY, |m, &a| m.max(a));
    let holds = uniform && eta * run.amplitude <= 1.0;
    let paper = if holds { best / lemma2_paper(responses, eta, steps, run.amplitude) } else { 0.0 };
    Ok([comparator.expectation(&table)[0] / bound(&comparator), pure, paper])
}

/// E5.3: the regret of two arms against A sqrt(2 T ln 2), A = 1, at the best step size.
fn tight_ratio(steps: usize) -> f64 {
    let ln = 2f64.ln();
    let eta = lemma2_best_eta(ln, steps, 1.0);
    // One number carries the state: the lead of the first logit.
    let (mut lead, mut regret) = (0.0f64, 0.0);
    for t in 0..steps {
        let p = 1.0 / (1.0 + (-lead).exp());
        let (first, second) = tight_predictor(steps, t, eta, p);
        regret += (1.0 - p) * (first - second);
        lead += eta * (first - second);
    }
    regret / lemma2_best(ln, steps, 1.0)
}

/// The predictor of round `t` of the sequence that makes Lemma 2 tight, while the first arm has probability `p`, A = 1: (B, 0)
/// and (0, B) alternate, which earns eta A^2/2 a round, until the last ln(2/eta)/eta rounds favour the first arm for good, which
/// earns ln 2/eta. Both are as large as |A_t| <= A allows.
fn tight_predictor(steps: usize, t: usize, eta: f64, p: f64) -> (f64, f64) {
    let last = ((2.0 / eta).ln() / eta) as usize;
    if t + last >= steps {
        return (1.0 / p.max(1.0 - p), 0.0);
    }
    // After (B, 0) the first arm has probability 1/(1+e^{-eta B}), and loses that much of B to (0, B).
    let size = (0..60).fold(2.0, |b: f64, _| 1.0 + (-eta * b).exp());
    if t.is_multiple_of(2) { (size, 0.0) } else { (0.0, size) }
}

/// The regret of a start with probability 1e-6 on the better of two arms over the bound with ln 2 in the place of the KL.
fn lopsided_start() -> Result<f64, InputError> {
    let p = 1e-6f64;
    let mut run = Lemma2::new(Policy::from_logits(&array![[p.ln(), (-p).ln_1p()]]))?;
    let eta = 0.1;
    (0..300).for_each(|_| run.round(array![1.0, 0.0].view(), eta));
    Ok(run.advantage[0] / lemma2_sharp(2f64.ln(), eta, &run.ranges))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tight_sequence_followed_through_its_lead_is_that_of_the_general_algorithm() {
        let (steps, ln) = (200, 2f64.ln());
        let eta = lemma2_best_eta(ln, steps, 1.0);
        let mut run = Lemma2::new(Policy::uniform(1, 2)).unwrap();
        for t in 0..steps {
            let (first, second) = tight_predictor(steps, t, eta, run.last.prob()[[0, 0]]);
            run.round(array![first, second].view(), eta);
        }
        assert!((run.advantage[0] / lemma2_best(ln, steps, 1.0) - tight_ratio(steps)).abs() < 1e-10);
        assert!((run.amplitude - 1.0).abs() < 1e-12);
    }
}
