//! Panels on a sheet: margins found from the text that must fit in them, frames aligned in rows and columns, titles, a
//! note that says where the numbers come from.

use crate::canvas::{Align, CAPITAL, Canvas, Letters, text_width};
use crate::chart::Plot;
use crate::error::{Error, Result};
use crate::legend::{self, Placed};
use crate::panel::{self, Frame};
use crate::render::Figure;
use crate::scale::Tick;
use crate::style::{Colour, THEME};

/// Several panels on one sheet.
#[derive(Debug, Clone)]
pub struct Sheet {
    rows: Vec<Vec<Plot>>,
    title: String,
    note: String,
}

/// Lengths around the axes of one panel.
#[derive(Debug, Clone, Copy, Default)]
struct Margins {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// A panel with everything decided but its place.
struct Prepared<'a> {
    plot: &'a Plot,
    ranges: [(f64, f64); 2],
    ticks: [Vec<Tick>; 2],
    margins: Margins,
    legend: Placed,
}

const TICK: f64 = 5.0; // length of a tick
const GAP: f64 = 5.0; // between a tick and its number, a number and the axis label
const BETWEEN: f64 = 16.0; // between panels

/// Ordinary letters of one of the theme's sizes.
pub(crate) fn letters(size: f64) -> Letters {
    Letters { size, bold: false, colour: THEME.axis }
}

impl Sheet {
    /// Panels side by side; one alone has column width, several share the width of a page.
    pub fn row(panels: Vec<Plot>) -> Self {
        Self::grid(vec![panels])
    }

    /// Rows of panels, from top to bottom.
    pub fn grid(rows: Vec<Vec<Plot>>) -> Self {
        Self { rows, title: String::new(), note: String::new() }
    }

    /// Sets the figure's title; it also describes the figure to readers that show no pictures.
    pub fn title(mut self, title: &str) -> Self {
        self.title = title.into();
        self
    }

    /// Sets the text under the panels: where the numbers come from, what an interval is.
    pub fn note(mut self, note: &str) -> Self {
        self.note = note.into();
        self
    }

    /// Draws the sheet.
    ///
    /// # Errors
    /// A panel whose data cannot be put on its axes; no panel at all.
    pub fn draw(self) -> Result<Figure> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        if columns == 0 {
            return Err(Error::Data { figure: self.title, what: "there is no panel".into() });
        }
        let width = if columns == 1 { THEME.column } else { THEME.page };
        let inner = width - 2.0 * THEME.margin - BETWEEN * (columns - 1) as f64;
        let cell = inner / columns as f64;
        // two panels of a page are as high as one alone; three or four are narrower and so a little lower
        let height = if columns > 2 { 0.9 * THEME.height } else { THEME.height };

        let mut rows: Vec<Vec<Prepared>> = Vec::new();
        for row in &self.rows {
            rows.push(row.iter().map(|plot| prepare(plot, cell, height)).collect::<Result<_>>()?);
        }
        // frames align: a column shares its left and right margins, a row its top and bottom ones
        for column in 0..columns {
            let widest = |side: fn(&Margins) -> f64| {
                rows.iter().filter_map(|r| r.get(column)).map(|p| side(&p.margins)).fold(0.0, f64::max)
            };
            let (left, right) = (widest(|m| m.left), widest(|m| m.right));
            for panel in rows.iter_mut().filter_map(|row| row.get_mut(column)) {
                panel.margins.left = left;
                panel.margins.right = right;
            }
        }
        for row in &mut rows {
            for panel in row.iter_mut() {
                let axes = (cell - panel.margins.left - panel.margins.right, height);
                panel.legend = legend::place(panel.plot, panel.ranges, axes);
                panel.margins.top = title_height(panel.plot) + panel.legend.height_above();
            }
            let top = row.iter().map(|p| p.margins.top).fold(0.0, f64::max);
            let bottom = row.iter().map(|p| p.margins.bottom).fold(0.0, f64::max);
            for panel in row {
                panel.margins.top = top;
                panel.margins.bottom = bottom;
            }
        }

        let title = wrap(&self.title, width - 2.0 * THEME.margin, title_letters());
        let note = wrap(&self.note, width - 2.0 * THEME.margin, note_letters());
        let title_height = block_height(&title, THEME.title);
        let note_height = block_height(&note, THEME.note);
        let row_heights: Vec<f64> =
            rows.iter().map(|row| row[0].margins.top + height + row[0].margins.bottom).collect();
        let gaps = BETWEEN * (rows.len() - 1) as f64;
        let total = 2.0 * THEME.margin + title_height + row_heights.iter().sum::<f64>() + gaps + note_height;
        let total = total.ceil();

        let mut svg = String::new();
        let canvas = Canvas::new(&mut svg, width, total, &THEME);
        write_block(&canvas, &title, THEME.margin, title_letters());
        let mut y = THEME.margin + title_height;
        for (row, row_height) in rows.iter().zip(&row_heights) {
            let mut x = THEME.margin;
            for panel in row {
                let frame = Frame {
                    left: x + panel.margins.left,
                    right: x + cell - panel.margins.right,
                    top: y + panel.margins.top,
                    bottom: y + panel.margins.top + height,
                    x: panel.ranges[0],
                    y: panel.ranges[1],
                    scales: [panel.plot.x.scale, panel.plot.y.scale],
                };
                draw_panel(&canvas, panel, &frame, (x, y), cell);
                x += cell + BETWEEN;
            }
            y += row_height + BETWEEN;
        }
        write_block(&canvas, &note, total - THEME.margin - note_height + THEME.note * 0.6, note_letters());
        canvas.finish();
        Figure::from_drawing(&svg, (width, total), self.description())
    }

    /// One line that says what the figure shows.
    fn description(&self) -> String {
        let panels: Vec<&str> = self.rows.iter().flatten().map(Plot::name).collect();
        if self.title.is_empty() { panels.join("; ") } else { format!("{}: {}", self.title, panels.join("; ")) }
    }
}

fn title_letters() -> Letters {
    Letters { bold: true, ..letters(THEME.title) }
}

fn note_letters() -> Letters {
    Letters { colour: Colour(0x55, 0x55, 0x55), ..letters(THEME.note) }
}

fn title_height(plot: &Plot) -> f64 {
    if plot.title.is_empty() { THEME.small * 0.6 } else { THEME.title * 1.7 }
}

fn prepare(plot: &Plot, cell: f64, height: f64) -> Result<Prepared<'_>> {
    let ranges = plot.ranges()?;
    let small = letters(THEME.small);
    let y_ticks = plot.y.scale.ticks(ranges[1].0, ranges[1].1, 5);
    let numbers = y_ticks.iter().map(|t| text_width(&t.text, small)).fold(0.0, f64::max);
    let left = THEME.label * 1.25 + GAP + numbers + GAP + TICK;
    let names = plot.levels.iter().flat_map(|level| panel::level_lines(&level.label));
    let names = names.map(|line| text_width(line, small) + 2.0 * GAP).fold(0.0, f64::max);

    // as many numbers in x as fit with a space between them
    let mut target = 6;
    let (x_ticks, overhang) = loop {
        let ticks = plot.x.scale.ticks(ranges[0].0, ranges[0].1, target);
        let named = ticks.iter().filter(|t| !t.text.is_empty());
        let widths: Vec<f64> = named.map(|t| text_width(&t.text, small)).collect();
        let widest = widths.iter().fold(0.0, |a: f64, &b| a.max(b));
        let room = cell - left - names.max(0.5 * widest);
        if target == 2 || (widest + 12.0) * widths.len() as f64 <= room {
            break (ticks, 0.5 * widest);
        }
        target -= 1;
    };
    let bottom = TICK + GAP + THEME.small * CAPITAL + GAP + THEME.label * 1.35;
    let margins = Margins { left, right: names.max(overhang), top: 0.0, bottom };
    let legend = legend::place(plot, ranges, (cell - left - margins.right, height));
    Ok(Prepared { plot, ranges, ticks: [x_ticks, y_ticks], margins, legend })
}

fn draw_panel(canvas: &Canvas, panel: &Prepared, frame: &Frame, (left, top): (f64, f64), cell: f64) {
    let Prepared { plot, ticks, .. } = panel;
    panel::draw_grid(canvas, frame, ticks);
    panel::draw_levels(canvas, plot, frame);
    panel::draw_layers(canvas, plot, frame);
    legend::draw(canvas, &panel.legend, frame);
    panel::draw_axes(canvas, frame, ticks, TICK);

    let small = letters(THEME.small);
    for tick in ticks[0].iter().filter(|t| !t.text.is_empty()) {
        let baseline = frame.bottom + TICK + GAP + THEME.small * CAPITAL;
        canvas.text(&tick.text, (frame.place_x(tick.value), baseline), Align::Centre, small);
    }
    for tick in ticks[1].iter().filter(|t| !t.text.is_empty()) {
        let middle = frame.place_y(tick.value) + 0.5 * CAPITAL * THEME.small;
        canvas.text(&tick.text, (frame.left - TICK - GAP, middle), Align::Right, small);
    }
    // a label longer than its axis is moved, then shrunk, rather than cut
    let label = fitted(&plot.x.label, letters(THEME.label), cell);
    let half = 0.5 * text_width(&plot.x.label, label);
    let centre = (0.5 * (frame.left + frame.right)).clamp(left + half, (left + cell - half).max(left + half));
    let under = frame.bottom + TICK + GAP + THEME.small * CAPITAL + GAP + THEME.label;
    canvas.text(&plot.x.label, (centre, under), Align::Centre, label);
    let label = fitted(&plot.y.label, letters(THEME.label), 1.1 * (frame.bottom - frame.top));
    canvas.text_upwards(&plot.y.label, (frame.left - panel.margins.left, 0.5 * (frame.top + frame.bottom)), label);
    if !plot.title.is_empty() {
        let title = fitted(&plot.title, title_letters(), cell);
        let start = frame.left.min(left + cell - text_width(&plot.title, title));
        canvas.text(&plot.title, (start, top + THEME.title), Align::Left, title);
    }
}

/// The letters, smaller if the text would be wider than `width`.
fn fitted(text: &str, letters: Letters, width: f64) -> Letters {
    let wide = text_width(text, letters);
    Letters { size: if wide > width { letters.size * width / wide } else { letters.size }, ..letters }
}

/// Breaks `text` into lines no wider than `width`, at spaces and line ends.
pub(crate) fn wrap(text: &str, width: f64, letters: Letters) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines().filter(|p| !p.trim().is_empty()) {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            let longer = if line.is_empty() { word.to_string() } else { format!("{line} {word}") };
            if !line.is_empty() && text_width(&longer, letters) > width {
                lines.push(std::mem::replace(&mut line, word.to_string()));
            } else {
                line = longer;
            }
        }
        lines.push(line);
    }
    lines
}

fn block_height(lines: &[String], size: f64) -> f64 {
    if lines.is_empty() { 0.0 } else { lines.len() as f64 * size * 1.35 + size * 0.6 }
}

fn write_block(canvas: &Canvas, lines: &[String], top: f64, letters: Letters) {
    for (i, line) in lines.iter().enumerate() {
        let baseline = top + letters.size * (1.0 + 1.35 * i as f64);
        canvas.text(line, (THEME.margin, baseline), Align::Left, letters);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_lines_fit_and_lose_no_word() {
        let text = "Mean and 95% t interval over seeds; the training loss is not eps.\nSecond paragraph.";
        let lines = wrap(text, 200.0, note_letters());
        assert!(lines.len() > 3);
        assert!(lines.iter().all(|line| text_width(line, note_letters()) <= 200.0), "{lines:?}");
        let words = |t: &str| t.split_whitespace().map(String::from).collect::<Vec<_>>();
        assert_eq!(words(&lines.join(" ")), words(text));
    }

    #[test]
    fn a_sheet_without_panels_is_an_error() {
        assert!(Sheet::row(vec![]).draw().is_err());
    }
}
