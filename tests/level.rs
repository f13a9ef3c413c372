//! VMs that adapt how many requests they take at once, from their agent's sensors through the directory to the
//! dispatcher, in real processes.

mod support;

use serde_json::Value;
use std::fmt::Write;
use support::*;

/// What a VM asks for at first.
const INITIAL: u64 = 12;

/// A closed loop's requests, all for the hot object.
fn requests(count: u32) -> String {
    let mut text = "offset,client,method,url,status,bytes\n".to_owned();
    for i in 0..count {
        writeln!(text, "{},c{i},GET,{},200,{}", i / 100, HOT.0, HOT.1).unwrap();
    }
    text
}

/// The level of a VM, as its agent said last.
fn level(snapshot: &Snapshot, name: &str) -> Option<u64> {
    snapshot.vms().iter().find(|vm| vm["id"] == name)?["level"].as_u64()
}

fn server<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["servers"].as_array().and_then(|servers| servers.iter().find(|one| one["name"] == name)).expect("a server")
}

#[test]
fn an_overloaded_vm_lowers_its_level_and_the_dispatcher_keeps_to_it() {
    // Bandwidth is not moved here, so that the hot servers stay hot.
    let line = format!(
        "bandwidth = {{ policy = \"static\" }}\nlevel = {{ policy = \"fvm\", initial = {INITIAL}, period = \"1s\", gamma = 0.8 }}"
    );
    let cluster = Cluster::with(|text| text.replace("bandwidth = { policy = \"proportional\", alpha = 0.5 }", &line));
    vibra(&cluster.folder, &["check"]).ended_with(0).with_stdout(&["level: fvm", "\"initial\":12", "in each agent"]);
    let process = Running::start(&cluster.folder, &["up", "-c", "vibra.toml"]);
    let (address, admin) = (process.address("dispatcher: http://"), process.address("dispatcher: admin at http://"));
    cluster.wait("every VM up", |snapshot| snapshot.all_are("up") && snapshot.is_settled());
    wait_for_status(admin, "every VM used", |status| used(status) == VMS);
    let before = cluster.snapshot().expect("the directory answers");
    assert!(before.vms().iter().all(|vm| vm["level"].is_null()), "nothing was measured: nothing is limited");

    // One after another: that is how fast they are.
    let hot = &subset(admin, HOT.0)[0];
    cluster.folder.write("light.csv", requests(150));
    cluster.folder.write("heavy.csv", requests(3000));
    let target = format!("http://{address}");
    let replay = |trace, at_once| {
        Running::start(&cluster.folder, &["replay", trace, "--target", &target, "--concurrency", at_once])
    };
    let light = replay("light.csv", "2");
    cluster.wait("a level, as long as all is well", |snapshot| level(snapshot, hot) >= Some(INITIAL));
    light.end().ended_with(0);

    // All at once: 12 of them share the bandwidth that one or two had.
    let heavy = replay("heavy.csv", "60");
    let fallen = cluster.wait("the level has fallen", |snapshot| level(snapshot, hot) < Some(INITIAL / 2));
    assert!(level(&fallen, hot) >= Some(1));
    wait_for_status(admin, "no more are in flight than that, and others wait", |status| {
        let server = server(status, hot);
        let (active, limit) = (server["active"].as_u64(), server["limit"].as_u64());
        active <= limit && limit < Some(INITIAL / 2) && server["waiting"].as_u64() > Some(0)
    });
    drop(heavy);
    process.terminate();
    process.end().ended_with(0);
}
