//! Tables of plain text.

use std::fmt;

/// A column's heading and on which side its cells stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    heading: String,
    side: Side,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Column {
    /// Of words.
    pub fn left(heading: impl Into<String>) -> Column {
        Column { heading: heading.into(), side: Side::Left }
    }

    /// Of numbers.
    pub fn right(heading: impl Into<String>) -> Column {
        Column { heading: heading.into(), side: Side::Right }
    }
}

/// A table of `N` columns, as wide as its cells need, drawn by [`Display`](fmt::Display). A character is taken to be
/// as wide as any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table<const N: usize> {
    columns: [Column; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// Without rows.
    pub fn new(columns: [Column; N]) -> Table<N> {
        Table { columns, rows: Vec::new() }
    }

    /// Adds a row at the end.
    pub fn push(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        draw(f, &self.columns, &self.rows)
    }
}

/// A table as [`Table`], whose columns are known only when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Sheet {
    /// Without rows.
    pub fn new(columns: Vec<Column>) -> Sheet {
        Sheet { columns, rows: Vec::new() }
    }

    /// Adds a row at the end; cells that it lacks are empty.
    ///
    /// # Panics
    ///
    /// If there are more cells than columns.
    pub fn push(&mut self, mut cells: Vec<String>) {
        assert!(cells.len() <= self.columns.len(), "{} cells for {} columns", cells.len(), self.columns.len());
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
    }
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        draw(f, &self.columns, &self.rows)
    }
}

fn draw(f: &mut fmt::Formatter<'_>, columns: &[Column], rows: &[impl AsRef<[String]>]) -> fmt::Result {
    let width = |(place, column): (usize, &Column)| {
        let cells = rows.iter().map(|row| row.as_ref()[place].chars().count());
        cells.chain([column.heading.chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = columns.iter().enumerate().map(width).collect();
    let headings: Vec<String> = columns.iter().map(|column| column.heading.clone()).collect();
    let rules: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
    for row in [&headings[..], &rules].into_iter().chain(rows.iter().map(AsRef::as_ref)) {
        let cells = row.iter().zip(columns).zip(&widths);
        let cells: Vec<String> = cells
            .map(|((cell, column), &width)| match column.side {
                Side::Left => format!("{cell:<width$}"),
                Side::Right => format!("{cell:>width$}"),
            })
            .collect();
        writeln!(f, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// A number as a cell: with thousands separated and so many decimals; a dash for what was not measured.
pub fn number(value: Option<f64>, decimals: usize) -> String {
    let Some(value) = value else { return "-".into() };
    if !value.is_finite() {
        return value.to_string();
    }
    let text = format!("{value:.decimals$}");
    let whole = text.find('.').unwrap_or(text.len());
    let first = usize::from(text.starts_with('-'));
    let mut grouped = String::with_capacity(text.len() + text.len() / 3);
    for (index, character) in text.chars().enumerate() {
        if first < index && index < whole && (whole - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(character);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_in_columns() {
        let mut table = Table::new([Column::left("algorithm"), Column::right("R"), Column::right("mean ms")]);
        table.push(["lard".into(), "-".into(), number(Some(1234.5), 1)]);
        table.push(["url-hash with é".into(), "2".into(), number(None, 1)]);
        let expected = "\
algorithm        R  mean ms
---------------  -  -------
lard             -  1,234.5
url-hash with é  2        -
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn a_sheet_looks_like_a_table_and_takes_short_rows() {
        let mut sheet = Sheet::new(vec![Column::left("what"), Column::right("n")]);
        sheet.push(vec!["a".into(), "10".into()]);
        sheet.push(vec!["b".into()]);
        assert_eq!(sheet.to_string(), "what   n\n----  --\na     10\nb\n");
    }

    #[test]
    fn numbers_are_grouped() {
        for (value, decimals, expected) in [
            (0.0, 0, "0"),
            (999.4, 0, "999"),
            (999.5, 0, "1,000"),
            (-1_234_567.891, 2, "-1,234,567.89"),
            (-123.0, 1, "-123.0"),
            (f64::NAN, 1, "NaN"),
        ] {
            assert_eq!(number(Some(value), decimals), expected);
        }
    }
}
