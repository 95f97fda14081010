//! Algorithms that draw a batch of pairs, move a softmax policy, and draw again: REBEL, and RLOO on the same batches.

use super::{Play, Regrets};
use crate::bandit::Policy;
use crate::error::{self, InputError};
use crate::sample::Sampler;
use crate::solve::pairs::{Pair, PairBatch, PredictorClass};
use crate::solve::trajectory::{Rebel, SecondLaw};
use ndarray::Array1;
use rand::Rng;

/// Plain policy gradient with the other response's reward as baseline, both responses on policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Rloo<'a> {
    class: &'a PredictorClass,
    eta: f64,
}

impl<'a> Rloo<'a> {
    /// Gradient ascent with steps `eta > 0` on the logits that `class` predicts.
    pub fn new(class: &'a PredictorClass, eta: f64) -> Result<Self, InputError> {
        Ok(Self { class, eta: error::positive("eta", eta)? })
    }

    /// One step on a batch of `N > 0` pairs, for the parameters `theta` `[k]` of the logits:
    ///
    /// $$ \theta\mathrel{+}=\frac\eta{2N}\sum_n(r_n-r'_n)\,(\phi(y_n)-\phi(y'_n)) $$
    pub fn step(&self, theta: &mut Array1<f64>, batch: &PairBatch) {
        theta.scaled_add(self.eta / (2.0 * batch.pairs().len() as f64), &self.class.moment(batch));
    }
}

/// What a batch algorithm does with its batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Update<'a> {
    /// The regression.
    Rebel(Rebel<'a>),
    /// The policy gradient.
    Rloo(Rloo<'a>),
}

/// An algorithm of batches: the parameters of its logits and what it does with `pairs` pairs an iteration.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchPlayer<'a> {
    class: &'a PredictorClass,
    second: &'a SecondLaw,
    update: Update<'a>,
    pairs: usize,
    theta: Array1<f64>, // [k]
    policy: Policy,
}

impl<'a> BatchPlayer<'a> {
    /// REBEL from the uniform policy, `pairs` pairs an iteration.
    pub fn rebel(rebel: Rebel<'a>, pairs: usize) -> Self {
        Self::start(rebel.class(), rebel.second(), Update::Rebel(rebel), pairs)
    }

    /// RLOO from the uniform policy, `pairs` pairs an iteration.
    pub fn rloo(rloo: Rloo<'a>, pairs: usize) -> Self {
        Self::start(rloo.class, &SecondLaw::Current, Update::Rloo(rloo), pairs)
    }

    fn start(class: &'a PredictorClass, second: &'a SecondLaw, update: Update<'a>, pairs: usize) -> Self {
        let policy = Policy::uniform(class.contexts(), class.responses());
        Self { class, second, update, pairs, theta: Array1::zeros(class.parameters()), policy }
    }

    /// The current policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// One iteration: draws a batch, then moves the policy.
    pub fn iterate(&mut self, play: &mut Play<impl Rng>) -> Result<(), InputError> {
        let first = Sampler::new(&self.policy);
        let batch = match self.second {
            SecondLaw::Fixed(mu) => draw_pairs(play, &first, &Sampler::new(mu), self.pairs)?,
            SecondLaw::Current => draw_pairs(play, &first, &first, self.pairs)?,
        };
        match &self.update {
            Update::Rebel(rebel) => drop(rebel.step(&mut self.theta, &batch)?),
            Update::Rloo(rloo) => rloo.step(&mut self.theta, &batch),
        }
        self.policy = Policy::from_logits(&self.class.predict(&self.theta));
        Ok(())
    }

    /// Plays on until each of the increasing numbers of queries `checkpoints`, which should be multiples of a batch's
    /// queries, and returns its regrets there.
    pub fn play(&mut self, play: &mut Play<impl Rng>, checkpoints: &[usize]) -> Result<Vec<Regrets>, InputError> {
        let mut until = |checkpoint: &usize| {
            while play.queries() < *checkpoint {
                self.iterate(play)?;
            }
            Ok(Regrets { last: play.env().regret(&self.policy), paid: play.paid_regret() })
        };
        checkpoints.iter().map(&mut until).collect()
    }
}

/// Draws `count` contexts, for each `y ~ first` and `y' ~ second`, and queries both rewards: the labels are their
/// differences.
pub fn draw_pairs(
    play: &mut Play<impl Rng>,
    first: &Sampler,
    second: &Sampler,
    count: usize,
) -> Result<PairBatch, InputError> {
    let mut one = || {
        let x = play.context();
        let (y, z) = (first.at(x, play.uniform()), second.at(x, play.uniform()));
        let label = play.query(x, y) - play.query(x, z);
        Pair { context: x, first: y, second: z, label }
    };
    let pairs = (0..count).map(|_| one()).collect();
    let (contexts, responses) = play.env().bandit().reward().dim();
    PairBatch::new(contexts, responses, pairs)
}

#[cfg(test)]
mod tests {
    use super::super::tests::easy;
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn play_of(update: impl Fn(usize) -> Vec<Regrets>) -> f64 {
        (0..20).map(|seed| update(seed)[1].last).sum::<f64>() / 20.0
    }

    #[test]
    fn step_of_rloo_is_the_policy_gradient_of_its_batch() {
        let class = PredictorClass::tabular(1, 3);
        let pair = |first, second, label| Pair { context: 0, first, second, label };
        let batch = PairBatch::new(1, 3, vec![pair(0, 1, 1.0), pair(2, 0, -1.0)]).unwrap();
        let mut theta = Array1::zeros(3);
        Rloo::new(&class, 2.0).unwrap().step(&mut theta, &batch);
        assert_abs_diff_eq!(theta, array![1.0, -0.5, -0.5], epsilon = 1e-15);
    }

    #[test]
    fn one_pair_a_batch_makes_rebel_and_rloo_the_same() {
        let (class, second, env) = (PredictorClass::tabular(1, 3), SecondLaw::Current, easy());
        let mut rebel = BatchPlayer::rebel(Rebel::new(env.bandit().weights(), &class, &second, 0.7, 0.0).unwrap(), 1);
        let mut rloo = BatchPlayer::rloo(Rloo::new(&class, 0.7).unwrap(), 1);
        for player in [&mut rebel, &mut rloo] {
            let mut play = Play::new(&env, ChaCha8Rng::seed_from_u64(3));
            player.play(&mut play, &[400]).unwrap();
        }
        assert!(rebel.policy().distance(rloo.policy()) < 1e-13);
        assert!(rebel.policy().distance(&Policy::uniform(1, 3)) > 0.1);
    }

    #[test]
    fn both_find_the_best_arm() {
        let (class, env) = (PredictorClass::tabular(1, 3), easy());
        let uniform = SecondLaw::Fixed(Policy::uniform(1, 3));
        let play = |seed: usize| Play::new(&env, ChaCha8Rng::seed_from_u64(seed as u64));
        let rebel = play_of(|seed| {
            let rebel = Rebel::new(env.bandit().weights(), &class, &uniform, 1.0, 0.0).unwrap();
            BatchPlayer::rebel(rebel, 50).play(&mut play(seed), &[100, 2000]).unwrap()
        });
        let rloo = play_of(|seed| {
            let rloo = Rloo::new(&class, 10.0).unwrap();
            BatchPlayer::rloo(rloo, 50).play(&mut play(seed), &[100, 2000]).unwrap()
        });
        assert!(rebel < 0.01 && rloo < 0.02, "{rebel} {rloo}");
    }
}
