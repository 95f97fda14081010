//! How far natural gradient on one softmax a token ends from the tilt of the whole sequence (theory 8.2, E8.2): TV of the
//! second order of the step size, for sequences of two tokens.

use crate::bandit::Policy;
use crate::error::{self, InputError};
use crate::solve::mirror::tilt;
use ndarray::{Array1, Array2, Axis};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// TV between the token-level natural-gradient step and the tilt of the sequences of two tokens, for the laws of the first
/// token `[1, a]` and of the second given the first `[a, b]`, and rewards `[a, b]`.
///
/// In prefix logits the natural gradient multiplies a token's probability by $$ e^{\eta Q} $$ with the ordinary Q, the
/// expected reward of what follows; the tilt would take the soft one.
pub fn token_distance(first: &Policy, second: &Policy, reward: &Array2<f64>, eta: f64) -> Result<f64, InputError> {
    error::shape("second", second.prob().shape(), &[first.prob().ncols(), second.prob().ncols()])?;
    error::shape("r", reward.shape(), second.prob().shape())?;
    let value = second.expectation(reward).insert_axis(Axis(0)); // [1, a]
    let by_token = sequences(&tilt(first, &value, eta), &tilt(second, reward, eta));
    let whole = tilt(&sequences(first, second), &flat(reward), eta);
    Ok(by_token.total_variation(&whole)[0])
}

/// The law of the sequences of two tokens `[1, a*b]`.
fn sequences(first: &Policy, second: &Policy) -> Policy {
    let log = second.log() + &first.log().row(0).insert_axis(Axis(1)); // [a, b]
    Policy::from_logits(&flat(&log))
}

/// A table as one row.
fn flat(table: &Array2<f64>) -> Array2<f64> {
    table.iter().copied().collect::<Array1<f64>>().insert_axis(Axis(0))
}

/// The distance at every step size on one random instance a seed, `[seed][n]`: normal logits and rewards, `tokens` tokens.
pub fn token_distances(eta: &[f64], tokens: usize, seeds: u64) -> Result<Vec<Vec<f64>>, InputError> {
    let instance = |seed: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut normals = |rows| Array2::from_shape_simple_fn((rows, tokens), || StandardNormal.sample(&mut rng));
        let (first, second) = (Policy::from_logits(&normals(1)), Policy::from_logits(&normals(tokens)));
        let reward = normals(tokens);
        eta.iter().map(|&eta| token_distance(&first, &second, &reward, eta)).collect()
    };
    (0..seeds).into_par_iter().map(instance).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn single_choice_has_no_distance_and_two_have_one_of_second_order() {
        let (even, sure) = (Policy::uniform(1, 2), Policy::uniform(2, 1));
        // the second token is certain: the first alone is one softmax over everything
        assert!(token_distance(&even, &sure, &array![[1.0], [0.0]], 0.7).unwrap() < 1e-15);
        // Z given the first token is cosh(eta) or 1: the tilt weighs the first 1 + eta^2/2 to 1, token NPG 1 to 1
        let reward = array![[1.0, -1.0], [0.0, 0.0]];
        let got = token_distance(&even, &Policy::uniform(2, 2), &reward, 0.01).unwrap();
        assert!((got / 1e-4 - 0.125).abs() < 1e-4, "{got}");
    }

    #[test]
    fn reward_of_another_shape_is_refused() {
        assert!(token_distance(&Policy::uniform(1, 2), &Policy::uniform(2, 2), &array![[1.0]], 1.0).is_err());
        assert!(token_distance(&Policy::uniform(1, 3), &Policy::uniform(2, 2), &array![[1.0]], 1.0).is_err());
    }
}
