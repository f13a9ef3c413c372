//! The text's experiments, in small.

use super::*;
use serde_json::json;
use std::time::Duration;
use vibra_model::{MilliCpu, Resource};
use vibra_policy::{Bank, Distributed, Policy};

fn bank() -> Box<dyn Policy> {
    Box::new(Bank::build(Resource::Cpu, json!({})).unwrap())
}

fn distributed() -> Box<dyn Policy> {
    Box::new(Distributed::build(Resource::Cpu, json!({})).unwrap())
}

fn exchange(policy: &dyn Fn() -> Box<dyn Policy>) -> Option<Exchange<'_>> {
    Some(Exchange { every: CYCLE, policy })
}

fn seconds(outcome: &Outcome) -> f64 {
    outcome.responses[0].as_secs_f64()
}

#[test]
fn a_program_alone_takes_the_time_of_its_slowest_node() {
    let outcome = run(large(1, MilliCpu(1000), 10, 7, None));
    let slowest = large(1, MilliCpu(1000), 10, 7, None).programs[0].work.iter().copied().max().unwrap();
    assert_eq!(outcome.responses, [10 * slowest]);
}

#[test]
fn a_share_of_a_tenth_beside_a_half_gets_a_sixth() {
    // Node 1 needs 21.5 s; it has 0.1 of 0.6.
    let outcome = run(half_booked(Topology::line(4), MilliCpu(100), 10, None));
    assert!((seconds(&outcome) - 21.5 * 6.0).abs() < 1.0, "{outcome:?}");
}

#[test]
fn two_copies_that_share_hosts_take_the_texts_430_seconds() {
    let outcome = run(two_copies(None));
    assert!(outcome.responses.iter().all(|response| response.abs_diff(Duration::from_secs(430)).as_secs() < 2));
}

#[test]
fn dps_shortens_the_line() {
    let none = seconds(&run(half_booked(Topology::line(4), MilliCpu(200), 10, None)));
    for policy in [&bank as &dyn Fn() -> Box<dyn Policy>, &distributed] {
        let with = seconds(&run(half_booked(Topology::line(4), MilliCpu(200), 10, exchange(policy))));
        assert!(with < 0.8 * none, "{with} s instead of {none} s");
    }
}

#[test]
fn whom_a_node_waits_for_is_inferred() {
    // By default shares go to all that lack something; here all go to the node before.
    let outcome = run(half_booked(Topology::line(4), MilliCpu(200), 10, exchange(&distributed)));
    let totals = outcome.shares.iter().map(|shares| shares.of[0].iter().map(|share| share.0).sum::<u64>());
    assert!(totals.into_iter().all(|total| total == 800));
    let last = &outcome.shares[outcome.shares.len() - 1].of[0];
    assert!(last.is_sorted_by(|a, b| a >= b) && last[0].0 > 300, "in proportion to load: {last:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let once = || run(large(4, MilliCpu(250), 20, 3, exchange(&bank)));
    assert_eq!(once(), once());
    assert_ne!(once(), run(large(4, MilliCpu(250), 20, 4, exchange(&bank))));
}

#[test]
fn a_migrated_vm_does_its_work_elsewhere() {
    let migrating = || -> Box<dyn Policy> {
        Box::new(Bank::build(Resource::Cpu, json!({ "migrate": true, "pay_every": 2 })).unwrap())
    };
    let outcome = run(two_copies(exchange(&migrating)));
    assert!(!outcome.migrations.is_empty());
    let mean = outcome.responses.iter().sum::<Duration>() / 2;
    assert!(mean < Duration::from_secs(320), "without it takes 430 s: {:?}", outcome.responses);
}
