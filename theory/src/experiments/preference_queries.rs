//! Reward model or self-play at equal numbers of preference queries (theory 6.9, 6.10; experiment E6.8).
//!
//! A query asks which of two responses is preferred. A learner spends its budget of them on one game of one context and
//! returns a policy, judged by its duality gap.

use crate::bandit::Policy;
use crate::error::InputError;
use crate::game::Game;
use crate::game::bradley_terry::Comparisons;
use crate::game::named::{bradley_terry_game, order_without_utility, rock_paper_scissors, with_dominated};
use crate::game::selfplay::{Run, best_eta, one_query_pairs, pairs_step, two_query_pairs};
use crate::solve::mirror::tilt;
use crate::solve::pairs::Pair;
use crate::statistics::{Estimate, mean_interval};
use ndarray::{Array1, Array2};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The penalty of every reward model: half of it on the square of each reward, against a comparison's log-likelihood.
pub const RIDGE: f64 = 0.5;

/// Policies `exp(etaT r)` a reward model may be followed to, beside its best response.
pub const TEMPERATURES: [f64; 3] = [1.0, 4.0, 16.0];

/// The games of the experiment, all of one context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preferences {
    /// Rock, paper, scissors with margins .9, .45, .225, and three responses that lose to these by .6.
    Cycle,
    /// Eight responses with random margins, a fixed draw.
    Intransitive,
    /// A utility: six responses, .5 apart, by Bradley and Terry.
    BradleyTerry,
    /// Three responses in a strict order that no utility gives.
    Order,
}

impl Preferences {
    /// Every game.
    pub const ALL: [Self; 4] = [Self::Cycle, Self::Intransitive, Self::BradleyTerry, Self::Order];

    /// The game itself.
    pub fn game(self) -> Result<Game, InputError> {
        match self {
            Self::Cycle => with_dominated(&rock_paper_scissors([0.9, 0.45, 0.225])?, 3, 0.6),
            Self::Intransitive => {
                let mut rng = ChaCha8Rng::seed_from_u64(8);
                let draw = Array2::from_shape_simple_fn((8, 8), || rng.random_range(-0.5..0.5));
                Game::single(&draw - &draw.t())
            }
            Self::BradleyTerry => bradley_terry_game(&Array1::from_shape_fn(6, |y| -0.5 * y as f64)),
            Self::Order => order_without_utility(),
        }
    }
}

/// How a policy is learned from pairs of the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Learner {
    /// Self-play REBEL: `y ~ pi_t`, `y'` uniform, both against one opponent; two queries a pair.
    TwoQueries,
    /// Online IPO: both from `pi_t`, against each other; one query a pair.
    OneQuery,
    /// A Bradley-Terry model of the current batch alone, both from `pi_t`; one query a pair.
    Refit,
}

impl Learner {
    /// Queries a pair takes.
    pub fn queries(self) -> usize {
        match self {
            Self::TwoQueries => 2,
            Self::OneQuery | Self::Refit => 1,
        }
    }

    /// Iterations that `queries` queries in batches of `pairs` pairs allow.
    pub fn iterations(self, queries: usize, pairs: usize) -> usize {
        (queries / (self.queries() * pairs)).max(1)
    }

    /// One step from `pi` on a fresh batch.
    fn step(
        self,
        game: &Game,
        pi: &Policy,
        pairs: usize,
        eta: f64,
        rng: &mut ChaCha8Rng,
    ) -> Result<Policy, InputError> {
        let uniform = || Policy::uniform(1, game.responses());
        match self {
            Self::TwoQueries => pairs_step(pi, two_query_pairs(game, pi, &uniform(), pairs, rng), eta),
            Self::OneQuery => pairs_step(pi, one_query_pairs(game, pi, pi, pairs, rng), eta),
            Self::Refit => {
                let batch = one_query_pairs(game, pi, pi, pairs, rng);
                let utility = wins(game.responses(), &batch)?.fit_ridge(RIDGE)?;
                // The utility is about twice the reward of self-play: E tanh(difference / 2) is the reward.
                Ok(tilt(pi, &utility.insert_axis(ndarray::Axis(0)), eta / 2.0))
            }
        }
    }
}

/// Who won how often, from pairs that were judged against each other.
fn wins(responses: usize, pairs: &[Pair]) -> Result<Comparisons, InputError> {
    let mut wins = Array2::zeros((responses, responses));
    for pair in pairs {
        let (won, lost) = if pair.label > 0.0 { (pair.first, pair.second) } else { (pair.second, pair.first) };
        wins[[won, lost]] += 1.0;
    }
    Comparisons::new(wins)
}

/// The duality gaps a run of self-play ends with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gaps {
    /// Of the average of its policies.
    pub average: f64,
    /// Of the last one.
    pub last: f64,
}

/// Spends `queries` queries on steps of size `eta` from the uniform policy, `pairs` pairs each.
pub fn play(
    game: &Game,
    learner: Learner,
    (queries, pairs): (usize, usize),
    eta: f64,
    rng: &mut ChaCha8Rng,
) -> Result<Gaps, InputError> {
    let mut run = Run::new(Policy::uniform(1, game.responses()));
    for _ in 0..learner.iterations(queries, pairs) {
        let next = learner.step(game, run.last(), pairs, eta, rng)?;
        run.advance(next);
    }
    Ok(Gaps { average: game.duality_gap(&run.average()), last: game.duality_gap(run.last()) })
}

/// The gap of the last iterate of two-query self-play held to the uniform policy at a price of `tau` a nat, by steps of size
/// `eta`, see [`crate::game::regularised`].
pub fn play_regularised(
    game: &Game,
    tau: f64,
    (queries, pairs): (usize, usize),
    eta: f64,
    rng: &mut ChaCha8Rng,
) -> Result<f64, InputError> {
    let uniform = Policy::uniform(1, game.responses());
    let mut pi = uniform.clone();
    for _ in 0..Learner::TwoQueries.iterations(queries, pairs) {
        let mut batch = two_query_pairs(game, &pi, &uniform, pairs, rng);
        for pair in &mut batch {
            // the price of both responses, which are equally likely under the reference
            pair.label -= tau * (pi.log()[[0, pair.first]] - pi.log()[[0, pair.second]]);
        }
        pi = pairs_step(&pi, batch, eta)?;
    }
    Ok(game.duality_gap(&pi))
}

/// The duality gaps of what follows from one reward model, fitted to `queries` comparisons of uniform pairs: its best response,
/// then the policies at each of [`TEMPERATURES`].
pub fn reward_model(game: &Game, queries: usize, rng: &mut ChaCha8Rng) -> Result<[f64; 4], InputError> {
    let uniform = Policy::uniform(1, game.responses());
    let comparisons = one_query_pairs(game, &uniform, &uniform, queries, rng);
    let utility = wins(game.responses(), &comparisons)?.fit_ridge(RIDGE)?.insert_axis(ndarray::Axis(0));
    let best = Policy::pure(&crate::bandit::best_responses(&utility), game.responses());
    let tempered = |eta_t: f64| game.duality_gap(&Policy::from_logits(&(&utility * eta_t)));
    let [low, middle, high] = TEMPERATURES.map(tempered);
    Ok([game.duality_gap(&best), low, middle, high])
}

/// What learners reach with one budget, duality gaps with 95% intervals over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Preference queries.
    pub queries: usize,
    /// Pairs of an iteration.
    pub pairs: usize,
    /// The best response to the reward model.
    pub model_best: Estimate,
    /// The reward model at the temperature that turned out best.
    pub model_tempered: Estimate,
    /// The average of two-query self-play.
    pub two_queries: Estimate,
    /// Its last iterate.
    pub two_queries_last: Estimate,
    /// The average of online IPO.
    pub one_query: Estimate,
    /// Its last iterate.
    pub one_query_last: Estimate,
    /// The average of refitted reward models.
    pub refit: Estimate,
}

/// Runs every learner on one game and budget, `seeds` times each; self-play with the step of the theory, [`best_eta`].
pub fn compare(
    preferences: Preferences,
    (queries, pairs): (usize, usize),
    seeds: std::ops::Range<u64>,
) -> Result<Budget, InputError> {
    let game = preferences.game()?;
    let seeds: Vec<u64> = seeds.collect();
    let model: Vec<[f64; 4]> = per_seed(&seeds, 0, |rng| reward_model(&game, queries, rng))?;
    let column = |i: usize| mean_interval(&model.iter().map(|gaps| gaps[i]).collect::<Vec<_>>());
    let tempered = (1..4).map(column).reduce(|a, b| if b.value < a.value { b } else { a }).expect("three temperatures");
    let both = |learner: Learner| -> Result<[Estimate; 2], InputError> {
        let eta = best_eta(game.responses(), learner.iterations(queries, pairs));
        let gaps = per_seed(&seeds, 1 + learner as u64, |rng| play(&game, learner, (queries, pairs), eta, rng))?;
        let of = |gap: fn(&Gaps) -> f64| mean_interval(&gaps.iter().map(gap).collect::<Vec<_>>());
        Ok([of(|gaps| gaps.average), of(|gaps| gaps.last)])
    };
    let [two_queries, two_queries_last] = both(Learner::TwoQueries)?;
    let [one_query, one_query_last] = both(Learner::OneQuery)?;
    let [refit, _] = both(Learner::Refit)?;
    Ok(Budget {
        queries,
        pairs,
        model_best: column(0),
        model_tempered: tempered,
        two_queries,
        two_queries_last,
        one_query,
        one_query_last,
        refit,
    })
}

/// One result a seed, in parallel; `stream` keeps the random numbers of different learners apart.
pub fn per_seed<T: Send>(
    seeds: &[u64],
    stream: u64,
    one: impl Fn(&mut ChaCha8Rng) -> Result<T, InputError> + Sync,
) -> Result<Vec<T>, InputError> {
    let run = |&seed: &u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        one(&mut rng)
    };
    seeds.par_iter().map(run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_is_spent_and_not_exceeded() {
        assert_eq!(Learner::TwoQueries.iterations(3000, 30), 50);
        assert_eq!(Learner::OneQuery.iterations(3000, 30), 100);
        assert_eq!(Learner::Refit.iterations(10, 30), 1);
    }

    #[test]
    fn utility_is_found_by_its_model_and_a_cycle_by_self_play() {
        let found = compare(Preferences::BradleyTerry, (3000, 30), 0..20).unwrap();
        assert!(found.model_best.value < 0.02 && found.two_queries.value > 0.1, "{found:?}");
        let found = compare(Preferences::Cycle, (3000, 30), 0..20).unwrap();
        assert!(found.model_best.value > 0.4 && found.one_query.value < 0.25, "{found:?}");
    }

    #[test]
    fn equal_seeds_give_equal_numbers() {
        let run = || compare(Preferences::Order, (300, 15), 3..6).unwrap();
        assert_eq!(run(), run());
    }
}
