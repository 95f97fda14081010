//! A run of REBEL on sampled pairs, recorded so that its regret can be taken apart exactly (theory 5.1, 5.2, 6.8).
//!
//! [`run`] iterates the sampled regression of [`super::pairs`] on any source of rewards and pairs: a bandit, a game, or
//! recorded data. The [`Trajectory`] holds beside each fit the population fit it stands for, and from them the regret's
//! three terms and the bounds, every constant of which is measured.

use crate::bandit::{Bandit, Policy, average};
use crate::error::{self, InputError};
use crate::solve::decomposition::{Decomposition, Iteration, PairError, decompose, pair_error};
use crate::solve::linear::MinNorm;
use crate::solve::pairs::{PairBatch, PredictorClass};
use ndarray::{Array1, Array2, Axis, Zip};

/// The law of the second response of a pair.
#[derive(Debug, Clone, PartialEq)]
pub enum SecondLaw {
    /// The same at every iteration.
    Fixed(Policy),
    /// The current policy, $$ \mu=\pi_t $$.
    Current,
}

impl SecondLaw {
    /// The law while the policy is `pi`.
    pub fn at<'a>(&'a self, pi: &'a Policy) -> &'a Policy {
        match self {
            SecondLaw::Fixed(mu) => mu,
            SecondLaw::Current => pi,
        }
    }
}

/// REBEL with a class of predictors, ready to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Rebel<'a> {
    weights: &'a Array1<f64>, // [x]
    class: &'a PredictorClass,
    second: &'a SecondLaw,
    eta: f64,
    ridge: f64,
}

impl<'a> Rebel<'a> {
    /// REBEL over contexts of weights `rho` `[x]`, whose second response follows `second`, with steps `eta > 0` and a
    /// `ridge >= 0` on the normal matrix.
    pub fn new(
        weights: &'a Array1<f64>,
        class: &'a PredictorClass,
        second: &'a SecondLaw,
        eta: f64,
        ridge: f64,
    ) -> Result<Self, InputError> {
        let shape = [class.contexts(), class.responses()];
        error::distribution("rho", &[], weights.view())?;
        error::shape("rho", weights.shape(), &shape[..1])?;
        if let SecondLaw::Fixed(mu) = second {
            error::shape("mu", mu.prob().shape(), &shape)?;
        }
        if !(ridge >= 0.0 && ridge.is_finite()) {
            return Err(InputError::Domain {
                argument: "ridge",
                value: ridge,
                expected: "a finite number, at least 0",
            });
        }
        Ok(Self { weights, class, second, eta: error::positive("eta", eta)?, ridge })
    }

    /// The class of its predictors.
    pub fn class(&self) -> &'a PredictorClass {
        self.class
    }

    /// The law of its second response.
    pub fn second(&self) -> &'a SecondLaw {
        self.second
    }

    /// The policy of parameters `theta` `[k]`.
    pub fn policy(&self, theta: &Array1<f64>) -> Policy {
        Policy::from_logits(&self.class.predict(theta))
    }

    /// One iteration: moves `theta` `[k]` by the sampled step, and returns the predictor's parameters and rank.
    pub fn step(&self, theta: &mut Array1<f64>, batch: &PairBatch) -> Result<MinNorm, InputError> {
        let fit = self.class.fit(batch, self.ridge)?;
        theta.scaled_add(self.eta, &fit.solution);
        Ok(fit)
    }
}

/// What one fit was like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Rank of the batch.
    pub rank: usize,
    /// The error of the fit on pairs $$ y\sim\pi_t,\ y'\sim\mu $$ against the reward: its sum is $$ \epsilon_t $$.
    pub error: PairError,
    /// The error of the population fit against the reward.
    pub approximation: f64,
    /// The error of the fit against the population fit.
    pub sampling: f64,
    /// The largest $$ |f_t-E_{\pi_t}f_t| $$ of any context.
    pub advantage: f64,
    /// The largest range of the fit in any context.
    pub range: f64,
    /// $$ E_x\mathrm{KL}(\pi_t\|\pi_{t+1}) $$, nats.
    pub kl_backward: f64,
}

/// A recorded run.
#[derive(Debug, Clone, PartialEq)]
pub struct Trajectory {
    weights: Array1<f64>, // [x]
    second: SecondLaw,
    eta: f64,
    iterations: Vec<Iteration>,
    fits: Vec<Fit>,
    last: Policy,
    theta: Array1<f64>,
}

/// Runs `steps` iterations of `rebel` from `theta` `[k]`.
///
/// `reward` gives the true reward `[x, y]` at a policy, which only the analysis sees; `batch` the pairs observed at an
/// iteration's number, policy and law of the second response.
pub fn run(
    rebel: &Rebel,
    mut theta: Array1<f64>,
    steps: usize,
    mut reward: impl FnMut(&Policy) -> Array2<f64>,
    mut batch: impl FnMut(usize, &Policy, &Policy) -> Result<PairBatch, InputError>,
) -> Result<Trajectory, InputError> {
    error::finite("theta", &theta)?;
    error::shape("theta", theta.shape(), &[rebel.class.parameters()])?;
    let mut policy = rebel.policy(&theta);
    let mut iterations = Vec::new();
    let mut fits = Vec::new();
    for t in 0..steps {
        let mu = rebel.second.at(&policy);
        let reward = reward(&policy);
        let fitted = rebel.step(&mut theta, &batch(t, &policy, mu)?)?;
        error::finite("theta", &theta)?;
        let bandit = Bandit::new(rebel.weights.clone(), reward.clone())?;
        let population = rebel.class.predict(&rebel.class.population(&bandit, &policy, mu)?);
        let fit = rebel.class.predict(&fitted.solution);
        let next = rebel.policy(&theta);
        let error_of = |delta: &Array2<f64>| pair_error(rebel.weights, &policy, mu, delta);
        let extreme = |row: ndarray::ArrayView1<f64>| {
            row.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &f| (low.min(f), high.max(f)))
        };
        let mean = policy.expectation(&fit); // [x]
        let (mut advantage, mut range) = (0.0f64, 0.0f64);
        for (row, &mean) in fit.rows().into_iter().zip(&mean) {
            let (low, high) = extreme(row);
            advantage = advantage.max(high - mean).max(mean - low);
            range = range.max(high - low);
        }
        fits.push(Fit {
            rank: fitted.rank,
            error: error_of(&(&fit - &reward)),
            approximation: error_of(&(&population - &reward)).total(),
            sampling: error_of(&(&fit - &population)).total(),
            advantage,
            range,
            kl_backward: average(rebel.weights, &policy.kl(&next)),
        });
        iterations.push(Iteration { policy, fit, population, reward });
        policy = next;
    }
    let (weights, second) = (rebel.weights.clone(), rebel.second.clone());
    Ok(Trajectory { weights, second, eta: rebel.eta, iterations, fits, last: policy, theta })
}

impl Trajectory {
    /// The iterations: policy, fit, population fit and reward of each.
    pub fn iterations(&self) -> &[Iteration] {
        &self.iterations
    }

    /// What each fit was like.
    pub fn fits(&self) -> &[Fit] {
        &self.fits
    }

    /// The policy after the last step.
    pub fn last(&self) -> &Policy {
        &self.last
    }

    /// Its parameters `[k]`.
    pub fn theta(&self) -> &Array1<f64> {
        &self.theta
    }

    /// All policies, those of the iterations and the last.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.iterations.iter().map(|one| &one.policy).chain([&self.last])
    }

    /// The law of the second response at iteration `t`.
    pub fn second(&self, t: usize) -> &Policy {
        self.second.at(&self.iterations[t].policy)
    }

    /// The policy that self-play returns, the mean of the iterations' policies context by context; none without any.
    pub fn average_policy(&self) -> Option<Policy> {
        let sum = self.iterations.iter().map(|one| one.policy.prob().clone()).reduce(|sum, p| sum + p)?;
        let total = sum.sum_axis(Axis(1)).insert_axis(Axis(1)); // [x, 1]
        Some(Policy::new("average", sum / &total).expect("a mean of distributions"))
    }

    /// The exact decomposition of the average regret against `comparator`, see [`decompose`].
    pub fn decomposition(&self, comparator: &Policy) -> Decomposition {
        decompose(&self.weights, &self.iterations, comparator, self.eta)
    }

    /// What mirror descent with these predictors can lose at most; infinite without iterations:
    ///
    /// $$ \frac{\mathrm{KL}(p\|\pi_0)}{\eta T}+\frac\eta8\,\frac1T\sum_t\mathrm{range}(f_t)^2 $$
    pub fn mirror_bound(&self, comparator: &Policy) -> f64 {
        let Some(first) = self.iterations.first() else { return f64::INFINITY };
        let steps = self.iterations.len() as f64;
        let squares: f64 = self.fits.iter().map(|fit| fit.range.powi(2)).sum();
        average(&self.weights, &comparator.kl(&first.policy)) / (self.eta * steps) + self.eta / 8.0 * squares / steps
    }

    /// What Theorem 1 charges for the error of the fits, with the coverage and the error of each iteration:
    ///
    /// $$ \frac1T\sum_t\sqrt{C_2\,(b_t+c_t)},\qquad C_2=E_{x,y\sim p}\frac{p}{\mu} $$
    ///
    /// with `b + c` the part of Lemma 1 that the second response sees. Not a number without iterations.
    pub fn coverage_term(&self, comparator: &Policy) -> f64 {
        let one = |(t, fit): (usize, &Fit)| {
            let seen = fit.error.var_second + fit.error.gap;
            (coverage(&self.weights, comparator, self.second(t)) * seen).sqrt()
        };
        self.fits.iter().enumerate().map(one).sum::<f64>() / self.fits.len() as f64
    }
}

/// How badly `mu` covers a comparator `p`, on average: $$ C_2=E_xE_{y\sim p}\frac{p(y|x)}{\mu(y|x)} $$
pub fn coverage(weights: &Array1<f64>, comparator: &Policy, mu: &Policy) -> f64 {
    let ratio = |&p: &f64, &m: &f64| if p > 0.0 { p * p / m } else { 0.0 };
    let terms = Zip::from(comparator.prob()).and(mu.prob()).map_collect(ratio);
    average(weights, &terms.sum_axis(Axis(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::pairs::Pair;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    fn noiseless(reward: &Array2<f64>) -> impl FnMut(usize, &Policy, &Policy) -> Result<PairBatch, InputError> {
        let row = reward.row(0).to_owned();
        move |_, _, _| {
            let pair = |(y, &r): (usize, &f64)| Pair { context: 0, first: y, second: 0, label: r - row[0] };
            PairBatch::new(1, row.len(), row.iter().enumerate().map(pair).collect())
        }
    }

    #[test]
    fn noiseless_pairs_of_every_response_give_the_tilt() {
        let reward = array![[0.2, 1.0, -0.5]];
        let class = PredictorClass::tabular(1, 3);
        let (weights, second) = (array![1.0], SecondLaw::Current);
        let rebel = Rebel::new(&weights, &class, &second, 0.5, 0.0).unwrap();
        let run = run(&rebel, Array1::zeros(3), 4, |_| reward.clone(), noiseless(&reward)).unwrap();
        assert!(run.last().distance(&Policy::from_logits(&(&reward * 2.0))) < 1e-14);
        assert!(run.fits().iter().all(|fit| fit.error.total() < 1e-28 && fit.rank == 2));
        assert_abs_diff_eq!(run.fits()[0].range, 1.5, epsilon = 1e-14);
        assert_abs_diff_eq!(run.fits()[0].advantage, 1.0 - 0.7 / 3.0, epsilon = 1e-14);
        let best = Policy::pure(&[1], 3);
        let terms = run.decomposition(&best);
        assert!(terms.sampling.abs() < 1e-14 && terms.total() <= run.mirror_bound(&best));
    }

    #[test]
    fn coverage_of_a_pure_comparator_is_the_inverse_probability() {
        let mu = Policy::new("mu", array![[0.25, 0.75], [1.0, 0.0]]).unwrap();
        let pure = |y: usize| Policy::pure(&[0, y], 2);
        assert_abs_diff_eq!(coverage(&array![0.5, 0.5], &pure(0), &mu), 2.5, epsilon = 1e-15);
        assert_eq!(coverage(&array![0.5, 0.5], &pure(1), &mu), f64::INFINITY);
        assert_abs_diff_eq!(coverage(&array![1.0, 0.0], &pure(1), &mu), 4.0, epsilon = 1e-15);
    }

    #[test]
    fn no_iterations_have_no_average() {
        let class = PredictorClass::tabular(1, 3);
        let (weights, second) = (array![1.0], SecondLaw::Current);
        let rebel = Rebel::new(&weights, &class, &second, 0.5, 0.0).unwrap();
        let run = run(&rebel, Array1::zeros(3), 0, |_| Array2::zeros((1, 3)), |_, _, _| unreachable!()).unwrap();
        assert!(run.average_policy().is_none() && run.coverage_term(run.last()).is_nan());
        assert_eq!(run.last(), &Policy::uniform(1, 3));
    }

    #[test]
    fn settings_that_do_not_fit_are_refused() {
        let class = PredictorClass::tabular(1, 3);
        let (weights, second) = (array![1.0], SecondLaw::Fixed(Policy::uniform(1, 2)));
        assert_eq!(
            Rebel::new(&weights, &class, &second, 0.5, 0.0).unwrap_err().to_string(),
            "mu: shape [1, 2] (expected [1, 3])"
        );
        assert!(Rebel::new(&weights, &class, &SecondLaw::Current, 0.0, 0.0).is_err());
        assert!(Rebel::new(&weights, &class, &SecondLaw::Current, 1.0, -0.1).is_err());
    }
}
