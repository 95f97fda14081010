//! Intervals for what is sampled: means, medians, interquartile means, slopes on log-log axes; by Student's t, by the
//! bootstrap, by the bootstrap within strata.

use crate::error::{self, InputError};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, StudentsT};
use std::collections::BTreeMap;

/// A point estimate between the ends of its two-sided 95% interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// The quantile that leaves 2.5% above it in Student's t with `freedom` degrees of freedom, infinite below one.
fn t_quantile(freedom: usize) -> f64 {
    StudentsT::new(0.0, 1.0, freedom as f64).map_or(f64::INFINITY, |t| t.inverse_cdf(0.975))
}

/// The mean of a sample, NaN of an empty one.
pub fn mean(sample: &[f64]) -> f64 {
    sample.iter().sum::<f64>() / sample.len() as f64
}

/// The largest number of a sample, NaN if any is; minus infinity of an empty one.
pub fn largest(sample: &[f64]) -> f64 {
    sample.iter().fold(f64::NEG_INFINITY, |m, &v| if m >= v || m.is_nan() { m } else { v })
}

/// The median of a sample, NaN of an empty one or of one that contains NaN.
pub fn median(sample: &[f64]) -> f64 {
    if sample.is_empty() || sample.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// The median of independent draws between two of its order statistics, an interval that holds whatever their law; unbounded
/// for fewer than six draws.
pub fn median_interval(sample: &[f64]) -> Estimate {
    let value = median(sample);
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    // The number of draws below the median is binomial: the largest rank whose tail is at most 2.5%.
    let tail = Binomial::new(0.5, sample.len() as u64).expect("a share of one half");
    let rank = (0..sample.len() as u64 / 2).take_while(|&k| tail.cdf(k) <= 0.025).count();
    match (value.is_nan(), rank) {
        (false, 1..) => Estimate { value, low: sorted[rank - 1], high: sorted[sorted.len() - rank] },
        _ => Estimate { value, low: f64::NEG_INFINITY, high: f64::INFINITY },
    }
}

/// The mean of independent draws with its t-interval, $$ \bar v\pm t_{n-1}\,s/\sqrt n $$; unbounded for one draw.
pub fn mean_interval(sample: &[f64]) -> Estimate {
    let value = mean(sample);
    let n = sample.len() as f64;
    if sample.len() < 2 {
        return Estimate { value, low: f64::NEG_INFINITY, high: f64::INFINITY };
    }
    let variance = sample.iter().map(|v| (v - value).powi(2)).sum::<f64>() / (n - 1.0);
    let half = t_quantile(sample.len() - 1) * (variance / n).sqrt();
    Estimate { value, low: value - half, high: value + half }
}

/// The mean with its percentile-bootstrap interval from `resamples` resamples, reproducible by `seed`.
///
/// The sample and `resamples` must not be empty.
pub fn bootstrap_mean(sample: &[f64], resamples: usize, seed: u64) -> Estimate {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut means = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        let total: f64 = (0..sample.len()).map(|_| sample[rng.random_range(0..sample.len())]).sum();
        means.push(total / sample.len() as f64);
    }
    percentiles(mean(sample), means)
}

/// A value between the 2.5% and the 97.5% quantile of its resampled values, at least one.
fn percentiles(value: f64, mut resampled: Vec<f64>) -> Estimate {
    resampled.sort_by(f64::total_cmp);
    let at = |share: f64| resampled[((resampled.len() - 1) as f64 * share).round() as usize];
    Estimate { value, low: at(0.025), high: at(0.975) }
}

/// The interquartile mean: the mean of what is left when a quarter of the sample, rounded down to whole entries, is cut
/// from either end. Robust as a median, and nearly as efficient as a mean (Agarwal et al. 2021, arXiv 2108.13264). NaN of
/// an empty sample or of one that contains NaN.
pub fn interquartile_mean(sample: &[f64]) -> f64 {
    if sample.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    let cut = sorted.len() / 4;
    mean(&sorted[cut..sorted.len() - cut])
}

/// The standard error of the mean of independent draws, $$ s/\sqrt n $$; NaN below two.
pub fn standard_error(sample: &[f64]) -> f64 {
    if sample.len() < 2 {
        return f64::NAN;
    }
    let (n, centre) = (sample.len() as f64, mean(sample));
    (sample.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt()
}

/// The standard error of the mean of `M` draws that are independent between clusters only, with `G` clusters:
///
/// $$ \frac1M\sqrt{\frac G{G-1}\sum_g\Big(\sum_{m\in g}(v_m-\bar v)\Big)^2} $$
///
/// `cluster` names that of each draw, by any number. NaN below two clusters.
pub fn clustered_standard_error(sample: &[f64], cluster: &[usize]) -> f64 {
    let centre = mean(sample);
    let mut sums = BTreeMap::new();
    for (value, name) in sample.iter().zip(cluster) {
        *sums.entry(name).or_insert(0.0) += value - centre;
    }
    let groups = sums.len() as f64;
    if sums.len() < 2 {
        return f64::NAN;
    }
    (groups / (groups - 1.0) * sums.values().map(|s: &f64| s * s).sum::<f64>()).sqrt() / sample.len() as f64
}

/// Any statistic with its percentile-bootstrap interval, resampled within strata and reproducible by `seed`.
///
/// `strata`: the draws of each stratum (a task, a game, a prompt), at least one each; a draw may be a number, or a whole
/// curve. Each resample draws from each stratum, with replacement, as many as it has. `statistic` sees the strata, and must
/// not be NaN. The interquartile mean over tasks and seeds is `stratified_bootstrap(&scores, |s| interquartile_mean(&s.concat()), ..)`.
///
/// # Errors
/// No stratum, an empty one (by its index), no resamples, a statistic that is not a number.
pub fn stratified_bootstrap<T: Clone>(
    strata: &[Vec<T>],
    statistic: impl Fn(&[Vec<T>]) -> f64,
    resamples: usize,
    seed: u64,
) -> Result<Estimate, InputError> {
    if strata.is_empty() {
        return Err(InputError::Empty { argument: "strata" });
    }
    if let Some(at) = strata.iter().position(Vec::is_empty) {
        return Err(InputError::EmptyEntry { argument: "strata", index: vec![at] });
    }
    if resamples == 0 {
        return Err(InputError::Empty { argument: "resamples" });
    }
    let number = |value: f64| match value.is_nan() {
        true => Err(InputError::Domain { argument: "statistic", value, expected: "a number, for every resample" }),
        false => Ok(value),
    };
    let value = number(statistic(strata))?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut again = strata.to_vec();
    let mut values = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        for (stratum, drawn) in strata.iter().zip(&mut again) {
            drawn.iter_mut().for_each(|draw| draw.clone_from(&stratum[rng.random_range(0..stratum.len())]));
        }
        values.push(number(statistic(&again))?);
    }
    Ok(percentiles(value, values))
}

/// The log-log slope of a curve averaged over seeds, with its seed-bootstrap interval: seeds are resampled, averaged and
/// fitted again, so the interval holds whatever the points of one seed have in common.
///
/// `x` `[n]`, positive, at least two different; `seeds`: the curve of each seed, `[seeds][n]`, positive.
///
/// # Errors
/// No seeds, no resamples, a curve of another length, a value that is not positive.
pub fn log_log_slope_over_seeds(
    x: &[f64],
    seeds: &[Vec<f64>],
    resamples: usize,
    seed: u64,
) -> Result<Estimate, InputError> {
    for (argument, curve) in std::iter::once(("x", x)).chain(seeds.iter().map(|curve| ("seeds", curve.as_slice()))) {
        error::shape(argument, &[curve.len()], &[x.len()])?;
        curve.iter().try_for_each(|&v| error::positive(argument, v).map(|_| ()))?;
    }
    let slope = |strata: &[Vec<Vec<f64>>]| {
        let curves = &strata[0];
        let average = |i: usize| curves.iter().map(|curve| curve[i]).sum::<f64>() / curves.len() as f64;
        log_log_slope(x, &(0..x.len()).map(average).collect::<Vec<_>>()).value
    };
    stratified_bootstrap(&[seeds.to_vec()], slope, resamples, seed)
}

/// The least-squares slope of `ln y` on `ln x`: the exponent `p` of $$ y\propto x^p $$ with its t-interval.
///
/// All values must be positive; two points have a slope but no interval.
pub fn log_log_slope(x: &[f64], y: &[f64]) -> Estimate {
    let (u, v): (Vec<f64>, Vec<f64>) = x.iter().zip(y).map(|(x, y)| (x.ln(), y.ln())).unzip();
    let (u_mean, v_mean) = (mean(&u), mean(&v));
    let spread: f64 = u.iter().map(|a| (a - u_mean).powi(2)).sum();
    let value = u.iter().zip(&v).map(|(a, b)| (a - u_mean) * (b - v_mean)).sum::<f64>() / spread;
    if u.len() < 3 {
        return Estimate { value, low: f64::NEG_INFINITY, high: f64::INFINITY };
    }
    let residual = |(a, b): (&f64, &f64)| (b - v_mean - value * (a - u_mean)).powi(2);
    let freedom = u.len() - 2;
    let variance = u.iter().zip(&v).map(residual).sum::<f64>() / freedom as f64;
    let half = t_quantile(freedom) * (variance / spread).sqrt();
    Estimate { value, low: value - half, high: value + half }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    #[test]
    fn t_interval_of_one_two_three_equals_table() {
        let got = mean_interval(&[1.0, 2.0, 3.0]); // t_2 = 4.302653, s = 1
        assert_abs_diff_eq!(got.high - 2.0, 4.302652729 / 3f64.sqrt(), epsilon = 1e-6);
        assert_abs_diff_eq!(got.value - got.low, got.high - got.value, epsilon = 1e-12);
    }

    #[test]
    fn slope_of_exact_power_is_its_exponent() {
        let x = [1.0, 2.0, 4.0, 8.0];
        let got = log_log_slope(&x, &x.map(|x: f64| 3.0 * x.powf(-1.5)));
        assert_abs_diff_eq!(got.value, -1.5, epsilon = 1e-12);
        assert!(got.high - got.low < 1e-9);
    }

    #[test]
    fn slope_interval_covers_truth_under_noise_nineteen_times_in_twenty() {
        use rand_distr::{Distribution, StandardNormal};
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let x: Vec<f64> = (1..=10).map(f64::from).collect();
        let covered = (0..2000).filter(|_| {
            let noisy = |x: &f64| -> f64 {
                let noise: f64 = StandardNormal.sample(&mut rng);
                x.powi(2) * (0.3 * noise).exp()
            };
            let y: Vec<f64> = x.iter().map(noisy).collect();
            let got = log_log_slope(&x, &y);
            got.low <= 2.0 && 2.0 <= got.high
        });
        let share = covered.count() as f64 / 2000.0;
        assert!((0.93..0.97).contains(&share), "{share}"); // four standard errors
    }

    #[test]
    fn largest_number_hides_no_nan() {
        assert_eq!(largest(&[1.0, -3.0, 2.0]), 2.0);
        assert!(largest(&[1.0, f64::NAN, 2.0]).is_nan() && largest(&[f64::NAN, 2.0]).is_nan());
        assert_eq!(largest(&[]), f64::NEG_INFINITY);
    }

    #[test]
    fn median_is_middle_and_mean_of_middles() {
        assert_eq!(median(&[5.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 8.0]), 3.0);
        assert!(median(&[]).is_nan() && median(&[1.0, f64::NAN]).is_nan());
    }

    #[test]
    fn interquartile_mean_drops_a_quarter_from_either_end() {
        assert_eq!(interquartile_mean(&[100.0, 1.0, 3.0, -50.0, 2.0, 4.0, 7.0, 5.0]), 3.5); // 2, 3, 4, 5
        assert_eq!(interquartile_mean(&[3.0, 1.0, 8.0]), 4.0); // three quarters of one entry are no whole entry
        assert!(interquartile_mean(&[]).is_nan() && interquartile_mean(&[1.0, f64::NAN]).is_nan());
    }

    #[test]
    fn clustered_error_equals_number_by_hand_and_the_plain_one_for_single_draws() {
        // mean 3; cluster sums -3 and 3: sqrt(2 * 18) / 4
        assert_abs_diff_eq!(clustered_standard_error(&[1.0, 2.0, 4.0, 5.0], &[7, 7, 9, 9]), 1.5, epsilon = 1e-15);
        let sample = [1.0, 2.0, 4.0, 9.0];
        let single = clustered_standard_error(&sample, &[0, 1, 2, 3]);
        assert_abs_diff_eq!(single, standard_error(&sample), epsilon = 1e-15);
        assert!(clustered_standard_error(&sample, &[1; 4]).is_nan() && standard_error(&[1.0]).is_nan());
    }

    #[test]
    fn bootstrap_within_strata_ignores_the_difference_between_them() {
        let strata: Vec<Vec<f64>> = vec![vec![0.0; 10], vec![100.0; 10]];
        let both = stratified_bootstrap(&strata, |s| mean(&s.concat()), 200, 1).unwrap();
        assert_eq!((both.low, both.value, both.high), (50.0, 50.0, 50.0));
        let pooled = stratified_bootstrap(&[strata.concat()], |s| mean(&s.concat()), 200, 1).unwrap();
        assert!(pooled.low < 40.0 && pooled.high > 60.0, "{pooled:?}");
        assert_eq!(pooled, stratified_bootstrap(&[strata.concat()], |s| mean(&s.concat()), 200, 1).unwrap());
    }

    #[test]
    fn bootstrap_of_the_mean_is_the_bootstrap_of_any_statistic_that_is_the_mean() {
        let sample: Vec<f64> = (0..50).map(|i| f64::from(i * 17 % 31)).collect();
        let general = stratified_bootstrap(std::slice::from_ref(&sample), |s| mean(&s[0]), 300, 4).unwrap();
        assert_eq!(general, bootstrap_mean(&sample, 300, 4));
    }

    #[test]
    fn bootstrap_interval_of_the_interquartile_mean_covers_the_truth_nineteen_times_in_twenty() {
        use rand_distr::{Distribution, StandardNormal};
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let covered = (0..1000u64).filter(|&seed| {
            // two tasks of 30 runs around 1 and 3; by symmetry the interquartile mean is 2
            let mut task = |centre: f64| {
                (0..30)
                    .map(|_| {
                        let noise: f64 = StandardNormal.sample(&mut rng);
                        centre + noise
                    })
                    .collect::<Vec<f64>>()
            };
            let got = stratified_bootstrap(&[task(1.0), task(3.0)], |s| interquartile_mean(&s.concat()), 200, seed);
            let got = got.unwrap();
            got.low <= 2.0 && 2.0 <= got.high
        });
        let share = covered.count() as f64 / 1000.0;
        assert!((0.90..0.975).contains(&share), "{share}"); // percentiles of 30 draws are slightly narrow
    }

    #[test]
    fn strata_that_cannot_be_resampled_are_refused() {
        let refused = |strata: &[Vec<f64>], resamples| {
            stratified_bootstrap(strata, |s| mean(&s.concat()), resamples, 0).unwrap_err().to_string()
        };
        assert_eq!(refused(&[], 10), "strata: is empty (expected at least one entry)");
        assert_eq!(refused(&[vec![1.0], vec![]], 10), "strata[1]: is empty (expected at least one entry)");
        assert_eq!(refused(&[vec![1.0]], 0), "resamples: is empty (expected at least one entry)");
        assert!(refused(&[vec![f64::NAN]], 10).starts_with("statistic: NaN"));
    }

    #[test]
    fn slope_over_seeds_has_the_width_that_the_seeds_have() {
        let x = [1.0, 2.0, 4.0];
        let curve = |p: f64| x.map(|x: f64| x.powf(p)).to_vec();
        let alike = log_log_slope_over_seeds(&x, &[curve(-1.0), curve(-1.0)], 100, 0).unwrap();
        assert_abs_diff_eq!(alike.high - alike.low, 0.0, epsilon = 1e-12);
        let apart = log_log_slope_over_seeds(&x, &[curve(-1.0), curve(-2.0)], 100, 0).unwrap();
        assert_abs_diff_eq!(apart.low, -2.0, epsilon = 1e-12);
        assert_abs_diff_eq!(apart.high, -1.0, epsilon = 1e-12);
        assert!(log_log_slope_over_seeds(&x, &[vec![1.0, 0.0, 2.0]], 10, 0).is_err());
        assert!(log_log_slope_over_seeds(&x, &[vec![1.0, 2.0]], 10, 0).is_err());
        assert!(log_log_slope_over_seeds(&x, &[], 10, 0).is_err());
    }

    #[test]
    fn median_interval_of_ten_is_its_second_and_ninth() {
        // Binomial(10, 1/2): 11/1024 of at most one, 56/1024 of at most two
        let sample: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        assert_eq!(median_interval(&sample), Estimate { value: 5.5, low: 2.0, high: 9.0 });
        assert_eq!(median_interval(&[1.0; 5]).low, f64::NEG_INFINITY);
        assert_eq!(median_interval(&[1.0, 2.0, 3.0, 4.0, 5.0, 9.0]).high, 9.0);
    }

    #[test]
    fn bootstrap_interval_is_close_to_t_interval() {
        let sample: Vec<f64> = (0..200).map(|i| f64::from(i * 37 % 101)).collect();
        let (t, b) = (mean_interval(&sample), bootstrap_mean(&sample, 2000, 1));
        assert!((t.low - b.low).abs() < 0.5 && (t.high - b.high).abs() < 0.5, "{t:?} {b:?}");
    }
}
