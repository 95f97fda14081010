//! Experiments behind claims and figures: a claim runs a small form, a figure the full one.

pub mod excess;
pub mod gradient_scatter;
pub mod linear;
pub mod pair_loss;
pub mod pair_loss_failures;
pub mod step_error;
pub mod value_spread;
