//! How far one outer iteration goes, as a function of how well its objective is optimised (theory 7, E7.1 and E7.2).
//!
//! The regressions stop at their minimiser. PPO stops only where every ratio has passed the clip, which with shared
//! parameters can be anywhere, and signs never stop.

use super::methods::{Method, Round, Settings};
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::objective::Clip;
use crate::policy::{LogLinear, Softmax, Tabular};
use crate::solve::mirror::tilt;
use crate::solve::ppo::Surrogate;
use crate::solve::rates::tilt_bound;
use crate::solve::regression::{PairLaw, gauss_newton_step};
use ndarray::{Array1, Array2, Axis, array};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// One context of `arms` responses under the uniform policy, the first of which is better than the others by `gap`.
pub fn one_better(arms: usize, gap: f64) -> Result<(Bandit, Tabular), InputError> {
    let mut reward = Array2::zeros((1, arms));
    reward[[0, 0]] = gap;
    Ok((Bandit::new(Array1::ones(1), reward)?, Tabular::new(Array2::zeros((1, arms)))?))
}

/// Two contexts with two responses each, the first better by `gap`, and one parameter that moves the second context
/// `speed` times as fast as the first.
pub fn two_speeds(gap: f64, speed: f64) -> Result<(Bandit, LogLinear), InputError> {
    let bandit = Bandit::new(array![0.5, 0.5], array![[gap, 0.0], [gap, 0.0]])?;
    let phi = array![[[0.5], [-0.5]], [[0.5 * speed], [-0.5 * speed]]];
    Ok((bandit, LogLinear::new(phi, array![0.0])?))
}

/// What inner steps did to the policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The method.
    pub method: Method,
    /// Numbers of inner steps `[n]`.
    pub steps: Vec<usize>,
    /// $$ \mathrm{KL}(\pi_{t+1}\|\pi_t) $$ after so many, nats, in the context where it is largest `[n]`.
    pub divergence: Vec<f64>,
    /// The largest ratio $$ \pi_{t+1}/\pi_t $$ anywhere `[n]`.
    pub ratio: Vec<f64>,
}

/// Follows a method's inner steps on the whole population from `start`, looking after each of `steps` (increasing).
pub fn inner_steps<P: Softmax>(
    method: Method,
    bandit: &Bandit,
    start: &P,
    settings: &Settings,
    steps: &[usize],
) -> Result<Curve, InputError> {
    let old = start.policy();
    let round = Round::population(method, bandit, &old)?;
    let mut curve = Curve { method, steps: steps.to_vec(), divergence: vec![], ratio: vec![] };
    let (mut policy, mut done) = (start.moved(&Array1::zeros(start.parameters().len())), 0);
    for &until in steps {
        for _ in done..until {
            policy = round.step(&policy, settings)?;
        }
        done = until;
        let new = policy.policy();
        curve.divergence.push(new.kl(&old).fold(0.0, |m: f64, &kl| m.max(kl)));
        curve.ratio.push((new.log() - old.log()).fold(f64::NEG_INFINITY, |m: f64, &r| m.max(r)).exp());
    }
    Ok(curve)
}

/// [`inner_steps`] of several methods, in parallel.
pub fn inner_steps_of<P: Softmax>(
    methods: &[Method],
    bandit: &Bandit,
    start: &P,
    settings: &Settings,
    steps: &[usize],
) -> Result<Vec<Curve>, InputError> {
    methods.par_iter().map(|&method| inner_steps(method, bandit, start, settings, steps)).collect()
}

/// What one REBEL step of a log-linear or tabular policy may spend, nats: [`tilt_bound`] at `eta` times the range of the
/// predictor that is fitted to all pairs. Where the policy can represent the reward, that is the range of the reward.
pub fn fitted_bound<P: Softmax>(bandit: &Bandit, start: &P, eta: f64) -> Result<f64, InputError> {
    let pi = start.policy();
    let fit = gauss_newton_step(bandit, &PairLaw::independent(&pi, &pi), start.scores().view(), eta)?;
    let moved = start.moved(&fit.solution).logits() - start.logits(); // [x, y] eta times the predictor
    Ok(tilt_bound(bandit.with_reward(moved)?.range()).sharp)
}

/// How far the optimum of an objective is from the current policy, at one scale of the reward.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AtScale {
    /// The gap between the best response and the others.
    pub gap: f64,
    /// KL of REBEL's minimiser, nats.
    pub rebel: f64,
    /// The largest ratio of REBEL's minimiser.
    pub rebel_ratio: f64,
    /// The least KL of any maximiser of the clipped surrogate, nats.
    pub ppo: f64,
    /// The largest ratio of that maximiser.
    pub ppo_ratio: f64,
}

/// The exact optima on [`one_better`] at several gaps (E7.2): REBEL's step follows the reward, PPO's does not see it.
pub fn reward_scale(arms: usize, gaps: &[f64], eta: f64, clip: Clip) -> Result<Vec<AtScale>, InputError> {
    let at = |&gap: &f64| {
        let (bandit, start) = one_better(arms, gap)?;
        let pi = start.policy();
        let tilted = tilt(&pi, bandit.reward(), eta);
        let flat = |table: &Array2<f64>| table.index_axis(Axis(0), 0).to_owned();
        let nearest = Surrogate::new(&flat(pi.prob()), &flat(bandit.reward()), clip)?.nearest_maximiser();
        let ratio = |new: &Policy| new.prob()[[0, 0]] / pi.prob()[[0, 0]];
        Ok(AtScale {
            gap,
            rebel: tilted.kl(&pi)[0],
            rebel_ratio: ratio(&tilted),
            ppo: nearest.kl(&pi)[0],
            ppo_ratio: ratio(&nearest),
        })
    };
    gaps.iter().map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rebel_stops_at_the_tilt_where_signs_go_on() {
        let (bandit, start) = one_better(20, 0.01).unwrap();
        let settings = Settings::standard(10.0).unwrap();
        let run = |method| inner_steps(method, &bandit, &start, &settings, &[100, 200]).unwrap().divergence;
        let tilted = tilt(&start.policy(), bandit.reward(), 1.0).kl(&start.policy())[0];
        let [rebel, signs] = [run(Method::Rebel), run(Method::IterativeDpo)];
        assert!((rebel[0] / tilted - 1.0).abs() < 1e-6 && (rebel[1] / tilted - 1.0).abs() < 1e-9, "{rebel:?} {tilted}");
        let bound = fitted_bound(&bandit, &start, 1.0).unwrap();
        assert!((bound / tilt_bound(0.01).sharp - 1.0).abs() < 1e-9 && rebel[1] < bound);
        assert!(signs[0] > 1000.0 * tilted && signs[1] > 2.0 * signs[0]);
    }

    #[test]
    fn slow_context_drags_the_fast_one_past_the_clip() {
        let (bandit, start) = two_speeds(0.1, 20.0).unwrap();
        let settings = Settings::standard(0.01).unwrap();
        let curve = inner_steps(Method::Ppo, &bandit, &start, &settings, &[1, 20_000]).unwrap();
        // the slow context is satisfied at odds of 3/2; the fast one then has the odds (3/2)^20
        let (odds, ratio) = (1.5f64.powi(20), curve.ratio[1]);
        // the fit's slope is the mean of both, weighed by squared speed: 0.1 * (1 + 20) / (1 + 400), times 20
        let fitted = tilt_bound(0.1 * 20.0 * 21.0 / 401.0).sharp;
        assert!((fitted_bound(&bandit, &start, 1.0).unwrap() / fitted - 1.0).abs() < 1e-9);
        assert!(curve.ratio[0] < 1.2 && (ratio - 2.0 * odds / (1.0 + odds)).abs() < 1e-3, "{ratio}");
    }
}
