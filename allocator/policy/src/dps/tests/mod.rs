//! DPS by the text's examples, by others, and as laws.

mod bank;
mod distributed;
mod laws;
mod migration;

use super::*;
use crate::{Limits, Policy, check, testing::*};
use serde_json::{Value, json};
use vibra_model::{CustomerId, Plan, Resource, Snapshot, Timestamp, UsageWindow, VmState};

/// A host with one CPU.
const CPU: Option<u64> = Some(1000);

fn distributed(parameters: Value) -> Distributed {
    Distributed::build(Resource::Cpu, parameters).unwrap()
}

fn bank(parameters: Value) -> Bank {
    Bank::build(Resource::Cpu, parameters).unwrap()
}

/// VMs with these CPU shares, in thousandths, on hosts without a limit. They are all that was bought.
fn shares(shares: &[u64]) -> Snapshot {
    let seeds: Vec<_> = shares.iter().map(|&share| Seed::up(0, share)).collect();
    cluster_of(Resource::Cpu, shares.iter().sum(), &[None], &seeds)
}

/// VMs with these CPU shares, each on a host of its own with one CPU of which others have half.
fn half_free(shares: &[u64]) -> Snapshot {
    let seeds: Vec<_> = shares.iter().zip(0..).map(|(&share, host)| Seed { host, ..Seed::up(0, share) }).collect();
    cluster_of(Resource::Cpu, shares.iter().sum(), &vec![Some(500); shares.len()], &seeds)
}

fn decide(policy: &mut dyn Policy, directory: &Snapshot, usage: &UsageWindow) -> Plan {
    let shop: CustomerId = id("shop");
    let plan = policy.decide(&View::new(directory, &shop, usage), Timestamp(1_000_000));
    let limits = Limits::of(&shop, &[policy.resource()]).with_moves(policy.moves());
    check(&plan, directory, &limits).unwrap_or_else(|faults| panic!("{faults:?}"));
    plan
}

/// What VMs have after one exchange in which they had used so much CPU.
fn after(policy: &mut dyn Policy, directory: &mut Snapshot, at: u64, used: &[u64]) -> Vec<u64> {
    let plan = decide(policy, directory, &cpu(at, used));
    carry_out(directory, &plan);
    directory.vms().filter_map(|vm| vm.desired(Resource::Cpu)).collect()
}

/// The rules by which VMs were refused something.
fn refused(plan: &Plan) -> Vec<(&str, &str)> {
    plan.refusals.iter().map(|refusal| (refusal.vm.as_str(), &*refusal.reason.rule)).collect()
}

/// What the four nodes of the line use where half of each host's CPU is taken by a program that never rests
/// (section 5.5.4): VM_i needs 1/i of VM_1's time and waits for VM_(i−1), so that VM_1, which gets
/// w_1/(w_1 + 0.5) of its CPU, sets the pace.
fn paced_by_the_first(shares: &[u64]) -> Vec<u64> {
    let first = shares[0] as f64 / (shares[0] as f64 + 500.0) * 1000.0;
    (1..=shares.len()).map(|i| (first / i as f64) as u64).collect()
}

use crate::View;

#[test]
fn what_was_seen_before_or_not_measured_moves_nothing() {
    for policy in [&mut distributed(json!({})) as &mut dyn Policy, &mut bank(json!({}))] {
        let mut directory = shares(&[500, 500]);
        let usage = cpu(1, &[100, 700]);
        let plan = decide(policy, &directory, &usage);
        assert_eq!(plan.actions.len(), 2);
        carry_out(&mut directory, &plan);
        let again = decide(policy, &directory, &usage);
        assert!(again.actions.is_empty());
        let why = "not measured since the last decision: keeps what it has";
        assert_eq!(refused(&again), [("vm0", why), ("vm1", why)]);
    }
}

#[test]
fn who_is_down_takes_no_part_and_its_share_comes_to_the_others() {
    for policy in [&mut distributed(json!({})) as &mut dyn Policy, &mut bank(json!({}))] {
        let mut directory = shares(&[300, 300, 400]);
        set_state(&mut directory, "vm0", VmState::Down);
        let plan = decide(policy, &directory, &cpu(1, &[0, 300, 400]));
        assert_eq!(refused(&plan), [("vm0", "down: keeps its floor")]);
        carry_out(&mut directory, &plan);
        let now: Vec<_> = directory.vms().filter_map(|vm| vm.desired(Resource::Cpu)).collect();
        assert_eq!((now[0], now.iter().sum::<u64>()), (0, 1000), "{now:?}");
    }
}

#[test]
fn parameters_that_make_no_sense_are_refused() {
    for bad in [
        json!({ "withhold": 1.1 }),
        json!({ "withhold": -0.1 }),
        json!({ "expiry": 30 }),
        json!({ "upstream": "everybody" }),
        json!({ "upstream": { "a/b": ["c"] } }),
        json!({ "rates": { "h0": 0.0 } }),
        json!({ "bank": 1 }),
        json!(7),
    ] {
        assert!(Distributed::build(Resource::Cpu, bad.clone()).is_err(), "{bad}");
    }
    for bad in [
        json!({ "rates": { "h0": -2 } }),
        json!({ "pay_every": 0 }),
        json!({ "migrate": 1 }),
        json!({ "withhold": 0.5 }),
    ] {
        assert!(Bank::build(Resource::Cpu, bad.clone()).is_err(), "{bad}");
    }
    let message = Bank::build(Resource::Cpu, json!({ "banker": "usurer" })).unwrap_err().to_string();
    assert!(message.contains("max-min, proportional"), "{message}");
    assert!(distributed(json!({})).restore(&json!({ "newest": {} })).is_err());
    assert!(bank(json!({})).restore(&json!({ "newest": { "vm0": "yesterday" }, "unpaid": 0 })).is_err());
}
