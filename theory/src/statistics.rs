//! Intervals for what is sampled: means, medians, slopes on log-log axes.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, StudentsT};

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
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[((resamples - 1) as f64 * share).round() as usize];
    Estimate { value: mean(sample), low: at(0.025), high: at(0.975) }
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
    fn median_is_middle_and_mean_of_middles() {
        assert_eq!(median(&[5.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 8.0]), 3.0);
        assert!(median(&[]).is_nan() && median(&[1.0, f64::NAN]).is_nan());
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
