//! `vibra simulate --calibrate`: how far simulations are from real runs of `vibra demo`.

mod measured;
mod model;

use crate::{cli, exit::Outcome, progress};
use anyhow::Context;
use indicatif::ProgressBar;
use measured::{Conditions, Group, mean, range};
use model::{Fitted, Model, RUNS};
use serde::Serialize;
use std::path::PathBuf;
use vibra_report::{Column, DemoRow, Document, Provenance, Table, median, number};

/// How near a simulated mean shall be to the real one.
const WITHIN: f64 = 0.15;

/// A row of the demo beside its simulation.
#[derive(Debug, Clone, Serialize)]
struct Compared {
    #[serde(flatten)]
    conditions: Conditions,
    /// What each VM had at first.
    bandwidth_per_vm_bytes_per_s: u64,
    /// Each run.
    measured: Vec<DemoRow>,
    simulated: Vec<DemoRow>,
    /// By how much the simulated mean is above the measured one, as a share of this.
    mean_off: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Setup {
    /// Where the measured rows come from. The constants are fitted to the first file and those of the same conditions.
    measured: Vec<PathBuf>,
    fitted: Fitted,
}

/// Fits the free constant to the first file's conditions, simulates the rows of all, and says how far off each is.
pub(super) fn run(paths: &[PathBuf], args: &cli::Simulate, provenance: Provenance) -> Outcome {
    let groups = measured::read(paths)?;
    let models: Vec<Model<'_>> = groups.iter().map(Model::new).collect::<anyhow::Result<_>>()?;
    let (first, own) = models.first().zip(groups.first()).context("name a result of the demo")?;
    let bar = progress::requests(first.requests() + models.iter().map(Model::requests).sum::<u64>());
    let fitted = fit(first, own, &bar)?;
    let mut rows = Vec::new();
    for (model, group) in models.iter().zip(&groups) {
        rows.extend(compare(group, model.simulate(&fitted, &bar)?));
    }
    bar.finish_and_clear();
    print!("{}", table(&rows));
    println!(
        "\nEach way simulated {RUNS} times. Fitted to the first: {:.3} ms a request beyond all waiting.",
        fitted.latency_ms
    );
    for group in &groups {
        let own: Vec<_> = rows.iter().filter(|row| row.conditions == group.conditions).collect();
        println!("{}", verdict(&group.conditions, &own));
    }
    if let Some(json) = &args.json {
        let setup = Setup { measured: paths.to_vec(), fitted };
        Document { provenance, setup, rows }.write(json)?;
    }
    Ok(())
}

/// The latency that the medians tell: half of the requests and more wait for nothing, so that what they take is what
/// nothing here models.
fn fit(model: &Model<'_>, group: &Group, bar: &ProgressBar) -> anyhow::Result<Fitted> {
    let without = compare(group, model.simulate(&Fitted { latency_ms: 0.0 }, bar)?);
    let p50 = |runs: &[DemoRow]| mean(runs, |run| run.p50_ms);
    let beyond = without.iter().filter_map(|row| Some(p50(&row.measured)? - p50(&row.simulated)?));
    let latency_ms = median(&beyond.collect::<Vec<_>>()).context("no row has a median")?.max(0.0);
    Ok(Fitted { latency_ms })
}

fn compare(group: &Group, simulated: Vec<Vec<DemoRow>>) -> Vec<Compared> {
    let rows = group.rows.iter().zip(simulated).map(|(row, simulated)| {
        let off = |(real, simulated): (f64, f64)| simulated / real - 1.0;
        Compared {
            conditions: group.conditions.clone(),
            bandwidth_per_vm_bytes_per_s: row.bandwidth,
            mean_off: mean(&row.runs, |run| run.mean_ms).zip(mean(&simulated, |run| run.mean_ms)).map(off),
            measured: row.runs.clone(),
            simulated,
        }
    });
    rows.collect()
}

/// How near the rows of the same conditions came.
fn verdict(conditions: &Conditions, rows: &[&Compared]) -> String {
    let offs: Vec<f64> = rows.iter().filter_map(|row| Some(row.mean_off?.abs())).collect();
    let near = offs.iter().filter(|off| **off <= WITHIN).count();
    let means: Vec<_> =
        rows.iter().filter_map(|row| mean(&row.measured, MEAN).zip(mean(&row.simulated, MEAN))).collect();
    let (agree, pairs) = agreement(&means);
    format!(
        "Seed {}, {} s: {near} of {} means are within {:.0} %; the median is off by {:.0} %; of {pairs} pairs of ways {agree} \
         are in the same order.",
        conditions.seed,
        conditions.seconds,
        offs.len(),
        100.0 * WITHIN,
        100.0 * median(&offs).unwrap_or(f64::NAN),
    )
}

/// The mean response time of a row.
const MEAN: fn(&DemoRow) -> Option<f64> = |run| run.mean_ms;

/// Of how many pairs both columns have the same order, and how many pairs there are.
fn agreement(columns: &[(f64, f64)]) -> (usize, usize) {
    let pairs = columns.iter().enumerate().flat_map(|(place, a)| columns[place + 1..].iter().map(move |b| (a, b)));
    let same = pairs.clone().filter(|(a, b)| a.0.total_cmp(&b.0) == a.1.total_cmp(&b.1));
    (same.count(), pairs.count())
}

fn table(rows: &[Compared]) -> Table<12> {
    let mut table = Table::new([
        Column::right("seed"),
        Column::left("algorithm"),
        Column::right("R"),
        Column::left("policy"),
        Column::right("MB/s a VM"),
        Column::right("mean ms"),
        Column::right("of runs"),
        Column::right("simulated"),
        Column::right("of runs"),
        Column::right("off %"),
        Column::right("p99 ms, simulated"),
        Column::right("blocks off %"),
    ]);
    for row in rows {
        let Compared { conditions, bandwidth_per_vm_bytes_per_s: bandwidth, measured, simulated, mean_off } = row;
        let Some(way) = measured.first() else { continue };
        let spread =
            |runs: &[DemoRow]| range(runs, MEAN).map_or("-".to_owned(), |(low, high)| format!("{low:.2} to {high:.2}"));
        let p99 = |runs: &[DemoRow]| number(mean(runs, |run| run.p99_ms), 1);
        let blocks = |runs: &[DemoRow]| mean(runs, |run| run.disk_blocks.map(|blocks| blocks as f64));
        let blocks = blocks(measured).zip(blocks(simulated)).filter(|(real, _)| *real > 0.0);
        table.push([
            conditions.seed.to_string(),
            way.algorithm.clone(),
            way.replicas.map_or("-".into(), |replicas| replicas.to_string()),
            way.policy.clone(),
            number(Some(*bandwidth as f64 / 1e6), 2),
            number(mean(measured, MEAN), 2),
            spread(measured),
            number(mean(simulated, MEAN), 2),
            spread(simulated),
            number(mean_off.map(|off| 100.0 * off), 0),
            format!("{}, {}", p99(measured), p99(simulated)),
            number(blocks.map(|(real, simulated)| 100.0 * (simulated / real - 1.0)), 0),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_in_the_same_order_are_counted() {
        assert_eq!(agreement(&[(1.0, 10.0), (2.0, 30.0), (3.0, 20.0)]), (2, 3));
        assert_eq!(agreement(&[(1.0, 10.0)]), (0, 0));
    }
}
