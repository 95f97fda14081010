//! Runs without sampling: each step fits a predictor to the pairs' whole population and tilts by it.
//!
//! [`population_fit`] is the regression, [`Rebel`] its iteration with a log-linear policy (what Theorem 1 is about), and
//! [`Lemma2`] the special case of one context whose predictors are given.

use crate::bandit::{Bandit, Policy};
use crate::distribution::Law;
use crate::error::{self, InputError};
use crate::policy::{LogLinear, Softmax, centred};
use crate::solve::decomposition::Iteration;
use crate::solve::linear::{MinNorm, least_squares};
use crate::solve::mirror::tilt;
use ndarray::{Array1, Array2, Array3, ArrayView1, Axis, concatenate};

/// The best predictor linear in `features` `[x, y, k]` of reward differences, for `y ~ first` and `y' ~ second`, independent;
/// of least norm `[k]`:
///
/// $$ \arg\min_wE\big[(\phi(y)-\phi(y'))^\top w-(r(y)-r(y'))\big]^2 $$
///
/// The loss is split as in Lemma 1, so the design has `2|Y|+1` rows a context where the pairs would need |Y| squared; its
/// Gram matrix, and so the answer, is the same.
pub fn population_fit(
    bandit: &Bandit,
    features: &Array3<f64>,
    (first, second): (&Policy, &Policy),
) -> Result<MinNorm, InputError> {
    let (contexts, responses, k) = features.dim();
    // The reward is one more feature: what is done to the features is done to it.
    let reward = bandit.reward().view().insert_axis(Axis(2)); // [x, y, 1]
    let all = concatenate(Axis(2), &[features.view(), reward]).expect("features and rewards of the same responses");
    let (by_first, by_second) = (centred(all.clone(), first), centred(all, second)); // [x, y, k+1]
    let mut rows = Vec::with_capacity(contexts * (2 * responses + 1) * (k + 1));
    for (x, &weight) in bandit.weights().iter().enumerate().filter(|(_, w)| **w > 0.0) {
        let mut add = |row: ArrayView1<f64>, probability: f64| {
            let scale = (weight * probability).sqrt();
            rows.extend(row.iter().map(|v| scale * v));
        };
        for (centred, law) in [(&by_first, first), (&by_second, second)] {
            for (row, &p) in centred.index_axis(Axis(0), x).rows().into_iter().zip(law.prob().row(x)) {
                add(row, p);
            }
        }
        let gap = second.prob().row(x).dot(&by_first.index_axis(Axis(0), x)); // [k+1], difference of the two means
        add(gap.view(), 1.0);
    }
    let design = Array2::from_shape_vec((rows.len() / (k + 1), k + 1), rows).expect("whole rows");
    let (design, target) = design.view().split_at(Axis(1), k);
    least_squares(&design.to_owned(), &target.column(0).to_owned())
}

/// REBEL with a log-linear policy, every expectation taken exactly: the state, and its step.
#[derive(Debug, Clone)]
pub struct Rebel<'a> {
    bandit: &'a Bandit,
    policy: LogLinear,
    first: Law,
    second: Law,
    eta: f64,
}

/// One step of [`Rebel`]: the iteration and the laws its pairs came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Policy, predictor and reward. Nothing is sampled, so the fit is its own population.
    pub iteration: Iteration,
    /// The law of the first response.
    pub first: Policy,
    /// The law of the second.
    pub second: Policy,
}

impl<'a> Rebel<'a> {
    /// A run on `bandit` from `policy`, first responses from `first` (the paper: on-policy), second ones from `second`, with
    /// steps of size `eta > 0`.
    pub fn new(
        bandit: &'a Bandit,
        policy: LogLinear,
        (first, second): (Law, Law),
        eta: f64,
    ) -> Result<Self, InputError> {
        let (contexts, responses, k) = policy.features().dim();
        error::shape("phi", &[contexts, responses, k], &[bandit.contexts(), bandit.responses(), k])?;
        first.fits("nu", bandit)?;
        second.fits("mu", bandit)?;
        Ok(Self { bandit, policy, first, second, eta: error::positive("eta", eta)? })
    }

    /// The policy as it is now.
    pub fn policy(&self) -> &LogLinear {
        &self.policy
    }

    /// Takes one step: theta moves by `eta` times the weights of the best predictor.
    pub fn step(&mut self) -> Result<Step, InputError> {
        let pi = self.policy.policy();
        let (first, second) = (self.first.given(self.bandit, &pi), self.second.given(self.bandit, &pi));
        let fit = population_fit(self.bandit, self.policy.features(), (&first, &second))?.solution;
        let predictor = self.policy.at(fit.view()).logits(); // [x, y]
        self.policy = self.policy.moved(&(fit * self.eta));
        let reward = self.bandit.reward().clone();
        let iteration = Iteration { policy: pi, population: predictor.clone(), fit: predictor, reward };
        Ok(Step { iteration, first, second })
    }

    /// Takes that many steps.
    pub fn steps(&mut self, count: usize) -> Result<Vec<Step>, InputError> {
        (0..count).map(|_| self.step()).collect()
    }
}

/// What mirror descent on a sequence of predictors of one context accumulated (Lemma 2).
#[derive(Debug, Clone, PartialEq)]
pub struct Lemma2 {
    /// $$ \sum_tA_t(y) $$ with $$ A_t=f_t-E_{\pi_t}f_t $$ `[y]`.
    pub advantage: Array1<f64>,
    /// The largest $$ |A_t(y)| $$ of any round and response, 0 without rounds.
    pub amplitude: f64,
    /// The range of each predictor `[t]`.
    pub ranges: Vec<f64>,
    /// $$ \sum_t\mathrm{KL}(\pi_t\|\pi_{t+1}) $$
    pub kl_backward: f64,
    /// The policy after the last round.
    pub last: Policy,
}

impl Lemma2 {
    /// No rounds yet, from `start`, a policy of one context.
    pub fn new(start: Policy) -> Result<Self, InputError> {
        let responses = start.prob().ncols();
        error::shape("pi0", start.prob().shape(), &[1, responses])?;
        Ok(Self {
            advantage: Array1::zeros(responses),
            amplitude: 0.0,
            ranges: Vec::new(),
            kl_backward: 0.0,
            last: start,
        })
    }

    /// One round: the predictor `f` `[y]` is seen, and the policy tilted by it with step size `eta`.
    pub fn round(&mut self, f: ArrayView1<f64>, eta: f64) {
        let table = f.insert_axis(Axis(0)).to_owned(); // [1, y]
        let advantage = &f - self.last.expectation(&table)[0];
        let next = tilt(&self.last, &table, eta);
        self.amplitude = advantage.fold(self.amplitude, |m, a| m.max(a.abs()));
        self.advantage += &advantage;
        self.ranges.push(crate::bounds::range(&table));
        self.kl_backward += self.last.kl(&next)[0];
        self.last = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::regression::{PairLaw, gauss_newton_step};
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    fn bandit() -> Bandit {
        Bandit::new(array![0.0, 0.4, 0.6], array![[9.0, 0.0, 5.0], [1.0, 0.0, -2.0], [0.3, 0.8, 0.1]]).unwrap()
    }

    #[test]
    fn fit_is_the_least_squares_over_all_pairs() {
        let first = Policy::new("nu", array![[1.0, 0.0, 0.0], [0.2, 0.3, 0.5], [0.1, 0.6, 0.3]]).unwrap();
        let second = Policy::new("mu", array![[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.25, 0.25]]).unwrap();
        let wave = |(x, y, k): (usize, usize, usize)| ((1 + x) as f64 * (2 + y) as f64 * (1.3 + k as f64)).sin();
        for k in [1, 2, 3, 9] {
            let features = Array3::from_shape_fn((3, 3, k), wave);
            let law = PairLaw::independent(&first, &second);
            let pairs = gauss_newton_step(&bandit(), &law, features.view(), 1.0).unwrap();
            let fit = population_fit(&bandit(), &features, (&first, &second)).unwrap();
            assert_abs_diff_eq!(fit.solution, pairs.solution, epsilon = 1e-10);
            assert_eq!(fit.rank, pairs.rank);
        }
    }

    #[test]
    fn features_of_the_context_alone_fit_nothing() {
        let features = Array3::from_shape_fn((3, 3, 2), |(x, _, k)| 0.1 + x as f64 / 3.0 + k as f64);
        let law = Policy::uniform(3, 3);
        let fit = population_fit(&bandit(), &features, (&law, &law)).unwrap();
        assert_eq!((fit.rank, fit.solution), (0, array![0.0, 0.0]));
    }

    #[test]
    fn step_with_features_of_every_response_is_the_tilt() {
        let bandit = bandit();
        let policy = LogLinear::new(crate::policy::one_hot(3, 3), Array1::zeros(9)).unwrap();
        let offline = Law::Offline(Policy::pure(&[2, 0, 1], 3));
        let mut run = Rebel::new(&bandit, policy, (Law::OnPolicy, offline), 0.7).unwrap();
        let steps = run.steps(3).unwrap();
        let expected = tilt(&Policy::uniform(3, 3), bandit.reward(), 2.1);
        let got = run.policy().policy();
        for x in [1, 2] {
            assert_abs_diff_eq!(got.prob().row(x), expected.prob().row(x), epsilon = 1e-12);
        }
        assert_eq!(steps[0].first, Policy::uniform(3, 3));
        assert_eq!(got.prob().row(0), Policy::uniform(1, 3).prob().row(0)); // a context of weight zero is not fitted
    }

    #[test]
    fn laws_and_features_of_another_shape_are_refused() {
        let bandit = bandit();
        let policy = |x, y| LogLinear::new(Array3::zeros((x, y, 1)), array![0.0]).unwrap();
        assert!(Rebel::new(&bandit, policy(3, 2), (Law::OnPolicy, Law::OnPolicy), 1.0).is_err());
        let offline = Law::Offline(Policy::uniform(1, 3));
        let error = Rebel::new(&bandit, policy(3, 3), (Law::OnPolicy, offline), 1.0).unwrap_err();
        assert_eq!(error.to_string(), "mu: shape [1, 3] (expected [3, 3])");
        assert!(Rebel::new(&bandit, policy(3, 3), (Law::OnPolicy, Law::OnPolicy), 0.0).is_err());
    }

    #[test]
    fn two_rounds_accumulate_numbers_by_hand() {
        let mut lemma = Lemma2::new(Policy::uniform(1, 2)).unwrap();
        lemma.round(array![3f64.ln(), 0.0].view(), 1.0); // then (3/4, 1/4)
        lemma.round(array![0.0, 4.0].view(), 1.0);
        let half = 3f64.ln() / 2.0;
        assert_abs_diff_eq!(lemma.advantage, array![half - 1.0, 3.0 - half], epsilon = 1e-14);
        assert_eq!((lemma.amplitude, lemma.ranges.clone()), (3.0, vec![3f64.ln(), 4.0]));
        assert!(Lemma2::new(Policy::uniform(2, 2)).is_err());
    }
}
