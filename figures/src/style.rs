//! How everything looks: one colour, marker and dash for each method, the same in every figure; sizes that stay readable
//! when a panel is printed at column width (3.3 inches).
//!
//! The first four colours are those of Okabe and Ito; the others were found by maximising the smallest distance between
//! any two of the fifteen, as seen normally, with deuteranopia and with protanopia. No two are closer than
//! [`LEAST_DISTANCE`] (CIE 1976 L*a*b*), which a test holds them to; markers and dashes tell them apart as well.

use plotters::style::RGBAColor;

/// The smallest CIE 1976 colour difference between two roles, also as a deuteranope or protanope sees them.
pub const LEAST_DISTANCE: f64 = 20.0;

/// An sRGB colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour(pub u8, pub u8, pub u8);

impl Colour {
    /// With an opacity, as plotters wants it.
    pub(crate) fn rgba(self, opacity: f64) -> RGBAColor {
        RGBAColor(self.0, self.1, self.2, opacity)
    }
}

/// What a curve stands for. A role has one ink, everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// REBEL.
    Rebel,
    /// Proximal policy optimisation.
    Ppo,
    /// Direct preference optimisation.
    Dpo,
    /// DPO on pairs drawn from the current policy.
    IterativeDpo,
    /// REINFORCE with leave-one-out baseline, two responses a prompt.
    RlooTwo,
    /// The same with four.
    RlooFour,
    /// REINFORCE.
    Reinforce,
    /// Identity preference optimisation.
    Ipo,
    /// Advantage-induced policy alignment.
    Apa,
    /// Self-play preference optimisation.
    Sppo,
    /// The supervised policy that training starts from.
    Sft,
    /// Responses written by people.
    Human,
    /// What a theorem allows.
    Bound,
    /// What was measured, beside a bound.
    Measured,
    /// A negative control.
    Control,
}

/// The pattern of a line, in multiples of its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dash {
    /// Unbroken.
    Solid,
    /// Long strokes.
    Dashed,
    /// Short strokes.
    Dotted,
}

impl Dash {
    /// Length of stroke and gap in line widths, none for an unbroken line.
    pub(crate) fn lengths(self) -> Option<(f64, f64)> {
        match self {
            Self::Solid => None,
            Self::Dashed => Some((4.5, 2.6)),
            Self::Dotted => Some((1.3, 1.5)),
        }
    }
}

/// The form of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// A disc.
    Circle,
    /// A square.
    Square,
    /// A triangle on its base.
    Up,
    /// A triangle on its tip.
    Down,
    /// A square on its tip.
    Diamond,
    /// An upright cross.
    Plus,
    /// A diagonal cross.
    Cross,
    /// A star of five points.
    Star,
}

impl Marker {
    /// Corners of the marker of radius 1, y downwards; areas are about equal.
    pub(crate) fn outline(self) -> Vec<(f64, f64)> {
        let regular = |corners: usize, radius: f64, first: f64| -> Vec<(f64, f64)> {
            (0..corners)
                .map(|k| {
                    let angle = (first + 360.0 * k as f64 / corners as f64).to_radians();
                    (radius * angle.cos(), radius * angle.sin())
                })
                .collect()
        };
        let turned = |points: Vec<(f64, f64)>| -> Vec<(f64, f64)> {
            let half = std::f64::consts::FRAC_1_SQRT_2;
            points.into_iter().map(|(x, y)| (half * (x - y), half * (x + y))).collect()
        };
        let (long, short) = (1.25, 0.42);
        let plus = vec![
            (-short, -long),
            (short, -long),
            (short, -short),
            (long, -short),
            (long, short),
            (short, short),
            (short, long),
            (-short, long),
            (-short, short),
            (-long, short),
            (-long, -short),
            (-short, -short),
        ];
        match self {
            Self::Circle => regular(32, 1.0, 0.0),
            Self::Square => regular(4, 1.25, 45.0),
            Self::Up => regular(3, 1.4, -90.0),
            Self::Down => regular(3, 1.4, 90.0),
            Self::Diamond => regular(4, 1.3, 0.0),
            Self::Plus => plus,
            Self::Cross => turned(plus),
            Self::Star => (0..10)
                .map(|k| {
                    let angle = (-90.0 + 36.0 * f64::from(k)).to_radians();
                    let radius = if k % 2 == 0 { 1.5 } else { 0.65 };
                    (radius * angle.cos(), radius * angle.sin())
                })
                .collect(),
        }
    }
}

/// Colour, marker and dash together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ink {
    /// Colour.
    pub colour: Colour,
    /// Form of its points.
    pub marker: Marker,
    /// Whether its points are outlines.
    pub hollow: bool,
    /// Pattern of its lines.
    pub dash: Dash,
}

impl Ink {
    /// The same with another line pattern: a second quantity of the same method.
    pub fn dash(self, dash: Dash) -> Self {
        Self { dash, ..self }
    }

    /// The same with outlined points.
    pub fn hollow(self) -> Self {
        Self { hollow: true, ..self }
    }

    /// The same with another marker.
    pub fn marker(self, marker: Marker) -> Self {
        Self { marker, ..self }
    }
}

impl Role {
    /// Every role, in the order of legends.
    pub const ALL: [Self; 15] = [
        Self::Rebel,
        Self::Ppo,
        Self::Dpo,
        Self::IterativeDpo,
        Self::RlooTwo,
        Self::RlooFour,
        Self::Reinforce,
        Self::Ipo,
        Self::Apa,
        Self::Sppo,
        Self::Sft,
        Self::Human,
        Self::Bound,
        Self::Measured,
        Self::Control,
    ];

    /// The name in legends and tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::Rebel => "REBEL",
            Self::Ppo => "PPO",
            Self::Dpo => "DPO",
            Self::IterativeDpo => "iterative DPO",
            Self::RlooTwo => "RLOO k = 2",
            Self::RlooFour => "RLOO k = 4",
            Self::Reinforce => "REINFORCE",
            Self::Ipo => "IPO",
            Self::Apa => "APA",
            Self::Sppo => "SPPO",
            Self::Sft => "SFT",
            Self::Human => "human reference",
            Self::Bound => "bound",
            Self::Measured => "measured",
            Self::Control => "control",
        }
    }

    /// The method whose training a run's stage of this name is, if it is one.
    pub fn from_stage(stage: &str) -> Option<Self> {
        Some(match stage {
            "rebel" => Self::Rebel,
            "ppo" => Self::Ppo,
            "dpo" => Self::Dpo,
            "iterative-dpo" => Self::IterativeDpo,
            "rloo" | "rloo-2" => Self::RlooTwo,
            "rloo-4" => Self::RlooFour,
            "reinforce" => Self::Reinforce,
            "ipo" => Self::Ipo,
            "apa" => Self::Apa,
            "sppo" => Self::Sppo,
            _ => return None,
        })
    }

    /// Its ink.
    pub fn ink(self) -> Ink {
        use Dash::{Dashed, Dotted, Solid};
        use Marker::{Circle, Cross, Diamond, Down, Plus, Square, Star, Up};
        let (rgb, marker, dash) = match self {
            Self::Rebel => (0x0072b2, Circle, Solid),
            Self::Ppo => (0xd55e00, Square, Solid),
            Self::Dpo => (0x009e73, Up, Solid),
            Self::IterativeDpo => (0x92cb58, Down, Solid),
            Self::RlooTwo => (0x3cd486, Diamond, Solid),
            Self::RlooFour => (0x000035, Diamond, Dashed),
            Self::Reinforce => (0x3284fa, Cross, Solid),
            Self::Ipo => (0x432000, Plus, Solid),
            Self::Apa => (0x46cec6, Star, Solid),
            Self::Sppo => (0x6ec3ff, Star, Dashed),
            Self::Sft => (0x474747, Square, Dotted),
            Self::Human => (0x002087, Star, Dashed),
            Self::Bound => (0x000000, Plus, Dashed),
            Self::Measured => (0x0d8593, Circle, Solid),
            Self::Control => (0x90522b, Cross, Dotted),
        };
        let [_, red, green, blue] = u32::to_be_bytes(rgb);
        Ink { colour: Colour(red, green, blue), marker, hollow: false, dash }
    }
}

impl From<Role> for Ink {
    fn from(role: Role) -> Self {
        role.ink()
    }
}

/// Sizes. A logical unit is 1/480 of a column: with 3.3 inches (238 points) it is 0.495 points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Theme {
    /// Factor of the drawing canvas, against plotters' whole-number coordinates.
    pub canvas: u32,
    /// Pixels of a PNG for one logical unit: 3 gives 436 dots an inch at column width.
    pub png: f64,
    /// Width of a figure of one panel.
    pub column: f64,
    /// Width of a figure of several panels in a row: two columns and the gap between them.
    pub page: f64,
    /// Height of the area between the axes of a single panel.
    pub height: f64,
    /// Numbers at ticks, legends, names of levels.
    pub small: f64,
    /// Axis labels.
    pub label: f64,
    /// Panel titles.
    pub title: f64,
    /// The note under a figure.
    pub note: f64,
    /// White around everything.
    pub margin: f64,
    /// Axes and ticks.
    pub axis: Colour,
    /// Lines behind the data.
    pub grid: Colour,
}

/// The one theme: tick numbers are 6.7 points and labels 7.2 points at column width.
pub const THEME: Theme = Theme {
    canvas: 8,
    png: 3.0,
    column: 480.0,
    page: 984.0,
    height: 230.0,
    small: 13.5,
    label: 14.5,
    title: 15.0,
    note: 12.0,
    margin: 8.0,
    axis: Colour(0x33, 0x33, 0x33),
    grid: Colour(0xe6, 0xe6, 0xe6),
};

#[cfg(test)]
mod tests {
    use super::*;

    type Matrix = [[f64; 3]; 3];
    // Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
    const NORMAL: Matrix = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    const DEUTERANOPIA: Matrix =
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]];
    const PROTANOPIA: Matrix =
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]];

    fn product(m: &Matrix, v: [f64; 3]) -> [f64; 3] {
        m.map(|row| row[0] * v[0] + row[1] * v[1] + row[2] * v[2])
    }

    fn lab(colour: Colour, eye: &Matrix) -> [f64; 3] {
        let linear = [colour.0, colour.1, colour.2].map(|c| {
            let c = f64::from(c) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        });
        let seen = product(eye, linear).map(|c| c.clamp(0.0, 1.0));
        let xyz: Matrix =
            [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]];
        let [x, y, z] = product(&xyz, seen);
        let f = |t: f64| if t > 0.008856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 };
        let (x, y, z) = (f(x / 0.95047), f(y), f(z / 1.08883));
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    fn distance(a: Role, b: Role, eye: &Matrix) -> f64 {
        let (a, b) = (lab(a.ink().colour, eye), lab(b.ink().colour, eye));
        a.iter().zip(b).map(|(p, q)| (p - q).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn colours_stay_apart_under_deuteranopia_and_protanopia() {
        for (name, eye) in [("normal", &NORMAL), ("deuteranopia", &DEUTERANOPIA), ("protanopia", &PROTANOPIA)] {
            for (i, &a) in Role::ALL.iter().enumerate() {
                for &b in &Role::ALL[..i] {
                    let apart = distance(a, b, eye);
                    assert!(apart >= LEAST_DISTANCE, "{name}: {a:?} and {b:?} are {apart:.1} apart");
                }
            }
        }
    }

    #[test]
    fn the_distance_sees_a_confusable_pair() {
        // Red and green of equal lightness: far apart normally, close for a deuteranope.
        let apart = |eye| {
            let (a, b) = (lab(Colour(200, 90, 60), eye), lab(Colour(120, 130, 40), eye));
            a.iter().zip(b).map(|(p, q)| (p - q).powi(2)).sum::<f64>().sqrt()
        };
        assert!(apart(&NORMAL) > 40.0 && apart(&DEUTERANOPIA) < LEAST_DISTANCE);
    }

    #[test]
    fn every_colour_shows_on_white() {
        for role in Role::ALL {
            let lightness = lab(role.ink().colour, &NORMAL)[0];
            assert!(lightness < 78.0, "{role:?} has lightness {lightness:.0}");
        }
    }

    #[test]
    fn no_two_roles_share_an_ink() {
        for (i, a) in Role::ALL.iter().enumerate() {
            for b in &Role::ALL[..i] {
                assert_ne!(
                    (a.ink().marker, a.ink().dash, a.ink().colour),
                    (b.ink().marker, b.ink().dash, b.ink().colour)
                );
                assert_ne!(a.label(), b.label());
            }
        }
    }

    #[test]
    fn text_is_at_least_five_and_a_half_points_at_column_width() {
        let point = 3.3 * 72.0 / THEME.column;
        for size in [THEME.small, THEME.label, THEME.title, THEME.note] {
            assert!(size * point >= 5.5, "{size} is {} points", size * point);
        }
    }
}
