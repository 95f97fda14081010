//! The variance of a policy gradient from one pair of responses against a constant added to all rewards (experiment E3.1).
//!
//! REINFORCE's is a parabola, that of REBEL's paired gradient (RLOO with two responses) does not move: pairs reduce the
//! variance outside an interval of offsets around the one that centres the rewards, and raise it inside.

use ndarray::{Array1, Array2};
use rebel_theory::bandit::Bandit;
use rebel_theory::experiments::gradient_scatter::{Scatter, scatter};
use rebel_theory::experiments::linear::{LinearProblem, Size};
use rebel_theory::policy::{Softmax, Tabular};
use rebel_theory::solve::gradient_variance::GradientVariance;
use rebel_theory::statistics::Estimate;
use serde::{Deserialize, Serialize};

use crate::chart::{Interval, Plot};
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::scale::plain;
use crate::style::{Dash, Marker, Role};

/// One line.
pub const SHOWS: &str = "variance of a one-pair gradient against the offset of the reward";
/// The claims it shows.
pub const CLAIMS: &[&str] = &["variance-reduction"];
/// Seeds of the sampled points.
pub const SEEDS: u64 = 100;

const PAIRS: usize = 200;
const SIZE: Size = Size { contexts: 4, responses: 6, features: 3 };
const ARMS: [usize; 4] = [2, 3, 10, 1000];

/// A uniform table of one context: REINFORCE's variance over that of pairs against the mean reward.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Number of responses, K.
    pub responses: usize,
    /// Ratio of the variances, `[mean]`.
    pub ratio: Vec<f64>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Offsets, `[offset]`.
    pub offset: Vec<f64>,
    /// Exact variance of REINFORCE, `[offset]`.
    pub reinforce: Vec<f64>,
    /// Exact variance of the paired gradient.
    pub paired: f64,
    /// Exact variance with the exact value of the context as a baseline.
    pub true_baseline: f64,
    /// The offsets between which pairs do not reduce the variance.
    pub no_reduction: (f64, f64),
    /// Sampled variances.
    pub sampled: Vec<Scatter>,
    /// Mean reward in standard deviations, `[mean]`.
    pub mean: Vec<f64>,
    /// Uniform tables.
    pub tables: Vec<Table>,
}

/// The variances of uniform play over K rewards of mean 0 and standard deviation 1, equally spaced.
fn uniform_table(responses: usize) -> GradientVariance {
    let spaced = Array2::from_shape_fn((1, responses), |(_, y)| y as f64 - 0.5 * (responses as f64 - 1.0));
    let deviation = (spaced.mapv(|r| r * r).sum() / responses as f64).sqrt();
    let bandit = Bandit::new(Array1::ones(1), spaced / deviation).expect("finite rewards");
    let table = Tabular::new(Array2::zeros((1, responses))).expect("finite logits");
    let metric = Array2::eye(responses);
    GradientVariance::new(&bandit, &table.policy(), table.scores().view(), &metric).expect("one metric entry a score")
}

/// Computes the exact curves and samples a few of their points.
pub fn data() -> Data {
    let problem = LinearProblem::new(SIZE, 1.0, 3).expect("room for a misfit");
    let metric = Array2::eye(SIZE.features);
    let variance = GradientVariance::new(&problem.bandit, &problem.pi, problem.scores.view(), &metric);
    let variance = variance.expect("one metric entry a score");
    let offset: Vec<f64> = (-80..=80).map(|i| f64::from(i) / 8.0).collect();
    let mean: Vec<f64> = (-60..=60).map(|i| f64::from(i) / 20.0).collect();
    let table = |responses| {
        let exact = uniform_table(responses);
        Table { responses, ratio: mean.iter().map(|&v| exact.reinforce(v) / exact.paired()).collect() }
    };
    let points: Vec<f64> = (-5..=5).map(|i| 2.0 * f64::from(i)).collect();
    Data {
        reinforce: offset.iter().map(|&c| variance.reinforce(c)).collect(),
        paired: variance.paired(),
        true_baseline: variance.true_baseline(),
        no_reduction: variance.no_reduction().expect("values that vary little between contexts"),
        sampled: scatter(&problem, &points, PAIRS, SEEDS as usize, 0).expect("a problem of this size"),
        tables: ARMS.map(table).to_vec(),
        offset,
        mean,
    }
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let parabola: Vec<(f64, f64)> = data.offset.iter().copied().zip(data.reinforce.iter().copied()).collect();
    let ends = |y: f64| [(-10.0, y), (10.0, y)];
    let (low, high) = data.no_reduction;
    let (bottom, top) =
        (0.3 * data.true_baseline, 3.0 * data.reinforce[0].max(data.reinforce[data.reinforce.len() - 1]));
    let bars = |of: fn(&Scatter) -> Estimate| -> Vec<Interval> {
        data.sampled
            .iter()
            .map(|s| (s.offset, of(s)))
            .map(|(c, e)| Interval { at: (c, e.value), x: (c, c), y: (e.low, e.high) })
            .collect()
    };
    let at = |bars: &[Interval]| -> Vec<(f64, f64)> { bars.iter().map(|b| b.at).collect() };
    let (single, paired) = (bars(|s| s.reinforce), bars(|s| s.paired));
    let (reinforce, rebel) = (Role::Reinforce.ink(), Role::Rebel.ink());
    let left = Plot::new("constant added to all rewards", "variance of the gradient (trace)")
        .title("A log-linear policy")
        .log_y()
        .x_range(-10.5, 10.5)
        .y_range(bottom, top)
        .legend_above()
        .named_band(Role::Control, "pairs do not reduce it", &[(low, bottom, top), (high, bottom, top)])
        .line(reinforce, "REINFORCE", &parabola)
        .line(rebel, "pairs: REBEL = RLOO k = 2", &ends(data.paired))
        .line(Role::Bound, "exact V(x) as baseline", &ends(data.true_baseline))
        .bars(reinforce, &single)
        .points(reinforce.hollow(), "", &at(&single))
        .bars(rebel, &paired)
        .points(rebel.hollow(), "", &at(&paired));
    let mut right = Plot::new("mean reward V / standard deviation σ", "variance: REINFORCE / pairs")
        .title("A uniform table of K responses")
        .x_range(-3.0, 3.0)
        .y_range(0.0, 5.0)
        .legend_above();
    let dashes = [Dash::Solid, Dash::Dashed, Dash::Dotted, Dash::Solid];
    for (table, dash) in data.tables.iter().zip(dashes) {
        let ink = if table.responses == 1000 { Role::Measured.ink() } else { Role::Reinforce.ink() }.dash(dash);
        let curve: Vec<(f64, f64)> = data.mean.iter().copied().zip(table.ratio.iter().copied()).collect();
        right = right.line(ink, &format!("K = {}", table.responses), &curve);
        let k = table.responses as f64;
        let ends = [-1.0, 1.0].map(|side| (side * (k / (k - 1.0)).sqrt(), 1.0));
        right = right.points(ink.marker(Marker::Circle).hollow(), "", &ends);
    }
    let right = right.level(Role::Bound, 1.0, "no\ndifference");
    let note = format!(
        "Left: {} contexts, {} responses, {} features; curves exact, points sampled ({} pairs a seed, {} seeds, 95% t \
         intervals). Inside the shaded offsets, {} to {}, pairs have the larger variance. Right: exact, equally \
         spaced rewards; pairs win where the mean reward exceeds σ√(K/(K − 1)) (circles), and with centred rewards \
         they double the variance for large K.",
        SIZE.contexts,
        SIZE.responses,
        SIZE.features,
        PAIRS,
        SEEDS,
        plain(low, 2),
        plain(high, 2)
    );
    Sheet::row(vec![left, right]).title("When pairs reduce the variance of the gradient").note(&note).draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_cross_at_the_ends_of_the_interval_and_samples_agree_with_them() {
        let data = data();
        for (c, v) in data.offset.iter().zip(&data.reinforce) {
            let inside = data.no_reduction.0 < *c && *c < data.no_reduction.1;
            assert_eq!(inside, *v < data.paired, "offset {c}");
        }
        for s in &data.sampled {
            let exact = data.reinforce[data.offset.iter().position(|c| *c == s.offset).unwrap()];
            let off = |e: Estimate, exact: f64| (e.value - exact).abs() / (0.5 * (e.high - e.low));
            assert!(off(s.reinforce, exact) < 2.5 && off(s.paired, data.paired) < 2.5, "{s:?}");
        }
    }
}
