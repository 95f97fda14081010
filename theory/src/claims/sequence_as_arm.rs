//! Claim 35 of the table: the tilt of whole sequences is soft policy iteration over their prefixes.

use super::{Claim, Draw, Findings, Quantity, Tag, over_bound};
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::policy::Autoregressive;
use crate::solve::mirror::{log_normaliser, tilt};
use crate::solve::rates::tilt_bound;
use crate::solve::regression::{PairLaw, exact_rebel};
use crate::statistics::median;
use ndarray::{Array1, Array2, Axis};
use std::ops::RangeInclusive;

pub(super) const CLAIM: Claim = Claim {
    id: "sequence-as-arm",
    title: "A sequence of tokens is one arm",
    statement: "The tilt (3) of whole sequences has the conditionals pi(a|s) E_pi[e^(eta r) | s, a] up to a factor of s: soft \
                policy iteration, with root value (1/eta) ln Z. KL of sequences is the sum over positions of the expected KL \
                of tokens, prefixes drawn from the new policy; ln|Y| = H ln V.",
    formula: r"\pi^\prime(a|s)\propto\pi(a|s)\,E_\pi\big[e^{\eta r}\big|s,a\big],\qquad \mathrm{KL}(\pi^\prime\|\pi)=\sum_{h<H}E_{s\sim\pi^\prime}\mathrm{KL}(\pi^\prime(\cdot|s)\|\pi(\cdot|s))",
    preconditions: &["one softmax for every prefix", "tokens follow each other without chance between them"],
    tag: Tag::True,
    section: "8.1",
    family: "V = 2..7 tokens, H = 2..8 positions, V^H <= 2401 (16807 when thorough), normal logits and rewards, eta 0.05..3; \
             regressions V^H <= 16",
    measure: |trials| {
        let most = if trials.settings().thorough { 16807 } else { 2401 };
        let [sequence, conditional, root, chain, size, conservative] = trials.worst("enumeration", |draw| {
            let (policy, reward) = instance(draw, 2..=7, 2..=8, most)?;
            let eta = draw.eta();
            let new = policy.tilted(&reward, eta)?;
            let (old_arms, new_arms) = (policy.sequence(), new.sequence());
            let table = reward.clone().insert_axis(Axis(0)); // [1, y]
            let enumerated = tilt(&old_arms, &table, eta);
            let soft = policy.soft_values(&reward, eta)?.root;
            let kl = new_arms.kl(&old_arms)[0];
            let first = reward.iter().enumerate().fold(0, |best, (y, &r)| if r > reward[best] { y } else { best });
            let uniform = Policy::uniform(1, policy.sequences());
            let ln_size = Policy::pure(&[first], policy.sequences()).kl(&uniform)[0];
            let range = Bandit::new(Array1::ones(1), table.clone())?.range();
            let to_nearest = |a: f64, b: f64| (a - b).abs() / b.abs().max(1.0);
            Ok([
                new_arms.distance(&enumerated),
                conditionals_of(&enumerated, &policy)
                    .iter()
                    .zip(new.conditionals())
                    .fold(0.0, |m: f64, (counted, pi)| m.max((counted - pi.prob()).fold(0.0, |m, d| m.max(d.abs())))),
                to_nearest(soft, log_normaliser(&old_arms, &table, eta)[0] / eta),
                to_nearest(new.kl_by_position(&policy).iter().sum(), kl),
                to_nearest(ln_size, policy.length() as f64 * (policy.vocabulary() as f64).ln()),
                over_bound(kl, tilt_bound(eta * range).sharp),
            ])
        })?;
        let [regression] = trials.worst("regression", |draw| {
            let (policy, reward) = instance(draw, 2..=4, 2..=4, 16)?;
            let (eta, arms) = (draw.eta(), policy.sequence());
            let bandit = Bandit::new(Array1::ones(1), reward.clone().insert_axis(Axis(0)))?;
            let law = PairLaw::independent(&arms, &draw.law_within(&arms));
            let fitted = exact_rebel(&bandit, &law, &arms, eta)?;
            Ok([fitted.distance(&policy.tilted(&reward, eta)?.sequence())])
        })?;
        let broken = trials.each("broken", CONTROLS, |draw| {
            let (policy, reward) = instance(draw, 2..=4, 2..=4, 64)?;
            let new = policy.tilted(&reward, 1.0)?;
            let kl = new.sequence().kl(&policy.sequence())[0];
            let under_old: f64 = new.kl_under(&policy, &policy).iter().sum();
            let gap = policy.soft_values(&reward, 1.0)?.root - policy.values(&reward)?.root;
            Ok(((under_old - kl).abs() / kl, gap))
        })?;
        let (under_old, gaps): (Vec<f64>, Vec<f64>) = broken.into_iter().unzip();
        Ok(Findings::new()
            .measured(Quantity::at_most("sequences against the enumerated tilt, probability", sequence, 1e-12))
            .measured(Quantity::at_most(
                "conditionals against those counted from the enumerated tilt",
                conditional,
                1e-11,
            ))
            .measured(Quantity::at_most("root soft value against (1/eta) ln Z, relative", root, 1e-12))
            .measured(Quantity::at_most("KL of sequences against its sum over positions, relative", chain, 1e-11))
            .measured(Quantity::at_most("KL(one sequence || uniform) against H ln V, relative", size, 1e-12))
            .measured(Quantity::ratio("KL over its sharp bound at the range of whole sequences", conservative))
            .measured(Quantity::at_most(
                "REBEL's exact regression on pairs of sequences, probability",
                regression,
                1e-9,
            ))
            .control(
                "prefixes drawn from the old policy",
                Quantity::at_least("median relative error of the chain rule", median(&under_old), 0.02),
            )
            .control(
                "ordinary values in the place of soft ones",
                Quantity::at_least("median (1/eta) ln Z - J at eta = 1, reward", median(&gaps), 0.1),
            ))
    },
};

/// Instances of a control, whatever the number of instances of the measurement.
pub(super) const CONTROLS: usize = 200;

/// A random policy over sequences and rewards `[V^H]`, sizes from these ranges with positions left out until there are at
/// most `most` sequences.
pub(super) fn instance(
    draw: &mut Draw,
    vocabulary: RangeInclusive<usize>,
    length: RangeInclusive<usize>,
    most: usize,
) -> Result<(Autoregressive, Array1<f64>), InputError> {
    let vocabulary = draw.size(*vocabulary.start(), *vocabulary.end());
    let length = draw.size(*length.start(), *length.end());
    let fits = |h: &u32| vocabulary.checked_pow(*h).is_some_and(|sequences| sequences <= most);
    let length = (1..=length as u32).take_while(fits).last().unwrap_or(1);
    let logits: Vec<Array2<f64>> = (0..length).map(|h| draw.normals((vocabulary.pow(h), vocabulary))).collect();
    Ok((Autoregressive::new(vocabulary, &logits)?, draw.normals(vocabulary.pow(length))))
}

/// For each position the conditionals `[V^h, V]` of a law of whole sequences, by adding up the sequences with a prefix.
fn conditionals_of(law: &Policy, like: &Autoregressive) -> Vec<Array2<f64>> {
    let masses = |prefixes: usize| {
        let rows = law.prob().to_shape((prefixes, law.prob().len() / prefixes)).expect("a power of V");
        rows.sum_axis(Axis(1))
    };
    let table = |pi: &Policy| {
        let shape = pi.prob().dim();
        let joint = masses(shape.0 * shape.1).into_shape_with_order(shape).expect("V continuations a prefix");
        let sums = joint.sum_axis(Axis(1)).insert_axis(Axis(1));
        joint / &sums
    };
    like.conditionals().iter().map(table).collect()
}
