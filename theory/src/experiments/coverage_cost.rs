//! What misfit costs (experiment E5.2, and the independent half of E5.5): a systematic error costs all of $$ \sqrt{C\epsilon} $$,
//! an independent one hardly any.

use crate::bandit::{Bandit, Policy};
use crate::bounds::Constants;
use crate::error::{self, InputError};
use crate::solve::decomposition::Iteration;
use crate::solve::mirror::tilt;
use ndarray::{Array1, Array2};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// What a run with errors paid, and what Theorem 1 charges for them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Paid {
    /// $$ \sqrt{C\epsilon} $$, averaged over the iterations.
    pub charged: f64,
    /// Regret averaged over the iterations $$ \pi_0..\pi_{T-1} $$.
    pub average: f64,
    /// Regret after the last iteration.
    pub last: f64,
}

/// A run of exact mirror descent along `r + noise`, with fresh independent noise of standard deviation `sigma` on every arm in
/// every iteration: one of `arms` arms is better by `gap`, pairs are `y ~ pi_t`, `y'` uniform, `steps >= 1` steps of size `eta`
/// from the uniform policy.
pub fn independent_errors(
    (arms, gap): (usize, f64),
    sigma: f64,
    (steps, eta): (usize, f64),
    rng: &mut impl Rng,
) -> Result<Paid, InputError> {
    if arms == 0 || steps == 0 {
        return Err(InputError::Empty { argument: if arms == 0 { "arms" } else { "steps" } });
    }
    let (gap, sigma, eta) =
        (error::positive("gap", gap)?, error::positive("sigma", sigma)?, error::positive("eta", eta)?);
    let mut reward = Array2::zeros((1, arms));
    reward[[0, 0]] = gap;
    let bandit = Bandit::new(Array1::ones(1), reward)?;
    let (mu, star) = (Policy::uniform(1, arms), Policy::pure(&[0], arms));
    let mut pi = mu.clone();
    let mut paid = Paid { charged: 0.0, average: 0.0, last: 0.0 };
    for _ in 0..steps {
        let noise = Array2::from_shape_simple_fn((1, arms), || -> f64 { StandardNormal.sample(&mut *rng) });
        let fit = bandit.reward() + &(noise * sigma);
        let next = tilt(&pi, &fit, eta);
        let iteration = Iteration { policy: pi, population: fit.clone(), fit, reward: bandit.reward().clone() };
        let laws = (&iteration.policy, &mu);
        let measured = Constants::measure(bandit.weights(), &iteration, laws, &star, eta);
        paid.charged += (measured.coverage * measured.error.total()).sqrt() / steps as f64;
        paid.average += (bandit.optimum() - bandit.value(&iteration.policy)) / steps as f64;
        pi = next;
    }
    paid.last = bandit.optimum() - bandit.value(&pi);
    Ok(paid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn one_step_from_uniform_pays_the_regret_of_uniform_play() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let paid = independent_errors((4, 0.8), 0.1, (1, 1.0), &mut rng).unwrap();
        assert!((paid.average - 0.6).abs() < 1e-15);
        assert!(independent_errors((0, 1.0), 1.0, (1, 1.0), &mut rng).is_err());
        assert!(independent_errors((2, 1.0), 1.0, (0, 1.0), &mut rng).is_err());
        assert!(independent_errors((2, 1.0), -1.0, (1, 1.0), &mut rng).is_err());
    }
}
