//! Solvers: what one step of each method does to a policy, exactly, with every expectation enumerated.
//!
//! * [`linear`]: pseudo-inverse and minimum-norm least squares, with the cutoffs everything else relies on;
//! * [`mirror`]: the tilt, equations (2) to (5), and its iteration;
//! * [`regression`]: REBEL's regression, equations (1), (8) and (9), over any law of pairs;
//! * [`natural`]: policy gradient, Fisher matrix, natural gradient (equation (6)) and its mixed form (Claim 1);
//! * [`decomposition`]: regret split into mirror descent, misfit and sampling, and Lemma 1;
//! * [`laplacian`]: least squares over differences of responses, for tables;
//! * [`log_ratio`]: the exact minimiser of a regression of the log-ratio itself;
//! * [`rates`]: sharp constants, Lambert W, hitting times.

pub mod decomposition;
pub mod laplacian;
pub mod linear;
pub mod log_ratio;
pub mod mirror;
pub mod natural;
pub mod rates;
pub mod regression;
