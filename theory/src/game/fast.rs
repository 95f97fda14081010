//! Self-play in large games, many iterations: the same steps as written on paper, in memory that is used again.
//!
//! A [`SelfPlay`] is its state; each of its three methods runs iterations under one kind of feedback: the exact reward, one
//! Bernoulli outcome on every arm, or sampled pairs and a regression. What an iteration does beyond the feedback is the same:
//! add the policy to the average, tilt it by the estimated reward.

use crate::bandit::Policy;
use crate::error::{self, InputError};
use crate::game::Game;
use crate::kernels::{Cumulative, Level, Uniform, add_scaled, combine_rows, normalise_row, padded};
use crate::sample::ContextSampler;
use crate::solve::pair_graph::PairSolver;
use ndarray::Array2;
use rand::RngCore;

/// Self-play from a start policy with step size `eta`.
#[derive(Debug, Clone)]
pub struct SelfPlay<'g> {
    game: &'g Game,
    level: Level,
    eta: f64,
    log: Vec<f64>,               // [x, y]
    prob: Vec<f64>,              // [x, y]
    sum: Vec<f64>,               // [x, y] of the policies before each iteration
    iterations: usize,           // that were summed
    margin: Vec<f64>,            // [x, y, y']
    columns: Vec<f64>,           // [x, y', width]: the margins' columns as rows, zeros after |Y|
    reward: Vec<f64>,            // [width] the reward of one context, true or estimated
    cumulative: Vec<Cumulative>, // [x]
    uniform: Uniform,
}

impl<'g> SelfPlay<'g> {
    /// Self-play of `game` from `start` `[x, y]`, which must fit it.
    pub fn new(game: &'g Game, start: &Policy, eta: f64) -> Result<Self, InputError> {
        let (contexts, responses) = (game.contexts(), game.responses());
        error::positive("eta", eta)?;
        error::shape("pi0", start.prob().shape(), &[contexts, responses])?;
        let width = padded(responses);
        let mut columns = vec![0.0; contexts * responses * width];
        for ((x, y, z), &margin) in game.margin().indexed_iter() {
            columns[(x * responses + z) * width + y] = margin;
        }
        Ok(Self {
            game,
            level: Level::best(),
            eta,
            log: start.log().iter().copied().collect(),
            prob: start.prob().iter().copied().collect(),
            sum: vec![0.0; contexts * responses],
            iterations: 0,
            margin: game.margin().iter().copied().collect(),
            columns,
            reward: vec![0.0; width],
            cumulative: vec![Cumulative::default(); contexts],
            uniform: Uniform::default(),
        })
    }

    /// Iterations run so far, T.
    pub fn iterations(&self) -> usize {
        self.iterations
    }

    /// The policy as it stands, $$ \pi_T $$
    pub fn last(&self) -> Policy {
        Policy::from_parts(self.table(&self.log), self.table(&self.prob))
    }

    /// The policy that is returned, $$ \tfrac1T\sum_{t<T}\pi_t $$; the start before the first iteration.
    pub fn average(&self) -> Policy {
        if self.iterations == 0 {
            return self.last();
        }
        let average = self.table(&self.sum) / self.iterations as f64;
        Policy::new("average", average).expect("the mean of policies is one")
    }

    fn table(&self, values: &[f64]) -> Array2<f64> {
        let shape = (self.game.contexts(), self.game.responses());
        Array2::from_shape_vec(shape, values.to_vec()).expect("a value a response of each context")
    }

    /// Adds the policy to the average, before it is moved.
    fn count(&mut self) {
        add_scaled(self.level, &mut self.sum, 1.0, &self.prob);
        self.iterations += 1;
    }

    /// Tilts context `x` by `reward`: equation (3).
    fn tilt(&mut self, x: usize) {
        let n = self.game.responses();
        let (log, prob) = (&mut self.log[x * n..][..n], &mut self.prob[x * n..][..n]);
        add_scaled(self.level, log, self.eta, &self.reward[..n]);
        normalise_row(self.level, log, prob);
    }

    /// Iterations on the exact reward, $$ r_t(x,y)=E_{y''\sim\pi_t}\,l(x,y,y'') $$
    ///
    /// What limits it: the margins come out of the second-level cache at 100 responses and more, 8 bytes for each
    /// multiplication, which takes three quarters of the time; the rest is the exponential.
    pub fn exact(&mut self, iterations: usize) {
        let (n, width) = (self.game.responses(), self.reward.len());
        for _ in 0..iterations {
            self.count();
            for x in 0..self.game.contexts() {
                let columns = &self.columns[x * n * width..][..n * width];
                combine_rows(self.level, &self.prob[x * n..][..n], columns, &mut self.reward);
                self.tilt(x);
            }
        }
    }

    /// Iterations in which every arm of every context meets one opponent `y'' ~ pi_t` of its own; the estimate of its
    /// reward is `2o - 1` for an outcome `o ~ Bernoulli(P(y beats y''))`. Each context takes `2|Y|` uniform numbers:
    /// opponents in the order of arms, then outcomes.
    ///
    /// What limits it: the opponents (a binary search an arm) and the random stream, a third each; then the exponential.
    pub fn bernoulli(&mut self, iterations: usize, rng: &mut impl RngCore) {
        let n = self.game.responses();
        let mut opponents = vec![0; n];
        for _ in 0..iterations {
            self.count();
            for x in 0..self.game.contexts() {
                self.cumulative[x].set(&self.prob[x * n..][..n]);
                let (first, outcomes) = self.uniform.draw(self.level, 2 * n, rng).split_at(n);
                self.cumulative[x].search(self.level, first, &mut opponents);
                let margins = self.margin[x * n * n..][..n * n].chunks_exact(n);
                for (((reward, row), &opponent), &u) in
                    self.reward.iter_mut().zip(margins).zip(&opponents).zip(outcomes)
                {
                    *reward = if wins(row[opponent as usize], u) { 1.0 } else { -1.0 };
                }
                self.tilt(x);
            }
        }
    }

    /// REBEL from samples: in each iteration `count` times a context, two responses and an opponent, all from `pi_t`;
    /// outcomes of both against that opponent; least squares of least norm of the targets `2(o - o')` on differences.
    ///
    /// An iteration takes `count` uniform numbers each for contexts (if there are several), `y`, `y'`, `y''`, `o`, `o'`, in
    /// this order.
    ///
    /// What limits it: the factorisation of the pairs' Laplacian, see [`PairSolver::solve`], half of the time for 100
    /// responses and 256 pairs, less as the policy comes to visit fewer; the rest is drawing.
    pub fn pairs(&mut self, iterations: usize, count: usize, rng: &mut impl RngCore) {
        let (contexts, n) = (self.game.contexts(), self.game.responses());
        let sampler = ContextSampler::new(self.game.weights());
        let mut solver = PairSolver::new();
        let mut drawn = vec![0; 3 * count];
        let mut met: Vec<(Vec<[u32; 2]>, Vec<f64>)> = vec![Default::default(); contexts];
        for _ in 0..iterations {
            self.count();
            for (x, (pairs, targets)) in met.iter_mut().enumerate() {
                self.cumulative[x].set(&self.prob[x * n..][..n]);
                pairs.clear();
                targets.clear();
            }
            let leading = if contexts > 1 { count } else { 0 };
            let uniform = self.uniform.draw(self.level, leading + 5 * count, rng);
            let (of_context, rest) = uniform.split_at(leading);
            let (of_response, outcomes) = rest.split_at(3 * count);
            let context = |m: usize| of_context.get(m).map_or(0, |&u| sampler.at(u));
            if contexts == 1 {
                self.cumulative[0].search(self.level, of_response, &mut drawn);
            } else {
                for (m, (u, index)) in of_response.iter().zip(&mut drawn).enumerate() {
                    let one = &self.cumulative[context(m % count)];
                    one.search(self.level, std::slice::from_ref(u), std::slice::from_mut(index));
                }
            }
            for m in 0..count {
                let x = context(m);
                let [y, z, opponent] = [0, 1, 2].map(|side| drawn[side * count + m]);
                let win = |y: u32, u: f64| {
                    let place = (x * n + y as usize) * n + opponent as usize;
                    f64::from(u8::from(wins(self.margin[place], u)))
                };
                met[x].0.push([y, z]);
                met[x].1.push(2.0 * (win(y, outcomes[m]) - win(z, outcomes[count + m])));
            }
            for (x, (pairs, targets)) in met.iter().enumerate() {
                solver.solve(pairs, targets, &mut self.reward[..n]);
                self.tilt(x);
            }
        }
    }
}

/// Whether a uniform number makes the response of that margin win: $$ P=(1+l)/2 $$
fn wins(margin: f64, uniform: f64) -> bool {
    uniform < 0.5 + 0.5 * margin
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sampler;
    use crate::solve::mirror::tilt;
    use crate::solve::pair_graph::pair_least_squares;
    use ndarray::{Array1, Array3, Axis};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn game(contexts: usize, responses: usize) -> Game {
        let raw = |x: usize, y: usize, z: usize| ((x * 31 + y * 7 + z * 13) as f64 * 1.3).sin();
        let margin =
            Array3::from_shape_fn((contexts, responses, responses), |(x, y, z)| (raw(x, y, z) - raw(x, z, y)) / 2.0);
        let weights = Array1::from_shape_fn(contexts, |x| (x + 1) as f64);
        Game::new(&weights / weights.sum(), margin).unwrap()
    }

    fn start(game: &Game) -> Policy {
        Policy::from_logits(&Array2::from_shape_fn((game.contexts(), game.responses()), |(x, y)| (x + y) as f64 * 0.1))
    }

    /// Self-play as written on paper, with any estimate of the reward.
    fn plain(game: &Game, eta: f64, iterations: usize, mut reward: impl FnMut(&Policy) -> Array2<f64>) -> [Policy; 2] {
        let mut pi = start(game);
        let mut sum = Array2::<f64>::zeros(pi.prob().dim());
        for _ in 0..iterations {
            sum += pi.prob();
            pi = tilt(&pi, &reward(&pi), eta);
        }
        [Policy::new("average", sum / iterations as f64).unwrap(), pi]
    }

    fn same(play: &SelfPlay, [average, last]: &[Policy; 2]) {
        assert!(play.average().distance(average) < 1e-12 && play.last().distance(last) < 1e-12);
    }

    #[test]
    fn exact_self_play_is_the_plain_loop() {
        for (contexts, responses) in [(1, 1), (1, 5), (3, 4), (2, 37)] {
            let game = game(contexts, responses);
            let mut play = SelfPlay::new(&game, &start(&game), 0.3).unwrap();
            play.exact(20);
            play.exact(30);
            same(&play, &plain(&game, 0.3, 50, |pi| game.reward(pi)));
            assert_eq!(play.iterations(), 50);
        }
    }

    #[test]
    fn bernoulli_self_play_is_the_plain_loop_on_the_same_stream() {
        for (contexts, responses) in [(1, 2), (3, 5), (1, 33)] {
            let game = game(contexts, responses);
            let mut play = SelfPlay::new(&game, &start(&game), 0.1).unwrap();
            play.bernoulli(40, &mut ChaCha8Rng::seed_from_u64(5));
            let mut rng = ChaCha8Rng::seed_from_u64(5);
            let by_hand = plain(&game, 0.1, 40, |pi| {
                let sampler = Sampler::new(pi);
                let mut reward = Array2::zeros(pi.prob().dim());
                for (x, mut row) in reward.axis_iter_mut(Axis(0)).enumerate() {
                    let opponents: Vec<usize> = (0..responses).map(|_| sampler.draw(x, &mut rng)).collect();
                    for (y, &opponent) in opponents.iter().enumerate() {
                        row[y] = if rng.random::<f64>() < game.probability(x, y, opponent) { 1.0 } else { -1.0 };
                    }
                }
                reward
            });
            same(&play, &by_hand);
        }
    }

    #[test]
    fn self_play_on_pairs_is_the_plain_loop_on_the_same_stream() {
        for (contexts, responses, count) in [(1, 3, 4), (3, 4, 20), (1, 33, 16), (2, 2, 0)] {
            let game = game(contexts, responses);
            let mut play = SelfPlay::new(&game, &start(&game), 0.2).unwrap();
            play.pairs(30, count, &mut ChaCha8Rng::seed_from_u64(6));
            let mut rng = ChaCha8Rng::seed_from_u64(6);
            let of_context = ContextSampler::new(game.weights());
            let by_hand = plain(&game, 0.2, 30, |pi| {
                let sampler = Sampler::new(pi);
                let context: Vec<usize> =
                    (0..count).map(|_| if contexts > 1 { of_context.draw(&mut rng) } else { 0 }).collect();
                let mut responses_of = || context.iter().map(|&x| sampler.draw(x, &mut rng)).collect::<Vec<_>>();
                let (y, z, opponent) = (responses_of(), responses_of(), responses_of());
                let mut outcomes = |side: &[usize]| {
                    let won = |m: usize| game.probability(context[m], side[m], opponent[m]);
                    (0..count).map(|m| f64::from(rng.random::<f64>() < won(m))).collect::<Vec<_>>()
                };
                let (o, p) = (outcomes(&y), outcomes(&z));
                let mut reward = Array2::zeros(pi.prob().dim());
                for (x, mut row) in reward.axis_iter_mut(Axis(0)).enumerate() {
                    let mine: Vec<usize> = (0..count).filter(|&m| context[m] == x).collect();
                    let pairs: Vec<_> = mine.iter().map(|&m| [y[m], z[m]]).collect();
                    let targets: Vec<_> = mine.iter().map(|&m| 2.0 * (o[m] - p[m])).collect();
                    row.assign(&pair_least_squares(&pairs, &targets, responses).unwrap().solution);
                }
                reward
            });
            same(&play, &by_hand);
        }
    }

    #[test]
    fn average_of_exact_self_play_is_hard_to_exploit() {
        let game = game(1, 20);
        let iterations = 2000;
        let eta = (2.0 * 20f64.ln() / iterations as f64).sqrt();
        let mut play = SelfPlay::new(&game, &Policy::uniform(1, 20), eta).unwrap();
        play.exact(iterations);
        let bound = 2.0 * (20f64.ln() / (eta * iterations as f64) + eta / 2.0);
        assert!(game.duality_gap(&play.average()) <= bound);
    }

    #[test]
    fn before_the_first_iteration_the_average_is_the_start_and_bad_arguments_are_named() {
        let game = game(2, 3);
        let play = SelfPlay::new(&game, &start(&game), 0.5).unwrap();
        assert_eq!(play.average(), start(&game));
        let wrong = SelfPlay::new(&game, &Policy::uniform(2, 4), 0.5).unwrap_err();
        assert_eq!(wrong.to_string(), "pi0: shape [2, 4] (expected [2, 3])");
        assert!(SelfPlay::new(&game, &start(&game), -1.0).is_err());
    }
}
