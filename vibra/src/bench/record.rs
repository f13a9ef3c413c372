//! What `vibra bench proxy` leaves behind, and how a rerun of a part of it joins the rest.

use super::compare::{Row, Run};
use anyhow::ensure;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};
use vibra_report::{Document, Provenance};

/// The raw results, as they are kept.
pub(super) type Record = Document<Setup, Run>;

/// What holds for all runs, and what follows from them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Setup {
    pub(super) connections: u64,
    pub(super) rounds: u64,
    pub(super) seconds_a_run: u64,
    pub(super) versions: Vec<String>,
    pub(super) configurations: BTreeMap<String, String>,
    pub(super) comparison: Vec<Row>,
    pub(super) not_measured: Vec<Absence>,
    /// The cells that were measured again later.
    pub(super) reruns: Vec<Rerun>,
}

/// When and how cells were measured again. What stands on top of the document does not hold for them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Rerun {
    pub(super) cells: BTreeSet<String>,
    rounds: u64,
    seconds_a_run: u64,
    #[serde(flatten)]
    provenance: Provenance,
}

/// What has no result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Absence {
    pub(super) cell: String,
    pub(super) side: String,
    pub(super) why: String,
    pub(super) kind: AbsenceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AbsenceKind {
    /// The cell could not be prepared: the side has no run.
    Unprepared,
    /// A run failed. Others may be there.
    Failed {
        /// In this round, from 0.
        round: u64,
    },
}

/// The former record, with the cells of `rerun` in place of its own.
///
/// # Errors
/// If the two cannot stand beside each other.
pub(super) fn merge(former: Record, rerun: Record) -> anyhow::Result<Record> {
    let Document { provenance, mut setup, mut rows } = former;
    let Document { provenance: now, setup: new, rows: runs } = rerun;
    ensure!(
        (setup.connections, &setup.versions) == (new.connections, &new.versions),
        "the former results are of {} connections with {}, these of {} with {}: write these to another file",
        setup.connections,
        setup.versions.join("; "),
        new.connections,
        new.versions.join("; ")
    );
    let cells: BTreeSet<String> = new.comparison.iter().map(|row| row.cell.clone()).collect();
    let stays = |cell: &String| !cells.contains(cell);
    rows.retain(|run| stays(&run.cell));
    rows.extend(runs);
    setup.not_measured.retain(|absence| stays(&absence.cell));
    setup.not_measured.extend(new.not_measured);
    // The table keeps its order.
    let place = setup.comparison.iter().position(|row| !stays(&row.cell)).unwrap_or(setup.comparison.len());
    let mut after = setup.comparison.split_off(place);
    after.retain(|row| stays(&row.cell));
    setup.comparison.extend(new.comparison);
    setup.comparison.append(&mut after);
    for former in &mut setup.reruns {
        former.cells.retain(stays);
    }
    setup.reruns.retain(|former| !former.cells.is_empty());
    let Setup { rounds, seconds_a_run, .. } = new;
    setup.reruns.push(Rerun { cells, rounds, seconds_a_run, provenance: now });
    Ok(Document { provenance, setup, rows })
}

impl Absence {
    pub(super) fn is_of_a_run(&self) -> bool {
        matches!(self.kind, AbsenceKind::Failed { .. })
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Absence { cell, side, why, kind } = self;
        match kind {
            AbsenceKind::Unprepared => write!(f, "{cell}, {side}: could not be prepared: {why}"),
            AbsenceKind::Failed { round } => write!(f, "{cell}, {side}: round {} failed: {why}", round + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::compare::{Better, Measure};

    const SIDES: [&str; 2] = ["vibra", "nginx"];

    fn record(connections: u64, cells: &[&str], cost: f64) -> Record {
        let run = |cell: &str, side: &str, round| Run {
            cell: cell.to_owned(),
            round,
            side: side.to_owned(),
            values: BTreeMap::from([("cost".to_owned(), cost)]),
        };
        let rows: Vec<_> = cells
            .iter()
            .flat_map(|cell| SIDES.map(|side| (0..2).map(move |round| run(cell, side, round))).into_iter().flatten())
            .collect();
        let measure = Measure { name: "cost", better: Better::Lower, limit: Some(1.0), decimals: 1, only_if: None };
        let comparison = cells.iter().map(|cell| Row::new(cell, &measure, &SIDES, &rows).unwrap()).collect();
        let absence = |cell: &&str| Absence {
            cell: (*cell).to_owned(),
            side: "nginx".to_owned(),
            why: format!("{cost}"),
            kind: AbsenceKind::Failed { round: 2 },
        };
        let setup = Setup {
            connections,
            rounds: 2,
            seconds_a_run: 1,
            versions: vec!["one".to_owned()],
            configurations: BTreeMap::new(),
            comparison,
            not_measured: cells.iter().map(absence).collect(),
            reruns: Vec::new(),
        };
        Document { provenance: Provenance::now(Some(format!("{cost}")), None), setup, rows }
    }

    #[test]
    fn a_rerun_takes_the_place_of_its_cells_and_says_so() {
        let merged = merge(record(64, &["a", "b", "c"], 1.0), record(64, &["b", "d"], 2.0)).unwrap();
        let Setup { comparison, not_measured, reruns, .. } = &merged.setup;
        let rows: Vec<_> = comparison.iter().map(|row| (row.cell.as_str(), row.medians[0].1)).collect();
        assert_eq!(rows, [("a", 1.0), ("b", 2.0), ("d", 2.0), ("c", 1.0)]);
        let costs = |cell| merged.rows.iter().filter(|run| run.cell == cell).map(|run| run.values["cost"]).collect();
        assert_eq!((costs("a"), costs("b")), (vec![1.0; 4], vec![2.0; 4]));
        assert_eq!(not_measured.iter().filter(|absence| absence.cell == "b").count(), 1);
        assert_eq!(merged.provenance.commit.as_deref(), Some("1"));
        assert_eq!(reruns.len(), 1);
        assert!(reruns[0].cells.contains("b") && reruns[0].provenance.commit.as_deref() == Some("2"));
        // What is measured a third time was not measured a second time for all that stands there.
        let merged = merge(merged, record(64, &["b", "d"], 3.0)).unwrap();
        assert_eq!(merged.setup.reruns.len(), 1);
        assert_eq!(merged.setup.reruns[0].provenance.commit.as_deref(), Some("3"));
    }

    #[test]
    fn a_merged_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.json");
        let merged = merge(record(64, &["a"], 1.0), record(64, &["b"], 2.0)).unwrap();
        merged.write(&path).unwrap();
        let read = Record::read(&path).unwrap();
        assert_eq!((&read.rows, &read.setup.comparison), (&merged.rows, &merged.setup.comparison));
    }

    #[test]
    fn what_was_measured_in_another_way_is_not_mixed_in() {
        let error = merge(record(64, &["a"], 1.0), record(32, &["a"], 2.0)).unwrap_err().to_string();
        assert!(error.contains("64 connections") && error.contains("of 32"), "{error}");
    }
}
