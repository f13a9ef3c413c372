//! What demos measured. Runs under the same conditions belong together: one alone says little of ways that wait for disks.

use crate::{demo, exit::Failure};
use anyhow::anyhow;
use serde::Serialize;
use std::path::PathBuf;
use vibra_report::{DemoRow, Document};

/// What runs have in common that may be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Conditions {
    pub(super) cluster: String,
    pub(super) seed: u64,
    pub(super) vms: usize,
    pub(super) memory_per_vm_bytes: u64,
    pub(super) seconds: u64,
    pub(super) warm_up_seconds: u64,
}

/// Runs under the same conditions.
pub(super) struct Group {
    pub(super) conditions: Conditions,
    pub(super) rows: Vec<Row>,
}

/// One way to serve, in every run.
pub(super) struct Row {
    /// What each VM had at first.
    pub(super) bandwidth: u64,
    pub(super) runs: Vec<DemoRow>,
}

/// Reads the results of `vibra demo --json`, in groups, each where its first file is.
///
/// # Errors
/// If one cannot be read, does not know its seed, or is of another kind of VMs or other rows than the first.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Group>, Failure> {
    let mut groups: Vec<Group> = Vec::new();
    for path in paths {
        let Document { provenance, setup, rows } =
            Document::<demo::Setup, DemoRow>::read(path).map_err(Failure::usage)?;
        let unlike = |what: &str| Failure::usage(anyhow!("{}: {what}", path.display()));
        let conditions = Conditions {
            cluster: setup.common.cluster,
            seed: provenance.seed.ok_or_else(|| unlike("it does not say which seed it had"))?,
            vms: setup.vms,
            memory_per_vm_bytes: setup.memory_per_vm_bytes,
            seconds: setup.seconds,
            warm_up_seconds: setup.warm_up_seconds,
        };
        if groups.first().is_some_and(|first| first.conditions.cluster != conditions.cluster) {
            return Err(unlike("its VMs are of another kind than the first file's: calibrate for one kind at a time"));
        }
        let less = (setup.less_bandwidth.bandwidth_per_vm_bytes_per_s, setup.less_bandwidth.row);
        let rows = rows.into_iter().map(|row| (setup.bandwidth_per_vm_bytes_per_s, row)).chain([less]);
        match groups.iter_mut().find(|group| group.conditions == conditions) {
            None => {
                let rows = rows.map(|(bandwidth, run)| Row { bandwidth, runs: vec![run] }).collect();
                groups.push(Group { conditions, rows });
            }
            Some(group) => {
                let rows: Vec<_> = rows.collect();
                if rows.len() != group.rows.len() || rows.iter().zip(&group.rows).any(|(new, row)| !row.is_like(new)) {
                    return Err(unlike("it has other rows than a file before it with the same conditions"));
                }
                group.rows.iter_mut().zip(rows).for_each(|(row, (_, run))| row.runs.push(run));
            }
        }
    }
    Ok(groups)
}

impl Row {
    fn is_like(&self, (bandwidth, run): &(u64, DemoRow)) -> bool {
        let way = |row: &DemoRow| (row.algorithm.clone(), row.replicas, row.policy.clone());
        self.bandwidth == *bandwidth && way(&self.runs[0]) == way(run)
    }
}

/// The mean of what was measured in runs that count; `None` if there is none.
pub(super) fn mean(runs: &[DemoRow], field: impl Fn(&DemoRow) -> Option<f64>) -> Option<f64> {
    let values = values(runs, field);
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The least and the most of what was measured in runs that count.
pub(super) fn range(runs: &[DemoRow], field: impl Fn(&DemoRow) -> Option<f64>) -> Option<(f64, f64)> {
    let values = values(runs, field);
    Some((values.iter().copied().reduce(f64::min)?, values.iter().copied().reduce(f64::max)?))
}

fn values(runs: &[DemoRow], field: impl Fn(&DemoRow) -> Option<f64>) -> Vec<f64> {
    runs.iter().filter(|run| run.void.is_none()).filter_map(field).collect()
}
