//! How far from the tilt other exact steps end (experiments E8.2 and E7.4): natural gradient on one softmax a token misses
//! it at the second order of the step size, the regressions of the log-ratio itself (APA, SPPO) at the third.

use rebel_theory::experiments::log_ratio_distance::log_ratio_distance;
use rebel_theory::experiments::token_distance::token_distances;
use rebel_theory::statistics::median;
use serde::{Deserialize, Serialize};

use crate::chart::Plot;
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::{Ink, Role};

/// One line.
pub const SHOWS: &str = "TV to the tilt against step size: token NPG slope 2, APA and SPPO slope 3";
/// The claims it shows.
pub const CLAIMS: &[&str] = &["tabular-npg", "sppo-apa"];
/// Seeds of the random instances.
pub const SEEDS: u64 = 100;

const RESPONSES: usize = 9;
const TOKENS: usize = 3;

/// Distances at one step size, over instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one, `[eta]`.
    pub median: Vec<f64>,
    /// The smallest, `[eta]`.
    pub smallest: Vec<f64>,
    /// The largest, `[eta]`.
    pub largest: Vec<f64>,
    /// The median exponent between this step size and the next, `[eta - 1]`.
    pub exponent: Vec<f64>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Step sizes, `[eta]`.
    pub eta: Vec<f64>,
    /// Natural gradient on token logits, two tokens out of three.
    pub token: Spread,
    /// APA's exact minimiser, nine responses.
    pub apa: Spread,
    /// SPPO's exact minimiser, nine responses, against the tilt of half the step size.
    pub sppo: Spread,
    /// Median over instances of APA's leading constant, per cube of the step size.
    pub apa_constant: f64,
}

/// Measures every distance on one random instance a seed.
pub fn data() -> Data {
    let eta: Vec<f64> = (0..=15).map(|i| 10f64.powf(-2.0 + f64::from(i) / 6.0)).collect(); // 0.01 to 3.2
    let regressed = log_ratio_distance(&eta, RESPONSES, SEEDS).expect("sizes that are allowed");
    let token = token_distances(&eta, TOKENS, SEEDS).expect("sizes that are allowed");
    let spread = |curves: &[Vec<f64>]| {
        let at = |i: usize| curves.iter().map(|curve| curve[i]).collect::<Vec<_>>();
        let exponent = |i: usize| {
            let slope = |curve: &Vec<f64>| (curve[i + 1] / curve[i]).ln() / (eta[i + 1] / eta[i]).ln();
            median(&curves.iter().map(slope).collect::<Vec<_>>())
        };
        Spread {
            median: (0..eta.len()).map(|i| median(&at(i))).collect(),
            smallest: (0..eta.len()).map(|i| at(i).into_iter().fold(f64::INFINITY, f64::min)).collect(),
            largest: (0..eta.len()).map(|i| at(i).into_iter().fold(0.0, f64::max)).collect(),
            exponent: (0..eta.len() - 1).map(exponent).collect(),
        }
    };
    Data {
        token: spread(&token),
        apa: spread(&regressed.apa),
        sppo: spread(&regressed.sppo),
        apa_constant: median(&regressed.constant),
        eta,
    }
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let methods: [(Ink, &str, &Spread); 3] = [
        (Role::Measured.ink(), "token NPG", &data.token),
        (Role::Apa.ink(), "APA", &data.apa),
        (Role::Sppo.ink(), "SPPO", &data.sppo),
    ];
    let mut left = Plot::new("step size η", "TV to the tilt").title("Distance").log_x().log_y().y_range(1e-11, 2.0);
    let mut right = Plot::new("step size η", "exponent of TV in η").title("Local exponent").log_x().y_range(0.0, 3.5);
    for (ink, label, spread) in methods {
        let over = |values: &[f64]| data.eta.iter().copied().zip(values.iter().copied()).collect::<Vec<(f64, f64)>>();
        let band: Vec<(f64, f64, f64)> =
            (0..data.eta.len()).map(|i| (data.eta[i], spread.smallest[i], spread.largest[i])).collect();
        left = left.band(ink, &band).line(ink, label, &over(&spread.median));
        let between: Vec<(f64, f64)> = data
            .eta
            .windows(2)
            .zip(&spread.exponent)
            .map(|(eta, &exponent)| ((eta[0] * eta[1]).sqrt(), exponent))
            .collect();
        right = right.line(ink, label, &between);
    }
    let law: Vec<(f64, f64)> = data.eta.iter().map(|&eta| (eta, data.apa_constant * eta.powi(3))).collect();
    left = left.line(Role::Bound, "η³ Var(A) E|A| / 4", &law);
    right = right.level(Role::Bound, 2.0, "2").level(Role::Bound, 3.0, "3");
    let note = "Exact steps, one context. Token NPG: one softmax a token, two tokens out of three; with a single token the distance is \
                zero. APA (λ = 1/η) and SPPO (half the step): nine responses, normal logits, normal rewards or uniform margins. \
                Lines are medians over 100 random instances (seeds 0 to 99), bands from the smallest to the largest; the dashed \
                line is APA's leading term at its median constant. Large steps saturate.";
    Sheet::row(vec![left, right]).title("Other exact steps miss the tilt at second and third order").note(note).draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_at_small_steps_are_two_and_three() {
        let data = data();
        let first = |spread: &Spread| spread.exponent[0];
        assert!((first(&data.token) - 2.0).abs() < 0.05, "{}", first(&data.token));
        assert!((first(&data.apa) - 3.0).abs() < 0.05, "{}", first(&data.apa));
        assert!((first(&data.sppo) - 3.0).abs() < 0.05, "{}", first(&data.sppo));
        let off = data.apa.median[0] / (data.apa_constant * data.eta[0].powi(3));
        assert!((0.8..1.25).contains(&off), "{off}");
    }
}
