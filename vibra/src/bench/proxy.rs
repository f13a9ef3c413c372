//! `vibra bench proxy`: one dispatcher thread against HAProxy and nginx.
//!
//! Every round runs each cell once for each proxy, in an order that changes from round to round. The proxy under test has
//! a core for itself; the servers and the load generator share the other one. CPU time is that of the proxy's own
//! processes. These machines are noisy, so proxies are compared in pairs within a round.

use super::{
    cells::{self, Cell, Kind},
    compare::{self, Row, Run, SEED, Verdict},
    contender::Contender,
    process,
    record::{self, Absence, AbsenceKind, Record, Setup},
    stage::Stage,
    tools,
};
use crate::{
    cli::BenchProxy,
    exit::{Failure, Outcome},
    progress,
};
use clap::ValueEnum;
use indicatif::ProgressBar;
use std::time::Duration;
use vibra_report::{Document, Provenance};

/// Rounds, and seconds a run, unless told otherwise.
const USUAL: (u64, u64) = (10, 2);
/// The same for a quick look.
const QUICK: (u64, u64) = (3, 1);

/// What came out of all rounds.
#[derive(Default)]
struct Results {
    runs: Vec<Run>,
    absences: Vec<Absence>,
}

/// Measures, prints the table, writes the raw results, and fails where a promise is missed.
pub(crate) fn run(args: &BenchProxy) -> Outcome {
    let (rounds, seconds) = if args.quick { QUICK } else { USUAL };
    let (rounds, seconds) = (args.rounds.unwrap_or(rounds), args.seconds.unwrap_or(seconds));
    let kinds = if args.only.is_empty() { Kind::value_variants() } else { &args.only };
    let http2 = kinds.contains(&Kind::H2).then_some(tools::FOR_HTTP2);
    tools::require(tools::ALWAYS.into_iter().chain(http2))?;
    let provenance = Provenance::now(crate::COMMIT.map(str::to_owned), Some(SEED));
    process::leave_the_proxy_core()?;
    let folder = tempfile::tempdir()?;
    let stage = Stage::set(folder.path(), &args.sizes, Duration::from_secs(seconds), args.connections)?;
    let mut cells = cells::cells(&stage, kinds, &args.sizes);
    let results = measure(&mut cells, rounds);
    let rows = compare(&cells, &results.runs, args.max_ratio)?;
    let versions: Vec<_> = Contender::ALL.into_iter().map(Contender::version).collect();
    println!("{}\n{rounds} rounds of {seconds} s", versions.join("; "));
    let setup = Setup {
        connections: args.connections,
        rounds,
        seconds_a_run: seconds,
        versions,
        configurations: stage.configurations().map(|(name, text)| (name.to_owned(), text)).collect(),
        comparison: rows,
        not_measured: results.absences,
        reruns: Vec::new(),
    };
    let mut record = Document { provenance, setup, rows: results.runs };
    if let Some(path) = args.json.as_ref().filter(|path| args.merge && path.exists()) {
        record = record::merge(Record::read(path)?, record)?;
    }
    let Setup { comparison, not_measured, .. } = &record.setup;
    println!("\n{}", compare::table(comparison));
    for absence in not_measured {
        println!("{absence}");
    }
    if let Some(path) = &args.json {
        record.write(path)?;
    }
    verdict(comparison, not_measured)
}

/// Runs all cells in all rounds. What fails is noted: the rest is worth having.
fn measure(cells: &mut [Box<dyn Cell + '_>], rounds: u64) -> Results {
    let mut results = Results::default();
    let total: u64 = cells.iter().map(|cell| cell.sides().len() as u64 * cell.turns()).sum();
    let bar = progress::steps(total * rounds);
    for cell in cells.iter_mut() {
        bar.set_message(format!("{}: preparing", cell.name()));
        let Err(error) = cell.prepare() else { continue };
        for side in cell.sides() {
            let (why, kind) = (format!("{error:#}"), AbsenceKind::Unprepared);
            results.absences.push(Absence { cell: cell.name(), side: side.to_owned(), why, kind });
        }
    }
    for round in 0..rounds {
        for cell in cells.iter_mut() {
            let turns = cell.turns();
            for turn in 0..turns {
                results.round(cell.as_mut(), round * turns + turn, &bar);
            }
        }
    }
    bar.finish_and_clear();
    results
}

impl Results {
    /// Has each side of a cell run once.
    fn round(&mut self, cell: &mut dyn Cell, round: u64, bar: &ProgressBar) {
        let sides = cell.sides();
        for turn in 0..sides.len() {
            // Whoever comes first in a round comes last in the next: drift of the machine falls on all alike.
            let side = (turn + round as usize) % sides.len();
            self.one(cell, round, (side, sides[side]), bar);
            bar.inc(1);
        }
    }

    fn one(&mut self, cell: &mut dyn Cell, round: u64, (side, name): (usize, &'static str), bar: &ProgressBar) {
        let cell_name = cell.name();
        let skipped = |a: &Absence| a.cell == cell_name && a.side == name && !a.is_of_a_run();
        if self.absences.iter().any(skipped) {
            return;
        }
        bar.set_message(format!("round {}, {cell_name}, {name}", round + 1));
        match cell.run(round, side) {
            Ok(values) => {
                let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                self.runs.push(Run { cell: cell_name, round, side: name.to_owned(), values });
            }
            Err(error) => {
                let (why, kind) = (format!("{error:#}"), AbsenceKind::Failed { round });
                self.absences.push(Absence { cell: cell_name, side: name.to_owned(), why, kind });
            }
        }
    }
}

/// The rows of all cells; `limit` in place of what is promised of each.
fn compare(cells: &[Box<dyn Cell + '_>], runs: &[Run], limit: Option<f64>) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for cell in cells {
        let sides = cell.sides();
        for mut measure in cell.measures() {
            measure.limit = measure.limit.map(|promised| limit.unwrap_or(promised));
            rows.push(Row::new(&cell.name(), &measure, &sides, runs)?);
        }
    }
    Ok(rows)
}

/// What failed is worse than what is slow.
fn verdict(rows: &[Row], absences: &[Absence]) -> Outcome {
    if !absences.is_empty() {
        return Err(Failure::Void(format!("{} measurements failed, as told above", absences.len())));
    }
    let missed = rows.iter().filter(|row| matches!(row.verdict(), Verdict::Missed { .. }));
    let missed: Vec<_> = missed.map(|row| format!("{}, {}", row.cell, row.measure)).collect();
    match missed.len() {
        0 => Ok(()),
        some => Err(Failure::Missed(format!("{some} of {} rows: {}", rows.len(), missed.join("; ")))),
    }
}
