//! How long each method takes to find one better arm among K (experiments E1.1, E1.4, N1.1): exact gradients and exact
//! regressions, nothing sampled.

use crate::bandit::{Bandit, Policy};
use crate::error::{self, InputError};
use crate::policy::Tabular;
use crate::solve::mirror::{mirror_descent, tilt};
use crate::solve::natural::policy_gradient_run;
use crate::solve::projected::projected_gradient_run;
use crate::solve::rates;
use ndarray::{Array1, Array2, array};
use serde::{Deserialize, Serialize};

/// How much better the one arm is.
pub const GAP: f64 = 0.5;
/// Regret at which it counts as found: the policy plays it nine times in ten.
pub const GOAL: f64 = 0.05;

/// Steps from the uniform policy until the regret is at most [`GOAL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// Number of arms.
    pub arms: usize,
    /// Exact mirror descent, that is REBEL with an exact regression.
    pub mirror: usize,
    /// Gradient ascent on softmax logits.
    pub softmax: usize,
    /// Projected gradient ascent on the probabilities.
    pub projected: usize,
}

/// One context in which the first of `arms` arms is better than all others by [`GAP`].
fn one_better(arms: usize) -> Result<Bandit, InputError> {
    let mut reward = Array2::zeros((1, arms));
    reward[[0, 0]] = GAP;
    Bandit::new(Array1::ones(1), reward)
}

/// The first step at which the regret is at most [`GOAL`], up to rounding.
fn arrival(values: &[f64]) -> Option<usize> {
    values.iter().position(|j| GAP - j <= GOAL * (1.0 + 1e-12))
}

/// Times all three methods with step size `eta` on `arms` arms. The softmax gradient is followed through the one number
/// that symmetry leaves of its state, the others through all probabilities.
pub fn steps(arms: usize, eta: f64) -> Result<Steps, InputError> {
    let race = rates::Race::new(arms, GAP, GOAL)?;
    let bandit = one_better(arms)?;
    let eta = error::positive("eta", eta)?;
    let enough = race.mirror_steps(eta) + 2;
    let mirror = mirror_descent(&bandit, &Policy::uniform(1, arms), eta, enough).values;
    Ok(Steps {
        arms,
        mirror: arrival(&mirror).ok_or_else(|| late(arms))?,
        softmax: race.gradient_steps(eta)?,
        projected: projected_steps(arms, eta)?,
    })
}

/// The steps of size `eta` of projected gradient ascent alone.
pub fn projected_steps(arms: usize, eta: f64) -> Result<usize, InputError> {
    let enough = (1.0 / (error::positive("eta", eta)? * GAP)).ceil() as usize + 1; // certain of the arm, not just nearly
    let (values, _) = projected_gradient_run(&one_better(arms)?, &Policy::uniform(1, arms), eta, enough);
    arrival(&values).ok_or_else(|| late(arms))
}

fn late(arms: usize) -> InputError {
    InputError::Domain { argument: "arms", value: arms as f64, expected: "arms among which the best is found in time" }
}

/// A start that hardly plays the better of two arms, and what it costs to leave it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Plateau {
    /// Probability of the better arm at the start.
    pub start: f64,
    /// Steps of gradient ascent on softmax logits until it is played half of the time.
    pub softmax: usize,
    /// Steps of mirror descent.
    pub mirror: usize,
}

/// Times the way out of a start with probability `start` in (0, 1/2) on the better of two arms, [`GAP`] apart, with step size 1.
pub fn plateau(start: f64) -> Result<Plateau, InputError> {
    if !(1e-6..0.5).contains(&start) {
        let expected = "a probability from 1e-6 to 1/2";
        return Err(InputError::Domain { argument: "start", value: start, expected });
    }
    let bandit = one_better(2)?;
    let logits = array![[start.ln(), (-start).ln_1p()]];
    let half = |values: &[f64]| values.iter().position(|&j| j >= GAP / 2.0);
    // The flow takes (1/p0)/(2 gap) and lower orders.
    let enough = (1.2 / (2.0 * GAP * start)) as usize + 100;
    let (values, _) = policy_gradient_run(&bandit, &Tabular::new(logits.clone())?, 1.0, enough);
    let policy = Policy::from_logits(&logits);
    let mirror = (0..).find(|&t| bandit.value(&tilt(&policy, bandit.reward(), f64::from(t))) >= GAP / 2.0);
    Ok(Plateau {
        start,
        softmax: half(&values).ok_or_else(|| late(2))?,
        mirror: mirror.expect("the tilt reaches every level below the best") as usize,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_from_uniform_over_four_arms_equal_numbers_by_hand() {
        // p1 = .9: mirror (ln 9 + ln 3)/(.5 * .5) = 13.2; projected (.9 - .25)/(.75 * .25) = 3.5
        let got = steps(4, 0.5).unwrap();
        assert_eq!((got.mirror, got.projected), (14, 4));
        let all = policy_gradient_run(&one_better(4).unwrap(), &Tabular::new(Array2::zeros((1, 4))).unwrap(), 0.5, 500);
        assert_eq!(arrival(&all.0), Some(got.softmax));
    }

    #[test]
    fn mirror_descent_leaves_a_plateau_in_the_logarithm_of_its_start() {
        let got = plateau(0.01).unwrap();
        assert_eq!(got.mirror, (99f64.ln() / GAP).ceil() as usize);
        assert!(got.softmax > 8 * got.mirror);
        assert!(plateau(0.0).is_err() && plateau(0.7).is_err());
    }
}
