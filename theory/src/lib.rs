//! The mathematics of REBEL, on problems small enough to be exact.
//!
//! Equation numbers are those of arXiv 2404.16767.

pub mod objective;
