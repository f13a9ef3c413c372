//! `vibra simulate` and `vibra whatif` from end to end: traces, cluster files, tables, JSON, plots, and what is refused.

mod support;

use serde_json::Value;
use support::*;

const FINE: i32 = 0;
const WRONG: i32 = 2;

/// The file of this project at `path`.
fn own(path: &str) -> String {
    format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))
}

fn json(folder: &Folder, name: &str) -> Value {
    let text = std::fs::read_to_string(folder.path().join(name)).expect("a result");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn every_combination_is_a_row_and_runs_repeat() {
    let folder = Folder::new();
    let (trace, cluster) = (own("traces/worldcup98/wc_day50_4.head.bin"), own("docs/examples/cluster.toml"));
    let simulate = |result: &str| {
        let arguments = ["simulate", "--trace", &trace, "--cluster", &cluster, "--json", result, "--plots", "plots"];
        let ways = ["--algorithm", "url-hash,round-robin", "--replicas", "1,2", "--policy", "static,proportional"];
        vibra(&folder, &[&arguments[..], &ways].concat()).ended_with(FINE)
    };
    let said = simulate("first.json");
    contains_all("the table", &said.stdout, &["url-hash", "round-robin", "proportional", "mean ms"]);
    let first = json(&folder, "first.json");
    let rows = first["rows"].as_array().expect("rows");
    // R = 1 and 2 for url-hash, and round-robin, which has no R; each with two policies.
    assert_eq!(rows.len(), 6, "{rows:#?}");
    for row in rows {
        assert_eq!(row["requests"], rows[0]["requests"], "all see the same requests");
        assert!(row["mean_ms"].as_f64().is_some_and(|mean| mean > 0.0), "{row}");
        assert_eq!(row["refused_plans"], 0);
    }
    assert_eq!(first["command"].as_str().map(|command| command.contains("simulate")), Some(true));
    for plot in ["mean.svg", "time.svg"] {
        let svg = std::fs::read_to_string(folder.path().join("plots").join(plot)).expect("a plot");
        assert!(svg.contains("round-robin, static"), "{svg}");
    }
    simulate("again.json");
    assert_eq!(json(&folder, "again.json")["rows"], first["rows"]);
}

#[test]
fn a_sweep_shows_that_more_bandwidth_never_hurts() {
    let folder = Folder::new();
    let arguments = ["simulate", "--trace", "worldcup", "--seconds", "10", "--json", "result.json"];
    let cluster = own("docs/examples/cluster.toml");
    let sweep = ["--cluster", &cluster, "--policy", "static", "--sweep", "bandwidth=0.6:1.8:0.6"];
    vibra(&folder, &[&arguments[..], &sweep].concat()).ended_with(FINE);
    let result = json(&folder, "result.json");
    let rows = result["rows"].as_array().expect("rows");
    let of = |name: &str| rows.iter().map(|row| row[name].as_f64().expect("a number")).collect::<Vec<_>>();
    assert_eq!(of("at"), [0.6, 1.2, 1.8]);
    assert!(of("mean_ms").is_sorted_by(|more, less| more > less), "{:?}", of("mean_ms"));
}

#[test]
fn what_cannot_be_simulated_is_refused() {
    let folder = Folder::new();
    folder
        .write("static.toml", "[dispatcher]\nlisten = \"127.0.0.1:0\"\n[[server]]\nname = \"a\"\naddress = \"a:1\"\n");
    folder.write("wrong.toml", "[dispatcher]\nlisten = \"127.0.0.1:0\"\ncolour = 1\n");
    let cluster = own("docs/examples/cluster.toml");
    let refused = |arguments: &[&str], why: &str| {
        let whole = [&["simulate", "--trace", "worldcup", "--seconds", "1"], arguments].concat();
        vibra(&folder, &whole).ended_with(WRONG).with_stderr(&[why]);
    };
    refused(&["--cluster", "static.toml"], "no [[customer]]");
    refused(&["--cluster", "wrong.toml"], "wrong.toml:3:1");
    refused(&["--cluster", &cluster, "--algorithm", "random"], "url-hash");
    refused(&["--cluster", &cluster, "--policy", "fair"], "proportional");
    refused(&["--cluster", &cluster, "--replicas", "9"], "routing table");
    refused(&["--cluster", &cluster, "--fault", "vm9:down@1s"], "vm9");
    refused(&["--cluster", &cluster, "--sweep", "colour=1:2:1"], "cannot be swept");
    refused(&["--cluster", &cluster, "--speed", "0"], "speed");
}

#[test]
fn logs_of_several_formats_are_sized_and_advised_on() {
    let folder = Folder::new();
    // The video requests alone do not say how much was sent.
    let (nothing, videos): (&[&str], &[&str]) = (&[], &["--object-size", "1MB"]);
    for (trace, more) in [
        ("traces/apache/access.head.log.gz", nothing),
        ("traces/nasa/nasa_19950801.head.tsv.gz", nothing),
        ("traces/worldcup98/wc_day50_4.head.bin", nothing),
        ("traces/youtube/youtube.parsed.012908.S1.tail.dat.gz", videos),
    ] {
        let log = own(trace);
        let arguments = ["whatif", &log, "--seeds", "2", "--json", "advice.json"];
        let said = vibra(&folder, &[&arguments[..], more].concat()).ended_with(FINE);
        contains_all("the report", &said.stdout, &["The log:", "The cluster:", "Use ", "95 % interval", "open loop"]);
        let advice = json(&folder, "advice.json");
        let rows = advice["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), 14);
        assert_eq!(rows[0]["algorithm"], "least-connection");
        let cost = |row: &Value| row["cost_ms"].as_f64().expect("a cost");
        let name = |row: &Value| match row["replicas"].as_u64() {
            Some(r) => format!("{} R={r} with {}", row["algorithm"], row["policy"]).replace('"', ""),
            None => format!("{} with {}", row["algorithm"], row["policy"]).replace('"', ""),
        };
        let advised = rows.iter().find(|row| name(row) == advice["advice"].as_str().expect("a name"));
        let advised = advised.unwrap_or_else(|| panic!("{} is a row", advice["advice"]));
        assert!(cost(advised) <= cost(&rows[0]), "{trace}: what is advised is no worse than what there is");
        let size = &advice["size"];
        let carried = size["bandwidth_bytes_per_s"].as_f64() > size["peak_bytes_per_s"].as_f64();
        assert!(carried && size["working_set_bytes"].as_u64() > Some(0), "{size}");
    }
}

#[test]
fn a_log_of_this_dispatcher_is_advised_on() {
    let folder = Folder::new();
    let line = |number: u32| {
        let (second, object) = (number / 50, number % 7);
        format!(
            "{{\"time\":\"2026-10-21T12:00:{second:02}.{:06}Z\",\"client\":\"::1\",\"method\":\"GET\",\
             \"target\":\"/{object}?q\",\"version\":\"HTTP/1.1\",\"status\":200,\"sent\":{}}}\n",
            number % 50 * 20_000,
            1_000 * (object + 1)
        )
    };
    folder.write("access.json", (0..1_000).map(line).collect::<String>());
    let said = vibra(&folder, &["whatif", "access.json", "--seeds", "1", "--json", "advice.json"]).ended_with(FINE);
    contains_all("the report", &said.stdout, &["1,000 requests", "7 objects", "Use "]);
}

#[test]
fn a_log_that_says_too_little_is_refused() {
    let folder = Folder::new();
    let videos = own("traces/youtube/youtube.parsed.012908.S1.tail.dat.gz");
    vibra(&folder, &["whatif", &videos]).ended_with(WRONG).with_stderr(&["--object-size"]);
    folder.write("empty.csv", "time,url,status,bytes\n1,/a,304,0\n");
    vibra(&folder, &["whatif", "empty.csv"]).ended_with(WRONG).with_stderr(&["does not say how many bytes"]);
    folder.write("none.csv", "time,url,status,bytes\n");
    vibra(&folder, &["whatif", "none.csv"]).ended_with(WRONG).with_stderr(&["no usable request"]);
    vibra(&folder, &["whatif", "absent.log"]).ended_with(WRONG).with_stderr(&["absent.log"]);
}
