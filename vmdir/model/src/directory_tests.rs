//! The directory's rules, by example and as laws.

use super::*;
use proptest::prelude::*;

fn id<T: std::str::FromStr<Err = IdError>>(text: &str) -> T {
    text.parse().unwrap()
}

fn bandwidth(rate: u64) -> Resources {
    Resources { bandwidth: Some(BytesPerSec(rate)), ..Resources::NONE }
}

fn vm_spec(name: &str, order: u32, host: &str) -> VmSpec {
    VmSpec {
        id: id(name),
        customer: id("shop"),
        host: id(host),
        address: format!("127.0.0.1:{}", 8000 + order),
        order,
        weight: 1,
        floor: bandwidth(1),
        initial: bandwidth(10),
    }
}

fn run(directory: &mut Snapshot, command: Command) -> Result<Vec<Change>, Rejection> {
    let changes = directory.decide(&command)?;
    directory.apply(directory.revision().next(), &changes);
    Ok(changes)
}

/// Customer "shop" with a bound of 40, VMs a, b, c, d with 10 each and a floor of 1, each on its own host of 100.
fn shop() -> Snapshot {
    let mut directory = Snapshot::default();
    run(&mut directory, Command::PutCustomer(Customer { id: id("shop"), bounds: bandwidth(40) })).unwrap();
    for (order, name) in (1..).zip(["a", "b", "c", "d"]) {
        let host = format!("h{order}");
        run(&mut directory, Command::PutHost(HostSpec { id: id(&host), capacity: bandwidth(100) })).unwrap();
        run(&mut directory, Command::PutVm(vm_spec(name, order, &host))).unwrap();
        adopt(&mut directory, name, 10, VmState::Up);
    }
    directory
}

/// The VM's host reports `rate` in force, and that it adopted the newest desired allocation.
fn adopt(directory: &mut Snapshot, name: &str, rate: u64, state: VmState) {
    let vm = directory.vm(&id(name)).unwrap();
    let applied = Applied { resources: bandwidth(rate), generation: vm.desired.generation };
    let told = VmReport { vm: vm.id.clone(), usage: None, applied: Some(applied), state: Some(state), level: None };
    let report = UsageReport { host: vm.host.clone(), vms: vec![told] };
    run(directory, Command::Report(report)).unwrap();
}

fn propose(directory: &mut Snapshot, wishes: &[(&str, u64)]) -> Result<Vec<Change>, Rejection> {
    let change = |&(vm, rate): &(&str, u64)| AllocationChange { vm: id(vm), to: Amount::Bandwidth(BytesPerSec(rate)) };
    let proposal = Proposal { base: directory.revision(), changes: wishes.iter().map(change).collect() };
    run(directory, Command::Propose(proposal))
}

fn violations(result: Result<Vec<Change>, Rejection>) -> Vec<Violation> {
    match result {
        Err(Rejection::Refused { violations }) => violations,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_batch_within_the_bound_is_taken_whole() {
    let mut directory = shop();
    propose(&mut directory, &[("a", 25), ("b", 5), ("c", 5), ("d", 5)]).unwrap();
    let rates: Vec<_> = directory.vms_of(&id("shop")).map(|vm| vm.desired(Resource::Bandwidth)).collect();
    assert_eq!(rates, [Some(25), Some(5), Some(5), Some(5)]);
}

#[test]
fn a_batch_that_breaks_a_rule_changes_nothing_and_names_every_broken_rule() {
    let mut directory = shop();
    let before = directory.clone();
    let found = violations(propose(&mut directory, &[("a", 50), ("b", 0), ("z", 1)]));
    assert!(
        matches!(
            &found[..],
            [
                Violation::BelowFloor { floor: Amount::Bandwidth(BytesPerSec(1)), .. },
                Violation::UnknownVm { .. },
                Violation::BoundExceeded { total: Amount::Bandwidth(BytesPerSec(70)), .. },
            ]
        ),
        "{found:?}"
    );
    assert_eq!(directory, before);
}

#[test]
fn a_host_gives_no_more_than_it_has() {
    let mut directory = shop();
    run(&mut directory, Command::PutHost(HostSpec { id: id("h1"), capacity: bandwidth(12) })).unwrap();
    let found = violations(propose(&mut directory, &[("a", 13), ("b", 7)]));
    assert!(matches!(&found[..], [Violation::CapacityExceeded { .. }]), "{found:?}");
}

#[test]
fn a_proposal_that_has_not_seen_the_last_allocation_is_stale() {
    let mut directory = shop();
    let base = directory.revision();
    propose(&mut directory, &[("a", 9)]).unwrap();
    let change = AllocationChange { vm: id("b"), to: Amount::Bandwidth(BytesPerSec(11)) };
    let late = Command::Propose(Proposal { base, changes: vec![change] });
    assert!(matches!(directory.decide(&late), Err(Rejection::Stale { .. })));
}

#[test]
fn a_report_alone_makes_no_proposal_stale() {
    let mut directory = shop();
    let base = directory.revision();
    adopt(&mut directory, "a", 9, VmState::Up);
    assert!(directory.revision() > base);
    let change = AllocationChange { vm: id("b"), to: Amount::Bandwidth(BytesPerSec(5)) };
    let proposal = Command::Propose(Proposal { base, changes: vec![change] });
    assert_eq!(directory.decide(&proposal).unwrap().len(), 1);
}

#[test]
fn an_increase_waits_for_the_decreases() {
    let mut directory = shop();
    propose(&mut directory, &[("a", 25), ("b", 5), ("c", 5), ("d", 5)]).unwrap();
    let may = |directory: &Snapshot| directory.may_raise(directory.vm(&id("a")).unwrap(), Resource::Bandwidth);
    for lowered in ["b", "c", "d"] {
        assert!(!may(&directory), "before {lowered} is lowered");
        adopt(&mut directory, lowered, 5, VmState::Up);
    }
    assert!(may(&directory));
}

#[test]
fn plans_that_overtake_one_another_do_not_lock_each_other_out() {
    let mut directory = shop();
    propose(&mut directory, &[("a", 20), ("b", 5), ("c", 7), ("d", 8)]).unwrap();
    propose(&mut directory, &[("a", 12), ("b", 15), ("c", 6), ("d", 7)]).unwrap();
    // "a" and "b" may not rise yet, but say that they will not follow the first plan any more.
    adopt(&mut directory, "a", 10, VmState::Up);
    adopt(&mut directory, "b", 10, VmState::Up);
    adopt(&mut directory, "c", 6, VmState::Up);
    adopt(&mut directory, "d", 7, VmState::Up);
    assert!(directory.may_raise(directory.vm(&id("a")).unwrap(), Resource::Bandwidth));
}

#[test]
fn a_failed_vm_keeps_its_floor_and_credits_the_rest() {
    let mut directory = shop();
    run(&mut directory, Command::HostSilent(id("h1"))).unwrap();
    let vm = directory.vm(&id("a")).unwrap();
    assert_eq!((vm.state, vm.desired(Resource::Bandwidth)), (VmState::Down, Some(1)));
    assert_eq!(directory.host(&id("h1")).unwrap().state, HostState::Down);
    propose(&mut directory, &[("b", 19)]).unwrap();
    assert_eq!(violations(propose(&mut directory, &[("b", 20)])).len(), 1);
    assert!(matches!(violations(propose(&mut directory, &[("a", 2), ("b", 9)]))[..], [Violation::VmDown { .. }]));
    // It comes back with what was kept for it.
    adopt(&mut directory, "a", 1, VmState::Up);
    assert_eq!(directory.vm(&id("a")).unwrap().state, VmState::Up);
}

#[test]
fn what_a_failed_vm_had_is_free_once_its_host_has_taken_it_back() {
    let mut directory = shop();
    let may = |directory: &Snapshot| directory.may_raise(directory.vm(&id("b")).unwrap(), Resource::Bandwidth);
    adopt(&mut directory, "a", 10, VmState::Down);
    propose(&mut directory, &[("b", 19)]).unwrap();
    assert!(!may(&directory), "the class of a still lets 10 through");
    adopt(&mut directory, "a", 1, VmState::Down);
    assert!(may(&directory));
    // A host that falls silent in between can confirm nothing.
    adopt(&mut directory, "c", 10, VmState::Down);
    propose(&mut directory, &[("b", 10), ("d", 28)]).unwrap();
    adopt(&mut directory, "b", 10, VmState::Up);
    assert!(!directory.may_raise(directory.vm(&id("d")).unwrap(), Resource::Bandwidth));
    run(&mut directory, Command::HostSilent(id("h3"))).unwrap();
    assert!(directory.may_raise(directory.vm(&id("d")).unwrap(), Resource::Bandwidth));
}

#[test]
fn floors_above_the_bound_are_refused_at_registration() {
    let mut directory = shop();
    run(&mut directory, Command::PutHost(HostSpec { id: id("h9"), capacity: Resources::NONE })).unwrap();
    let spec = VmSpec { floor: bandwidth(38), initial: bandwidth(38), ..vm_spec("e", 5, "h9") };
    let found = violations(run(&mut directory, Command::PutVm(spec)));
    assert!(matches!(found[..], [Violation::FloorsExceedBound { total: Amount::Bandwidth(BytesPerSec(42)), .. }]));
    let found = violations(run(&mut directory, Command::PutVm(vm_spec("e", 4, "h9"))));
    assert!(matches!(found[..], [Violation::PlaceTaken { order: 4, .. }]));
    let lower = Customer { id: id("shop"), bounds: bandwidth(3) };
    assert!(matches!(
        violations(run(&mut directory, Command::PutCustomer(lower)))[..],
        [Violation::FloorsExceedBound { .. }]
    ));
}

#[test]
fn a_second_registration_leaves_the_allocation() {
    let mut directory = shop();
    propose(&mut directory, &[("a", 4)]).unwrap();
    run(&mut directory, Command::PutVm(VmSpec { weight: 3, ..vm_spec("a", 1, "h1") })).unwrap();
    let vm = directory.vm(&id("a")).unwrap();
    assert_eq!((vm.weight, vm.desired(Resource::Bandwidth), vm.state), (3, Some(4), VmState::Up));
}

#[test]
fn only_what_has_no_vms_is_removed() {
    let mut directory = shop();
    assert!(matches!(violations(run(&mut directory, Command::RemoveHost(id("h1"))))[..], [Violation::InUse { .. }]));
    run(&mut directory, Command::RemoveVm(id("a"))).unwrap();
    run(&mut directory, Command::RemoveHost(id("h1"))).unwrap();
    assert!(directory.host(&id("h1")).is_none());
}

#[test]
fn draining_ends_by_an_operator_or_by_failure_but_not_by_a_report() {
    let mut directory = shop();
    run(&mut directory, Command::SetVmState { vm: id("a"), state: VmState::Draining }).unwrap();
    adopt(&mut directory, "a", 10, VmState::Up);
    assert_eq!(directory.vm(&id("a")).unwrap().state, VmState::Draining);
    adopt(&mut directory, "a", 10, VmState::Down);
    assert_eq!(directory.vm(&id("a")).unwrap().state, VmState::Down);
}

#[test]
fn a_level_is_its_hosts_word_and_ends_with_it() {
    let mut directory = shop();
    let level = |n| std::num::NonZeroU32::new(n);
    let tell = |directory: &mut Snapshot, told: u32, state| {
        let told = VmReport { vm: id("a"), usage: None, applied: None, state, level: level(told) };
        run(directory, Command::Report(UsageReport { host: id("h1"), vms: vec![told] })).unwrap();
        directory.vm(&id("a")).unwrap().level
    };
    assert_eq!(tell(&mut directory, 7, Some(VmState::Up)), level(7));
    let base = directory.revision();
    assert_eq!(tell(&mut directory, 4, None), level(4));
    let change = AllocationChange { vm: id("a"), to: Amount::Bandwidth(BytesPerSec(5)) };
    let proposal = Proposal { base, changes: vec![change] };
    assert!(directory.decide(&Command::Propose(proposal)).is_ok(), "it makes no view of allocations stale");
    assert_eq!(tell(&mut directory, 0, None), None, "none is asked for any more");
    tell(&mut directory, 4, None);
    assert_eq!(tell(&mut directory, 4, Some(VmState::Down)), None);
    assert_eq!(tell(&mut directory, 4, Some(VmState::Down)), None);
    tell(&mut directory, 4, Some(VmState::Up));
    run(&mut directory, Command::HostSilent(id("h1"))).unwrap();
    assert_eq!(directory.vm(&id("a")).unwrap().level, None);
}

#[test]
fn tokens_reach_no_further_than_their_role() {
    let directory = shop();
    let change = AllocationChange { vm: id("a"), to: Amount::Bandwidth(BytesPerSec(5)) };
    let propose = Command::Propose(Proposal { base: directory.revision(), changes: vec![change] });
    let told = VmReport { vm: id("a"), usage: None, applied: None, state: None, level: None };
    let report = Command::Report(UsageReport { host: id("h2"), vms: vec![told] });
    assert!(Role::Operator.may(&propose, &directory).is_ok());
    assert!(Role::Customer(id("shop")).may(&propose, &directory).is_ok());
    for role in [Role::Customer(id("other")), Role::Host(id("h1")), Role::Reader] {
        assert!(role.may(&propose, &directory).is_err(), "{role}");
    }
    for role in [Role::Host(id("h1")), Role::Host(id("h2")), Role::Customer(id("shop")), Role::Reader] {
        assert!(role.may(&report, &directory).is_err(), "{role}");
    }
}

#[test]
fn vms_share_the_text_of_the_ids_that_they_name() {
    let mut directory = shop();
    run(&mut directory, Command::PutVm(vm_spec("d", 4, "h1"))).unwrap();
    let back: Snapshot = serde_json::from_str(&serde_json::to_string(&directory).unwrap()).unwrap();
    for snapshot in [directory, back] {
        for vm in snapshot.vms() {
            let (customer, host) = (snapshot.customer(&vm.customer).unwrap(), snapshot.host(&vm.host).unwrap());
            assert!(std::ptr::eq(vm.customer.as_str(), customer.id.as_str()));
            assert!(std::ptr::eq(vm.host.as_str(), host.id.as_str()));
        }
    }
}

#[test]
fn a_snapshot_travels_as_json() {
    let directory = shop();
    let json = serde_json::to_string(&directory).unwrap();
    let back: Snapshot = serde_json::from_str(&json).unwrap();
    assert!(back.vms().eq(directory.vms()) && back.hosts().eq(directory.hosts()));
    assert_eq!(back.revision(), directory.revision());
    assert_eq!(back.vms_of(&id("shop")).count(), 4);
}

/// What may happen to the shop's VMs: a new plan, or the host of one VM carrying out the newest one as far as it may.
#[derive(Debug, Clone)]
enum Step {
    Plan([u64; 4]),
    Act(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let plan = prop::array::uniform4(1..30u64).prop_map(Step::Plan);
    prop::collection::vec(prop_oneof![plan, (0..4usize).prop_map(Step::Act)], 1..60)
}

proptest! {
    /// Section 3.3.2: the total in force is within the bound at every instant, however plans and hosts interleave.
    #[test]
    fn what_is_in_force_never_exceeds_the_bound(steps in steps()) {
        let mut directory = shop();
        let names = ["a", "b", "c", "d"];
        let mut in_force = [10u64; 4];
        for step in steps {
            match step {
                Step::Plan(wishes) => {
                    let accepted = propose(&mut directory, &std::array::from_fn::<_, 4, _>(|i| (names[i], wishes[i])));
                    prop_assert_eq!(accepted.is_ok(), wishes.iter().sum::<u64>() <= 40);
                }
                Step::Act(i) => {
                    let vm = directory.vm(&id(names[i])).unwrap();
                    let desired = vm.desired(Resource::Bandwidth).unwrap();
                    if desired <= in_force[i] || directory.may_raise(vm, Resource::Bandwidth) {
                        in_force[i] = desired;
                    }
                    adopt(&mut directory, names[i], in_force[i], VmState::Up);
                }
            }
            prop_assert!(in_force.iter().sum::<u64>() <= 40, "{:?}", in_force);
        }
        // No interleaving leaves the hosts waiting for each other: two rounds carry the newest plan out.
        for i in [0, 1, 2, 3, 0, 1, 2, 3] {
            let vm = directory.vm(&id(names[i])).unwrap();
            let desired = vm.desired(Resource::Bandwidth).unwrap();
            if desired <= in_force[i] || directory.may_raise(vm, Resource::Bandwidth) {
                in_force[i] = desired;
            }
            adopt(&mut directory, names[i], in_force[i], VmState::Up);
        }
        let desired: Vec<_> = directory.vms().map(|vm| vm.desired(Resource::Bandwidth).unwrap()).collect();
        prop_assert_eq!(&in_force[..], &desired[..]);
    }
}

fn moving(directory: &mut Snapshot, name: &str, to: &str) -> Result<Vec<Change>, Rejection> {
    let command = Command::MoveVm { base: directory.revision(), vm: id(name), to: id(to) };
    run(directory, command)
}

/// [`shop`], whose hosts can take over one another's VMs.
fn pool() -> Snapshot {
    let mut directory = shop();
    for host in ["h1", "h2", "h3", "h4"] {
        run(&mut directory, Command::JoinPool { host: id(host), pool: id("here") }).unwrap();
    }
    directory
}

fn on(directory: &Snapshot, host: &str) -> Vec<String> {
    directory.vms_on(&id(host)).map(|vm| vm.id.to_string()).collect()
}

fn why(refused: Result<Vec<Change>, Rejection>) -> String {
    refused.unwrap_err().to_string()
}

#[test]
fn a_vm_that_moves_is_counted_by_both_hosts_until_its_own_has_stopped_it() {
    let mut directory = pool();
    moving(&mut directory, "a", "h2").unwrap();
    let vm = directory.vm(&id("a")).unwrap().clone();
    assert_eq!((&vm.host, &vm.moving, vm.state), (&id("h1"), &Some(id("h2")), VmState::Draining));
    assert_eq!((on(&directory, "h1"), on(&directory, "h2")), (vec!["a".into()], vec!["a".into(), "b".into()]));
    assert_eq!(directory.moving().count(), 1);
    assert!(why(propose(&mut directory, &[("a", 5)])).contains("is moving to host h2"));
    propose(&mut directory, &[("b", 5), ("a", 10)]).unwrap();
    assert!(moving(&mut directory, "a", "h2").unwrap().is_empty(), "it is on its way");
    assert!(why(moving(&mut directory, "a", "h3")).contains("is moving to host h2"));

    // That it still runs is no news; that it is down hands it over, with all that it shall have.
    adopt(&mut directory, "a", 10, VmState::Up);
    assert_eq!(directory.vm(&id("a")).unwrap().state, VmState::Draining);
    adopt(&mut directory, "a", 10, VmState::Down);
    let vm = directory.vm(&id("a")).unwrap().clone();
    assert_eq!((&vm.host, &vm.moving, vm.state), (&id("h2"), &None, VmState::Starting));
    assert_eq!((vm.desired(Resource::Bandwidth), vm.applied, vm.held), (Some(10), None, bandwidth(10)));
    assert_eq!((on(&directory, "h1").len(), on(&directory, "h2").len(), directory.moving().count()), (0, 2, 0));
    adopt(&mut directory, "a", 10, VmState::Up);
    assert_eq!(directory.vm(&id("a")).unwrap().state, VmState::Up);
}

#[test]
fn what_is_in_the_way_of_a_move_is_said_before_it_begins() {
    let mut directory = pool();
    let refused = |directory: &mut Snapshot, to: &str, says: &str| {
        let said = why(moving(directory, "a", to));
        assert!(said.contains(says), "{said}");
        assert_eq!(directory.moving().count(), 0);
    };
    refused(&mut directory, "h9", "host h9 is not registered");
    run(&mut directory, Command::HostSilent(id("h4"))).unwrap();
    refused(&mut directory, "h4", "that host is down");
    run(&mut directory, Command::JoinPool { host: id("h3"), pool: id("elsewhere") }).unwrap();
    refused(&mut directory, "h3", "only hosts that one process runs");
    run(&mut directory, Command::PutHost(HostSpec { id: id("h3"), capacity: bandwidth(100) })).unwrap();
    refused(&mut directory, "h3", "only hosts that one process runs");
    run(&mut directory, Command::PutHost(HostSpec { id: id("h2"), capacity: bandwidth(19) })).unwrap();
    run(&mut directory, Command::JoinPool { host: id("h2"), pool: id("here") }).unwrap();
    refused(&mut directory, "h2", "above its capacity of 19");
    // What b shall have would leave room, but what it may still have does not.
    propose(&mut directory, &[("b", 9)]).unwrap();
    refused(&mut directory, "h2", "above its capacity of 19");
    adopt(&mut directory, "b", 9, VmState::Up);
    let stale = Command::MoveVm { base: Revision(1), vm: id("a"), to: id("h2") };
    assert!(matches!(directory.decide(&stale), Err(Rejection::Stale { .. })));
    run(&mut directory, Command::SetVmState { vm: id("a"), state: VmState::Draining }).unwrap();
    refused(&mut directory, "h2", "only a VM that serves");
    run(&mut directory, Command::SetVmState { vm: id("a"), state: VmState::Up }).unwrap();
    moving(&mut directory, "a", "h2").unwrap();
}

#[test]
fn a_move_ends_where_it_is_called_off_or_one_of_the_hosts_fails() {
    let begun = || {
        let mut directory = pool();
        moving(&mut directory, "a", "h2").unwrap();
        directory
    };
    let state = |directory: &Snapshot| {
        let vm = directory.vm(&id("a")).unwrap();
        assert_eq!((&vm.moving, &vm.host, on(directory, "h2")), (&None, &id("h1"), vec!["b".to_owned()]));
        (vm.state, vm.desired(Resource::Bandwidth))
    };
    let mut directory = begun();
    moving(&mut directory, "a", "h1").unwrap();
    assert_eq!(state(&directory), (VmState::Up, Some(10)));
    let mut directory = begun();
    run(&mut directory, Command::HostSilent(id("h2"))).unwrap();
    assert_eq!(state(&directory), (VmState::Up, Some(10)), "it runs where it is");
    let mut directory = begun();
    run(&mut directory, Command::HostSilent(id("h1"))).unwrap();
    assert_eq!(state(&directory), (VmState::Down, Some(1)), "it is lost with its host, and does not go anywhere");
    let mut directory = begun();
    run(&mut directory, Command::PutVm(vm_spec("a", 1, "h1"))).unwrap();
    assert_eq!(state(&directory), (VmState::Starting, Some(10)));
    let mut directory = begun();
    assert!(run(&mut directory, Command::RemoveHost(id("h2"))).is_err());
    run(&mut directory, Command::RemoveVm(id("a"))).unwrap();
    assert_eq!((directory.moving().count(), on(&directory, "h2")), (0, vec!["b".to_owned()]));
}

#[test]
fn moves_are_the_operators_and_the_owners() {
    let directory = pool();
    let command = Command::MoveVm { base: directory.revision(), vm: id("a"), to: id("h2") };
    for (role, may) in [
        (Role::Operator, true),
        (Role::Customer(id("shop")), true),
        (Role::Customer(id("other")), false),
        (Role::Host(id("h1")), false),
        (Role::Reader, false),
    ] {
        assert_eq!(role.may(&command, &directory).is_ok(), may, "{role}");
    }
    let join = Command::JoinPool { host: id("h1"), pool: id("here") };
    assert!(Role::Customer(id("shop")).may(&join, &directory).is_err());
}

#[test]
fn a_snapshot_on_the_wire_keeps_who_is_moving() {
    let mut directory = pool();
    moving(&mut directory, "a", "h2").unwrap();
    let text = serde_json::to_string(&directory).unwrap();
    let read: Snapshot = serde_json::from_str(&text).unwrap();
    assert_eq!(on(&read, "h2"), ["a", "b"]);
    assert_eq!(read.moving().count(), 1);
}
