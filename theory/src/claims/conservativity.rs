//! Claim 5 of the table: how far a step can move the policy, exactly.

use super::{Claim, Findings, Quantity, Tag, over_bound};
use crate::bandit::Policy;
use crate::error::InputError;
use crate::solve::mirror::{implied_reward, tilt};
use crate::solve::rates::tilt_bound;
use ndarray::{Array1, array};

pub(super) const CLAIM: Claim = Claim {
    id: "conservativity",
    title: "A step is conservative, with a sharp constant",
    statement: "With s = eta max_x range r(x,.) and Z = s/(1-e^{-s}), both KL directions of a step are at most Z-1-ln Z <= s^2/8 \
                in every context, and |ln pi_{t+1}/pi_t| <= s; the first is attained by two reward levels.",
    formula: r"\mathrm{KL}\le Z-1-\ln Z\le\tfrac{s^2}8,\qquad s=\eta\Delta,\quad Z=\frac s{1-e^{-s}}",
    preconditions: &[
        "a bounded reward range: eta alone bounds nothing",
        "of a fitted step: the range of the predictor",
    ],
    tag: Tag::Sharper,
    section: "1.5",
    family: "random bandits, |X| <= 4, |Y| <= 8, eta 0.05..3; two-level family, s 0.01..30",
    measure: |trials| {
        let [forward, backward, hoeffding, ratio] = trials.worst("bound", |draw| {
            let bandit = draw.bandit(4, 8);
            let (pi, eta) = (draw.policy(&bandit), draw.eta());
            let next = tilt(&pi, bandit.reward(), eta);
            let s = eta * bandit.range();
            let bound = tilt_bound(s);
            let largest = |kl: Array1<f64>| kl.fold(0.0, |m: f64, &v| m.max(v));
            let log_ratio = implied_reward(&next, &pi, 1.0).fold(0.0, |m: f64, v| m.max(v.abs()));
            Ok([
                over_bound(largest(next.kl(&pi)), bound.sharp),
                over_bound(largest(pi.kl(&next)), bound.sharp),
                over_bound(bound.sharp, bound.hoeffding),
                over_bound(log_ratio, s),
            ])
        })?;
        let spans = (0..40).map(|i| 0.01 * 3000f64.powf(f64::from(i) / 39.0));
        let mut tight = f64::INFINITY;
        for s in spans {
            tight = tight.min(two_levels(s)? / tilt_bound(s).sharp);
        }
        let (outlier_eps, outlier_kl) = fitted_outlier(1e6)?;
        let small = tilt_bound(0.2);
        let large = tilt_bound(50.0).sharp;
        Ok(Findings::new()
            .measured(Quantity::ratio("KL(new || old) over Z-1-ln Z, worst", forward))
            .measured(Quantity::ratio("KL(old || new) over Z-1-ln Z, worst", backward))
            .measured(Quantity::ratio("Z-1-ln Z over s^2/8, worst", hoeffding))
            .measured(Quantity::ratio("|ln new/old| over s, worst", ratio))
            .measured(Quantity::at_least("KL over Z-1-ln Z on the two-level family, least", tight, 1.0 - 1e-8))
            .measured(Quantity::at_most(
                "Z-1-ln Z against s^2/8 - s^4/576 at s = 0.2, relative",
                ((small.sharp - (small.hoeffding - 0.2f64.powi(4) / 576.0)) / small.sharp).abs(),
                1e-6,
            ))
            .measured(Quantity::at_most(
                "Z-1-ln Z against s-1-ln s at s = 50",
                (large - 49.0 + 50f64.ln()).abs(),
                1e-12,
            ))
            .control(
                "bounded range: eta = 1 with two levels 1000 apart",
                Quantity::at_least("KL of one step, nats", two_levels(1000.0)?, 900.0),
            )
            .control(
                "N5.4: a fit with eps < 0.002 that errs by 2 ln K on one of K = 10^6 arms",
                Quantity::at_least("KL of one step over ln K", outlier_kl / 1e6f64.ln(), 0.9),
            )
            .control("N5.4: how small that eps is", Quantity::at_most("eps", outlier_eps, 0.002)))
    },
};

/// The KL of one step of size 1 on two levels `s` apart, the higher with the mass of [`tilt_bound`].
fn two_levels(s: f64) -> Result<f64, InputError> {
    // Far out the mass underflows; its logarithm does not.
    let log_mass = if s < 30.0 { tilt_bound(s).mass.ln() } else { (s - 1.0).ln() - s };
    let start = Policy::from_logits(&array![[log_mass, (-log_mass.exp()).ln_1p()]]);
    Ok(tilt(&start, &array![[s, 0.0]], 1.0).kl(&start)[0])
}

/// The error `eps` under `y, y' ~ pi_t` of a predictor that is right (zero) on all of `arms` uniform arms but one, where
/// it is `2 ln(arms)`, and the KL of one step of size 1 along it. The arms that are right are taken as one.
fn fitted_outlier(arms: f64) -> Result<(f64, f64), InputError> {
    let p = 1.0 / arms;
    let pi = Policy::new("pi", array![[p, 1.0 - p]])?;
    let error = 2.0 * arms.ln();
    let eps = 2.0 * p * (1.0 - p) * error * error;
    Ok((eps, tilt(&pi, &array![[error, 0.0]], 1.0).kl(&pi)[0]))
}
