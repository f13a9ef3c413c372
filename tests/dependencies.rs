//! Who may know whom: the crates' dependencies are those that `docs/architecture.md` draws, and no others.

use cargo_metadata::{DependencyKind, MetadataCommand};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Each crate with all the crates of this workspace that it may name outside of its tests.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("vibra-model", &[]),
    ("vibra-routing", &["vibra-model"]),
    ("vibra-policy", &["vibra-model"]),
    ("vibra-store", &["vibra-model"]),
    ("vibra-client", &["vibra-model"]),
    ("vibra-server", &["vibra-model", "vibra-store"]),
    ("vibra-proxy", &["vibra-routing", "vibra-client", "vibra-model"]),
    ("vibra-daemon", &["vibra-policy", "vibra-client", "vibra-model"]),
    ("vibra-guest", &[]),
    ("vibra-agent", &["vibra-policy", "vibra-client", "vibra-guest", "vibra-model"]),
    ("vibra-trace", &["vibra-model"]),
    ("vibra-replay", &["vibra-trace", "vibra-model"]),
    ("vibra-report", &["vibra-model"]),
    ("vibra-sim", &["vibra-routing", "vibra-policy", "vibra-trace", "vibra-model"]),
    ("vibra-fuzz", &["vibra-daemon", "vibra-model", "vibra-policy", "vibra-proxy", "vibra-routing", "vibra-trace"]),
];

/// Crates that are pure: they may depend on none of these, so that they know no I/O, clock or randomness.
const PURE: &[&str] = &["vibra-model", "vibra-routing", "vibra-policy"];
const IMPURE: &[&str] = &["tokio", "hyper", "hyper-util", "axum", "rand", "rand_chacha", "redb", "socket2", "libc"];

/// The direct dependencies of every crate of the workspace, development dependencies left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata describes the workspace");
    let normal = |p: &cargo_metadata::Package| {
        let kept = p.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        (p.name.to_string(), kept.map(|d| d.name.clone()).collect())
    };
    metadata.packages.iter().map(normal).collect()
}

#[test]
fn crates_know_only_whom_they_may() {
    let dependencies = dependencies();
    for (name, allowed) in MAY_KNOW {
        let known = dependencies.get(*name).unwrap_or_else(|| panic!("{name} is not in the workspace"));
        let own: BTreeSet<_> = known.iter().filter(|d| d.starts_with("vibra-")).map(String::as_str).collect();
        let allowed: BTreeSet<_> = allowed.iter().copied().collect();
        assert!(own.is_subset(&allowed), "{name} may know {allowed:?}, but names {own:?}");
    }
    // `vibra` puts everything together and may know everyone.
    for name in dependencies.keys().filter(|name| *name != "vibra") {
        assert!(MAY_KNOW.iter().any(|(known, _)| known == name), "{name} is new: say here whom it may know");
    }
}

#[test]
fn pure_crates_cannot_reach_the_world() {
    let dependencies = dependencies();
    for name in PURE {
        let reached: Vec<_> = dependencies[*name].iter().filter(|d| IMPURE.contains(&d.as_str())).collect();
        assert!(reached.is_empty(), "{name} is pure and may not depend on {reached:?}");
    }
}

/// The source files below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

#[test]
fn pure_crates_name_no_clock_and_no_io() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for folder in ["vmdir/model/src", "dispatcher/routing/src", "allocator/policy/src"] {
        for path in sources(&root.join(folder)) {
            let text = std::fs::read_to_string(&path).expect("source is text");
            for world in ["std::fs", "std::net", "std::thread", "std::process", "Instant::now", "SystemTime"] {
                assert!(!text.contains(world), "{} is pure and may not use {world}", path.display());
            }
        }
    }
}

/// The README's `cargo run` names no binary.
#[test]
fn cargo_run_finds_the_one_program() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata describes the workspace");
    let packages = metadata.workspace_default_packages();
    let targets = packages.iter().flat_map(|package| &package.targets).filter(|target| target.is_bin());
    assert_eq!(targets.map(|target| target.name.as_str()).collect::<Vec<_>>(), ["vibra"]);
}
