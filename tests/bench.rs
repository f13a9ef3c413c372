//! `vibra bench proxy` from its start to its table and its document, but short. What it measures on a machine that runs
//! tests means nothing.

mod support;

use std::{process::Command, time::Duration};
use support::*;

/// Two rounds of three proxies, on a machine that may be busy.
const LIMIT: Duration = Duration::from_secs(120);

/// The dissertation's figures, in a build that is not optimised, on a machine that is busy with other tests.
const FIGURES_LIMIT: Duration = Duration::from_secs(300);

/// What the cells of this test start.
const TOOLS: [&str; 6] = ["h2load", "haproxy", "nginx", "openssl", "taskset", "wrk"];

/// What keeps the benchmark from running here.
fn obstacle() -> Option<String> {
    let paths: Vec<_> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let missing = TOOLS.into_iter().find(|tool| !paths.iter().any(|folder| folder.join(tool).is_file()));
    if let Some(tool) = missing {
        return Some(format!("{tool} is not installed"));
    }
    let allowed = std::fs::read_to_string("/proc/self/status").expect("a process has a status");
    let cores = allowed.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("").trim();
    (!cores.starts_with("0-")).then(|| format!("cores 0 and 1 are needed, there is {cores}"))
}

#[test]
fn a_short_run_ends_with_its_table_and_the_raw_results() {
    if let Some(obstacle) = obstacle() {
        eprintln!("skipped: {obstacle}");
        return;
    }
    let folder = Folder::new();
    let choice = ["--only", "cpu,tls-resumed,h2", "--sizes", "1000", "--rounds", "2", "--seconds", "1"];
    let output = ["--connections", "4", "--max-ratio", "1000", "--json", "out.json"];
    let bench = Running::start(&folder, &[&["bench", "proxy"], &choice[..], &output].concat());
    let said = bench.end_within(LIMIT);
    if said.code == 4 && said.stdout.contains("failed: ") {
        eprintln!("no measurement on a machine that is too busy: {}", said.stdout);
        return;
    }
    let said = said.ended_with(0);
    said.with_stdout(&["vibra 0", "HAProxy version", "nginx version", "cpu 1000 B", "CPU us/request", "met"]);

    let document: serde_json::Value = serde_json::from_str(&folder.read("out.json")).expect("JSON");
    for key in ["command", "commit", "machine", "versions", "rounds", "seconds_a_run", "connections"] {
        assert!(document.get(key).is_some(), "no {key}: {document}");
    }
    let rows = document["rows"].as_array().expect("rows");
    for side in ["vibra", "haproxy", "nginx"] {
        let own = rows.iter().filter(|row| row["cell"] == "cpu 1000 B" && row["side"] == side);
        let rounds: Vec<_> = own.clone().map(|row| row["round"].as_u64()).collect();
        assert_eq!(rounds, [Some(0), Some(1)], "{side}");
        assert!(own.clone().all(|row| row["CPU us/request"].as_f64() > Some(1.0)), "{side}: {document}");
        assert!(document["configurations"][side].as_str().is_some_and(|text| text.contains("127.0.1.2:")), "{side}");
    }
    for cell in ["TLS, resumed", "HTTP/2"] {
        let own = rows.iter().filter(|row| row["cell"] == cell && row["side"] == "vibra");
        assert_eq!(own.count(), 2, "{cell}: {document}");
    }
    let compared = document["comparison"].as_array().expect("a comparison");
    let cpu =
        compared.iter().find(|row| row["cell"] == "cpu 1000 B" && row["measure"] == "CPU us/request").expect("a row");
    assert!(cpu["ratio"]["low"].as_f64() <= cpu["ratio"]["high"].as_f64(), "{cpu}");
    assert_eq!(cpu["limit"], 1000.0);
}

#[test]
fn cells_that_are_not_there_and_packages_that_are_missing_are_told() {
    let folder = Folder::new();
    vibra(&folder, &["bench", "proxy", "--only", "cup"]).ended_with(2).with_stderr(&["cup", "churn", "tls-resumed"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_vibra"));
    let output = command.args(["bench", "proxy", "--only", "h2"]).env("PATH", "").output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let packages = ["apt-get install", "haproxy", "nginx-light", "wrk", "nghttp2-client"];
    contains_all("stderr", &String::from_utf8_lossy(&output.stderr), &packages);
}

#[test]
fn a_papers_figure_is_told_with_its_checks_and_kept_with_its_raw_result() {
    let folder = Folder::new();
    let listed = vibra(&folder, &["bench", "policies", "--list"]).ended_with(0);
    listed.with_stdout(&["fvm-3", "five VMs that adapt"]);
    let said = vibra(&folder, &["bench", "policies", "--only", "fvm-3", "--out", "raw"]).ended_with(0);
    let said = said.with_stdout(&["fvm-3: ", "VM 5", "adapted: most over fewest threads", "met"]);
    assert_eq!(folder.read("raw/fvm-3.txt"), said.stdout.trim_end_matches('\n').to_owned() + "\n");
    let document: serde_json::Value = serde_json::from_str(&folder.read("raw/fvm-3.json")).expect("JSON");
    for key in ["command", "commit", "started", "machine", "seed", "paper", "conditions"] {
        assert!(document.get(key).is_some(), "no {key}: {document}");
    }
    let cells = document["rows"].as_array().expect("rows").iter().map(|row| row.as_array().map(Vec::len));
    let columns = document["columns"].as_array().map(Vec::len);
    assert!(cells.clone().count() == 5 && cells.clone().all(|cells| cells == columns), "{document}");
    assert_eq!(document["panels"][0]["lines"].as_array().map(Vec::len), Some(5));
    vibra(&folder, &["bench", "policies", "--only", "fvm-33"]).ended_with(2).with_stderr(&["fvm-33", "fvm-3"]);
}

#[test]
fn the_dissertations_tables_are_repeated_with_one_report() {
    let folder = Folder::new();
    let listed = vibra(&folder, &["figures", "--list"]).ended_with(0);
    listed.with_stdout(&["table-3.1", "3.4", "37 % of", "3.5"]);
    // What it costs and not whether it is as cheap as promised: this machine runs tests.
    let arguments = ["figures", "--quick", "--only", "table,3.4", "--out", "out"];
    let said = Running::start(&folder, &arguments).end_within(FIGURES_LIMIT);
    assert!(matches!(said.code, 0 | 3), "{said:?}");
    let said =
        said.with_stdout(&["table-3.1: ", "charsum", "table-3.2: ", "lard", "objects with 90 % of sub-namespace 2"]);
    assert!(!said.stdout.contains("skipped"), "{said:?}");
    let report = folder.read("out/report.html");
    contains_all("the report", &report, &["table-3.1", "table-3.2", "<svg", "quick look", "--only table,3.4"]);
    let document: serde_json::Value = serde_json::from_str(&folder.read("out/table-3.2.json")).expect("JSON");
    let pages = |row: usize| document["rows"][row][3].as_f64().expect("measured");
    assert!(pages(1) > 1000.0 && pages(2) < 100.0, "LARD remembers, Charsum does not: {document}");
}

#[test]
fn a_figure_on_vms_is_measured_and_ends_when_it_is_asked_to() {
    let folder = Folder::new();
    let arguments = ["figures", "--quick", "--only", "3.6", "--in-process", "--out", "out"];
    let asked = Running::start(&folder, &arguments);
    asked.says("a cluster", |text| text.contains("cluster: servers in this process (as asked for)").then_some(()));
    asked.terminate();
    asked.end_within(FIGURES_LIMIT).ended_with(4).with_stderr(&["3.6: stopped as asked for"]);

    let said = Running::start(&folder, &arguments).end_within(FIGURES_LIMIT);
    // On a machine that is busy with other work every run may be void; then the table says so.
    assert!(matches!(said.code, 0 | 3), "{said:?}");
    let document: serde_json::Value = serde_json::from_str(&folder.read("out/3.6.json")).expect("JSON");
    let rows = document["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 4, "{document}");
    for row in rows {
        let (mean, runs, void) = (&row[2], row[5].as_f64(), row[6].as_f64());
        assert_eq!(mean.is_null(), runs == Some(0.0), "{document}");
        assert!(runs == Some(1.0) || void == Some(2.0), "a run is measured, or void twice: {document}");
    }
    contains_all("the report", &folder.read("out/report.html"), &["Figure 3.6", "every 3 s, to the fastest setting"]);
}
