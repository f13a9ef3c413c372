//! The demo as a new user runs it, but short.

mod support;

use std::{collections::BTreeSet, time::Duration};
use support::*;

/// Eight runs of some seconds each, on a machine that may be busy.
const LIMIT: Duration = Duration::from_secs(150);

/// What every row of the JSON says, and no more unless the row is void.
const KEYS: [&str; 11] = [
    "algorithm",
    "replicas",
    "policy",
    "requests",
    "errors",
    "mean_ms",
    "p50_ms",
    "p99_ms",
    "bytes_per_s",
    "disk_blocks",
    "bandwidth_moved_bytes_per_s",
];

/// The rows in their order: algorithm, R, policy.
const ROWS: [(&str, Option<u64>, &str); 7] = [
    ("round-robin", None, "static"),
    ("least-connection", None, "static"),
    ("lard", None, "static"),
    ("lard-r", None, "static"),
    ("url-hash", Some(1), "static"),
    ("url-hash", Some(2), "static"),
    ("url-hash", Some(2), "proportional"),
];

#[test]
fn the_demo_ends_with_its_table_and_the_same_as_json() {
    let folder = Folder::new();
    let demo = Running::start(&folder, &["demo", "--in-process", "--seconds", "2", "--json", "demo.json"]);
    let said = demo.end_within(LIMIT);
    // On a machine that is busy with other work the load generator may fall behind; then the demo must say so.
    assert!(said.code == 0 || said.code == 4 && said.stderr.contains("the run is void: "), "{said:?}");
    assert!(said.stderr.contains("servers in this process"), "which kind of cluster: {}", said.stderr);

    let mut lines = said.stdout.lines().skip_while(|line| !line.starts_with("algorithm"));
    let columns =
        ["R", "policy", "requests", "errors", "mean ms", "p50 ms", "p99 ms", "MB/s", "disk blocks", "moved MB/s"];
    contains_all("the table's head", lines.next().unwrap_or_default(), &columns);
    let table: Vec<&str> = lines.skip(1).take_while(|line| !line.is_empty()).collect();
    assert_eq!(table.len(), ROWS.len(), "{}", said.stdout);
    for (line, (algorithm, _, policy)) in table.iter().zip(ROWS) {
        assert!(line.starts_with(algorithm) && line.contains(policy), "{line}");
    }
    contains_all("the conclusion", &said.stdout, &["What to see", "lard (", "least-connection ("]);

    let document: serde_json::Value = serde_json::from_str(&folder.read("demo.json")).expect("JSON");
    assert_eq!((&document["cluster"], &document["seed"]), (&"in-process".into(), &1998.into()));
    for once in ["trace", "commit", "machine"] {
        assert!(document.get(once).is_some(), "no {once}: {document}");
    }
    let rows = document["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), ROWS.len());
    for (row, (algorithm, replicas, policy)) in rows.iter().zip(ROWS) {
        let keys: BTreeSet<&str> = row.as_object().expect("an object").keys().map(String::as_str).collect();
        let void = row.get("void").map(|_| "void");
        assert_eq!(keys, KEYS.into_iter().chain(void).collect());
        assert_eq!(
            (&row["algorithm"], &row["replicas"], &row["policy"]),
            (&algorithm.into(), &replicas.into(), &policy.into())
        );
        assert!(row["requests"].as_u64().is_some_and(|requests| requests > 0), "{row}");
    }
    let moved = |row: &serde_json::Value| row["bandwidth_moved_bytes_per_s"].as_f64().expect("measured");
    assert!(rows[..6].iter().all(|row| moved(row) == 0.0), "static moves nothing");
    let void = rows.iter().any(|row| row.get("void").is_some()) || document["less_bandwidth"].get("void").is_some();
    assert_eq!(void, said.code == 4, "void rows and the exit code agree");
}
