//! Experiments behind claims and figures: a claim runs a small form, a figure the full one.

pub mod inner_steps;
pub mod log_ratio_distance;
pub mod method_race;
pub mod methods;
pub mod token_distance;
