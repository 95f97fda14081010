//! Claim 34 of the table: every objective's value and slope, from one definition each.

use super::{Claim, Draw, Features, Findings, Quantity, Tag};
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::objective::tape::Tape;
use crate::objective::{Eta, NAMES, by_name, rebel};
use crate::policy::{Softmax, Tabular};
use crate::solve::descent::Batch;
use crate::solve::mirror::tilt;
use crate::solve::natural::natural_step;
use crate::solve::regression::PairLaw;
use crate::statistics::{largest, median};
use ndarray::{Array1, ArrayD, Axis, Slice};

pub(super) const CLAIM: Claim = Claim {
    id: "objectives",
    title: "Every objective is one function, and its slope is its derivative",
    statement: "For each of the fifteen objectives the tape's value is the value over arrays, its slopes are finite differences, and \
                the sum over two halves of a batch is that of the whole. At theta_t the gradient of (1) is -(4/eta) E_mix[g A], \
                the first step of REBEL a plain policy gradient. The published loss is eta^2 times (1): the same minimiser, \
                gradients that differ by eta^2.",
    formula: r"\nabla_\theta L\big|_{\theta_t}=-\tfrac2\eta E\big[(g-g^\prime)(r-r^\prime)\big]=-\tfrac4\eta E_{\rm mix}[g\,A]",
    preconditions: &["away from kinks, or on the side of a kink whose slope is stated"],
    tag: Tag::True,
    section: "0, 7",
    family: "fifteen objectives, 1 to 6 random pairs, ties and masked tokens among them; log-linear policies, |X| <= 3, |Y| <= 5",
    measure: |trials| {
        let [slope, value, pieces] = trials.worst("objectives", all_objectives)?;
        let [first, minimiser] =
            trials.worst("rebel", |draw| Ok([first_gradient(draw)?, gradient_at_the_tilt(draw)?]))?;
        let scaled = trials.each("scaling", 100, published_scaling)?;
        let (displacement, after): (Vec<f64>, Vec<f64>) = scaled.into_iter().unzip();
        Ok(Findings::new()
            .measured(Quantity::at_most("slopes against differences, relative, worst objective", slope, 1e-6))
            .measured(Quantity::at_most("tape against arrays, value", value, 0.0))
            .measured(Quantity::at_most("two halves against the whole, relative", pieces, 1e-13))
            .measured(Quantity::at_most("first gradient of REBEL against -(4/eta) E_mix[g A], relative", first, 1e-11))
            .measured(Quantity::at_most("gradient of REBEL at the tilt, over its first", minimiser, 1e-11))
            .control(
                "the published loss, eta = 1/2, the same learning rate: its first step",
                Quantity::at_most("over that of (1), against eta^2", largest(&displacement), 1e-12),
            )
            .control(
                "the published loss, eta = 1/2, the same learning rate: five inner steps",
                Quantity::at_most("median KL over that of (1)", median(&after), 0.5),
            ))
    },
};

/// The worst error of the slopes, of the tape's value, and of adding up two halves, over every objective on one batch.
fn all_objectives(draw: &mut Draw) -> Result<[f64; 3], InputError> {
    let pairs = draw.size(1, 6);
    let mut inputs: [ArrayD<f64>; 4] = [0; 4].map(|_| draw.normals((pairs, 2)).into_dyn());
    inputs[3].mapv_inplace(|v| if v > -1.0 { 1.0 } else { 0.0 });
    if draw.chance(0.25) {
        // One response twice: equal log-probabilities and tied rewards, where log-sigmoids and signs have their middle.
        inputs.iter_mut().take(3).for_each(|array| array[[0, 1]] = array[[0, 0]]);
    }
    let mut worst = [0.0f64; 3];
    for name in NAMES {
        let at = |inputs: &[ArrayD<f64>; 4]| by_name(name, inputs.each_ref()).map(|loss| loss.sum());
        let tape = Tape::new();
        let on_tape = inputs.each_ref().map(|array| tape.input(array.clone()));
        let loss = by_name(name, on_tape.each_ref())?;
        let slopes = tape.cotangents(&loss)?.of(&on_tape[0]);
        let value = at(&inputs)?;
        for (index, &slope) in slopes.indexed_iter() {
            // On either side, to second order: the batch may sit on a kink.
            let side = |h: f64| {
                let moved = |steps: f64| {
                    let mut inputs = inputs.clone();
                    inputs[0][index.clone()] += steps * h;
                    at(&inputs)
                };
                Ok::<f64, InputError>((4.0 * moved(1.0)? - moved(2.0)? - 3.0 * value) / (2.0 * h))
            };
            let error = (slope - side(1e-5)?).abs().min((slope - side(-1e-5)?).abs());
            worst[0] = worst[0].max(error / (1.0 + slope.abs()));
        }
        worst[1] = worst[1].max((value - loss.value().sum()).abs());
        let cut = pairs / 2;
        let part = |slice: Slice| inputs.each_ref().map(|array| array.slice_axis(Axis(0), slice).to_owned());
        let halves = at(&part(Slice::from(..cut)))? + at(&part(Slice::from(cut..)))?;
        worst[2] = worst[2].max((halves - value).abs() / (1.0 + value.abs()));
    }
    Ok(worst)
}

/// The gradient of REBEL's population loss, pairs from `law`, at `policy`; `old` is the sampled policy.
fn rebel_gradient<P: Softmax>(
    batch: &Batch,
    old: &ArrayD<f64>,
    reward: &ArrayD<f64>,
    policy: &P,
    eta: f64,
) -> Result<Array1<f64>, InputError> {
    let eta = Eta::new(eta)?;
    let evaluated =
        batch.evaluate(policy, |tape, new| rebel(new, &tape.input(old.clone()), &tape.input(reward.clone()), eta))?;
    Ok(evaluated.gradient)
}

fn size(vector: &Array1<f64>) -> f64 {
    vector.dot(vector).sqrt()
}

/// The relative distance of the first gradient from Claim 1's moment of scores and advantages under the mixture.
fn first_gradient(draw: &mut Draw) -> Result<f64, InputError> {
    let bandit = draw.bandit(3, 5);
    let policy = draw.log_linear(&bandit, Features::Generic);
    let (pi, eta) = (policy.policy(), draw.eta());
    let mu = draw.law_within(&pi);
    let batch = Batch::of_pairs(bandit.weights(), &PairLaw::independent(&pi, &mu));
    let (old, reward) = (batch.values(pi.log()), batch.values(bandit.reward()));
    let gradient = rebel_gradient(&batch, &old, &reward, &policy, eta)?;
    let expected = natural_step(&bandit, &pi, &pi.mixture(&mu, 0.5), policy.scores().view(), eta)?.b * (-4.0 / eta);
    Ok(size(&(gradient - &expected)) / (size(&expected) + 1.0 / eta))
}

/// The gradient at the tilt over the one at the sampled policy, which is of the order of 1/eta.
fn gradient_at_the_tilt(draw: &mut Draw) -> Result<f64, InputError> {
    let bandit = draw.bandit(3, 5);
    let (pi, eta) = (draw.policy(&bandit), draw.eta());
    let batch = Batch::of_pairs(bandit.weights(), &PairLaw::independent(&pi, &pi));
    let (old, reward) = (batch.values(pi.log()), batch.values(bandit.reward()));
    let at = |policy: &Policy| {
        let policy = Tabular::new(policy.log().clone())?;
        rebel_gradient(&batch, &old, &reward, &policy, eta).map(|gradient| size(&gradient))
    };
    Ok(at(&tilt(&pi, bandit.reward(), eta))? / (at(&pi)? + 1.0 / eta))
}

/// With eta = 1/2 and one learning rate for both: how far the ratio of the first steps of the published loss and of (1) is
/// from eta^2, and the ratio of their KL after five steps.
fn published_scaling(draw: &mut Draw) -> Result<(f64, f64), InputError> {
    const ETA: f64 = 0.5;
    // Where rewards are tied in every context that has weight, both steps are zero.
    let gains = |bandit: &Bandit| {
        bandit.optimum() - bandit.value(&Policy::uniform(bandit.contexts(), bandit.responses())) > 0.05
    };
    let bandit = std::iter::repeat_with(|| draw.bandit(3, 5)).find(gains).expect("one comes");
    let start = Tabular::new(draw.normals((bandit.contexts(), bandit.responses())))?;
    let pi = start.policy();
    let batch = Batch::of_pairs(bandit.weights(), &PairLaw::independent(&pi, &pi));
    let (old, reward) = (batch.values(pi.log()), batch.values(bandit.reward()));
    // The curvature of (1) is at most 8/eta^2 in these logits.
    let run = |factor: f64, steps: usize| {
        let mut policy = start.clone();
        for _ in 0..steps {
            let gradient = rebel_gradient(&batch, &old, &reward, &policy, ETA)?;
            policy = policy.moved(&(gradient * (-factor * ETA * ETA / 8.0)));
        }
        Ok::<_, InputError>(policy)
    };
    let step = |factor: f64| Ok::<_, InputError>(size(&(run(factor, 1)?.parameters() - start.parameters())));
    let after = |factor: f64| Ok::<_, InputError>(bandit.kl(&run(factor, 5)?.policy(), &pi));
    Ok(((step(ETA * ETA)? / step(1.0)? - ETA * ETA).abs(), after(ETA * ETA)? / after(1.0)?))
}
