//! Claim 23 of the table: REBEL as an algorithm for noisy bandits, beside those made for them.

use super::{Claim, Findings, Quantity, Tag, Trials};
use crate::error::InputError;
use crate::experiments::equal_queries::{
    Algorithm, Point, Task, Trap, Way, concentration_trap, iterations_to_reach, wrong_share,
};
use crate::experiments::sampled_regret::Problem;
use crate::experiments::stream;
use crate::players::batch::{BatchPlayer, Rloo};
use crate::players::{Play, Regrets};
use crate::solve::trajectory::{Rebel, SecondLaw};
use crate::statistics::{Estimate, log_log_slope, mean, mean_interval, median, stratified_bootstrap};
use rayon::prelude::*;

pub(super) const CLAIM: Claim = Claim {
    id: "bandit-regret",
    title: "On noisy bandits REBEL ends well and pays for its second response",
    statement: "With Bernoulli rewards the last policy of REBEL reaches the best arm, but REBEL has no optimism: at equal queries UCB1 and \
                uniform queries followed by the best mean end no worse, and policy gradient on the same batches pays no more. With a \
                fixed mu the paid regret is linear, at least half of mu's own gap for ever; with mu = pi_t it is not, but the step \
                may commit too early and its noise explodes where the policy has concentrated.",
    formula: r"\mathrm{paid}=\frac1{2NT}\sum_{t,n}\big(2r^*-r(y_{t,n})-r(y'_{t,n})\big)\ \ge\ \tfrac12E_\mu[r^*-r]\quad(\mu\text{ fixed})",
    preconditions: &[
        "for the last policy: mu covers the best arm, and a batch covers the arms",
        "for the paid regret: mu = pi_t, with small steps or large batches, or a ridge",
    ],
    tag: Tag::Assumption,
    section: "5.2 (E5.7, N5.5-N5.7)",
    family: "Bernoulli arms .4, the best .2 above, K = 10, 100 runs; one arm .75 against .25, K = 4, 16, 64, medians of 101 runs; \
             |X| = 5, |Y| = 20, d = 4, 100 runs",
    measure: |trials| {
        let findings = at_equal_queries(trials, Findings::new())?;
        let findings = one_pair(trials, findings)?;
        on_policy(trials, findings)
    },
};

/// Runs of each experiment, and their seed.
fn runs(trials: &Trials) -> (u64, u64) {
    (if trials.settings().thorough { 150 } else { 100 }, trials.settings().seed)
}

/// E5.7: last and paid regret beside other algorithms, and what a fixed `mu` pays.
fn at_equal_queries(trials: &Trials, findings: Findings) -> Result<Findings, InputError> {
    let runs = runs(trials);
    let task = Task::arms(10, 0.2)?;
    let curve = |algorithm| task.curve(algorithm, &[1000, 4000], runs);
    let (uniform, on_policy) = (curve(Algorithm::RebelUniform)?, curve(Algorithm::RebelOnPolicy)?);
    let (rloo, ucb1, explore) = (curve(Algorithm::Rloo)?, curve(Algorithm::Ucb1)?, curve(Algorithm::Explore)?);
    let above = |better: &[Point]| uniform[0].last.value - better[0].last.value;
    let cheapest = uniform[1].paid.value.min(on_policy[1].paid.value);

    let untuned = |algorithm| {
        let all = task.all_regrets(algorithm, 1.0, &[16_000], runs)?;
        Ok::<_, InputError>(mean(&all.iter().map(|run| run[0].last).collect::<Vec<_>>()))
    };
    let rebel = f64::max(untuned(Algorithm::RebelUniform)?, untuned(Algorithm::RebelOnPolicy)?);
    let plain = untuned(Algorithm::Rloo)?;

    let queries = [8000, 16_000, 32_000, 64_000];
    let uniform_pays = task.all_regrets(Algorithm::RebelUniform, 10.0, &queries, runs)?; // its best step of the five
    let on_policy_pays = task.all_regrets(Algorithm::RebelOnPolicy, 1.0, &queries, runs)?;
    let own_gap = mean_interval(&uniform_pays.iter().map(|run| run[3].paid / 0.09).collect::<Vec<_>>());
    let spent = paid_exponent(&queries, &uniform_pays, runs.1)?;
    let spent_on_policy = paid_exponent(&queries, &on_policy_pays, runs.1)?;

    Ok(findings
        .measured(estimated(
            Quantity::at_most("last regret, Q = 4000, mu uniform", uniform[1].last.value, 0.01),
            uniform[1].last,
        ))
        .measured(estimated(
            Quantity::at_most("last regret, Q = 4000, mu = pi_t", on_policy[1].last.value, 0.04),
            on_policy[1].last,
        ))
        .measured(Quantity::at_least("last regret above that of UCB1, Q = 1000", above(&ucb1), 0.005))
        .measured(Quantity::at_least(
            "last regret above that of uniform queries and the best mean, Q = 1000",
            above(&explore),
            0.003,
        ))
        .measured(Quantity::at_most(
            "paid regret of RLOO over the lower of REBEL's, Q = 4000",
            rloo[1].paid.value / cheapest,
            1.1,
        ))
        .measured(Quantity::at_least(
            "untuned (eta = 1, Q = 16000): last regret of RLOO above REBEL's",
            plain - rebel,
            0.004,
        ))
        .measured(estimated(
            Quantity::at_most("mu = pi_t: exponent of all that is paid in Q, 8000..64000", spent_on_policy.value, 0.4),
            spent_on_policy,
        ))
        .control(
            "mu = pi_t: mu uniform pays half its own gap for ever",
            estimated(
                Quantity::at_least("paid regret over half the gap of mu, Q = 64000", own_gap.value, 0.99),
                own_gap,
            ),
        )
        .control(
            "mu = pi_t: mu uniform pays in proportion to the queries",
            Quantity::exponent("exponent of all that is paid in Q, 8000..64000", spent, 1.0, 0.1),
        ))
}

/// N5.5: one pair an iteration is a policy gradient, slow in iterations and frugal in queries.
fn one_pair(trials: &Trials, findings: Findings) -> Result<Findings, InputError> {
    let (_, seed) = runs(trials);
    let [same] = trials.worst("one pair", |draw| {
        let eta = draw.eta();
        one_pair_distance(draw.size(2, 8), eta, draw.instance() as u64 ^ seed)
    })?;
    let reach = |arms, way, noisy| median_to_reach(arms, way, noisy, seed);
    let (one_few, one_many) = (reach(4, Way::OnePair, false)?, reach(64, Way::OnePair, false)?);
    let (rebel_few, rebel_many) = (reach(4, Way::RebelUniform, false)?, reach(64, Way::RebelUniform, false)?);
    let (one_noisy, rebel_noisy) = (reach(16, Way::OnePair, true)?, reach(16, Way::RebelUniform, true)?);
    let gradient = reach(16, Way::RlooBatch, false)?;
    let growth = (one_many.iterations / one_few.iterations) / (rebel_many.iterations / rebel_few.iterations);
    Ok(findings
        .control(
            "N5.5: one pair an iteration is RLOO with two responses",
            Quantity::at_most("largest distance of the two policies", same, 1e-9),
        )
        .control(
            "N5.5: and so takes iterations in proportion to |Y|",
            Quantity::at_least("growth from K = 4 to 64 over that of REBEL", growth, 2.0),
        )
        .control(
            "N5.5: a large batch does not help RLOO",
            Quantity::at_least(
                "its iterations over REBEL's, K = 16",
                gradient.iterations / rebel_noisy.iterations,
                3.0,
            ),
        )
        .control(
            "N5.5: counted in queries the order is reversed",
            Quantity::at_least(
                "REBEL's queries over those of one pair, K = 64",
                rebel_many.queries / one_many.queries,
                10.0,
            ),
        )
        .control(
            "N5.5: with Bernoulli rewards too",
            Quantity::at_least(
                "REBEL's queries over those of one pair, K = 16",
                rebel_noisy.queries / one_noisy.queries,
                5.0,
            ),
        ))
}

/// N5.6 and N5.7: what `mu = pi_t` risks.
fn on_policy(trials: &Trials, findings: Findings) -> Result<Findings, InputError> {
    let runs = runs(trials);
    let iterations = if trials.settings().thorough { 1000 } else { 300 };
    let wrong = |pairs, eta, on_policy| wrong_share((pairs, eta), on_policy, iterations, runs);
    let trap = |ridge| concentration_trap(&SecondLaw::Current, 1.0, ridge, 16_000, runs);
    let of = |traps: &[Trap], value: fn(&Trap) -> f64| mean_interval(&traps.iter().map(value).collect::<Vec<_>>());
    let (plain, ridge) = (trap(0.0)?, of(&trap(0.3)?, |trap| trap.last));
    let (last, best) = (of(&plain, |trap| trap.last), of(&plain, |trap| trap.best));
    let wrong_arm = "share that ends on a wrong arm";
    Ok(findings
        .control("N5.6: N = 5, mu = pi_t, eta = 3", Quantity::at_least(wrong_arm, wrong(5, 3.0, true)?, 0.3))
        .control("N5.6: N = 5, mu = pi_t, eta = 10", Quantity::at_least(wrong_arm, wrong(5, 10.0, true)?, 0.5))
        .control(
            "N5.6: N = 5, mu = pi_t, small steps, eta = .3",
            Quantity::at_most(wrong_arm, wrong(5, 0.3, true)?, 0.08),
        )
        .control("N5.6: N = 5, mu uniform, eta = 10", Quantity::at_most(wrong_arm, wrong(5, 10.0, false)?, 0.12))
        .control(
            "N5.7: exact regression on noisy rewards, mu = pi_t, eta = 1",
            Quantity::at_least("last regret over the best of the run, Q = 16000", last.value / best.value, 4.0),
        )
        .control(
            "N5.7: the same with a ridge of .3",
            estimated(Quantity::at_most("last regret", ridge.value, 0.02), ridge),
        ))
}

/// A quantity with the interval of its estimate.
fn estimated(quantity: Quantity, estimate: Estimate) -> Quantity {
    Quantity { interval: Some((estimate.low, estimate.high)), ..quantity }
}

/// The exponent of all that was paid, `Q` times the paid regret, in the queries `Q`.
fn paid_exponent(queries: &[usize], runs: &[Vec<Regrets>], seed: u64) -> Result<Estimate, InputError> {
    let x: Vec<f64> = queries.iter().map(|&q| q as f64).collect();
    let slope = |strata: &[Vec<Vec<Regrets>>]| {
        let paid = |(c, q): (usize, &f64)| q * mean(&strata[0].iter().map(|run| run[c].paid).collect::<Vec<_>>());
        log_log_slope(&x, &x.iter().enumerate().map(paid).collect::<Vec<_>>()).value
    };
    stratified_bootstrap(&[runs.to_vec()], slope, 300, seed)
}

/// How far REBEL and RLOO with one on-policy pair an iteration are apart after 100 iterations on the same random numbers.
fn one_pair_distance(arms: usize, eta: f64, run: u64) -> Result<[f64; 1], InputError> {
    let Problem { env, class } = Problem::arms(arms, 0.3, 0.4)?;
    let second = SecondLaw::Current;
    let mut rebel = BatchPlayer::rebel(Rebel::new(env.bandit().weights(), &class, &second, eta, 0.0)?, 1);
    let mut rloo = BatchPlayer::rloo(Rloo::new(&class, eta)?, 1);
    for player in [&mut rebel, &mut rloo] {
        player.play(&mut Play::new(&env, stream(run, 0)), &[200])?;
    }
    Ok([rebel.policy().distance(rloo.policy())])
}

/// Medians over 101 runs.
struct Reached {
    iterations: f64,
    queries: f64,
}

/// What it takes to reach a regret of .1.
fn median_to_reach(arms: usize, way: Way, noisy: bool, seed: u64) -> Result<Reached, InputError> {
    let runs = (0..101u64).into_par_iter().map(|n| iterations_to_reach(arms, way, noisy, stream(seed, n)));
    let (iterations, queries): (Vec<f64>, Vec<f64>) =
        runs.collect::<Result<Vec<_>, _>>()?.into_iter().map(|(i, q)| (i as f64, q as f64)).unzip();
    Ok(Reached { iterations: median(&iterations), queries: median(&queries) })
}
