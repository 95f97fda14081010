//! The exact arithmetic of one context that the theory figures need: tilts of log-probabilities and two closed forms.

/// $$ \ln\pi_{t+1}=\ln\pi_t+\eta r-\ln Z $$ for log-probabilities and rewards `[y]`, equation (3).
pub fn tilt(log: &[f64], reward: &[f64], eta: f64) -> Vec<f64> {
    let exponents: Vec<f64> = log.iter().zip(reward).map(|(l, r)| l + eta * r).collect();
    let top = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_z = top + exponents.iter().map(|e| (e - top).exp()).sum::<f64>().ln();
    exponents.into_iter().map(|e| e - log_z).collect()
}

/// $$ \mathrm{KL}(p\|q) $$ of log-probabilities `[y]`, nats.
pub fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| if p.is_finite() { p.exp() * (p - q) } else { 0.0 }).sum()
}

/// The sharp bound on the KL of a tilt of range `s > 0`, and the mass on the higher of two reward levels that attains it:
///
/// $$ Z-1-\ln Z,\quad p=\frac{Z-1}{e^s-1},\quad Z=\frac s{1-e^{-s}} $$
pub fn sharp_bound(s: f64) -> (f64, f64) {
    if s < 0.05 {
        // the closed forms cancel; the next terms of the series are below 1e-8 of the first
        return (s * s / 8.0 - s.powi(4) / 576.0, 0.5 - s / 6.0 + s.powi(3) / 180.0);
    }
    let z = -s / (-s).exp_m1();
    (z - 1.0 - z.ln(), (z - 1.0) / s.exp_m1())
}

/// Lambert's W for `a >= 0`, by Newton's method on $$ we^w=a $$: the `w >= 0`.
pub fn lambert_w(a: f64) -> f64 {
    // ln(1 + a) lies above the root, and the function is convex: the iterates come down to it and never pass it
    let mut w = a.ln_1p();
    for _ in 0..60 {
        let next = w - (w - a * (-w).exp()) / (1.0 + w);
        if (next - w).abs() <= 1e-16 * w {
            break;
        }
        w = next;
    }
    w
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambert_inverts_w_exp_w() {
        for w in [0.1, 1.0, 5.0, 20.0] {
            assert!((lambert_w(w * f64::exp(w)) - w).abs() < 1e-12 * w, "{w}");
        }
        assert_eq!(lambert_w(0.0), 0.0);
    }

    #[test]
    fn tilt_equals_numbers_by_hand() {
        let half = 0.5f64.ln();
        let next = tilt(&[half, half], &[2f64.ln(), 0.0], 1.0);
        assert!((next[0].exp() - 2.0 / 3.0).abs() < 1e-15 && (next[1].exp() - 1.0 / 3.0).abs() < 1e-15);
        let expected = 2.0 / 3.0 * (4.0f64 / 3.0).ln() + 1.0 / 3.0 * (2.0f64 / 3.0).ln();
        assert!((kl(&next, &[half, half]) - expected).abs() < 1e-15);
    }

    #[test]
    fn sharp_bound_is_hoeffdings_for_small_ranges() {
        assert!((sharp_bound(0.01).0 / (0.01f64.powi(2) / 8.0) - 1.0).abs() < 1e-5);
        let (below, above) = (sharp_bound(0.05 - 1e-12), sharp_bound(0.05));
        assert!((below.0 / above.0 - 1.0).abs() < 1e-8 && (below.1 / above.1 - 1.0).abs() < 1e-8);
    }
}
