//! The mathematics of REBEL, on problems small enough to be exact.
//!
//! Equation numbers are those of arXiv 2404.16767.

pub mod bandit;
pub mod bounds;
pub mod claims;
pub mod distribution;
pub mod error;
pub mod experiments;
pub mod game;
pub mod objective;
pub mod policy;
pub mod sample;
pub mod solve;
pub mod statistics;
pub mod vectors;
