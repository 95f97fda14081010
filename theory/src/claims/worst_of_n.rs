//! Claim 24 of the table, Remark 2 of the paper: best-of-N and worst-of-N as the laws of a pair.

use super::{Claim, Draw, Findings, Quantity, Tag};
use crate::bandit::{Bandit, Policy};
use crate::bounds::{coverage, off_policy_misfit};
use crate::distribution::{best_and_worst, best_of, worst_of};
use crate::error::InputError;
use crate::policy::{LogLinear, Softmax};
use crate::solve::decomposition::pair_error;
use crate::solve::mirror::tilt;
use crate::solve::natural::natural_step;
use crate::solve::regression::{PairLaw, gauss_newton_step, pair_loss};
use crate::statistics::median;
use ndarray::{Array1, Array2, Array3, array};
use std::num::NonZeroUsize;

pub(super) const CLAIM: Claim = Claim {
    id: "worst-of-n",
    title: "Worst-of-N keeps coverage, at a price exponential in N",
    statement: "best/pi <= N and best-of-N covers the top response with C = 1/(1-(1-p)^N). Worst-of-N covers pi_t, with \
                max pi/worst = p_top^-(N-1) for distinct rewards: exponential in N, and better as pi_t concentrates on the top. Best and \
                worst of the same N > 2 draws are dependent: Lemma 1 and Claim 1 do not apply to them.",
    formula: r"\max_y\frac{\pi(y)}{{\rm worst}_N(y)}=p_{\rm top}^{-(N-1)},\qquad C_{{\rm best}_N}=\frac1{1-(1-p_{\rm top})^N}",
    preconditions: &[
        "pi_t gives the top response some probability; distinct rewards, for the exact price",
        "the chi-square of pi_t against worst-of-N counted in the bound",
        "best and worst from different draws, or N = 2",
    ],
    tag: Tag::Assumption,
    section: "5, Remark 2",
    family: "random policies, |Y| <= 8, ties in half, N <= 12; every sequence of N <= 4 draws from up to 4 responses; log-linear \
             policies with two features",
    measure: |trials| {
        let [laws, best, worst] = trials.worst("enumeration", |draw| {
            let (bandit, pi) = tied(draw, 4)?;
            let n = draw.size(1, 4);
            let (joint, expected) = (best_and_worst(&pi, bandit.reward(), draws(n)), by_enumeration(&bandit, &pi, n));
            let (first, second) = joint.marginals();
            let error = (joint.joint() - &expected).fold(0.0, |m: f64, d| m.max(d.abs()));
            Ok([
                error,
                best_of(&pi, bandit.reward(), draws(n)).distance(&first),
                worst_of(&pi, bandit.reward(), draws(n)).distance(&second),
            ])
        })?;
        let [ratio, top, price] = trials.worst("coverage", |draw| {
            let (bandit, pi) = tied(draw, 8)?;
            let n = draw.size(1, 12);
            let high = best_of(&pi, bandit.reward(), draws(n));
            let distinct = Bandit::new(array![1.0], draw.normals((1, pi.prob().ncols())))?;
            let (star, p) = (distinct.best(), pi.prob()[[0, distinct.best()[0]]]);
            let star = Policy::pure(&star, pi.prob().ncols());
            let covers = coverage(&star, &best_of(&pi, distinct.reward(), draws(n)));
            let paid = coverage(&pi, &worst_of(&pi, distinct.reward(), draws(n)));
            let (covers_exactly, price) = (1.0 / -(n as f64 * (-p).ln_1p()).exp_m1(), p.powi(1 - n as i32));
            Ok([coverage(&high, &pi) / n as f64, (covers / covers_exactly - 1.0).abs(), (paid / price - 1.0).abs()])
        })?;
        let uniform = |arms: usize, n: usize| {
            let reward = Array2::from_shape_fn((1, arms), |(_, y)| y as f64);
            coverage(&Policy::uniform(1, arms), &worst_of(&Policy::uniform(1, arms), &reward, draws(n)))
        };
        let concentrated = {
            let pi = Policy::new("pi", array![[0.9, 0.06, 0.04]])?;
            coverage(&pi, &worst_of(&pi, &array![[2.0, 1.0, 0.0]], draws(5)))
        };
        let (covered, ignored) = hidden_error(20, 5)?;
        let findings = Findings::new()
            .measured(Quantity::at_most("joint law against every sequence of draws, probability", laws, 1e-12))
            .measured(Quantity::at_most("best-of-N against its marginal, probability", best, 1e-12))
            .measured(Quantity::at_most("worst-of-N against its marginal, probability", worst, 1e-12))
            .measured(Quantity::ratio("best/pi over N, worst", ratio))
            .measured(Quantity::at_most("C of best-of-N against its formula, relative", top, 1e-9))
            .measured(Quantity::at_most("max pi/worst against p_top^-(N-1), relative", price, 1e-9))
            .measured(Quantity::at_most("the same at p_top = 0.9, N = 5 (by hand 1.524)", concentrated, 1.53))
            .measured(Quantity::ratio(
                "error in the middle, chi-square counted: approximation term over bound",
                covered,
            ))
            .control(
                "coverage for free: |Y| = 5 uniform, N = 5",
                Quantity::at_least("max pi/worst (by hand 625)", uniform(5, 5), 624.99),
            )
            .control(
                "coverage for free: |Y| = 20 uniform, N = 5",
                Quantity::at_least("max pi/worst (by hand 160000)", uniform(20, 5), 159_999.0),
            )
            .control(
                "N5.3: worst-of-5 taken for pi_t, an error on the second best of 20 arms",
                Quantity::at_least("approximation term over sqrt(C eps), C = 1", ignored, 10.0),
            );
        same_draws(trials, findings)
    },
};

fn draws(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("at least one draw")
}

/// One context of 2 to `responses` responses and a policy; in half of the instances the rewards are few whole numbers.
fn tied(draw: &mut Draw, responses: usize) -> Result<(Bandit, Policy), InputError> {
    let count = draw.size(2, responses);
    let mut reward: Array2<f64> = draw.normals((1, count));
    if draw.chance(0.5) {
        reward.mapv_inplace(f64::round);
    }
    let bandit = Bandit::new(array![1.0], reward)?;
    let pi = draw.policy(&bandit);
    Ok((bandit, pi))
}

/// The joint law of best and worst `[1, y, y']` by going through every sequence of `n` draws.
fn by_enumeration(bandit: &Bandit, pi: &Policy, n: usize) -> Array3<f64> {
    let (responses, reward) = (bandit.responses(), bandit.reward());
    let mut joint = Array3::zeros((1, responses, responses));
    for code in 0..responses.pow(n as u32) {
        let drawn: Vec<usize> = (0..n).map(|i| code / responses.pow(i as u32) % responses).collect();
        let probability: f64 = drawn.iter().map(|&y| pi.prob()[[0, y]]).product();
        let level = |y: usize| reward[[0, y]];
        let high = drawn.iter().map(|&y| level(y)).fold(f64::NEG_INFINITY, f64::max);
        let low = drawn.iter().map(|&y| level(y)).fold(f64::INFINITY, f64::min);
        let fits = |&(b, w): &(usize, usize)| level(drawn[b]) == high && level(drawn[w]) == low && (b != w || n == 1);
        let pairs: Vec<_> = (0..n).flat_map(|b| (0..n).map(move |w| (b, w))).filter(fits).collect();
        for &(b, w) in &pairs {
            joint[[0, drawn[b], drawn[w]]] += probability / pairs.len() as f64;
        }
    }
    joint
}

/// N5.3: `y` is the worst of `n` draws from `arms` uniform arms with distinct rewards, `mu` plays the best arm, and the
/// predictor errs on the second best alone, which is hardly ever the worst. The approximation term over its bound with the
/// chi-square of worst-of-N, and over sqrt(C eps), C = 1.
fn hidden_error(arms: usize, n: usize) -> Result<(f64, f64), InputError> {
    let reward = Array2::from_shape_fn((1, arms), |(_, y)| -(y as f64));
    let (pi, star) = (Policy::uniform(1, arms), Policy::pure(&[0], arms));
    let first = worst_of(&pi, &reward, draws(n));
    let mut delta = Array2::zeros((1, arms));
    delta[[0, 1]] = 1.0;
    let weights = array![1.0];
    let eps = pair_error(&weights, &first, &star, &delta).total();
    let term = (pi.expectation(&delta) - star.expectation(&delta))[0];
    let bound = off_policy_misfit(&weights, &pi, (&first, &star), &star, eps);
    Ok((term / bound, term / eps.sqrt()))
}

/// N2.2: pairs of the best and the worst of the same draws, against Lemma 1 and against Claim 1.
fn same_draws(trials: &super::Trials, findings: Findings) -> Result<Findings, InputError> {
    const FIXED: usize = 400;
    let gaps = trials.each("same draws", FIXED, |draw| {
        let responses = draw.size(4, 6);
        let bandit = Bandit::new(array![1.0], draw.normals((1, responses)))?;
        let policy = LogLinear::new(draw.normals((1, responses, 2)), draw.normals(2) * 0.3)?;
        let fit: Array2<f64> = draw.normals((1, responses));
        let gap = |n: usize| -> Result<[f64; 2], InputError> {
            let law = best_and_worst(&policy.policy(), bandit.reward(), draws(n));
            Ok([lemma1_gap(&bandit, &law, &policy.policy(), &fit), claim1_gap(&bandit, &law, &policy)?])
        };
        let [two, four] = [gap(2)?, gap(4)?];
        Ok([two[1], four[0], four[1]])
    })?;
    let column = |i: usize| gaps.iter().map(|g| g[i]).collect::<Vec<_>>();
    Ok(findings
        .measured(Quantity::at_most(
            "N = 2 from the same draws is an independent pair: Claim 1's formula, relative",
            column(0).into_iter().fold(0.0, f64::max),
            1e-8,
        ))
        .control(
            "N2.2: best and worst of the same 4 draws, Lemma 1",
            Quantity::at_least("median relative error", median(&column(1)), 0.01),
        )
        .control(
            "N2.2: best and worst of the same 4 draws, Claim 1",
            Quantity::at_least("median relative error", median(&column(2)), 0.05),
        ))
}

/// How far the three terms of Lemma 1, from the marginals of `law`, are from its error on pairs, relative.
fn lemma1_gap(bandit: &Bandit, law: &PairLaw, pi: &Policy, fit: &Array2<f64>) -> f64 {
    let eps = pair_loss(bandit, law, pi, &tilt(pi, fit, 1.0), 1.0);
    let (first, second) = law.marginals();
    (pair_error(bandit.weights(), &first, &second, &(fit - bandit.reward())).total() / eps - 1.0).abs()
}

/// How far Claim 1's formula under the mean of the marginals is from the true least-squares step, relative.
fn claim1_gap(bandit: &Bandit, law: &PairLaw, policy: &LogLinear) -> Result<f64, InputError> {
    let (pi, scores) = (policy.policy(), policy.scores());
    let step: Array1<f64> = gauss_newton_step(bandit, law, scores.view(), 1.0)?.solution;
    let formula = natural_step(bandit, &pi, &law.mean_marginal(), scores.view(), 1.0)?.delta;
    let difference = &step - &formula;
    Ok((difference.dot(&difference) / step.dot(&step)).sqrt())
}
