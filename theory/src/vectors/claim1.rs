//! The operations of `claim1.json`: the Gauss-Newton step against the mixed natural gradient (theory 2).

use super::input::{Fields, fits};
use super::{Failure, list, number, table};
use crate::bandit::{Bandit, Policy};
use crate::error;
use crate::policy::{LogLinear, Mlp, Softmax};
use crate::solve::natural::{NaturalStep, natural_step, policy_gradient};
use crate::solve::regression::{PairLaw, gauss_newton_step, pair_loss};
use ndarray::s;
use serde_json::{Value, json};

/// The mixed natural step for `y ~ pi`, `y' ~ mu`, and REBEL's loss before and after it.
struct MixedStep {
    pi: Policy,
    step: NaturalStep,
    next: Policy,
    loss_before: f64,
    loss_after: f64,
}

fn mixed_step<P: Softmax>(bandit: &Bandit, policy: &P, mu: &Policy, eta: f64) -> Result<MixedStep, Failure> {
    let pi = policy.policy();
    let step = natural_step(bandit, &pi, &pi.mixture(mu, 0.5), policy.scores().view(), eta)?;
    let next = policy.moved(&step.delta).policy();
    let law = PairLaw::independent(&pi, mu);
    let loss_before = pair_loss(bandit, &law, &pi, &pi, eta);
    let loss_after = pair_loss(bandit, &law, &pi, &next, eta);
    Ok(MixedStep { pi, step, next, loss_before, loss_after })
}

pub(super) fn log_linear(input: &Fields, bandit: &Bandit) -> Result<LogLinear, Failure> {
    let phi = input.tables("phi")?;
    fits("phi", phi.shape(), bandit)?;
    Ok(LogLinear::new(phi, input.vector("theta")?)?)
}

pub(super) fn claim1_loglinear(input: &Fields) -> Result<Value, Failure> {
    let bandit = input.bandit()?;
    let policy = log_linear(input, &bandit)?;
    let mu = input.policy("mu", &bandit)?;
    let MixedStep { pi, step, next, loss_before, loss_after } =
        mixed_step(&bandit, &policy, &mu, input.positive("eta")?)?;
    let gradient = policy_gradient(&bandit, &pi, policy.scores().view());
    Ok(json!({
        "F": table(&step.fisher),
        "b": list(&step.b),
        "delta": list(&step.delta),
        "rank": step.rank,
        "policy_gradient": list(&gradient),
        "dir_derivative": number(gradient.dot(&step.delta)),
        "loss_before": number(loss_before),
        "loss_after": number(loss_after),
        "pi_next": table(next.prob()),
    }))
}

pub(super) fn claim1_mlp(input: &Fields) -> Result<Value, Failure> {
    let bandit = input.bandit()?;
    let features = input.tables("feat")?;
    fits("feat", features.shape(), &bandit)?;
    let (w1, b1, w2) = (input.matrix("W1")?, input.vector("b1")?, input.vector("w2")?);
    let policy = Mlp::new(features, w1, b1, w2, input.number("b2")?)?;
    let mu = input.policy("mu", &bandit)?;
    let MixedStep { pi, step, next, loss_before, loss_after } =
        mixed_step(&bandit, &policy, &mu, input.positive("eta")?)?;
    Ok(json!({
        "log_pi": table(pi.log()),
        "score_x0_y0": list(policy.scores().slice(s![0, 0, ..])),
        "b": list(&step.b),
        "delta": list(&step.delta),
        "rank": step.rank,
        "n_params": step.delta.len(),
        "loss_before": number(loss_before),
        "loss_after_gn": number(loss_after),
        "pi_next": table(next.prob()),
    }))
}

/// The true minimum-norm step for pairs from `law` beside Claim 1's formula under the mean of its marginals.
fn against_formula(input: &Fields, bandit: &Bandit, law: &PairLaw) -> Result<Value, Failure> {
    let policy = log_linear(input, bandit)?;
    let eta = input.positive("eta")?;
    let (pi, scores) = (policy.policy(), policy.scores());
    let least_squares = gauss_newton_step(bandit, law, scores.view(), eta)?;
    let formula = natural_step(bandit, &pi, &law.mean_marginal(), scores.view(), eta)?;
    let difference = &least_squares.solution - &formula.delta;
    Ok(json!({
        "delta_ls": list(&least_squares.solution),
        "delta_formula": list(&formula.delta),
        "gap": number(difference.dot(&difference).sqrt()),
        "rank_ls": least_squares.rank,
        "rank_formula": formula.rank,
    }))
}

pub(super) fn claim1_offpolicy(input: &Fields) -> Result<Value, Failure> {
    let bandit = input.bandit()?;
    let (nu, mu) = (input.policy("nu", &bandit)?, input.policy("mu", &bandit)?);
    against_formula(input, &bandit, &PairLaw::independent(&nu, &mu))
}

pub(super) fn claim1_joint(input: &Fields) -> Result<Value, Failure> {
    let bandit = input.bandit()?;
    let joint = input.tables("joint")?;
    let responses = bandit.responses();
    error::shape("joint", joint.shape(), &[bandit.contexts(), responses, responses])?;
    against_formula(input, &bandit, &PairLaw::new(joint)?)
}
