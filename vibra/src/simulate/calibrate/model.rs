//! The demo's cluster as a simulation.

use super::measured::{Group, Row};
use crate::{
    live::{FLOOR, HOST},
    simulate::{PolicySet, batch, batch::Job, demo_row, workload::Workload},
};
use anyhow::anyhow;
use indicatif::ProgressBar;
use serde::Serialize;
use std::time::Duration;
use vibra_model::{Bytes, BytesPerSec, Customer, HostSpec, Resources, VmSpec};
use vibra_replay::Spread;
use vibra_report::DemoRow;
use vibra_routing::{HashKind, Settings};
use vibra_sim::cluster::{Hardware, Scenario};
use vibra_trace::generate;

/// How often each row is simulated. Ways that decide by what is under way make much of little: who came a moment later
/// may have an object live elsewhere from then on. So each run has requests come a little late, as they really do.
pub(super) const RUNS: u64 = 8;
/// How late, in the mean.
const LATE: Duration = Duration::from_micros(100);

/// The constants that are fitted.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Fitted {
    /// What a request takes beyond all waiting.
    pub(super) latency_ms: f64,
}

/// A group of measured runs, with what they had to serve.
pub(super) struct Model<'a> {
    group: &'a Group,
    /// As it is, and as late as it was in each run.
    workloads: Vec<Workload>,
}

impl<'a> Model<'a> {
    /// The workload of these runs.
    ///
    /// # Errors
    /// If it cannot be generated.
    pub(super) fn new(group: &'a Group) -> anyhow::Result<Self> {
        let conditions = &group.conditions;
        let seed = conditions.seed;
        let length = Duration::from_secs(conditions.seconds + conditions.warm_up_seconds);
        let trace = generate::generate("worldcup", &generate::Params { seed, ..Default::default() })?;
        let whole = Workload::of(trace.window(Duration::ZERO, length).trimmed(), Spread::Poisson { seed });
        let workloads = (0..RUNS).map(|run| whole.late(LATE, run)).collect::<anyhow::Result<_>>()?;
        Ok(Model { group, workloads })
    }

    /// Requests that are simulated when all rows are.
    pub(super) fn requests(&self) -> u64 {
        self.group.rows.len() as u64 * self.workloads.iter().map(|workload| workload.requests).sum::<u64>()
    }

    /// Simulates every row with these constants: its runs.
    pub(super) fn simulate(&self, fitted: &Fitted, bar: &ProgressBar) -> anyhow::Result<Vec<Vec<DemoRow>>> {
        let mut rows = vec![Vec::new(); self.group.rows.len()];
        for workload in &self.workloads {
            let jobs = self.group.rows.iter().map(|row| self.job(row, fitted));
            let outcomes = batch::run(workload, jobs.collect::<Result<_, _>>()?, bar)?;
            for ((runs, row), outcome) in rows.iter_mut().zip(&self.group.rows).zip(&outcomes) {
                let way = &row.runs[0];
                runs.push(demo_row(way.algorithm.parse()?, way.replicas, way.policy.clone(), outcome));
            }
        }
        Ok(rows)
    }

    fn hardware(&self, fitted: &Fitted) -> anyhow::Result<Hardware> {
        let hardware = match self.group.conditions.cluster.as_str() {
            "in-process" => Hardware::in_process(),
            "namespaces" => Hardware::namespaces(),
            other => return Err(anyhow!("VMs of the kind {other:?} are not modelled")),
        };
        Ok(Hardware { latency: Duration::from_secs_f64(fitted.latency_ms / 1e3), ..hardware })
    }

    /// The demo's cluster, for one of its rows.
    fn job(&self, row: &Row, fitted: &Fitted) -> anyhow::Result<Job> {
        let (conditions, way) = (&self.group.conditions, &row.runs[0]);
        let has = |times: u64| Resources {
            bandwidth: Some(BytesPerSec(row.bandwidth * times)),
            memory: Some(Bytes(conditions.memory_per_vm_bytes * times)),
            cpu: None,
        };
        let customer = Customer { id: "demo".parse()?, bounds: has(conditions.vms as u64) };
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
            algorithm: way.algorithm.parse()?,
            hash: HashKind::Charsum,
            replicas: way.replicas.unwrap_or(1),
            ..Settings::default()
        };
        let scenario = Scenario {
            vms: (1..=conditions.vms).map(vm).collect::<anyhow::Result<_>>()?,
            hosts: vec![host],
            settings,
            hardware: self.hardware(fitted)?,
            warm_up: Duration::from_secs(conditions.warm_up_seconds),
            ..Scenario::new(customer.clone())
        };
        let policies: PolicySet = way.policy.parse().map_err(anyhow::Error::msg)?;
        Ok(Job { scenario, policies: policies.build()?, speed: 1.0 })
    }
}
