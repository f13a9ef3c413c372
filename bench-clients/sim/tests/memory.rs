//! Memory is bounded by the cluster and its objects, not by the trace.

use std::{sync::Arc, time::Duration};
use vibra_model::{Bytes, BytesPerSec, Customer, HostSpec, Resource, Resources, VmSpec};
use vibra_policy::{Composition, Policies};
use vibra_sim::cluster::{Arrival, Catalogue, Nanos, Scenario, Simulation};
use vibra_trace::Objects;

const OBJECTS: u32 = 1_000;
/// Between two requests.
const APART: Nanos = 1_000_000;

/// The most memory that this process has had so far, in bytes.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its most memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn scenario() -> Scenario {
    let share = Resources { bandwidth: Some(BytesPerSec(2_000_000)), memory: Some(Bytes(20 << 20)), cpu: None };
    let total = Resources { bandwidth: Some(BytesPerSec(8_000_000)), memory: Some(Bytes(80 << 20)), cpu: None };
    let vm = |order: u32| VmSpec {
        id: format!("vm{order}").parse().expect("a name"),
        customer: "shop".parse().expect("a name"),
        host: "h".parse().expect("a name"),
        address: "10.0.0.1:80".into(),
        order,
        weight: 1,
        floor: Resources { bandwidth: Some(BytesPerSec(10_000)), ..Resources::NONE },
        initial: share,
    };
    Scenario {
        vms: (1..=4).map(vm).collect(),
        hosts: vec![HostSpec { id: "h".parse().expect("a name"), capacity: Resources::NONE }],
        interval: Duration::from_millis(100),
        working_set_window: Some(Duration::from_secs(1)),
        ..Scenario::new(Customer { id: "shop".parse().expect("a name"), bounds: total })
    }
}

/// Simulates so many requests, whose load wanders from object to object, so that decisions never end.
fn simulate(requests: u64) {
    let mut objects = Objects::new();
    for object in 0..OBJECTS {
        let id = objects.intern(&format!("/{object}"));
        objects.set_size(id, 5_000);
    }
    let arrivals = (0..requests).map(|number| Arrival {
        at: number * APART,
        bytes: 5_000,
        object: ((number / 500 * 7 + number % 3) % u64::from(OBJECTS)) as u32,
        client: number as u32,
        reads: true,
    });
    let policy = Policies::shipped().build("proportional", Resource::Bandwidth, serde_json::json!({}));
    let policies = Composition::new(vec![policy.expect("a policy")]).expect("one policy");
    let scenario = scenario();
    let mut simulation = Simulation::new(&scenario, policies, Arc::new(Catalogue::new(&objects))).expect("a scenario");
    let outcome = simulation.run(arrivals);
    assert_eq!(outcome.simulated, requests);
    assert!(outcome.allocator.accepted > requests / 2_000, "{:?}", outcome.allocator);
}

#[test]
fn ten_times_the_trace_needs_no_more_memory() {
    simulate(50_000);
    let before = most_memory();
    simulate(500_000);
    let more = most_memory() - before;
    // The trace alone has 16 MB.
    assert!(more < 1 << 20, "{more} bytes more");
}
