//! Experiments behind claims and figures: a claim runs a small form, a figure the full one.

pub mod preference_queries;
