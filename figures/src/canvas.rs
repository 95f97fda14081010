//! A sheet to draw on, in logical units (one hundredth of a column is 4.8 of them), on top of plotters' SVG backend.
//!
//! plotters' coordinates are integers, which makes curves visibly stepped at column size; everything is therefore drawn
//! [`Theme::canvas`] times larger, strokes and letters included, and the SVG's `viewBox` brings it back.

use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontTransform, register_font};

use crate::style::{Colour, Dash, Marker, Theme};

/// A point in logical units, from the sheet's top left corner.
pub type Spot = (f64, f64);

/// Where along the text its anchor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// The text starts at the anchor.
    Left,
    /// The text is centred on the anchor.
    Centre,
    /// The text ends at the anchor.
    Right,
}

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Letters {
    /// Font size (em), logical units.
    pub size: f64,
    /// Bold or regular.
    pub bold: bool,
    /// Colour.
    pub colour: Colour,
}

/// plotters writes `font-size = size / 1.24`; sizes here are ems.
const PLOTTERS_EM: f64 = 1.24;
/// plotters measures with ascent + descent as the size (1.164 em in DejaVu) where it writes size / 1.24 as the em.
const MEASURE: f64 = 1.164 / PLOTTERS_EM;
/// Height of a capital letter, in ems; plotters' "top" anchor is 0.76 em above the baseline.
pub const CAPITAL: f64 = 0.73;
const TOP_ANCHOR: f64 = 0.76;

/// Makes the embedded fonts known to plotters, once per process.
pub fn register_fonts() {
    static FONTS: Once = Once::new();
    FONTS.call_once(|| {
        let faces = [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())];
        for (style, bytes) in faces {
            if register_font("sans-serif", style, bytes).is_err() {
                unreachable!("the embedded DejaVu faces are valid fonts");
            }
        }
    });
}

/// Width of `text` in logical units, by the embedded font's advance widths.
pub fn text_width(text: &str, letters: Letters) -> f64 {
    register_fonts();
    let style = if letters.bold { FontStyle::Bold } else { FontStyle::Normal };
    let measured = 1000.0; // large, because plotters rounds to whole pixels
    let (width, _) =
        FontDesc::new(FontFamily::SansSerif, measured, style).box_size(text).expect("the embedded font is registered");
    f64::from(width) * MEASURE * PLOTTERS_EM * letters.size / measured
}

/// The sheet.
pub struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
    scale: f64,
}

impl<'a> Canvas<'a> {
    /// An empty white sheet of `width` x `height` logical units, whose SVG goes to `svg` when [`Canvas::finish`] is called.
    pub fn new(svg: &'a mut String, width: f64, height: f64, theme: &Theme) -> Self {
        register_fonts();
        let scale = f64::from(theme.canvas);
        let pixels = ((width * scale).round() as u32, (height * scale).round() as u32);
        let canvas = Self { area: SVGBackend::with_string(svg, pixels).into_drawing_area(), scale };
        canvas.rectangle((0.0, 0.0), (width, height), Colour(255, 255, 255), 1.0);
        canvas
    }

    fn pixel(&self, (x, y): Spot) -> (i32, i32) {
        ((x * self.scale).round() as i32, (y * self.scale).round() as i32)
    }

    fn draw<E>(&self, element: E)
    where
        for<'b> &'b E: plotters::element::PointCollection<'b, (i32, i32)>,
        E: plotters::element::Drawable<SVGBackend<'a>>,
    {
        // writing SVG into a String has no way to fail
        self.area.draw(&element).expect("SVG goes to memory");
    }

    /// A filled rectangle between two corners.
    pub fn rectangle(&self, from: Spot, to: Spot, colour: Colour, opacity: f64) {
        self.draw(Rectangle::new([self.pixel(from), self.pixel(to)], colour.rgba(opacity).filled()));
    }

    /// A polyline of the given stroke width.
    pub fn line(&self, points: &[Spot], colour: Colour, width: f64, dash: Dash, opacity: f64) {
        if points.len() < 2 {
            return;
        }
        let pixels: Vec<_> = points.iter().map(|&p| self.pixel(p)).collect();
        let style = colour.rgba(opacity).stroke_width((width * self.scale).round() as u32);
        match dash.lengths() {
            None => self.draw(PathElement::new(pixels, style)),
            Some((on, off)) => {
                let unit = width.max(1.0) * self.scale;
                let (on, off) = ((on * unit).round() as i32, (off * unit).round() as i32);
                self.draw(plotters::element::DashedPathElement::new(pixels, on, off, style));
            }
        }
    }

    /// A filled polygon.
    pub fn polygon(&self, points: &[Spot], colour: Colour, opacity: f64) {
        let pixels: Vec<_> = points.iter().map(|&p| self.pixel(p)).collect();
        self.draw(Polygon::new(pixels, colour.rgba(opacity).filled()));
    }

    /// A marker of radius `radius` with a white or (hollow) coloured edge, so that it reads on top of a line.
    pub fn marker(&self, at: Spot, marker: Marker, radius: f64, colour: Colour, hollow: bool) {
        let (edge, inside) = if hollow { (colour, Colour(255, 255, 255)) } else { (Colour(255, 255, 255), colour) };
        let shape = |radius: f64| -> Vec<Spot> {
            marker.outline().iter().map(|&(x, y)| (at.0 + radius * x, at.1 + radius * y)).collect()
        };
        self.polygon(&shape(radius + if hollow { 0.0 } else { 0.8 }), edge, 1.0);
        self.polygon(&shape(radius - if hollow { 1.7 } else { 0.0 }), inside, 1.0);
    }

    /// A line of text whose baseline starts, is centred or ends at `at`.
    pub fn text(&self, text: &str, at: Spot, align: Align, letters: Letters) {
        let top = (at.0, at.1 - TOP_ANCHOR * letters.size);
        self.write(text, top, align, letters, FontTransform::None);
    }

    /// Text that reads upwards, its middle at height `at.1` and its capitals' tops at `at.0`.
    pub fn text_upwards(&self, text: &str, at: Spot, letters: Letters) {
        self.write(text, at, Align::Centre, letters, FontTransform::Rotate270);
    }

    fn write(&self, text: &str, at: Spot, align: Align, letters: Letters, transform: FontTransform) {
        let style = if letters.bold { FontStyle::Bold } else { FontStyle::Normal };
        let horizontal = match align {
            Align::Left => HPos::Left,
            Align::Centre => HPos::Center,
            Align::Right => HPos::Right,
        };
        let size = letters.size * PLOTTERS_EM * self.scale;
        let style = FontDesc::new(FontFamily::SansSerif, size, style)
            .transform(transform)
            .color(&letters.colour.rgba(1.0))
            .pos(Pos::new(horizontal, VPos::Top));
        self.draw(Text::new(text.to_string(), self.pixel(at), style));
    }

    /// Ends the drawing; the SVG is then complete.
    pub fn finish(self) {
        self.area.present().expect("SVG goes to memory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wider_text_measures_wider_and_size_scales_it() {
        let small = Letters { size: 10.0, bold: false, colour: Colour(0, 0, 0) };
        let large = Letters { size: 20.0, ..small };
        assert!(text_width("mm", small) > text_width("ii", small));
        let ratio = text_width("held-out pair loss", large) / text_width("held-out pair loss", small);
        assert!((ratio - 2.0).abs() < 1e-9, "{ratio}");
    }

    #[test]
    fn measured_width_is_the_fonts_advance_width() {
        // DejaVu Sans: every digit is 1303 of 2048 units wide.
        let letters = Letters { size: 20.0, bold: false, colour: Colour(0, 0, 0) };
        let advance = 10.0 * 1303.0 / 2048.0 * 20.0;
        assert!((text_width("0123456789", letters) - advance).abs() < 0.01 * advance);
    }
}
