//! Experiments behind claims and figures: a claim runs a small form, a figure the full one.

pub mod equal_queries;
pub mod inner_steps;
pub mod log_ratio_distance;
pub mod method_race;
pub mod methods;
pub mod sampled_regret;
pub mod selfplay_decomposition;
pub mod token_distance;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The random numbers of run number `run` of an experiment of this seed.
pub fn stream(seed: u64, run: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(run);
    rng
}
pub mod coverage_cost;
pub mod excess;
pub mod gradient_scatter;
pub mod hitting_time;
pub mod linear;
pub mod one_pair;
pub mod pair_loss;
pub mod pair_loss_failures;
pub mod preference_queries;
pub mod regret_rate;
pub mod step_error;
pub mod value_spread;
