//! REBEL's regression, solved exactly: over every pair of responses, weighted by the law that draws the pairs.

use crate::bandit::{Bandit, Policy};
use crate::error::{self, InputError};
use crate::policy::one_hot;
use crate::solve::linear::{MinNorm, least_squares};
use ndarray::{Array1, Array2, Array3, ArrayView2, ArrayView3, Axis, s};

/// The law of a pair of responses given the context: `joint` `[x, y, y']`, each context's table summing to one.
#[derive(Debug, Clone, PartialEq)]
pub struct PairLaw {
    joint: Array3<f64>, // [x, y, y']
}

impl PairLaw {
    /// Any joint law `[x, y, y']`.
    pub fn new(joint: Array3<f64>) -> Result<Self, InputError> {
        let (contexts, responses, _) = joint.dim();
        error::shape("joint", joint.shape(), &[contexts, responses, responses])?;
        for (x, table) in joint.outer_iter().enumerate() {
            let flat: Array1<f64> = table.iter().copied().collect();
            error::distribution("joint", &[x], flat.view())?;
        }
        if contexts == 0 {
            return Err(InputError::Empty { argument: "joint" });
        }
        Ok(Self { joint })
    }

    /// The law of the paper: `y ~ first` and `y' ~ second`, independent given the context.
    pub fn independent(first: &Policy, second: &Policy) -> Self {
        let (contexts, responses) = first.prob().dim();
        let product = |(x, y, z)| first.prob()[[x, y]] * second.prob()[[x, z]];
        Self { joint: Array3::from_shape_fn((contexts, responses, responses), product) }
    }

    /// Probabilities `[x, y, y']`.
    pub fn joint(&self) -> &Array3<f64> {
        &self.joint
    }

    /// The laws of the first and of the second response `[x, y]`, each alone.
    pub fn marginals(&self) -> (Policy, Policy) {
        let marginal = |axis| {
            let table = self.joint.sum_axis(Axis(axis));
            let sums = table.sum_axis(Axis(1)).insert_axis(Axis(1));
            Policy::new("joint", table / &sums).expect("marginals of a checked law")
        };
        (marginal(2), marginal(1))
    }

    /// The mean of the two marginals `[x, y]`: the law of a response picked from a pair by a fair coin.
    pub fn mean_marginal(&self) -> Policy {
        let mean = (self.joint.sum_axis(Axis(2)) + self.joint.sum_axis(Axis(1))) / 2.0;
        let sums = mean.sum_axis(Axis(1)).insert_axis(Axis(1));
        Policy::new("joint", mean / &sums).expect("marginals of a checked law")
    }
}

/// The weighted residuals of REBEL's population loss, one a pair of different responses with positive weight `[n]`:
///
/// $$ \sqrt{w}\,\Big[\tfrac1\eta\Big(\ln\tfrac{\pi(y)}{\pi_t(y)}-\ln\tfrac{\pi(y')}{\pi_t(y')}\Big)-(r(y)-r(y'))\Big],
/// \qquad w=\rho(x)\,p(y,y'|x) $$
///
/// in the order of the rows of [`pair_design`].
pub fn pair_residuals(bandit: &Bandit, law: &PairLaw, old: &Policy, new: &Policy, eta: f64) -> Array1<f64> {
    let mut residuals = Vec::new();
    for ((x, y, z), &p) in law.joint.indexed_iter() {
        let weight = bandit.weights()[x] * p;
        if y != z && weight > 0.0 {
            let moved = |y| new.log()[[x, y]] - old.log()[[x, y]];
            let wanted = bandit.reward()[[x, y]] - bandit.reward()[[x, z]];
            residuals.push(weight.sqrt() * ((moved(y) - moved(z)) / eta - wanted));
        }
    }
    Array1::from(residuals)
}

/// REBEL's population loss, equation (1), of moving from `old` to `new`:
///
/// $$ E_{x,(y,y')}\Big[\tfrac1\eta\Big(\ln\tfrac{\pi(y)}{\pi_t(y)}-\ln\tfrac{\pi(y')}{\pi_t(y')}\Big)-(r(y)-r(y'))\Big]^2 $$
///
/// The public code minimises `eta^2` times this. Pairs of probability zero contribute nothing.
pub fn pair_loss(bandit: &Bandit, law: &PairLaw, old: &Policy, new: &Policy, eta: f64) -> f64 {
    let residuals = pair_residuals(bandit, law, old, new, eta);
    residuals.dot(&residuals)
}

/// The weighted design of equation (9): one row $$ \sqrt{w}\,(g(y)-g(y')) $$ and one target $$ \sqrt w\,(r(y)-r(y')) $$
/// a pair of different responses with weight `w = rho(x) p(y,y'|x) > 0`. `features` `[x, y, k]`, result `[n, k]`, `[n]`.
pub fn pair_design(bandit: &Bandit, law: &PairLaw, features: ArrayView3<f64>) -> (Array2<f64>, Array1<f64>) {
    let mut rows = Vec::new();
    let mut targets = Vec::new();
    for ((x, y, z), &p) in law.joint.indexed_iter() {
        let weight = bandit.weights()[x] * p;
        if y != z && weight > 0.0 {
            let difference = &features.slice(s![x, y, ..]) - &features.slice(s![x, z, ..]); // [k]
            rows.extend(difference.iter().map(|d| weight.sqrt() * d));
            targets.push(weight.sqrt() * (bandit.reward()[[x, y]] - bandit.reward()[[x, z]]));
        }
    }
    let shape = (targets.len(), features.dim().2);
    (Array2::from_shape_vec(shape, rows).expect("one row a target"), Array1::from(targets))
}

/// The Gauss-Newton step of REBEL's loss from `theta_t`, equation (9), of least norm `[k]`:
///
/// $$ \arg\min_D E\Big[\tfrac1\eta(g(y)-g(y'))^\top D-(r(y)-r(y'))\Big]^2 $$
///
/// `features` `[x, y, k]`: scores, or any features that differ from them by a constant of the context. For a log-linear
/// policy the residual is affine, and this is REBEL's exact minimiser.
pub fn gauss_newton_step(
    bandit: &Bandit,
    law: &PairLaw,
    features: ArrayView3<f64>,
    eta: f64,
) -> Result<MinNorm, InputError> {
    let (design, target) = pair_design(bandit, law, features);
    let fit = least_squares(&design, &target)?;
    Ok(MinNorm { solution: fit.solution * eta, rank: fit.rank })
}

/// REBEL's exact minimiser over all policies, equation (1) by least squares on the pairs of each context.
///
/// `old` need not have full support: a pair in which `old` misses a response is left out, and that response stays at
/// probability zero. What `law` never compares (a disconnected arm) does not move relative to the rest.
pub fn exact_rebel(bandit: &Bandit, law: &PairLaw, old: &Policy, eta: f64) -> Result<Policy, InputError> {
    let mut logits = old.log().clone();
    for x in 0..bandit.contexts() {
        let one = Bandit::new(Array1::ones(1), bandit.reward().slice(s![x..x + 1, ..]).to_owned())?;
        let on_support = supported_pairs(law.joint.index_axis(Axis(0), x), old.log().slice(s![x..x + 1, ..]));
        let step = gauss_newton_step(&one, &on_support, one_hot(1, bandit.responses()).view(), eta)?;
        let mut row = logits.row_mut(x);
        row += &step.solution;
    }
    Ok(Policy::from_logits(&logits))
}

/// The pairs of one context `[1, y, y']` in which both responses have a log-probability above `-inf`.
fn supported_pairs(table: ArrayView2<f64>, log: ArrayView2<f64>) -> PairLaw {
    let alive = |y: usize| log[[0, y]] > f64::NEG_INFINITY;
    let (n, m) = table.dim();
    let kept = |(_, y, z): (usize, usize, usize)| if alive(y) && alive(z) { table[[y, z]] } else { 0.0 };
    PairLaw { joint: Array3::from_shape_fn((1, n, m), kept) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::mirror::tilt;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    fn bandit() -> Bandit {
        Bandit::new(array![1.0], array![[1.0, 0.0, -2.0]]).unwrap()
    }

    #[test]
    fn loss_at_old_policy_is_mean_square_of_reward_difference() {
        let old = Policy::new("pi", array![[0.5, 0.25, 0.25]]).unwrap();
        let law = PairLaw::independent(&old, &Policy::pure(&[1], 3));
        let by_hand = 0.5 * 1.0 + 0.25 * 4.0; // y'=1: differences 1, 0, -2
        assert_abs_diff_eq!(pair_loss(&bandit(), &law, &old, &old, 0.3), by_hand, epsilon = 1e-15);
    }

    #[test]
    fn exact_minimiser_has_loss_zero_and_is_tilt() {
        let old = Policy::new("pi", array![[0.5, 0.3, 0.2]]).unwrap();
        let law = PairLaw::independent(&old, &Policy::pure(&[2], 3));
        let new = exact_rebel(&bandit(), &law, &old, 0.7).unwrap();
        assert!(pair_loss(&bandit(), &law, &old, &new, 0.7) < 1e-28);
        assert!(new.distance(&tilt(&old, bandit().reward(), 0.7)) < 1e-14);
    }

    #[test]
    fn step_of_one_feature_equals_number_by_hand() {
        let phi = array![[[0.0], [1.0]]];
        let bandit = Bandit::new(array![1.0], array![[0.0, 3.0]]).unwrap();
        let law = PairLaw::independent(&Policy::uniform(1, 2), &Policy::uniform(1, 2));
        let step = gauss_newton_step(&bandit, &law, phi.view(), 0.5).unwrap();
        assert_abs_diff_eq!(step.solution, array![1.5], epsilon = 1e-14); // eta times the slope 3
    }

    #[test]
    fn mean_marginal_averages_both_draws() {
        let law = PairLaw::independent(&Policy::pure(&[0], 2), &Policy::pure(&[1], 2));
        assert_abs_diff_eq!(law.mean_marginal().prob(), &array![[0.5, 0.5]], epsilon = 1e-15);
    }

    #[test]
    fn law_that_sums_to_two_is_refused() {
        assert!(PairLaw::new(array![[[0.5, 0.5], [0.5, 0.5]]]).is_err());
        assert!(PairLaw::new(Array3::zeros((1, 2, 3))).is_err());
    }
}
