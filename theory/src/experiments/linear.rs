//! The problem the sampled experiments on estimation run on: a log-linear policy, and a reward that its features express
//! but for a part of a given size.

use crate::bandit::{Bandit, Policy};
use crate::error::{self, InputError};
use crate::policy::{LogLinear, Softmax};
use crate::sample::{ContextSampler, Sampler};
use crate::solve::decomposition::pair_error;
use crate::solve::finite_sample::Pairs;
use crate::solve::natural::natural_step;
use ndarray::{Array, Array1, Array2, Array3, ShapeBuilder};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Contexts, responses and features of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// `|X|`.
    pub contexts: usize,
    /// `|Y|`.
    pub responses: usize,
    /// The number of features, `d`.
    pub features: usize,
}

/// A log-linear policy, a reward $$ r=\phi^\top w+e $$, and samplers of on-policy pairs.
#[derive(Debug, Clone)]
pub struct LinearProblem {
    /// Contexts and reward.
    pub bandit: Bandit,
    /// The policy the pairs are drawn from, with its features.
    pub policy: LogLinear,
    /// Its distribution.
    pub pi: Policy,
    /// Its scores `[x, y, k]`.
    pub scores: Array3<f64>,
    /// The best coefficients, `w` `[k]`.
    pub w: Array1<f64>,
    contexts: ContextSampler,
    responses: Sampler,
}

impl LinearProblem {
    /// A problem of that size with standard normal features and `w`, a policy not far from uniform, and a part `e` of the
    /// reward that no coefficients express and whose error on pairs is `floor`.
    ///
    /// # Errors
    /// A size of zero, a negative `floor`, or features that express everything where `floor` is above 0.
    pub fn new(size: Size, floor: f64, seed: u64) -> Result<Self, InputError> {
        error::not_negative("floor", floor)?;
        let mut rng = stream(seed, 0);
        let shape = (size.contexts, size.responses);
        let phi = normals((shape.0, shape.1, size.features), &mut rng);
        let policy = LogLinear::new(phi, normals(size.features, &mut rng) * (0.5 / (size.features as f64).sqrt()))?;
        let w: Array1<f64> = normals(size.features, &mut rng);
        let (pi, scores) = (policy.policy(), policy.scores());
        let weights = Array1::from_elem(shape.0, 1.0 / shape.0 as f64);
        let expressed = policy.at(w.view()).logits();
        let raw = Bandit::new(weights, normals(shape, &mut rng))?;
        let reward = if floor > 0.0 { expressed + beyond(&raw, &policy, floor)? } else { expressed };
        let bandit = raw.with_reward(reward)?;
        let (contexts, responses) = (ContextSampler::new(bandit.weights()), Sampler::new(&pi));
        Ok(Self { bandit, policy, pi, scores, w, contexts, responses })
    }

    /// `n` independent on-policy pairs.
    pub fn pairs(&self, n: usize, rng: &mut impl Rng) -> Pairs {
        Pairs::draw(&self.contexts, &self.responses, &self.responses, n, rng)
    }

    /// One context.
    pub fn context(&self, rng: &mut impl Rng) -> usize {
        self.contexts.draw(rng)
    }

    /// One response to a context.
    pub fn response(&self, x: usize, rng: &mut impl Rng) -> usize {
        self.responses.draw(x, rng)
    }

    /// The error `[x, y]` of the predictor with coefficients `w` `[k]`: $$ \Delta=\phi^\top w-r $$
    pub fn deviation(&self, w: &Array1<f64>) -> Array2<f64> {
        self.policy.at(w.view()).logits() - self.bandit.reward()
    }

    /// Its mean square on fresh on-policy pairs, the $$ \epsilon $$ of Assumption 1.
    pub fn error(&self, w: &Array1<f64>) -> f64 {
        pair_error(self.bandit.weights(), &self.pi, &self.pi, &self.deviation(w)).total()
    }
}

/// What the features of `policy` leave of the reward of `raw`, scaled so that its error on on-policy pairs is `floor`, `[x, y]`.
fn beyond(raw: &Bandit, policy: &LogLinear, floor: f64) -> Result<Array2<f64>, InputError> {
    let pi = policy.policy();
    let fit = natural_step(raw, &pi, &pi, policy.scores().view(), 1.0)?.delta; // Claim 1: the regression's minimiser
    let left = raw.reward() - &policy.at(fit.view()).logits();
    let size = pair_error(raw.weights(), &pi, &pi, &left).total();
    if size < 1e-9 {
        let expected = "0, where the features express every reward";
        return Err(InputError::Domain { argument: "floor", value: floor, expected });
    }
    Ok(left * (floor / size).sqrt())
}

/// The random stream of one repetition of an experiment.
pub(crate) fn stream(seed: u64, repetition: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(repetition);
    rng
}

/// Independent standard normal numbers in any shape.
pub(crate) fn normals<Sh: ShapeBuilder>(shape: Sh, rng: &mut impl Rng) -> Array<f64, Sh::Dim> {
    Array::from_shape_simple_fn(shape, || StandardNormal.sample(rng))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { contexts: 3, responses: 6, features: 4 };

    #[test]
    fn floor_is_the_error_of_the_best_coefficients() {
        let problem = LinearProblem::new(SIZE, 0.25, 1).unwrap();
        assert!((problem.error(&problem.w) - 0.25).abs() < 1e-12);
        for k in 0..4 {
            let moved = Array1::from_shape_fn(4, |i| problem.w[i] + if i == k { 0.01 } else { 0.0 });
            assert!(problem.error(&moved) > 0.25, "feature {k}");
        }
        assert!(LinearProblem::new(SIZE, 0.0, 1).unwrap().error(&problem.w) < 1e-28);
    }

    #[test]
    fn floor_that_cannot_be_is_refused() {
        let wide = Size { contexts: 1, responses: 3, features: 4 };
        assert!(LinearProblem::new(wide, 0.1, 1).is_err() && LinearProblem::new(wide, 0.0, 1).is_ok());
        assert!(LinearProblem::new(SIZE, -1.0, 1).is_err());
        assert!(LinearProblem::new(Size { contexts: 0, ..SIZE }, 0.0, 1).is_err());
    }
}
