//! How far one outer iteration goes as its objective is optimised better (experiments E7.1 and E7.2): the regression of
//! REBEL stops at its minimiser, below $$ Z-1-\ln Z $$; PPO stops where every ratio has passed the clip, which with shared
//! parameters can be certainty; sign labels of iterative DPO never let it stop.

use rebel_theory::experiments::inner_steps::{
    AtScale, Curve, fitted_bound, inner_steps_of, one_better, reward_scale, two_speeds,
};
use rebel_theory::experiments::methods::{Method, Settings};
use rebel_theory::solve::rates::tilt_bound;
use serde::{Deserialize, Serialize};

use crate::chart::Plot;
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::{Dash, Ink, Role};

/// One line.
pub const SHOWS: &str = "KL of one iteration against inner steps and reward scale";
/// The claims it shows.
pub const CLAIMS: &[&str] = &["ppo-not-conservative", "sign-dpo"];
/// Seeds: nothing is random.
pub const SEEDS: u64 = 0;

const ARMS: usize = 20;
const SMALL_GAP: f64 = 0.01;
const GAP: f64 = 0.1;
const SPEED: f64 = 20.0;

/// What the figure shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Number of responses of the single context.
    pub arms: usize,
    /// By how much one of them is better than the others.
    pub small_gap: f64,
    /// KL against inner steps in that context, one curve a method.
    pub one_context: Vec<Curve>,
    /// What REBEL's fit with `eta = 1` may spend there, nats.
    pub one_bound: f64,
    /// By how much the better response is better in both of two contexts.
    pub gap: f64,
    /// How much faster the second context's logits move.
    pub speed: f64,
    /// KL in the faster context against inner steps, one curve a method.
    pub two_contexts: Vec<Curve>,
    /// What REBEL's fit may spend there, nats.
    pub two_bound: f64,
    /// KL of the exact optima at several gaps of the single context.
    pub scales: Vec<AtScale>,
}

/// Follows each method's inner steps on the whole population, by gradient descent from the uniform policy.
pub fn data() -> Data {
    let mut steps: Vec<usize> = (0..=40).map(|i| 10f64.powf(f64::from(i) / 8.0).round() as usize).collect();
    steps.dedup(); // 1 to 10^5
    let sure = "sizes that are allowed";
    let (bandit, start) = one_better(ARMS, SMALL_GAP).expect(sure);
    let settings = Settings::standard(10.0).expect(sure);
    let methods = [Method::Rebel, Method::Ppo, Method::IterativeDpo, Method::SampledDpo];
    let one_context = inner_steps_of(&methods, &bandit, &start, &settings, &steps).expect(sure);
    let one_bound = fitted_bound(&bandit, &start, settings.eta.get()).expect(sure);
    let (bandit, start) = two_speeds(GAP, SPEED).expect(sure);
    let slower = Settings::standard(0.008).expect(sure);
    let two_contexts = inner_steps_of(&methods[..3], &bandit, &start, &slower, &steps).expect(sure);
    let gaps: Vec<f64> = (0..=20).map(|i| 10f64.powf(-3.0 + f64::from(i) / 5.0)).collect();
    Data {
        arms: ARMS,
        small_gap: SMALL_GAP,
        one_context,
        one_bound,
        gap: GAP,
        speed: SPEED,
        two_contexts,
        two_bound: fitted_bound(&bandit, &start, slower.eta.get()).expect(sure),
        scales: reward_scale(ARMS, &gaps, settings.eta.get(), settings.clip).expect(sure),
    }
}

fn look(method: Method) -> (Ink, &'static str) {
    match method {
        Method::Rebel => (Role::Rebel.ink(), "REBEL"),
        Method::Ppo => (Role::Ppo.ink(), "PPO"),
        Method::IterativeDpo => (Role::IterativeDpo.ink(), "iterative DPO (signs)"),
        _ => (Role::Control.ink(), "control: drawn labels"),
    }
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let against_steps = |title: &str, curves: &[Curve]| {
        let plot = Plot::new("inner steps", "KL(new ‖ old), nats").title(title).log_x().log_y();
        curves.iter().fold(plot, |plot, curve| {
            let (ink, label) = look(curve.method);
            let points: Vec<(f64, f64)> =
                curve.steps.iter().zip(&curve.divergence).map(|(&k, &kl)| (k as f64, kl)).collect();
            plot.line(ink, label, &points)
        })
    };
    let bound = "bound";
    let one = against_steps(&format!("{} arms, gap {}", data.arms, data.small_gap), &data.one_context)
        .level(Role::Bound, data.one_bound, bound)
        .level(Role::Bound.ink().dash(Dash::Dotted), (data.arms as f64).ln(), "sure")
        .y_range(2e-7, 10.0)
        .legend_above();
    let two = against_steps(&format!("two contexts, one {} times as fast", data.speed), &data.two_contexts)
        .level(Role::Bound, data.two_bound, bound)
        .level(Role::Bound.ink().dash(Dash::Dotted), 2f64.ln(), "sure")
        .y_range(1e-4, 2.0)
        .legend_above();
    let curve =
        |of: fn(&AtScale) -> f64| -> Vec<(f64, f64)> { data.scales.iter().map(|at| (at.gap, of(at))).collect() };
    let sharp: Vec<(f64, f64)> = data.scales.iter().map(|at| (at.gap, tilt_bound(at.gap).sharp)).collect();
    let scale = Plot::new("gap in reward", "KL(new ‖ old), nats")
        .title("exact optimum, same arms")
        .log_x()
        .log_y()
        .y_range(2e-8, 10.0)
        .line(Role::Rebel, "REBEL", &curve(|at| at.rebel))
        .line(Role::Ppo, "PPO, nearest optimum", &curve(|at| at.ppo))
        .line(Role::Bound, "Z − 1 − ln Z", &sharp)
        .level(Role::Bound.ink().dash(Dash::Dotted), (data.arms as f64).ln(), "sure")
        .legend_above();
    let note = format!(
        "Gradient descent on the exact population loss from the uniform policy (nothing is random: no seeds); the first step of every \
         method is the same multiple of the policy gradient. η = 1, β = 1, clip 0.2. Bound: Z − 1 − ln Z at the range of REBEL's fit; \
         sure: all mass on one response. Left: one of {} responses is better by {}; DPO with labels drawn from Bradley-Terry stops \
         where REBEL does. Middle: one parameter, gap {} in both contexts, the fast one shown: as long as the slow one is within \
         the clip, PPO drags the fast one on, to certainty. Right: PPO's optimum does not see the size of the reward.",
        data.arms, data.small_gap, data.gap
    );
    Sheet::row(vec![one, two, scale])
        .title("How far one iteration goes when its objective is optimised well")
        .note(&note)
        .draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_curves_show_what_the_note_says() {
        let text = include_str!("../../data/theory_inner_steps.json");
        let recorded: serde_json::Value = serde_json::from_str(text).unwrap();
        let data: Data = serde_json::from_value(recorded["data"].clone()).unwrap();
        let last = |curves: &[Curve], method| {
            *curves.iter().find(|curve| curve.method == method).unwrap().divergence.last().unwrap()
        };
        assert!(last(&data.one_context, Method::Rebel) < data.one_bound);
        assert!(
            (last(&data.one_context, Method::SampledDpo) / last(&data.one_context, Method::Rebel) - 1.0).abs() < 1e-6
        );
        assert!(last(&data.one_context, Method::IterativeDpo) > 0.9 * 20f64.ln());
        assert!(last(&data.two_contexts, Method::Ppo) > 0.99 * 2f64.ln());
        assert!(last(&data.two_contexts, Method::Rebel) < data.two_bound);
        let (small, large) = (data.scales[0], data.scales[data.scales.len() - 1]);
        assert!((small.ppo / large.ppo - 1.0).abs() < 1e-9 && small.rebel < 1e-5 * large.rebel);
    }
}
