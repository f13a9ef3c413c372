//! Policies, live: each of them by one line of the configuration, programs, shadows, dry runs, and what the decision log
//! tells afterwards.

mod support;

use serde_json::Value;
use std::{path::Path, sync::Arc, thread};
use support::*;
use vibra_model::Resource;
use vibra_policy::Policies;

/// The line of the configuration that names the policy for bandwidth.
const BANDWIDTH: &str = r#"bandwidth = { policy = "proportional", alpha = 0.5 }"#;
/// The one for memory.
const MEMORY: &str = r#"memory = { policy = "static" }"#;

/// A cluster whose configuration is changed in one place, and logs its decisions.
fn cluster(from: &str, to: &str) -> Cluster {
    let cluster = Cluster::new();
    let text = cluster.folder.read("vibra.toml");
    assert_eq!(text.matches(from).count(), 1, "{from}");
    let text = text.replace(from, to).replace("[allocator]\n", "[allocator]\nlog = \"decisions.jsonl\"\n");
    cluster.folder.write("vibra.toml", text);
    cluster
}

/// The decisions that were logged so far; the last line may still be being written.
fn decisions(folder: &Folder) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.file("decisions.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits for a decision that is as wanted.
#[track_caller]
fn decided(cluster: &Cluster, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || {
        let all = decisions(&cluster.folder);
        let found = all.iter().find(|decision| wanted(decision)).cloned();
        found.ok_or_else(|| all.last().map(ToString::to_string).unwrap_or_default())
    })
}

fn is(decision: &Value, kind: &str) -> bool {
    decision["outcome"]["kind"] == kind
}

/// Starts everything; returns once every VM serves.
fn up(cluster: &Cluster) -> (Running, std::net::SocketAddr) {
    let process = Running::start(&cluster.folder, &["up", "-c", "vibra.toml"]);
    let address = process.address("dispatcher: http://");
    let admin = process.address("dispatcher: admin at http://");
    cluster
        .wait("every VM up, with its allocation applied", |snapshot| snapshot.all_are("up") && snapshot.is_settled());
    wait_for_status(admin, "every VM used", |status| used(status) == VMS);
    (process, address)
}

/// Sends so many seconds of load.
fn load(cluster: &Cluster, address: std::net::SocketAddr, seconds: u32) -> Running {
    cluster.folder.write("load.csv", trace(seconds));
    Running::start(&cluster.folder, &["replay", "load.csv", "--target", &format!("http://{address}")])
}

/// The line that names `policy` for a resource that it can divide, and the line that it replaces.
fn line(policy: &str) -> (&'static str, String) {
    let resources = [(Resource::Bandwidth, BANDWIDTH), (Resource::Memory, MEMORY)];
    let fits = |resource| Policies::shipped().build(policy, resource, serde_json::json!({})).is_ok();
    let (resource, replaced) = resources.into_iter().find(|(resource, _)| fits(*resource)).expect("a resource for it");
    (replaced, format!("{resource} = {{ policy = \"{policy}\" }}"))
}

/// Runs `policy` under load for a while and judges its decisions.
fn runs_live(policy: &str) {
    let (from, to) = line(policy);
    let cluster = Arc::new(cluster(from, &to));
    let (process, address) = up(&cluster);
    let witness = Witness::watching(&cluster);
    let replay = load(&cluster, address, 6);
    let said = replay.end();
    assert!(said.code == 0 || said.code == 4 && said.stderr.contains("fell behind"), "{policy}: {said:?}");
    decided(&cluster, "a decision on measured VMs", |decision| decision["inputs"]["measured"] == VMS);
    witness.attests();
    process.terminate();
    process.end().ended_with(0);
    let decisions = decisions(&cluster.folder);
    let made = decisions.iter().filter(|decision| is(decision, "accepted") || is(decision, "nothing")).count();
    assert!(made >= 5, "{policy} made {made} of {} decisions", decisions.len());
    for decision in &decisions {
        assert!(decision.get("alarms").is_none(), "{policy}: {decision}");
        assert!(!is(decision, "faulty") && !is(decision, "refused"), "{policy}: {decision}");
    }
    // What was decided live is decided again from the log alone.
    let again = vibra(&cluster.folder, &["replay-decisions"]).ended_with(0);
    again.with_stdout(&[" decisions, 0 of them different"]);
}

#[test]
fn every_shipped_policy_runs_live_by_one_line_of_configuration() {
    let names = Policies::shipped().names();
    assert!(names.len() >= 2, "{names:?}");
    thread::scope(|scope| {
        let running: Vec<_> = names.iter().map(|name| (name, scope.spawn(move || runs_live(name)))).collect();
        for (name, running) in running {
            assert!(running.join().is_ok(), "{name} fails: see above");
        }
    });
}

#[test]
fn the_example_in_python_moves_bandwidth_to_where_it_is_used() {
    let program = r#"bandwidth = { policy = "program", command = ["python3", "fair_policy.py"], timeout = "20s" }"#;
    let cluster = cluster(BANDWIDTH, program);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/fair_policy.py");
    cluster.folder.write("fair_policy.py", std::fs::read(example).expect("the example"));
    let (process, address) = up(&cluster);
    let load = load(&cluster, address, 8);
    let moved = decided(&cluster, "a plan of the program", |decision| is(decision, "accepted"));
    let action = &moved["plan"]["actions"][0];
    assert!(action["reason"]["rule"].as_str().is_some_and(|rule| rule.starts_with("it sent ")), "{moved}");
    drop(load);
    process.terminate();
    process.end().ended_with(0);
}

#[test]
fn a_program_that_keeps_failing_is_replaced_by_static_with_an_alarm() {
    let cluster = cluster(BANDWIDTH, r#"bandwidth = { policy = "program", command = ["false"] }"#);
    let (process, _) = up(&cluster);
    let alarm = |decision: &Value, says: &str| decision["alarms"].to_string().contains(says);
    decided(&cluster, "a first failure", |decision| alarm(decision, "is started again in 1 s"));
    process.says("an alarm on standard error", |line| line.contains("has no plan this time").then_some(()));
    decided(&cluster, "the last failure", |decision| alarm(decision, "is replaced by static: 5 failures in a row"));
    process.terminate();
    process.end().ended_with(0);
}

#[test]
fn there_is_a_dry_run_with_a_shadow_and_every_decision_can_be_explained() {
    let cluster = cluster(
        BANDWIDTH,
        "dry_run = true\nstate = \"state.json\"\nshadow = [{ bandwidth = { policy = \"static\", share = \"equal\" } }]\n\
         bandwidth = { policy = \"proportional\", alpha = 0.5, safety = { max_step = 0.05 } }",
    );
    let (process, address) = up(&cluster);
    process.says("that nothing is changed", |line| line.contains("dry run: nothing is changed").then_some(()));
    process.says("the shadow", |line| line.contains("in the shadow: static for bandwidth").then_some(()));
    let before = cluster.snapshot().unwrap().0["vms"].clone();
    let load = load(&cluster, address, 6);
    let planned = decided(&cluster, "a plan", |decision| is(decision, "dry_run"));
    drop(load);
    process.terminate();
    process.end().ended_with(0);
    assert!(planned["shadows"][0]["policies"] == "static for bandwidth", "{planned}");
    assert!(decisions(&cluster.folder).iter().all(|decision| !is(decision, "accepted")));
    assert!(before.as_array().is_some_and(|vms| vms.len() == VMS));
    assert!(cluster.folder.read("state.json").contains("bandwidth:proportional"));

    let id = planned["id"].to_string();
    let told = vibra(&cluster.folder, &["explain", "--decision", &id]).ended_with(0);
    told.with_stdout(&[
        "proportional for bandwidth, static for memory",
        "working set",
        "in proportion to demand, shortened: the largest step",
        "outcome: a dry run: nothing was changed",
        "in the shadow, static for bandwidth",
        "static for bandwidth would have",
    ]);
    let told =
        vibra(&cluster.folder, &["explain", "--decision", &id, "--log", "decisions.jsonl", "--json"]).ended_with(0);
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["decision"]["id"], planned["id"]);
    assert_eq!(told["inputs"].as_array().map(Vec::len), Some(VMS));
    vibra(&cluster.folder, &["explain", "--decision", "999999"]).ended_with(1).with_stderr(&["no decision 999999"]);

    let compare = |policy: &str| vibra(&cluster.folder, &["replay-decisions", "--policy", policy]);
    compare("static").ended_with(0).with_stdout(&["other:    0 plans", "recorded"]);
    compare("bandwidth = { policy = \"proportional\", alpha = 0.0 }").ended_with(0).with_stdout(&["other:"]);
    compare("bandwidth=fair").ended_with(2).with_stderr(&["no policy \"fair\""]);
    compare("disk=static").ended_with(2).with_stderr(&["is no resource"]);
}

/// A program that plans once to move vm1 to the other host, and later, while asked to, back.
const MOVER: &str = r#"
import json, sys
for line in sys.stdin:
    ask = json.loads(line)
    at = {vm["id"]: vm["host"] for vm in ask["vms"]}
    done = ask["state"] is not None
    moves = [] if done else [{"vm": "vm1", "from": at["vm1"], "to": "h2", "reason": "test"}]
    print(json.dumps({"base": ask["base"], "moves": moves, "state": 1}), flush=True)
"#;

fn host_of<'a>(snapshot: &'a Snapshot, vm: &str) -> &'a str {
    let found = snapshot.vms().iter().find(|known| known["id"] == vm).expect("it is registered");
    found["host"].as_str().expect("a host")
}

#[test]
fn a_planned_move_is_made_live_and_the_vm_serves_from_its_new_host() {
    let program =
        r#"bandwidth = { policy = "program", command = ["python3", "mover.py"], timeout = "20s", moves = true }"#;
    let cluster = cluster(BANDWIDTH, program);
    cluster.folder.write("mover.py", MOVER);
    let text = cluster.folder.read("vibra.toml");
    let second = "[[host]]\nname = \"h2\"\ncapacity = { bandwidth = \"100MB/s\", memory = \"1GiB\" }\n";
    cluster.folder.write("vibra.toml", format!("{text}\n{second}"));
    let cluster = Arc::new(cluster);

    let (process, address) = up(&cluster);
    let witness = Witness::watching(&cluster);
    let load = load(&cluster, address, 8);
    let done = decided(&cluster, "that the move is done", |decision| {
        is(decision, "move") && decision["outcome"]["stage"]["done"].is_object()
    });
    assert_eq!((&done["outcome"]["vm"], &done["outcome"]["to"]), (&"vm1".into(), &"h2".into()), "{done}");
    let moved = cluster.wait("vm1 up on h2, settled", |snapshot| {
        host_of(snapshot, "vm1") == "h2" && snapshot.all_are("up") && snapshot.is_settled()
    });
    assert_eq!(host_of(&moved, "vm2"), "h1");
    // Its requests went elsewhere meanwhile.
    let said = load.end();
    assert!(said.code == 0 || said.code == 4 && said.stderr.contains("fell behind"), "{said:?}");
    witness.attests();
    let stages: Vec<_> = decisions(&cluster.folder).into_iter().filter(|decision| is(decision, "move")).collect();
    assert_eq!(stages.iter().map(|stage| &stage["outcome"]["vm"]).collect::<Vec<_>>(), ["vm1", "vm1"]);
    assert_eq!(stages[0]["outcome"]["stage"], "begun");
    let told = vibra(&cluster.folder, &["explain", "--decision", &stages[1]["id"].to_string()]).ended_with(0);
    told.with_stdout(&["VM vm1 moves from host h1 to host h2 by decision", "done after"]);

    // Where it went it stays over a restart.
    process.terminate();
    process.end().ended_with(0);
    let (again, _) = up(&cluster);
    assert_eq!(host_of(&cluster.snapshot().unwrap(), "vm1"), "h2");
    again.terminate();
    again.end().ended_with(0);
}

#[test]
fn dps_moves_the_least_used_vm_off_a_full_host_live() {
    // The hot URL's two servers want twice what they have, and their host has no more.
    let cluster = cluster(BANDWIDTH, r#"bandwidth = { policy = "dps-bank", migrate = true }"#);
    let text = cluster.folder.read("vibra.toml");
    let (bought, has) = (format!("bandwidth = \"{}kB/s\", memory", BOUND / 1000), "bandwidth = \"100MB/s\", memory");
    assert_eq!((text.matches(&bought).count(), text.matches(has).count()), (1, 1));
    let text = text.replace(&bought, "bandwidth = \"240kB/s\", memory").replace(has, "bandwidth = \"240kB/s\", memory");
    let second = "[[host]]\nname = \"h2\"\ncapacity = { bandwidth = \"100MB/s\", memory = \"1GiB\" }\n";
    cluster.folder.write("vibra.toml", format!("{text}\n{second}"));
    let cluster = Arc::new(cluster);

    let (process, address) = up(&cluster);
    let witness = Witness::watching(&cluster);
    let load = load(&cluster, address, 30);
    let done = decided(&cluster, "that a move is done", |decision| {
        is(decision, "move") && decision["outcome"]["stage"]["done"].is_object()
    });
    drop(load);
    let outcome = &done["outcome"];
    assert_eq!((&outcome["from"], &outcome["to"]), (&"h1".into(), &"h2".into()), "{done}");
    let planned = outcome["decision"].to_string();
    vibra(&cluster.folder, &["explain", "--decision", &planned])
        .ended_with(0)
        .with_stdout(&["host h1 -> h2: least used VM of a full host to the least used host"]);
    witness.attests();
    process.terminate();
    process.end().ended_with(0);
}
