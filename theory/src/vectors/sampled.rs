//! The operations on recorded samples: REBEL's runs taken apart (theory 5.1, 5.2, 6.8) and the bandit algorithms beside it.

use super::input::Fields;
use super::{Failure, list, number, table};
use crate::bandit::Policy;
use crate::error::{self, InputError};
use crate::game::Game;
use crate::players::{Exp3, Player, Ucb1};
use crate::sample::Sampler;
use crate::solve::pairs::{Pair, PairBatch, PredictorClass};
use crate::solve::trajectory::{Fit, Rebel, SecondLaw, Trajectory, run};
use ndarray::{Array1, Array2, ArrayView1};
use serde_json::{Map, Value, json};

/// The pairs of one record, labels `label` `[n]`.
fn batch(record: &Fields, shape: (usize, usize), label: &Array1<f64>) -> Result<PairBatch, Failure> {
    let (x, y, z) = (record.indices("x")?, record.indices("y")?, record.indices("y2")?);
    for (argument, length) in [("y", y.len()), ("y2", z.len()), ("label", label.len())] {
        error::shape(argument, &[length], &[x.len()])?;
    }
    let pair = |n: usize| Pair { context: x[n], first: y[n], second: z[n], label: label[n] };
    Ok(PairBatch::new(shape.0, shape.1, (0..x.len()).map(pair).collect())?)
}

/// The difference of two columns of as many numbers.
fn difference(record: &Fields, first: &str, second: &'static str) -> Result<Array1<f64>, Failure> {
    let (first, other) = (record.vector(first)?, record.vector(second)?);
    error::shape(second, other.shape(), first.shape())?;
    Ok(first - other)
}

/// The law of the second response: a table, or `"pi_t"`.
fn second_law(input: &Fields) -> Result<SecondLaw, Failure> {
    if input.says("mu", "pi_t") {
        return Ok(SecondLaw::Current);
    }
    Ok(SecondLaw::Fixed(Policy::new("mu", input.matrix("mu")?)?))
}

/// Replays recorded batches by log-linear REBEL.
fn replay(
    input: &Fields,
    weights: &Array1<f64>,
    shape: (usize, usize),
    batches: &[PairBatch],
    reward: impl FnMut(&Policy) -> Array2<f64>,
) -> Result<Trajectory, Failure> {
    let phi = input.tables("phi")?;
    error::shape("phi", phi.shape(), &[shape.0, shape.1, phi.dim().2])?;
    let class = PredictorClass::linear(phi)?;
    let theta = input.vector("theta0")?;
    error::finite("theta0", &theta)?;
    error::shape("theta0", theta.shape(), &[class.parameters()])?;
    let second = second_law(input)?;
    let rebel = Rebel::new(weights, &class, &second, input.positive("eta")?, 0.0)?;
    Ok(run(&rebel, theta, batches.len(), reward, |t, _, _| Ok(batches[t].clone()))?)
}

/// What both replays report of each iteration, and the last parameters.
fn report(trajectory: &Trajectory) -> Map<String, Value> {
    let each = |value: fn(&Fit) -> f64| -> Value { trajectory.fits().iter().map(|fit| number(value(fit))).collect() };
    let ranks: Vec<usize> = trajectory.fits().iter().map(|fit| fit.rank).collect();
    let fields = [
        ("rank", json!(ranks)),
        ("eps", each(|fit| fit.error.total())),
        ("eps_approx", each(|fit| fit.approximation)),
        ("eps_sampling", each(|fit| fit.sampling)),
        ("A_abs", each(|fit| fit.advantage)),
        ("kl_back", each(|fit| fit.kl_backward)),
        ("theta_T", list(trajectory.theta())),
    ];
    fields.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()
}

/// Adds more fields to a report.
fn with<const N: usize>(mut report: Map<String, Value>, fields: [(&str, Value); N]) -> Value {
    report.extend(fields.map(|(key, value)| (key.to_owned(), value)));
    Value::Object(report)
}

pub(super) fn bandit_replay(input: &Fields) -> Result<Value, Failure> {
    let bandit = input.bandit()?;
    let shape = bandit.reward().dim();
    let batches = input.records("iterations", |record| {
        let label = difference(record, "r1", "r2")?;
        batch(record, shape, &label)
    })?;
    let trajectory = replay(input, bandit.weights(), shape, &batches, |_| bandit.reward().clone())?;
    let (best, optimum, steps) = (bandit.best(), bandit.optimum(), batches.len());
    let comparator = Policy::pure(&best, bandit.responses());
    let values: Vec<f64> = trajectory.policies().map(|pi| bandit.value(pi)).collect();
    let of_iterations = &values[..steps];
    let highest = of_iterations.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v));
    let gap = |x: usize, y: usize| bandit.reward()[[x, best[x]]] - bandit.reward()[[x, y]];
    let queried: Vec<f64> = batches
        .iter()
        .flat_map(PairBatch::pairs)
        .flat_map(|p| [gap(p.context, p.first), gap(p.context, p.second)])
        .collect();
    let coverage = |t: usize| {
        let mu = trajectory.second(t).prob();
        best.iter().enumerate().fold(0.0, |worst: f64, (x, &y)| worst.max(1.0 / mu[[x, y]]))
    };
    let terms = trajectory.decomposition(&comparator);
    let bound = trajectory.mirror_bound(&comparator);
    Ok(with(
        report(&trajectory),
        [
            ("J", list(&values)),
            ("J_star", number(optimum)),
            ("regret_avg", number(optimum - of_iterations.iter().sum::<f64>() / steps as f64)),
            ("regret_best", number(optimum - highest)),
            ("regret_last", number(optimum - values[steps])),
            ("regret_paid", number(queried.iter().sum::<f64>() / queried.len() as f64)),
            ("queries", json!(queried.len())),
            ("C_inf", (0..steps).map(|t| number(coverage(t))).collect()),
            ("md_term", number(terms.mirror_descent)),
            ("approx_term", number(terms.approximation)),
            ("sampling_term", number(terms.sampling)),
            ("md_bound", number(bound)),
            ("bound_sharp", number(bound + trajectory.coverage_term(&comparator))),
        ],
    ))
}

pub(super) fn spo_decomposition(input: &Fields) -> Result<Value, Failure> {
    let game = input.game()?;
    let shape = (game.contexts(), game.responses());
    let batches = input.records("iterations", |record| {
        let label = difference(record, "o", "o2")? * 2.0;
        let opponent = record.indices("y3")?;
        error::shape("y3", &[opponent.len()], label.shape())?;
        error::indices("y3", &opponent, shape.1)?;
        batch(record, shape, &label)
    })?;
    let trajectory = replay(input, game.weights(), shape, &batches, |pi| game.reward(pi))?;
    let gaps: Value = trajectory.iterations().iter().map(|one| number(game.duality_gap(&one.policy))).collect();
    let largest = |value: fn(&Fit) -> f64| trajectory.fits().iter().map(value).fold(0.0, f64::max);
    let (advantage, eps) = (largest(|fit| fit.advantage), largest(|fit| fit.error.total()));
    let coverage = match second_law(input)? {
        SecondLaw::Fixed(mu) => worst_coverage(&mu),
        SecondLaw::Current => trajectory.iterations().iter().map(|one| worst_coverage(&one.policy)).fold(0.0, f64::max),
    };
    let (eta, steps) = (input.positive("eta")?, batches.len() as f64);
    let first = (shape.1 as f64).ln() / (eta * steps);
    let bound = 2.0 * (first + eta * advantage.powi(2) / 2.0 + (coverage * eps).sqrt());
    let report = with(
        report(&trajectory),
        [
            ("dg", gaps),
            ("dg_last", number(game.duality_gap(trajectory.last()))),
            ("A_max", number(advantage)),
            ("eps_max", number(eps)),
            ("C", number(coverage)),
            ("bound", number(if steps > 0.0 { bound } else { f64::NAN })),
        ],
    );
    let Value::Object(report) = report else { unreachable!("a report is an object") };
    Ok(with(report, against_best_response(&game, &trajectory)))
}

/// What concerns the average policy and its best response: all null without iterations.
fn against_best_response(game: &Game, trajectory: &Trajectory) -> [(&'static str, Value); 8] {
    const KEYS: [&str; 8] =
        ["pi_avg", "dg_avg", "best_response", "margin", "md_term", "approx_term", "sampling_term", "bound_sharp"];
    let Some(mean) = trajectory.average_policy() else { return KEYS.map(|key| (key, Value::Null)) };
    let response = game.best_response(&mean);
    let comparator = Policy::pure(&response, game.responses());
    let reward = game.reward(&mean);
    let margins = reward.rows().into_iter().zip(&response).map(|(row, &best)| margin_of(row, best));
    let terms = trajectory.decomposition(&comparator);
    let sharp = trajectory.mirror_bound(&comparator) + trajectory.coverage_term(&comparator);
    let values = [
        table(mean.prob()),
        number(game.duality_gap(&mean)),
        json!(response),
        number(margins.fold(f64::INFINITY, f64::min)),
        number(2.0 * terms.mirror_descent),
        number(2.0 * terms.approximation),
        number(2.0 * terms.sampling),
        number(2.0 * sharp),
    ];
    let mut values = values.into_iter();
    KEYS.map(|key| (key, values.next().expect("a value a key")))
}

/// How far the best entry of a row is above the second best; infinite in a row of one.
fn margin_of(row: ArrayView1<f64>, best: usize) -> f64 {
    let second = row.iter().enumerate().filter(|(y, _)| *y != best).fold(f64::NEG_INFINITY, |m, (_, &r)| m.max(r));
    row[best] - second
}

/// $$ \max_{x,y}1/\mu(y|x) $$
fn worst_coverage(mu: &Policy) -> f64 {
    mu.prob().fold(0.0, |worst: f64, &p| worst.max(1.0 / p))
}

/// Recorded rewards `[arm, n]` of successive pulls of each arm, and how many were taken.
struct Recorded {
    rewards: Array2<f64>,
    taken: Vec<usize>,
}

impl Recorded {
    fn of(rewards: &Array2<f64>) -> Self {
        Self { taken: vec![0; rewards.nrows()], rewards: rewards.clone() }
    }

    fn next(&mut self, arm: usize) -> Result<f64, InputError> {
        let n = self.taken[arm];
        let (index, below) = (vec![arm, n], self.rewards.ncols());
        let missing = InputError::OutOfRange { argument: "rewards", index, found: n, below };
        self.taken[arm] += 1;
        self.rewards.get([arm, n]).copied().ok_or(missing)
    }
}

/// Lets a player of one context pull `u.len()` arms of recorded rewards; `before` sees it before each pull.
fn pull<P: Player>(
    player: &mut P,
    rewards: &Array2<f64>,
    u: &Array1<f64>,
    mut before: impl FnMut(&P),
) -> Result<Vec<usize>, InputError> {
    let mut recorded = Recorded::of(rewards);
    let mut one = |&u: &f64| {
        before(player);
        let arm = player.choose(0, u);
        let reward = recorded.next(arm)?;
        player.observe(0, arm, reward);
        Ok(arm)
    };
    u.iter().map(&mut one).collect()
}

pub(super) fn bandit_baselines(input: &Fields) -> Result<Value, Failure> {
    let (rewards, means) = (input.matrix("rewards")?, input.vector("means")?);
    error::finite("means", &means)?;
    error::shape("rewards", rewards.shape(), &[means.len(), rewards.ncols()])?;
    let (steps, u) = (input.count("T")?, input.vector("u")?);
    error::shape("u", u.shape(), &[steps])?;
    for (n, &value) in u.iter().enumerate() {
        let (argument, index) = ("u", vec![n]);
        match value {
            value if value < 0.0 => return Err(InputError::Negative { argument, index, value }.into()),
            value if value > 1.0 => return Err(InputError::AboveOne { argument, index, value }.into()),
            _ => {}
        }
    }
    let arms = means.len();
    let best = means.fold(f64::NEG_INFINITY, |m, &v| m.max(v));
    let regret = |pulled: &[usize]| number(pulled.iter().map(|&k| best - means[k]).sum::<f64>() / steps as f64);

    let mut ucb1 = Ucb1::new(1, arms);
    let ucb1_arms = pull(&mut ucb1, &rewards, &u, |_| {})?;
    let most = ucb1.recommend().prob().iter().position(|&p| p == 1.0);

    let mut exp3 = Exp3::new(1, arms, input.positive("eta_exp3")?)?;
    let mut sum = Array1::<f64>::zeros(arms);
    let exp3_arms = pull(&mut exp3, &rewards, &u, |player| sum += &ArrayView1::from(player.prob(0)))?;
    let average = if steps > 0 { list(&(sum / steps as f64)) } else { Value::Null };

    let (pairs, theta) = one_pair(&rewards, &u, input.positive("eta_rebel")?)?;
    Ok(json!({
        "ucb1_regret": regret(&ucb1_arms),
        "ucb1_arms": ucb1_arms,
        "ucb1_pulls": ucb1.pulls(0),
        "ucb1_index": ucb1.index(0).map(number).collect::<Value>(),
        "ucb1_recommend": most,
        "exp3_regret": regret(&exp3_arms),
        "exp3_arms": exp3_arms,
        "exp3_p_last": list(exp3.prob(0)),
        "exp3_p_avg": average,
        "one_pair_pairs": pairs,
        "one_pair_theta": list(&theta),
    }))
}

/// Tabular REBEL from `theta = 0` with one on-policy pair an iteration, drawn by successive pairs of uniform numbers.
fn one_pair(rewards: &Array2<f64>, u: &Array1<f64>, eta: f64) -> Result<(Vec<[usize; 2]>, Array1<f64>), InputError> {
    let arms = rewards.nrows();
    let (class, weights) = (PredictorClass::tabular(1, arms), Array1::ones(1));
    let rebel = Rebel::new(&weights, &class, &SecondLaw::Current, eta, 0.0)?;
    let mut recorded = Recorded::of(rewards);
    let mut theta = Array1::zeros(arms);
    let mut pairs = Vec::with_capacity(u.len() / 2);
    for both in u.exact_chunks(2) {
        let sampler = Sampler::new(&rebel.policy(&theta));
        let (first, second) = (sampler.at(0, both[0]), sampler.at(0, both[1]));
        let label = recorded.next(first)? - recorded.next(second)?;
        rebel.step(&mut theta, &PairBatch::new(1, arms, vec![Pair { context: 0, first, second, label }])?)?;
        pairs.push([first, second]);
    }
    Ok((pairs, theta))
}
