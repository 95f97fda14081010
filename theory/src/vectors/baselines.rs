//! The operations of `baselines.json`: losses and gradients of every objective on a batch, and the exact optima of PPO,
//! APA and mirror descent over all policies (theory 7 and 6.6).

use super::input::{Fields, fits};
use super::{Failure, list, number};
use crate::bandit::{Bandit, Policy};
use crate::error::{self, InputError};
use crate::objective::{self, ArithError, Beta, Clip, Eta, Lambda, Tau};
use crate::policy::{LogLinear, Softmax};
use crate::solve::descent::{Batch, Evaluated};
use crate::solve::log_ratio::log_ratio_minimiser;
use crate::solve::mirror::tilt;
use crate::solve::ppo::Surrogate;
use ndarray::{Array1, Array2, Array3, ArrayD, Axis};
use serde_json::{Map, Value, json};

/// The settings of all objectives.
struct Hyper {
    eta: Eta,
    beta: Beta,
    tau: Tau,
    clip: Clip,
    lambda: Lambda,
    baseline: f64,
}

impl Hyper {
    fn read(input: &Fields) -> Result<Self, Failure> {
        let refused = |error: ArithError| Failure::Input(error.into());
        Ok(Self {
            eta: Eta::new(input.number("eta")?).map_err(refused)?,
            beta: Beta::new(input.number("beta")?).map_err(refused)?,
            tau: Tau::new(input.number("tau")?).map_err(refused)?,
            clip: Clip::new(input.number("clip")?).map_err(refused)?,
            lambda: Lambda::new(input.number("lambda")?).map_err(refused)?,
            baseline: input.number("baseline")?,
        })
    }
}

/// The probability that each response is preferred to one of the policy `[x, y]`: $$ P(y\succ\pi|x) $$
fn win_rate(preference: &Array3<f64>, pi: &Policy) -> Array2<f64> {
    let mut rate = Array2::zeros(pi.prob().raw_dim());
    for ((table, prob), mut row) in preference.outer_iter().zip(pi.prob().rows()).zip(rate.rows_mut()) {
        row.assign(&table.dot(&prob));
    }
    rate
}

fn preference(input: &Fields, bandit: &Bandit) -> Result<Array3<f64>, Failure> {
    let preference = input.tables("P")?;
    let responses = bandit.responses();
    error::shape("P", preference.shape(), &[bandit.contexts(), responses, responses])?;
    match preference.indexed_iter().find(|(_, p)| !(0.0..=1.0).contains(*p)) {
        Some(((x, y, z), p)) => {
            let problem = format!("{p} (expected a probability)");
            Err(Failure::Field { field: format!("P[{x}][{y}][{z}]"), problem })
        }
        None => Ok(preference),
    }
}

pub(super) fn batch_losses(input: &Fields) -> Result<Value, Failure> {
    let phi = input.tables("phi")?;
    // Every expectation here is over responses; the weight of a context plays no part.
    let contexts = phi.dim().0;
    let weights = Array1::from_elem(contexts, 1.0 / contexts as f64);
    let bandit = Bandit::new(weights, input.matrix("r")?)?;
    fits("phi", phi.shape(), &bandit)?;
    let at = |key: &'static str| -> Result<LogLinear, Failure> {
        let theta = input.vector(key)?;
        error::finite(key, &theta)?;
        error::shape(key, theta.shape(), &[phi.dim().2])?;
        Ok(LogLinear::new(phi.clone(), theta)?)
    };
    let (policy, old, reference) = (at("theta")?, at("theta_t")?.policy(), at("theta_ref")?.policy());
    let win = win_rate(&preference(input, &bandit)?, &old);
    let hyper = Hyper::read(&input.object("hyper")?)?;

    let (first, second, label) = (input.indices("y")?, input.indices("y2")?, input.indices("label")?);
    let contexts = input.indices("x")?;
    let groups = contexts.len();
    for (key, found) in [("y", &first), ("y2", &second), ("label", &label)] {
        error::shape(key, &[found.len()], &[groups])?;
    }
    error::indices("y2", &second, bandit.responses())?;
    error::indices("label", &label, 2)?;
    let columns = |left: &dyn Fn(usize) -> usize, right: &dyn Fn(usize) -> usize| {
        Array2::from_shape_fn((groups, 2), |(n, j)| if j == 0 { left(n) } else { right(n) })
    };
    let size = (bandit.contexts(), bandit.responses());
    let pairs = Batch::drawn(size, contexts.clone(), columns(&|n| first[n], &|n| second[n]))?;
    let won = |n: usize| if label[n] == 1 { (first[n], second[n]) } else { (second[n], first[n]) };
    let preferences = Batch::drawn(size, contexts.clone(), columns(&|n| won(n).0, &|n| won(n).1))?;
    let singles = Batch::drawn(size, contexts, Array2::from_shape_fn((groups, 1), |(n, _)| first[n]))?;

    let Hyper { eta, beta, tau, clip, lambda, baseline } = hyper;
    let of = |batch: &Batch, table: &Array2<f64>| batch.values(table);
    let (advantage, reward) = (bandit.advantage(&old), bandit.reward());
    let (old_one, old_two) = (of(&singles, old.log()), of(&pairs, old.log()));
    let (a, r_one, r_two) = (of(&singles, &advantage), of(&singles, reward), of(&pairs, reward));
    let (ones, level) = (ArrayD::ones(a.shape()), ArrayD::from_elem(a.shape(), baseline));
    let (kept_one, kept_won) = (of(&singles, reference.log()), of(&preferences, reference.log()));
    let win = of(&singles, &win);
    let mut losses = Map::new();
    // A loss of log-probabilities `$new` of a batch; every other array goes onto the same tape.
    macro_rules! loss {
        ($name:literal, $batch:ident, $function:ident($($array:ident),*; $($parameter:ident),*)) => {
            let evaluated = $batch.evaluate(&policy, |tape, new| {
                objective::$function(new, $(&tape.input($array.clone()),)* $($parameter),*)
            })?;
            losses.insert($name.to_owned(), mean_of(&evaluated, groups));
        };
    }
    loss!("reinforce", singles, reinforce(r_one, level;));
    loss!("rloo2", pairs, rloo(r_two;));
    loss!("ppo_clip", singles, ppo_clip(old_one, a, ones; clip));
    loss!("ppo_clip_no_min", singles, ppo_clip_without_min(old_one, a, ones; clip));
    loss!("dpo", preferences, dpo(kept_won; beta));
    loss!("ipo", preferences, ipo(kept_won; tau));
    loss!("iterative_dpo", pairs, iterative_dpo(old_two, r_two; beta));
    loss!("apa", singles, apa(kept_one, a; lambda));
    loss!("sppo", singles, sppo(old_one, win; eta));
    loss!("rebel", pairs, rebel(old_two, r_two; eta));
    let ratio = (of(&singles, policy.policy().log()) - &old_one).mapv(f64::exp);
    let outside = ratio.iter().filter(|&&ratio| (ratio - 1.0).abs() > clip.get()).count();
    losses["ppo_clip"]["clip_fraction"] = number(outside as f64 / groups as f64);
    Ok(Value::Object(losses))
}

/// The mean over groups and its gradient; of no groups, not defined.
fn mean_of(evaluated: &Evaluated, groups: usize) -> Value {
    let mean = if groups == 0 { f64::NAN } else { evaluated.sum / groups as f64 };
    let gradient = evaluated.gradient.mapv(|g| if groups == 0 { f64::NAN } else { g });
    json!({ "loss": number(mean), "grad": list(&gradient) })
}

/// The sampled policy `[1, y]` and the bandit of one context that the fields `pi` and `r` hold.
fn one_context(input: &Fields) -> Result<(Policy, Bandit), Failure> {
    let (pi, reward) = (input.vector("pi")?, input.vector("r")?);
    error::distribution("pi", &[], pi.view())?;
    error::shape("r", reward.shape(), pi.shape())?;
    let bandit = Bandit::new(Array1::ones(1), reward.insert_axis(Axis(0)))?;
    Ok((Policy::new("pi", pi.insert_axis(Axis(0)))?, bandit))
}

fn row(policy: &Policy) -> Value {
    list(policy.prob().row(0))
}

pub(super) fn ppo_tabular(input: &Fields) -> Result<Value, Failure> {
    let (pi, bandit) = one_context(input)?;
    let eta = input.positive("eta")?;
    let clip = Clip::new(input.number("clip")?).map_err(InputError::from)?;
    let surrogate = Surrogate::new(&input.vector("pi")?, &input.vector("r")?, clip)?;
    let (nearest, restriction) = (surrogate.nearest_maximiser(), surrogate.restriction());
    let tilted = tilt(&pi, bandit.reward(), eta);
    let divergence = |policy: &Policy| number(policy.kl(&pi)[0]);
    let ratio = (tilted.log() - pi.log()).iter().filter(|r| !r.is_nan()).fold(f64::NEG_INFINITY, |m, &r| m.max(r));
    Ok(json!({
        "surrogate_max": number(surrogate.maximum()),
        "feasible": surrogate.is_feasible(),
        "closed_form_max": number(surrogate.closed_form()),
        "min_kl_maximiser": row(&nearest),
        "kl_min": divergence(&nearest),
        "all_on_positive": restriction.as_ref().map_or(Value::Null, row),
        "kl_all_on_positive": restriction.as_ref().map_or(Value::Null, divergence),
        "kl_max_maximiser": surrogate.farthest_divergence().map_or(Value::Null, number),
        "md": row(&tilted),
        "kl_md": divergence(&tilted),
        "rebel_ratio_max": number(ratio.exp()),
    }))
}

pub(super) fn tabular_optima(input: &Fields) -> Result<Value, Failure> {
    let (pi, bandit) = one_context(input)?;
    let eta = input.positive("eta")?;
    let tilted = tilt(&pi, bandit.reward(), eta);
    let (regressed, multiplier) = log_ratio_minimiser(&pi, &(bandit.advantage(&pi) * eta));
    Ok(json!({
        "md": row(&tilted),
        "apa": row(&regressed),
        "apa_multiplier": number(multiplier[0]),
        "tv_apa_md": number(regressed.total_variation(&tilted)[0]),
    }))
}
