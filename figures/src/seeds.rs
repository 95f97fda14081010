//! Means and intervals over the runs (seeds) of one method.

use rebel_theory::statistics::{Estimate, mean_interval};

/// Mean and 95% t interval of `curves[seed]`, which hold `(step, value)`, at the steps that every seed has. One seed has no
/// interval: its ends are its value.
pub fn across(curves: &[Vec<(f64, f64)>]) -> Vec<(f64, Estimate)> {
    let Some((first, others)) = curves.split_first() else { return Vec::new() };
    let at = |curve: &[(f64, f64)], x: f64| curve.iter().find(|p| p.0 == x).map(|p| p.1);
    first
        .iter()
        .filter_map(|&(x, value)| {
            let rest: Option<Vec<f64>> = others.iter().map(|curve| at(curve, x)).collect();
            let values: Vec<f64> = std::iter::once(value).chain(rest?).collect();
            let alone = Estimate { value, low: value, high: value };
            Some((x, if values.len() == 1 { alone } else { mean_interval(&values) }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_steps_of_every_seed_are_summarised() {
        let curves = [vec![(0.0, 1.0), (1.0, 2.0), (2.0, 9.0)], vec![(0.0, 3.0), (2.0, 11.0)]];
        let means: Vec<(f64, f64)> = across(&curves).iter().map(|(x, e)| (*x, e.value)).collect();
        assert_eq!(means, [(0.0, 2.0), (2.0, 10.0)]);
    }

    #[test]
    fn interval_of_three_seeds_uses_student_t_with_two_degrees_and_one_seed_has_none() {
        let seed = |value: f64| vec![(0.0, value)];
        let (_, three) = across(&[seed(1.0), seed(2.0), seed(3.0)])[0];
        assert!((three.high - three.value - 4.302_653 / 3f64.sqrt()).abs() < 1e-5, "{three:?}");
        assert_eq!(across(&[seed(5.0)])[0].1, Estimate { value: 5.0, low: 5.0, high: 5.0 });
        assert!(across(&[]).is_empty());
    }
}
