//! Figures that are made anew: what one is, how it is told, and how a book of them is made.
//!
//! A [`Figure`] is made by a function that measures or computes and returns [`Measured`]: a table, panels to plot, and a
//! [`Check`] for each number that the paper states. A [`Book`] makes those that are asked for, and writes for each its
//! raw result, its table and its plots, and for all of them one report.

mod book;
mod report;
mod run;
mod told;

pub(crate) use book::Book;
pub(crate) use run::{Run, Unable};

use serde::Serialize;
use vibra_report::{Axis, Bars, Estimate, Plot, PlotError, Series, number};

/// A figure, table or statement of a paper that is made anew.
pub(crate) struct Figure {
    /// Its short name on the command line and of its files, such as `fvm-3`.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// What the paper states, and where.
    pub(crate) paper: &'static str,
    /// Makes it. The error [`Unable`] says that this machine cannot, and skips the figure.
    pub(crate) make: fn(&Run) -> anyhow::Result<Measured>,
}

/// What came out.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    /// Under which conditions, for people: the parameters of the workload.
    pub(crate) conditions: String,
    pub(crate) columns: Vec<Heading>,
    /// A cell for each column; in a document they stand as its rows.
    #[serde(skip)]
    pub(crate) rows: Vec<Vec<Cell>>,
    /// What is plotted; each panel has axes of its own.
    pub(crate) panels: Vec<Panel>,
    /// What the paper states, held against what was measured.
    pub(crate) checks: Vec<Check>,
}

/// A column.
#[derive(Debug, Serialize)]
pub(crate) struct Heading {
    pub(crate) name: String,
    /// How numbers are shown; `None` for words.
    pub(crate) decimals: Option<usize>,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    Text(String),
    /// `None`: not measured.
    Number(Option<f64>),
}

/// A diagram.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Panel {
    /// Lines over one another.
    Lines { title: String, x: Axis, y: Axis, lines: Vec<Line> },
    /// Lines of means, each point with its confidence interval.
    Estimates { title: String, x: Axis, y: Axis, lines: Vec<EstimatedLine> },
    /// For each group one bar a series; `None` for what was not measured.
    Bars { title: String, y: Axis, groups: Vec<String>, series: Vec<(String, Vec<Option<f64>>)> },
}

/// A line of a diagram.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A line of a diagram whose points are estimates.
#[derive(Debug, Serialize)]
pub(crate) struct EstimatedLine {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, Estimate)>,
}

/// A number that a paper states.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) what: String,
    /// The paper's own words or number.
    pub(crate) paper: String,
    /// `None`: not measured, which is as bad as out of range.
    pub(crate) measured: Option<f64>,
    pub(crate) decimals: usize,
    pub(crate) wanted: Wanted,
    /// Why what was measured differs, where that is known.
    pub(crate) reason: Option<String>,
}

/// What is good enough.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wanted {
    AtLeast(f64),
    AtMost(f64),
    /// From the first to the second.
    Within(f64, f64),
}

impl Panel {
    /// Draws it; `None` where there is nothing to draw, since nothing could be measured.
    ///
    /// # Errors
    /// If a value has no place on its axis.
    pub(crate) fn svg(&self) -> Result<Option<String>, PlotError> {
        let drawn = match self {
            Panel::Lines { title, x, y, lines } => {
                let series = lines.iter().map(|line| Series::new(&line.name, line.points.iter().copied())).collect();
                Plot { title: title.clone(), x: x.clone(), y: y.clone(), series }.svg()
            }
            Panel::Estimates { title, x, y, lines } => {
                let series = lines.iter().map(EstimatedLine::series).collect();
                Plot { title: title.clone(), x: x.clone(), y: y.clone(), series }.svg()
            }
            Panel::Bars { title, y, groups, series } => {
                Bars { title: title.clone(), y: y.clone(), groups: groups.clone(), series: series.clone() }.svg()
            }
        };
        match drawn {
            Err(PlotError::Empty { .. }) => Ok(None),
            drawn => drawn.map(Some),
        }
    }
}

impl EstimatedLine {
    fn series(&self) -> Series {
        let points = self.points.iter().map(|(x, estimate)| (*x, estimate.value));
        let band = self.points.iter().map(|(_, estimate)| (estimate.low, estimate.high));
        Series::new(&self.name, points).with_band(band)
    }
}

impl Heading {
    pub(crate) fn words(name: impl Into<String>) -> Heading {
        Heading { name: name.into(), decimals: None }
    }

    pub(crate) fn numbers(name: impl Into<String>, decimals: usize) -> Heading {
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
    pub(crate) fn new(
        what: impl Into<String>,
        paper: impl Into<String>,
        measured: Option<f64>,
        wanted: Wanted,
    ) -> Check {
        Check { what: what.into(), paper: paper.into(), measured, decimals: 2, wanted, reason: None }
    }

    pub(crate) fn with_decimals(self, decimals: usize) -> Check {
        Check { decimals, ..self }
    }

    /// The same check, which says why what was measured differs from the paper.
    pub(crate) fn because(self, reason: impl Into<String>) -> Check {
        Check { reason: Some(reason.into()), ..self }
    }

    pub(crate) fn is_met(&self) -> bool {
        self.measured.is_some_and(|value| match self.wanted {
            Wanted::AtLeast(least) => value >= least,
            Wanted::AtMost(most) => value <= most,
            Wanted::Within(least, most) => (least..=most).contains(&value),
        })
    }

    /// What is good enough, in words.
    pub(crate) fn wanted(&self) -> String {
        let show = |value| number(Some(value), self.decimals);
        match self.wanted {
            Wanted::AtLeast(least) => format!("at least {}", show(least)),
            Wanted::AtMost(most) => format!("at most {}", show(most)),
            Wanted::Within(least, most) => format!("{} to {}", show(least), show(most)),
        }
    }
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
}
