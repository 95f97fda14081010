//! How far from the tilt a regression of the log-ratio itself ends (theory 6.6, E7.4): TV of the third order of the step.
//!
//! APA and SPPO take the normaliser to be 1. What that costs has a leading constant:
//!
//! $$ \mathrm{TV}=\tfrac{\eta^3}4\,E_x\,\mathrm{Var}_{\pi_t}A\;E_{\pi_t}|A|+O(\eta^4) $$

use crate::bandit::{Bandit, Policy, average};
use crate::error::InputError;
use crate::game::Game;
use crate::solve::log_ratio::log_ratio_minimiser;
use crate::solve::mirror::tilt;
use ndarray::{Array1, Array2, Array3};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// TV between APA's exact minimiser (`lambda = 1/eta`, reference `pi`) and the tilt by `eta r`, averaged over contexts.
pub fn apa_distance(bandit: &Bandit, pi: &Policy, eta: f64) -> f64 {
    distance(bandit.weights(), pi, &bandit.advantage(pi), eta)
}

/// TV between SPPO's exact minimiser and the tilt by `eta/2` times the margin over `pi`, averaged over contexts.
pub fn sppo_distance(game: &Game, pi: &Policy, eta: f64) -> f64 {
    distance(game.weights(), pi, &game.reward(pi), eta / 2.0)
}

/// The same for any target `a` `[x, y]` of mean zero under `pi`, at step `eta`.
fn distance(weights: &Array1<f64>, pi: &Policy, a: &Array2<f64>, eta: f64) -> f64 {
    let (regressed, _) = log_ratio_minimiser(pi, &(a * eta));
    average(weights, &regressed.total_variation(&tilt(pi, a, eta)))
}

/// The limit of TV over the third power of the step, for a target `a` `[x, y]` of mean zero under `pi`:
///
/// $$ \tfrac14\,E_x\,\mathrm{Var}_{\pi}(a)\;E_{\pi}|a| $$
pub fn leading_constant(weights: &Array1<f64>, pi: &Policy, a: &Array2<f64>) -> f64 {
    let (variance, size) = (pi.expectation(&a.mapv(|a| a * a)), pi.expectation(&a.mapv(f64::abs))); // [x]
    average(weights, &(variance * size)) / 4.0
}

/// Distances on random instances of one context.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogRatioDistance {
    /// Step sizes `[n]`.
    pub eta: Vec<f64>,
    /// TV(APA, tilt) `[seed][n]`: normal rewards.
    pub apa: Vec<Vec<f64>>,
    /// TV(SPPO, tilt of half the step) `[seed][n]`: margins uniform in [-1, 1].
    pub sppo: Vec<Vec<f64>>,
    /// What the leading constant predicts for APA at a step of 1 `[seed]`.
    pub constant: Vec<f64>,
}

/// Measures both distances at every step size on one random instance a seed, with normal logits for the policy.
pub fn log_ratio_distance(eta: &[f64], responses: usize, seeds: u64) -> Result<LogRatioDistance, InputError> {
    let instance = |seed: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut normals = || Array2::from_shape_simple_fn((1, responses), || StandardNormal.sample(&mut rng));
        let (pi, bandit) = (Policy::from_logits(&normals()), Bandit::new(Array1::ones(1), normals())?);
        let upper: Array2<f64> =
            Array2::from_shape_simple_fn((responses, responses), || rand::Rng::random_range(&mut rng, -1.0..1.0));
        let skew = |(_, y, z): (usize, usize, usize)| match y.cmp(&z) {
            std::cmp::Ordering::Less => upper[[y, z]],
            std::cmp::Ordering::Equal => 0.0,
            std::cmp::Ordering::Greater => -upper[[z, y]],
        };
        let game = Game::new(Array1::ones(1), Array3::from_shape_fn((1, responses, responses), skew))?;
        let apa: Vec<f64> = eta.iter().map(|&eta| apa_distance(&bandit, &pi, eta)).collect();
        let sppo: Vec<f64> = eta.iter().map(|&eta| sppo_distance(&game, &pi, eta)).collect();
        Ok((apa, sppo, leading_constant(bandit.weights(), &pi, &bandit.advantage(&pi))))
    };
    let all = (0..seeds).into_par_iter().map(instance).collect::<Result<Vec<_>, InputError>>()?;
    let mut found = LogRatioDistance { eta: eta.to_vec(), apa: vec![], sppo: vec![], constant: vec![] };
    for (apa, sppo, constant) in all {
        found.apa.push(apa);
        found.sppo.push(sppo);
        found.constant.push(constant);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn distance_at_a_small_step_is_the_leading_constant_times_its_third_power() {
        // uniform over two, advantages 1 and -1: variance 1, mean size 1, constant 1/4
        let bandit = Bandit::new(array![1.0], array![[2.0, 0.0]]).unwrap();
        let pi = Policy::uniform(1, 2);
        assert_eq!(leading_constant(bandit.weights(), &pi, &bandit.advantage(&pi)), 0.25);
        assert!((apa_distance(&bandit, &pi, 0.01) / 1e-6 - 0.25).abs() < 1e-3);
        // margins 1 and -1 against the uniform policy are half of that, at half the step
        let game = Game::single(array![[0.0, 1.0], [-1.0, 0.0]]).unwrap();
        assert!((sppo_distance(&game, &pi, 0.04) / 1e-6 - 0.25).abs() < 1e-3);
    }

    #[test]
    fn every_seed_has_its_curve_of_slope_three() {
        let found = log_ratio_distance(&[0.01, 0.02], 4, 5).unwrap();
        assert_eq!((found.apa.len(), found.sppo.len(), found.constant.len()), (5, 5, 5));
        for curve in found.apa.iter().chain(&found.sppo) {
            assert!((curve[1] / curve[0] - 8.0).abs() < 0.8, "{curve:?}");
        }
    }
}
