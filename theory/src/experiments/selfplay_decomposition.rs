//! Self-play REBEL from binary feedback, taken apart: what of the duality gap is regret, what misfit, what noise
//! (theory 6.4, 6.8; E6.4, E6.7, N6.4).

use super::stream;
use crate::bandit::Policy;
use crate::bounds::{Worst, theorem2};
use crate::error::InputError;
use crate::game::Game;
use crate::sample::{ContextSampler, Sampler};
use crate::solve::pairs::{Pair, PairBatch, PredictorClass};
use crate::solve::trajectory::{Rebel, SecondLaw, Trajectory, run};
use crate::statistics::{Estimate, mean, mean_interval};
use ndarray::{Array1, Array2, Array3};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Rock-paper-scissors whose three margins are .9, .45 and .225, with three options that lose to each of them by .6 and
/// tie among themselves, as margins `[y, y']`.
pub fn weighted_cycle() -> Array2<f64> {
    let mut margin = Array2::zeros((6, 6));
    let mut beats = |y: usize, z: usize, by: f64| {
        margin[[y, z]] = by;
        margin[[z, y]] = -by;
    };
    beats(0, 1, 0.9);
    beats(1, 2, 0.45);
    beats(2, 0, 0.225);
    for winner in 0..3 {
        (3..6).for_each(|loser| beats(winner, loser, 0.6));
    }
    margin
}

/// A game, the predictors that play it, and the law of the second response.
#[derive(Debug, Clone, PartialEq)]
pub struct SelfPlay {
    /// The game.
    pub game: Game,
    /// The predictors.
    pub class: PredictorClass,
    /// The law of the second response.
    pub second: SecondLaw,
}

impl SelfPlay {
    /// A game played by `class`, the second response uniform.
    pub fn new(game: Game, class: PredictorClass) -> Self {
        let second = SecondLaw::Fixed(Policy::uniform(game.contexts(), game.responses()));
        Self { game, class, second }
    }

    /// [`weighted_cycle`] with a table of predictors.
    pub fn tabular() -> Result<Self, InputError> {
        Ok(Self::new(Game::single(weighted_cycle())?, PredictorClass::tabular(1, 6)))
    }

    /// [`weighted_cycle`] with three normal features.
    pub fn log_linear() -> Result<Self, InputError> {
        Ok(Self::new(Game::single(weighted_cycle())?, normal_features(1, 3)?))
    }

    /// Three equally likely contexts, each with the options of [`weighted_cycle`] in another order, and six normal features.
    pub fn contexts() -> Result<Self, InputError> {
        const ORDERS: [[usize; 6]; 3] = [[0, 1, 2, 3, 4, 5], [3, 0, 4, 1, 5, 2], [5, 4, 2, 0, 1, 3]];
        let cycle = weighted_cycle();
        let margin = Array3::from_shape_fn((3, 6, 6), |(x, y, z)| cycle[[ORDERS[x][y], ORDERS[x][z]]]);
        Ok(Self::new(Game::new(Array1::from_elem(3, 1.0 / 3.0), margin)?, normal_features(3, 6)?))
    }

    /// Theory's step size for `steps` iterations of noisy feedback: $$ \tfrac12\sqrt{2\ln|Y|/T} $$
    pub fn step_size(&self, steps: usize) -> f64 {
        (2.0 * (self.game.responses() as f64).ln() / steps as f64).sqrt() / 2.0
    }

    /// A run of `steps` iterations from the uniform policy, `pairs` pairs each: $$ y,y''\sim\pi_t,\ y'\sim\mu $$, labels
    /// $$ 2(o_{y,y''}-o_{y',y''}) $$ of binary outcomes against the same opponent.
    pub fn run(&self, eta: f64, steps: usize, pairs: usize, rng: &mut impl Rng) -> Result<Trajectory, InputError> {
        let rebel = Rebel::new(self.game.weights(), &self.class, &self.second, eta, 0.0)?;
        let contexts = ContextSampler::new(self.game.weights());
        let start = Array1::zeros(self.class.parameters());
        run(
            &rebel,
            start,
            steps,
            |pi| self.game.reward(pi),
            |_, pi, mu| duels(&self.game, &contexts, &Sampler::new(pi), &Sampler::new(mu), pairs, rng),
        )
    }
}

/// Features that no table of rewards is linear in: normal, of a fixed seed.
fn normal_features(contexts: usize, features: usize) -> Result<PredictorClass, InputError> {
    const INSTANCE: u64 = 1;
    let mut rng = ChaCha8Rng::seed_from_u64(INSTANCE);
    PredictorClass::linear(Array3::from_shape_simple_fn((contexts, 6, features), || StandardNormal.sample(&mut rng)))
}

/// Draws `count` pairs `y ~ first`, `y' ~ second`, lets both meet the same `y'' ~ first`, and labels them by twice the
/// difference of the binary outcomes (theory 6.4).
pub fn duels(
    game: &Game,
    contexts: &ContextSampler,
    first: &Sampler,
    second: &Sampler,
    count: usize,
    rng: &mut impl Rng,
) -> Result<PairBatch, InputError> {
    let mut one = || {
        let x = contexts.draw(rng);
        let (y, z, opponent) = (first.draw(x, rng), second.draw(x, rng), first.draw(x, rng));
        let mut wins = |y: usize| f64::from(u8::from(rng.random::<f64>() < game.probability(x, y, opponent)));
        let label = 2.0 * (wins(y) - wins(z));
        Pair { context: x, first: y, second: z, label }
    };
    PairBatch::new(game.contexts(), game.responses(), (0..count).map(|_| one()).collect())
}

/// The duality gap of the average policy of a run, taken apart, and its bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Split {
    /// The duality gap of the average policy.
    pub gap_average: f64,
    /// The duality gap of the last policy.
    pub gap_last: f64,
    /// Twice the mirror-descent term.
    pub regret: f64,
    /// Twice the approximation term.
    pub approximation: f64,
    /// Twice the sampling term.
    pub sampling: f64,
    /// Mean over iterations of the population fit's error.
    pub eps_approximation: f64,
    /// Mean over iterations of the fit's error against the population fit.
    pub eps_sampling: f64,
    /// Largest $$ |\epsilon_t-\epsilon_t^{approx}-\epsilon_t^{sampling}| $$.
    pub pythagoras: f64,
    /// Largest $$ |f_t-E_{\pi_t}f_t| $$.
    pub advantage: f64,
    /// The bound with each constant measured at each iteration.
    pub sharp: f64,
    /// Theorem 2's bound with the worst of each constant.
    pub bound: f64,
}

impl Split {
    /// The error of the decomposition.
    pub fn identity(&self) -> f64 {
        (self.regret + self.approximation + self.sampling - self.gap_average).abs()
    }
}

/// Takes a run with steps `eta` apart: `DG(average)` is twice its regret against the best response to the average.
/// None of a run without iterations.
pub fn split(game: &Game, trajectory: &Trajectory, eta: f64) -> Option<Split> {
    let mean_policy = trajectory.average_policy()?;
    let best = Policy::pure(&game.best_response(&mean_policy), game.responses());
    let terms = trajectory.decomposition(&best);
    let fits = trajectory.fits();
    let of = |value: fn(&crate::solve::trajectory::Fit) -> f64| fits.iter().map(value).collect::<Vec<f64>>();
    let largest = |values: Vec<f64>| values.into_iter().fold(0.0, f64::max);
    let coverage = |t: usize| trajectory.second(t).prob().fold(0.0, |m: f64, &p| m.max(1.0 / p));
    let coverage = (0..fits.len()).map(coverage).fold(0.0, f64::max);
    let advantage = largest(of(|fit| fit.advantage));
    let eps = largest(of(|fit| fit.error.total()));
    let bound =
        theorem2((game.responses() as f64).ln(), eta, fits.len(), Worst { amplitude: advantage, coverage, eps });
    Some(Split {
        gap_average: game.duality_gap(&mean_policy),
        gap_last: game.duality_gap(trajectory.last()),
        regret: 2.0 * terms.mirror_descent,
        approximation: 2.0 * terms.approximation,
        sampling: 2.0 * terms.sampling,
        eps_approximation: mean(&of(|fit| fit.approximation)),
        eps_sampling: mean(&of(|fit| fit.sampling)),
        pythagoras: largest(of(|fit| (fit.error.total() - fit.approximation - fit.sampling).abs())),
        advantage,
        sharp: 2.0 * (trajectory.mirror_bound(&best) + trajectory.coverage_term(&best)),
        bound: bound.total(),
    })
}

/// `runs` runs of seed `seed` at theory's step size, taken apart, in order. Needs an iteration.
pub fn splits(task: &SelfPlay, steps: usize, pairs: usize, (runs, seed): (u64, u64)) -> Result<Vec<Split>, InputError> {
    let eta = task.step_size(steps);
    let one = |n: u64| {
        let trajectory = task.run(eta, steps, pairs, &mut stream(seed, n))?;
        split(&task.game, &trajectory, eta).ok_or(InputError::Empty { argument: "iterations" })
    };
    (0..runs).into_par_iter().map(one).collect()
}

/// Means over runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Iterations.
    pub steps: usize,
    /// Pairs an iteration.
    pub pairs: usize,
    /// Runs.
    pub runs: usize,
    /// The duality gap of the average policy.
    pub gap_average: Estimate,
    /// The duality gap of the last policy.
    pub gap_last: Estimate,
    /// What regret contributes.
    pub regret: Estimate,
    /// What misfit contributes.
    pub approximation: Estimate,
    /// What noise contributes.
    pub sampling: Estimate,
    /// The bound with each constant measured at each iteration.
    pub sharp: Estimate,
    /// Theorem 2's bound with the worst of each constant.
    pub bound: Estimate,
    /// Mean error of the population fits.
    pub eps_approximation: f64,
    /// Mean error of the fits against the population fits.
    pub eps_sampling: f64,
    /// Mean over runs of the largest fitted advantage.
    pub advantage: f64,
}

/// Summarises runs of `steps` iterations of `pairs` pairs.
pub fn row(steps: usize, pairs: usize, splits: &[Split]) -> Row {
    let of = |value: fn(&Split) -> f64| splits.iter().map(value).collect::<Vec<f64>>();
    Row {
        steps,
        pairs,
        runs: splits.len(),
        gap_average: mean_interval(&of(|s| s.gap_average)),
        gap_last: mean_interval(&of(|s| s.gap_last)),
        regret: mean_interval(&of(|s| s.regret)),
        approximation: mean_interval(&of(|s| s.approximation)),
        sampling: mean_interval(&of(|s| s.sampling)),
        sharp: mean_interval(&of(|s| s.sharp)),
        bound: mean_interval(&of(|s| s.bound)),
        eps_approximation: mean(&of(|s| s.eps_approximation)),
        eps_sampling: mean(&of(|s| s.eps_sampling)),
        advantage: mean(&of(|s| s.advantage)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycle_has_no_best_option_and_dominated_ones_lose() {
        let game = SelfPlay::tabular().unwrap().game;
        for y in 0..6 {
            let gap = game.duality_gap(&Policy::pure(&[y], 6));
            assert!(if y < 3 { gap < 2.0 && gap > 0.4 } else { gap == 1.2 }, "{y}: {gap}");
        }
    }

    #[test]
    fn labels_have_the_difference_of_rewards_as_their_mean() {
        let task = SelfPlay::tabular().unwrap();
        let mut rng = stream(0, 0);
        let pi = Policy::from_logits(&Array2::from_shape_fn((1, 6), |(_, y)| 0.3 * y as f64));
        let (first, second) = (Sampler::new(&pi), Sampler::new(&Policy::uniform(1, 6)));
        let contexts = ContextSampler::new(task.game.weights());
        let batch = duels(&task.game, &contexts, &first, &second, 40_000, &mut rng).unwrap();
        let reward = task.game.reward(&pi);
        let residual = |p: &Pair| p.label - (reward[[0, p.first]] - reward[[0, p.second]]);
        let got = mean_interval(&batch.pairs().iter().map(residual).collect::<Vec<_>>());
        let half = got.high - got.value;
        assert!(got.value.abs() < 2.5 * half && half < 0.03, "{got:?}"); // false alarm below 1e-6
    }
}
