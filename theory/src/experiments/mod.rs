//! Experiments behind claims and figures: a claim runs a small form, a figure the full one.

pub mod coverage_cost;
pub mod hitting_time;
pub mod one_pair;
pub mod regret_rate;
