//! Claim 22 of the table: noise in the rewards that is fresh and unbiased costs far less than Theorem 1 charges for it.

use super::instances::split_error;
use super::{Claim, Draw, Features, Findings, Quantity, Tag, Trials, over_bound};
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::experiments::sampled_regret::{
    Analysed, ErrorKinds, Problem, analysed_runs, error_kinds, over_runs, worst_gap_regrets,
};
use crate::experiments::stream;
use crate::players::Bernoulli;
use crate::policy::Softmax;
use crate::sample::{ContextSampler, Sampler};
use crate::solve::pairs::{Pair, PairBatch, PredictorClass};
use crate::solve::trajectory::{Rebel, SecondLaw, run};
use crate::statistics::{log_log_slope, mean, standard_error, stratified_bootstrap};
use ndarray::{Array1, Array2, Array3};

pub(super) const CLAIM: Claim = Claim {
    id: "unbiased-noise",
    title: "Unbiased noise costs eta eps, not sqrt(C eps)",
    statement: "Regret = mirror descent + approximation + sampling, exactly. With fresh pairs of full rank and a realisable reward \
                the sampling term has mean zero: E regret <= KL/(eta T) + (eta/8) E range(f_t)^2, and after each step, if eta \
                (Delta_t - E Delta_t) <= 1, E regret <= KL/(eta T) + (e-2) eta E a_t. Only systematic errors cost sqrt(C eps).",
    formula: r"E\,\overline{J(p)-J(\pi_t)}\le\frac{\mathrm{KL}(p\|\pi_0)}{\eta T}+\frac\eta8E\,\overline{\mathrm{range}(f_t)^2},\qquad
        E\,\overline{J(p)-J(\pi_{t+1})}\le\frac{\mathrm{KL}(p\|\pi_0)}{\eta T}+(e-2)\,\eta\,E\,\overline{a_t}",
    preconditions: &[
        "fresh pairs at each iteration, of full rank",
        "the reward is in the class",
        "the comparator is chosen before the run",
        "of the second bound: over-estimation at most 1/eta in every run",
    ],
    tag: Tag::Sharper,
    section: "5.1 (E5.5, E5.7)",
    family: "random recorded runs, |X| <= 2, |Y| <= 5; twelve random realisable Bernoulli bandits, 200 runs each; |X| = 5, |Y| = 20, d = 4, \
             100 runs; 10 arms at the worst gap, 100 runs; 1000 arms, 100 runs",
    measure: |trials| {
        let seed = trials.settings().seed;
        let [identity, pythagoras, theorem1] = trials.worst("identity", recorded_run)?;

        let unbiased = trials.each("realisable", INSTANCES, |draw| {
            let (problem, second) = realisable(draw)?;
            let runs = analysed_runs(&problem, &second, ETA, (12, 40), RUNS, seed + 1 + draw.instance() as u64)?;
            let of = |quantity: fn(&Analysed) -> f64| over_runs(&runs, quantity).value;
            Ok([
                in_standard_errors(&runs, |run| run.sampling),
                of(|run| run.average) / of(|run| run.mirror_bound),
                of(|run| run.average_after) / of(|run| run.after_bound),
                runs.iter().map(|run| run.overestimate).fold(0.0, f64::max),
            ])
        })?;
        let largest = |i: usize| unbiased.iter().map(|one| one[i].abs()).fold(0.0, f64::max);

        let linear = Problem::contextual(0.0)?;
        let long = analysed_runs(&linear, &linear.uniform(), 1.0, (160, 50), 100, seed)?;
        let ratio = long.iter().map(|run| run.average / run.bound()).fold(0.0, f64::max);
        let steps = [20.0, 80.0, 320.0];
        let regrets = steps.iter().map(|&t| worst_gap_regrets(10, 200, t as usize, 100, seed));
        let regrets = regrets.collect::<Result<Vec<_>, _>>()?;
        let slope = |regrets: &[Vec<f64>]| {
            log_log_slope(&steps, &regrets.iter().map(|sample| mean(sample)).collect::<Vec<_>>()).value
        };
        let slope = stratified_bootstrap(&regrets, slope, 500, seed)?;

        let kinds = (0..100).map(|n| error_kinds(1000, 1.0, 16.0, 40, &mut stream(seed, n)));
        let kinds = kinds.collect::<Result<Vec<ErrorKinds>, _>>()?;
        let independent = |kind: fn(&ErrorKinds) -> f64| mean(&kinds.iter().map(kind).collect::<Vec<_>>());

        let misfit = Problem::contextual(0.15)?;
        let misfit = analysed_runs(&misfit, &misfit.uniform(), 1.0, (80, 50), 100, seed)?;
        let misfit = over_runs(&misfit, |run| run.approximation);
        let five = Problem::arms(5, 0.3, 0.4)?;
        let one_pair = analysed_runs(&five, &five.uniform(), ETA, (12, 1), RUNS, seed)?;
        Ok(Findings::new()
            .measured(Quantity::at_most("regret against its three terms, worst", identity, 1e-11))
            .measured(Quantity::at_most("eps against eps_approx + eps_sampling, relative, worst", pythagoras, 1e-9))
            .measured(Quantity::ratio("regret over the bound of Theorem 1 with measured constants, worst", theorem1))
            .measured(Quantity::at_most("mean of the sampling term, standard errors, largest of 12", largest(0), 4.7))
            .measured(Quantity::ratio(
                "E regret before each step over KL/(eta T) + eta range^2/8, largest of 12",
                largest(1),
            ))
            .measured(Quantity::ratio(
                "E regret after each step over KL/(eta T) + (e-2) eta a, largest of 12",
                largest(2),
            ))
            .measured(Quantity::at_most("eta (Delta - E Delta), largest of any run", largest(3), 1.0))
            .measured(Quantity::exponent("worst gap: exponent of the regret in T, 20..320", slope, -1.0, 0.1))
            .measured(Quantity::at_most("|X| = 5, |Y| = 20, T = 160: regret over its bound, worst run", ratio, 0.31))
            .measured(Quantity::at_most(
                "independent errors: last regret over sqrt(C eps)",
                independent(|kind| kind.independent) / independent(|kind| kind.charged_independent),
                0.01,
            ))
            .control(
                "E5.5: the same error at every iteration",
                Quantity::at_least(
                    "last regret over sqrt(C eps)",
                    independent(|kind| kind.systematic) / independent(|kind| kind.charged),
                    0.98,
                ),
            )
            .control(
                "a reward outside the class: misfit does not average out",
                Quantity {
                    interval: Some((misfit.low, misfit.high)),
                    ..Quantity::at_least("approximation term, T = 80", misfit.value, 0.05)
                },
            )
            .control(
                "full rank: one pair an iteration, whose fit of least norm leans to zero",
                Quantity::at_least(
                    "mean of the sampling term, standard errors",
                    in_standard_errors(&one_pair, |run| run.sampling),
                    10.0,
                ),
            )
            .control(
                "a comparator chosen after the run: the arm it likes best, all arms being equal",
                Quantity::at_least("mean of its sampling term, standard errors", chosen_after(trials)?, 10.0),
            ))
    },
};

/// Realisable bandits on which the mean of the sampling term is tested.
const INSTANCES: usize = 12;
/// Runs on each.
const RUNS: u64 = 200;
/// The step size there: small enough that no run over-estimates by 1/eta.
const ETA: f64 = 0.25;

/// A quantity's mean over runs in its standard errors.
fn in_standard_errors(runs: &[Analysed], quantity: fn(&Analysed) -> f64) -> f64 {
    let sample: Vec<f64> = runs.iter().map(quantity).collect();
    mean(&sample) / standard_error(&sample)
}

/// The worst errors of one run on recorded pairs of a random bandit with a random class: regret against its terms, `eps`
/// against its parts, regret over Theorem 1's bound.
fn recorded_run(draw: &mut Draw) -> Result<[f64; 3], InputError> {
    let bandit = draw.bandit(2, 5);
    let (contexts, responses) = bandit.reward().dim();
    let class = match draw.size(0, 2) {
        0 => PredictorClass::tabular(contexts, responses),
        1 => PredictorClass::linear(draw.log_linear(&bandit, Features::Generic).logit_jacobian())?,
        _ => PredictorClass::linear(draw.log_linear(&bandit, Features::Collinear).logit_jacobian())?,
    };
    let second = if draw.chance(0.5) { SecondLaw::Current } else { SecondLaw::Fixed(draw.policy(&bandit)) };
    let (steps, pairs, eta) = (draw.size(1, 6), draw.size(1, 20), draw.eta());
    let rebel = Rebel::new(bandit.weights(), &class, &second, eta, 0.0)?;
    let start = draw.normals(class.parameters()) * 0.3;
    let contexts = ContextSampler::new(bandit.weights());
    let trajectory = run(
        &rebel,
        start,
        steps,
        |_| bandit.reward().clone(),
        |_, pi, mu| {
            let (first, second) = (Sampler::new(pi), Sampler::new(mu));
            let pair = |_| {
                let x = contexts.draw(draw.rng());
                let (y, z) = (first.draw(x, draw.rng()), second.draw(x, draw.rng()));
                let label = bandit.reward()[[x, y]] - bandit.reward()[[x, z]] + draw.normal();
                Pair { context: x, first: y, second: z, label }
            };
            PairBatch::new(bandit.contexts(), responses, (0..pairs).map(pair).collect())
        },
    )?;
    let comparator = Policy::pure(&bandit.best(), responses);
    let values = trajectory.iterations().iter().map(|one| bandit.value(&one.policy));
    let regret = bandit.optimum() - values.sum::<f64>() / steps as f64;
    let bound = trajectory.mirror_bound(&comparator) + trajectory.coverage_term(&comparator);
    Ok([
        (trajectory.decomposition(&comparator).total() - regret).abs() / (1.0 + bound),
        split_error(bandit.weights(), &class, &trajectory)?,
        over_bound(regret, bound),
    ])
}

/// A random Bernoulli bandit whose means are in the class: a table of 3 to 5 arms, or two contexts and two features.
fn realisable(draw: &mut Draw) -> Result<(Problem, SecondLaw), InputError> {
    let problem = if draw.instance().is_multiple_of(2) {
        let arms = draw.size(3, 5);
        let means = Array2::from_shape_simple_fn((1, arms), || draw.uniform(0.05, 0.95));
        let env = Bernoulli::new(Bandit::new(Array1::ones(1), means)?)?;
        Problem { env, class: PredictorClass::tabular(1, arms) }
    } else {
        let features: Array3<f64> = draw.normals((2, 5, 2));
        let class = PredictorClass::linear(features)?;
        let linear = class.predict(&draw.normals(2));
        let largest = linear.fold(0.0, |m: f64, v| m.max(v.abs()));
        let env = Bernoulli::new(Bandit::new(Array1::from_elem(2, 0.5), linear * (0.45 / largest) + 0.5)?)?;
        Problem { env, class }
    };
    let second = problem.uniform();
    Ok((problem, second))
}

/// On five equal arms every fixed comparator has regret 0 and a sampling term of mean 0. The mean, in standard errors, of
/// the sampling term against the arm that the last policy likes best.
fn chosen_after(trials: &Trials) -> Result<f64, InputError> {
    let problem = Problem::arms(5, 0.5, 0.0)?;
    let second = problem.uniform();
    let sample = trials.each("chosen after", RUNS as usize, |draw| {
        let (trajectory, _) = problem.run(&second, ETA, 12, 40, draw.rng())?;
        let liked = crate::bandit::best_responses(trajectory.last().prob());
        Ok(trajectory.decomposition(&Policy::pure(&liked, 5)).sampling)
    })?;
    Ok((mean(&sample) / standard_error(&sample)).abs())
}
