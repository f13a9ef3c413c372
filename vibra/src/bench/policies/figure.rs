//! What a figure is, and how one is told.

use indicatif::ProgressBar;
use serde::Serialize;
use std::{
    fmt::{self, Write},
    path::PathBuf,
};
use vibra_report::{Axis, Column, Plot, Series, Sheet, number};

/// A figure, table or statement of a paper that is made anew.
pub(super) struct Figure {
    /// Its short name on the command line and of its files, such as `fvm-3`: the policy, then the paper's number.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// What the paper states, and where.
    pub(super) paper: &'static str,
    pub(super) make: fn(&Run) -> anyhow::Result<Measured>,
}

/// How a figure is to be made.
pub(super) struct Run {
    /// With shorter runs and fewer points.
    pub(super) quick: bool,
    /// Of everything random.
    pub(super) seed: u64,
    /// Where traces are that are not part of the project.
    pub(super) traces: Option<PathBuf>,
    /// To say what is being done.
    pub(super) bar: ProgressBar,
}

/// What came out.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    /// Under which conditions, for people: the parameters of the workload.
    pub(super) conditions: String,
    pub(super) columns: Vec<Heading>,
    /// A cell for each column; in a document they stand as its rows.
    #[serde(skip)]
    pub(super) rows: Vec<Vec<Cell>>,
    /// What is plotted; each panel has axes of its own.
    pub(super) panels: Vec<Panel>,
    /// What the paper states, held against what was measured.
    pub(super) checks: Vec<Check>,
}

/// A column.
#[derive(Debug, Serialize)]
pub(super) struct Heading {
    pub(super) name: String,
    /// How numbers are shown; `None` for words.
    pub(super) decimals: Option<usize>,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Cell {
    Text(String),
    /// `None`: not measured.
    Number(Option<f64>),
}

/// A diagram.
#[derive(Debug, Serialize)]
pub(super) struct Panel {
    pub(super) title: String,
    /// What is on the axes, with the unit.
    pub(super) x: String,
    pub(super) y: String,
    pub(super) lines: Vec<Line>,
}

/// A line of a diagram.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// A number that a paper states.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) what: String,
    /// The paper's own words or number.
    pub(super) paper: String,
    /// `None`: not measured, which is as bad as out of range.
    pub(super) measured: Option<f64>,
    pub(super) decimals: usize,
    pub(super) wanted: Wanted,
    /// Why what was measured differs, where that is known.
    pub(super) reason: Option<String>,
}

/// What is good enough.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wanted {
    AtLeast(f64),
    AtMost(f64),
    /// From the first to the second.
    Within(f64, f64),
}

impl Panel {
    pub(super) fn plot(&self) -> Plot {
        let series = |line: &Line| Series::new(&line.name, line.points.iter().copied());
        Plot {
            title: self.title.clone(),
            x: Axis::linear(&self.x),
            y: Axis::linear(&self.y),
            series: self.lines.iter().map(series).collect(),
        }
    }
}

impl Heading {
    pub(super) fn words(name: impl Into<String>) -> Heading {
        Heading { name: name.into(), decimals: None }
    }

    pub(super) fn numbers(name: impl Into<String>, decimals: usize) -> Heading {
        Heading { name: name.into(), decimals: Some(decimals) }
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Cell::Number(Some(value))
    }
}

impl From<Option<f64>> for Cell {
    fn from(value: Option<f64>) -> Self {
        Cell::Number(value)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

impl Check {
    /// A check without a known reason to differ, shown with two decimals.
    pub(super) fn new(
        what: impl Into<String>,
        paper: impl Into<String>,
        measured: Option<f64>,
        wanted: Wanted,
    ) -> Check {
        Check { what: what.into(), paper: paper.into(), measured, decimals: 2, wanted, reason: None }
    }

    pub(super) fn with_decimals(self, decimals: usize) -> Check {
        Check { decimals, ..self }
    }

    /// The same check, which says why what was measured differs from the paper.
    pub(super) fn because(self, reason: impl Into<String>) -> Check {
        Check { reason: Some(reason.into()), ..self }
    }

    pub(super) fn is_met(&self) -> bool {
        self.measured.is_some_and(|value| match self.wanted {
            Wanted::AtLeast(least) => value >= least,
            Wanted::AtMost(most) => value <= most,
            Wanted::Within(least, most) => (least..=most).contains(&value),
        })
    }

    fn wanted(&self) -> String {
        let show = |value| number(Some(value), self.decimals);
        match self.wanted {
            Wanted::AtLeast(least) => format!("at least {}", show(least)),
            Wanted::AtMost(most) => format!("at most {}", show(most)),
            Wanted::Within(least, most) => format!("{} to {}", show(least), show(most)),
        }
    }
}

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
    fn sheet(&self) -> Sheet {
        let column = |heading: &Heading| match heading.decimals {
            Some(_) => Column::right(&heading.name),
            None => Column::left(&heading.name),
        };
        let mut sheet = Sheet::new(self.columns.iter().map(column).collect());
        let show = |(cell, heading): (&Cell, &Heading)| match cell {
            Cell::Text(text) => text.clone(),
            Cell::Number(value) => number(*value, heading.decimals.unwrap_or(2)),
        };
        for row in &self.rows {
            sheet.push(row.iter().zip(&self.columns).map(show).collect());
        }
        sheet
    }
}

fn checks(checks: &[Check]) -> String {
    let columns = vec![
        Column::left("checked"),
        Column::left("paper"),
        Column::right("measured"),
        Column::left("wanted"),
        Column::left("verdict"),
    ];
    let mut sheet = Sheet::new(columns);
    for check in checks {
        let verdict = if check.is_met() { "met" } else { "MISSED" };
        let measured = number(check.measured, check.decimals);
        sheet.push(vec![check.what.clone(), check.paper.clone(), measured, check.wanted(), verdict.to_owned()]);
    }
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(text, "{sheet}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(measured: Option<f64>, wanted: Wanted) -> Check {
        Check::new("gain", "400 %", measured, wanted)
    }

    #[test]
    fn what_was_not_measured_is_missed() {
        assert!(check(Some(4.0), Wanted::AtLeast(4.0)).is_met());
        assert!(!check(Some(f64::NAN), Wanted::AtLeast(4.0)).is_met());
        assert!(!check(None, Wanted::AtMost(4.0)).is_met());
        assert!(check(Some(1.0), Wanted::Within(0.5, 1.0)).is_met());
        assert!(!check(Some(1.1), Wanted::Within(0.5, 1.0)).is_met());
    }

    #[test]
    fn a_figure_is_told_with_its_checks_and_reasons() {
        let make = |_: &Run| anyhow::bail!("not made here");
        let figure = Figure { id: "x-1", title: "Gain", paper: "it is 4", make };
        let measured = Measured {
            conditions: "2 VMs".into(),
            columns: vec![Heading::words("VM"), Heading::numbers("threads", 1)],
            rows: vec![vec!["a".into(), 1.25.into()], vec!["b".into(), None.into()]],
            panels: Vec::new(),
            checks: vec![check(Some(3.5), Wanted::AtLeast(4.0)).because("it is too short")],
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
