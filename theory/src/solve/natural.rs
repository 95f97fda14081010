//! Policy gradients and natural policy gradients, classical (equation (6)) and mixed (Claim 1).

use crate::bandit::{Bandit, Policy};
use crate::error::{self, InputError};
use crate::policy::{Softmax, Tabular};
use crate::solve::linear::{EIGENVALUE_CUTOFF, MinNorm, pseudo_solve, pseudo_solve_above, spectrum};
use ndarray::{Array1, Array2, Array3, ArrayView3, Axis};

/// The uncentred second moment of scores `g` `[x, y, k]` under a law `q`, `[k, k]`:
///
/// $$ F_q=E_xE_{y\sim q}[g\,g^\top] $$
///
/// With `q` the policy itself this is the Fisher matrix of equation (6); under a mixture it is not the mixture's Fisher
/// matrix, because the scores are still those of the policy.
pub fn second_moment(bandit: &Bandit, q: &Policy, scores: ArrayView3<f64>) -> Array2<f64> {
    cross_moment(bandit, q, scores, scores)
}

fn cross_moment(bandit: &Bandit, q: &Policy, left: ArrayView3<f64>, right: ArrayView3<f64>) -> Array2<f64> {
    let mut total = Array2::zeros((left.dim().2, right.dim().2));
    for (x, &weight) in bandit.weights().iter().enumerate().filter(|(_, w)| **w > 0.0) {
        let (left, right) = (left.index_axis(Axis(0), x), right.index_axis(Axis(0), x)); // [y, k]
        let weighted = &right * &(&q.prob().row(x) * weight).insert_axis(Axis(1));
        total += &left.t().dot(&weighted);
    }
    total
}

/// The moment of scores `g` `[x, y, k]` with a function `f` `[x, y]` under a law `q`, `[k]`: $$ E_xE_{y\sim q}[g\,f] $$
pub fn moment(bandit: &Bandit, q: &Policy, scores: ArrayView3<f64>, f: &Array2<f64>) -> Array1<f64> {
    let column = f.view().insert_axis(Axis(2)); // [x, y, 1]
    cross_moment(bandit, q, scores, column).remove_axis(Axis(1))
}

/// The policy gradient `[k]`: $$ \nabla J=E_xE_{y\sim\pi}[g\,A] $$
pub fn policy_gradient(bandit: &Bandit, pi: &Policy, scores: ArrayView3<f64>) -> Array1<f64> {
    moment(bandit, pi, scores, &bandit.advantage(pi))
}

/// A natural-gradient step and its pieces.
#[derive(Debug, Clone, PartialEq)]
pub struct NaturalStep {
    /// The second moment of the scores `[k, k]`.
    pub fisher: Array2<f64>,
    /// Their moment with the advantage `[k]`.
    pub b: Array1<f64>,
    /// The displacement of the parameters `[k]`.
    pub delta: Array1<f64>,
    /// The rank of `fisher`.
    pub rank: usize,
}

/// The natural-gradient step of Claim 1 for scores and advantages of `pi`, averaged over any law `q`:
///
/// $$ D=\eta\,F_q^+\,b_q,\qquad F_q=E_q[g\,g^\top],\quad b_q=E_q[g\,A] $$
///
/// `q = pi` is equation (6); `q = (pi+mu)/2` is REBEL's linearised step for `y ~ pi`, `y' ~ mu`.
pub fn natural_step(
    bandit: &Bandit,
    pi: &Policy,
    q: &Policy,
    scores: ArrayView3<f64>,
    eta: f64,
) -> Result<NaturalStep, InputError> {
    let fisher = second_moment(bandit, q, scores);
    let b = moment(bandit, q, scores, &bandit.advantage(pi));
    let MinNorm { solution, rank } = pseudo_solve(&spectrum("F", &fisher)?, &b);
    Ok(NaturalStep { fisher, b, delta: solution * eta, rank })
}

/// The linearised step for independent draws `y ~ nu`, `y' ~ mu`, neither of which need be the policy, `[k]`:
///
/// $$ D=\eta\Big(F_{mix}-\tfrac12E[m_\nu m_\mu^\top+m_\mu m_\nu^\top]\Big)^+
///    \Big(b_{mix}-\tfrac12E[m_\nu a_\mu+m_\mu a_\nu]\Big) $$
///
/// with `m_q(x) = E_q[g|x]`, `a_q(x) = E_q[A|x]`, `mix = (nu+mu)/2`. With `nu = pi` the corrections vanish: Claim 1.
pub fn general_step(
    bandit: &Bandit,
    pi: &Policy,
    nu: &Policy,
    mu: &Policy,
    scores: ArrayView3<f64>,
    eta: f64,
) -> Result<MinNorm, InputError> {
    let advantage = bandit.advantage(pi);
    let mix = nu.mixture(mu, 0.5);
    let mut fisher = second_moment(bandit, &mix, scores);
    let mut b = moment(bandit, &mix, scores, &advantage);
    let (a_nu, a_mu) = (nu.expectation(&advantage), mu.expectation(&advantage)); // [x]
    for (x, &weight) in bandit.weights().iter().enumerate() {
        let rows = scores.index_axis(Axis(0), x); // [y, k]
        let (m_nu, m_mu) = (nu.prob().row(x).dot(&rows), mu.prob().row(x).dot(&rows)); // [k]
        let cross = m_nu.view().insert_axis(Axis(1)).dot(&m_mu.view().insert_axis(Axis(0)));
        fisher -= &((&cross + &cross.t()) * (weight / 2.0));
        b -= &((&m_nu * a_mu[x] + &m_mu * a_nu[x]) * (weight / 2.0));
    }
    let fit = pseudo_solve(&spectrum("F", &fisher)?, &b);
    Ok(MinNorm { solution: fit.solution * eta, rank: fit.rank })
}

/// The gradient of the value in tabular softmax logits `[x, y]`: $$ \rho(x)\,\pi(y|x)\,A(x,y) $$
pub fn tabular_gradient(bandit: &Bandit, pi: &Policy) -> Array2<f64> {
    let weights = bandit.weights().view().insert_axis(Axis(1)); // [x, 1]
    pi.prob() * &bandit.advantage(pi) * weights
}

/// The Fisher matrix of tabular softmax logits, one block `[y, y]` a context, as `[x, y, y]`:
///
/// $$ F_x=\rho(x)\,(\mathrm{diag}\,\pi-\pi\pi^\top) $$
pub fn tabular_fisher(bandit: &Bandit, pi: &Policy) -> Array3<f64> {
    let p = pi.prob();
    let entry = |(x, y, z): (usize, usize, usize)| {
        let own = if y == z { p[[x, y]] } else { 0.0 };
        bandit.weights()[x] * (own - p[[x, y]] * p[[x, z]])
    };
    Array3::from_shape_fn((bandit.contexts(), bandit.responses(), bandit.responses()), entry)
}

/// The natural-gradient step of tabular softmax logits `[x, y]`, $$ \eta\,F^+\nabla J $$ and the rank of `F`.
///
/// `F` is block-diagonal, so the pseudo-inverse is taken block by block under the cutoff of the whole matrix. The result
/// is `eta` times the reward minus its *unweighted* mean (theory 1.3).
pub fn tabular_npg_step(bandit: &Bandit, pi: &Policy, eta: f64) -> Result<(Array2<f64>, usize), InputError> {
    let blocks = tabular_fisher(bandit, pi);
    let gradient = tabular_gradient(bandit, pi);
    let spectra = blocks.outer_iter().map(|b| spectrum("F", &b.to_owned())).collect::<Result<Vec<_>, _>>()?;
    let largest = spectra.iter().flat_map(|s| &s.values).fold(0.0, |m: f64, &v| m.max(v));
    let mut step = Array2::zeros(gradient.raw_dim());
    let mut rank = 0;
    for (x, spectrum) in spectra.iter().enumerate() {
        let own = pseudo_solve_above(spectrum, &gradient.row(x).to_owned(), EIGENVALUE_CUTOFF * largest);
        step.row_mut(x).assign(&(own.solution * eta));
        rank += own.rank;
    }
    Ok((step, rank))
}

/// `steps` of gradient ascent on tabular softmax logits `[x, y]`: the values `[steps+1]` and the last policy.
pub fn policy_gradient_run(bandit: &Bandit, start: &Tabular, step: f64, steps: usize) -> (Vec<f64>, Policy) {
    let mut theta = start.logits();
    let mut pi = start.policy();
    let mut values = vec![bandit.value(&pi)];
    for _ in 0..steps {
        theta += &(tabular_gradient(bandit, &pi) * step);
        pi = Policy::from_logits(&theta);
        values.push(bandit.value(&pi));
    }
    (values, pi)
}

/// A change of the parameters' coordinates `theta = M phi'` (theory 1.8): `M` `[k, k]`, one row a parameter.
///
/// Returns the natural and the plain gradient step computed in `phi'` and mapped back by `M`, each `[k]`.
pub fn mapped_steps(
    bandit: &Bandit,
    pi: &Policy,
    scores: &Array3<f64>,
    m: &Array2<f64>,
    eta: f64,
) -> Result<(Array1<f64>, Array1<f64>), InputError> {
    error::finite("M", m)?;
    error::shape("M", m.shape(), &[scores.dim().2, scores.dim().2])?;
    let (contexts, responses, k) = scores.dim();
    let flat = scores.to_shape((contexts * responses, k)).expect("rows of scores");
    let mapped = flat.dot(m).into_shape_with_order((contexts, responses, k)).expect("rows of scores"); // M^T g
    let natural = natural_step(bandit, pi, pi, mapped.view(), eta)?.delta;
    let plain = policy_gradient(bandit, pi, mapped.view()) * eta;
    Ok((m.dot(&natural), m.dot(&plain)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    fn bandit() -> Bandit {
        Bandit::new(array![0.25, 0.75], array![[1.0, 0.0], [-1.0, 3.0]]).unwrap()
    }

    #[test]
    fn tabular_gradient_and_fisher_equal_numbers_by_hand() {
        let pi = Policy::new("pi", array![[0.5, 0.5], [0.75, 0.25]]).unwrap();
        // context 1: V = 0, A = r
        let by_hand = array![[0.0625, -0.0625], [-0.5625, 0.5625]];
        assert_abs_diff_eq!(tabular_gradient(&bandit(), &pi), by_hand, epsilon = 1e-15);
        let block = tabular_fisher(&bandit(), &pi).index_axis(Axis(0), 0).to_owned();
        assert_abs_diff_eq!(block, array![[0.0625, -0.0625], [-0.0625, 0.0625]], epsilon = 1e-15);
    }

    #[test]
    fn tabular_forms_equal_general_ones() {
        let policy = Tabular::new(array![[0.1, 0.7], [-0.4, 0.2]]).unwrap();
        let (pi, scores) = (policy.policy(), policy.scores());
        let general = natural_step(&bandit(), &pi, &pi, scores.view(), 0.6).unwrap();
        let (step, rank) = tabular_npg_step(&bandit(), &pi, 0.6).unwrap();
        let flat: Array1<f64> = step.iter().copied().collect();
        assert_abs_diff_eq!(flat, general.delta, epsilon = 1e-13);
        assert_eq!((rank, general.rank), (2, 2));
        let gradient: Array1<f64> = tabular_gradient(&bandit(), &pi).iter().copied().collect();
        assert_abs_diff_eq!(gradient, policy_gradient(&bandit(), &pi, scores.view()), epsilon = 1e-15);
    }

    #[test]
    fn tabular_step_is_reward_minus_unweighted_mean() {
        let pi = Policy::new("pi", array![[0.9, 0.1], [0.2, 0.8]]).unwrap();
        let (step, _) = tabular_npg_step(&bandit(), &pi, 2.0).unwrap();
        assert_abs_diff_eq!(step, array![[1.0, -1.0], [-4.0, 4.0]], epsilon = 1e-12);
    }

    #[test]
    fn general_step_with_first_draw_on_policy_is_claim_one() {
        let policy = Tabular::new(array![[0.1, 0.7], [-0.4, 0.2]]).unwrap();
        let (pi, scores) = (policy.policy(), policy.scores());
        let mu = Policy::pure(&[0, 1], 2);
        let general = general_step(&bandit(), &pi, &pi, &mu, scores.view(), 0.5).unwrap();
        let mixed = natural_step(&bandit(), &pi, &pi.mixture(&mu, 0.5), scores.view(), 0.5).unwrap();
        assert_abs_diff_eq!(general.solution, mixed.delta, epsilon = 1e-13);
    }

    #[test]
    fn context_of_weight_zero_does_not_move() {
        let bandit = Bandit::new(array![0.0, 1.0], array![[1.0, 0.0], [0.0, 1.0]]).unwrap();
        let (step, rank) = tabular_npg_step(&bandit, &Policy::uniform(2, 2), 1.0).unwrap();
        assert_eq!((step.row(0).to_vec(), rank), (vec![0.0, 0.0], 1));
    }
}
