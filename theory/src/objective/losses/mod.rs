//! The objectives themselves, one function each, to be minimised; by what they do, in four files.
//!
//! The tests here hold every objective to the same three demands: the tape computes the value that arrays compute, its
//! slopes are central differences, and candle agrees with both; on kinks each slope is the one that is stated.

mod policy_gradient;
mod preference;
mod regression;
mod supervised;

pub use policy_gradient::{ppo_clip, ppo_clip_without_min, ppo_value, ppo_value_clipped, reinforce, rloo};
pub use preference::{dpo, ipo, iterative_dpo};
pub use regression::{apa, rebel, rebel_preference, sppo};
pub use supervised::{bradley_terry, cross_entropy};

use super::{Arith, ArithError, Beta, Clip, Eta, Lambda, Tau};

/// The name of every objective, as [`by_name`] knows it.
pub(crate) const NAMES: [&str; 15] = [
    "rebel",
    "rebel_preference",
    "apa",
    "sppo",
    "dpo",
    "ipo",
    "iterative_dpo",
    "reinforce",
    "rloo",
    "ppo_clip",
    "ppo_clip_without_min",
    "ppo_value",
    "ppo_value_clipped",
    "cross_entropy",
    "bradley_terry",
];

/// The objective called `name`, with fixed settings, at log-probabilities (or scores, or values) `x` `[pairs, 2]`; `a` and
/// `b` are its other inputs and `mask` what counts: the one door through which whatever holds for all is checked for all.
pub(crate) fn by_name<A: Arith>(name: &str, [x, a, b, mask]: [&A; 4]) -> Result<A, A::Error> {
    let (eta, beta, clip) = (Eta::new(0.7)?, Beta::new(0.3)?, Clip::new(0.25)?);
    match name {
        "rebel" => rebel(x, a, b, eta),
        "rebel_preference" => rebel_preference(x, a, b, eta),
        "apa" => apa(x, a, b, Lambda::new(1.3)?),
        "sppo" => sppo(x, a, b, eta),
        "dpo" => dpo(x, a, beta),
        "ipo" => ipo(x, a, Tau::new(0.4)?),
        "iterative_dpo" => iterative_dpo(x, a, b, beta),
        "reinforce" => reinforce(x, a, b),
        "rloo" => rloo(x, b),
        "ppo_clip" => ppo_clip(x, a, b, mask, clip),
        "ppo_clip_without_min" => ppo_clip_without_min(x, a, b, mask, clip),
        "ppo_value" => ppo_value(x, b, mask),
        "ppo_value_clipped" => ppo_value_clipped(x, a, b, mask, clip),
        "cross_entropy" => cross_entropy(x, mask),
        "bradley_terry" => bradley_terry(x),
        _ => Err(ArithError::Shape(format!("no objective is called {name}")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tape::Tape;
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::ArrayD;

    pub(super) fn pairs(values: &[[f64; 2]]) -> ArrayD<f64> {
        ndarray::Array2::from(values.to_vec()).into_dyn()
    }

    pub(super) fn eta(value: f64) -> Eta {
        Eta::new(value).unwrap()
    }

    /// Four pairs; the second sits where every log-sigmoid has margin 0 and every ratio is 1, and has tied rewards; the
    /// others leave PPO's clip on both sides, with advantages of both signs. One token does not count.
    fn instance() -> [ArrayD<f64>; 4] {
        [
            pairs(&[[-1.0, -2.5], [0.3, 0.3], [-3.0, 1.0], [-0.5, -1.0]]),
            pairs(&[[-1.1, -2.0], [0.3, 0.3], [1.0, -2.0], [-1.0, -1.75]]),
            pairs(&[[0.2, 1.0], [1.0, 1.0], [-0.5, 0.25], [-2.0, 0.5]]),
            pairs(&[[1.0, 1.0], [1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]),
        ]
    }

    /// An objective's name, an instance that sits on a kink of it, and the slope that is stated for it there.
    type Kink = (&'static str, [ArrayD<f64>; 4], ArrayD<f64>);

    fn kinks() -> Vec<Kink> {
        let ones = || pairs(&[[1.0, 1.0]]);
        let at_the_clip = |advantage: f64| {
            // the exponentials of these logarithms are exactly 1.25 and 0.75
            let ratio = pairs(&[[1.25f64.ln(), 0.75f64.ln()]]);
            assert_eq!(ratio.mapv(f64::exp), pairs(&[[1.25, 0.75]]));
            [ratio, pairs(&[[0.0, 0.0]]), pairs(&[[advantage, advantage]]), ones()]
        };
        let value =
            |value: f64, target: f64| [pairs(&[[value, value]]), pairs(&[[0.0, 0.0]]), pairs(&[[target; 2]]), ones()];
        vec![
            // inside: minus the ratio times the advantage, for both signs of the advantage
            ("ppo_clip", at_the_clip(1.0), pairs(&[[-1.25, -0.75]])),
            ("ppo_clip", at_the_clip(-1.0), pairs(&[[1.25, 0.75]])),
            ("ppo_clip_without_min", at_the_clip(1.0), pairs(&[[-1.25, -0.75]])),
            // the value has moved by exactly the clip: both errors are one, and so are their slopes
            ("ppo_value_clipped", value(0.25, 1.0), pairs(&[[-0.75, -0.75]])),
            // the free and the clipped value are equally far from the target: half of v - R, the other half is flat
            ("ppo_value_clipped", value(0.75, 0.5), pairs(&[[0.125, 0.125]])),
        ]
    }

    fn value_and_slope(name: &str, instance: &[ArrayD<f64>; 4]) -> (f64, ArrayD<f64>) {
        let tape = Tape::new();
        let inputs = instance.each_ref().map(|array| tape.input(array.clone()));
        let loss = by_name(name, inputs.each_ref()).unwrap();
        (loss.value().sum(), tape.cotangents(&loss).unwrap().of(&inputs[0]))
    }

    /// The one-sided slopes in entry `i`, below and above.
    fn sides(name: &str, instance: &[ArrayD<f64>; 4], i: usize) -> [f64; 2] {
        let at = |h: f64| {
            let mut moved = instance.clone();
            moved[0].as_slice_mut().unwrap()[i] += h;
            by_name(name, moved.each_ref()).unwrap().sum()
        };
        // of second order: a step of 1e-5 leaves an error of 1e-10
        [-1e-5, 1e-5].map(|h| (4.0 * at(h) - at(2.0 * h) - 3.0 * at(0.0)) / (2.0 * h))
    }

    #[test]
    fn tape_equals_arrays_in_value_and_differences_from_both_sides_in_slope() {
        let instance = instance();
        for name in NAMES {
            let (value, slope) = value_and_slope(name, &instance);
            assert_eq!(value, by_name(name, instance.each_ref()).unwrap().sum(), "{name}");
            for (i, slope) in slope.iter().enumerate() {
                for side in sides(name, &instance, i) {
                    assert!((slope - side).abs() < 1e-7, "{name}[{i}]: {slope} against {side}");
                }
            }
        }
    }

    #[test]
    fn slope_on_a_kink_is_the_stated_one_and_lies_between_those_of_both_sides() {
        for (name, instance, stated) in kinks() {
            let (_, slope) = value_and_slope(name, &instance);
            assert_abs_diff_eq!(slope, stated, epsilon = 1e-15);
            for (i, slope) in slope.iter().enumerate() {
                let [below, above] = sides(name, &instance, i);
                assert!(below.min(above) - 1e-7 < *slope && *slope < below.max(above) + 1e-7, "{name}[{i}]");
            }
        }
    }

    #[cfg(feature = "candle")]
    #[test]
    fn candle_equals_the_tape_in_value_and_slope_kinks_included() {
        use candle_core::{Device, Tensor, Var as Tracked};
        let tensor = |x: &ArrayD<f64>| Tensor::from_slice(x.as_slice().unwrap(), x.shape(), &Device::Cpu).unwrap();
        let smooth = NAMES.iter().map(|&name| (name, instance()));
        for (name, instance) in smooth.chain(kinks().into_iter().map(|(name, instance, _)| (name, instance))) {
            let inputs = instance.each_ref().map(tensor);
            let x = Tracked::from_tensor(&inputs[0]).unwrap();
            let loss = by_name(name, [x.as_tensor(), &inputs[1], &inputs[2], &inputs[3]]).unwrap();
            let slope = loss.backward().unwrap().get(&x).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let (value, expected) = value_and_slope(name, &instance);
            assert_abs_diff_eq!(loss.to_scalar::<f64>().unwrap(), value, epsilon = 1e-13);
            assert_abs_diff_eq!(slope.as_slice(), expected.as_slice().unwrap(), epsilon = 1e-13);
        }
    }
}
