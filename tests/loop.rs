//! The whole loop in one process: load makes a server hot, the allocator moves bandwidth to it, its host applies that,
//! and never do the servers have more than was bought; and all of it survives a restart.

mod support;

use std::sync::Arc;
use support::*;

/// Starts everything; returns with it where the dispatcher and its admin listen, once every VM serves.
fn up(cluster: &Cluster) -> (Running, std::net::SocketAddr, std::net::SocketAddr) {
    let process = Running::start(&cluster.folder, &["up", "-c", "vibra.toml"]);
    let (address, admin) = (process.address("dispatcher: http://"), process.address("dispatcher: admin at http://"));
    cluster
        .wait("every VM up, with its allocation applied", |snapshot| snapshot.all_are("up") && snapshot.is_settled());
    wait_for_status(admin, "every VM used", |status| used(status) == VMS);
    (process, address, admin)
}

#[test]
fn bandwidth_follows_the_load_within_what_was_bought_and_survives_a_restart() {
    let cluster = Arc::new(Cluster::new());
    let (process, address, admin) = up(&cluster);
    let share = BOUND / VMS as u64;
    let hot = subset(admin, HOT.0);
    assert_eq!(hot.len(), 2, "R");
    let status = vibra(&cluster.folder, &["status"]).ended_with(0);
    status.with_stdout(&["url-hash, hash charsum, R = 2", "customer shop: bandwidth 2.00 MB/s", "vm4"]);
    let witness = Witness::watching(&cluster);

    cluster.folder.write("load.csv", trace(10));
    let target = format!("http://{address}");
    let replay = Running::start(&cluster.folder, &["replay", "load.csv", "--target", &target, "--json", "load.json"]);
    let moved = cluster.wait("bandwidth moved to the hot servers, and in force there", |snapshot| {
        let of_hot: u64 = hot.iter().map(|vm| snapshot.desired_bandwidth(vm)).sum();
        snapshot.desired_bandwidth(&hot[0]) > share * 5 / 4 && of_hot > 3 * share && snapshot.is_settled()
    });
    for vm in moved.vms() {
        assert!(vm["desired"]["resources"]["bandwidth"].as_u64().unwrap() >= FLOOR, "below its floor: {vm}");
    }

    let said = replay.end();
    // A busy machine may send late; that says nothing of the answers.
    assert!(said.code == 0 || said.code == 4 && said.stderr.contains("fell behind"), "{said:?}");
    let load: serde_json::Value = serde_json::from_str(&cluster.folder.read("load.json")).unwrap();
    assert_eq!((&load["requests"], &load["completed"]), (&360.into(), &360.into()), "{load}");
    let before = cluster.wait("the allocation settles", Snapshot::is_settled);
    witness.attests();

    process.terminate();
    process.end().ended_with(0).with_stderr(&["stopping"]);
    vibra(&cluster.folder, &["status"]).ended_with(1).with_stderr(&["asking the dispatcher at"]);
    assert!(cluster.snapshot().is_err(), "nothing of it runs on");

    let (again, _, admin) = up(&cluster);
    let after = cluster.snapshot().expect("the directory answers");
    assert!(after.revision() >= before.revision(), "{} < {}", after.revision(), before.revision());
    assert_eq!(after.0["customers"], before.0["customers"]);
    let allocation = |snapshot: &Snapshot| hot.iter().map(|vm| snapshot.desired_bandwidth(vm)).collect::<Vec<_>>();
    assert_eq!(allocation(&after), allocation(&before), "without new demand there is no reason to move anything");
    assert_eq!(subset(admin, HOT.0), hot, "the same cluster, the same table");
    again.terminate();
    again.end().ended_with(0);
}

#[test]
fn sandpiper_resizes_by_one_line_of_configuration() {
    // Nine tenths of 250 kB/s go to two servers: a quarter of their shares, so that a threshold of 15 % makes them hot.
    let one_line = r#"bandwidth = { policy = "sandpiper", interval = "1s", threshold = 0.15 }"#;
    let cluster = Arc::new(Cluster::with(|configuration| {
        configuration.replace(r#"bandwidth = { policy = "proportional", alpha = 0.5 }"#, one_line)
    }));
    let (process, address, admin) = up(&cluster);
    let (share, hot) = (BOUND / VMS as u64, subset(admin, HOT.0));
    let witness = Witness::watching(&cluster);
    cluster.folder.write("load.csv", trace(20));
    let target = format!("http://{address}");
    let replay = Running::start(&cluster.folder, &["replay", "load.csv", "--target", &target, "--json", "load.json"]);
    let resized = cluster.wait("a hot server has more, and has it in force", |snapshot| {
        hot.iter().any(|vm| snapshot.desired_bandwidth(vm) > share * 5 / 4) && snapshot.is_settled()
    });
    for vm in resized.vms() {
        let (name, bandwidth) = (vm["id"].as_str().unwrap(), vm["desired"]["resources"]["bandwidth"].as_u64().unwrap());
        assert!(bandwidth >= FLOOR && (hot.iter().any(|hot| hot == name) || bandwidth <= share), "{vm}");
    }
    let said = replay.end();
    // A busy machine may send late; that says nothing of the answers.
    assert!(said.code == 0 || said.code == 4 && said.stderr.contains("fell behind"), "{said:?}");
    witness.attests();
    process.terminate();
    process.end().ended_with(0);
}

/// What is bought in the tests of DPS: so little that the hot servers use all that they have at first.
const SCARCE: u64 = 320_000;
/// The least that each server keeps then.
const SCARCE_FLOOR: u64 = 20_000;

/// The same cluster under DPS, by changing one line; and with little to divide, as DPS moves what is short.
fn scarce(policy: &str) -> Arc<Cluster> {
    let change = |text: String, from: &str, to: &str| {
        assert!(text.contains(from), "{from:?} is not in {text}");
        text.replace(from, to)
    };
    Arc::new(Cluster::with(|text| {
        let text = change(text, r#"policy = "proportional", alpha = 0.5"#, &format!("policy = \"{policy}\""));
        let text = change(
            text,
            &format!("bandwidth = \"{}kB/s\", memory = \"{}", BOUND / 1000, MEMORY_BOUND >> 20),
            &format!("bandwidth = \"{}kB/s\", memory = \"{}", SCARCE / 1000, MEMORY_BOUND >> 20),
        );
        change(
            text,
            &format!("floor = {{ bandwidth = \"{}kB/s\"", FLOOR / 1000),
            &format!("floor = {{ bandwidth = \"{}kB/s\"", SCARCE_FLOOR / 1000),
        )
    }))
}

/// Shares go to the servers that lack them, really, within the bound and above the floors.
fn dps_moves_shares(policy: &str) {
    let cluster = scarce(policy);
    let (process, address, admin) = up(&cluster);
    let (share, hot) = (SCARCE / VMS as u64, subset(admin, HOT.0));
    cluster.folder.write("load.csv", trace(20));
    let target = format!("http://{address}");
    let replay = Running::start(&cluster.folder, &["replay", "load.csv", "--target", &target]);
    cluster.wait("shares moved to the hot servers, and in force there", |snapshot| {
        let (applied, vms) = (snapshot.applied("bandwidth"), snapshot.vms());
        assert!(applied <= SCARCE, "{applied} in force, {SCARCE} bought: {}", snapshot.0);
        let least = vms.iter().filter_map(|vm| vm["desired"]["resources"]["bandwidth"].as_u64()).min();
        assert!(least.is_some_and(|least| least >= SCARCE_FLOOR), "below a floor: {}", snapshot.0);
        let of_hot: u64 = hot.iter().map(|vm| snapshot.desired_bandwidth(vm)).sum();
        of_hot > 2 * share * 5 / 4 && snapshot.is_settled()
    });
    drop(replay);
    process.terminate();
    process.end().ended_with(0);
}

#[test]
fn under_dps_distributed_what_idle_servers_have_goes_to_hot_ones() {
    dps_moves_shares("dps-distributed");
}

#[test]
fn under_dps_bank_what_idle_servers_have_goes_to_hot_ones() {
    dps_moves_shares("dps-bank");
}
