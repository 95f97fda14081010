//! Random instances: what a claim is measured on, each from its own stream.

use super::Settings;
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::policy::{LogLinear, Mlp};
use crate::solve::linear::singular;
use crate::solve::pairs::PredictorClass;
use crate::solve::regression::{PairLaw, pair_design};
use crate::solve::trajectory::Trajectory;
use ndarray::{Array, Array1, Array2, Axis, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// The instances of one claim under given settings.
#[derive(Debug, Clone, Copy)]
pub struct Trials {
    claim: &'static str,
    settings: Settings,
}

impl Trials {
    pub(super) fn new(claim: &'static str, settings: Settings) -> Self {
        Self { claim, settings }
    }

    /// The settings of the run.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Measures `count` instances in parallel, results in order. `stream` names the measurement within the claim.
    pub fn each<T: Send>(
        &self,
        stream: &str,
        count: usize,
        measure: impl Fn(&mut Draw) -> Result<T, InputError> + Sync,
    ) -> Result<Vec<T>, InputError> {
        let measure = |instance: usize| measure(&mut self.draw(stream, instance));
        (0..count).into_par_iter().map(measure).collect()
    }

    /// The largest of each of `N` numbers over all instances; NaN if any is.
    pub fn worst<const N: usize>(
        &self,
        stream: &str,
        measure: impl Fn(&mut Draw) -> Result<[f64; N], InputError> + Sync,
    ) -> Result<[f64; N], InputError> {
        let larger = |a: f64, b: f64| if a >= b || a.is_nan() { a } else { b };
        let all = self.each(stream, self.settings.instances, measure)?;
        let start = [f64::NEG_INFINITY; N];
        Ok(all.iter().fold(start, |worst, one| std::array::from_fn(|i| larger(worst[i], one[i]))))
    }

    /// The instance of that number: its random stream depends on seed, claim, measurement and number, on nothing else.
    fn draw(&self, stream: &str, instance: usize) -> Draw {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.settings.seed.to_le_bytes());
        key[8..16].copy_from_slice(&fnv(self.claim).to_le_bytes());
        key[16..24].copy_from_slice(&fnv(stream).to_le_bytes());
        key[24..].copy_from_slice(&(instance as u64).to_le_bytes());
        Draw { rng: ChaCha8Rng::from_seed(key), instance, scale: if self.settings.thorough { 2 } else { 1 } }
    }
}

/// The FNV-1a hash of a name: stable across machines and versions, as the standard library's is not.
fn fnv(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// How the features of a log-linear policy are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Features {
    /// Independent normal, fewer than would represent every reward.
    Generic,
    /// Generic with one feature a combination of two others: a singular Fisher matrix.
    Collinear,
    /// More features than `|X|(|Y|-1)`: every reward is representable, the parameters are not determined.
    Wide,
}

/// One random instance in the making.
#[derive(Debug, Clone)]
pub struct Draw {
    rng: ChaCha8Rng,
    instance: usize,
    scale: usize,
}

impl Draw {
    /// The number of the instance: to go through the members of a family in turn.
    pub fn instance(&self) -> usize {
        self.instance
    }

    /// The instance's random numbers, for samplers.
    pub fn rng(&mut self) -> &mut ChaCha8Rng {
        &mut self.rng
    }

    /// A standard normal number.
    pub fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.rng)
    }

    /// A number from `[low, high)`.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        self.rng.random_range(low..high)
    }

    /// A whole number from `low..=high`.
    pub fn size(&mut self, low: usize, high: usize) -> usize {
        self.rng.random_range(low..=high)
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    /// A step size between 0.05 and 3, uniform in its logarithm.
    pub fn eta(&mut self) -> f64 {
        self.uniform(0.05f64.ln(), 3f64.ln()).exp()
    }

    /// Independent standard normal numbers in any shape.
    pub fn normals<Sh: ndarray::ShapeBuilder>(&mut self, shape: Sh) -> Array<f64, Sh::Dim> {
        Array::from_shape_simple_fn(shape, || StandardNormal.sample(&mut self.rng))
    }

    /// A bandit of 1 to `contexts` contexts and 2 to `responses` responses (twice that in a thorough run), normal
    /// rewards. One in eight has a tie for the best response, one in eight a context of weight zero.
    pub fn bandit(&mut self, contexts: usize, responses: usize) -> Bandit {
        let shape = (self.size(1, contexts * self.scale), self.size(2, responses * self.scale));
        let mut reward: Array2<f64> = self.normals(shape);
        if self.chance(0.125) {
            let best = reward.map_axis(Axis(1), |row| row.fold(f64::NEG_INFINITY, |m, &r| m.max(r)));
            reward.slice_mut(s![.., 0]).assign(&best);
        }
        let mut weights: Array1<f64> = self.normals(shape.0).mapv(f64::exp);
        if shape.0 > 1 && self.chance(0.125) {
            weights[0] = 0.0;
        }
        weights /= weights.sum();
        Bandit::new(weights, reward).expect("normalised weights, finite rewards")
    }

    /// A policy of full support: the softmax of normal logits.
    pub fn policy(&mut self, bandit: &Bandit) -> Policy {
        Policy::from_logits(&self.normals((bandit.contexts(), bandit.responses())))
    }

    /// A policy that misses each response with probability 1/3, but never all of a context.
    pub fn partial_policy(&mut self, bandit: &Bandit) -> Policy {
        let mut logits: Array2<f64> = self.normals((bandit.contexts(), bandit.responses()));
        for mut row in logits.rows_mut() {
            let kept = self.size(0, row.len() - 1);
            for (y, logit) in row.iter_mut().enumerate() {
                if y != kept && self.chance(1.0 / 3.0) {
                    *logit = f64::NEG_INFINITY;
                }
            }
        }
        Policy::from_logits(&logits)
    }

    /// A sampling law within the support of `policy`: half the time a random one, half the time a point mass.
    pub fn law_within(&mut self, policy: &Policy) -> Policy {
        let point = self.chance(0.5);
        let mut logits = policy.log().mapv(|l| if l > f64::NEG_INFINITY { 0.0 } else { l });
        for mut row in logits.rows_mut() {
            let noise: Array1<f64> = self.normals(row.len());
            row += &noise;
            if point {
                let top = row.fold(f64::NEG_INFINITY, |m, &s| m.max(s));
                row.mapv_inplace(|s| if s == top { 0.0 } else { f64::NEG_INFINITY });
            }
        }
        Policy::from_logits(&logits)
    }

    /// A log-linear policy with the given kind of features.
    pub fn log_linear(&mut self, bandit: &Bandit, features: Features) -> LogLinear {
        let (contexts, responses) = (bandit.contexts(), bandit.responses());
        let full = contexts * (responses - 1);
        let d = match features {
            Features::Generic => self.size(1, full.clamp(2, 6) - 1),
            Features::Collinear => self.size(3, 6),
            Features::Wide => full + self.size(1, 4),
        };
        let mut phi = self.normals((contexts, responses, d));
        if features == Features::Collinear {
            let combined = &phi.slice(s![.., .., 0]) - &(&phi.slice(s![.., .., 1]) * 2.0);
            phi.slice_mut(s![.., .., d - 1]).assign(&combined);
        }
        let theta = self.normals(d) * 0.3;
        LogLinear::new(phi, theta).expect("finite features")
    }

    /// A network policy with `inputs` features and `hidden` units.
    pub fn mlp(&mut self, bandit: &Bandit, inputs: usize, hidden: usize) -> Mlp {
        let features = self.normals((bandit.contexts(), bandit.responses(), inputs));
        let (w1, b1, w2) = (self.normals((hidden, inputs)), self.normals(hidden) * 0.3, self.normals(hidden));
        Mlp::new(features, w1, b1, w2, 0.1).expect("finite weights")
    }
}

/// The largest error of `eps = eps_approx + eps_sampling`, relative to `1 + eps`, over the iterations of a run of `class`.
///
/// Only where the population's spectrum has a gap: elsewhere it is rounding that decides which directions the best predictor
/// has, and the split with it.
pub(super) fn split_error(
    weights: &Array1<f64>,
    class: &PredictorClass,
    trajectory: &Trajectory,
) -> Result<f64, InputError> {
    let mut worst: f64 = 0.0;
    for (t, (one, fit)) in trajectory.iterations().iter().zip(trajectory.fits()).enumerate() {
        let bandit = Bandit::new(weights.clone(), one.reward.clone())?;
        let law = PairLaw::independent(&one.policy, trajectory.second(t));
        let (design, _) = pair_design(&bandit, &law, class.features().view());
        if has_spectral_gap(&design, 1e-6)? {
            let eps = fit.error.total();
            worst = worst.max((eps - fit.approximation - fit.sampling).abs() / (1.0 + eps));
        }
    }
    Ok(worst)
}

/// Whether the squared singular values of a pair design are clearly kept (at least `kept` of the largest) or clearly zero
/// (at most 1e-16 of it), so that every sensible cutoff agrees on the rank.
pub(super) fn has_spectral_gap(design: &Array2<f64>, kept: f64) -> Result<bool, InputError> {
    let squares = singular("design", design)?.s.mapv(|s| s * s);
    let largest = squares.fold(0.0, |m: f64, &v| m.max(v));
    Ok(squares.iter().all(|&v| v >= kept * largest || v <= 1e-16 * largest))
}
