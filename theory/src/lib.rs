//! The mathematics of REBEL, on problems small enough to be exact.
//!
//! REBEL ([arXiv 2404.16767](https://arxiv.org/abs/2404.16767)) improves a policy by regression: over pairs of responses to
//! a context it fits the change of the log-probability ratio to the difference of the rewards,
//!
//! $$ \theta_{t+1}=\arg\min_\theta E\Big[\tfrac1\eta\Big(\ln\tfrac{\pi_\theta(y|x)}{\pi_t(y|x)}-\ln\tfrac{\pi_\theta(y'|x)}{\pi_t(y'|x)}\Big)
//! -\big(r(x,y)-r(x,y')\big)\Big]^2 \tag{1} $$
//!
//! Where contexts and responses can be counted, every expectation in the paper is a sum, and every statement about it can be
//! computed to the last digits. This crate does so: f64 throughout, nats, no sampling except where sampling is the subject.
//! The loss verified here, [`objective::rebel`], is the function that the trainer trains language models with.
//! Equation numbers are the paper's; "theory 5.1" is a section of the project's notes, which the claims follow.
//!
//! # Reading order
//!
//! | module | what it holds |
//! |---|---|
//! | [`bandit`] | the problem: contexts, responses, a reward; policies as tables; KL and total variation |
//! | [`policy`] | policies with parameters and their scores: tabular, log-linear, a network, one softmax a token |
//! | [`objective`] | every loss, once, over arrays, a reverse-mode tape and candle |
//! | [`solve`] | what one exact step does: tilt, regression, Gauss-Newton, natural gradient; what regret is made of |
//! | [`distribution`] | laws that responses are drawn from: offline, on-policy, best and worst of several |
//! | [`bounds`] | Lemma 2, Theorem 1, Theorem 2 with their constants, the paper's and the sharp ones |
//! | [`game`] | preferences instead of rewards: minimax winners, self-play, reference policies, reward models |
//! | [`players`] | bandit algorithms beside REBEL, each charged for every reward it queries |
//! | [`sample`], [`statistics`] | exact samplers; intervals, medians, exponents |
//! | [`experiments`] | the larger measurements behind claims and figures |
//! | [`claims`] | the paper's statements, each measured beside its negative control: `rebel verify` |
//! | [`vectors`], [`error`] | answers to files of test vectors; what can be wrong with an argument |
//!
//! # Notation
//!
//! | symbol | in code | meaning |
//! |---|---|---|
//! | $$ x\sim\rho $$ | `weights`, `rho` `[x]` | contexts and their weights; a context of weight zero counts in no average |
//! | $$ y,y' $$ | `y`, `z` | the two responses of a pair |
//! | $$ \pi_t(y\mid x) $$ | `pi`, `old` `[x, y]` | the current policy; it has full support unless something else is said |
//! | $$ \mu(y\mid x) $$ | `mu` `[x, y]` | the law of the second response |
//! | $$ r(x,y),\ A(x,y) $$ | `reward`, `advantage` `[x, y]` | reward; reward minus its mean *under the current policy* |
//! | $$ J(\pi) $$ | [`bandit::Bandit::value`] | the value |
//! | $$ \eta $$ | `eta` | the step size, nats per unit of reward |
//! | $$ f_t=\tfrac1\eta\ln\tfrac{\pi_{t+1}}{\pi_t} $$ | `fit` `[x, y]` | the fitted predictor of the reward, up to a constant of the context |
//! | $$ g=\nabla_\theta\ln\pi_\theta $$ | `scores` `[x, y, k]` | scores, centred under the current policy |
//! | $$ F_q=E_q[g\,g^\top] $$ | `fisher` `[k, k]` | second moment of the scores under the law q, uncentred |
//! | $$ F^+ $$ | [`solve::linear`] | pseudo-inverse: solutions are of least Euclidean norm |
//! | $$ \epsilon $$ | `eps` | mean squared error of the predictor on pairs, squared units of reward |
//! | $$ C $$ | `coverage` | how much rarer the law of the data makes what the comparator plays |
//! | $$ l(x,y,y') $$ | `margin` `[x, y, y']` | preference margin, twice the probability of a win minus one |
//!
//! # Scaling traps
//!
//! * **The half in KL.** To second order KL is half the Fisher quadratic form. Deriving equation (6) without the half
//!   yields a step of half the size.
//! * **The loss of the published code** is `eta^2` times equation (1): the minimiser is the same, the gradient is not, and
//!   with it neither is the run of an optimiser at a given learning rate. Here it is equation (1).
//! * **The first gradient step** of equation (1) is a plain policy-gradient step, `-4/eta` times the gradient of J where both
//!   responses are on-policy. What makes REBEL a natural gradient is to go on to the minimum.
//! * **A batch's halves.** The matrix and the vector of a sampled step (Claim 2) both carry `1/(2N)`; an `N` in the place of
//!   one of them is off by two.
//! * **Advantages** are centred under the current policy also where pairs come from another law: with a raw reward Claim 1
//!   fails unless both responses are on-policy.
//! * **The constant in the rate** of mirror descent contains `1/eta`, and on a fixed problem the decay is exponential: `1/T`
//!   is a supremum over problems.
//!
//! # Equations of the paper
//!
//! | equation | what it says | function |
//! |---|---|---|
//! | (1) | the regression | of a batch [`objective::rebel`]; of a population [`solve::regression::pair_loss`], its minimiser [`solve::regression::exact_rebel`] |
//! | (2) | what a step maximises: value minus KL | [`solve::mirror::regularised_value`] |
//! | (3) | the tilt by the exponential of the reward | [`solve::mirror::tilt`]; of sequences [`policy::Autoregressive::tilted`] |
//! | (4), (5) | the reward read back from two policies | [`solve::mirror::implied_reward`], [`solve::mirror::log_normaliser`] |
//! | (6) | the natural policy gradient | [`solve::natural::natural_step`], tabular [`solve::natural::tabular_npg_step`] |
//! | (7) | PPO's clipped objective | as printed [`objective::ppo_clip_without_min`], as used [`objective::ppo_clip`] |
//! | (8) | exact differences of the predictor | [`solve::regression::pair_residuals`] |
//! | (9) | the linearised regression | [`solve::regression::gauss_newton_step`], [`solve::regression::pair_design`] |
//! | (10) | coverage | [`bounds::coverage`] |
//! | (12) | the preference margin | [`game::Game::margin`] |
//! | (21) | iterative DPO | [`objective::iterative_dpo`] |
//! | Claim 1 | a mixed natural gradient | [`solve::natural::natural_step`] under the mean of both laws; for any laws [`solve::natural::general_step`] |
//! | Claim 2 | its sampled form | [`solve::finite_sample`] |
//! | Example 1 | least squares, log-linear | [`solve::excess`] |
//! | Lemma 1 | the error on pairs in three terms | [`solve::decomposition::pair_error`] |
//! | Lemma 2, Theorem 1, Theorem 2 | regret and duality gap | [`bounds`]; taken apart exactly [`solve::decomposition::decompose`] |
//! | Appendix C | general preferences | [`objective::rebel_preference`], [`game::Game::reward`] |
//!
//! # Looking at it
//!
//! `make doc` builds these pages with their formulas typeset, `rebel verify` measures every claim, `rebel verify --html FILE`
//! makes a page of it, and `rebel figures` draws what the claims show.

#![warn(missing_docs)]

pub mod bandit;
pub mod bounds;
pub mod claims;
pub mod distribution;
pub mod error;
pub mod experiments;
pub mod game;
pub mod kernels;
pub mod objective;
pub mod players;
pub mod policy;
pub mod sample;
pub mod solve;
pub mod statistics;
pub mod vectors;
