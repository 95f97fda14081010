//! The operations of `theorem1.json`: Lemmas 1 and 2, Theorem 1 and what makes its terms tight (theory 5).

use super::input::{Fields, fits};
use super::{Failure, list, number, table};
use crate::bandit::{Bandit, Policy};
use crate::bounds::{Constants, Worst, coverage, lemma2_paper, lemma2_sharp, theorem1_paper, theorem1_sharp};
use crate::distribution::{Law, best_and_worst, best_of, worst_of};
use crate::error::{self, InputError};
use crate::policy::{LogLinear, Softmax};
use crate::solve::decomposition::pair_error;
use crate::solve::mirror::tilt;
use crate::solve::population::{Lemma2, Rebel};
use crate::solve::rates::Merged;
use crate::statistics::mean;
use ndarray::{Array1, Axis};
use serde_json::{Value, json};
use std::num::NonZeroUsize;

pub(super) fn lemma1_terms(input: &Fields) -> Result<Value, Failure> {
    let bandit = input.bandit()?;
    let (pi, mu) = (input.policy("pi", &bandit)?, input.policy("mu", &bandit)?);
    let f = input.matrix("f")?;
    fits("f", f.shape(), &bandit)?;
    let terms = pair_error(bandit.weights(), &pi, &mu, &(f - bandit.reward()));
    Ok(json!({
        "var_pi": number(terms.var_first),
        "var_mu": number(terms.var_second),
        "gap": number(terms.gap),
        "eps": number(terms.total()),
    }))
}

/// The law that the mode in field `mode` stands for; `offline` is the field of its table.
fn law(input: &Fields, bandit: &Bandit, mode: &'static str, offline: &'static str) -> Result<Law, Failure> {
    let draws = || -> Result<NonZeroUsize, Failure> {
        let expected = "a whole number of draws, at least 1";
        NonZeroUsize::new(input.count("n")?)
            .ok_or_else(|| InputError::Domain { argument: "n", value: 0.0, expected }.into())
    };
    match input.text(mode) {
        Some("on_policy") => Ok(Law::OnPolicy),
        Some("offline") => Ok(Law::Offline(input.policy(offline, bandit)?)),
        Some("best_of_n") => Ok(Law::BestOf(draws()?)),
        Some("worst_of_n") => Ok(Law::WorstOf(draws()?)),
        _ => {
            let problem = "is not a mode (expected on_policy, offline, best_of_n or worst_of_n)".to_owned();
            Err(Failure::Field { field: mode.to_owned(), problem })
        }
    }
}

pub(super) fn theorem1_run(input: &Fields) -> Result<Value, Failure> {
    let bandit = input.bandit()?;
    let policy = LogLinear::new(input.tables("phi")?, input.vector("theta0")?)?;
    let (eta, steps) = (input.positive("eta")?, input.count("T")?);
    let laws = (law(input, &bandit, "y_mode", "nu")?, law(input, &bandit, "mu_mode", "mu")?);
    let comparator = Policy::pure(&bandit.best(), bandit.responses());
    let mut run = Rebel::new(&bandit, policy, laws, eta)?;
    let kl_start = bandit.kl(&comparator, &run.policy().policy());
    let mut values = vec![bandit.value(&run.policy().policy())];
    let mut measured = Vec::new();
    for _ in 0..steps {
        let step = run.step()?;
        let laws = (&step.first, &step.second);
        measured.push(Constants::measure(bandit.weights(), &step.iteration, laws, &comparator, eta));
        values.push(bandit.value(&run.policy().policy()));
    }
    let kl_end = bandit.kl(&comparator, &run.policy().policy());
    let regret: Vec<f64> = values.iter().map(|j| bandit.optimum() - j).collect();
    let worst = Worst::of(&measured);
    let moved: f64 = measured.iter().map(|c| c.kl_backward).sum();
    let column = |of: fn(&Constants) -> f64| measured.iter().map(|c| number(of(c))).collect::<Value>();
    Ok(json!({
        "J": list(&values),
        "eps": column(|c| c.error.total()),
        "var_y": column(|c| c.error.var_first),
        "var_mu": column(|c| c.error.var_second),
        "gap": column(|c| c.error.gap),
        "C_inf": column(|c| c.coverage),
        "C_2": column(|c| c.mean_coverage),
        "A_abs": column(|c| c.amplitude),
        "A_range": column(|c| c.range),
        "kl_back": column(|c| c.kl_backward),
        "kl_fwd": column(|c| c.kl_forward),
        "approx": column(|c| c.approximation),
        "J_star": number(bandit.optimum()),
        "theta_T": list(&run.policy().parameters()),
        "kl_star_0": number(kl_start),
        "kl_star_T": number(kl_end),
        "regret_avg_0_Tm1": number(mean(&regret[..steps])),
        "regret_avg_1_T": number(mean(&regret[1..])),
        "regret_best": number(regret[..steps].iter().copied().fold(f64::INFINITY, f64::min)),
        "regret_last": number(regret[steps]),
        "md_term": number((kl_start - kl_end + moved) / (eta * steps as f64)),
        "approx_term": number(mean(&measured.iter().map(|c| c.approximation).collect::<Vec<_>>())),
        "A_max": number(worst.amplitude),
        "eps_max": number(worst.eps),
        "C_max": number(worst.coverage),
        "bound_paper": number(theorem1_paper(bandit.responses(), eta, steps, worst).total()),
        "bound_paper_valid": eta * worst.amplitude <= 1.0,
        "bound_sharp": number(theorem1_sharp(kl_start, eta, &measured).total()),
    }))
}

/// Largest number of probabilities a case may ask for.
const MAX_ENTRIES: usize = 50_000_000;

pub(super) fn best_worst(input: &Fields) -> Result<Value, Failure> {
    let (p, r) = (input.vector("pi")?, input.vector("r")?);
    error::shape("r", r.shape(), p.shape())?;
    let bandit = Bandit::new(Array1::ones(1), r.insert_axis(Axis(0)))?;
    let pi = Policy::new("pi", p.insert_axis(Axis(0)))?;
    let draws = input.sizes("N")?;
    let entries = bandit.responses().saturating_pow(2).saturating_mul(draws.len());
    if entries > MAX_ENTRIES {
        let expected = "fewer draws or responses: at most 5e7 probabilities in all";
        return Err(InputError::Domain { argument: "N", value: entries as f64, expected }.into());
    }
    let top = Policy::pure(&bandit.best(), bandit.responses());
    let (mut best, mut worst, mut joint) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cover_best, mut cover_pi) = (Vec::new(), Vec::new());
    for n in draws.iter().filter_map(|&n| NonZeroUsize::new(n)) {
        let (high, low) = (best_of(&pi, bandit.reward(), n), worst_of(&pi, bandit.reward(), n));
        let both = best_and_worst(&pi, bandit.reward(), n);
        cover_best.push(number(coverage(&top, &high)));
        cover_pi.push(number(coverage(&pi, &low)));
        best.push(list(high.prob()));
        worst.push(list(low.prob()));
        joint.push(table(&both.joint().index_axis(Axis(0), 0).to_owned()));
    }
    Ok(json!({
        "best": best,
        "worst": worst,
        "joint": joint,
        "C_best": cover_best,
        "C_worst_covers_pi": cover_pi,
        "C_pi": number(coverage(&top, &pi)),
    }))
}

pub(super) fn md_fixed_f(input: &Fields) -> Result<Value, Failure> {
    let bandit = input.bandit()?;
    let (mut pi, mu) = (input.policy("pi0", &bandit)?, input.policy("mu", &bandit)?);
    let f = input.matrix("f")?;
    fits("f", f.shape(), &bandit)?;
    let first = match input.text("nu") {
        Some("pi_t") => Law::OnPolicy,
        _ => Law::Offline(input.policy("nu", &bandit)?),
    };
    let (eta, steps) = (input.positive("eta")?, input.count("T")?);
    let delta = &f - bandit.reward();
    let mut regret = vec![bandit.optimum() - bandit.value(&pi)];
    let (mut trained, mut on_policy) = (Vec::new(), Vec::new());
    for _ in 0..steps {
        trained.push(pair_error(bandit.weights(), &first.given(&bandit, &pi), &mu, &delta).total());
        on_policy.push(pair_error(bandit.weights(), &pi, &mu, &delta).total());
        pi = tilt(&pi, &f, eta);
        regret.push(bandit.optimum() - bandit.value(&pi));
    }
    let cover = coverage(&Policy::pure(&bandit.best(), bandit.responses()), &mu);
    let eps = trained.iter().copied().fold(0.0, f64::max);
    Ok(json!({
        "regret": list(&regret),
        "eps_train": list(&trained),
        "eps_on_policy": list(&on_policy),
        "C": number(cover),
        "bound_approx_sharp": number((cover * eps).sqrt()),
    }))
}

pub(super) fn tight_sqrt_c_eps(input: &Fields) -> Result<Value, Failure> {
    let (arms, cover, gap) = (input.sizes("K")?, input.vector("C")?, input.vector("gap")?);
    error::shape("C", cover.shape(), &[arms.len()])?;
    error::shape("gap", gap.shape(), &[arms.len()])?;
    let each = arms.iter().zip(&cover).zip(&gap).map(|((&k, &c), &d)| Merged::new(k, c, d));
    let each = each.collect::<Result<Vec<_>, _>>()?;
    let column = |of: fn(&Merged) -> f64| each.iter().map(|m| number(of(m))).collect::<Value>();
    Ok(json!({
        "eps": column(Merged::eps),
        "regret": column(Merged::regret),
        "ratio_sharp": column(Merged::tightness),
        "ratio_paper": column(|m| m.tightness() / 2.0),
    }))
}

pub(super) fn lemma2_sequence(input: &Fields) -> Result<Value, Failure> {
    let start = Policy::new("pi0", input.vector("pi0")?.insert_axis(Axis(0)))?;
    let responses = start.prob().ncols();
    let (predictors, eta) = (input.matrix("f")?, input.positive("eta")?);
    let steps = predictors.nrows();
    if steps > 0 {
        error::shape("f", predictors.shape(), &[steps, responses])?;
    }
    let mut run = Lemma2::new(start)?;
    predictors.rows().into_iter().for_each(|f| run.round(f, eta));
    let largest = |values: &mut dyn Iterator<Item = &f64>| values.fold(f64::NEG_INFINITY, |m, &v| m.max(v));
    Ok(json!({
        "cumulative_advantage": list(&run.advantage),
        "regret_max": number(largest(&mut run.advantage.iter())),
        "A_max": number(run.amplitude),
        "range_max": number(run.ranges.iter().copied().fold(0.0, f64::max)),
        "kl_back_sum": number(run.kl_backward),
        "pi_T": list(run.last.prob()),
        "bound_paper": number(lemma2_paper(responses, eta, steps, run.amplitude)),
        "bound_hoeffding": number(hoeffding(&run, eta)),
    }))
}

/// Lemma 2 from a uniform start with the largest range in every round: $$ \frac{\ln|Y|}\eta+\frac{\eta T\,\mathrm{range}^2}8 $$
fn hoeffding(run: &Lemma2, eta: f64) -> f64 {
    let largest = run.ranges.iter().copied().fold(0.0, f64::max);
    lemma2_sharp((run.advantage.len() as f64).ln(), eta, &vec![largest; run.ranges.len()])
}
