//! Claim 19 of the table: the price of misfit is attained, and without coverage there is none that would do.

use super::theorem1::offline_pairs_only;
use super::{Claim, Findings, Quantity, Tag, over_bound};
use crate::bandit::{Bandit, Policy};
use crate::bounds::Constants;
use crate::distribution::Law;
use crate::error::InputError;
use crate::policy::{LogLinear, Softmax};
use crate::solve::decomposition::{Iteration, pair_error};
use crate::solve::population::Rebel;
use crate::solve::rates::Merged;
use crate::statistics::log_log_slope;
use ndarray::{Array2, Array3, array};

pub(super) const CLAIM: Claim = Claim {
    id: "coverage-cost",
    title: "Misfit costs sqrt(C eps), no less, and without coverage anything",
    statement: "E_p[Delta_pi - Delta] <= sqrt(C_2 (b+c)) <= sqrt(C eps), attained: where a class merges K arms, one better by d, and mu \
                plays it with probability 1/C, the regret is d(1-1/K) and eps = d^2 (p+m-2pm), p = 1/K, m = 1/C; the ratio tends \
                to 1 as K/C grows. If mu misses the best response, or pi_t is not sampled, eps can vanish and the regret not.",
    formula: r"\frac{\mathrm{regret}}{\sqrt{C\epsilon}}=\frac{1-p}{\sqrt{C\,(p+m-2pm)}}\xrightarrow{K/C\to\infty}1,\qquad p=\tfrac1K,\ m=\tfrac1C",
    preconditions: &["mu covers the comparator", "one response of each pair from pi_t"],
    tag: Tag::True,
    section: "5",
    family: "random predictors and policies, |X| <= 4, |Y| <= 8; the merged arms, K 10..1e6, C 2..128; N5.1 and N5.2 with 3 and up \
             to 1e6 arms",
    measure: |trials| {
        let [misfit, coverage] = trials.worst("bound", |draw| {
            let bandit = draw.bandit(4, 8);
            let (policy, mu, comparator) = (draw.policy(&bandit), draw.policy(&bandit), draw.policy(&bandit));
            let comparator =
                if draw.chance(0.5) { comparator } else { Policy::pure(&bandit.best(), bandit.responses()) };
            let fit: Array2<f64> = draw.normals(bandit.reward().raw_dim());
            let iteration = Iteration { policy, population: fit.clone(), fit, reward: bandit.reward().clone() };
            let laws = (&iteration.policy, &mu);
            let c = Constants::measure(bandit.weights(), &iteration, laws, &comparator, 1.0);
            Ok([over_bound(c.approximation, c.misfit()), over_bound(c.misfit(), (c.coverage * c.error.total()).sqrt())])
        })?;
        let [formula] = trials.worst("merged", |draw| {
            Ok([merged_run(draw.size(2, 60), draw.uniform(1.0, 30.0), draw.uniform(0.1, 3.0))?])
        })?;
        let gaps = [0.05, 0.1, 0.2, 0.4, 0.8];
        let by_gap = gaps.iter().map(|&d| Merged::new(100_000, 16.0, d)).collect::<Result<Vec<_>, _>>()?;
        let by_eps = log_log_slope(
            &by_gap.iter().map(Merged::eps).collect::<Vec<_>>(),
            &by_gap.iter().map(Merged::regret).collect::<Vec<_>>(),
        );
        let covers = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
        let at_equal_eps = |&c: &f64| -> Result<f64, InputError> {
            let unit = Merged::new(1_000_000, c, 1.0)?;
            Ok(Merged::new(1_000_000, c, (0.01 / unit.eps()).sqrt())?.regret())
        };
        let regrets = covers.iter().map(at_equal_eps).collect::<Result<Vec<_>, _>>()?;
        let tight = Merged::new(100_000, 16.0, 1.0)?.tightness();
        let loose = Merged::new(10, 16.0, 1.0)?.tightness();
        let (eps, regret) = uncovered(1_000_000)?;
        let (seen, hidden) = blind_spot()?;
        Ok(Findings::new()
            .measured(Quantity::ratio("approximation term over sqrt(C_2 (b+c)), worst", misfit))
            .measured(Quantity::ratio("sqrt(C_2 (b+c)) over sqrt(C eps), worst", coverage))
            .measured(Quantity::at_most("merged arms: closed form against a run, relative", formula, 1e-10))
            .measured(Quantity::at_least("merged arms, K = 1e5, C = 16: regret over sqrt(C eps)", tight, 0.9999))
            .measured(Quantity::ratio("the same, at most", tight))
            .measured(Quantity::exponent("merged arms: exponent of regret in eps", by_eps, 0.5, 0.1))
            .measured(Quantity::exponent(
                "merged arms: exponent of regret in C at equal eps, 2..128",
                log_log_slope(&covers, &regrets),
                0.5,
                0.1,
            ))
            .control("K/C large: K = 10, C = 16", Quantity::at_most("regret over sqrt(C eps)", loose, 0.6))
            .control("N5.1: mu misses the best of K = 1e6 arms: eps = 1/K", Quantity::at_most("eps", eps, 1.1e-6))
            .control("N5.1: as before", Quantity::at_least("regret", regret, 0.999))
            .control(
                "N5.2: neither response from pi_t: the error on those pairs, C = 2",
                Quantity::at_most("sqrt(C eps)", seen, 1e-15),
            )
            .control("N5.2: as before", Quantity::at_least("regret after 40 steps", offline_pairs_only()?, 0.99))
            .control("N5.2: what pairs from pi_t would have shown", Quantity::at_least("on-policy eps", hidden, 3.9)))
    },
};

/// How far the closed form of the merged arms is from a step of REBEL on them, relative.
fn merged_run(arms: usize, cover: f64, gap: f64) -> Result<f64, InputError> {
    let mut reward = Array2::zeros((1, arms));
    reward[[0, 0]] = gap;
    let bandit = Bandit::new(array![1.0], reward)?;
    let class = LogLinear::new(Array3::ones((1, arms, 1)), array![0.3])?; // one feature, the same for all arms
    let chance = |y: usize| if y == 0 { 1.0 / cover } else { (1.0 - 1.0 / cover) / (arms - 1) as f64 };
    let mu = Law::Offline(Policy::new("mu", Array2::from_shape_fn((1, arms), |(_, y)| chance(y)))?);
    let mut run = Rebel::new(&bandit, class, (Law::OnPolicy, mu), 1.0)?;
    let step = run.step()?;
    let measured = Constants::measure(
        bandit.weights(),
        &step.iteration,
        (&step.first, &step.second),
        &Policy::pure(&[0], arms),
        1.0,
    );
    let formula = Merged::new(arms, cover, gap)?;
    let regret = bandit.optimum() - bandit.value(&run.policy().policy()); // after the step: nothing moved
    let error = |got: f64, expected: f64| ((got - expected) / expected).abs();
    let errors = [
        error(regret, formula.regret()),
        error(measured.error.total(), formula.eps()),
        error(measured.coverage, cover),
    ];
    Ok(errors.into_iter().fold(0.0, f64::max))
}

/// N5.1: eps and regret where the predictor is 0 on the best of `arms` uniform arms and `mu` is uniform on the others.
fn uncovered(arms: usize) -> Result<(f64, f64), InputError> {
    let mut reward = Array2::zeros((1, arms));
    reward[[0, 0]] = 1.0;
    let bandit = Bandit::new(array![1.0], reward)?;
    let pi = Policy::uniform(1, arms);
    let others = |y: usize| if y == 0 { 0.0 } else { 1.0 / (arms - 1) as f64 };
    let mu = Policy::new("mu", Array2::from_shape_fn((1, arms), |(_, y)| others(y)))?;
    let eps = pair_error(bandit.weights(), &pi, &mu, &-bandit.reward()).total();
    Ok((eps, bandit.optimum() - bandit.value(&pi)))
}

/// N5.2: sqrt(C eps) on the offline pairs, and the eps that the last policy's own pairs would show.
fn blind_spot() -> Result<(f64, f64), InputError> {
    let offline = Policy::new("mu", array![[0.5, 0.5, 0.0]])?;
    let delta = array![[0.0, 0.0, 2.0]];
    let last = crate::solve::mirror::tilt(&Policy::uniform(1, 3), &array![[1.0, 0.5, 2.0]], 40.0);
    let eps = |first: &Policy| pair_error(&array![1.0], first, &offline, &delta).total();
    Ok(((2.0 * eps(&offline)).sqrt(), eps(&last)))
}
