//! What an error on pairs costs (experiments E5.2 and E5.5): all of $$ \sqrt{C\epsilon} $$ where it is systematic, next to nothing
//! where it is independent in every iteration.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rebel_theory::experiments::coverage_cost::independent_errors;
use rebel_theory::solve::rates::Merged;
use rebel_theory::statistics::{Estimate, mean_interval};
use serde::{Deserialize, Serialize};

use crate::chart::{Interval, Plot};
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::{Dash, Marker, Role};

/// One line.
pub const SHOWS: &str = "regret against sqrt(C eps): systematic errors pay all of it, independent ones hardly any";
/// The claims it shows.
pub const CLAIMS: &[&str] = &["coverage-cost", "theorem1"];
/// Seeds of the runs with independent errors.
pub const SEEDS: u64 = 100;

const ARMS: usize = 10;
const GAP: f64 = 0.5;
const STEPS: usize = 160;
const ETA: f64 = 0.5;

/// Runs with independent errors of one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Noisy {
    /// Standard deviation of the error on each response.
    pub sigma: f64,
    /// sqrt(C eps), mean over seeds and iterations.
    pub charged: Estimate,
    /// Average regret of the iterates.
    pub average: Estimate,
}

/// The merged family for one coverage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Family {
    /// C.
    pub coverage: f64,
    /// Numbers of responses, `[K]`.
    pub arms: Vec<usize>,
    /// Regret over sqrt(C eps), `[K]`.
    pub ratio: Vec<f64>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Systematic errors, K = 1e5: C, and (C eps, regret) for each gap.
    pub systematic: Vec<(f64, Vec<(f64, f64)>)>,
    /// Independent errors.
    pub independent: Vec<Noisy>,
    /// The ratio of regret to its bound.
    pub families: Vec<Family>,
}

/// Computes the tight family and runs mirror descent under independent errors.
pub fn data() -> Data {
    let covers = [2.0, 16.0, 128.0];
    let point = |cover: f64, gap: f64| {
        let member = Merged::new(100_000, cover, gap).expect("a member");
        (cover * member.eps(), member.regret())
    };
    let gaps: Vec<f64> = (0..7).map(|i| 0.03 * 10f64.powf(f64::from(i) / 3.0)).collect();
    let noisy = |sigma: f64| {
        let run = |seed| {
            let rng = &mut ChaCha8Rng::seed_from_u64(seed);
            independent_errors((ARMS, GAP), sigma, (STEPS, ETA), rng).expect("a run")
        };
        let runs: Vec<_> = (0..SEEDS).map(run).collect();
        let over = |of: fn(&rebel_theory::experiments::coverage_cost::Paid) -> f64| {
            mean_interval(&runs.iter().map(of).collect::<Vec<_>>())
        };
        Noisy { sigma, charged: over(|p| p.charged), average: over(|p| p.average) }
    };
    let arms: Vec<usize> = (1..=12).map(|i| 10f64.powf(f64::from(i) / 2.0).round() as usize).collect();
    let family = |coverage: f64| {
        let ratio = |&k: &usize| Merged::new(k, coverage, 1.0).expect("a member").tightness();
        Family { coverage, ratio: arms.iter().map(ratio).collect(), arms: arms.clone() }
    };
    Data {
        systematic: covers.iter().map(|&c| (c, gaps.iter().map(|&d| point(c, d)).collect())).collect(),
        independent: [0.02, 0.05, 0.1, 0.2, 0.4, 0.8].map(noisy).to_vec(),
        families: covers.map(family).to_vec(),
    }
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let markers = [Marker::Circle, Marker::Square, Marker::Diamond];
    let mut paid = Plot::new("C ε", "average regret")
        .title("Systematic against independent errors")
        .log_x()
        .log_y()
        .legend_above();
    let all = data.systematic.iter().flat_map(|(_, points)| points.iter().map(|p| p.0));
    let (low, high) = all.fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    paid = paid.line(Role::Bound, "√(C ε)", &[(low, low.sqrt()), (high, high.sqrt())]);
    for ((cover, points), marker) in data.systematic.iter().zip(markers) {
        // the three coverages lie on one line: every third point of each, one after the other
        let shift = markers.iter().position(|&m| m == marker).unwrap_or(0);
        let some: Vec<_> = points.iter().skip(shift).step_by(3).copied().collect();
        paid = paid.points(Role::Measured.ink().marker(marker), &format!("systematic, C = {cover}"), &some);
    }
    let square = |e: Estimate| (e.value.powi(2), e.low.powi(2), e.high.powi(2));
    let bars: Vec<Interval> = data
        .independent
        .iter()
        .map(|n| {
            let (x, x_low, x_high) = square(n.charged);
            Interval { at: (x, n.average.value), x: (x_low, x_high), y: (n.average.low, n.average.high) }
        })
        .collect();
    let points: Vec<(f64, f64)> = bars.iter().map(|b| b.at).collect();
    let noise = Role::Rebel.ink().hollow();
    paid = paid.bars(noise, &bars).points(noise, "independent each iteration", &points);

    let mut ratio = Plot::new("responses K", "regret / √(C ε)")
        .title("The tight family")
        .log_x()
        .y_range(0.0, 1.1)
        .level(Role::Bound, 1.0, "bound");
    let dashes = [Dash::Solid, Dash::Dashed, Dash::Dotted];
    for ((family, marker), dash) in data.families.iter().zip(markers).zip(dashes) {
        let points: Vec<(f64, f64)> = family.arms.iter().zip(&family.ratio).map(|(&k, &r)| (k as f64, r)).collect();
        let ink = Role::Measured.ink().marker(marker).dash(dash);
        ratio = ratio.marked_line(ink, &format!("C = {}", family.coverage), &points);
    }
    let note = format!(
        "Systematic: a policy class that merges K arms (left K = 10⁵), one better by a gap d, μ plays it with probability 1/C; the line \
         has slope 1/2. Independent: {ARMS} arms, gap {GAP}, {STEPS} exact steps of size {ETA} along the reward plus fresh normal \
         errors on every arm, s.d. 0.02 to 0.8, C from uniform μ; means of {SEEDS} seeds with 95% t intervals. They do not rise \
         with ε until the errors rival the gap: what remains is the start, not the error.",
    );
    Sheet::row(vec![paid, ratio]).title("What misfit costs").note(&note).draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systematic_errors_pay_the_bound_and_independent_ones_a_small_part() {
        let data = data();
        for (cover, points) in &data.systematic {
            for (charged, regret) in points {
                let ratio = regret / charged.sqrt();
                assert!(ratio <= 1.0 + 1e-12 && ratio > 0.999, "C = {cover}: {ratio}");
            }
        }
        let loudest = data.independent.last().unwrap();
        assert!(loudest.average.high < 0.1 * loudest.charged.low, "{loudest:?}");
        assert!(data.families.iter().all(|f| f.ratio.windows(2).all(|r| r[0] < r[1])));
    }
}
