//! The demo's result: one row for each way to run the cluster.

use crate::{Column, Table, number};
use serde::{Deserialize, Serialize};

/// What holds for all rows of the demo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoSetup {
    /// What the cluster's VMs are: `namespaces` or `in-process`.
    pub cluster: String,
    /// The trace's name, and whether it is recorded, a reconstruction or synthetic.
    pub trace: String,
}

/// The demo's measurements of one way to run the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DemoRow {
    /// The dispatching algorithm.
    pub algorithm: String,
    /// The replication factor R; `None` for an algorithm without one.
    pub replicas: Option<usize>,
    /// The allocation policy.
    pub policy: String,
    /// Requests measured.
    pub requests: u64,
    /// Those without a right answer.
    pub errors: u64,
    /// Mean response time.
    pub mean_ms: Option<f64>,
    /// Median response time.
    pub p50_ms: Option<f64>,
    /// 99th percentile of the response time.
    pub p99_ms: Option<f64>,
    /// Bytes of bodies that clients got a second.
    pub bytes_per_s: Option<f64>,
    /// Blocks that the VMs read from their disks.
    pub disk_blocks: Option<u64>,
    /// Bandwidth that changed hands: the sum of all increases.
    pub bandwidth_moved_bytes_per_s: Option<f64>,
    /// Why the run's numbers are not to be used, if they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub void: Option<String>,
}

/// The demo's table; a void row is marked with `!`.
pub fn demo_table(rows: &[DemoRow]) -> Table<11> {
    let mut table = Table::new([
        Column::left("algorithm"),
        Column::right("R"),
        Column::left("policy"),
        Column::right("requests"),
        Column::right("errors"),
        Column::right("mean ms"),
        Column::right("p50 ms"),
        Column::right("p99 ms"),
        Column::right("MB/s"),
        Column::right("disk blocks"),
        Column::right("moved MB/s"),
    ]);
    let mega = |value: Option<f64>| number(value.map(|value| value / 1e6), 2);
    let count = |value: Option<u64>| number(value.map(|value| value as f64), 0);
    for row in rows {
        let mark = if row.void.is_some() { " !" } else { "" };
        table.push([
            format!("{}{mark}", row.algorithm),
            row.replicas.map_or("-".into(), |replicas| replicas.to_string()),
            row.policy.clone(),
            count(Some(row.requests)),
            count(Some(row.errors)),
            number(row.mean_ms, 1),
            number(row.p50_ms, 1),
            number(row.p99_ms, 1),
            mega(row.bytes_per_s),
            count(row.disk_blocks),
            mega(row.bandwidth_moved_bytes_per_s),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> DemoRow {
        DemoRow {
            algorithm: "url-hash".into(),
            replicas: Some(2),
            policy: "proportional".into(),
            requests: 12_345,
            errors: 0,
            mean_ms: Some(20.04),
            p50_ms: Some(3.0),
            p99_ms: Some(150.0),
            bytes_per_s: Some(2_700_000.0),
            disk_blocks: Some(9000),
            bandwidth_moved_bytes_per_s: Some(1e6),
            void: None,
        }
    }

    #[test]
    fn a_row_has_the_keys_that_programs_look_for() {
        let json = serde_json::to_value(row()).expect("serialisable");
        let mut keys: Vec<_> = json.as_object().expect("an object").keys().map(String::as_str).collect();
        keys.sort_unstable();
        let expected = [
            "algorithm",
            "bandwidth_moved_bytes_per_s",
            "bytes_per_s",
            "disk_blocks",
            "errors",
            "mean_ms",
            "p50_ms",
            "p99_ms",
            "policy",
            "replicas",
            "requests",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn the_table_shows_what_was_measured() {
        let lard = DemoRow {
            algorithm: "lard".into(),
            replicas: None,
            policy: "static".into(),
            disk_blocks: None,
            void: Some("the generator fell behind".into()),
            ..row()
        };
        let expected = "\
algorithm  R  policy        requests  errors  mean ms  p50 ms  p99 ms  MB/s  disk blocks  moved MB/s
---------  -  ------------  --------  ------  -------  ------  ------  ----  -----------  ----------
lard !     -  static          12,345       0     20.0     3.0   150.0  2.70            -        1.00
url-hash   2  proportional    12,345       0     20.0     3.0   150.0  2.70        9,000        1.00
";
        assert_eq!(demo_table(&[lard, row()]).to_string(), expected);
    }
}
