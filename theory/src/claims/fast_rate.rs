//! Claim 6 of the table: the fast rate of exact mirror descent and its sharp constant.

use super::{Claim, Findings, Quantity, Tag};
use crate::bandit::{Bandit, Policy};
use crate::solve::mirror::{mirror_descent, tilt};
use crate::solve::rates::worst_case_rate;
use crate::statistics::{log_log_slope, mean};
use ndarray::{Array1, Array2};

pub(super) const CLAIM: Claim = Claim {
    id: "fast-rate",
    title: "The last iterate converges at 1/T",
    statement: "J* - J(pi_T) <= E KL(pi* || pi_0)/(eta T); the average of pi_0..pi_{T-1} loses at most (J_T - J_0)/T more. The \
                supremum over rewards of eta T (J* - J(pi_T)) is E W0((1-p)/(e p)), p = pi_0(y*|x).",
    formula: r"J^*-J(\pi_T)\le\frac{E_x\mathrm{KL}(\pi^*\|\pi_0)}{\eta T},\qquad \sup_r\eta T\,(J^*-J(\pi_T))=W_0\Big(\frac{1-p}{e\,p}\Big)",
    preconditions: &[
        "pi_0 has the best response in its support",
        "the gap may depend on T: on a fixed instance the decay is exponential",
    ],
    tag: Tag::Sharper,
    section: "1.6",
    family: "random bandits, |X| <= 4, |Y| <= 8, T <= 30; equal gaps (1+W0)/(eta T), |Y| 2..1000",
    measure: |trials| {
        let [last, average, sharp] = trials.worst("bound", |draw| {
            let bandit = draw.bandit(4, 8);
            let (start, eta, steps) = (draw.policy(&bandit), draw.eta(), draw.size(1, 30));
            let run = mirror_descent(&bandit, &start, eta, steps);
            let (best, t) = (bandit.best(), steps as f64);
            let divergence = bandit.kl(&Policy::pure(&best, bandit.responses()), &start) / (eta * t);
            let constant = |x: usize| worst_case_rate(start.prob()[[x, best[x]]]);
            let sharp = bandit.average(&Array1::from_shape_fn(bandit.contexts(), constant)) / (eta * t);
            let regret = bandit.optimum() - run.values[steps];
            let mean_regret = bandit.optimum() - mean(&run.values[..steps]);
            let extra = (run.values[steps] - run.values[0]) / t;
            Ok([regret / divergence, mean_regret / (divergence + extra), regret / sharp])
        })?;
        let mut tight = f64::INFINITY;
        for arms in [2, 3, 10, 100, 1000] {
            for (eta, steps) in [(0.1, 5), (1.0, 50), (0.3, 400)] {
                let constant = worst_case_rate(1.0 / arms as f64);
                let bandit = one_better(arms, (1.0 + constant) / (eta * steps as f64))?;
                let run = mirror_descent(&bandit, &Policy::uniform(1, arms), eta, steps);
                tight = tight.min(eta * steps as f64 * (bandit.optimum() - run.values[steps]) / constant);
            }
        }
        let fixed = one_better(10, 1.0)?;
        let times = [8.0, 11.3, 16.0, 22.6, 32.0];
        let left = times.map(|t| tilt(&Policy::uniform(1, 10), fixed.reward(), t).prob().iter().skip(1).sum::<f64>());
        let decay = -(left[4] / left[3]).ln() / (times[4] - times[3]);
        Ok(Findings::new()
            .measured(Quantity::ratio("regret of pi_T over KL/(eta T), worst", last))
            .measured(Quantity::ratio("regret of the average over its bound, worst", average))
            .measured(Quantity::ratio("eta T regret over W0, worst", sharp))
            .measured(Quantity::at_least("eta T regret over W0 at the worst gap, least", tight, 1.0 - 1e-9))
            .control(
                "the gap chosen for each T: a fixed gap decays faster than any power",
                Quantity::at_most("log-log slope of regret, eta T 8..32", log_log_slope(&times, &left).value, -5.0),
            )
            .control(
                "as before: the decay is exponential in eta T",
                Quantity::at_most("its rate against the gap 1, error", (decay - 1.0).abs(), 1e-6),
            ))
    },
};

/// One context in which the first of `arms` responses is better than all others by `gap`.
fn one_better(arms: usize, gap: f64) -> Result<Bandit, crate::error::InputError> {
    let mut reward = Array2::zeros((1, arms));
    reward[[0, 0]] = gap;
    Bandit::new(Array1::ones(1), reward)
}
