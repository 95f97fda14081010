//! Chance between two tokens: the smallest problem in which a response is not one arm (theory 8.3).
//!
//! The policy picks a first token `a`, chance picks a state `s`, the policy picks a second token `b`; the reward is of all
//! three. Scores know nothing of chance, so the linearised step of REBEL is still the natural gradient; but no policy can
//! regress on what chance did, and a floor remains in the regression error.

use crate::bandit::{Policy, average};
use crate::error::{self, InputError};
use crate::solve::decomposition::pair_error;
use crate::solve::linear::{EIGENVALUE_CUTOFF, pseudo_solve_above, spectrum};
use crate::solve::mirror::tilt;
use ndarray::{Array1, Array2, Array3, Axis};

/// A tree of two tokens with chance between them, and a policy on it with one softmax a decision.
#[derive(Debug, Clone, PartialEq)]
pub struct ChanceTree {
    first: Policy,       // [1, a]
    chance: Policy,      // [a, s]
    second: Policy,      // [a*|S|+s, b]
    reward: Array2<f64>, // [a*|S|+s, b]
}

/// A displacement of the logits of a [`ChanceTree`].
#[derive(Debug, Clone, PartialEq)]
pub struct TreeStep {
    /// Of the first token `[a]`.
    pub first: Array1<f64>,
    /// Of the second token, one row a first token and state, `[a*|S|+s, b]`.
    pub second: Array2<f64>,
    /// The rank of the Fisher matrix.
    pub rank: usize,
}

impl ChanceTree {
    /// The tree with logits `theta1` `[a]` and `theta2` `[a, s, b]`, chances `q(s|a)` `[a, s]` and rewards `r` `[a, s, b]`.
    pub fn new(
        theta1: &Array1<f64>,
        theta2: &Array3<f64>,
        chance: Array2<f64>,
        reward: &Array3<f64>,
    ) -> Result<Self, InputError> {
        error::finite("theta1", theta1)?;
        error::finite("theta2", theta2)?;
        error::finite("r", reward)?;
        let (actions, states, _) = theta2.dim();
        error::shape("theta2", &theta2.shape()[..1], theta1.shape())?;
        error::shape("q", chance.shape(), &[actions, states])?;
        error::shape("r", reward.shape(), theta2.shape())?;
        let second_logits = decisions(theta2);
        Ok(Self {
            first: Policy::from_logits(&theta1.clone().insert_axis(Axis(0))),
            chance: Policy::new("q", chance)?,
            second: Policy::from_logits(&second_logits),
            reward: decisions(reward),
        })
    }

    /// The distribution of the first token `[1, a]`.
    pub fn first(&self) -> &Policy {
        &self.first
    }

    /// The distributions of the second token, one row a first token and state, `[a*|S|+s, b]`.
    pub fn second(&self) -> &Policy {
        &self.second
    }

    /// The probability of reaching each second decision `[a*|S|+s]`.
    fn reach(&self) -> Array1<f64> {
        (self.chance.prob() * &self.first.prob().row(0).insert_axis(Axis(1))).into_iter().collect()
    }

    /// The values of the second decisions `[a, s]`: $$ V(a,s)=E_{b\sim\pi}\,r(a,s,b) $$
    pub fn state_values(&self) -> Array2<f64> {
        let values = self.second.expectation(&self.reward);
        values.into_shape_with_order(self.chance.prob().raw_dim()).expect("a value a decision")
    }

    /// The values of the first tokens `[1, a]`: $$ Q(a)=E_{s\sim q}\,V(a,s) $$
    pub fn first_values(&self) -> Array2<f64> {
        self.chance.expectation(&self.state_values()).insert_axis(Axis(0))
    }

    /// The value of the policy: $$ J=E_{a\sim\pi}\,Q(a) $$
    pub fn value(&self) -> f64 {
        self.first.expectation(&self.first_values())[0]
    }

    /// The natural-gradient step in all logits, equation (6), of least norm: $$ \eta F^+\nabla J $$
    ///
    /// The Fisher matrix is block-diagonal, one block a decision: what is decided after chance is uncorrelated with what was
    /// decided before. Blocks are inverted one by one under the cutoff of the whole matrix, so that a decision that is never
    /// reached does not move.
    pub fn natural_step(&self, eta: f64) -> Result<TreeStep, InputError> {
        error::positive("eta", eta)?;
        let reach = self.reach();
        let first = Block::of(1.0, &self.first, 0, &self.first_values())?;
        let second = |(i, &weight): (usize, &f64)| Block::of(weight, &self.second, i, &self.reward);
        let second = reach.iter().enumerate().map(second).collect::<Result<Vec<_>, _>>()?;
        let largest = second.iter().fold(first.largest(), |m, block| m.max(block.largest()));
        let (first, mut rank) = first.solve(largest, eta);
        let mut rows = Array2::zeros(self.reward.raw_dim());
        for (block, mut row) in second.iter().zip(rows.rows_mut()) {
            let (solution, own) = block.solve(largest, eta);
            row.assign(&solution);
            rank += own;
        }
        Ok(TreeStep { first, second: rows, rank })
    }

    /// The tree whose logits are displaced by `step`, which is of its shape.
    pub fn moved(&self, step: &TreeStep) -> Self {
        let first = Policy::from_logits(&(self.first.log() + &step.first));
        let second = Policy::from_logits(&(self.second.log() + &step.second));
        Self { first, second, ..self.clone() }
    }

    /// The token-level natural gradient in closed form, for decisions that are reached and those that are not:
    ///
    /// $$ \pi_1'(a)\propto\pi_1(a)\,e^{\eta Q(a)},\qquad \pi_2'(b|a,s)\propto\pi_2(b|a,s)\,e^{\eta r(a,s,b)} $$
    pub fn token_npg(&self, eta: f64) -> Result<Self, InputError> {
        error::positive("eta", eta)?;
        let first = tilt(&self.first, &self.first_values(), eta);
        let second = tilt(&self.second, &self.reward, eta);
        Ok(Self { first, second, ..self.clone() })
    }

    /// The policy's law of whole trajectories `(a, s, b)`, `[1, |A||S||B|]`.
    pub fn trajectories(&self) -> Policy {
        let before = (self.chance.log() + &self.first.log().row(0).insert_axis(Axis(1))).into_iter(); // [a*|S|+s]
        let before: Array1<f64> = before.collect();
        let log = self.second.log() + &before.insert_axis(Axis(1));
        Policy::from_logits(&flat(&log))
    }

    /// The rewards of whole trajectories `[1, |A||S||B|]`.
    pub fn trajectory_rewards(&self) -> Array2<f64> {
        flat(&self.reward)
    }

    /// The scores of whole trajectories `[1, |A||S||B|, k]`, logits in the order `theta1`, `theta2` row-major.
    pub fn scores(&self) -> Array3<f64> {
        let (actions, states) = self.chance.prob().dim();
        let (decisions, tokens) = self.reward.dim();
        let score = |(_, y, k): (usize, usize, usize)| {
            let (decision, token) = (y / tokens, y % tokens);
            let indicator = |is: bool| if is { 1.0 } else { 0.0 };
            if k < actions {
                return indicator(k == decision / states) - self.first.prob()[[0, k]];
            }
            let (of, b) = ((k - actions) / tokens, (k - actions) % tokens);
            indicator(of == decision) * (indicator(b == token) - self.second.prob()[[of, b]])
        };
        Array3::from_shape_fn((1, decisions * tokens, actions + decisions * tokens), score)
    }

    /// The error on pairs of trajectories of the linear predictor of a step of size `eta`, squared units of reward:
    ///
    /// $$ E\big[\tfrac1\eta(g-g')^\top D-(r-r')\big]^2 $$
    pub fn linear_error(&self, step: &TreeStep, eta: f64) -> f64 {
        let centred = |pi: &Policy, d: &Array2<f64>| d - &pi.expectation(d).insert_axis(Axis(1));
        let first = centred(&self.first, &step.first.clone().insert_axis(Axis(0))); // [1, a]
        let second = centred(&self.second, &step.second); // [a*|S|+s, b]
        let states = self.chance.prob().ncols();
        let shift = |((i, b), &d): ((usize, usize), &f64)| (first[[0, i / states]] + d) / eta - self.reward[[i, b]];
        let error: Vec<f64> = second.indexed_iter().map(shift).collect();
        let error = Array1::from(error).insert_axis(Axis(0));
        let law = self.trajectories();
        pair_error(&Array1::ones(1), &law, &law, &error).total()
    }

    /// The part of the error that no linear predictor removes, squared units of reward:
    ///
    /// $$ 2\,E_{a\sim\pi}\,\mathrm{Var}_{s\sim q(\cdot|a)}V(a,s) $$
    pub fn error_floor(&self) -> f64 {
        let values = self.state_values();
        let centred = &values - &self.chance.expectation(&values).insert_axis(Axis(1));
        let variances = self.chance.expectation(&centred.mapv(|d| d * d)); // [a]
        2.0 * average(&self.first.prob().row(0).to_owned(), &variances)
    }

    /// The best policy on this tree, ties going to the first token; it has the same chances and rewards.
    pub fn best(&self) -> Self {
        let pure = |values: &Array2<f64>| Policy::pure(&crate::bandit::best_responses(values), values.ncols());
        let second = Self { second: pure(&self.reward), ..self.clone() };
        Self { first: pure(&second.first_values()), ..second }
    }
}

/// One decision's block of the Fisher matrix, decomposed, and the gradient in its logits.
struct Block {
    spectrum: crate::solve::linear::Spectrum,
    gradient: Array1<f64>,
}

impl Block {
    /// Row `i` of a table of distributions, reached with probability `weight`, its choices being worth `values` `[i, b]`.
    fn of(weight: f64, pi: &Policy, i: usize, values: &Array2<f64>) -> Result<Self, InputError> {
        let p = pi.prob().row(i);
        let fisher = Array2::from_shape_fn((p.len(), p.len()), |(a, b)| {
            weight * (if a == b { p[a] } else { 0.0 } - p[a] * p[b])
        });
        let mean = p.dot(&values.row(i));
        let gradient = (&values.row(i) - mean) * p * weight;
        Ok(Self { spectrum: spectrum("F", &fisher)?, gradient })
    }

    fn largest(&self) -> f64 {
        self.spectrum.values.fold(0.0, |m: f64, &v| m.max(v))
    }

    /// The displacement of this decision's logits, and the rank of its block.
    fn solve(&self, largest: f64, eta: f64) -> (Array1<f64>, usize) {
        let own = pseudo_solve_above(&self.spectrum, &self.gradient, EIGENVALUE_CUTOFF * largest);
        (own.solution * eta, own.rank)
    }
}

/// A table `[a, s, b]` as one row a decision, `[a*|S|+s, b]`.
fn decisions(table: &Array3<f64>) -> Array2<f64> {
    let (actions, states, tokens) = table.dim();
    table.to_shape((actions * states, tokens)).expect("rows of decisions").to_owned()
}

/// A table `[i, b]` as one row.
fn flat(table: &Array2<f64>) -> Array2<f64> {
    table.iter().copied().collect::<Array1<f64>>().insert_axis(Axis(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bandit::Bandit;
    use crate::solve::regression::{PairLaw, gauss_newton_step};
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    /// Two first tokens, two states, two second tokens, logits all zero; only the first token 0 meets chance.
    fn tree() -> ChanceTree {
        let reward = array![[[4.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]];
        ChanceTree::new(&Array1::zeros(2), &Array3::zeros((2, 2, 2)), array![[0.25, 0.75], [1.0, 0.0]], &reward)
            .unwrap()
    }

    #[test]
    fn values_and_floor_equal_numbers_by_hand() {
        assert_eq!(tree().state_values(), array![[2.0, 0.0], [1.0, 1.0]]);
        assert_eq!(tree().first_values(), array![[0.5, 1.0]]);
        assert_eq!(tree().value(), 0.75);
        assert_abs_diff_eq!(tree().error_floor(), 0.75, epsilon = 1e-15); // 2 * 1/2 * (1/4 4 - 1/4)
        assert_eq!(tree().best().value(), 1.0); // both first tokens are worth 1
    }

    #[test]
    fn step_equals_least_squares_on_all_pairs_of_trajectories() {
        let theta2 = array![[[0.3, -0.2, 0.1], [0.0, 1.0, 0.2]], [[-0.4, 0.6, 0.0], [0.2, 0.1, -0.9]]];
        let reward = array![[[1.0, 0.0, 2.0], [-1.0, 0.5, 0.3]], [[0.2, 0.9, -0.7], [1.5, 0.0, 0.4]]];
        let tree = ChanceTree::new(&array![0.2, -0.3], &theta2, array![[0.3, 0.7], [0.9, 0.1]], &reward).unwrap();
        let law = tree.trajectories();
        let arms = Bandit::new(array![1.0], tree.trajectory_rewards()).unwrap();
        let scores = tree.scores();
        let fit = gauss_newton_step(&arms, &PairLaw::independent(&law, &law), scores.view(), 0.7).unwrap();
        let step = tree.natural_step(0.7).unwrap();
        let delta: Array1<f64> = step.first.iter().chain(&step.second).copied().collect();
        assert_abs_diff_eq!(fit.solution, delta, epsilon = 1e-10);
        assert_eq!((fit.rank, step.rank), (9, 9));
        let residual = scores.index_axis(Axis(0), 0).dot(&delta) / 0.7 - arms.reward().row(0);
        let error = residual.insert_axis(Axis(0));
        let mean = law.expectation(&error)[0];
        let variance = law.expectation(&error.mapv(|e| (e - mean) * (e - mean)))[0];
        assert_abs_diff_eq!(tree.linear_error(&step, 0.7), 2.0 * variance, epsilon = 1e-12);
        assert_abs_diff_eq!(tree.linear_error(&step, 0.7), tree.error_floor(), epsilon = 1e-12);
    }

    #[test]
    fn decision_that_is_never_reached_does_not_move_and_has_no_rank() {
        let step = tree().natural_step(1.0).unwrap();
        assert_eq!((step.rank, step.second.row(3).to_vec()), (1 + 3, vec![0.0, 0.0]));
        assert_abs_diff_eq!(step.second.row(0), array![2.0, -2.0], epsilon = 1e-14);
        assert_abs_diff_eq!(step.first, array![-0.25, 0.25], epsilon = 1e-14);
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused_by_name() {
        let new = |theta1: usize, chance: Array2<f64>, reward: (usize, usize, usize)| {
            let made =
                ChanceTree::new(&Array1::zeros(theta1), &Array3::zeros((2, 2, 2)), chance, &Array3::zeros(reward));
            made.unwrap_err().to_string()
        };
        let even = array![[0.5, 0.5], [0.5, 0.5]];
        assert_eq!(new(3, even.clone(), (2, 2, 2)), "theta2: shape [2] (expected [3])");
        assert_eq!(new(2, array![[1.0], [1.0]], (2, 2, 2)), "q: shape [2, 1] (expected [2, 2])");
        assert_eq!(new(2, even.clone(), (2, 2, 1)), "r: shape [2, 2, 1] (expected [2, 2, 2])");
        assert_eq!(new(2, even * 0.5, (2, 2, 2)), "q[0]: sums to 0.5 (expected 1)");
        assert!(tree().natural_step(0.0).is_err() && tree().token_npg(f64::NAN).is_err());
    }
}
