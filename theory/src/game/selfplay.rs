//! Self-play: REBEL against the policy it is improving (section 4 of the paper).
//!
//! The reward of an iteration is $$ r_t(x,y)=E_{y^{\prime\prime}\sim\pi_t}l(x,y,y^{\prime\prime}) $$, the step a tilt by what was learned of it:
//! exactly, from coin flips for every arm, or from recorded pairs. What is returned is the average of the policies.

use super::Game;
use crate::bandit::{Policy, average};
use crate::bounds::{Worst, theorem2};
use crate::error::InputError;
use crate::sample::{ContextSampler, Sampler};
use crate::solve::mirror::tilt;
use crate::solve::pairs::{Pair, PairBatch, PredictorClass};
use ndarray::{Array2, Zip};
use rand::Rng;

/// A run in progress: the policy and the sum of those before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    policy: Policy,
    sum: Array2<f64>, // [x, y]
    steps: usize,
}

impl Run {
    /// A run that has not taken a step.
    pub fn new(start: Policy) -> Self {
        Self { sum: Array2::zeros(start.prob().raw_dim()), policy: start, steps: 0 }
    }

    /// Goes on to `next`; the policy left behind joins the average.
    pub fn advance(&mut self, next: Policy) {
        self.sum += self.policy.prob();
        self.steps += 1;
        self.policy = next;
    }

    /// Steps taken.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The current policy $$ \pi_t $$, the last iterate.
    pub fn last(&self) -> &Policy {
        &self.policy
    }

    /// The policy that self-play returns, $$ \tfrac1t\sum_{s<t}\pi_s $$ per context; the start before the first step.
    pub fn average(&self) -> Policy {
        if self.steps == 0 {
            return self.policy.clone();
        }
        let mean = &self.sum / self.steps as f64;
        Policy::new("average", mean).expect("a mean of distributions")
    }
}

/// One exact step: $$ \pi_{t+1}\propto\pi_t\,e^{\eta L\pi_t} $$
pub fn exact_step(game: &Game, pi: &Policy, eta: f64) -> Policy {
    tilt(pi, &game.reward(pi), eta)
}

/// `steps` exact steps of size `eta` from `start`.
pub fn exact_run(game: &Game, start: &Policy, eta: f64, steps: usize) -> Run {
    let mut run = Run::new(start.clone());
    for _ in 0..steps {
        run.advance(exact_step(game, run.last(), eta));
    }
    run
}

/// One step on coin flips: every response meets `flips` opponents drawn from `pi`, and its reward is estimated by the
/// mean of `2o - 1`, `o` being 1 where it was preferred.
pub fn coin_step(game: &Game, pi: &Policy, eta: f64, flips: usize, rng: &mut impl Rng) -> Policy {
    let opponents = Sampler::new(pi);
    let estimate = Array2::from_shape_fn(pi.prob().raw_dim(), |(x, y)| {
        let wins = (0..flips).filter(|_| rng.random::<f64>() < game.probability(x, y, opponents.draw(x, rng))).count();
        2.0 * wins as f64 / flips as f64 - 1.0
    });
    tilt(pi, &estimate, eta)
}

/// One step on pairs: the tilt by the tabular least-squares fit of least norm to their labels.
pub fn pairs_step(pi: &Policy, pairs: Vec<Pair>, eta: f64) -> Result<Policy, InputError> {
    let (contexts, responses) = pi.prob().dim();
    let class = PredictorClass::tabular(contexts, responses);
    let fit = class.fit(&PairBatch::new(contexts, responses, pairs)?, 0.0)?;
    Ok(tilt(pi, &class.predict(&fit.solution), eta))
}

/// `n` pairs with `y ~ pi`, `y' ~ mu`, both judged against one opponent from `pi`: two queries a pair, labels
/// $$ 2\,(o_{y,y^{\prime\prime}}-o_{y^\prime,y^{\prime\prime}}) $$ with mean $$ r_t(y)-r_t(y^\prime) $$
pub fn two_query_pairs(game: &Game, pi: &Policy, mu: &Policy, n: usize, rng: &mut impl Rng) -> Vec<Pair> {
    let contexts = ContextSampler::new(game.weights());
    let (policy, second) = (Sampler::new(pi), Sampler::new(mu));
    let draw = |_| {
        let x = contexts.draw(rng);
        let (first, second, opponent) = (policy.draw(x, rng), second.draw(x, rng), policy.draw(x, rng));
        let mut wins = |y| if rng.random::<f64>() < game.probability(x, y, opponent) { 1.0 } else { 0.0 };
        let label = 2.0 * (wins(first) - wins(second));
        Pair { context: x, first, second, label }
    };
    (0..n).map(draw).collect()
}

/// `n` pairs with `y ~ pi`, `y' ~ mu`, judged against each other: one query a pair, labels $$ 2\,o_{y,y^\prime}-1 $$ with mean
/// $$ l(y,y^\prime) $$
pub fn one_query_pairs(game: &Game, pi: &Policy, mu: &Policy, n: usize, rng: &mut impl Rng) -> Vec<Pair> {
    let contexts = ContextSampler::new(game.weights());
    let (policy, second) = (Sampler::new(pi), Sampler::new(mu));
    let draw = |_| {
        let x = contexts.draw(rng);
        let (first, second) = (policy.draw(x, rng), second.draw(x, rng));
        let label = if rng.random::<f64>() < game.probability(x, first, second) { 1.0 } else { -1.0 };
        Pair { context: x, first, second, label }
    };
    (0..n).map(draw).collect()
}

/// The bound on the duality gap of the average of `steps` exact steps from `start`:
///
/// $$ \mathrm{DG}\Big(\tfrac1T\sum_{t<T}\pi_t\Big)\le2\Big[\frac{\max\ln1/\pi_0}{\eta T}+\frac{\eta\,l^2}2\Big] $$
///
/// with `largest` a bound `l` on the margins, 1 in general. Infinite where `start` misses a response, or without a step.
pub fn average_gap_bound(start: &Policy, eta: f64, steps: usize, largest: f64) -> f64 {
    let nats = start.log().fold(0.0, |m: f64, log| m.max(-log));
    if steps == 0 {
        return f64::INFINITY;
    }
    theorem2(nats, eta, steps, Worst { amplitude: largest, coverage: 0.0, eps: 0.0 }).total()
}

/// The step size that makes [`average_gap_bound`] from the uniform policy smallest, for margins of at most 1:
/// $$ \eta=\sqrt{2\ln|Y|/T} $$
pub fn best_eta(responses: usize, steps: usize) -> f64 {
    (2.0 * (responses as f64).ln() / steps as f64).sqrt()
}

/// What one exact step takes the policy away from an interior winner: $$ E_x\ln E_{y\sim\pi_t}e^{\eta r_t}\ge0 $$ the increase of
/// `KL(mw || pi_t)`, zero only where nothing moves.
pub fn outward_step(game: &Game, pi: &Policy, eta: f64) -> f64 {
    let reward = game.reward(pi);
    // ln(1 + E[e^z - 1 - z]) with E z = 0: without the cancellation of the plain form.
    let excess = Zip::from(pi.prob()).and(&reward).map_collect(|&p, &r| {
        let z = eta * r;
        if p > 0.0 { p * (z.exp_m1() - z) } else { 0.0 }
    });
    average(game.weights(), &excess.sum_axis(ndarray::Axis(1)).mapv(f64::ln_1p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::game::minimax::minimax_winner;
    use crate::game::named::rock_paper_scissors;
    use crate::statistics::mean_interval;
    use approx::assert_abs_diff_eq;
    use ndarray::array;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn step_and_average_equal_numbers_by_hand() {
        let game = Game::single(array![[0.0, 1.0], [-1.0, 0.0]]).unwrap();
        let run = exact_run(&game, &Policy::uniform(1, 2), 3f64.ln(), 2);
        // rewards (p2, -p1) always differ by 1: odds 1, 3, 9
        assert_abs_diff_eq!(run.last().prob(), &array![[0.9, 0.1]], epsilon = 1e-15);
        assert_abs_diff_eq!(run.average().prob(), &array![[0.625, 0.375]], epsilon = 1e-15);
        assert_eq!(Run::new(Policy::uniform(1, 2)).average(), Policy::uniform(1, 2));
    }

    #[test]
    fn outward_step_is_the_increase_of_divergence_from_an_interior_winner() {
        let game = rock_paper_scissors([0.9, 0.45, 0.225]).unwrap();
        let winner = minimax_winner(&game).unwrap().policy;
        for eta in [1e-6, 0.1, 2.0] {
            let pi = Policy::new("pi", array![[0.6, 0.3, 0.1]]).unwrap();
            let grown = winner.kl(&exact_step(&game, &pi, eta))[0] - winner.kl(&pi)[0];
            assert_abs_diff_eq!(outward_step(&game, &pi, eta), grown, epsilon = 1e-14);
            assert!(outward_step(&game, &pi, eta) > 0.0);
        }
    }

    #[test]
    fn labels_of_both_kinds_have_the_mean_they_should() {
        // mean labels by response, within five standard errors (false-alarm rate about 6e-7 each)
        let game = rock_paper_scissors([0.9, 0.45, 0.225]).unwrap();
        let (pi, mu) = (Policy::new("pi", array![[0.5, 0.3, 0.2]]).unwrap(), Policy::uniform(1, 3));
        let reward = game.reward(&pi);
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let two = two_query_pairs(&game, &pi, &mu, 40_000, &mut rng);
        let one = one_query_pairs(&game, &pi, &mu, 40_000, &mut rng);
        for (pairs, wanted) in [
            (two, Box::new(|y, z| reward[[0, y]] - reward[[0, z]]) as Box<dyn Fn(usize, usize) -> f64>),
            (one, Box::new(|y, z| game.margin()[[0, y, z]])),
        ] {
            for (y, z) in [(0, 1), (1, 2), (2, 0)] {
                let labels: Vec<f64> =
                    pairs.iter().filter(|p| (p.first, p.second) == (y, z)).map(|p| p.label).collect();
                let mean = mean_interval(&labels);
                let half = (mean.high - mean.low) / 2.0;
                assert!((mean.value - wanted(y, z)).abs() < 5.0 / 1.96 * half, "{y} {z}: {mean:?}");
            }
        }
    }

    #[test]
    fn step_on_many_flips_is_close_to_the_exact_one() {
        let game = rock_paper_scissors([1.0, 0.5, 0.2]).unwrap();
        let pi = Policy::new("pi", array![[0.5, 0.3, 0.2]]).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let off = |flips: usize, rng: &mut ChaCha8Rng| {
            coin_step(&game, &pi, 1.0, flips, rng).distance(&exact_step(&game, &pi, 1.0))
        };
        assert!(off(1, &mut rng) > 0.01 && off(1_000_000, &mut rng) < 0.003);
    }
}
