//! The paper's own numbers (arXiv 2404.16767), as committed in `figures/data/paper/*.csv`; its README names each table.
//! A figure that shows one of them marks it as the paper's.

use std::path::Path;

use crate::error::{Error, Result};

const TABLES: [(&str, &str); 8] = [
    ("table1a", include_str!("../data/paper/table1a.csv")),
    ("table1b", include_str!("../data/paper/table1b.csv")),
    ("table2", include_str!("../data/paper/table2.csv")),
    ("table3", include_str!("../data/paper/table3.csv")),
    ("tables4_5", include_str!("../data/paper/tables4_5.csv")),
    ("table6", include_str!("../data/paper/table6.csv")),
    ("readme", include_str!("../data/paper/readme.csv")),
    ("model_cards", include_str!("../data/paper/model_cards.csv")),
];

/// One of the paper's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Column names.
    pub columns: Vec<String>,
    /// Cells as written; an empty one was not reported.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The number in a row and a named column; none where it was not reported or is not a number.
    pub fn number(&self, row: usize, column: &str) -> Option<f64> {
        self.text(row, column)?.parse().ok()
    }

    /// The cell in a row and a named column.
    pub fn text(&self, row: usize, column: &str) -> Option<&str> {
        let column = self.columns.iter().position(|name| name == column)?;
        Some(self.rows.get(row)?.get(column)?.as_str())
    }
}

/// The names of the tables.
pub fn tables() -> impl Iterator<Item = &'static str> {
    TABLES.iter().map(|table| table.0)
}

/// A table by its name, as in [`tables`].
///
/// # Errors
/// No table of this name; a row with another number of cells than there are columns.
pub fn table(name: &str) -> Result<Table> {
    let known = || tables().collect::<Vec<_>>().join(", ");
    let (_, text) = TABLES
        .iter()
        .find(|table| table.0 == name)
        .ok_or_else(|| Error::Unknown { name: name.into(), known: known() })?;
    parse(Path::new(&format!("figures/data/paper/{name}.csv")), text)
}

/// Reads comma-separated cells; none of these tables needs quotes.
fn parse(path: &Path, text: &str) -> Result<Table> {
    let cells = |line: &str| -> Vec<String> { line.split(',').map(|cell| cell.trim().to_string()).collect() };
    let mut lines = text.lines().enumerate();
    let columns = lines.next().map(|(_, line)| cells(line)).ok_or_else(|| Error::content(path, "it is empty"))?;
    let mut rows = Vec::new();
    for (i, line) in lines {
        let row = cells(line);
        if row.len() != columns.len() {
            let what = format!("{} cells (expected {}, one for each column)", row.len(), columns.len());
            return Err(Error::line(path, i + 1, what));
        }
        rows.push(row);
    }
    Ok(Table { columns, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_parses_and_holds_rows() {
        for name in tables() {
            let table = table(name).unwrap();
            assert!(!table.rows.is_empty() && table.columns.len() > 1, "{name}");
        }
    }

    #[test]
    fn cells_are_found_by_row_and_column() {
        let table = table("table1a").unwrap();
        let rebel = (0..table.rows.len()).find(|&i| table.rows[i][..2] == ["2.8B", "REBEL"]).unwrap();
        assert_eq!(table.number(rebel, "winrate"), Some(70.2));
        assert_eq!(table.number(0, "kl"), None, "the paper gives no KL for SFT");
    }

    #[test]
    fn a_short_row_is_named_by_its_line() {
        let error = parse(Path::new("t.csv"), "a,b\n1,2\n3\n").unwrap_err().to_string();
        assert_eq!(error, "t.csv:3: 1 cells (expected 2, one for each column)");
    }
}
