//! The parts as processes of their own that share one configuration: each may die, and the others go on.

mod support;

use std::{net::SocketAddr, thread::sleep, time::Duration};
use support::*;

/// How long the directory is away: long enough for all who try again to do so seldom.
const OUTAGE: Duration = Duration::from_millis(6_500);

/// A part alone.
fn start(cluster: &Cluster, part: &str) -> Running {
    Running::start(&cluster.folder, &[part, "-c", "vibra.toml"])
}

/// The four parts, each alone.
struct Parts {
    cluster: Cluster,
    /// `None` while it is dead.
    directory: Option<Running>,
    agent: Option<Running>,
    _allocator: Running,
    _dispatcher: Running,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Parts {
    /// All of them; every VM serves.
    fn start() -> Parts {
        let cluster = Cluster::new();
        let part = |name| start(&cluster, name);
        let directory = part("directory");
        directory.address("directory: http://");
        let agent = part("agent");
        agent.says("that a VM runs", |line| line.contains("VM vm4 at").then_some(()));
        let allocator = part("allocator");
        allocator.says("for whom it works", |line| line.contains("customer shop").then_some(()));
        let dispatcher = part("dispatcher");
        let (address, admin) =
            (dispatcher.address("dispatcher: http://"), dispatcher.address("dispatcher: admin at http://"));
        let (directory, agent) = (Some(directory), Some(agent));
        let parts = Parts { cluster, directory, agent, _allocator: allocator, _dispatcher: dispatcher, address, admin };
        parts.wait_until_serving();
        parts
    }

    /// Waits until the directory says that every VM is up and the dispatcher uses them all.
    #[track_caller]
    fn wait_until_serving(&self) {
        self.cluster.wait("every VM up", |snapshot| snapshot.all_are("up") && snapshot.host_state() == "up");
        wait_for_status(self.admin, "every VM used", |status| status["directory"] == "live" && used(status) == VMS);
    }

    #[track_caller]
    fn status_of(&self, url: &str) -> u16 {
        let response = get(self.address, url).unwrap_or_else(|e| panic!("{url}: {e}"));
        assert_eq!(response.end, End::Whole, "{url}");
        response.status
    }
}

#[test]
fn a_host_whose_agent_is_killed_is_not_used_until_it_is_back() {
    let mut parts = Parts::start();
    assert_eq!(parts.status_of(HOT.0), 200);
    parts.agent.take().expect("it runs").kill();
    let down = parts.cluster.wait("the host down, with its VMs", |s| s.host_state() == "down" && s.all_are("down"));
    assert!(down.vms().iter().all(|vm| vm["desired"]["resources"]["bandwidth"] == FLOOR), "{}", down.0);
    wait_for_status(parts.admin, "no VM used", |status| used(status) == 0);
    assert_eq!(parts.status_of(HOT.0), 503);

    parts.agent = Some(start(&parts.cluster, "agent"));
    parts.wait_until_serving();
    assert_eq!(parts.status_of(HOT.0), 200);
}

#[test]
fn the_dispatcher_serves_without_the_directory_and_the_directory_comes_back_as_it_was() {
    let mut parts = Parts::start();
    let before = parts.cluster.wait("the allocation applied", Snapshot::is_settled);
    parts.directory.take().expect("it runs").kill();
    wait_for_status(parts.admin, "the directory lost", |status| status["directory"]["lost"].is_object());
    for i in 0..40 {
        assert_eq!(parts.status_of(&format!("/{i}")), 200, "meanwhile");
    }

    parts.directory = Some(start(&parts.cluster, "directory"));
    let after = parts.cluster.wait("the directory back", |_| true);
    assert!(after.revision() >= before.revision(), "{} < {}", after.revision(), before.revision());
    for part in ["customers", "hosts", "vms"] {
        assert_eq!(after.0[part], before.0[part], "what was acknowledged is there");
    }
    parts.wait_until_serving();
    assert_eq!(parts.status_of(HOT.0), 200);
}

#[test]
fn an_outage_of_the_directory_makes_no_host_look_dead_afterwards() {
    let mut parts = Parts::start();
    let before = parts.cluster.wait("the allocation applied", Snapshot::is_settled);
    parts.directory.take().expect("it runs").kill();
    // Nothing is waited for here: this is what happens, and how long.
    sleep(OUTAGE);
    parts.directory = Some(start(&parts.cluster, "directory"));
    eventually("a report of the host", || {
        let usage = parts.cluster.usage()?;
        if usage.to_string().contains("vm4") { Ok(()) } else { Err(usage.to_string()) }
    });
    let after = parts.cluster.snapshot().expect("the directory answers");
    assert_eq!(after.0["vms"], before.0["vms"], "no VM was taken for dead, none lost what it was allocated");
    parts.wait_until_serving();
}
