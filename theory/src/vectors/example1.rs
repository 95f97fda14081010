//! The operation of `example1.json`: ordinary least squares on sampled pairs and its excess error (theory 4).

use super::claim1::log_linear;
use super::input::Fields;
use super::{Failure, list, number, table};
use crate::bandit::Bandit;
use crate::error;
use crate::policy::Softmax;
use crate::solve::excess::{Design, pair_covariance, quadratic};
use crate::solve::finite_sample::Pairs;
use crate::solve::linear::{pseudo_solve, spectrum};
use ndarray::Array2;
use serde_json::{Value, json};

pub(super) fn ols_excess(input: &Fields) -> Result<Value, Failure> {
    let (features, w) = (input.tables("phi")?, input.vector("w_true")?);
    let (contexts, responses, k) = features.dim();
    let bandit = Bandit::new(input.vector("rho")?, Array2::zeros((contexts, responses)))?;
    let policy = log_linear(input, &bandit)?;
    error::finite("w_true", &w)?;
    error::shape("w_true", w.shape(), &[k])?;
    let (pi, mu) = (policy.policy(), input.policy("mu", &bandit)?);
    let (sigma, eta) = (error::not_negative("sigma", input.number("sigma")?)?, input.positive("eta")?);
    let pairs = Pairs::new(input.indices("x")?, input.indices("y")?, input.indices("y2")?, (contexts, responses))?;
    let noise = input.vector("noise")?;
    error::shape("noise", noise.shape(), &[pairs.len()])?;

    let covariance = pair_covariance(&bandit, &pi, &mu, policy.features());
    let rank = pseudo_solve(&spectrum("Sigma", &covariance)?, &w).rank;
    let design = Design::new(pairs.design(policy.features().view()))?;
    let fit = design.fit(&(design.rows().dot(&w) + &noise))?;
    let label_variance = 2.0 * sigma * sigma;
    let excess = design.expected_excess(&covariance, &w, label_variance);
    let per_pair = |rank: usize| number(label_variance * rank as f64 / pairs.len() as f64);
    Ok(json!({
        "Sigma": table(&covariance),
        "rank_population": rank,
        "rank_design": design.rank(),
        "w_hat": list(&fit),
        "theta_next": list(&(policy.parameters() + &fit * eta)),
        "eps_realised": number(quadratic(&covariance, &(&fit - &w))),
        "eps_expected_given_design": number(excess.total()),
        "eps_bias_part": number(excess.bias),
        "eps_variance_part": number(excess.variance),
        "eps_asymptotic": per_pair(rank),
        "in_sample_expected": per_pair(design.rank()),
    }))
}
