//! `vibra simulate --calibrate`: how far simulations are from a real `vibra demo`.

use super::{PolicySet, batch, batch::Job, demo_row, workload::Workload};
use crate::{
    cli, demo,
    exit::{Failure, Outcome},
    live::{FLOOR, HOST},
    progress,
};
use anyhow::Context;
use indicatif::ProgressBar;
use serde::Serialize;
use std::{path::Path, time::Duration};
use vibra_model::{Bytes, BytesPerSec, Customer, HostSpec, Resources, VmSpec};
use vibra_replay::Spread;
use vibra_report::{Column, DemoRow, Document, Provenance, Table, median, number};
use vibra_routing::{HashKind, Settings};
use vibra_sim::cluster::{Hardware, Scenario, Shaper};
use vibra_trace::generate;

/// How near a simulated mean shall be to the real one.
const WITHIN: f64 = 0.15;
/// What of a rate is payload where whole Ethernet frames are shaped: 1,448 of 1,514 bytes.
const PAYLOAD: f64 = 1_448.0 / 1_514.0;
/// The kernel counts throttled reads by slices of this length.
const SLICE: Duration = Duration::from_millis(100);
/// What the kernel reads and keeps.
const PAGE: Bytes = Bytes(4_096);
/// Between which times a read's seek is looked for, in milliseconds.
const SEEK_MS: (f64, f64) = (0.05, 50.0);
/// In how many steps, each of which narrows the logarithm of the range by the golden ratio.
const STEPS: usize = 12;

type Measured = Document<demo::Setup, DemoRow>;

/// The constants that are fitted.
#[derive(Debug, Clone, Copy, Serialize)]
struct Fitted {
    /// What a request takes beyond all waiting.
    latency_ms: f64,
    /// Of a disk read, beside its transfer.
    seek_ms: f64,
}

/// A row of the demo beside its simulation.
#[derive(Debug, Clone, Serialize)]
struct Compared {
    /// What each VM had at first.
    bandwidth_per_vm_bytes_per_s: u64,
    measured: DemoRow,
    simulated: DemoRow,
    /// By how much the simulated mean is above the measured one, as a share of this.
    mean_off: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Setup {
    /// Where the measured rows come from.
    measured: String,
    measured_commit: Option<String>,
    cluster: String,
    fitted: Fitted,
    same_order: bool,
}

/// Fits the free constants to a demo's result, simulates its rows, and says how far off each is.
pub(super) fn run(path: &Path, args: &cli::Simulate, provenance: Provenance) -> Outcome {
    let measured = Measured::read(path).map_err(Failure::usage)?;
    let seed = measured.provenance.seed.unwrap_or(args.seed);
    let length = Duration::from_secs(measured.setup.seconds + measured.setup.warm_up_seconds);
    let trace = generate::generate("worldcup", &generate::Params { seed, ..Default::default() })?;
    let workload = Workload::of(trace.window(Duration::ZERO, length).trimmed(), Spread::Poisson { seed });
    let model = Model { measured: &measured, workload: &workload };
    let bar = progress::requests((STEPS as u64 + 3) * model.rows().len() as u64 * workload.requests);
    let fitted = model.fit(&bar)?;
    let compared = model.compare(&fitted, &bar)?;
    bar.finish_and_clear();
    print!("{}", table(&compared));
    let same_order = order(&compared, |row| row.measured.mean_ms) == order(&compared, |row| row.simulated.mean_ms);
    let offs: Vec<f64> = compared.iter().filter_map(|row| Some(row.mean_off?.abs())).collect();
    let near = offs.iter().filter(|off| **off <= WITHIN).count();
    println!();
    println!(
        "Fitted: {:.3} ms a request beyond all waiting, {:.2} ms a disk read beside its transfer.",
        fitted.latency_ms, fitted.seek_ms
    );
    println!(
        "{near} of {} means are within {:.0} %; the median is off by {:.0} %; the order of the ways is {}.",
        offs.len(),
        100.0 * WITHIN,
        100.0 * median(&offs).unwrap_or(f64::NAN),
        if same_order { "the same" } else { "another" }
    );
    if let Some(json) = &args.json {
        let setup = Setup {
            measured: path.display().to_string(),
            measured_commit: measured.provenance.commit.clone(),
            cluster: measured.setup.common.cluster.clone(),
            fitted,
            same_order,
        };
        Document { provenance, setup, rows: compared }.write(json)?;
    }
    Ok(())
}

struct Model<'a> {
    measured: &'a Measured,
    workload: &'a Workload,
}

impl Model<'_> {
    /// The measured rows with the bandwidth of their VMs.
    fn rows(&self) -> Vec<(u64, &DemoRow)> {
        let setup = &self.measured.setup;
        let less = (setup.less_bandwidth.bandwidth_per_vm_bytes_per_s, &setup.less_bandwidth.row);
        let rows = self.measured.rows.iter().map(|row| (setup.bandwidth_per_vm_bytes_per_s, row));
        rows.chain([less]).collect()
    }

    /// The latency that the medians tell, and the seek that brings the means nearest.
    fn fit(&self, bar: &ProgressBar) -> anyhow::Result<Fitted> {
        // Half of the requests and more wait for nothing: what they take is what nothing here models.
        let without =
            self.compare(&Fitted { latency_ms: 0.0, seek_ms: 1e3 * Hardware::default().disk.seek.as_secs_f64() }, bar)?;
        let beyond = without.iter().filter_map(|row| Some(row.measured.p50_ms? - row.simulated.p50_ms?));
        let latency_ms = median(&beyond.collect::<Vec<_>>()).context("no row has a median")?.max(0.0);
        let cost = |log_seek: f64| {
            let compared = self.compare(&Fitted { latency_ms, seek_ms: log_seek.exp() }, bar)?;
            Ok::<f64, anyhow::Error>(distance(&compared))
        };
        let seek_ms = golden_section((SEEK_MS.0.ln(), SEEK_MS.1.ln()), cost)?.exp();
        Ok(Fitted { latency_ms, seek_ms })
    }

    /// Simulates every row with these constants.
    fn compare(&self, fitted: &Fitted, bar: &ProgressBar) -> anyhow::Result<Vec<Compared>> {
        let rows = self.rows();
        let jobs: Result<Vec<Job>, _> = rows.iter().map(|(bandwidth, row)| self.job(*bandwidth, row, fitted)).collect();
        let outcomes = batch::run(self.workload, jobs?, bar)?;
        let compared = rows.into_iter().zip(&outcomes).map(|((bandwidth, measured), outcome)| {
            let algorithm = measured.algorithm.parse()?;
            let simulated = demo_row(algorithm, measured.replicas, measured.policy.clone(), outcome);
            let mean_off = measured.mean_ms.zip(simulated.mean_ms).map(|(real, simulated)| simulated / real - 1.0);
            Ok(Compared { bandwidth_per_vm_bytes_per_s: bandwidth, measured: measured.clone(), simulated, mean_off })
        });
        compared.collect()
    }

    /// The demo's cluster, for one of its rows.
    fn job(&self, bandwidth: u64, row: &DemoRow, fitted: &Fitted) -> anyhow::Result<Job> {
        let setup = &self.measured.setup;
        let namespaces = setup.common.cluster == "namespaces";
        let payload = |rate: u64| if namespaces { (rate as f64 * PAYLOAD) as u64 } else { rate };
        let mut hardware = Hardware::default();
        if namespaces {
            hardware.shaper = Shaper { depth: Bytes(16 << 10), ..Shaper::default() };
            (hardware.disk.burst, hardware.disk.page) = (SLICE, PAGE);
        }
        hardware.latency = Duration::from_secs_f64(fitted.latency_ms / 1e3);
        hardware.disk.seek = Duration::from_secs_f64(fitted.seek_ms / 1e3);
        let has = |times: u64| Resources {
            bandwidth: Some(BytesPerSec(payload(bandwidth) * times)),
            memory: Some(Bytes(setup.memory_per_vm_bytes * times)),
            cpu: None,
        };
        let customer = Customer { id: "demo".parse()?, bounds: has(setup.vms as u64) };
        let host = HostSpec { id: HOST.parse()?, capacity: Resources::NONE };
        let vm = |order: usize| {
            Ok(VmSpec {
                id: format!("vm{order}").parse()?,
                customer: customer.id.clone(),
                host: host.id.clone(),
                address: "127.0.0.1:80".into(),
                order: order as u32,
                weight: 1,
                floor: Resources { bandwidth: Some(FLOOR), ..Resources::NONE },
                initial: has(1),
            })
        };
        let settings = Settings {
            algorithm: row.algorithm.parse()?,
            hash: HashKind::Charsum,
            replicas: row.replicas.unwrap_or(1),
            ..Settings::default()
        };
        let scenario = Scenario {
            vms: (1..=setup.vms).map(vm).collect::<anyhow::Result<_>>()?,
            hosts: vec![host],
            settings,
            hardware,
            warm_up: Duration::from_secs(setup.warm_up_seconds),
            ..Scenario::new(customer.clone())
        };
        let policies: PolicySet = row.policy.parse().map_err(anyhow::Error::msg)?;
        Ok(Job { scenario, policies: policies.build()?, speed: 1.0 })
    }
}

/// The sum of the squared logarithms of simulated to measured means.
fn distance(compared: &[Compared]) -> f64 {
    compared.iter().filter_map(|row| row.mean_off).map(|off| (1.0 + off).max(1e-9).ln().powi(2)).sum()
}

/// Where a function with one valley is least, by golden section.
fn golden_section<E>((mut low, mut high): (f64, f64), cost: impl Fn(f64) -> Result<f64, E>) -> Result<f64, E> {
    let part = (5f64.sqrt() - 1.0) / 2.0;
    let inner = |low: f64, high: f64| (high - part * (high - low), low + part * (high - low));
    let (mut left, mut right) = inner(low, high);
    let (mut at_left, mut at_right) = (cost(left)?, cost(right)?);
    for _ in 0..STEPS {
        if at_left < at_right {
            (high, right, at_right) = (right, left, at_left);
            left = inner(low, high).0;
            at_left = cost(left)?;
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = inner(low, high).1;
            at_right = cost(right)?;
        }
    }
    Ok((low + high) / 2.0)
}

/// The rows by their means, the best first.
fn order(compared: &[Compared], mean: impl Fn(&Compared) -> Option<f64>) -> Vec<usize> {
    let key = |&index: &usize| mean(&compared[index]).unwrap_or(f64::INFINITY);
    let mut order: Vec<usize> = (0..compared.len()).collect();
    order.sort_by(|a, b| key(a).total_cmp(&key(b)));
    order
}

fn table(compared: &[Compared]) -> Table<10> {
    let mut table = Table::new([
        Column::left("algorithm"),
        Column::right("R"),
        Column::left("policy"),
        Column::right("MB/s a VM"),
        Column::right("mean ms"),
        Column::right("simulated"),
        Column::right("off %"),
        Column::right("p99 ms"),
        Column::right("simulated"),
        Column::right("blocks off %"),
    ]);
    for Compared { bandwidth_per_vm_bytes_per_s: bandwidth, measured, simulated, mean_off } in compared {
        let blocks = measured.disk_blocks.zip(simulated.disk_blocks).filter(|(real, _)| *real > 0);
        table.push([
            measured.algorithm.clone(),
            measured.replicas.map_or("-".into(), |replicas| replicas.to_string()),
            measured.policy.clone(),
            number(Some(*bandwidth as f64 / 1e6), 2),
            number(measured.mean_ms, 2),
            number(simulated.mean_ms, 2),
            number(mean_off.map(|off| 100.0 * off), 0),
            number(measured.p99_ms, 1),
            number(simulated.p99_ms, 1),
            number(blocks.map(|(real, simulated)| 100.0 * (simulated as f64 / real as f64 - 1.0)), 0),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_valley_is_found() {
        let found = golden_section((-3.0, 5.0), |x: f64| Ok::<f64, ()>((x - 1.25).powi(2))).expect("no failure");
        assert!((found - 1.25).abs() < 0.05, "{found}");
    }
}
