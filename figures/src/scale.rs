//! Axes: ranges, linear and logarithmic scales, ticks and the text at them.

/// How an axis maps values to lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Equal lengths for equal differences.
    Linear,
    /// Equal lengths for equal ratios.
    Log,
}

/// One axis of a panel.
#[derive(Debug, Clone)]
pub struct Axis {
    /// Quantity and unit.
    pub label: String,
    /// Linear or logarithmic.
    pub scale: Scale,
    /// Exactly this range, or one found from the data.
    pub range: Option<(f64, f64)>,
    /// Values that must be on the axis.
    pub includes: Vec<f64>,
}

/// A place on an axis; without text it is a minor tick.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// The value.
    pub value: f64,
    /// What stands beside it, empty for a minor tick.
    pub text: String,
}

impl Axis {
    /// A linear axis whose range comes from the data.
    pub fn new(label: &str) -> Self {
        Self { label: label.into(), scale: Scale::Linear, range: None, includes: Vec::new() }
    }

    /// The range shown for these values: theirs, plus a margin of 4% at both ends.
    ///
    /// # Errors
    /// No value, one that is not finite, or one that is not positive on a logarithmic axis.
    pub fn range_of(&self, values: &[f64]) -> Result<(f64, f64), String> {
        let asked = self.range.iter().flat_map(|&(low, high)| [low, high]);
        for value in values.iter().copied().chain(self.includes.iter().copied()).chain(asked) {
            if !value.is_finite() {
                return Err(format!("{}: {value} cannot be drawn (expected a finite number)", self.label));
            }
            // a clipped value may well be zero: with a stated range it falls off the lower edge
            if self.scale == Scale::Log && value <= 0.0 && self.range.is_none() {
                return Err(format!("{}: {value} on a logarithmic axis (expected a positive number)", self.label));
            }
        }
        if let Some((low, high)) = self.range {
            let positive = self.scale == Scale::Linear || low > 0.0;
            return if low < high && positive {
                Ok((low, high))
            } else {
                Err(format!("{}: {low}..{high} is not a range for this axis", self.label))
            };
        }
        let all = || values.iter().chain(&self.includes).map(|&value| self.scale.position(value));
        let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        if low > high {
            return Err(format!("{}: there is no point to draw", self.label));
        }
        let spread = high - low;
        let margin = if spread > 1e-12 * high.abs().max(1e-12) { 0.04 * spread } else { (0.05 * high.abs()).max(0.05) };
        // an axis that was asked to show an extreme value, zero above all, ends there
        let edge = |value: f64, margin: f64| {
            if self.includes.iter().any(|&i| self.scale.position(i) == value) { value } else { value + margin }
        };
        Ok((self.scale.value(edge(low, -margin)), self.scale.value(edge(high, margin))))
    }
}

impl Scale {
    /// The value on a scale of equal lengths (decades for [`Scale::Log`]; minus infinity for what is not positive).
    pub fn position(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log if value > 0.0 => value.log10(),
            Self::Log => f64::NEG_INFINITY,
        }
    }

    /// The inverse of [`Scale::position`].
    pub fn value(self, position: f64) -> f64 {
        match self {
            Self::Linear => position,
            Self::Log => 10f64.powf(position),
        }
    }

    /// Ticks between `low` and `high`, about `target` of them with text.
    pub fn ticks(self, low: f64, high: f64, target: usize) -> Vec<Tick> {
        match self {
            Self::Linear => linear_ticks(low, high, target),
            Self::Log => log_ticks(low, high, target),
        }
    }
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn linear_ticks(low: f64, high: f64, target: usize) -> Vec<Tick> {
    let raw = (high - low) / target.max(1) as f64;
    let magnitude = 10f64.powf(raw.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().find(|s| s * magnitude >= raw * (1.0 - 1e-9)).unwrap_or(10.0) * magnitude;
    let decimals = (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
    let slack = 1e-9 * (high - low);
    let first = ((low - slack) / step).ceil() as i64;
    let last = ((high + slack) / step).floor() as i64;
    (first..=last)
        .map(|k| {
            let value = k as f64 * step;
            Tick { value, text: plain(value, decimals) }
        })
        .collect()
}

/// Decades, as 10 with a superscript; below two of them also 2 and 5 (written out), otherwise minor ticks in between.
fn log_ticks(low: f64, high: f64, target: usize) -> Vec<Tick> {
    let slack = 1e-9;
    let inside = |value: f64| value >= low * (1.0 - slack) && value <= high * (1.0 + slack);
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let decades: Vec<i32> = (first..=last).filter(|&d| inside(10f64.powi(d))).collect();
    if decades.len() < 2 {
        let fine: Vec<f64> = (first..=last)
            .flat_map(|d| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(d)))
            .filter(|&value| inside(value))
            .collect();
        if fine.len() < 2 {
            return linear_ticks(low, high, target);
        }
        return fine.into_iter().map(|value| Tick { value, text: plain(value, -first.min(0) as usize) }).collect();
    }
    let every = decades.len().div_ceil(target.max(1)) as i32;
    let mut ticks = Vec::new();
    for decade in first..=last {
        let power = 10f64.powi(decade);
        let named = (decade - decades[0]).rem_euclid(every) == 0;
        if inside(power) {
            ticks.push(Tick { value: power, text: if named { power_of_ten(decade) } else { String::new() } });
        }
        if every == 1 {
            let minor = (2..10).map(|m| f64::from(m) * power).filter(|&value| inside(value));
            ticks.extend(minor.map(|value| Tick { value, text: String::new() }));
        }
    }
    ticks
}

/// `-3` as 10⁻³.
pub fn power_of_ten(exponent: i32) -> String {
    let digits = exponent.to_string();
    let raised = digits.chars().map(|c| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        other => char::from_u32('⁰' as u32 + other.to_digit(10).unwrap_or(0)).unwrap_or(other),
    });
    std::iter::once("10".to_string()).chain(raised.map(String::from)).collect()
}

/// A number with a true minus sign and thousands set apart by a thin space.
pub fn plain(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 && whole.len() > 4 {
            grouped.push('\u{2009}');
        }
        grouped.push(digit);
    }
    if !fraction.is_empty() {
        grouped = format!("{grouped}.{fraction}");
    }
    let zero = grouped.chars().all(|c| matches!(c, '0' | '.'));
    if value < 0.0 && !zero { format!("\u{2212}{grouped}") } else { grouped }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(ticks: &[Tick]) -> Vec<&str> {
        ticks.iter().map(|t| t.text.as_str()).filter(|t| !t.is_empty()).collect()
    }

    #[test]
    fn decade_ticks_are_tens_with_superscripts() {
        let ticks = Scale::Log.ticks(0.004, 200.0, 6);
        assert_eq!(named(&ticks), ["10⁻²", "10⁻¹", "10⁰", "10¹", "10²"]);
        assert_eq!(power_of_ten(-14), "10⁻¹⁴");
        assert_eq!(power_of_ten(567890), "10⁵⁶⁷⁸⁹⁰");
    }

    #[test]
    fn minor_log_ticks_fill_the_range_and_stay_inside_it() {
        let ticks = Scale::Log.ticks(0.5, 20.0, 6);
        let values: Vec<f64> = ticks.iter().map(|t| (t.value * 1e9).round() / 1e9).collect();
        assert_eq!(values, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 20.0]);
    }

    #[test]
    fn a_log_axis_of_one_decade_is_labelled_in_plain_numbers() {
        assert_eq!(named(&Scale::Log.ticks(0.15, 0.7, 5)), ["0.2", "0.5"]);
        assert_eq!(named(&Scale::Log.ticks(2.1, 2.4, 3)), ["2.1", "2.2", "2.3", "2.4"]);
    }

    #[test]
    fn many_decades_are_thinned_to_the_target() {
        assert_eq!(named(&Scale::Log.ticks(1e-12, 1.0, 5)), ["10⁻¹²", "10⁻⁹", "10⁻⁶", "10⁻³", "10⁰"]);
    }

    #[test]
    fn linear_ticks_carry_the_decimals_of_their_step() {
        assert_eq!(named(&Scale::Linear.ticks(-0.1, 0.52, 4)), ["0.0", "0.2", "0.4"]);
        assert_eq!(named(&Scale::Linear.ticks(-3.0, 3.0, 3)), ["\u{2212}2", "0", "2"]);
        assert_eq!(named(&Scale::Linear.ticks(0.0, 0.1, 4)), ["0.00", "0.05", "0.10"]);
        assert_eq!(named(&Scale::Linear.ticks(0.0, 21000.0, 2)), ["0", "20\u{2009}000"]);
    }

    #[test]
    fn zero_on_a_log_axis_is_an_error_and_off_a_stated_range_is_not() {
        let mut axis = Axis::new("loss");
        axis.scale = Scale::Log;
        assert_eq!(
            axis.range_of(&[1.0, 0.0]).unwrap_err(),
            "loss: 0 on a logarithmic axis (expected a positive number)"
        );
        axis.range = Some((0.1, 10.0));
        assert_eq!(axis.range_of(&[1.0, 0.0]), Ok((0.1, 10.0)));
        assert!(Axis::new("loss").range_of(&[]).is_err());
        assert!(Axis::new("loss").range_of(&[f64::NAN]).is_err());
    }

    #[test]
    fn an_axis_asked_to_show_zero_ends_at_zero() {
        let mut axis = Axis::new("loss");
        axis.includes.push(0.0);
        let (low, high) = axis.range_of(&[1.0, 2.0]).unwrap();
        assert_eq!(low, 0.0);
        assert!((high - 2.08).abs() < 1e-12, "{high}");
    }
}
