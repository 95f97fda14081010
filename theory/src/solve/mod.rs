//! Solvers: what one step of each method does to a policy, exactly, with every expectation enumerated.
//!
//! * [`linear`]: pseudo-inverse and minimum-norm least squares, with the cutoffs everything else relies on;
//! * [`mirror`]: the tilt, equations (2) to (5), and its iteration;
//! * [`regression`]: REBEL's regression, equations (1), (8) and (9), over any law of pairs;
//! * [`natural`]: policy gradient, Fisher matrix, natural gradient (equation (6)) and its mixed form (Claim 1);
//! * [`pairs`]: the same regression on pairs that were drawn, by least squares of least norm;
//! * [`trajectory`]: whole runs of such regressions, taken apart;
//! * [`decomposition`]: regret split into mirror descent, misfit and sampling, and Lemma 1;
//! * [`descent`]: gradient descent on any objective, over a drawn batch or an enumerated population;
//! * [`batched`]: the Gauss-Newton step from sampled pairs, for many data sets at once;
//! * [`finite_sample`], [`gradient_variance`], [`limit`]: the step and the gradient of a sampled batch (Claim 2), and how
//!   they scatter;
//! * [`excess`], [`estimation`]: the error of a fit to sampled pairs (Example 1), and what can be measured of it;
//! * [`population`]: runs whose regressions see the whole population of pairs, Lemma 2;
//! * [`projected`]: gradient ascent on the simplex;
//! * [`pair_graph`]: least squares on differences of two entries, the tabular case of the same;
//! * [`laplacian`]: least squares over differences of responses, for tables;
//! * [`laplacian`]: the same with a weight on every edge;
//! * [`log_ratio`]: the exact minimiser of a regression of the log-ratio itself;
//! * [`ppo`]: the maximisers of PPO's clipped surrogate over all policies;
//! * [`tree`]: chance between two tokens;
//! * [`rates`]: sharp constants, Lambert W, hitting times.

pub mod batched;
pub mod decomposition;
pub mod descent;
pub mod estimation;
pub mod excess;
pub mod finite_sample;
pub mod gradient_variance;
pub mod laplacian;
pub mod limit;
pub mod linear;
pub mod log_ratio;
pub mod mirror;
pub mod natural;
pub mod pair_graph;
pub mod pairs;
pub mod population;
pub mod ppo;
pub mod projected;
pub mod rates;
pub mod regression;
pub mod trajectory;
pub mod tree;
