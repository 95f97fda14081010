//! Claim 32 of the table: what PPO's clipped surrogate asks for depends on signs alone, and can be arbitrarily far.

use super::{Claim, Draw, Findings, Quantity, Tag, Trials};
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::experiments::inner_steps::{AtScale, fitted_bound, inner_steps, reward_scale, two_speeds};
use crate::experiments::method_race::{Course, Lap, race};
use crate::experiments::methods::{Method, Settings};
use crate::objective::{self, Clip};
use crate::policy::{LogLinear, Softmax, Tabular};
use crate::solve::descent::Batch;
use crate::solve::mirror::tilt;
use crate::solve::natural::policy_gradient;
use crate::solve::ppo::Surrogate;
use crate::statistics::{largest, log_log_slope, mean, mean_interval};
use microlp::{ComparisonOp, OptimizationDirection, Problem};
use ndarray::{Array1, ArrayD, Axis, array};
use rayon::prelude::*;

pub(super) const CLAIM: Claim = Claim {
    id: "ppo-not-conservative",
    title: "PPO's surrogate is neither conservative nor adaptive",
    statement: "If (1+e) P+ <= 1, P+ = pi_t(A > 0), the maximisers of the clipped surrogate over all policies are those with ratio \
                >= 1+e where A > 0 and <= 1-e where A < 0: only signs count, the maximum is 2e E[A+], and the KL of a maximiser is \
                at least kl(P+ + e max(P+, P-) || P+), attained, without bound as P+ -> 0; pi_t given A > 0 is one too, at \
                ln 1/P+. With shared parameters a slow context drags a fast one past any clip. Without the min a ratio that has \
                left the clip has no gradient.",
    formula: r"\mathrm{KL}(\pi\|\pi_t)\ge\mathrm{kl}\big(P_++\epsilon\max(P_+,P_-)\,\big\|\,P_+\big)\xrightarrow{P_+\to0}\infty",
    preconditions: &[
        "the surrogate is optimised well: many inner steps",
        "(1+e) P+ <= 1, no advantage exactly 0, clip e at most 1",
    ],
    tag: Tag::True,
    section: "7",
    family: "random bandits of one context, |Y| <= 8, clip 0.02..0.5; two contexts with feature gaps 1 and 20; 20 arms with rewards in [0, 1] and [0, 0.1], 100 seeds",
    measure: |trials| {
        let [programme, closed, member, above, signs, least, restriction] = trials.worst("maximisers", maximisers)?;
        let [first, pulled] = trials.worst("slopes", slopes)?;
        // (a) an arm of mass 1e-3 that is better by 1e-3, and ever rarer ones
        let rare = |mass: f64| Surrogate::new(&array![mass, 1.0 - mass], &array![1e-3, 0.0], Clip::new(0.2)?);
        let spent = |one: &Surrogate| one.nearest_maximiser().kl(one.sampled())[0];
        let one = rare(1e-3)?;
        let tilted = tilt(one.sampled(), &array![[1e-3, 0.0]], 1.0).kl(one.sampled())[0];
        let gaps: Vec<f64> = (0..7).map(|i| 10f64.powf(-3.0 + 0.5 * f64::from(i))).collect();
        let scales = reward_scale(20, &gaps, 1.0, Clip::new(0.2)?)?;
        let rebel = log_log_slope(&gaps[..4], &scales.iter().take(4).map(|at| at.rebel).collect::<Vec<_>>());
        let ppo_moves = largest(&scales.iter().map(|at| (at.ppo / scales[0].ppo - 1.0).abs()).collect::<Vec<_>>());
        let off = |at: &AtScale| (at.rebel_ratio.ln() - 0.95 * at.gap).abs();
        let ratio = largest(&scales[..3].iter().map(off).collect::<Vec<_>>());
        let findings = Findings::new()
            .measured(Quantity::at_most("maximum against a linear programme, reward", programme, 1e-9))
            .measured(Quantity::at_most("maximum against 2e E[A+], reward", closed, 1e-12))
            .measured(Quantity::at_most("a random member of the set against the maximum, reward", member, 1e-12))
            .measured(Quantity::ratio("surrogate of any policy over 2e E[A+], worst", above))
            .measured(Quantity::at_most("nearest maximiser under other advantages of the same signs", signs, 1e-12))
            .measured(Quantity::ratio("kl(P+ + e max(P+, P-) || P+) over KL of a maximiser, worst", least))
            .measured(Quantity::at_most(
                "pi_t given A > 0: surrogate and KL against 2e E[A+] and ln 1/P+",
                restriction,
                1e-10,
            ))
            .measured(Quantity::at_least("KL an arm of mass 1e-3, better by 1e-3, must get, nats", spent(&one), 0.886))
            .measured(Quantity::at_least("the same with mass 1e-12, nats", spent(&rare(1e-12)?), 5.0))
            .measured(Quantity::at_most(
                "that maximiser's KL against the bound",
                (spent(&one) - one.least_divergence()).abs(),
                1e-12,
            ))
            .measured(Quantity::at_most(
                "PPO: change of its KL as the gap grows from 0.001 to 1, relative",
                ppo_moves,
                1e-9,
            ))
            .measured(Quantity::at_most("gradient at theta_t against the plain policy gradient", first, 1e-12))
            .measured(Quantity::at_most("without min: gradient where every ratio is on the wrong side", pulled, 0.0))
            .control("the same rare arm, one tilt with eta = 1", Quantity::at_most("KL, nats", tilted, 5.1e-10))
            .control(
                "PPO's optimum: REBEL's KL follows the square of the gap, 0.001..0.03",
                Quantity::at_most("its exponent against 2", (rebel.value - 2.0).abs(), 0.1),
            )
            .control(
                "PPO's constant ratio: REBEL's is e^{0.95 eta gap} to second order",
                Quantity::at_most("error of its logarithm, gaps 0.001..0.01", ratio, 1e-4),
            );
        shared_parameters(races(trials, findings)?)
    },
};

/// Over all policies of one context, the closed forms against a linear programme and random policies.
fn maximisers(draw: &mut Draw) -> Result<[f64; 7], InputError> {
    let (one, clip) = loop {
        let responses = draw.size(2, 8);
        let bandit = Bandit::new(Array1::ones(1), draw.normals((1, responses)))?;
        let (pi, clip) = (draw.policy(&bandit), draw.uniform(0.02, 0.5));
        let one = Surrogate::new(&pi.prob().row(0).to_owned(), &bandit.reward().row(0).to_owned(), Clip::new(clip)?)?;
        if one.is_feasible() && one.advantage().iter().all(|a| *a != 0.0) {
            break (one, clip);
        }
    };
    let prob = one.sampled().prob().row(0).to_owned();
    let (maximum, nearest) = (one.closed_form(), one.nearest_maximiser());
    let member = member(draw, &one, clip)?;
    let any = Policy::from_logits(&(draw.normals((1, prob.len())) + one.sampled().log()));
    // Other advantages of the same signs, of mean zero again.
    let sized = one.advantage().mapv(|a| a * draw.uniform(0.1, 10.0));
    let gain = |positive: bool| {
        prob.iter().zip(&sized).filter(|(_, a)| (**a > 0.0) == positive).map(|(p, a)| p * a.abs()).sum::<f64>()
    };
    let balanced = sized.mapv(|a| if a > 0.0 { a / gain(true) } else { a / gain(false) });
    let other = Surrogate::new(&prob, &balanced, Clip::new(clip)?)?.nearest_maximiser();
    let restricted = one.restriction().expect("some response is better than average");
    let spent = |policy: &Policy| policy.kl(one.sampled())[0];
    Ok([
        (one.maximum() - by_linear_programme(&prob, one.advantage(), clip)).abs(),
        (one.maximum() - maximum).abs(),
        (one.value(&member) - maximum).abs(),
        one.value(&any) / maximum,
        nearest.distance(&other),
        (one.least_divergence() / spent(&member)).max(one.least_divergence() / spent(&nearest)),
        (one.value(&restricted) - maximum).abs().max((spent(&restricted) + one.better_mass().ln()).abs()),
    ])
}

/// A random policy with ratio at least `1 + e` on better and at most `1 - e` on worse responses.
fn member(draw: &mut Draw, one: &Surrogate, clip: f64) -> Result<Policy, InputError> {
    let (prob, advantage) = (one.sampled().prob().row(0), one.advantage());
    let mut mass = Array1::zeros(prob.len());
    // The worse ones get what they like up to 1 - e, and what is left, at most the share that the better ones leave free.
    let free = 1.0 - (1.0 + clip) * one.better_mass();
    for (y, p) in prob.iter().enumerate() {
        mass[y] = if advantage[y] > 0.0 { (1.0 + clip) * p } else { (1.0 - clip) * p * draw.uniform(0.0, 1.0) };
    }
    let worse: f64 = mass.iter().zip(advantage).filter(|(_, a)| **a < 0.0).map(|(q, _)| q).sum();
    if worse > free {
        mass.iter_mut().zip(advantage).filter(|(_, a)| **a < 0.0).for_each(|(q, _)| *q *= free / worse);
    }
    let left = 1.0 - mass.sum();
    let shares = advantage.mapv(|a| if a > 0.0 { draw.uniform(0.0, 1.0) } else { 0.0 });
    mass = mass + &shares * (left.max(0.0) / shares.sum());
    let total = mass.sum();
    Policy::new("member", (mass / total).insert_axis(Axis(0)))
}

/// The maximum of the surrogate by linear programming: each term is the smaller of two linear functions of the ratio.
fn by_linear_programme(prob: &Array1<f64>, advantage: &Array1<f64>, clip: f64) -> f64 {
    let mut programme = Problem::new(OptimizationDirection::Maximize);
    let mut sum = Vec::new();
    for (&p, &a) in prob.iter().zip(advantage) {
        let ratio = programme.add_var(0.0, (0.0, f64::INFINITY));
        let term = programme.add_var(p, (f64::NEG_INFINITY, (1.0 + clip * a.signum()) * a));
        programme.add_constraint([(term, 1.0), (ratio, -a)], ComparisonOp::Le, 0.0);
        sum.push((ratio, p));
    }
    programme.add_constraint(&sum, ComparisonOp::Eq, 1.0);
    let outcome = programme.solve().ok().filter(|outcome| outcome.is_optimal());
    outcome.and_then(|outcome| outcome.into_solution().ok()).map_or(f64::NAN, |solution| solution.objective())
}

/// The gradient of the surrogate at the sampled policy against the policy gradient, relative; and the gradient without the
/// min at a policy whose ratios are all on the wrong side of the clip.
fn slopes(draw: &mut Draw) -> Result<[f64; 2], InputError> {
    let bandit = draw.bandit(3, 6);
    let policy = draw.log_linear(&bandit, super::Features::Generic);
    let pi = policy.policy();
    let clip = Clip::new(draw.uniform(0.02, 0.5))?;
    let at = |policy: &LogLinear| surrogate_gradient(&bandit, &pi, policy, clip, true);
    let plain = policy_gradient(&bandit, &pi, policy.scores().view());
    let size = |g: &Array1<f64>| g.dot(g).sqrt();
    let first = size(&(at(&policy)? + &plain)) / size(&plain).max(1e-3);
    // Two responses, the better one far down: rho < 1 - e where A > 0, rho > 1 + e where A < 0.
    let pair = Bandit::new(Array1::ones(1), array![[1.0, 0.0]])?;
    let mass = draw.uniform(0.4, 0.7);
    let old = Policy::new("pi", array![[mass, 1.0 - mass]])?;
    let wrong = Tabular::new(old.log() + &array![[-4.0, 0.0]])?;
    let stuck = surrogate_gradient(&pair, &old, &wrong, clip, false)?;
    let recovers = surrogate_gradient(&pair, &old, &wrong, clip, true)?;
    // With the min the same policy is pulled back; a run in which it is not counts as a failure.
    Ok([first, if size(&recovers) > 1e-3 { size(&stuck) } else { f64::INFINITY }])
}

/// The gradient of the population's loss at `policy`, with or without the min.
fn surrogate_gradient<P: Softmax>(
    bandit: &Bandit,
    old: &Policy,
    policy: &P,
    clip: Clip,
    with_min: bool,
) -> Result<Array1<f64>, InputError> {
    let batch = Batch::of_responses(bandit.weights(), old);
    let (before, advantage) = (batch.values(old.log()), batch.values(&bandit.advantage(old)));
    let evaluated = batch.evaluate(policy, |tape, new| {
        let (before, advantage) = (tape.input(before.clone()), tape.input(advantage.clone()));
        let all = tape.input(ArrayD::ones(before.value().shape()));
        let loss = if with_min { objective::ppo_clip } else { objective::ppo_clip_without_min };
        loss(new, &before, &advantage, &all, clip)
    })?;
    Ok(evaluated.gradient)
}

/// (c) and E7.1, N7.1: two contexts of different speed, by inner steps on the whole population.
fn shared_parameters(findings: Findings) -> Result<Findings, InputError> {
    let (bandit, start) = two_speeds(0.1, 20.0)?;
    let settings = Settings::standard(0.008)?;
    let run = |method, steps: &[usize]| inner_steps(method, &bandit, &start, &settings, steps);
    let ppo = run(Method::Ppo, &[4, 8000])?;
    let rebel = run(Method::Rebel, &[4, 500])?;
    let bound = fitted_bound(&bandit, &start, settings.eta.get())?;
    Ok(findings
        .measured(Quantity::at_least(
            "largest ratio in the fast context, clip 0.2, 8000 inner steps",
            ppo.ratio[1],
            1.99,
        ))
        .measured(Quantity::at_least("its KL over what REBEL's fit may spend", ppo.divergence[1] / bound, 100.0))
        .control(
            "PPO by REBEL, two contexts, to convergence",
            Quantity::at_most(
                "largest KL over what its fit may spend, Z-1-ln Z",
                rebel.divergence[1] / bound,
                1.0 + 1e-6,
            ),
        )
        .control(
            "N7.1: PPO with 4 inner steps looks fine",
            Quantity::at_most("largest ratio in the fast context", ppo.ratio[0], 1.2),
        ))
}

/// E7.3: 20 arms, the same random numbers for all, at two scales of the reward: how long the longest step of a run is.
fn races(trials: &Trials, findings: Findings) -> Result<Findings, InputError> {
    const SEEDS: u64 = 100;
    let settings = Settings::standard(2.0)?;
    let first = trials.settings().seed.wrapping_mul(SEEDS);
    let at = |scale: f64| {
        let course = Course { arms: 20, iterations: 6, pairs: 32, inner: 16, scale };
        let run = |seed| race(&[Method::Rebel, Method::Ppo], course, &settings, first.wrapping_add(seed));
        (0..SEEDS).into_par_iter().map(run).collect::<Result<Vec<_>, _>>()
    };
    let (large, small) = (at(1.0)?, at(0.1)?);
    let lengths = |laps: &[Vec<Lap>], runner: usize| laps.iter().map(|laps| laps[runner].longest()).collect::<Vec<_>>();
    let shrunk = |runner: usize| mean(&lengths(&small, runner)) / mean(&lengths(&large, runner));
    let over = |runner: usize| small.iter().map(|laps| laps[runner].longest() / laps[runner].bound).collect::<Vec<_>>();
    let ppo = mean_interval(&over(1));
    let name = "20 arms, rewards in [0, 0.1]: PPO's longest step over what an exact one may spend, mean";
    Ok(findings
        .measured(Quantity { interval: Some((ppo.low, ppo.high)), ..Quantity::at_least(name, ppo.value, 5.0) })
        .measured(Quantity::at_least("PPO: its longest step, rewards in [0, 0.1] over [0, 1], nats", shrunk(1), 0.5))
        .control(
            "PPO by REBEL on the same 20 arms and random numbers",
            Quantity::at_most("its longest step over what an exact one may spend, worst", largest(&over(0)), 1.0),
        )
        .control(
            "PPO by REBEL on the same 20 arms: the step follows the reward",
            Quantity::at_most("its longest step, rewards in [0, 0.1] over [0, 1], nats", shrunk(0), 0.05),
        ))
}
