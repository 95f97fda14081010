//! The exercises' checks. Each takes an answer, says what is wrong with it in one line, and by a panic, so that the
//! cell fails; a right answer is told so. They are named by notebook and number, and know the usual mistakes.

use crate::start;

/// How far an answer may be from the truth: rounding to four digits is right.
const CLOSE: f64 = 1e-4;

/// Whether two lists agree entry by entry.
fn close(answer: &[f64], truth: &[f64]) -> bool {
    answer.len() == truth.len() && answer.iter().zip(truth).all(|(a, b)| (a - b).abs() <= CLOSE)
}

/// Tells the reader that exercise `number` is solved, or panics with the hint.
fn verdict(number: usize, right: bool, hint: impl FnOnce() -> String) {
    start();
    if right {
        println!("exercise {number}: right");
    } else {
        panic!("exercise {number}: not yet. {}", hint());
    }
}

/// The weights divided by their sum.
fn normalised(weights: &[f64]) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

/// Notebook 1, exercise 1: the next policy of one exact step at `eta` 2 from `pi` = (0.5, 0.3, 0.2) with the rewards
/// (0, 1, 0.5).
pub fn check_1(answer: &[f64]) {
    let (pi, reward, eta) = ([0.5, 0.3, 0.2], [0.0, 1.0, 0.5], 2.0);
    let tilt = |sign: f64| (0..3).map(|y| pi[y] * f64::exp(sign * eta * reward[y])).collect::<Vec<_>>();
    let truth = normalised(&tilt(1.0));
    verdict(1, close(answer, &truth), || {
        let sum: f64 = answer.iter().sum();
        if answer.len() != 3 {
            format!("The answer has {} probabilities; this bandit has three responses.", answer.len())
        } else if close(answer, &tilt(1.0)) {
            format!("The weights are right, but they sum to {sum:.3}: divide by the sum.")
        } else if close(answer, &normalised(&reward.map(|r| f64::exp(eta * r)))) {
            "This forgets where the step starts: multiply by the old policy.".into()
        } else if close(answer, &normalised(&tilt(-1.0))) {
            "This moves away from reward: look at the sign in the exponent.".into()
        } else if close(answer, &normalised(&[0.5, 0.3 * f64::exp(0.5), 0.2 * f64::exp(0.25)])) {
            "This divides by eta; the exponent is eta times the reward.".into()
        } else if (sum - 1.0).abs() > CLOSE {
            format!("These are no probabilities: they sum to {sum:.3}.")
        } else {
            "They sum to 1, but are not proportional to pi(y) exp(eta r(y)).".into()
        }
    });
}

/// Notebook 1, exercise 2: the loss of one pair, equation (1), at `eta` 2, when the log-probability of `y` has gone up
/// by 0.5, that of `y'` down by 0.3, and the rewards are 1 and 0.2.
pub fn check_2(answer: f64) {
    let (eta, moved, wanted) = (2.0, 0.5 + 0.3, 1.0 - 0.2);
    let close = |guess: f64| (answer - guess).abs() <= CLOSE;
    let truth: f64 = (moved / eta - wanted) * (moved / eta - wanted);
    verdict(2, close(truth), || {
        if answer == 0.0 {
            "Nothing answered, or 1/eta forgotten: without it this pair would seem to be fitted exactly.".into()
        } else if close(moved / eta - wanted) || close(wanted - moved / eta) {
            "That is the residual; the loss is its square.".into()
        } else if close((0.2 / eta - wanted) * (0.2 / eta - wanted)) {
            "The log-probability of y' has gone down by 0.3: its change is -0.3.".into()
        } else if close((eta * moved - wanted) * (eta * moved - wanted)) {
            "The change of the log-ratio is divided by eta, not multiplied.".into()
        } else {
            format!("{answer} is not the square of (change of the log-ratio)/eta minus the difference of the rewards.")
        }
    });
}

/// Notebook 1, exercise 3: from the uniform policy over 4 responses, one of which earns 1 and the others 0, how many
/// exact steps at `eta` 0.5 give the best response at least 99 percent?
pub fn check_3(answer: usize) {
    let share = |steps: usize| 1.0 / (1.0 + 3.0 * f64::exp(-0.5 * steps as f64));
    let truth = (0..).find(|&steps| share(steps) >= 0.99).unwrap_or_default();
    verdict(3, answer == truth, || {
        format!(
            "After {answer} steps the best response has {:.2} percent.{}",
            100.0 * share(answer),
            match answer > truth {
                true => " Fewer would do.",
                false => "",
            }
        )
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    /// The hint that `check` gives.
    fn hint(check: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let payload = catch_unwind(check).expect_err("a wrong answer must panic");
        payload.downcast_ref::<String>().expect("the message of panic!").clone()
    }

    #[test]
    fn right_answers_pass() {
        check_1(&[0.1534, 0.6799, 0.1667]);
        check_2(0.16);
        check_3(12);
    }

    #[test]
    fn usual_mistakes_are_named() {
        assert!(hint(|| check_1(&[])).ends_with("has 0 probabilities; this bandit has three responses."));
        assert!(hint(|| check_1(&[0.5, 2.2167, 0.5437])).contains("sum to 3.260: divide by the sum"));
        assert!(hint(|| check_1(&[0.0900, 0.6652, 0.2447])).contains("the old policy"));
        assert!(hint(|| check_1(&[0.8141, 0.0661, 0.1198])).contains("the sign"));
        assert!(hint(|| check_1(&[0.4, 0.3, 0.3])).contains("not proportional"));
        assert!(hint(|| check_2(0.0)).contains("1/eta forgotten"));
        assert!(hint(|| check_2(-0.4)).contains("the residual"));
        assert!(hint(|| check_2(0.49)).contains("its change is -0.3"));
        assert!(hint(|| check_2(0.64)).contains("divided by eta"));
        assert!(hint(|| check_3(11)).contains("98.79 percent"));
        assert!(hint(|| check_3(13)).ends_with("Fewer would do."));
    }

    #[test]
    fn every_hint_is_one_line_that_says_not_yet() {
        for hint in [hint(|| check_1(&[1.0, 2.0, 3.0])), hint(|| check_2(7.0)), hint(|| check_3(0))] {
            assert!(hint.contains(": not yet. ") && !hint.contains('\n'), "{hint}");
        }
    }
}
