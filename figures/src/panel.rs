//! What lies between the axes of one panel: grid, levels, layers, and their clipping to the frame.

use crate::canvas::{Align, CAPITAL, Canvas, Letters, Spot};
use crate::chart::{Layer, Plot, Shape};
use crate::layout::letters;
use crate::scale::{Scale, Tick};
use crate::style::{Dash, THEME};

/// The rectangle between the axes, and the values at its edges.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
    pub x: (f64, f64),
    pub y: (f64, f64),
    pub scales: [Scale; 2],
}

/// Radius of a marker.
pub(crate) const RADIUS: f64 = 4.2;
/// Opacity of a band: two overlapping ones can still be told apart.
pub(crate) const BAND: f64 = 0.2;
const LEVEL: f64 = 1.6;

fn fraction(scale: Scale, range: (f64, f64), value: f64) -> f64 {
    let (low, high) = (scale.position(range.0), scale.position(range.1));
    // far outside is as good as infinitely far, and can be clipped
    ((scale.position(value) - low) / (high - low)).clamp(-1e3, 1e3)
}

impl Frame {
    /// Horizontal place of a value.
    pub fn place_x(&self, value: f64) -> f64 {
        self.left + fraction(self.scales[0], self.x, value) * (self.right - self.left)
    }

    /// Vertical place of a value.
    pub fn place_y(&self, value: f64) -> f64 {
        self.bottom - fraction(self.scales[1], self.y, value) * (self.bottom - self.top)
    }

    /// Place of a point, inside the frame or not.
    pub fn place(&self, (x, y): (f64, f64)) -> Spot {
        (self.place_x(x), self.place_y(y))
    }

    /// Whether a place is inside, the edges included.
    pub fn contains(&self, (x, y): Spot) -> bool {
        let slack = 1e-6;
        (self.left - slack..=self.right + slack).contains(&x) && (self.top - slack..=self.bottom + slack).contains(&y)
    }

    /// The part of a segment that is inside the frame (Liang and Barsky 1984), if any.
    pub fn clip(&self, from: Spot, to: Spot) -> Option<(Spot, Spot)> {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let (mut enter, mut leave) = (0.0f64, 1.0f64);
        let edges = [
            (-dx, from.0 - self.left),
            (dx, self.right - from.0),
            (-dy, from.1 - self.top),
            (dy, self.bottom - from.1),
        ];
        for (outwards, distance) in edges {
            if outwards == 0.0 {
                if distance < 0.0 {
                    return None;
                }
            } else if outwards < 0.0 {
                enter = enter.max(distance / outwards);
            } else {
                leave = leave.min(distance / outwards);
            }
        }
        let at = |t: f64| (from.0 + t * dx, from.1 + t * dy);
        // an end that is inside stays exactly what it is, so that the next segment is seen to go on from it
        (enter <= leave).then(|| (at(enter), if leave == 1.0 { to } else { at(leave) }))
    }

    /// The pieces of a polyline that are inside.
    pub fn clip_line(&self, points: &[Spot]) -> Vec<Vec<Spot>> {
        let mut pieces: Vec<Vec<Spot>> = Vec::new();
        for pair in points.windows(2) {
            let Some((from, to)) = self.clip(pair[0], pair[1]) else { continue };
            match pieces.last_mut() {
                Some(piece) if piece.last() == Some(&from) => piece.push(to),
                _ => pieces.push(vec![from, to]),
            }
        }
        pieces
    }

    fn inside(&self, (x, y): Spot) -> Spot {
        (x.clamp(self.left, self.right), y.clamp(self.top, self.bottom))
    }
}

/// The outline of a band, cut at the frame's upper and lower edges.
pub(crate) fn band_outline(frame: &Frame, points: &[(f64, f64, f64)]) -> Vec<Spot> {
    let low = points.iter().map(|&(x, low, _)| frame.inside(frame.place((x, low))));
    let high = points.iter().rev().map(|&(x, _, high)| frame.inside(frame.place((x, high))));
    low.chain(high).collect()
}

/// Lines at the numbered ticks.
pub(crate) fn draw_grid(canvas: &Canvas, frame: &Frame, ticks: &[Vec<Tick>; 2]) {
    for tick in ticks[0].iter().filter(|t| !t.text.is_empty()) {
        let x = frame.place_x(tick.value);
        canvas.line(&[(x, frame.top), (x, frame.bottom)], THEME.grid, 0.9, Dash::Solid, 1.0);
    }
    for tick in ticks[1].iter().filter(|t| !t.text.is_empty()) {
        let y = frame.place_y(tick.value);
        canvas.line(&[(frame.left, y), (frame.right, y)], THEME.grid, 0.9, Dash::Solid, 1.0);
    }
}

/// The left and lower axis lines and their ticks, on top of the data.
pub(crate) fn draw_axes(canvas: &Canvas, frame: &Frame, ticks: &[Vec<Tick>; 2], length: f64) {
    let corner = [(frame.left, frame.top), (frame.left, frame.bottom), (frame.right, frame.bottom)];
    canvas.line(&corner, THEME.axis, 1.1, Dash::Solid, 1.0);
    let long = |tick: &Tick| if tick.text.is_empty() { 0.6 * length } else { length };
    for tick in &ticks[0] {
        let x = frame.place_x(tick.value);
        canvas.line(&[(x, frame.bottom), (x, frame.bottom + long(tick))], THEME.axis, 1.1, Dash::Solid, 1.0);
    }
    for tick in &ticks[1] {
        let y = frame.place_y(tick.value);
        canvas.line(&[(frame.left - long(tick), y), (frame.left, y)], THEME.axis, 1.1, Dash::Solid, 1.0);
    }
}

/// The lines of a level's name.
pub(crate) fn level_lines(label: &str) -> impl Iterator<Item = &str> {
    label.split('\n')
}

/// Horizontal lines, and their names to the right of the frame, pushed apart where they would overlap.
pub(crate) fn draw_levels(canvas: &Canvas, plot: &Plot, frame: &Frame) {
    let line_height = THEME.small * 1.15;
    let mut names: Vec<(f64, usize)> = Vec::new();
    for (i, level) in plot.levels.iter().enumerate() {
        let y = frame.place_y(level.y);
        if frame.contains((frame.left, y)) {
            canvas.line(&[(frame.left, y), (frame.right, y)], level.ink.colour, LEVEL, level.ink.dash, 1.0);
            names.push((y, i));
        }
    }
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let heights: Vec<f64> =
        names.iter().map(|n| level_lines(&plot.levels[n.1].label).count() as f64 * line_height).collect();
    let wanted: Vec<f64> = names.iter().map(|n| n.0).collect();
    for ((middle, &(_, i)), height) in
        apart(&wanted, &heights, frame.top, frame.bottom).into_iter().zip(&names).zip(&heights)
    {
        let level = &plot.levels[i];
        let text = Letters { colour: level.ink.colour, ..letters(THEME.small) };
        for (k, line) in level_lines(&level.label).enumerate() {
            let centre = middle - 0.5 * height + (k as f64 + 0.5) * line_height;
            canvas.text(line, (frame.right + 6.0, centre + 0.5 * CAPITAL * THEME.small), Align::Left, text);
        }
    }
}

/// Centres as near to the wanted ones (ascending) as non-overlapping boxes of these heights allow, kept between the
/// frame's edges as far as they fit.
pub(crate) fn apart(wanted: &[f64], heights: &[f64], top: f64, bottom: f64) -> Vec<f64> {
    let mut centres: Vec<f64> = wanted.to_vec();
    let mut edge = top - heights.first().map_or(0.0, |h| 0.5 * h);
    for (centre, height) in centres.iter_mut().zip(heights) {
        *centre = centre.max(edge + 0.5 * height);
        edge = *centre + 0.5 * height;
    }
    let mut edge = bottom + heights.last().map_or(0.0, |h| 0.5 * h);
    for (centre, height) in centres.iter_mut().zip(heights).rev() {
        *centre = centre.min(edge - 0.5 * height);
        edge = *centre - 0.5 * height;
    }
    centres
}

/// Bands first, then lines and points in their order.
pub(crate) fn draw_layers(canvas: &Canvas, plot: &Plot, frame: &Frame) {
    let is_band = |layer: &&Layer| matches!(layer.shape, Shape::Band { .. });
    let bands = plot.layers.iter().filter(is_band);
    for layer in bands.chain(plot.layers.iter().filter(|layer| !is_band(layer))) {
        draw_layer(canvas, layer, frame);
    }
}

fn draw_layer(canvas: &Canvas, layer: &Layer, frame: &Frame) {
    let ink = layer.ink;
    let mark = |points: &[(f64, f64)]| {
        for spot in points.iter().map(|&p| frame.place(p)).filter(|&s| frame.contains(s)) {
            canvas.marker(spot, ink.marker, RADIUS, ink.colour, ink.hollow);
        }
    };
    match &layer.shape {
        Shape::Line { points, width, opacity, markers } => {
            let spots: Vec<Spot> = points.iter().map(|&p| frame.place(p)).collect();
            for piece in frame.clip_line(&spots) {
                canvas.line(&piece, ink.colour, *width, ink.dash, *opacity);
            }
            if *markers {
                mark(points);
            }
        }
        Shape::Band { points } => canvas.polygon(&band_outline(frame, points), ink.colour, BAND),
        Shape::Points { points } => mark(points),
        Shape::Bars { bars } => {
            for bar in bars {
                let ends = [((bar.x.0, bar.at.1), (bar.x.1, bar.at.1)), ((bar.at.0, bar.y.0), (bar.at.0, bar.y.1))];
                for (from, to) in ends {
                    if let Some((from, to)) = frame.clip(frame.place(from), frame.place(to)) {
                        canvas.line(&[from, to], ink.colour, 1.2, Dash::Solid, 0.65);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> Frame {
        let scales = [Scale::Linear, Scale::Linear];
        Frame { left: 0.0, right: 10.0, top: 0.0, bottom: 10.0, x: (0.0, 1.0), y: (0.0, 1.0), scales }
    }

    #[test]
    fn values_at_the_ranges_ends_lie_on_the_edges() {
        assert_eq!(unit().place((0.0, 0.0)), (0.0, 10.0));
        assert_eq!(unit().place((1.0, 1.0)), (10.0, 0.0));
        let log = Frame { scales: [Scale::Log, Scale::Linear], x: (1.0, 100.0), ..unit() };
        assert!((log.place_x(10.0) - 5.0).abs() < 1e-12);
    }

    #[test]
    fn a_clipped_line_stays_inside_and_keeps_its_inner_points() {
        let pieces = unit().clip_line(&[(-5.0, 5.0), (5.0, 5.0), (5.0, 20.0), (8.0, 20.0), (8.0, 5.0)]);
        assert_eq!(pieces, [vec![(0.0, 5.0), (5.0, 5.0), (5.0, 10.0)], vec![(8.0, 10.0), (8.0, 5.0)]]);
        assert_eq!(unit().clip((-1.0, 0.0), (-1.0, 9.0)), None);
    }

    #[test]
    fn a_line_inside_the_frame_is_one_piece_and_unchanged() {
        let spots: Vec<Spot> = (0..50).map(|k| (0.1 + 0.197 * f64::from(k), 5.0 + 4.9 * f64::from(k).sin())).collect();
        assert_eq!(unit().clip_line(&spots), [spots]);
    }

    #[test]
    fn names_of_close_levels_are_pushed_apart_and_kept_in_the_frame() {
        let centres = apart(&[5.0, 5.5, 99.0], &[10.0, 10.0, 10.0], 0.0, 100.0);
        assert_eq!(centres, [5.0, 15.0, 99.0]);
        let low = apart(&[97.0, 98.0], &[10.0, 10.0], 0.0, 100.0);
        assert!(low[1] - low[0] >= 10.0 && low[1] <= 100.0, "{low:?}");
    }
}
