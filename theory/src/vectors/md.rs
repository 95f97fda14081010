//! The operations of `md.json`: mirror descent, its bounds and its relatives (theory 1).

use super::input::{Fields, fits};
use super::{Failure, list, number, table};
use crate::bandit::Policy;
use crate::error::{self, InputError};
use crate::policy::{LogLinear, Softmax, Tabular};
use crate::solve::mirror::{mirror_descent, tilt};
use crate::solve::natural::{
    mapped_steps, natural_step, policy_gradient, policy_gradient_run, tabular_gradient, tabular_npg_step,
};
use crate::solve::rates::{Race, TiltBound, lambert_w0, tilt_bound};
use serde_json::{Value, json};

pub(super) fn md_run(input: &Fields) -> Result<Value, Failure> {
    let bandit = input.bandit()?;
    let start = input.policy("pi0", &bandit)?;
    let (eta, steps) = (input.positive("eta")?, input.count("T")?);
    let run = mirror_descent(&bandit, &start, eta, steps);
    let bound = tilt_bound(eta * bandit.range());
    let star = Policy::pure(&bandit.best(), bandit.responses());
    let rate = |nats: f64| number(if steps == 0 { f64::NAN } else { nats / (eta * steps as f64) });
    Ok(json!({
        "J": list(&run.values),
        "J_star": number(bandit.optimum()),
        "kl_fwd": list(&run.kl_forward),
        "kl_bwd": list(&run.kl_backward),
        "kl_fwd_max_x": number(run.kl_forward_max),
        "kl_sharp_bound": number(bound.sharp),
        "kl_hoeffding_bound": number(bound.hoeffding),
        "regret_T": number(bandit.optimum() - run.values[steps]),
        "regret_bound_T": rate(bandit.kl(&star, &start)),
        "regret_bound_lnY": rate((bandit.responses() as f64).ln()),
        "pi_T": table(run.last.prob()),
    }))
}

pub(super) fn kl_tilt_sharp(input: &Fields) -> Result<Value, Failure> {
    let ranges = input.vector("s")?;
    if let Some(&value) = ranges.iter().find(|&&s| s < 0.0) {
        return Err(InputError::Domain { argument: "s", value, expected: "a range, at least 0" }.into());
    }
    let bounds = ranges.mapv(|s| s.abs()).iter().map(|&s| tilt_bound(s)).collect::<Vec<_>>();
    let column = |of: fn(&TiltBound) -> f64| bounds.iter().map(|b| number(of(b))).collect::<Value>();
    Ok(json!({
        "bound": column(|b| b.sharp),
        "p_star": column(|b| b.mass),
        "hoeffding": column(|b| b.hoeffding),
    }))
}

pub(super) fn worst_case_rate(input: &Fields) -> Result<Value, Failure> {
    let arms = input.sizes("K")?.into_iter().map(|k| k as f64).collect::<Vec<_>>();
    let constant = arms.iter().map(|k| lambert_w0((k - 1.0) / std::f64::consts::E)).collect::<Vec<_>>();
    Ok(json!({
        "constant": list(&constant),
        "scaled_gap": constant.iter().map(|w| number(1.0 + w)).collect::<Value>(),
        "ln_K": arms.iter().map(|k| number(k.ln())).collect::<Value>(),
    }))
}

pub(super) fn npg_tabular_step(input: &Fields) -> Result<Value, Failure> {
    let bandit = input.bandit()?;
    let theta = input.matrix("theta")?;
    fits("theta", theta.shape(), &bandit)?;
    let eta = input.positive("eta")?;
    let policy = Tabular::new(theta.clone())?;
    let pi = policy.policy();
    let (step, rank) = tabular_npg_step(&bandit, &pi, eta)?;
    Ok(json!({
        "grad": table(&tabular_gradient(&bandit, &pi)),
        "dtheta": table(&step),
        "fisher_rank": rank,
        "pi_next": table(Policy::from_logits(&(theta + step)).prob()),
        "pi_md": table(tilt(&pi, bandit.reward(), eta).prob()),
    }))
}

pub(super) fn pg_tabular_run(input: &Fields) -> Result<Value, Failure> {
    let bandit = input.bandit()?;
    let theta = input.matrix("theta")?;
    fits("theta", theta.shape(), &bandit)?;
    let start = Tabular::new(theta)?;
    let (values, last) = policy_gradient_run(&bandit, &start, input.positive("step")?, input.count("T")?);
    Ok(json!({ "J": list(&values), "pi_T": table(last.prob()) }))
}

pub(super) fn pg_hitting(input: &Fields) -> Result<Value, Failure> {
    let (gap, delta, eta) = (input.positive("gap")?, input.positive("delta")?, input.positive("eta")?);
    let races = input.sizes("K")?.into_iter().map(|k| Race::new(k, gap, delta)).collect::<Result<Vec<_>, _>>()?;
    let gradient_steps = races.iter().map(|race| race.gradient_steps(eta)).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({
        "pg_steps": gradient_steps,
        "md_steps": races.iter().map(|race| race.mirror_steps(eta)).collect::<Vec<_>>(),
        "pg_time_continuous": races.iter().map(|race| number(race.gradient_time())).collect::<Value>(),
        "md_time_continuous": races.iter().map(|race| number(race.mirror_time())).collect::<Value>(),
    }))
}

pub(super) fn reparam_loglinear(input: &Fields) -> Result<Value, Failure> {
    let bandit = input.bandit()?;
    let phi = input.tables("phi")?;
    fits("phi", phi.shape(), &bandit)?;
    let policy = LogLinear::new(phi, input.vector("theta")?)?;
    let (eta, m) = (input.positive("eta")?, input.matrix("M")?);
    error::shape("M", m.shape(), &[policy.parameters().len(); 2])?;
    let (pi, scores) = (policy.policy(), policy.scores());
    let natural = natural_step(&bandit, &pi, &pi, scores.view(), eta)?;
    let plain = policy_gradient(&bandit, &pi, scores.view()) * eta;
    let (natural_mapped, plain_mapped) = mapped_steps(&bandit, &pi, &scores, &m, eta)?;
    let moved = |delta| table(policy.moved(delta).policy().prob());
    Ok(json!({
        "rank": natural.rank,
        "npg_delta": list(&natural.delta),
        "npg_delta_mapped": list(&natural_mapped),
        "pg_delta": list(&plain),
        "pg_delta_mapped": list(&plain_mapped),
        "pi_npg": moved(&natural.delta),
        "pi_npg_mapped": moved(&natural_mapped),
        "pi_pg": moved(&plain),
        "pi_pg_mapped": moved(&plain_mapped),
    }))
}
