//! Means and intervals over seeds.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean over seeds and its two-sided 95% interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Mean.
    pub mean: f64,
    /// Lower end of the interval; the mean itself where there is one seed.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Mean and 95% Student t interval of independent values, one a seed. One value has no interval: its ends are the value.
/// None if there is no value.
pub fn summary(values: &[f64]) -> Option<Summary> {
    let n = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    if values.len() == 1 {
        return Some(Summary { mean, low: mean, high: mean });
    }
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let quantile = StudentsT::new(0.0, 1.0, n - 1.0).ok()?.inverse_cdf(0.975);
    let half = quantile * (variance / n).sqrt();
    Some(Summary { mean, low: mean - half, high: mean + half })
}

/// Summaries at the abscissae that every seed has: `curves[seed]` holds `(step, value)`; returns `(step, summary)`.
pub fn across(curves: &[Vec<(f64, f64)>]) -> Vec<(f64, Summary)> {
    let Some((first, others)) = curves.split_first() else { return Vec::new() };
    let at = |curve: &[(f64, f64)], x: f64| curve.iter().find(|p| p.0 == x).map(|p| p.1);
    first
        .iter()
        .filter_map(|&(x, value)| {
            let rest: Option<Vec<f64>> = others.iter().map(|curve| at(curve, x)).collect();
            let values: Vec<f64> = std::iter::once(value).chain(rest?).collect();
            Some((x, summary(&values)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_of_three_values_uses_student_t_with_two_degrees() {
        let s = summary(&[1.0, 2.0, 3.0]).unwrap();
        // t(0.975, 2) = 4.30265; sd = 1, so half = 4.30265 / sqrt 3
        assert!((s.mean - 2.0).abs() < 1e-12);
        assert!((s.high - s.mean - 4.302_653 / 3f64.sqrt()).abs() < 1e-5, "{s:?}");
        assert!((s.mean - s.low - (s.high - s.mean)).abs() < 1e-12);
    }

    #[test]
    fn one_seed_has_no_interval_and_none_has_no_mean() {
        assert_eq!(summary(&[5.0]), Some(Summary { mean: 5.0, low: 5.0, high: 5.0 }));
        assert_eq!(summary(&[]), None);
    }

    #[test]
    fn only_steps_of_every_seed_are_summarised() {
        let curves = [vec![(0.0, 1.0), (1.0, 2.0), (2.0, 9.0)], vec![(0.0, 3.0), (2.0, 11.0)]];
        let means: Vec<(f64, f64)> = across(&curves).iter().map(|(x, s)| (*x, s.mean)).collect();
        assert_eq!(means, [(0.0, 2.0), (2.0, 10.0)]);
    }
}
