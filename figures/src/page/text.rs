//! A line of text with formulas, code, links and numbers in it, escaped as it is written.

/// Text within a paragraph, a heading or a cell.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Text {
    html: String,
}

/// How a word is set off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// As it should be.
    Good,
    /// To be read with care.
    Careful,
    /// As it should not be.
    Bad,
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self { html: escape(text) }
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl Text {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A number of at most five digits, with a power of ten where it is small or large.
    pub fn number(value: f64) -> Self {
        Self::new().value(value)
    }

    fn add(mut self, html: &str) -> Self {
        self.html.push_str(html);
        self
    }

    /// Appends words.
    pub fn plain(self, text: &str) -> Self {
        self.add(&escape(text))
    }

    /// Appends what a person types, or a name in a program.
    pub fn code(self, text: &str) -> Self {
        self.add(&format!("<code>{}</code>", escape(text)))
    }

    /// Appends a formula in LaTeX.
    pub fn formula(self, latex: &str) -> Self {
        self.add(&format!("<span class=\"formula\">{}</span>", escape(latex)))
    }

    /// Appends words that lead to an anchor (`#id`) or an address.
    pub fn link(self, text: &str, target: &str) -> Self {
        self.add(&format!("<a href=\"{}\">{}</a>", escape(target), escape(text)))
    }

    /// Appends another text.
    pub fn then(self, other: &Text) -> Self {
        self.add(&other.html)
    }

    /// Appends words that are set off.
    pub fn mark(self, mark: Mark, text: &str) -> Self {
        let class = match mark {
            Mark::Good => "good",
            Mark::Careful => "careful",
            Mark::Bad => "bad",
        };
        self.add(&format!("<span class=\"mark {class}\">{}</span>", escape(text)))
    }

    /// Appends words in small.
    pub fn small(self, text: &str) -> Self {
        self.add(&format!("<small>{}</small>", escape(text)))
    }

    /// Appends a number as [`Text::number`] writes it: near 1 by how far from 1 it is, which is what a bound's ratio tells.
    pub fn value(self, value: f64) -> Self {
        let magnitude = value.abs();
        if value.is_nan() {
            return self.add("not a number");
        }
        let sign = if value < 0.0 { "\u{2212}" } else { "" };
        if magnitude.is_infinite() {
            return self.add(&format!("{sign}\u{221e}"));
        }
        let from_one = magnitude - 1.0;
        if from_one != 0.0 && from_one.abs() < 5e-5 {
            let away = if from_one < 0.0 { "\u{2212}" } else { "+" };
            return self.add(&format!("{sign}1\u{2009}{away}\u{2009}")).value(from_one.abs());
        }
        if magnitude == 0.0 || (1e-2..1e4).contains(&magnitude) {
            let text = format!("{magnitude:.4}");
            return self.add(&format!("{sign}{}", text.trim_end_matches('0').trim_end_matches('.')));
        }
        let text = format!("{magnitude:.2e}");
        let (digits, power) = text.split_once('e').expect("a power of ten");
        let digits = digits.trim_end_matches('0').trim_end_matches('.');
        let times = if digits == "1" { String::new() } else { format!("{digits}\u{2009}\u{d7}\u{2009}") };
        self.add(&format!("{sign}{times}10<sup>{}</sup>", power.replace('-', "\u{2212}")))
    }

    /// The text as HTML.
    pub(crate) fn html(&self) -> &str {
        &self.html
    }
}

/// Text as HTML shows it, within elements and attributes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_write_them() {
        let written = |value: f64| Text::number(value).html;
        assert_eq!(written(0.25), "0.25");
        assert_eq!(written(-2.0), "\u{2212}2");
        assert_eq!(written(0.0), "0");
        assert_eq!(written(1.0), "1");
        assert_eq!(
            written(1.0 - 2f64.powi(-20)),
            "1\u{2009}\u{2212}\u{2009}9.54\u{2009}\u{d7}\u{2009}10<sup>\u{2212}7</sup>"
        );
        assert_eq!(written(9999.96), "9999.96");
        assert_eq!(written(1e-9), "10<sup>\u{2212}9</sup>");
        assert_eq!(written(-2.5e6), "\u{2212}2.5\u{2009}\u{d7}\u{2009}10<sup>6</sup>");
        assert_eq!(written(f64::NEG_INFINITY), "\u{2212}\u{221e}");
        assert_eq!(written(f64::NAN), "not a number");
    }

    #[test]
    fn pieces_are_escaped_each_in_its_place() {
        let text = Text::from("a<b ").code("x<y").formula("p<q").link("<", "#\"").small("&").mark(Mark::Bad, ">");
        let expected = "a&lt;b <code>x&lt;y</code><span class=\"formula\">p&lt;q</span><a href=\"#&quot;\">&lt;</a>\
                        <small>&amp;</small><span class=\"mark bad\">&gt;</span>";
        assert_eq!(text.html, expected);
    }
}
