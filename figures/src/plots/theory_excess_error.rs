//! The error of REBEL's regression against the number of pairs (Example 1; experiments E4.1, E4.2, control N4.1): a cliff
//! without label noise, a peak and then the rate 2 sigma^2 d/N with it.

use rebel_theory::experiments::excess::{Threshold, fits, threshold};
use rebel_theory::experiments::linear::{LinearProblem, Size};
use rebel_theory::statistics::{Estimate, mean_interval};
use serde::{Deserialize, Serialize};

use crate::chart::{Interval, Plot};
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::{Dash, Marker, Role};

/// One line.
pub const SHOWS: &str = "error of the regression against the number of pairs, with and without label noise";
/// The claims it shows.
pub const CLAIMS: &[&str] = &["example1-rate"];
/// Seeds of the samples.
pub const SEEDS: u64 = 400;

const FEATURES: usize = 20;
const WIDTHS: [usize; 3] = [5, 10, 20];

/// The scaled error of one number of features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Width {
    /// Number of features, d.
    pub features: usize,
    /// Number of pairs over d.
    pub multiple: Vec<usize>,
    /// N E eps / (2 sigma^2 d), the noise averaged exactly, mean over designs.
    pub ratio: Vec<Estimate>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Through N = d, for d = 20.
    pub threshold: Vec<Threshold>,
    /// Far above.
    pub widths: Vec<Width>,
}

/// Samples designs and noise, and fits them.
pub fn data() -> Data {
    let problem = LinearProblem::new(Size { contexts: 40, responses: 40, features: FEATURES }, 0.0, 0).expect("a size");
    let counts = [2, 5, 8, 10, 12, 14, 16, 18, 19, 20, 21, 22, 23, 24, 26, 28, 30, 35, 40, 50, 65, 80, 110, 150, 200];
    let width = |features: usize| {
        let problem = LinearProblem::new(Size { contexts: 20, responses: 20, features }, 0.0, 1).expect("a size");
        let multiple = vec![3, 4, 6, 8, 12, 16, 24, 32, 48, 64];
        let pairs: Vec<usize> = multiple.iter().map(|m| m * features).collect();
        let all = fits(&problem, &pairs, 1.0, SEEDS as usize, features as u64).expect("a problem of this size");
        let ratio = |i: usize| {
            let scale = pairs[i] as f64 / (2.0 * features as f64);
            mean_interval(&all.iter().map(|seed| seed[i].expected * scale).collect::<Vec<_>>())
        };
        Width { features, ratio: (0..pairs.len()).map(ratio).collect(), multiple }
    };
    Data {
        threshold: threshold(&problem, &counts, 1.0, SEEDS as usize, 0).expect("a problem of this size"),
        widths: WIDTHS.map(width).to_vec(),
    }
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    // Rounding of exactly zero has no place on a logarithmic axis.
    let shown = |v: f64| v.max(1e-33);
    let curve = |of: fn(&Threshold) -> Estimate| -> Vec<(f64, f64)> {
        data.threshold.iter().map(|t| (t.pairs as f64, shown(of(t).value))).collect()
    };
    let band = |of: fn(&Threshold) -> Estimate| -> Vec<(f64, f64, f64)> {
        data.threshold.iter().map(|t| (t.pairs as f64, shown(of(t).low), shown(of(t).high))).collect()
    };
    let rate: Vec<(f64, f64)> = [22.0, 200.0].map(|n| (n, 2.0 * FEATURES as f64 / n)).to_vec();
    let (noisy, clean) = (Role::Measured.ink(), Role::Rebel.ink().marker(Marker::Square));
    let panel = |title: &str| Plot::new("pairs N", "error on fresh pairs ε").title(title).log_x().log_y();
    let left = panel(&format!("A cliff without noise (d = {FEATURES})"))
        .x_range(1.8, 220.0)
        .y_range(1e-32, 1e6)
        .band(noisy, &band(|t| t.noisy))
        .band(clean, &band(|t| t.noise_free))
        .marked_line(noisy, "label noise σ = 1", &curve(|t| t.noisy))
        .marked_line(clean, "no label noise", &curve(|t| t.noise_free));
    let middle = panel(&format!("A peak with noise at N = d = {FEATURES}"))
        .x_range(9.0, 220.0)
        .y_range(0.1, 300.0)
        .band(noisy, &band(|t| t.noisy))
        .band(clean, &band(|t| t.noise_free))
        .marked_line(noisy, "σ = 1", &curve(|t| t.noisy))
        .marked_line(clean, "no noise", &curve(|t| t.noise_free))
        .line(Role::Bound, "2σ²d/N", &rate);
    let mut right = Plot::new("pairs per feature N/d", "N ε / (2σ²d)")
        .title("Far above: to 1 from above")
        .log_x()
        .x_range(2.7, 72.0)
        .y_range(0.95, 2.0);
    let looks = [(Marker::Circle, Dash::Solid), (Marker::Square, Dash::Dashed), (Marker::Diamond, Dash::Dotted)];
    for (width, (marker, dash)) in data.widths.iter().zip(looks) {
        let d = width.features as f64;
        let gaussian: Vec<(f64, f64)> =
            (30..=700).map(|i| f64::from(i) / 10.0).map(|m| (m, m * d / (m * d - d - 1.0))).collect();
        right = right.line(Role::Bound.ink().dash(dash), "", &gaussian);
        let ink = Role::Measured.ink().marker(marker);
        let at: Vec<(f64, f64)> = width.multiple.iter().zip(&width.ratio).map(|(&m, e)| (m as f64, e.value)).collect();
        let bars: Vec<Interval> =
            at.iter().zip(&width.ratio).map(|(&at, e)| Interval { at, x: (at.0, at.0), y: (e.low, e.high) }).collect();
        right = right.bars(ink, &bars).points(ink, &format!("d = {}", width.features), &at);
    }
    let right = right.level(Role::Control, 1.0, "2σ²d/N");
    let note = format!(
        "Log-linear policy, linear reward, ordinary least squares on sampled pairs; ε is the error on fresh pairs of the same law, \
         not the training loss. Left and middle: 40 contexts, 40 responses; medians over {SEEDS} designs with 95% bootstrap intervals (the mean is \
         infinite at N = d); without noise the fit is exact once the pairs determine it, and a pair of twice the same response \
         determines nothing. Right: 20 contexts, 20 responses, means over {SEEDS} designs with 95% t intervals, noise averaged \
         exactly; lines: Gaussian designs, N/(N − d − 1), for d = 5, 10, 20."
    );
    Sheet::row(vec![left, middle, right])
        .title("The error of the regression needs label noise to fall as d/N")
        .note(&note)
        .draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed() -> Data {
        let recorded: serde_json::Value =
            serde_json::from_str(include_str!("../../data/theory_excess_error.json")).expect("committed numbers");
        serde_json::from_value(recorded["data"].clone()).expect("committed numbers")
    }

    #[test]
    fn noise_peaks_where_the_pairs_just_determine_the_fit_and_nothing_is_left_without_it() {
        let data = committed();
        let peak = data.threshold.iter().max_by(|a, b| a.noisy.value.total_cmp(&b.noisy.value)).unwrap();
        assert!((19..=22).contains(&peak.pairs), "{}", peak.pairs);
        for point in &data.threshold {
            assert_eq!(point.noise_free.value < 1e-18, point.determined > 0.5, "N = {}", point.pairs);
        }
    }

    #[test]
    fn scaled_error_comes_down_to_one() {
        for width in committed().widths {
            let last = width.ratio[width.ratio.len() - 1];
            assert!(last.value < 1.15 && width.ratio[0].value > 1.2, "d = {}: {last:?}", width.features);
        }
    }
}
