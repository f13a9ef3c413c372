//! What `docs/guarantees.md` and `docs/configuration.md` say of limits and tests is so.

mod kit;

use kit::{Client, Server, dispatcher, with_admin};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::Path;
use vibra_proxy::log::{Format, Target};
use vibra_proxy::{AccessLog, Limits, Timeouts};

const GUARANTEES: &str = include_str!("../../../docs/guarantees.md");
const CONFIGURATION: &str = include_str!("../../../docs/configuration.md");

/// The rows of the first table of a section, cell by cell.
fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, section) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    let lines = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    lines.skip(2).map(cells).collect()
}

/// What stands between backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// A value as a configuration has it.
fn value(text: &str) -> Value {
    text.parse().unwrap_or_else(|_| Value::from(text))
}

/// Asserts that `key` has this default.
#[track_caller]
fn assert_default<T: DeserializeOwned + Default + PartialEq + Debug>(key: &str, default: &str) {
    let read: T = serde_json::from_value(Value::Object(Map::from_iter([(key.to_owned(), value(default))])))
        .unwrap_or_else(|error| panic!("{key} = {default}: {error}"));
    assert_eq!(read, T::default(), "{key} = {default}");
    // Else it might be a default of nothing.
    assert!(fields::<T>().contains(key), "{key}");
}

/// The keys of a table, as its reader tells them who writes another.
fn fields<T: DeserializeOwned + Debug>() -> BTreeSet<String> {
    let unknown = Value::Object(Map::from_iter([("no such key".to_owned(), Value::Null)]));
    let told = serde_json::from_value::<T>(unknown).unwrap_err().to_string();
    quoted(&told).into_iter().skip(1).map(str::to_owned).collect()
}

/// Whether a file of this crate's tests or sources has the test.
fn is_there(test: &str) -> bool {
    let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{test}: FILE::NAME"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let of = |folder: &str| fs::read_to_string(root.join(folder).join(file).with_extension("rs")).unwrap_or_default();
    ["tests", "src"].into_iter().any(|folder| of(folder).contains(&format!("fn {name}(")))
}

#[test]
fn every_limit_and_time_out_is_told_with_its_default() {
    let mut told = BTreeSet::new();
    for row in table(GUARANTEES, "## Hard to hurt") {
        let [rule, keys, defaults, ..] = &row[..] else { panic!("{row:?}") };
        let (keys, defaults) = (quoted(keys), quoted(defaults));
        assert!(defaults.len() == keys.len() || row[2] == "none", "{rule}: a default for each key");
        told.extend(keys.iter().map(|key| (*key).to_owned()));
        for (key, default) in keys.into_iter().zip(defaults) {
            match key.split_once('.') {
                Some(("limits", key)) => assert_default::<Limits>(key, default),
                Some(("timeouts", key)) => assert_default::<Timeouts>(key, default),
                _ => panic!("{rule}: {key} is of no table"),
            }
        }
    }
    let limits = fields::<Limits>().into_iter().map(|key| format!("limits.{key}"));
    let all: BTreeSet<_> = limits.chain(fields::<Timeouts>().iter().map(|key| format!("timeouts.{key}"))).collect();
    assert_eq!(told, all);
}

#[test]
fn the_configuration_tells_the_same_defaults() {
    let mut told = BTreeSet::new();
    for (heading, is_limits) in [("### `[dispatcher.limits]`", true), ("### `[dispatcher.timeouts]`", false)] {
        for row in table(CONFIGURATION, heading) {
            let keys = quoted(&row[0]);
            told.extend(keys.iter().map(|key| (*key).to_owned()));
            // `none` and `any` are no values; what holds besides stands after the value.
            let defaults = row[1].split(',').map(|default| default.trim().trim_matches('`'));
            for (key, default) in
                keys.into_iter().zip(defaults).filter(|(_, default)| !["none", "any"].contains(default))
            {
                match is_limits {
                    true => assert_default::<Limits>(key, default),
                    false => assert_default::<Timeouts>(key, default),
                }
            }
        }
    }
    assert_eq!(told, fields::<Limits>().union(&fields::<Timeouts>()).cloned().collect());
}

#[test]
fn every_metric_that_is_told_is_there() {
    let server = Server::named("well");
    let folder = tempfile::tempdir().unwrap();
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        with_admin(config);
        let target = Target::File(folder.path().join("access.log"));
        config.access_log = Some(AccessLog { target, format: Format::Combined });
    });
    let metrics = Client::connect(dispatcher.admin().unwrap()).get("/metrics");
    for row in table(GUARANTEES, "## Hard to hurt") {
        assert!(!quoted(&row[3]).is_empty(), "{}: no metric", row[0]);
        for metric in quoted(&row[3]) {
            let (name, label) = metric.split_once('{').unwrap_or((metric, "}"));
            let (name, label) = (format!("vibra_proxy_{name}"), label.trim_end_matches('}'));
            let is = |line: &str| {
                let rest = line.strip_prefix(&name).map(|rest| rest.trim_start_matches("_count"));
                rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
            };
            assert!(metrics.text().lines().any(is), "{metric} in {}", metrics.text());
        }
    }
}

#[test]
fn every_test_that_is_named_is_there() {
    for (heading, column) in [("## Hard to hurt", 4), ("## Correct", 2)] {
        let rows = table(GUARANTEES, heading);
        assert!(rows.len() > 20, "{heading}");
        for row in rows {
            let tests = quoted(&row[column]);
            assert!(!tests.is_empty(), "{}: no test", row[0]);
            for test in tests {
                assert!(is_there(test), "{}: there is no {test}", row[0]);
            }
        }
    }
}
