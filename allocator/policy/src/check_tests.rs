//! The checker finds every kind of fault.

use super::*;
use crate::testing::*;
use vibra_model::{Action, AllocationChange, Amount, Command, Customer, Reason, Refusal, UsageReport, VmSpec};

fn limits() -> Limits {
    Limits::of(&id("shop"), &[Resource::Bandwidth])
}

fn directory() -> Snapshot {
    cluster(100, &[Some(120), None], &[Seed::up(10, 50), Seed::up(10, 50)])
}

fn plan(directory: &Snapshot, changes: &[(&str, u64, u64)]) -> Plan {
    let action = |&(vm, from, to): &(&str, u64, u64)| Action {
        change: AllocationChange { vm: id(vm), to: Resource::Bandwidth.amount(to) },
        from,
        reason: Reason::new("test"),
    };
    let actions = changes.iter().map(action).collect();
    Plan { base: directory.revision(), actions, ..Plan::default() }
}

fn faults(plan: &Plan, directory: &Snapshot) -> Vec<Fault> {
    check(plan, directory, &limits()).unwrap_err()
}

#[test]
fn a_good_plan_becomes_a_proposal() {
    let directory = directory();
    let plan = plan(&directory, &[("vm0", 50, 10), ("vm1", 50, 90)]);
    let checked = check(&plan, &directory, &limits()).unwrap();
    assert_eq!((checked.plan(), checked.proposal()), (&plan, plan.proposal()));
}

#[test]
fn another_snapshots_plan_is_refused() {
    let directory = directory();
    let mut plan = plan(&directory, &[("vm0", 49, 50)]);
    plan.base = Revision(1);
    let found = faults(&plan, &directory);
    assert!(matches!(found[..], [Fault::OtherBase { .. }, Fault::WrongFrom { said: 49, has: 50, .. }]), "{found:?}");
}

#[test]
fn the_directorys_rules_are_checked_too() {
    let directory = directory();
    let found = faults(&plan(&directory, &[("vm0", 50, 9), ("vm1", 50, 120), ("vm9", 0, 1)]), &directory);
    let violations: Vec<_> = found.iter().filter(|fault| matches!(fault, Fault::Violation(_))).collect();
    // Below its floor, unknown, above the bound, above the host's capacity.
    assert_eq!((violations.len(), found.len()), (4, 4), "{found:?}");
}

#[test]
fn only_the_customers_vms_and_the_policys_resource_may_change() {
    let mut directory = directory();
    run(&mut directory, Command::PutCustomer(Customer { id: id("other"), bounds: rate(9) }));
    let foreign = VmSpec {
        id: id("foreign"),
        customer: id("other"),
        host: id("h1"),
        address: "10.0.0.9:80".into(),
        order: 0,
        weight: 1,
        floor: rate(1),
        initial: rate(9),
    };
    run(&mut directory, Command::PutVm(foreign));
    let mut plan = plan(&directory, &[("foreign", 9, 8), ("vm0", 50, 40)]);
    plan.actions[1].change.to = Amount::Memory(vibra_model::Bytes(40));
    let found = faults(&plan, &directory);
    assert!(matches!(&found[..2], [Fault::ForeignVm { vm }, Fault::OtherResource { .. }] if *vm == id("foreign")));
    assert!(matches!(&found[2..], [Fault::Violation(Violation::NotManaged { .. })]), "{found:?}");
}

#[test]
fn reasons_hold_numbers_only() {
    let directory = directory();
    let mut plan = plan(&directory, &[("vm0", 50, 40)]);
    plan.actions[0].reason = Reason::new("odd").with("demand", f64::NAN);
    let reason = Reason::new("odd").with("share", f64::INFINITY).with("fine", 1.0);
    plan.refusals.push(Refusal { vm: id("vm1"), resource: Resource::Bandwidth, reason });
    let found = faults(&plan, &directory);
    assert!(matches!(found[..], [Fault::NotFinite { .. }, Fault::NotFinite { .. }]), "{found:?}");
}

#[test]
fn steps_may_be_limited() {
    let directory = directory();
    let limits = Limits { max_step: 0.25, ..limits() };
    let step = |to| check(&plan(&directory, &[("vm0", 50, to)]), &directory, &limits);
    assert!(step(25).is_ok());
    assert_eq!(
        step(24).unwrap_err(),
        [Fault::LargeStep { vm: id("vm0"), resource: Resource::Bandwidth, step: 26, limit: 25 }]
    );
}

/// vm0 and vm1 on h0 and h1 of 120 and 60 each with 50; h2 is empty and has 60.
fn hosts() -> Snapshot {
    let on = |host| Seed { host, ..Seed::up(10, 50) };
    let mut directory = cluster(200, &[Some(120), Some(60), Some(60)], &[on(0), on(1)]);
    for host in ["h0", "h1", "h2"] {
        run(&mut directory, Command::Report(UsageReport { host: id(host), vms: Vec::new() }));
    }
    directory
}

fn moving(directory: &Snapshot, moves: &[(&str, &str, &str)]) -> Plan {
    let step = |&(vm, from, to): &(&str, &str, &str)| Move {
        vm: id(vm),
        from: id(from),
        to: id(to),
        reason: Reason::new("test"),
    };
    Plan { moves: moves.iter().map(step).collect(), ..plan(directory, &[]) }
}

#[test]
fn moves_are_for_those_who_may() {
    let directory = hosts();
    let plan = moving(&directory, &[("vm0", "h0", "h2")]);
    assert_eq!(faults(&plan, &directory), [Fault::Moves { vm: id("vm0") }]);
    assert!(check(&plan, &directory, &limits().with_moves(true)).is_ok());
}

#[test]
fn moves_are_judged_one_after_another() {
    let directory = hosts();
    let may = limits().with_moves(true);
    // A swap by way of a scratch host: each host has room when its turn comes.
    let swap = moving(&directory, &[("vm0", "h0", "h2"), ("vm1", "h1", "h0"), ("vm0", "h2", "h1")]);
    assert!(check(&swap, &directory, &may).is_ok());
    let direct = moving(&directory, &[("vm0", "h0", "h1"), ("vm1", "h1", "h0")]);
    let found = check(&direct, &directory, &may).unwrap_err();
    assert!(matches!(found[..], [Fault::Violation(Violation::CapacityExceeded { .. })]), "{found:?}");
    // What the actions give counts.
    let grown =
        Plan { actions: plan(&directory, &[("vm0", 50, 70)]).actions, ..moving(&directory, &[("vm0", "h0", "h2")]) };
    let found = check(&grown, &directory, &may).unwrap_err();
    assert!(matches!(found[..], [Fault::Violation(Violation::CapacityExceeded { .. })]), "{found:?}");
}

#[test]
fn moves_start_where_the_vm_is_and_end_on_a_host_that_runs() {
    let mut directory = hosts();
    run(&mut directory, Command::HostSilent(id("h2")));
    for (from, to, why) in
        [("h1", "h2", "not there"), ("h0", "h0", "already"), ("h0", "h2", "down"), ("h0", "h9", "not reg")]
    {
        let found =
            check(&moving(&directory, &[("vm0", from, to)]), &directory, &limits().with_moves(true)).unwrap_err();
        assert!(found.len() == 1 && found[0].to_string().contains(why), "{found:?}");
    }
}
