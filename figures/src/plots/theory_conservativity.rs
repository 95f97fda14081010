//! How far one exact step can move a policy (experiment E1.3): with reward range $$ \Delta $$ and $$ s=\eta\Delta $$,
//! $$ \mathrm{KL}\le Z-1-\ln Z\le s^2/8 $$ in both directions, where $$ Z=s/(1-e^{-s}) $$.
//!
//! Random instances stay below, an instance of two reward levels lies on the bound. The control puts twice the standard
//! deviation of the reward in the place of its range: the bound is then broken, so it is the range that counts.

use ndarray::{Array2, array};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rebel_theory::bandit::Policy;
use rebel_theory::solve::mirror::tilt;
use rebel_theory::solve::rates::tilt_bound;
use serde::{Deserialize, Serialize};

use crate::chart::Plot;
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::Role;

/// One line.
pub const SHOWS: &str = "KL of one exact step against its sharp bound";
/// The claims it shows.
pub const CLAIMS: &[&str] = &["conservativity"];
/// Seeds of the random instances.
pub const SEEDS: u64 = 100;
const RESPONSES: [usize; 4] = [2, 3, 10, 50];

/// What the figure shows, for each range `s`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Step size times reward range, `[s]`.
    pub s: Vec<f64>,
    /// The sharp bound, nats, `[s]`.
    pub sharp: Vec<f64>,
    /// KL(next || current) of the instance that attains it, `[s]`.
    pub attained: Vec<f64>,
    /// Largest KL of any random instance, in either direction, `[s]`.
    pub largest: Vec<f64>,
    /// Median KL of the random instances, both directions together, `[s]`.
    pub median: Vec<f64>,
    /// Smallest, `[s]`.
    pub smallest: Vec<f64>,
    /// The sharp bound with 2 eta times the standard deviation under the current policy in the place of `s`, for the attaining instance,
    /// `[s]`.
    pub by_deviation: Vec<f64>,
}

/// A random instance of one context: a policy whose probabilities spread over two orders of magnitude, and rewards
/// `[1, y]` that fill [0, 1].
fn instance(seed: u64) -> (Policy, Array2<f64>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let responses = RESPONSES[(seed % 4) as usize];
    let mut reward = Array2::from_shape_simple_fn((1, responses), || rng.random::<f64>());
    let (low, high) = reward.iter().fold((1.0f64, 0.0f64), |(low, high), &r| (low.min(r), high.max(r)));
    reward.mapv_inplace(|r| (r - low) / (high - low));
    let logits = Array2::from_shape_simple_fn((1, responses), || 5.0 * rng.random::<f64>());
    (Policy::from_logits(&logits), reward)
}

/// Takes one exact step on every instance for every range.
pub fn data() -> Data {
    let instances: Vec<_> = (0..SEEDS).map(instance).collect();
    let two_levels = array![[1.0, 0.0]];
    let mut data = Data::default();
    for s in (0..=48).map(|k| 10f64.powf(-1.0 + f64::from(k) / 16.0)) {
        let bound = tilt_bound(s);
        let start = Policy::from_logits(&array![[bound.mass.ln(), (-bound.mass).ln_1p()]]);
        data.s.push(s); // 0.1 to 100
        data.sharp.push(bound.sharp);
        data.attained.push(tilt(&start, &two_levels, s).kl(&start)[0]);
        let deviation = (bound.mass * (1.0 - bound.mass)).sqrt();
        data.by_deviation.push(tilt_bound(2.0 * s * deviation).sharp);
        let mut moved: Vec<f64> = instances
            .iter()
            .flat_map(|(policy, reward)| {
                let next = tilt(policy, reward, s);
                [next.kl(policy)[0], policy.kl(&next)[0]]
            })
            .collect();
        moved.sort_by(f64::total_cmp);
        data.smallest.push(moved[0]);
        data.median.push(rebel_theory::statistics::median(&moved));
        data.largest.push(moved[moved.len() - 1]);
    }
    data
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let over = |values: &[f64], by: &dyn Fn(usize) -> f64| -> Vec<(f64, f64)> {
        values.iter().enumerate().map(|(i, v)| (data.s[i], v / by(i))).collect()
    };
    let band = |by: &dyn Fn(usize) -> f64| -> Vec<(f64, f64, f64)> {
        (0..data.s.len()).map(|i| (data.s[i], data.smallest[i] / by(i), data.largest[i] / by(i))).collect()
    };
    let every = |points: Vec<(f64, f64)>, n: usize| -> Vec<(f64, f64)> { points.into_iter().step_by(n).collect() };
    let hoeffding = |i: usize| data.s[i].powi(2) / 8.0;
    let sharp = |i: usize| data.sharp[i];
    let measured = Role::Measured.ink();
    let x = "s = step size × reward range";

    let left = Plot::new(x, "KL / (s²/8)")
        .title("Against Hoeffding's s²/8")
        .log_x()
        .y_range(0.0, 1.1)
        .named_band(measured, "100 random instances", &band(&hoeffding))
        .line(measured, "their median", &over(&data.median, &hoeffding))
        .line(Role::Bound, "Z − 1 − ln Z", &over(&data.sharp, &hoeffding))
        .points(measured.hollow(), "two reward levels", &every(over(&data.attained, &hoeffding), 4));
    let control: Vec<(f64, f64)> =
        (0..data.s.len()).map(|i| (data.s[i], data.attained[i] / data.by_deviation[i])).collect();
    let right = Plot::new(x, "KL / bound")
        .title("Against the sharp bound")
        .log_x()
        .y_range(0.0, 1.6)
        .legend_above()
        .band(measured, &band(&sharp))
        .line(measured, "median", &over(&data.median, &sharp))
        .points(measured.hollow(), "two reward levels", &every(over(&data.attained, &sharp), 4))
        .line(Role::Control, "control: range replaced by 2 s.d.", &control)
        .level(Role::Bound, 1.0, "bound");
    let note = "One exact step, KL in both directions. Random instances: 2 to 50 responses, rewards filling their range; the \
                band is from the smallest to the largest of all seeds, not an interval of a mean. Z = s/(1 − e⁻ˢ).";
    Sheet::row(vec![left, right]).title("How far one exact step can move the policy").note(note).draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_instance_passes_the_sharp_bound_and_one_attains_it() {
        let data = data();
        for i in 0..data.s.len() {
            let (s, sharp) = (data.s[i], data.sharp[i]);
            assert!(data.largest[i] <= sharp * (1.0 + 1e-9), "s = {s}: {} > {sharp}", data.largest[i]);
            assert!(sharp <= s * s / 8.0 * (1.0 + 1e-9));
            assert!((data.attained[i] / sharp - 1.0).abs() < 1e-9, "s = {s}: {} of {sharp}", data.attained[i]);
        }
        let broken = (0..data.s.len()).filter(|&i| data.attained[i] > 1.5 * data.by_deviation[i]).count();
        assert!(broken > 10, "the control should break the bound");
    }
}
