//! Claim 2 of the paper: what a batch of sampled pairs makes of the regression's step, and of a policy gradient.
//!
//! [`Pairs`] are the sampled indices; a [`Batch`] is the same pairs with the scores and rewards they stand for, and has one
//! method a formula. The trap is in the two second moments: both are unbiased for the same matrix, only the one made of
//! differences shares its randomness with the gradient.

use crate::bandit::Policy;
use crate::error::{self, InputError};
use crate::sample::{ContextSampler, Sampler};
use crate::solve::linear::{MinNorm, pseudo_solve, spectrum};
use crate::solve::natural::NaturalStep;
use ndarray::{Array1, Array2, ArrayView3, s};
use rand::Rng;

/// Sampled pairs: the context, the first and the second response of each, `[n]`; possibly none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs {
    context: Vec<usize>, // [n]
    first: Vec<usize>,   // [n]
    second: Vec<usize>,  // [n]
}

impl Pairs {
    /// Pairs in contexts `x` of responses `y` and `y2`, `[n]` each, of a bandit with `shape` contexts and responses.
    pub fn new(x: Vec<usize>, y: Vec<usize>, y2: Vec<usize>, shape: (usize, usize)) -> Result<Self, InputError> {
        error::shape("y", &[y.len()], &[x.len()])?;
        error::shape("y2", &[y2.len()], &[x.len()])?;
        error::indices("x", &x, shape.0)?;
        error::indices("y", &y, shape.1)?;
        error::indices("y2", &y2, shape.1)?;
        Ok(Self { context: x, first: y, second: y2 })
    }

    /// `n` independent pairs, `y ~ first`, `y' ~ second`.
    pub fn draw(x: &ContextSampler, first: &Sampler, second: &Sampler, n: usize, rng: &mut impl Rng) -> Self {
        let (mut context, mut ys, mut zs) = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
        for _ in 0..n {
            let x = x.draw(rng);
            context.push(x);
            ys.push(first.draw(x, rng));
            zs.push(second.draw(x, rng));
        }
        Self { context, first: ys, second: zs }
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.context.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.context.is_empty()
    }

    /// Context, first and second response of each pair.
    pub fn iter(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        self.context.iter().zip(&self.first).zip(&self.second).map(|((&x, &y), &z)| (x, y, z))
    }

    /// The differences of a table `[x, y]` over the pairs, `[n]`: $$ f(x_n,y_n)-f(x_n,y'_n) $$
    pub fn differences(&self, f: &Array2<f64>) -> Array1<f64> {
        self.iter().map(|(x, y, z)| f[[x, y]] - f[[x, z]]).collect()
    }

    /// The design of a regression on features `[x, y, k]`, one row a pair, `[n, k]`: $$ \phi(x_n,y_n)-\phi(x_n,y'_n) $$
    pub fn design(&self, features: ArrayView3<f64>) -> Array2<f64> {
        let mut rows = Array2::zeros((self.len(), features.dim().2));
        for (mut row, (x, y, z)) in rows.rows_mut().into_iter().zip(self.iter()) {
            row.assign(&(&features.slice(s![x, y, ..]) - &features.slice(s![x, z, ..])));
        }
        rows
    }
}

/// The scores and rewards of sampled pairs, at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    scores: Array2<f64>,      // [2n, k], the first responses, then the second
    differences: Array2<f64>, // [n, k]
    rewards: Array1<f64>,     // [2n]
    values: Array1<f64>,      // [2n], E_pi[r|x]
    means: Array1<f64>,       // [2n], the mean of all rewards
}

impl Batch {
    /// The pairs' scores `g` `[x, y, k]` and rewards `[x, y]`, and the value $$ V(x)=E_\pi[r|x] $$ of their contexts.
    /// Refuses an empty batch, and tables the pairs were not made for.
    pub fn new(pairs: &Pairs, scores: ArrayView3<f64>, reward: &Array2<f64>, pi: &Policy) -> Result<Self, InputError> {
        if pairs.is_empty() {
            return Err(InputError::Empty { argument: "x" });
        }
        let (contexts, responses, k) = scores.dim();
        error::shape("r", reward.shape(), &[contexts, responses])?;
        error::shape("pi", pi.prob().shape(), &[contexts, responses])?;
        error::indices("x", &pairs.context, contexts)?;
        error::indices("y", &pairs.first, responses)?;
        error::indices("y2", &pairs.second, responses)?;
        let value = pi.expectation(reward); // [x]
        let both = || {
            let first = pairs.context.iter().zip(&pairs.first);
            first.chain(pairs.context.iter().zip(&pairs.second)).map(|(&x, &y)| (x, y))
        };
        let mut gathered = Array2::zeros((2 * pairs.len(), k));
        for (mut row, (x, y)) in gathered.rows_mut().into_iter().zip(both()) {
            row.assign(&scores.slice(s![x, y, ..]));
        }
        let rewards: Array1<f64> = both().map(|(x, y)| reward[[x, y]]).collect();
        let n = pairs.len();
        Ok(Self {
            differences: &gathered.slice(s![..n, ..]) - &gathered.slice(s![n.., ..]),
            means: Array1::from_elem(2 * n, rewards.sum() / (2 * n) as f64),
            values: both().map(|(x, _)| value[x]).collect(),
            scores: gathered,
            rewards,
        })
    }

    /// The same batch with `noise` `[2n]` added to its rewards: independent errors of single queries. The values that serve
    /// as a baseline stay exact.
    pub fn noisy(mut self, noise: &Array1<f64>) -> Result<Self, InputError> {
        error::finite("noise", noise)?;
        error::shape("noise", noise.shape(), self.rewards.shape())?;
        self.rewards += noise;
        self.means.fill(self.rewards.sum() / self.rewards.len() as f64);
        Ok(self)
    }

    /// Number of pairs.
    fn pairs(&self) -> usize {
        self.differences.nrows()
    }

    /// The second moment of the differences `[k, k]`, which REBEL's regression uses:
    ///
    /// $$ \hat F=\frac1{2N}\sum_n(g_n-g'_n)(g_n-g'_n)^\top $$
    pub fn difference_moment(&self) -> Array2<f64> {
        self.differences.t().dot(&self.differences) / (2 * self.pairs()) as f64
    }

    /// The second moment of the single scores `[k, k]`: as unbiased, and another estimator.
    ///
    /// $$ \hat F_{sep}=\frac1{2N}\sum_n\big(g_ng_n^\top+g'_n{g'_n}^\top\big) $$
    pub fn separate_moment(&self) -> Array2<f64> {
        self.scores.t().dot(&self.scores) / (2 * self.pairs()) as f64
    }

    /// REBEL's gradient `[k]`, the same as RLOO's with two responses a prompt; a constant added to all rewards cancels.
    ///
    /// $$ \hat b=\frac1{2N}\sum_n\big[g_n(r_n-r'_n)+g'_n(r'_n-r_n)\big] $$
    pub fn paired_gradient(&self) -> Array1<f64> {
        let n = self.pairs();
        let gaps = &self.rewards.slice(s![..n]) - &self.rewards.slice(s![n..]); // [n]
        self.differences.t().dot(&gaps) / (2 * n) as f64
    }

    /// The policy gradient `[k]` of rewards less a baseline `[2n]` (first responses, then second):
    ///
    /// $$ \frac1{2N}\sum_n\big[g_n(r_n-b_n)+g'_n(r'_n-b'_n)\big] $$
    pub fn reinforce_gradient(&self, baseline: &Array1<f64>) -> Array1<f64> {
        self.scores.t().dot(&(&self.rewards - baseline)) / (2 * self.pairs()) as f64
    }

    /// No baseline `[2n]`; any other constant is that number everywhere.
    pub fn constant_baseline(&self, value: f64) -> Array1<f64> {
        Array1::from_elem(self.rewards.len(), value)
    }

    /// The mean of the batch's own `2n` rewards as a baseline `[2n]`.
    pub fn mean_baseline(&self) -> &Array1<f64> {
        &self.means
    }

    /// The exact value of each context as a baseline `[2n]`.
    pub fn true_baseline(&self) -> &Array1<f64> {
        &self.values
    }

    /// REBEL's finite-sample step: $$ D=\eta\,\hat F^+\hat b $$ the minimum-norm least-squares displacement on the batch.
    pub fn paired_step(&self, eta: f64) -> Result<NaturalStep, InputError> {
        preconditioned(self.difference_moment(), self.paired_gradient(), eta)
    }

    /// A natural-gradient step by the separate second moment: $$ \eta\,\hat F_{sep}^+\,b $$ for any gradient `b` `[k]`.
    pub fn separate_step(&self, gradient: Array1<f64>, eta: f64) -> Result<NaturalStep, InputError> {
        preconditioned(self.separate_moment(), gradient, eta)
    }
}

fn preconditioned(fisher: Array2<f64>, b: Array1<f64>, eta: f64) -> Result<NaturalStep, InputError> {
    let MinNorm { solution, rank } = pseudo_solve(&spectrum("F", &fisher)?, &b);
    Ok(NaturalStep { fisher, b, delta: solution * eta, rank })
}

/// All pairs of a table of contexts and responses once each, `x` slowest: to enumerate what is otherwise sampled.
pub fn all_pairs(contexts: usize, responses: usize) -> Pairs {
    let count = contexts * responses * responses;
    Pairs {
        context: (0..count).map(|i| i / (responses * responses)).collect(),
        first: (0..count).map(|i| i / responses % responses).collect(),
        second: (0..count).map(|i| i % responses).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    /// Scores -3/4 and 1/4 under probabilities 1/4, 3/4; rewards 1 and 5, value 4.
    fn batch() -> Batch {
        let pi = Policy::new("pi", array![[0.25, 0.75]]).unwrap();
        let scores = array![[[-0.75], [0.25]]];
        let pairs = Pairs::new(vec![0, 0], vec![0, 1], vec![1, 1], (1, 2)).unwrap();
        Batch::new(&pairs, scores.view(), &array![[1.0, 5.0]], &pi).unwrap()
    }

    #[test]
    fn moments_and_gradients_equal_numbers_by_hand() {
        let batch = batch(); // pairs (-3/4, 1/4) and (1/4, 1/4)
        assert_abs_diff_eq!(batch.difference_moment(), array![[0.25]], epsilon = 1e-15);
        assert_abs_diff_eq!(batch.separate_moment(), array![[0.1875]], epsilon = 1e-15);
        assert_abs_diff_eq!(batch.paired_gradient(), array![1.0], epsilon = 1e-15);
        assert_abs_diff_eq!(batch.reinforce_gradient(&batch.constant_baseline(0.0)), array![0.75], epsilon = 1e-15);
        assert_abs_diff_eq!(batch.reinforce_gradient(batch.mean_baseline()), array![0.75], epsilon = 1e-15);
        assert_abs_diff_eq!(batch.reinforce_gradient(batch.true_baseline()), array![0.75], epsilon = 1e-15);
        assert_abs_diff_eq!(batch.paired_step(0.5).unwrap().delta, array![2.0], epsilon = 1e-14);
        assert_abs_diff_eq!(batch.separate_step(array![0.75], 1.0).unwrap().delta, array![4.0], epsilon = 1e-14);
    }

    #[test]
    fn baselines_differ_where_the_scores_of_the_batch_do_not_cancel() {
        let pi = Policy::new("pi", array![[0.25, 0.75]]).unwrap();
        let pairs = Pairs::new(vec![0], vec![1], vec![1], (1, 2)).unwrap();
        let batch = Batch::new(&pairs, array![[[-0.75], [0.25]]].view(), &array![[1.0, 5.0]], &pi).unwrap();
        let gradient = |baseline: &Array1<f64>| batch.reinforce_gradient(baseline)[0];
        assert_eq!(gradient(&batch.constant_baseline(0.0)), 1.25);
        assert_eq!(gradient(&batch.constant_baseline(1.0)), 1.0);
        assert_eq!((gradient(batch.mean_baseline()), gradient(batch.true_baseline())), (0.0, 0.25));
    }

    #[test]
    fn noise_is_added_to_rewards_and_not_to_values() {
        let noisy = batch().noisy(&array![1.0, 0.0, 0.0, 0.0]).unwrap();
        assert_abs_diff_eq!(noisy.paired_gradient(), array![0.75], epsilon = 1e-15);
        assert_eq!((noisy.mean_baseline()[3], noisy.true_baseline()), (4.25, batch().true_baseline()));
        assert!(batch().noisy(&array![1.0]).is_err());
    }

    #[test]
    fn every_pair_is_enumerated_once() {
        let pairs: Vec<_> = all_pairs(2, 2).iter().collect();
        let expected: [(usize, usize, usize); 8] =
            [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn index_out_of_range_and_empty_batch_are_refused_by_name() {
        let refused =
            |x: Vec<usize>, y: Vec<usize>, z: Vec<usize>| Pairs::new(x, y, z, (1, 2)).unwrap_err().to_string();
        assert_eq!(refused(vec![0, 1], vec![0, 0], vec![0, 0]), "x[1]: 1 (expected an index below 1)");
        assert_eq!(refused(vec![0], vec![0], vec![2]), "y2[0]: 2 (expected an index below 2)");
        assert_eq!(refused(vec![0], vec![0, 1], vec![1]), "y: shape [2] (expected [1])");
        let none = Pairs::new(vec![], vec![], vec![], (1, 2)).unwrap();
        let pi = Policy::uniform(1, 2);
        let error = Batch::new(&none, array![[[0.5], [-0.5]]].view(), &array![[1.0, 0.0]], &pi).unwrap_err();
        assert_eq!(error.to_string(), "x: is empty (expected at least one entry)");
    }
}
