//! The methods beside each other: one outer iteration of each as gradient descent on its own objective, over the pairs
//! that the current policy draws (theory 7).
//!
//! All see the same pairs; what differs is the objective and which numbers it is told. Rates are comparable: whatever the
//! method, the first inner step is the policy gradient times [`Settings::rate`] (for the last three to first order in the
//! rewards, and for signs where there are two levels of reward).

use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::objective::{self, Beta, Clip, Eta, Lambda};
use crate::policy::Softmax;
use crate::solve::descent::Batch;
use crate::solve::regression::PairLaw;
use ndarray::{Array2, Array3, ArrayD};
use serde::{Deserialize, Serialize};

/// What an inner loop minimises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Equation (1).
    Rebel,
    /// The clipped surrogate with exact advantages.
    Ppo,
    /// REINFORCE with leave-one-out baseline, both responses of a pair.
    Rloo,
    /// Regression of the log-ratio on exact advantages, reference and lambda being the current policy and `1/eta`.
    Apa,
    /// Regression of the log-ratio on exact win rates, where preferences follow Bradley-Terry on the reward.
    Sppo,
    /// Equation (21): DPO whose labels are signs of reward differences.
    IterativeDpo,
    /// DPO whose labels are drawn from Bradley-Terry on the reward.
    SampledDpo,
}

/// Settings of all methods.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Step size of REBEL and SPPO; the inverse of APA's lambda.
    pub eta: Eta,
    /// Inverse temperature of both forms of DPO.
    pub beta: Beta,
    /// PPO's clip.
    pub clip: Clip,
    /// The first inner step, in units of the policy gradient.
    pub rate: f64,
}

impl Settings {
    /// `eta = 1`, `beta = 1`, clip 0.2 and the given rate.
    pub fn standard(rate: f64) -> Result<Self, InputError> {
        Ok(Self { eta: Eta::new(1.0)?, beta: Beta::new(1.0)?, clip: Clip::new(0.2)?, rate })
    }
}

/// One outer iteration of a method: what it drew, and what it was told about it.
#[derive(Debug, Clone)]
pub struct Round {
    method: Method,
    batch: Batch,
    old: ArrayD<f64>,  // [pairs, 2]
    told: ArrayD<f64>, // [pairs, 2] rewards, advantages, win rates or outcomes
    range: f64,
}

/// Pairs that were drawn, and the outcome of comparing the two.
#[derive(Debug, Clone, PartialEq)]
pub struct Draws {
    /// Context of each pair, `[pairs]`.
    pub contexts: Vec<usize>,
    /// The two responses `[pairs, 2]`.
    pub responses: Array2<usize>,
    /// Whether the first was preferred `[pairs]`.
    pub first_won: Vec<bool>,
}

impl Round {
    /// The whole population: every pair of `pi x pi`, and every outcome, with its probability.
    pub fn population(method: Method, bandit: &Bandit, pi: &Policy) -> Result<Self, InputError> {
        if method != Method::SampledDpo {
            let batch = Batch::of_pairs(bandit.weights(), &PairLaw::independent(pi, pi));
            let told = batch.values(&told(method, bandit, pi));
            return Ok(Self::new(method, batch, bandit, pi, told));
        }
        let batch = Batch::of_pairs(bandit.weights(), &winner_and_loser(bandit, pi)?);
        let outcome = Array2::from_shape_fn((batch.groups(), 2), |(_, j)| if j == 0 { 1.0 } else { 0.0 });
        Ok(Self::new(method, batch, bandit, pi, outcome.into_dyn()))
    }

    /// A drawn batch of pairs.
    pub fn drawn(method: Method, bandit: &Bandit, pi: &Policy, draws: Draws) -> Result<Self, InputError> {
        let Draws { contexts, responses, first_won } = draws;
        let batch = Batch::drawn((bandit.contexts(), bandit.responses()), contexts, responses)?;
        let outcome = |(n, j): (usize, usize)| if first_won[n] == (j == 0) { 1.0 } else { 0.0 };
        let told = match method {
            Method::SampledDpo => Array2::from_shape_fn((batch.groups(), 2), outcome).into_dyn(),
            _ => batch.values(&told(method, bandit, pi)),
        };
        Ok(Self::new(method, batch, bandit, pi, told))
    }

    fn new(method: Method, batch: Batch, bandit: &Bandit, pi: &Policy, told: ArrayD<f64>) -> Self {
        let old = batch.values(pi.log());
        Self { method, batch, old, told, range: bandit.range() }
    }

    /// The gradient of the method's loss, averaged over pairs, in the parameters of `policy`.
    pub fn gradient<P: Softmax>(&self, policy: &P, settings: &Settings) -> Result<ndarray::Array1<f64>, InputError> {
        let Settings { eta, beta, clip, .. } = *settings;
        let evaluated = self.batch.evaluate(policy, |tape, new| {
            let (old, told) = (tape.input(self.old.clone()), tape.input(self.told.clone()));
            match self.method {
                Method::Rebel => objective::rebel(new, &old, &told, eta),
                Method::Ppo => {
                    let all = tape.input(ArrayD::ones(self.old.shape()));
                    objective::ppo_clip(new, &old, &told, &all, clip)
                }
                Method::Rloo => objective::rloo(new, &told),
                Method::Apa => objective::apa(new, &old, &told, Lambda::new(1.0 / eta.get())?),
                Method::Sppo => objective::sppo(new, &old, &told, eta),
                // Only the sign of what is told counts, and an outcome has the sign of who won.
                Method::IterativeDpo | Method::SampledDpo => objective::iterative_dpo(new, &old, &told, beta),
            }
        })?;
        Ok(evaluated.gradient)
    }

    /// One inner step of gradient descent.
    pub fn step<P: Softmax>(&self, policy: &P, settings: &Settings) -> Result<P, InputError> {
        let rate = settings.rate / self.first_slope(settings);
        Ok(policy.moved(&(self.gradient(policy, settings)? * -rate)))
    }

    /// The factor between the first gradient of the loss and minus the policy gradient.
    fn first_slope(&self, settings: &Settings) -> f64 {
        let (eta, beta) = (settings.eta.get(), settings.beta.get());
        match self.method {
            Method::Rebel => 4.0 / eta,
            Method::Ppo => 2.0, // a pair holds two responses
            Method::Rloo => 1.0,
            Method::Apa => 4.0 * eta,
            Method::Sppo => eta,
            Method::IterativeDpo => beta / self.range,
            Method::SampledDpo => beta / 2.0,
        }
    }
}

/// What a method is told about each response `[x, y]`; of outcomes of comparisons, nothing.
fn told(method: Method, bandit: &Bandit, pi: &Policy) -> Array2<f64> {
    match method {
        Method::Rebel | Method::Rloo | Method::IterativeDpo | Method::SampledDpo => bandit.reward().clone(),
        Method::Ppo | Method::Apa => bandit.advantage(pi),
        Method::Sppo => {
            let mut rate = Array2::zeros(bandit.reward().raw_dim());
            for ((x, y), rate) in rate.indexed_iter_mut() {
                let over = |z: usize| pi.prob()[[x, z]] * bradley_terry(bandit, x, y, z);
                *rate = (0..bandit.responses()).map(over).sum();
            }
            rate
        }
    }
}

/// The probability that `y` is preferred to `z`, Bradley-Terry on the reward: $$ \sigma(r(x,y)-r(x,z)) $$
pub fn bradley_terry(bandit: &Bandit, x: usize, y: usize, z: usize) -> f64 {
    1.0 / (1.0 + (bandit.reward()[[x, z]] - bandit.reward()[[x, y]]).exp())
}

/// The law of the preferred and the other response of a pair from `pi x pi`: $$ 2\,\pi(y)\,\pi(y')\,\sigma(r(y)-r(y')) $$
fn winner_and_loser(bandit: &Bandit, pi: &Policy) -> Result<PairLaw, InputError> {
    let (contexts, responses) = pi.prob().dim();
    let joint =
        |(x, y, z): (usize, usize, usize)| 2.0 * pi.prob()[[x, y]] * pi.prob()[[x, z]] * bradley_terry(bandit, x, y, z);
    PairLaw::new(Array3::from_shape_fn((contexts, responses, responses), joint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Tabular;
    use crate::solve::natural::policy_gradient;
    use approx::assert_abs_diff_eq;
    use ndarray::{Array1, array};

    const METHODS: [Method; 7] =
        [Method::Rebel, Method::Ppo, Method::Rloo, Method::Apa, Method::Sppo, Method::IterativeDpo, Method::SampledDpo];

    #[test]
    fn first_step_of_every_method_is_the_policy_gradient() {
        // two levels of reward, so that signs are differences; small, so that win rates are linear
        let bandit = Bandit::new(array![0.4, 0.6], array![[1e-4, 0.0, 0.0], [0.0, 1e-4, 0.0]]).unwrap();
        let start = Tabular::new(array![[0.3, 0.0, -0.4], [0.0, 0.2, 1.0]]).unwrap();
        let pi = start.policy();
        let expected: Array1<f64> = policy_gradient(&bandit, &pi, start.scores().view()) * 0.5;
        for method in METHODS {
            let round = Round::population(method, &bandit, &pi).unwrap();
            let moved = round.step(&start, &Settings::standard(0.5).unwrap()).unwrap();
            let step = moved.parameters() - start.parameters();
            assert_abs_diff_eq!(step, expected, epsilon = 1e-11);
        }
    }

    #[test]
    fn drawn_round_averages_over_its_pairs_and_reads_outcomes() {
        let bandit = Bandit::new(array![1.0], array![[1.0, 0.0]]).unwrap();
        let start = Tabular::new(array![[0.0, 0.0]]).unwrap();
        let draws = |first_won| Draws { contexts: vec![0, 0], responses: array![[0, 1], [1, 1]], first_won };
        let gradient = |method, won| {
            let round = Round::drawn(method, &bandit, &start.policy(), draws(won)).unwrap();
            round.gradient(&start, &Settings::standard(1.0).unwrap()).unwrap()
        };
        // one pair of two: REBEL -2 (g - g') / 2 = -(1, -1); DPO -(1/2) (g - g') / 2, by the winner
        assert_abs_diff_eq!(gradient(Method::Rebel, vec![false, true]), array![-1.0, 1.0], epsilon = 1e-15);
        assert_abs_diff_eq!(gradient(Method::SampledDpo, vec![true, true]), array![-0.25, 0.25], epsilon = 1e-15);
        assert_abs_diff_eq!(gradient(Method::SampledDpo, vec![false, true]), array![0.25, -0.25], epsilon = 1e-15);
        assert_abs_diff_eq!(gradient(Method::IterativeDpo, vec![false, true]), array![-0.25, 0.25], epsilon = 1e-15);
    }
}
