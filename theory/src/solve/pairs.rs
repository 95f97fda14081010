//! REBEL's regression on pairs that were drawn: the sampled step of equation (1), beside its population form.
//!
//! A [`PairBatch`] is what one iteration observed; a [`PredictorClass`] is what it may fit. The fit is the least-squares
//! solution of least norm through the normal equations, of which a table of predictors needs no eigenvalues: there they
//! are the Laplacian of the graph whose edges are the pairs.

use crate::bandit::{Bandit, Policy};
use crate::error::{self, InputError};
use crate::policy::{centred, one_hot};
use crate::solve::linear::{MinNorm, pseudo_solve, spectrum};
use crate::solve::natural::natural_step;
use crate::solve::pair_graph::pair_least_squares;
use nalgebra::{Cholesky, DMatrix, DVector};
use ndarray::{Array1, Array2, Array3, ArrayView1, s};

/// Two responses to one context, and what was observed of the difference of their rewards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The context `x`.
    pub context: usize,
    /// The first response `y`.
    pub first: usize,
    /// The second response `y'`.
    pub second: usize,
    /// The label: an observation of $$ r(x,y)-r(x,y') $$.
    pub label: f64,
}

/// The pairs of one iteration, their indices known to fit.
#[derive(Debug, Clone, PartialEq)]
pub struct PairBatch {
    pairs: Vec<Pair>,
}

impl PairBatch {
    /// A batch of pairs over `contexts` contexts and `responses` responses; it may be empty. Errors name the columns `x`,
    /// `y`, `y2` and `label`.
    pub fn new(contexts: usize, responses: usize, pairs: Vec<Pair>) -> Result<Self, InputError> {
        for (n, pair) in pairs.iter().enumerate() {
            let columns = [("x", pair.context, contexts), ("y", pair.first, responses), ("y2", pair.second, responses)];
            if let Some(&(argument, found, below)) = columns.iter().find(|(_, found, below)| found >= below) {
                return Err(InputError::OutOfRange { argument, index: vec![n], found, below });
            }
            if !pair.label.is_finite() {
                return Err(InputError::NotFinite { argument: "label", index: vec![n], value: pair.label });
            }
        }
        Ok(Self { pairs })
    }

    /// The pairs.
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }
}

/// The predictors `f(x,y)` among which the regression chooses, each `parameters()` numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictorClass {
    contexts: usize,
    responses: usize,
    form: Form,
}

#[derive(Debug, Clone, PartialEq)]
enum Form {
    Tabular,
    Linear(Array3<f64>), // [x, y, k], in row-major order
}

impl PredictorClass {
    /// Every table: one parameter a context and response, in row-major order.
    pub fn tabular(contexts: usize, responses: usize) -> Self {
        Self { contexts, responses, form: Form::Tabular }
    }

    /// The predictors $$ f(x,y)=\phi(x,y)^\top w $$ of finite features `phi` `[x, y, k]`.
    pub fn linear(features: Array3<f64>) -> Result<Self, InputError> {
        error::finite("phi", &features)?;
        let (contexts, responses, _) = features.dim();
        let features = features.as_standard_layout().into_owned();
        Ok(Self { contexts, responses, form: Form::Linear(features) })
    }

    /// Number of contexts.
    pub fn contexts(&self) -> usize {
        self.contexts
    }

    /// Number of responses.
    pub fn responses(&self) -> usize {
        self.responses
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        match &self.form {
            Form::Tabular => self.contexts * self.responses,
            Form::Linear(features) => features.dim().2,
        }
    }

    /// The features `[x, y, k]`; one-hot ones of a table.
    pub fn features(&self) -> Array3<f64> {
        match &self.form {
            Form::Tabular => one_hot(self.contexts, self.responses),
            Form::Linear(features) => features.clone(),
        }
    }

    /// The predictor of parameters `w` `[k]`, `[x, y]`. Panics if their number differs.
    pub fn predict(&self, w: &Array1<f64>) -> Array2<f64> {
        assert_eq!(w.len(), self.parameters(), "as many parameters as the class has");
        let shape = (self.contexts, self.responses);
        match &self.form {
            Form::Tabular => w.to_shape(shape).expect("one parameter an entry").into_owned(),
            Form::Linear(features) => {
                let mut table = Array2::zeros(shape);
                for (mut row, phi) in table.outer_iter_mut().zip(features.outer_iter()) {
                    row.assign(&phi.dot(w)); // [y]
                }
                table
            }
        }
    }

    /// The moment of a batch `[k]`, for labels `z`: $$ U^\top z=\sum_n z_n\,(\phi(y_n)-\phi(y'_n)) $$
    ///
    /// Divided by twice the number of pairs, with both responses on policy, it is the policy gradient of RLOO with two
    /// responses.
    pub fn moment(&self, batch: &PairBatch) -> Array1<f64> {
        let mut moment = Array1::zeros(self.parameters());
        for pair in &batch.pairs {
            match &self.form {
                Form::Tabular => {
                    moment[pair.context * self.responses + pair.first] += pair.label;
                    moment[pair.context * self.responses + pair.second] -= pair.label;
                }
                Form::Linear(features) => {
                    let (first, second) = feature_rows(features, pair);
                    moment.scaled_add(pair.label, &first);
                    moment.scaled_add(-pair.label, &second);
                }
            }
        }
        moment
    }

    /// The sampled step: the least-squares fit of least norm to a batch of labels `z` `[k]`, with `ridge >= 0`,
    ///
    /// $$ \arg\min_w\|Uw-z\|^2+\lambda\|w\|^2,\qquad U_n=\phi(y_n)-\phi(y'_n) $$
    ///
    /// and its rank. With ridge every direction counts.
    pub fn fit(&self, batch: &PairBatch, ridge: f64) -> Result<MinNorm, InputError> {
        match &self.form {
            Form::Tabular => self.fit_table(batch, ridge),
            Form::Linear(features) => {
                let mut gram = gram(features, batch);
                gram.diag_mut().mapv_inplace(|g| g + ridge);
                Ok(pseudo_solve(&spectrum("U^T U", &gram)?, &self.moment(batch)))
            }
        }
    }

    /// As [`fit`](Self::fit), for a table: each context is a graph of its own.
    fn fit_table(&self, batch: &PairBatch, ridge: f64) -> Result<MinNorm, InputError> {
        let arms = self.responses;
        let mut solution = Array1::zeros(self.parameters());
        let mut rank = 0;
        for x in 0..self.contexts {
            let own = batch.pairs.iter().filter(|pair| pair.context == x);
            let (edges, labels): (Vec<_>, Vec<_>) = own.map(|p| ([p.first, p.second], p.label)).unzip();
            let fit = match ridge > 0.0 {
                true => ridged_table(&edges, &labels, arms, ridge)?,
                false => pair_least_squares(&edges, &labels, arms)?,
            };
            solution.slice_mut(s![x * arms..(x + 1) * arms]).assign(&fit.solution);
            rank += fit.rank;
        }
        Ok(MinNorm { solution, rank })
    }

    /// The population fit `[k]`: the least-squares fit of least norm to `bandit`'s reward over all pairs `y ~ pi`,
    /// `y' ~ mu`, by Claim 1's normal equations.
    ///
    /// Every table of rewards is its own fit: `pi` is taken to have full support, so every difference is identified.
    pub fn population(&self, bandit: &Bandit, pi: &Policy, mu: &Policy) -> Result<Array1<f64>, InputError> {
        match &self.form {
            Form::Tabular => Ok(bandit.reward().iter().copied().collect()),
            Form::Linear(features) => {
                let scores = centred(features.clone(), pi);
                Ok(natural_step(bandit, pi, &pi.mixture(mu, 0.5), scores.view(), 1.0)?.delta)
            }
        }
    }
}

fn feature_rows<'a>(features: &'a Array3<f64>, pair: &Pair) -> (ArrayView1<'a, f64>, ArrayView1<'a, f64>) {
    (features.slice(s![pair.context, pair.first, ..]), features.slice(s![pair.context, pair.second, ..]))
}

/// The normal matrix $$ U^\top U $$ `[k, k]`.
fn gram(features: &Array3<f64>, batch: &PairBatch) -> Array2<f64> {
    let k = features.dim().2;
    let mut lower = vec![0.0; k * k];
    let mut difference = vec![0.0; k];
    for pair in batch.pairs.iter().filter(|pair| pair.first != pair.second) {
        let (first, second) = feature_rows(features, pair);
        difference.iter_mut().zip(first).zip(second).for_each(|((d, a), b)| *d = a - b);
        for (i, &a) in difference.iter().enumerate() {
            lower[i * k..].iter_mut().zip(&difference[..=i]).for_each(|(sum, b)| *sum += a * b);
        }
    }
    Array2::from_shape_fn((k, k), |(i, j)| lower[i.max(j) * k + i.min(j)])
}

/// The ridge regression of one context's table of `arms` entries on labels of differences: the normal matrix is the
/// Laplacian of the graph whose edges are the pairs, plus `ridge` on its diagonal.
fn ridged_table(edges: &[[usize; 2]], labels: &[f64], arms: usize, ridge: f64) -> Result<MinNorm, InputError> {
    let mut matrix = DMatrix::from_diagonal_element(arms, arms, ridge);
    let mut moment = DVector::zeros(arms);
    for (&[y, z], label) in edges.iter().zip(labels).filter(|([y, z], _)| y != z) {
        matrix[(y, y)] += 1.0;
        matrix[(z, z)] += 1.0;
        matrix[(y, z)] -= 1.0;
        matrix[(z, y)] -= 1.0;
        moment[y] += label;
        moment[z] -= label;
    }
    let failed = InputError::NoConvergence { argument: "U^T U" };
    let factor = Cholesky::new(matrix).ok_or(failed)?; // positive definite, unless a tiny ridge is lost in it
    Ok(MinNorm { solution: Array1::from_iter(factor.solve(&moment).iter().copied()), rank: arms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::linear::least_squares;
    use crate::solve::regression::{PairLaw, gauss_newton_step};
    use approx::assert_abs_diff_eq;
    use ndarray::array;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn pair(context: usize, first: usize, second: usize, label: f64) -> Pair {
        Pair { context, first, second, label }
    }

    fn random_batch(rng: &mut ChaCha8Rng, contexts: usize, responses: usize, count: usize) -> PairBatch {
        let mut one = || {
            let (x, y, z) =
                (rng.random_range(0..contexts), rng.random_range(0..responses), rng.random_range(0..responses));
            pair(x, y, z, rng.random_range(-1.0..1.0))
        };
        PairBatch::new(contexts, responses, (0..count).map(|_| one()).collect()).unwrap()
    }

    #[test]
    fn one_pair_moves_both_responses_by_half_its_label() {
        let batch = PairBatch::new(1, 3, vec![pair(0, 2, 0, 0.6)]).unwrap();
        let fit = PredictorClass::tabular(1, 3).fit(&batch, 0.0).unwrap();
        assert_abs_diff_eq!(fit.solution, array![-0.3, 0.0, 0.3], epsilon = 1e-15);
        assert_eq!(fit.rank, 1);
    }

    #[test]
    fn chain_of_pairs_adds_up_its_labels() {
        let batch = PairBatch::new(1, 3, vec![pair(0, 1, 0, 1.0), pair(0, 2, 1, 3.0), pair(0, 1, 1, 9.0)]).unwrap();
        let fit = PredictorClass::tabular(1, 3).fit(&batch, 0.0).unwrap();
        assert_abs_diff_eq!(fit.solution, array![-5.0 / 3.0, -2.0 / 3.0, 7.0 / 3.0], epsilon = 1e-14);
        assert_eq!(fit.rank, 2);
    }

    #[test]
    fn laplacian_normal_equations_and_singular_values_agree() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for count in [0, 1, 2, 4, 7, 20, 60] {
            let (contexts, responses) = (2, 5);
            let batch = random_batch(&mut rng, contexts, responses, count);
            let table = PredictorClass::tabular(contexts, responses);
            let linear = PredictorClass::linear(table.features()).unwrap();
            let design = Array2::from_shape_fn((count, 10), |(n, k)| {
                let one = batch.pairs()[n];
                let hot = |y: usize| if k == one.context * responses + y { 1.0 } else { 0.0 };
                hot(one.first) - hot(one.second)
            });
            let target = batch.pairs().iter().map(|p| p.label).collect();
            let by_svd = least_squares(&design, &target).unwrap();
            for ridge in [0.0, 0.3] {
                let (a, b) = (table.fit(&batch, ridge).unwrap(), linear.fit(&batch, ridge).unwrap());
                assert_abs_diff_eq!(a.solution, b.solution, epsilon = 1e-12);
                assert_eq!(a.rank, b.rank);
            }
            let fit = table.fit(&batch, 0.0).unwrap();
            assert_abs_diff_eq!(fit.solution, by_svd.solution, epsilon = 1e-12);
            assert_eq!(fit.rank, by_svd.rank);
        }
    }

    #[test]
    fn population_fit_is_least_squares_over_all_pairs() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut numbers = |shape: (usize, usize, usize)| Array3::from_shape_simple_fn(shape, || rng.random::<f64>());
        let features = numbers((2, 4, 3));
        let policy = |logits: Array3<f64>| Policy::from_logits(&logits.remove_axis(ndarray::Axis(2)));
        let (pi, mu) = (policy(numbers((2, 4, 1))), policy(numbers((2, 4, 1))));
        let bandit = Bandit::new(array![0.3, 0.7], numbers((2, 4, 1)).remove_axis(ndarray::Axis(2))).unwrap();
        let got = PredictorClass::linear(features.clone()).unwrap().population(&bandit, &pi, &mu).unwrap();
        let law = PairLaw::independent(&pi, &mu);
        let exact = gauss_newton_step(&bandit, &law, features.view(), 1.0).unwrap();
        assert_abs_diff_eq!(got, exact.solution, epsilon = 1e-12);
    }

    #[test]
    fn ridge_shrinks_a_single_pair_by_hand() {
        let batch = PairBatch::new(1, 2, vec![pair(0, 0, 1, 1.0)]).unwrap();
        let fit = PredictorClass::tabular(1, 2).fit(&batch, 0.5).unwrap(); // (2 + 1/2) w = 1 along (1, -1)
        assert_abs_diff_eq!(fit.solution, array![0.4, -0.4], epsilon = 1e-15);
    }

    #[test]
    fn pair_that_does_not_fit_is_named() {
        let error = PairBatch::new(1, 3, vec![pair(0, 0, 1, 0.0), pair(0, 0, 3, 0.0)]).unwrap_err();
        assert_eq!(error.to_string(), "y2[1]: 3 (expected an index below 3)");
        assert!(PairBatch::new(1, 3, vec![pair(1, 0, 0, 0.0)]).is_err());
        assert!(PairBatch::new(1, 3, vec![pair(0, 0, 0, f64::NAN)]).is_err());
    }
}
