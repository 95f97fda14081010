//! From plotters' SVG to what is published: an SVG whose letters are outlines, so that it looks the same everywhere, and
//! a PNG of that very SVG. Both are functions of the drawing alone: the same data give the same bytes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, fontdb};

use crate::chart::Plot;
use crate::error::{Error, Result};
use crate::style::THEME;

/// A finished figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    svg: String,
    size: (f64, f64),
    description: String,
}

fn fonts() -> Arc<fontdb::Database> {
    static FONTS: OnceLock<Arc<fontdb::Database>> = OnceLock::new();
    let load = || {
        let mut database = fontdb::Database::new();
        database.load_font_data(dejavu::sans::regular().to_vec());
        database.load_font_data(dejavu::sans::bold().to_vec());
        database.set_sans_serif_family("DejaVu Sans");
        Arc::new(database)
    };
    FONTS.get_or_init(load).clone()
}

impl Figure {
    /// Begins a figure of one panel: add lines, points and bands, then [`Plot::draw`].
    pub fn line_plot(x_label: &str, y_label: &str) -> Plot {
        Plot::new(x_label, y_label)
    }

    /// Outlines the text of plotters' `drawing`, which is `size` logical units large.
    pub(crate) fn from_drawing(drawing: &str, size: (f64, f64), description: String) -> Result<Self> {
        let failed = |what: String| Error::Render { figure: description.clone(), what };
        // round joins: a mitred spike would exaggerate every peak of a noisy curve
        let drawing = drawing.replacen("<svg ", "<svg stroke-linejoin=\"round\" ", 1);
        let options = usvg::Options { fontdb: fonts(), ..Default::default() };
        let tree = usvg::Tree::from_str(&drawing, &options).map_err(|e| failed(e.to_string()))?;
        let writing = usvg::WriteOptions {
            coordinates_precision: 0, // whole units of the canvas: 1/8 of a logical unit, 0.06 points in print
            transforms_precision: 4,
            indent: usvg::Indent::None,
            ..Default::default()
        };
        let outlined = tree.to_string(&writing);
        let (_, body) = outlined.split_once('>').ok_or_else(|| failed("the outlined SVG is empty".into()))?;
        let canvas = f64::from(THEME.canvas);
        let head = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\">\n<title>{}</title>\n",
            size.0,
            size.1,
            size.0 * canvas,
            size.1 * canvas,
            escape(&description)
        );
        Ok(Self { svg: format!("{head}{}\n", body.trim()), size, description })
    }

    /// The SVG; its text is outlines, so no font is needed to show it.
    pub fn svg(&self) -> &str {
        &self.svg
    }

    /// One line that says what the figure shows.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The PNG, three pixels for each of the SVG's units.
    ///
    /// # Errors
    /// The renderer refuses the SVG.
    pub fn png(&self) -> Result<Vec<u8>> {
        self.pixels()?.encode_png().map_err(|e| self.failed(e.to_string()))
    }

    fn pixels(&self) -> Result<Pixmap> {
        let tree =
            usvg::Tree::from_str(&self.svg, &usvg::Options::default()).map_err(|e| self.failed(e.to_string()))?;
        let [width, height] = [self.size.0, self.size.1].map(|length| (length * THEME.png).round() as u32);
        let mut pixels = Pixmap::new(width, height).ok_or_else(|| self.failed(format!("{width} x {height} pixels")))?;
        let scale = THEME.png as f32;
        resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixels.as_mut());
        Ok(pixels)
    }

    /// Whether something is drawn in the outermost `border` logical units, where letters would be cut.
    ///
    /// # Errors
    /// The renderer refuses the SVG.
    pub fn touches_edge(&self, border: f64) -> Result<bool> {
        let pixels = self.pixels()?;
        let (width, height) = (pixels.width(), pixels.height());
        let border = (border * THEME.png).round().max(1.0) as u32;
        let outside = |x: u32, y: u32| x < border || y < border || x + border >= width || y + border >= height;
        let inked =
            |x: u32, y: u32| pixels.pixel(x, y).is_some_and(|p| (p.red(), p.green(), p.blue()) != (255, 255, 255));
        Ok((0..height).any(|y| (0..width).any(|x| outside(x, y) && inked(x, y))))
    }

    /// Writes `stem.svg` and `stem.png`, each under a temporary name first, so that neither is ever half there.
    ///
    /// # Errors
    /// The folder cannot be made, a file cannot be written; nothing half-written is left.
    pub fn save(&self, stem: impl AsRef<Path>) -> Result<[PathBuf; 2]> {
        let stem = stem.as_ref();
        let with = |extension: &str| {
            let mut name = stem.as_os_str().to_os_string();
            name.push(extension);
            PathBuf::from(name)
        };
        let (svg, png) = (with(".svg"), with(".png"));
        let bytes = self.png()?;
        write_whole(&svg, self.svg.as_bytes())?;
        write_whole(&png, &bytes)?;
        Ok([svg, png])
    }

    /// Shows the figure as the result of a notebook cell: evcxr calls this by name.
    pub fn evcxr_display(&self) {
        // evcxr swallows what stands on the line before a block
        println!();
        println!("{}", self.blocks());
    }

    /// The two forms a front end may choose from, in evcxr's protocol.
    fn blocks(&self) -> String {
        let block = |mime: &str, content: &str| format!("EVCXR_BEGIN_CONTENT {mime}\n{content}\nEVCXR_END_CONTENT");
        let [svg, text] = [block("image/svg+xml", self.svg.trim_end()), block("text/plain", &self.description)];
        format!("{svg}\n{text}")
    }

    fn failed(&self, what: String) -> Error {
        Error::Render { figure: self.description.clone(), what }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Writes a file under a temporary name beside it, then renames it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    }
    let mut partial = path.as_os_str().to_os_string();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let written = std::fs::File::create(&partial)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|e| {
        // the first failure is the one to report
        let _ = std::fs::remove_file(&partial);
        Error::file(path, e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::style::Role;

    fn figure() -> Figure {
        let points: Vec<(f64, f64)> = (1..30).map(|k| (f64::from(k), f64::from(k).sqrt())).collect();
        Figure::line_plot("x", "y").title("A < B & C").line(Role::Rebel, "REBEL", &points).draw().unwrap()
    }

    #[test]
    fn same_data_give_the_same_bytes() {
        let (a, b) = (figure(), figure());
        assert_eq!(a.svg(), b.svg());
        assert_eq!(a.png().unwrap(), b.png().unwrap());
    }

    #[test]
    fn published_svg_has_outlines_and_no_text() {
        let figure = figure();
        assert!(!figure.svg().contains("<text") && !figure.svg().contains("font-family"));
        assert!(figure.svg().contains("<title>A &lt; B &amp; C</title>"));
        assert!(figure.svg().len() < 200_000, "{} bytes", figure.svg().len());
    }

    #[test]
    fn notebook_gets_the_svg_and_one_line_of_text() {
        let figure = figure();
        let blocks = figure.blocks();
        let contents: Vec<&str> = blocks.split("EVCXR_BEGIN_CONTENT ").skip(1).collect();
        assert_eq!(contents.len(), 2);
        let svg = contents[0].strip_prefix("image/svg+xml\n").and_then(|c| c.strip_suffix("\nEVCXR_END_CONTENT\n"));
        assert_eq!(svg, Some(figure.svg().trim_end()));
        assert_eq!(contents[1], "text/plain\nA < B & C\nEVCXR_END_CONTENT");
    }

    #[test]
    fn png_is_three_pixels_a_unit() {
        let pixels = figure().pixels().unwrap();
        assert_eq!(f64::from(pixels.width()), THEME.png * THEME.column);
    }

    #[test]
    fn touching_the_edge_is_seen() {
        let drawing = |x: i32| {
            format!(
                "<svg width=\"800\" height=\"800\" viewBox=\"0 0 800 800\" xmlns=\"http://www.w3.org/2000/svg\">\
                 <rect width=\"800\" height=\"800\" fill=\"#FFFFFF\"/><rect x=\"{x}\" y=\"300\" width=\"80\" height=\"80\"/></svg>"
            )
        };
        let at = |x: i32| Figure::from_drawing(&drawing(x), (100.0, 100.0), "square".into()).unwrap();
        assert!(!at(300).touches_edge(3.0).unwrap());
        assert!(at(0).touches_edge(3.0).unwrap());
    }

    #[test]
    fn a_failed_save_leaves_nothing_and_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("figure.svg");
        std::fs::create_dir(&taken).unwrap(); // a folder where the file should go
        let error = figure().save(folder.path().join("figure")).unwrap_err().to_string();
        assert!(error.starts_with(&taken.display().to_string()), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
