//! The legend: in a corner of the axes where it covers no data, or in rows above them.

use crate::canvas::{Align, CAPITAL, Canvas, Spot, text_width};
use crate::chart::{Layer, Legend, Plot, Shape};
use crate::layout::letters;
use crate::panel::{BAND, Frame, RADIUS, band_outline};
use crate::style::{Colour, Ink, THEME};

/// A legend whose place is known, relative to the frame's top left corner.
#[derive(Debug, Clone, Default)]
pub(crate) struct Placed {
    entries: Vec<Entry>,
    /// The white ground of a legend among the axes: its corner and its size.
    ground: Option<(Spot, Spot)>,
    above: f64,
}

#[derive(Debug, Clone)]
struct Entry {
    at: Spot,
    ink: Ink,
    label: String,
    sample: Sample,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Sample {
    Line,
    MarkedLine,
    Point,
    Band,
}

const SAMPLE: f64 = 30.0; // length of the piece of line in front of a name
const PAD: f64 = 6.0;
const AWAY: f64 = 6.0; // a legend among the axes keeps this far from them
const CLEAR: f64 = RADIUS + 3.0; // and the data this far from the legend

fn line_height() -> f64 {
    THEME.small * 1.4
}

fn entry_width(label: &str) -> f64 {
    SAMPLE + PAD + text_width(label, letters(THEME.small))
}

impl Placed {
    /// Height taken between title and axes.
    pub fn height_above(&self) -> f64 {
        self.above
    }
}

/// Finds the place of a plot's legend, for axes of this width and height.
pub(crate) fn place(plot: &Plot, ranges: [(f64, f64); 2], (width, height): (f64, f64)) -> Placed {
    let layers = plot.entries();
    if layers.is_empty() {
        return Placed::default();
    }
    let scales = [plot.x.scale, plot.y.scale];
    let frame = Frame { left: 0.0, right: width, top: 0.0, bottom: height, x: ranges[0], y: ranges[1], scales };
    if plot.legend == Legend::Auto {
        let widest = layers.iter().filter_map(|l| l.label.as_deref()).map(entry_width).fold(0.0, f64::max);
        let size = (widest + 2.0 * PAD, layers.len() as f64 * line_height() + PAD);
        let room = (width - size.0 - 2.0 * AWAY, height - size.1 - 2.0 * AWAY);
        let at = |&(x, y): &Spot| (AWAY + x * room.0, AWAY + y * room.1);
        let fits = room.0 >= 0.0 && room.1 >= 0.0;
        if let Some(corner) = spots().iter().map(at).find(|&corner| fits && is_free(plot, &frame, corner, size)) {
            let at = |i: usize| (corner.0 + PAD, corner.1 + 0.5 * PAD + i as f64 * line_height());
            let entries = layers.iter().enumerate().map(|(i, layer)| entry(layer, at(i))).collect();
            return Placed { entries, ground: Some((corner, size)), above: 0.0 };
        }
    }
    above(&layers, width)
}

/// Places to try among the axes, as fractions of the room there is: the corners, then along the sides, then along the
/// upper and the lower edge.
fn spots() -> Vec<Spot> {
    let between = (1..10).map(|k| f64::from(k) / 10.0);
    let mut spots = vec![(1.0, 0.0), (0.0, 0.0), (1.0, 1.0), (0.0, 1.0)];
    spots.extend(between.clone().flat_map(|y| [(1.0, y), (0.0, y)]));
    spots.extend(between.flat_map(|x| [(1.0 - x, 0.0), (1.0 - x, 1.0)]));
    spots
}

/// Rows of entries above the axes.
fn above(layers: &[&Layer], width: f64) -> Placed {
    let mut rows: Vec<Vec<Entry>> = vec![Vec::new()];
    let mut x = 0.0;
    for layer in layers {
        let wide = entry_width(layer.label.as_deref().unwrap_or_default());
        if x > 0.0 && x + wide > width {
            rows.push(Vec::new());
            x = 0.0;
        }
        let row = rows.len() - 1;
        rows[row].push(entry(layer, (x, row as f64 * line_height())));
        x += wide + 2.5 * PAD;
    }
    let above = rows.len() as f64 * line_height() + PAD;
    let mut entries: Vec<Entry> = rows.into_iter().flatten().collect();
    for entry in &mut entries {
        entry.at.1 -= above;
    }
    Placed { entries, ground: None, above }
}

fn entry(layer: &Layer, at: Spot) -> Entry {
    let sample = match layer.shape {
        Shape::Line { markers: true, .. } => Sample::MarkedLine,
        Shape::Line { .. } => Sample::Line,
        Shape::Band { .. } => Sample::Band,
        Shape::Points { .. } | Shape::Bars { .. } => Sample::Point,
    };
    Entry { at, ink: layer.ink, label: layer.label.clone().unwrap_or_default(), sample }
}

/// Whether no data and no level lie in or near the box.
fn is_free(plot: &Plot, frame: &Frame, (x, y): Spot, (width, height): Spot) -> bool {
    let covered =
        Frame { left: x - CLEAR, right: x + width + CLEAR, top: y - CLEAR, bottom: y + height + CLEAR, ..*frame };
    let crosses = |spots: &[Spot]| {
        spots.windows(2).any(|s| covered.clip(s[0], s[1]).is_some()) || spots.iter().any(|&s| covered.contains(s))
    };
    let level = |y: f64| crosses(&[(frame.left, frame.place_y(y)), (frame.right, frame.place_y(y))]);
    let layer = |layer: &Layer| match &layer.shape {
        Shape::Line { points, .. } => {
            let spots: Vec<Spot> = points.iter().map(|&p| frame.place(p)).collect();
            frame.clip_line(&spots).iter().any(|piece| crosses(piece))
        }
        Shape::Points { points } => points.iter().any(|&p| covered.contains(frame.place(p))),
        Shape::Band { points } => {
            let outline = band_outline(frame, points);
            let upright =
                points.iter().any(|&(x, low, high)| crosses(&[frame.place((x, low)), frame.place((x, high))]));
            crosses(&outline) || upright
        }
        Shape::Bars { bars } => bars.iter().any(|b| {
            crosses(&[frame.place((b.x.0, b.at.1)), frame.place((b.x.1, b.at.1))])
                || crosses(&[frame.place((b.at.0, b.y.0)), frame.place((b.at.0, b.y.1))])
        }),
    };
    !plot.levels.iter().any(|l| level(l.y)) && !plot.layers.iter().any(layer)
}

/// Draws it.
pub(crate) fn draw(canvas: &Canvas, placed: &Placed, frame: &Frame) {
    let origin = (frame.left, frame.top);
    if let Some(((x, y), (width, height))) = placed.ground {
        let from = (origin.0 + x, origin.1 + y);
        canvas.rectangle(from, (from.0 + width, from.1 + height), Colour(255, 255, 255), 0.85);
    }
    for Entry { at, ink, label, sample } in &placed.entries {
        let (x, middle) = (origin.0 + at.0, origin.1 + at.1 + 0.5 * line_height());
        if *sample == Sample::Band {
            let corner = (x + SAMPLE, middle + 0.3 * line_height());
            canvas.rectangle((x, middle - 0.3 * line_height()), corner, ink.colour, 1.5 * BAND);
        }
        if matches!(sample, Sample::Line | Sample::MarkedLine) {
            canvas.line(&[(x, middle), (x + SAMPLE, middle)], ink.colour, 2.2, ink.dash, 1.0);
        }
        if matches!(sample, Sample::Point | Sample::MarkedLine) {
            canvas.marker((x + 0.5 * SAMPLE, middle), ink.marker, RADIUS, ink.colour, ink.hollow);
        }
        let baseline = middle + 0.5 * CAPITAL * THEME.small;
        canvas.text(label, (x + SAMPLE + PAD, baseline), Align::Left, letters(THEME.small));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::style::Role;

    fn place_of(points: &[(f64, f64)]) -> Placed {
        let plot = Plot::new("x", "y").line(Role::Rebel, "REBEL", points).x_range(0.0, 1.0).y_range(0.0, 1.0);
        place(&plot, plot.ranges().unwrap(), (400.0, 200.0))
    }

    #[test]
    fn legend_takes_the_first_corner_without_data() {
        let falling = place_of(&[(0.0, 1.0), (1.0, 0.0)]);
        let corner = falling.ground.expect("two corners are free").0;
        assert!(corner.0 > 200.0 && corner.1 < 100.0, "upper right, not {corner:?}");
        let rising = place_of(&[(0.0, 0.0), (1.0, 1.0)]);
        let corner = rising.ground.expect("two corners are free").0;
        assert!(corner.0 < 200.0 && corner.1 < 100.0, "upper left, not {corner:?}");
    }

    #[test]
    fn legend_leaves_axes_that_are_full_of_data() {
        let zigzag: Vec<(f64, f64)> = (0..40).map(|k| (f64::from(k) / 39.0, f64::from(k % 2))).collect();
        let placed = place_of(&zigzag);
        assert!(placed.ground.is_none() && placed.height_above() > 0.0);
        assert!(placed.entries[0].at.1 < 0.0, "above the frame's top");
    }
}
