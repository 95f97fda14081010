//! Claim 37 of the table: with chance between tokens the regression keeps an error that Theorem 1 cannot afford.

use super::{Claim, Draw, Findings, Quantity, Tag};
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::solve::linear::least_squares;
use crate::solve::regression::{PairLaw, gauss_newton_step, pair_design, pair_residuals};
use crate::solve::tree::{ChanceTree, TreeStep};
use crate::statistics::median;
use ndarray::{Array1, Array2, Array3, s};

pub(super) const CLAIM: Claim = Claim {
    id: "deterministic-transitions",
    title: "Chance between tokens: the theorem is empty, the step is not",
    statement: "With chance between two tokens the linearised step is still the token-level natural gradient, but its error on \
                pairs is 2 E[Var of V over chance] and not 0, so that Theorem 1 promises less than nothing while the value \
                goes to its optimum.",
    formula: r"\epsilon_{\rm linear}=2\,E_{a\sim\pi}\mathrm{Var}_{s\sim q(\cdot|a)}V(a,s)>0",
    preconditions: &["y and y' two whole trajectories from pi_t", "a linearised predictor, or eta -> 0"],
    tag: Tag::True,
    section: "8.3",
    family: "two tokens of 2..3 choices with 2..3 states between (at most 12 trajectories), one state in eight never reached; \
             eta 0.05..3; runs of 200 steps of eta = 1",
    measure: |trials| {
        let [pairs, ranks, floor] = trials.worst("identity", |draw| {
            let (tree, eta) = (tree(draw, false)?, draw.eta());
            let step = tree.natural_step(eta)?;
            let (fit, law) = (gauss_newton(&tree, eta)?, tree.trajectories());
            // decisions that chance never reaches are not part of the trajectories
            let closed = tree.token_npg(eta)?.trajectories();
            let moved = [tree.moved(&step), tree.moved(&fit)].map(|tree| tree.trajectories().distance(&closed));
            let off = (tree.linear_error(&step, eta) - tree.error_floor()).abs();
            let spread = law.expectation(&tree.trajectory_rewards().mapv(|r| r * r))[0];
            Ok([moved[0].max(moved[1]), fit.rank.abs_diff(step.rank) as f64, off / spread])
        })?;
        let runs = trials.each("runs", COUNT, |draw| run(&tree(draw, false)?))?;
        let minima = trials.each("exact", COUNT / 10, |draw| {
            let tree = tree(draw, false)?;
            Ok([0.02, 1.0].map(|eta| exact_minimum(&tree, eta).map(|loss| loss / tree.error_floor())))
        })?;
        let minima = |i: usize| minima.iter().map(|m| m[i].clone()).collect::<Result<Vec<f64>, _>>();
        let (small, large) = (minima(0)?, minima(1)?);
        let [without_chance, same_step] = trials.worst("without chance", |draw| {
            let (tree, eta) = (tree(draw, true)?, draw.eta());
            let step = tree.natural_step(eta)?;
            let closed = tree.token_npg(eta)?.trajectories();
            Ok([
                tree.linear_error(&step, eta).max(tree.error_floor()),
                tree.moved(&step).trajectories().distance(&closed),
            ])
        })?;
        let column = |of: fn(&Run) -> f64| runs.iter().map(of).collect::<Vec<_>>();
        let worst = column(|run| run.regret_last).into_iter().fold(0.0, f64::max);
        Ok(Findings::new()
            .measured(Quantity::at_most("F^+ grad J and least squares on pairs against the form with Q", pairs, 1e-9))
            .measured(Quantity::at_most("their ranks, difference", ranks, 0.0))
            .measured(Quantity::at_most("error on pairs against 2 E Var V, relative to E r^2", floor, 1e-12))
            .measured(Quantity::at_least("median floor, squared reward", median(&column(|run| run.floor)), 0.1))
            .measured(Quantity::at_most("largest regret after 200 steps, of that at the start", worst, 0.1))
            .measured(Quantity::at_least(
                "median sqrt(C eps), of the regret at the start",
                median(&column(|run| run.promise)),
                1.0,
            ))
            .measured(Quantity::at_least(
                "exact regression at eta = 0.02: median loss over the floor",
                median(&small),
                0.95,
            ))
            .control(
                "no chance: every state follows from the first token",
                Quantity::at_most("largest error on pairs, squared reward", without_chance, 1e-20),
            )
            .control(
                "no chance: the same step",
                Quantity::at_most("largest difference of a probability", same_step, 1e-9),
            )
            .control(
                "exact regression at eta = 1: the log-ratio is not linear, and the floor is not its floor",
                Quantity::at_most("median loss over the floor", median(&large), 0.95),
            ))
    },
};

/// Runs, whatever the number of instances of the identities.
const COUNT: usize = 1000;

/// A random tree; without chance, one state follows each first token.
fn tree(draw: &mut Draw, deterministic: bool) -> Result<ChanceTree, InputError> {
    let [actions, states, tokens] = [[2, 2, 2], [3, 2, 2], [2, 3, 2], [2, 2, 3]][draw.instance() % 4];
    let mut chance: Array2<f64> = draw.normals((actions, states));
    for mut row in chance.rows_mut() {
        let certain = draw.size(0, states - 1);
        if deterministic || draw.chance(0.125 * states as f64 / 2.0) {
            // all but one state, or one alone, out of reach
            let out = |s: usize| if deterministic { s != certain } else { s == certain };
            row.iter_mut().enumerate().filter(|(s, _)| out(*s)).for_each(|(_, logit)| *logit = f64::NEG_INFINITY);
        }
    }
    let chance = Policy::from_logits(&chance).prob().clone();
    let shape = (actions, states, tokens);
    let (theta1, theta2): (Array1<f64>, Array3<f64>) = (draw.normals(actions) * 0.7, draw.normals(shape) * 0.7);
    ChanceTree::new(&theta1, &theta2, chance, &draw.normals(shape))
}

/// Trajectories as the arms of a bandit of one context.
fn as_arms(tree: &ChanceTree) -> Result<Bandit, InputError> {
    Bandit::new(Array1::ones(1), tree.trajectory_rewards())
}

/// A displacement `[k]` in the order of the scores as one of the tree.
fn of_tree(tree: &ChanceTree, delta: &Array1<f64>, rank: usize) -> TreeStep {
    let (first, shape) = (tree.first().prob().ncols(), tree.second().prob().raw_dim());
    let second = delta.slice(s![first..]).iter().copied().collect();
    TreeStep {
        first: delta.slice(s![..first]).to_owned(),
        second: Array2::from_shape_vec(shape, second).expect("one entry a logit"),
        rank,
    }
}

/// The linearised step by least squares on all pairs of trajectories.
fn gauss_newton(tree: &ChanceTree, eta: f64) -> Result<TreeStep, InputError> {
    let law = tree.trajectories();
    let fit = gauss_newton_step(&as_arms(tree)?, &PairLaw::independent(&law, &law), tree.scores().view(), eta)?;
    Ok(of_tree(tree, &fit.solution, fit.rank))
}

/// What happened in a run of natural-gradient steps, errors in multiples of the regret at the start.
struct Run {
    /// The average error floor of the iterates, squared reward.
    floor: f64,
    /// The regret at the end.
    regret_last: f64,
    /// What Theorem 1 promises for it: $$ \sqrt{C\epsilon} $$ with pairs from the first policy.
    promise: f64,
}

fn run(tree: &ChanceTree) -> Result<Run, InputError> {
    const STEPS: usize = 200;
    let best = tree.best();
    let regret = |policy: &ChanceTree| best.value() - policy.value();
    let (mut policy, mut floor) = (tree.clone(), 0.0);
    for _ in 0..STEPS {
        floor += policy.error_floor() / STEPS as f64;
        policy = policy.token_npg(1.0)?;
    }
    let (target, old) = (best.trajectories(), tree.trajectories());
    let ratios = target.prob() / old.prob(); // NaN where chance makes both zero, and dropped by max
    let coverage = ratios.fold(0.0, |m: f64, &c| m.max(c));
    Ok(Run { floor, regret_last: regret(&policy) / regret(tree), promise: (coverage * floor).sqrt() / regret(tree) })
}

/// The least loss of the regression (1) itself, pairs of trajectories from the tree's policy, by damped Gauss-Newton.
fn exact_minimum(tree: &ChanceTree, eta: f64) -> Result<f64, InputError> {
    let (arms, law) = (as_arms(tree)?, tree.trajectories());
    let pairs = PairLaw::independent(&law, &law);
    let residuals = |policy: &ChanceTree| pair_residuals(&arms, &pairs, &law, &policy.trajectories(), eta);
    let mut policy = tree.clone();
    let mut now = residuals(&policy);
    for _ in 0..60 {
        let (design, _) = pair_design(&arms, &pairs, policy.scores().view());
        let fit = least_squares(&design, &(&now * -eta))?;
        let mut share = 1.0;
        let better = loop {
            let next = policy.moved(&of_tree(&policy, &(&fit.solution * share), fit.rank));
            let then = residuals(&next);
            if then.dot(&then) < now.dot(&now) {
                break Some((next, then));
            }
            share /= 2.0;
            if share < 1e-6 {
                break None;
            }
        };
        let Some((next, then)) = better else { break };
        let gained = now.dot(&now) - then.dot(&then);
        (policy, now) = (next, then);
        if gained <= 1e-12 * now.dot(&now) {
            break;
        }
    }
    Ok(now.dot(&now))
}
