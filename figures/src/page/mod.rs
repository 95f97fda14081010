//! One HTML page that carries everything it needs: prose with formulas, tables, figures as SVG, a table of contents, the
//! fonts and programs that typeset the formulas. It loads nothing and is the same bytes for the same content.
//!
//! ```
//! use rebel_figures::page::{Page, Section, Table, Text};
//!
//! let mut page = Page::new("Two arms");
//! page.prose("One step of mirror descent.");
//! let mut section = Section::new("step", "The step");
//! section.prose(Text::from("With step size ").formula(r"\eta").plain(":")).formula(r"\pi'\propto\pi\,e^{\eta r}");
//! let mut table = Table::new(&["arm", "probability"]).numbers(&[1]);
//! table.row([Text::from("first"), Text::number(0.5)]);
//! section.table(table);
//! page.section(section);
//! assert!(page.html().starts_with("<!DOCTYPE html>"));
//! ```

mod katex;
mod text;

use std::fmt::Write;

use crate::render::Figure;
use text::escape;
pub use text::{Mark, Text};

const STYLE: &str = include_str!("../../assets/page.css");

/// A page: a title, what stands before the first section, sections.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    title: String,
    body: Section,
}

/// A section with an anchor; it may hold sections of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    id: String,
    title: Text,
    blocks: String, // HTML
    sections: Vec<Section>,
}

/// A table: a head and rows of as many cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    head: Vec<String>,
    numbers: Vec<usize>,
    rows: Vec<Vec<Text>>,
}

impl Page {
    /// An empty page.
    pub fn new(title: &str) -> Self {
        Self { title: title.into(), body: Section::new("top", title) }
    }

    /// Adds a paragraph before the sections.
    pub fn prose(&mut self, text: impl Into<Text>) -> &mut Self {
        self.body.prose(text);
        self
    }

    /// Adds a section.
    pub fn section(&mut self, section: Section) -> &mut Self {
        self.body.section(section);
        self
    }

    /// The page as one file.
    pub fn html(&self) -> String {
        let title = escape(&self.title);
        let mut contents = String::new();
        self.body.write_contents(&mut contents);
        let mut body = String::new();
        self.body.sections.iter().for_each(|section| section.write(&mut body, 2));
        let typeset = katex::used_in(&[&self.body.blocks, &body]);
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
             script-src 'unsafe-inline'; font-src data:\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n{style}</head>\n<body>\n\
             <nav aria-label=\"Contents\">\n<a class=\"top\" href=\"#top\">{title}</a>\n{contents}</nav>\n\
             <main>\n<h1 id=\"top\">{title}</h1>\n{before}{body}</main>\n{script}</body>\n</html>\n",
            style = typeset.style,
            before = self.body.blocks,
            script = typeset.script,
        )
    }
}

impl Section {
    /// An empty section; `id` is its anchor, distinct on the page.
    pub fn new(id: &str, title: impl Into<Text>) -> Self {
        Self { id: id.into(), title: title.into(), blocks: String::new(), sections: Vec::new() }
    }

    fn push(&mut self, block: std::fmt::Arguments) -> &mut Self {
        self.blocks.write_fmt(block).expect("a string takes what is written");
        self
    }

    /// Adds a paragraph.
    pub fn prose(&mut self, text: impl Into<Text>) -> &mut Self {
        self.push(format_args!("<p>{}</p>\n", text.into().html()))
    }

    /// Adds a paragraph that stands apart: what a section is about, in small.
    pub fn aside(&mut self, text: impl Into<Text>) -> &mut Self {
        self.push(format_args!("<p class=\"aside\">{}</p>\n", text.into().html()))
    }

    /// Adds a formula in LaTeX on lines of its own.
    pub fn formula(&mut self, latex: &str) -> &mut Self {
        self.push(format_args!("<div class=\"formula\">{}</div>\n", escape(latex)))
    }

    /// Adds a list.
    pub fn list(&mut self, items: impl IntoIterator<Item = impl Into<Text>>) -> &mut Self {
        let items: String = items.into_iter().map(|item| format!("<li>{}</li>\n", item.into().html())).collect();
        self.push(format_args!("<ul>\n{items}</ul>\n"))
    }

    /// Adds lines as a person types or reads them in a terminal.
    pub fn code(&mut self, lines: &str) -> &mut Self {
        self.push(format_args!("<pre><code>{}</code></pre>\n", escape(lines)))
    }

    /// Adds a table.
    pub fn table(&mut self, table: Table) -> &mut Self {
        self.push(format_args!("{}", table.html()))
    }

    /// Adds a figure; `id` is its anchor, distinct on the page.
    pub fn figure(&mut self, id: &str, figure: &Figure, caption: impl Into<Text>) -> &mut Self {
        let svg = with_own_names(figure.svg().trim_end(), id);
        let caption = caption.into();
        self.push(format_args!(
            "<figure id=\"{}\">\n{svg}\n<figcaption>{}</figcaption>\n</figure>\n",
            escape(id),
            caption.html()
        ))
    }

    /// Adds a section within this one.
    pub fn section(&mut self, section: Section) -> &mut Self {
        self.sections.push(section);
        self
    }

    fn write(&self, html: &mut String, level: usize) {
        let (id, title) = (escape(&self.id), self.title.html());
        let heading = level.min(6);
        let own = format!("<section id=\"{id}\">\n<h{heading}>{title}</h{heading}>\n{}", self.blocks);
        html.push_str(&own);
        self.sections.iter().for_each(|section| section.write(html, level + 1));
        html.push_str("</section>\n");
    }

    fn write_contents(&self, html: &mut String) {
        if self.sections.is_empty() {
            return;
        }
        html.push_str("<ol>\n");
        for section in &self.sections {
            let entry = format!("<li><a href=\"#{}\">{}</a>", escape(&section.id), section.title.html());
            html.push_str(&entry);
            section.write_contents(html);
            html.push_str("</li>\n");
        }
        html.push_str("</ol>\n");
    }
}

impl Table {
    /// A table without rows.
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|&name| name.to_owned()).collect(), numbers: vec![], rows: vec![] }
    }

    /// Sets the columns, from 0, that are aligned as numbers.
    pub fn numbers(mut self, columns: &[usize]) -> Self {
        self.numbers = columns.to_vec();
        self
    }

    /// Adds a row.
    ///
    /// # Panics
    /// If it has not as many cells as the head.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Text>) -> &mut Self {
        let cells: Vec<Text> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.head.len(), "a cell for each column");
        self.rows.push(cells);
        self
    }

    fn html(&self) -> String {
        let class = |column: usize| if self.numbers.contains(&column) { " class=\"number\"" } else { "" };
        let head: String =
            self.head.iter().enumerate().map(|(i, name)| format!("<th{}>{}</th>", class(i), escape(name))).collect();
        let cells = |row: &Vec<Text>| -> String {
            row.iter().enumerate().map(|(i, cell)| format!("<td{}>{}</td>", class(i), cell.html())).collect()
        };
        let rows: String = self.rows.iter().map(|row| format!("<tr>{}</tr>\n", cells(row))).collect();
        format!(
            "<div class=\"table\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
        )
    }
}

/// An SVG whose internal names begin with `owner`: two of them on one page would else clip and fill each other.
fn with_own_names(svg: &str, owner: &str) -> String {
    let mut named = svg.to_owned();
    for reference in [" id=\"", "url(#", "href=\"#"] {
        named = named.replace(reference, &format!("{reference}{owner}-"));
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::style::Role;

    fn figure() -> Figure {
        Figure::line_plot("x", "y").title("T").line(Role::Rebel, "REBEL", &[(0.0, 1.0), (1.0, 2.0)]).draw().unwrap()
    }

    fn page() -> Page {
        let mut inner = Section::new("inner", "Inner <b>");
        inner.formula(r"a<b\quad\|x\|").figure("fig", &figure(), "Caption").code("rebel verify");
        let mut outer = Section::new("outer", "Outer");
        outer.prose("x < y & z").list(["one", "two"]).section(inner);
        let mut page = Page::new("A & B");
        page.prose("Before").section(outer);
        page
    }

    #[test]
    fn page_is_the_same_bytes_twice_and_names_no_other_file() {
        let html = page().html();
        assert_eq!(html, page().html());
        let (content, program) = html.split_once("<script>").unwrap();
        for outside in ["src=\"", "<link", "@import", "url(fonts", "url(http"] {
            assert!(!content.contains(outside), "{outside}");
        }
        assert!(content.contains("default-src 'none'") && program.contains("katex.render("));
    }

    #[test]
    fn what_is_written_is_text_and_never_markup() {
        let html = page().html();
        for escaped in ["<title>A &amp; B</title>", "<p>x &lt; y &amp; z</p>", "Inner &lt;b&gt;", r"a&lt;b\quad\|x\|"] {
            assert!(html.contains(escaped), "{escaped}");
        }
    }

    #[test]
    fn contents_name_every_section_by_its_anchor() {
        let html = page().html();
        let contents = &html[html.find("<nav").unwrap()..html.find("</nav>").unwrap()];
        for id in ["outer", "inner"] {
            assert!(contents.contains(&format!("href=\"#{id}\"")), "{id}");
            assert_eq!(html.matches(&format!(" id=\"{id}\"")).count(), 1, "{id}");
        }
        assert!(html.contains("<h2>Outer</h2>") && html.contains("<h3>Inner"));
    }

    #[test]
    fn page_without_formulas_does_not_carry_what_typesets_them() {
        let mut plain = Page::new("Plain");
        plain.prose("No formula");
        assert!(plain.html().len() < 20_000);
        assert!(page().html().contains("KaTeX_Main"));
    }

    #[test]
    fn two_figures_do_not_share_internal_names() {
        let svg = "<svg id=\"c\"><g clip-path=\"url(#c)\"><use href=\"#c\"/></g></svg>";
        let named = with_own_names(svg, "left");
        assert_eq!(named, "<svg id=\"left-c\"><g clip-path=\"url(#left-c)\"><use href=\"#left-c\"/></g></svg>");
    }

    #[test]
    #[should_panic(expected = "a cell for each column")]
    fn row_that_is_too_short_is_refused() {
        Table::new(&["a", "b"]).row([Text::from("1")]);
    }
}
