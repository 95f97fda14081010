//! Gradient descent on the objectives: the inner steps that a parametrised policy takes on one batch.
//!
//! A [`Batch`] holds groups of responses, drawn or enumerated, with the weight of each group in the loss. An objective is a
//! function of their log-probabilities; its slope comes from the tape, and from there the chain rule through the softmax
//! leads to the parameters. So what descends here is the function that is trained elsewhere.

use crate::bandit::Policy;
use crate::error::{self, InputError};
use crate::objective::ArithError;
use crate::objective::tape::{Tape, Var};
use crate::policy::Softmax;
use crate::solve::regression::PairLaw;
use ndarray::{Array1, Array2, ArrayD, Axis};

/// Groups of `k` responses to one context each, `[groups, k]`, and the weight of each group in the loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    contexts: Vec<usize>,     // [groups]
    responses: Array2<usize>, // [groups, k]
    weights: Array1<f64>,     // [groups]
}

impl Batch {
    /// A drawn batch over a table of `size` contexts and responses: responses `[groups, k]` to `contexts` `[groups]`, each
    /// group counting alike. Fails on an index out of range, and where the two differ in length.
    pub fn drawn(size: (usize, usize), contexts: Vec<usize>, responses: Array2<usize>) -> Result<Self, InputError> {
        error::shape("y", responses.shape(), &[contexts.len(), responses.ncols()])?;
        error::indices("x", &contexts, size.0)?;
        for column in responses.columns() {
            error::indices("y", &column.to_vec(), size.1)?;
        }
        let weights = Array1::from_elem(contexts.len(), 1.0 / contexts.len() as f64);
        Ok(Self { contexts, responses, weights })
    }

    /// The population of single responses: every `y` of every context, weighted by `rho(x) law(y|x)`.
    pub fn of_responses(rho: &Array1<f64>, law: &Policy) -> Self {
        let weighted = law.prob().indexed_iter().map(|((x, y), &p)| (x, [y], rho[x] * p));
        Self::enumerated(weighted)
    }

    /// The population of pairs: every `(y, y')` of every context, weighted by `rho(x) p(y,y'|x)`.
    pub fn of_pairs(rho: &Array1<f64>, law: &PairLaw) -> Self {
        let weighted = law.joint().indexed_iter().map(|((x, y, z), &p)| (x, [y, z], rho[x] * p));
        Self::enumerated(weighted)
    }

    /// Groups of positive weight.
    fn enumerated<const K: usize>(groups: impl Iterator<Item = (usize, [usize; K], f64)>) -> Self {
        let kept: Vec<_> = groups.filter(|(_, _, weight)| *weight > 0.0).collect();
        Self {
            contexts: kept.iter().map(|(x, _, _)| *x).collect(),
            responses: Array2::from(kept.iter().map(|(_, y, _)| *y).collect::<Vec<_>>()),
            weights: kept.iter().map(|(_, _, weight)| *weight).collect(),
        }
    }

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.contexts.len()
    }

    /// The weight of each group in the loss `[groups]`.
    pub fn weights(&self) -> &Array1<f64> {
        &self.weights
    }

    /// The entries of a table `[x, y]` at the batch's responses `[groups, k]`: rewards, or log-probabilities.
    pub fn values(&self, table: &Array2<f64>) -> ArrayD<f64> {
        let at = |(group, j): (usize, usize)| table[[self.contexts[group], self.responses[[group, j]]]];
        Array2::from_shape_fn(self.responses.raw_dim(), at).into_dyn()
    }

    /// An objective of the batch's log-probabilities under `policy`, and the gradient of its weighted mean.
    ///
    /// `objective` gets the log-probabilities `[groups, k]` on a tape, puts its fixed inputs on the same tape, and must be
    /// a sum over groups, as all of [`crate::objective`] are: then weighting a group is weighting its cotangents.
    pub fn evaluate<P: Softmax>(
        &self,
        policy: &P,
        objective: impl for<'t> Fn(&'t Tape, &Var<'t>) -> Result<Var<'t>, ArithError>,
    ) -> Result<Evaluated, InputError> {
        let pi = policy.policy();
        let tape = Tape::new();
        let new = tape.input(self.values(pi.log()));
        let loss = objective(&tape, &new)?;
        let cotangents = tape.cotangents(&loss)?.of(&new);
        let mut by_log = Array2::<f64>::zeros(pi.log().raw_dim()); // [x, y] slope in each log-probability
        for (((group, _), &y), &slope) in self.responses.indexed_iter().zip(&cotangents) {
            by_log[[self.contexts[group], y]] += self.weights[group] * slope;
        }
        let total = by_log.sum_axis(Axis(1)).insert_axis(Axis(1)); // [x, 1]
        let by_logit = by_log - pi.prob() * &total; // ln pi = s - ln sum e^s
        let jacobian = policy.logit_jacobian(); // [x, y, k]
        let k = jacobian.dim().2;
        let rows = jacobian.to_shape((by_logit.len(), k)).expect("one row a logit");
        let gradient = rows.t().dot(&by_logit.iter().copied().collect::<Array1<f64>>());
        Ok(Evaluated { sum: loss.value().sum(), gradient })
    }

    /// One step of gradient descent with this learning rate on the weighted mean of an objective, as [`Self::evaluate`].
    pub fn descend<P: Softmax>(
        &self,
        policy: &P,
        rate: f64,
        objective: impl for<'t> Fn(&'t Tape, &Var<'t>) -> Result<Var<'t>, ArithError>,
    ) -> Result<P, InputError> {
        let Evaluated { gradient, .. } = self.evaluate(policy, objective)?;
        Ok(policy.moved(&(gradient * -rate)))
    }
}

/// An objective at one policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// Its sum over groups, each counted once: the weights are not in it.
    pub sum: f64,
    /// The gradient in the parameters `[k]` of its weighted mean.
    pub gradient: Array1<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bandit::Bandit;
    use crate::objective::{Eta, rebel, reinforce};
    use crate::policy::{LogLinear, Tabular};
    use crate::solve::natural::policy_gradient;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    #[test]
    fn gradient_of_reinforce_on_a_drawn_batch_equals_number_by_hand() {
        // uniform over two; scores (1/2, -1/2) and (-1/2, 1/2); weights -(2 - 1), -(5 - 1); mean over two groups
        let policy = Tabular::new(array![[0.0, 0.0]]).unwrap();
        let batch = Batch::drawn((1, 2), vec![0, 0], array![[0], [1]]).unwrap();
        let reward = batch.values(&array![[2.0, 5.0]]);
        let got = batch.evaluate(&policy, |tape, new| {
            reinforce(new, &tape.input(reward.clone()), &tape.input(ArrayD::ones(reward.shape())))
        });
        let Evaluated { sum, gradient } = got.unwrap();
        assert_abs_diff_eq!(sum, 5.0 * 2f64.ln(), epsilon = 1e-15);
        assert_abs_diff_eq!(gradient, array![0.75, -0.75], epsilon = 1e-15);
    }

    #[test]
    fn population_of_responses_gives_minus_the_policy_gradient() {
        let bandit = Bandit::new(array![0.25, 0.75], array![[1.0, 0.0, -2.0], [0.5, 0.5, 3.0]]).unwrap();
        let phi = array![[[1.0, 0.2], [0.0, 1.0], [-0.5, 0.3]], [[0.4, -1.0], [0.9, 0.0], [-0.2, 0.6]]];
        let policy = LogLinear::new(phi, array![0.5, -1.0]).unwrap();
        let pi = policy.policy();
        let batch = Batch::of_responses(bandit.weights(), &pi);
        let reward = batch.values(bandit.reward());
        let got = batch.evaluate(&policy, |tape, new| {
            reinforce(new, &tape.input(reward.clone()), &tape.input(ArrayD::zeros(reward.shape())))
        });
        let expected = -policy_gradient(&bandit, &pi, policy.scores().view());
        assert_abs_diff_eq!(got.unwrap().gradient, expected, epsilon = 1e-15);
    }

    #[test]
    fn descent_on_all_pairs_of_rebel_ends_at_the_tilt() {
        let start = Tabular::new(array![[0.3, 0.0, -0.4]]).unwrap();
        let (pi, r) = (start.policy(), array![[1.0, 0.0, -2.0]]);
        let batch = Batch::of_pairs(&array![1.0], &PairLaw::independent(&pi, &pi));
        let (old, reward) = (batch.values(pi.log()), batch.values(&r));
        let mut policy = start;
        for _ in 0..300 {
            policy = batch
                .descend(&policy, 0.2, |tape, new| {
                    rebel(new, &tape.input(old.clone()), &tape.input(reward.clone()), Eta::new(0.7)?)
                })
                .unwrap();
        }
        assert!(policy.policy().distance(&crate::solve::mirror::tilt(&pi, &r, 0.7)) < 1e-12);
    }

    #[test]
    fn response_out_of_range_and_objective_of_another_shape_are_refused() {
        let error = Batch::drawn((2, 3), vec![0, 1], array![[0, 1], [2, 3]]).unwrap_err();
        assert_eq!(error.to_string(), "y[1]: 3 (expected an index below 3)");
        assert!(Batch::drawn((2, 3), vec![0, 2], array![[0], [1]]).is_err());
        assert!(Batch::drawn((2, 3), vec![0], array![[0], [1]]).is_err());
        let batch = Batch::drawn((1, 2), vec![0], array![[0, 1]]).unwrap();
        let policy = Tabular::new(array![[0.0, 0.0]]).unwrap();
        assert!(batch.evaluate(&policy, |_, new| Ok(new.clone())).is_err());
    }
}
