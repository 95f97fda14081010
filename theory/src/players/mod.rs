//! Bandit algorithms side by side, each charged for every reward it queries (theory 5.2).
//!
//! * [`Play`]: a bandit of Bernoulli rewards in play; it counts queries and what they cost;
//! * [`Player`]s query one arm at a time: [`Ucb1`], [`Exp3`], [`LinUcb`], [`Explore`] (uniform queries, then commit);
//! * [`batch`]: those that query pairs and then move a policy: REBEL and RLOO.
//!
//! Two numbers say how one did. The *last* regret is that of the policy it ends with; the *paid* regret is the mean gap
//! of all responses it queried, of which Theorem 1 says nothing.

pub mod batch;
mod exp3;
mod explore;
mod lin_ucb;
mod ucb1;

pub use exp3::Exp3;
pub use explore::Explore;
pub use lin_ucb::LinUcb;
pub use ucb1::Ucb1;

use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::sample::ContextSampler;
use ndarray::Array2;
use rand::Rng;

/// A bandit whose rewards are coin flips with these means.
#[derive(Debug, Clone, PartialEq)]
pub struct Bernoulli {
    bandit: Bandit,
    contexts: ContextSampler,
    gap: Array2<f64>, // [x, y]
}

impl Bernoulli {
    /// The Bernoulli bandit whose means are the rewards of `bandit`, each in `[0, 1]`.
    pub fn new(bandit: Bandit) -> Result<Self, InputError> {
        for ((x, y), &value) in bandit.reward().indexed_iter() {
            let (argument, index) = ("means", vec![x, y]);
            if value < 0.0 {
                return Err(InputError::Negative { argument, index, value });
            }
            if value > 1.0 {
                return Err(InputError::AboveOne { argument, index, value });
            }
        }
        let best = bandit.best();
        let gap = |(x, y)| bandit.reward()[[x, best[x]]] - bandit.reward()[[x, y]];
        let gap = Array2::from_shape_fn(bandit.reward().raw_dim(), gap);
        Ok(Self { contexts: ContextSampler::new(bandit.weights()), bandit, gap })
    }

    /// Its means and context weights.
    pub fn bandit(&self) -> &Bandit {
        &self.bandit
    }

    /// The regret of a policy: $$ J^*-J(\pi) $$
    pub fn regret(&self, pi: &Policy) -> f64 {
        self.bandit.average(&pi.expectation(&self.gap))
    }
}

/// A Bernoulli bandit in play.
#[derive(Debug, Clone)]
pub struct Play<'a, R> {
    env: &'a Bernoulli,
    rng: R,
    noisy: bool,
    queries: usize,
    paid: f64,
}

impl<'a, R: Rng> Play<'a, R> {
    /// Starts to play `env` with the random numbers of `rng`.
    pub fn new(env: &'a Bernoulli, rng: R) -> Self {
        Self { env, rng, noisy: true, queries: 0, paid: 0.0 }
    }

    /// The same, but every query answers with the mean: what is left is the luck of what is drawn.
    pub fn noiseless(env: &'a Bernoulli, rng: R) -> Self {
        Self { noisy: false, ..Self::new(env, rng) }
    }

    /// What is played.
    pub fn env(&self) -> &'a Bernoulli {
        self.env
    }

    /// A uniform number from `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        self.rng.random()
    }

    /// The next context.
    pub fn context(&mut self) -> usize {
        if self.env.bandit.contexts() == 1 { 0 } else { self.env.contexts.draw(&mut self.rng) }
    }

    /// Queries the reward of a response: 0 or 1, or its mean if there is no noise.
    pub fn query(&mut self, x: usize, y: usize) -> f64 {
        self.queries += 1;
        self.paid += self.env.gap[[x, y]];
        let mean = self.env.bandit.reward()[[x, y]];
        match self.noisy {
            true => f64::from(u8::from(self.uniform() < mean)),
            false => mean,
        }
    }

    /// Rewards queried so far.
    pub fn queries(&self) -> usize {
        self.queries
    }

    /// The mean gap of all responses queried so far; not a number before the first.
    pub fn paid_regret(&self) -> f64 {
        self.paid / self.queries as f64
    }
}

/// An algorithm that queries one response at a time.
pub trait Player {
    /// The response it queries in context `x`; `u` is a uniform number for those that choose at random.
    fn choose(&mut self, x: usize, u: f64) -> usize;

    /// Learns the reward of what it chose.
    fn observe(&mut self, x: usize, y: usize, reward: f64);

    /// The policy it would keep if it had to stop now.
    fn recommend(&self) -> Policy;
}

/// The regrets of a player at some number of queries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Regrets {
    /// Regret of the policy it would keep.
    pub last: f64,
    /// Mean gap of all responses queried.
    pub paid: f64,
}

/// Lets a player play on until each of the increasing numbers of queries `checkpoints`, and returns its regrets there.
pub fn play(player: &mut (impl Player + ?Sized), play: &mut Play<impl Rng>, checkpoints: &[usize]) -> Vec<Regrets> {
    let mut until = |checkpoint: &usize| {
        while play.queries() < *checkpoint {
            let (x, u) = (play.context(), play.uniform());
            let y = player.choose(x, u);
            let reward = play.query(x, y);
            player.observe(x, y, reward);
        }
        Regrets { last: play.env().regret(&player.recommend()), paid: play.paid_regret() }
    };
    checkpoints.iter().map(&mut until).collect()
}

/// The index of the largest of some numbers; among equal maxima the first. NaN is never it, unless it comes first.
fn first_maximum(values: impl IntoIterator<Item = f64>) -> usize {
    let larger = |(best, top): (usize, f64), (k, v): (usize, f64)| if v > top { (k, v) } else { (best, top) };
    values.into_iter().enumerate().reduce(larger).map_or(0, |(best, _)| best)
}

/// The index a uniform number `u` stands for under the distribution `p`: the first at which the running sum is above
/// `u`, or the last with any probability where rounding leaves the sum below.
fn pick(p: &[f64], u: f64) -> usize {
    let mut sum = 0.0;
    let above = p.iter().position(|&p| {
        sum += p;
        sum > u
    });
    above.unwrap_or_else(|| p.iter().rposition(|&p| p > 0.0).unwrap_or(0))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ndarray::array;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// One context, means .4 but the first, which is .9.
    pub(crate) fn easy() -> Bernoulli {
        Bernoulli::new(Bandit::new(array![1.0], array![[0.9, 0.4, 0.4]]).unwrap()).unwrap()
    }

    #[test]
    fn means_beyond_one_are_refused_by_their_index() {
        let bandit = |r: f64| Bandit::new(array![1.0], array![[0.5, r]]).unwrap();
        let error = Bernoulli::new(bandit(1.5)).unwrap_err();
        assert_eq!(error.to_string(), "means[0, 1]: 1.5 is above 1 (expected a probability)");
        assert!(Bernoulli::new(bandit(-0.1)).is_err());
    }

    #[test]
    fn every_query_is_charged_its_gap() {
        let env = easy();
        let mut play = Play::new(&env, ChaCha8Rng::seed_from_u64(0));
        (0..3).for_each(|y| assert!([0.0, 1.0].contains(&play.query(0, y))));
        assert_eq!(play.queries(), 3);
        assert!((play.paid_regret() - 1.0 / 3.0).abs() < 1e-15);
        assert!((env.regret(&Policy::uniform(1, 3)) - 1.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn uniform_number_is_picked_from_its_interval() {
        let at = [0.0, 0.24, 0.25, 0.99, 1.0].map(|u| pick(&[0.0, 0.25, 0.0, 0.75, 0.0], u));
        assert_eq!(at, [1, 1, 3, 3, 3]);
        assert_eq!(first_maximum([1.0, 3.0, 3.0]), 1);
    }

    #[test]
    fn players_that_learn_find_the_best_arm_and_pay_less_than_uniform_queries() {
        let env = easy();
        let table = || crate::solve::pairs::PredictorClass::tabular(1, 3);
        let exp3 = Exp3::new(1, 3, (2.0 * 3f64.ln() / (3.0 * 2000.0)).sqrt()).unwrap();
        let linear = LinUcb::new(&table(), 1.0, 1.0).unwrap();
        let players: [(Box<dyn Player>, bool); 4] = [
            (Box::new(Ucb1::new(1, 3)), true),
            (Box::new(exp3), true),
            (Box::new(linear), true),
            (Box::new(Explore::new(&table())), false),
        ];
        for (k, (mut player, learns)) in players.into_iter().enumerate() {
            let mut play = Play::new(&env, ChaCha8Rng::seed_from_u64(7));
            let regrets = super::play(player.as_mut(), &mut play, &[20, 2000]);
            assert_eq!(play.queries(), 2000);
            assert!(regrets[1].last < 0.05, "player {k}: {regrets:?}");
            assert_eq!(regrets[1].paid < 0.2, learns, "player {k}: {regrets:?}");
        }
    }
}
