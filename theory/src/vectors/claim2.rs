//! The operations of `claim2.json`: finite samples and variance (theory 3).

use super::claim1::log_linear;
use super::input::Fields;
use super::{Failure, list, number, table};
use crate::policy::{LogLinear, Softmax};
use crate::solve::finite_sample::{Batch, Pairs};
use crate::solve::gradient_variance::GradientVariance;
use crate::solve::limit::Limit;
use crate::solve::linear::{pseudo_inverse, pseudo_solve, spectrum};
use crate::solve::natural::second_moment;
use ndarray::Array2;
use serde_json::{Value, json};

pub(super) fn gn_finite(input: &Fields) -> Result<Value, Failure> {
    let policy = LogLinear::new(input.tables("phi")?, input.vector("theta")?)?;
    let (contexts, responses, _) = policy.features().dim();
    let reward = input.matrix("r")?;
    crate::error::finite("r", &reward)?;
    crate::error::shape("r", reward.shape(), &[contexts, responses])?;
    let (eta, offset) = (input.positive("eta")?, input.number("offset")?);
    let indices = [input.indices("x")?, input.indices("y")?, input.indices("y2")?];
    let [x, y, y2] = indices;
    let pairs = Pairs::new(x, y, y2, (contexts, responses))?;
    let batch = Batch::new(&pairs, policy.scores().view(), &(reward + offset), &policy.policy())?;
    let paired = batch.paired_step(eta)?;
    let reinforce = batch.reinforce_gradient(&batch.constant_baseline(0.0));
    let mean_baseline = batch.reinforce_gradient(batch.mean_baseline());
    let true_baseline = batch.reinforce_gradient(batch.true_baseline());
    let separate = batch.separate_step(paired.b.clone(), eta)?;
    Ok(json!({
        "F_diff": table(&paired.fisher),
        "F_sep": table(&separate.fisher),
        "grad_rebel": list(&paired.b),
        "delta_rebel_gn": list(&paired.delta),
        "rank_diff": paired.rank,
        "rank_sep": separate.rank,
        "grad_reinforce": list(&reinforce),
        "grad_mean_baseline": list(&mean_baseline),
        "grad_true_baseline": list(&true_baseline),
        "delta_npg_reinforce": list(&batch.separate_step(reinforce, eta)?.delta),
        "delta_npg_mean_baseline": list(&batch.separate_step(mean_baseline, eta)?.delta),
        "delta_npg_true_baseline": list(&batch.separate_step(true_baseline, eta)?.delta),
        "delta_npg_rloo_sep": list(&separate.delta),
    }))
}

pub(super) fn grad_variance(input: &Fields) -> Result<Value, Failure> {
    let bandit = input.bandit()?;
    let policy = log_linear(input, &bandit)?;
    let offsets = input.vector("offsets")?;
    let (pi, scores) = (policy.policy(), policy.scores());
    let fisher = spectrum("F", &second_moment(&bandit, &pi, scores.view()))?;
    let inverse = pseudo_inverse(&fisher);
    let under = |metric: &Array2<f64>| -> Result<Value, Failure> {
        let variance = GradientVariance::new(&bandit, &pi, scores.view(), metric)?;
        let same = |value: f64| list(&offsets.mapv(|_| value));
        Ok(json!({
            "reinforce": list(&offsets.mapv(|c| variance.reinforce(c))),
            "true_baseline": same(variance.true_baseline()),
            "rebel_rloo": same(variance.paired()),
            "difference_poly": list(&variance.difference()),
            "no_reduction_interval": variance.no_reduction().map(|(low, high)| list(&[low, high])),
        }))
    };
    Ok(json!({
        "euclid": under(&Array2::eye(scores.dim().2))?,
        "fisher_inv": under(&inverse)?,
        "rank": pseudo_solve(&fisher, &policy.parameters()).rank,
    }))
}

pub(super) fn gn_asymptotic(input: &Fields) -> Result<Value, Failure> {
    let bandit = input.bandit()?;
    let policy = log_linear(input, &bandit)?;
    let offsets = input.vector("offsets")?;
    let limit = Limit::new(&bandit, &policy.policy(), policy.scores().view())?;
    Ok(json!({
        "rank": limit.rank(),
        "direction": list(limit.direction()),
        "residual_rms": number(limit.residual_rms()),
        "trace_rebel_gn": number(limit.paired()),
        "trace_npg_reinforce_Fhat": list(&offsets.mapv(|c| limit.reinforce_estimated(c))),
        "trace_npg_reinforce_Fexact": list(&offsets.mapv(|c| limit.reinforce_exact(c))),
        "trace_rloo_Fexact": number(limit.paired_exact()),
    }))
}
