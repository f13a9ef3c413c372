//! A figure as text.

use super::{Cell, Check, Figure, Heading, Measured};
use std::fmt;
use vibra_report::{Column, Sheet, number};

/// A figure with what came out, as text: its table, then its checks.
pub(super) struct Told<'a>(pub(super) &'a Figure, pub(super) &'a Measured);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told(figure, measured) = self;
        writeln!(f, "{}: {}\n{}\nPaper: {}\n", figure.id, figure.title, measured.conditions, figure.paper)?;
        writeln!(f, "{}", measured.sheet())?;
        writeln!(f, "{}", checks(&measured.checks))?;
        for check in &measured.checks {
            if let Some(reason) = &check.reason {
                writeln!(f, "{}: {reason}", check.what)?;
            }
        }
        Ok(())
    }
}

impl Measured {
    /// The table.
    fn sheet(&self) -> Sheet {
        let column = |heading: &Heading| match heading.decimals {
            Some(_) => Column::right(&heading.name),
            None => Column::left(&heading.name),
        };
        let mut sheet = Sheet::new(self.columns.iter().map(column).collect());
        for row in self.shown() {
            sheet.push(row);
        }
        sheet
    }

    /// The rows as they are shown.
    pub(super) fn shown(&self) -> impl Iterator<Item = Vec<String>> {
        let show = |(cell, heading): (&Cell, &Heading)| match cell {
            Cell::Text(text) => text.clone(),
            Cell::Number(value) => number(*value, heading.decimals.unwrap_or(2)),
        };
        self.rows.iter().map(move |row| row.iter().zip(&self.columns).map(show).collect())
    }
}

impl Check {
    /// Whether it is met, in a word.
    pub(super) fn verdict(&self) -> &'static str {
        if self.is_met() { "met" } else { "MISSED" }
    }
}

fn checks(checks: &[Check]) -> Sheet {
    let columns = vec![
        Column::left("checked"),
        Column::left("paper"),
        Column::right("measured"),
        Column::left("wanted"),
        Column::left("verdict"),
    ];
    let mut sheet = Sheet::new(columns);
    for check in checks {
        let measured = number(check.measured, check.decimals);
        let verdict = check.verdict().to_owned();
        sheet.push(vec![check.what.clone(), check.paper.clone(), measured, check.wanted(), verdict]);
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Run, Wanted};

    #[test]
    fn a_figure_is_told_with_its_checks_and_reasons() {
        let make = |_: &Run| anyhow::bail!("not made here");
        let figure = Figure { id: "x-1", title: "Gain", paper: "it is 4", make };
        let measured = Measured {
            conditions: "2 VMs".into(),
            columns: vec![Heading::words("VM"), Heading::numbers("threads", 1)],
            rows: vec![vec!["a".into(), 1.25.into()], vec!["b".into(), None.into()]],
            panels: Vec::new(),
            checks: vec![Check::new("gain", "400 %", Some(3.5), Wanted::AtLeast(4.0)).because("it is too short")],
        };
        let expected = "\
x-1: Gain
2 VMs
Paper: it is 4

VM  threads
--  -------
a       1.2
b         -

checked  paper  measured  wanted         verdict
-------  -----  --------  -------------  -------
gain     400 %      3.50  at least 4.00  MISSED

gain: it is too short
";
        assert_eq!(Told(&figure, &measured).to_string(), expected);
    }
}
