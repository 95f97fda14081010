//! One panel: axes, lines with bands, points, levels, and what a legend says about them.
//!
//! ```
//! use rebel_figures::{Figure, Role};
//! let kl: Vec<(f64, f64)> = (1..=20).map(|t| (f64::from(t), (1.0 + f64::from(t)).ln())).collect();
//! let figure = Figure::line_plot("iteration", "KL to reference (nats)")
//!     .title("KL grows with the logarithm of the iteration")
//!     .line(Role::Rebel, "REBEL", &kl)
//!     .draw()?;
//! assert!(figure.svg().starts_with("<svg"));
//! # Ok::<(), rebel_figures::Error>(())
//! ```

use crate::error::{Error, Result};
use crate::layout::Sheet;
use crate::render::Figure;
use crate::scale::{Axis, Scale};
use crate::style::Ink;

/// An interval around a point, for one or both coordinates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Where the point is.
    pub at: (f64, f64),
    /// Lower and upper end in x.
    pub x: (f64, f64),
    /// Lower and upper end in y.
    pub y: (f64, f64),
}

/// What is drawn between the axes. Later layers lie on top.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// A polyline, with markers at its points if asked for.
    Line { points: Vec<(f64, f64)>, width: f64, opacity: f64, markers: bool },
    /// A filled region between two curves over the same abscissae: `(x, low, high)`.
    Band { points: Vec<(f64, f64, f64)> },
    /// Markers alone.
    Points { points: Vec<(f64, f64)> },
    /// Error bars.
    Bars { bars: Vec<Interval> },
}

/// One shape in one ink, named in the legend if it has a label.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub ink: Ink,
    pub label: Option<String>,
    pub shape: Shape,
}

/// A horizontal line across the panel whose name stands beside it, outside the axes.
#[derive(Debug, Clone)]
pub(crate) struct Level {
    pub ink: Ink,
    pub y: f64,
    pub label: String,
}

/// Where the legend goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Legend {
    /// In the first corner, or else place along the edges, where it covers no data; above the axes if there is none.
    Auto,
    /// In rows between the title and the axes.
    Above,
}

/// A panel in the making; [`Plot::draw`] makes it a figure of column width, [`Sheet`] puts several on one sheet.
#[derive(Debug, Clone)]
pub struct Plot {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) layers: Vec<Layer>,
    pub(crate) levels: Vec<Level>,
    pub(crate) legend: Legend,
    pub(crate) note: String,
}

const LINE: f64 = 2.2;
const FAINT: f64 = 1.1;

impl Plot {
    /// An empty panel with labelled linear axes.
    pub fn new(x_label: &str, y_label: &str) -> Self {
        Self {
            title: String::new(),
            x: Axis::new(x_label),
            y: Axis::new(y_label),
            layers: Vec::new(),
            levels: Vec::new(),
            legend: Legend::Auto,
            note: String::new(),
        }
    }

    /// Sets the panel's title: a statement or the quantity, in a few words.
    pub fn title(mut self, title: &str) -> Self {
        self.title = title.into();
        self
    }

    /// Sets the line under a figure of one panel that says where the numbers come from.
    pub fn note(mut self, note: &str) -> Self {
        self.note = note.into();
        self
    }

    /// Makes the x axis logarithmic.
    pub fn log_x(mut self) -> Self {
        self.x.scale = Scale::Log;
        self
    }

    /// Makes the y axis logarithmic.
    pub fn log_y(mut self) -> Self {
        self.y.scale = Scale::Log;
        self
    }

    /// Shows exactly `low..high` in x; what lies outside is clipped.
    pub fn x_range(mut self, low: f64, high: f64) -> Self {
        self.x.range = Some((low, high));
        self
    }

    /// Shows exactly `low..high` in y; what lies outside is clipped.
    pub fn y_range(mut self, low: f64, high: f64) -> Self {
        self.y.range = Some((low, high));
        self
    }

    /// Extends the y axis, if need be, so that `value` is on it.
    pub fn y_includes(mut self, value: f64) -> Self {
        self.y.includes.push(value);
        self
    }

    /// Puts the legend above the axes even if a corner is free.
    pub fn legend_above(mut self) -> Self {
        self.legend = Legend::Above;
        self
    }

    /// A line through `points`, in their order.
    pub fn line(self, ink: impl Into<Ink>, label: &str, points: &[(f64, f64)]) -> Self {
        let shape = Shape::Line { points: points.to_vec(), width: LINE, opacity: 1.0, markers: false };
        self.layer(ink.into(), Some(label), shape)
    }

    /// A line through `points` with the ink's marker at each of them.
    pub fn marked_line(self, ink: impl Into<Ink>, label: &str, points: &[(f64, f64)]) -> Self {
        let shape = Shape::Line { points: points.to_vec(), width: LINE, opacity: 1.0, markers: true };
        self.layer(ink.into(), Some(label), shape)
    }

    /// A thin pale line without a name in the legend: one seed behind its mean.
    pub fn faint_line(self, ink: impl Into<Ink>, points: &[(f64, f64)]) -> Self {
        let shape = Shape::Line { points: points.to_vec(), width: FAINT, opacity: 0.4, markers: false };
        self.layer(ink.into(), None, shape)
    }

    /// A pale region between two curves: `(x, low, high)`.
    pub fn band(self, ink: impl Into<Ink>, points: &[(f64, f64, f64)]) -> Self {
        self.layer(ink.into(), None, Shape::Band { points: points.to_vec() })
    }

    /// A pale region with a name of its own in the legend.
    pub fn named_band(self, ink: impl Into<Ink>, label: &str, points: &[(f64, f64, f64)]) -> Self {
        self.layer(ink.into(), Some(label), Shape::Band { points: points.to_vec() })
    }

    /// The ink's marker at each point.
    pub fn points(self, ink: impl Into<Ink>, label: &str, points: &[(f64, f64)]) -> Self {
        self.layer(ink.into(), Some(label), Shape::Points { points: points.to_vec() })
    }

    /// Error bars, without markers.
    pub fn bars(self, ink: impl Into<Ink>, bars: &[Interval]) -> Self {
        self.layer(ink.into(), None, Shape::Bars { bars: bars.to_vec() })
    }

    /// A horizontal line named beside the axes.
    pub fn level(mut self, ink: impl Into<Ink>, y: f64, label: &str) -> Self {
        self.levels.push(Level { ink: ink.into(), y, label: label.into() });
        self
    }

    /// Draws this panel alone, at column width.
    ///
    /// # Errors
    /// No finite point, a point that is not positive on a logarithmic axis, or an empty range.
    pub fn draw(self) -> Result<Figure> {
        let note = self.note.clone();
        Sheet::row(vec![self]).note(&note).draw()
    }

    fn layer(mut self, ink: Ink, label: Option<&str>, shape: Shape) -> Self {
        self.layers.push(Layer { ink, label: label.filter(|l| !l.is_empty()).map(Into::into), shape });
        self
    }

    /// Both axes' ranges, from the data, the levels and what was asked to be included.
    pub(crate) fn ranges(&self) -> Result<[(f64, f64); 2]> {
        let (mut xs, mut ys) = (Vec::new(), Vec::new());
        for layer in &self.layers {
            layer.shape.coordinates(&mut xs, &mut ys);
        }
        ys.extend(self.levels.iter().map(|level| level.y));
        let range = |axis: &Axis, values: &[f64]| {
            axis.range_of(values).map_err(|what| Error::Data { figure: self.name().into(), what })
        };
        Ok([range(&self.x, &xs)?, range(&self.y, &ys)?])
    }

    /// The title, or what stands in for one.
    pub(crate) fn name(&self) -> &str {
        if self.title.is_empty() { &self.y.label } else { &self.title }
    }

    /// The legend's entries: the first layer of each label.
    pub(crate) fn entries(&self) -> Vec<&Layer> {
        let mut entries: Vec<&Layer> = Vec::new();
        for layer in self.layers.iter().filter(|layer| layer.label.is_some()) {
            if entries.iter().all(|entry| entry.label != layer.label) {
                entries.push(layer);
            }
        }
        entries
    }
}

impl Shape {
    fn coordinates(&self, xs: &mut Vec<f64>, ys: &mut Vec<f64>) {
        match self {
            Self::Line { points, .. } | Self::Points { points } => {
                xs.extend(points.iter().map(|p| p.0));
                ys.extend(points.iter().map(|p| p.1));
            }
            Self::Band { points } => {
                xs.extend(points.iter().map(|p| p.0));
                ys.extend(points.iter().flat_map(|p| [p.1, p.2]));
            }
            Self::Bars { bars } => {
                xs.extend(bars.iter().flat_map(|b| [b.at.0, b.x.0, b.x.1]));
                ys.extend(bars.iter().flat_map(|b| [b.at.1, b.y.0, b.y.1]));
            }
        }
    }
}
