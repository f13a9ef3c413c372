//! What `static` holds to.

use super::*;
use crate::testing::*;
use vibra_model::{CustomerId, Snapshot, UsageWindow};

fn decide(policy: &mut Fixed, directory: &Snapshot) -> Plan {
    let (shop, usage): (CustomerId, _) = (id("shop"), UsageWindow::default());
    policy.decide(&View::new(directory, &shop, &usage), Timestamp(0))
}

fn fixed(share: Share) -> Fixed {
    Fixed::new(Resource::Bandwidth, FixedParameters { share })
}

#[test]
fn kept_shares_come_back_after_a_failure_and_only_then() {
    let mut directory = cluster(100, &[None], &[Seed::up(1, 60), Seed::up(1, 40)]);
    let mut policy = fixed(Share::Kept);
    assert!(decide(&mut policy, &directory).actions.is_empty());
    set_state(&mut directory, "vm0", VmState::Down);
    assert!(decide(&mut policy, &directory).actions.is_empty());
    assert_eq!(desired(&directory), [1, 40]);

    let mut policy = {
        let saved = policy.save();
        let mut other = fixed(Share::Kept);
        other.restore(&saved).unwrap();
        other
    };
    set_state(&mut directory, "vm0", VmState::Warming);
    let plan = decide(&mut policy, &directory);
    carry_out(&mut directory, &plan);
    assert_eq!(desired(&directory), [60, 40]);
    assert!(decide(&mut policy, &directory).actions.is_empty());

    // An operator's change is the new share.
    let mut lower = plan.clone();
    lower.base = directory.revision();
    lower.actions[0].change.to = Resource::Bandwidth.amount(30);
    carry_out(&mut directory, &lower);
    assert!(decide(&mut policy, &directory).actions.is_empty());
}

#[test]
fn what_is_no_longer_free_is_refused_with_the_reason() {
    for capacity in [None, Some(61)] {
        let mut directory = cluster(100, &[capacity, None], &[Seed::up(1, 60), Seed { host: 1, ..Seed::up(1, 40) }]);
        let mut policy = fixed(Share::Kept);
        decide(&mut policy, &directory);
        set_state(&mut directory, "vm0", VmState::Down);
        decide(&mut policy, &directory);
        // Its share goes to another meanwhile: to vm1, or to a foreign VM on its host.
        if capacity.is_none() {
            let change = action(directory.vm(&id("vm1")).unwrap(), 40, Resource::Bandwidth.amount(50), "");
            let plan = Plan { base: directory.revision(), actions: vec![change], ..Plan::default() };
            carry_out(&mut directory, &plan);
        } else {
            let host = vibra_model::HostSpec { id: id("h0"), capacity: rate(59) };
            run(&mut directory, vibra_model::Command::PutHost(host));
        }
        set_state(&mut directory, "vm0", VmState::Up);
        let plan = decide(&mut policy, &directory);
        assert!(plan.actions.is_empty(), "{plan:?}");
        assert_eq!(plan.refusals[0].vm, id("vm0"));
        assert_eq!(plan.refusals[0].reason.facts[..], [("lacking".into(), 59.0)]);
    }
}

#[test]
fn equal_shares_follow_who_is_there() {
    let mut directory = cluster(90, &[None], &[Seed::up(6, 50), Seed::up(6, 20), Seed::up(6, 20)]);
    let mut policy = fixed(Share::Equal);
    for (state, expected) in [(VmState::Up, [30, 30, 30]), (VmState::Down, [6, 42, 42]), (VmState::Up, [30, 30, 30])] {
        set_state(&mut directory, "vm0", state);
        let plan = decide(&mut policy, &directory);
        carry_out(&mut directory, &plan);
        assert_eq!(desired(&directory), expected);
    }
}
