//! What users of other systems complain of, and the laws of trimming.

use super::*;
use crate::{Limits, Policies, check, testing::*};
use proptest::prelude::*;
use std::collections::BTreeMap;
use vibra_model::{AllocationChange, Bytes, CustomerId, HostId, Resources, Snapshot, UsageSample, UsageWindow};

const SECOND: u64 = 1_000_000;

/// A policy that gives each VM what it is told at each decision, whatever the VM has.
struct Told {
    resource: Resource,
    amounts: Vec<Vec<u64>>,
    next: usize,
}

fn told(resource: Resource, amounts: &[&[u64]]) -> Box<dyn Policy> {
    Box::new(Told { resource, amounts: amounts.iter().map(|amounts| amounts.to_vec()).collect(), next: 0 })
}

impl Policy for Told {
    fn name(&self) -> &'static str {
        "told"
    }

    fn resource(&self) -> Resource {
        self.resource
    }

    fn decide(&mut self, view: &View<'_>, _now: Timestamp) -> Plan {
        let amounts = &self.amounts[self.next.min(self.amounts.len() - 1)];
        self.next += 1;
        let wanted = view.vms().zip(amounts).filter_map(|(vm, &to)| Some((vm, vm.desired(self.resource)?, to)));
        let actions = wanted.filter(|(_, has, to)| has != to).map(|(vm, from, to)| Action {
            change: AllocationChange { vm: vm.id.clone(), to: self.resource.amount(to) },
            from,
            reason: Reason::new("told"),
        });
        Plan { base: view.snapshot().revision(), actions: actions.collect(), ..Plan::default() }
    }
}

fn safety(table: Value) -> Safety {
    Safety::read(table).unwrap()
}

/// Two VMs that share a bound of 1,000.
fn pair() -> Snapshot {
    cluster(1000, &[None], &[Seed::up(10, 500), Seed::up(10, 500)])
}

/// Has the guard decide, checks its plan, and has the directory carry it out.
fn step(guard: &mut Guard, directory: &mut Snapshot, usage: &UsageWindow, second: u64) -> Plan {
    let shop: CustomerId = id("shop");
    let plan = guard.decide(&View::new(directory, &shop, usage), Timestamp(second * SECOND));
    let limits = Limits { max_step: guard.safety.max_step, ..Limits::of(&shop, &[guard.resource()]) };
    check(&plan, directory, &limits.with_moves(true)).unwrap_or_else(|faults| panic!("{faults:?}: {plan:#?}"));
    carry_out(directory, &plan);
    plan
}

fn rules(plan: &Plan) -> Vec<&str> {
    plan.refusals.iter().map(|refusal| &*refusal.reason.rule).collect()
}

#[test]
fn oscillation_is_damped_each_reversal_holds_twice_as_long_as_the_one_before() {
    let turns: Vec<_> = (0..200).map(|turn| if turn % 2 == 0 { [700, 300] } else { [300, 700] }).collect();
    let turns: Vec<_> = turns.iter().map(|turn| &turn[..]).collect();
    let policy = told(Resource::Bandwidth, &turns);
    let mut guard = Guard::new(policy, safety(json!({ "hold": "10s", "max_hold": "60s" })));
    let mut directory = pair();
    let mut changed = Vec::new();
    for second in (0..600).step_by(3) {
        let plan = step(&mut guard, &mut directory, &egress(second, &[Some(1), Some(1)]), second);
        if !plan.actions.is_empty() {
            changed.push(second);
        }
    }
    let gaps: Vec<_> = changed.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // 10, 20, 40 and then 60 s, each up to the next decision that wants the other way.
    assert!(gaps.len() >= 6, "{changed:?}");
    for (gap, hold) in gaps.iter().zip([10, 20, 40, 60, 60, 60]) {
        assert!((hold..hold + 9).contains(gap), "{gaps:?}");
    }
}

#[test]
fn a_reversal_after_a_long_rest_is_no_oscillation() {
    let amounts: &[&[u64]] = &[&[700, 300], &[300, 700], &[700, 300]];
    let mut guard = Guard::new(told(Resource::Bandwidth, amounts), safety(json!({ "hold": "10s" })));
    let mut directory = pair();
    for second in [0, 100, 200] {
        let plan = step(&mut guard, &mut directory, &egress(second, &[Some(1), Some(1)]), second);
        assert_eq!(plan.actions.len(), 2, "after {second} s");
    }
}

/// The cluster of [`pair`], with memory.
fn memory_pair() -> Snapshot {
    let mut directory = Snapshot::default();
    let memory = |bytes| Resources { memory: Some(Bytes(bytes)), ..Resources::NONE };
    run(
        &mut directory,
        vibra_model::Command::PutCustomer(vibra_model::Customer { id: id("shop"), bounds: memory(1000) }),
    );
    let host = vibra_model::HostSpec { id: id("h0"), capacity: memory(2000) };
    run(&mut directory, vibra_model::Command::PutHost(host));
    for number in 0..2 {
        let vm = vibra_model::VmSpec {
            id: id(&format!("vm{number}")),
            customer: id("shop"),
            host: id("h0"),
            address: "10.0.0.1:80".into(),
            order: number,
            weight: 1,
            floor: memory(10),
            initial: memory(500),
        };
        run(&mut directory, vibra_model::Command::PutVm(vm));
        set_state(&mut directory, &format!("vm{number}"), vibra_model::VmState::Up);
    }
    directory
}

fn memory_use(second: u64, samples: &[UsageSample]) -> UsageWindow {
    let samples = samples.iter().map(|sample| vec![UsageSample { at: Timestamp(second * SECOND), ..*sample }]);
    UsageWindow(samples.enumerate().map(|(number, samples)| (id(&format!("vm{number}")), samples)).collect())
}

fn uses(bytes: u64) -> UsageSample {
    UsageSample { memory_in_use: Some(Bytes(bytes)), ..UsageSample::default() }
}

fn memory_of(directory: &Snapshot) -> Vec<u64> {
    directory.vms().filter_map(|vm| vm.desired(Resource::Memory)).collect()
}

#[test]
fn no_vm_is_shrunk_into_out_of_memory() {
    let shrunk = |sample: UsageSample| {
        let mut guard = Guard::new(told(Resource::Memory, &[&[100, 900]]), Safety::default());
        let mut directory = memory_pair();
        let plan = step(&mut guard, &mut directory, &memory_use(1, &[sample, uses(1)]), 1);
        (memory_of(&directory), plan)
    };
    // It may be shrunk to what it needs and a tenth; the other gets what that leaves.
    let (has, plan) = shrunk(uses(300));
    assert_eq!(has, [330, 670]);
    assert!(plan.actions[0].reason.rule.contains("needs the rest of its memory"), "{plan:?}");
    // The working set, where it is known, is what it needs.
    assert_eq!(shrunk(UsageSample { working_set: Some(Bytes(100)), ..uses(490) }).0, [110, 890]);
    for (sample, why) in [
        (uses(480), "needs its memory"),
        (UsageSample { swapped: Some(Bytes(1)), ..uses(50) }, "swaps"),
        (UsageSample::default(), "not known"),
    ] {
        let (has, plan) = shrunk(sample);
        assert_eq!(has, [500, 500], "{sample:?}");
        assert!(rules(&plan).iter().any(|rule| rule.contains(why)), "{plan:?}");
    }
}

#[test]
fn every_memory_policy_is_held_to_what_vms_need_without_being_told() {
    let mut policy = Policies::shipped().build("proportional", Resource::Memory, json!({ "alpha": 0.0 })).unwrap();
    let (mut directory, shop) = (memory_pair(), id("shop"));
    let sample = |working_set| UsageSample { working_set: Some(Bytes(working_set)), ..uses(400) };
    let usage = memory_use(1, &[sample(400), sample(4_000)]);
    let plan = policy.decide(&View::new(&directory, &shop, &usage), Timestamp(SECOND));
    carry_out(&mut directory, &plan);
    assert_eq!(memory_of(&directory), [440, 560], "by demand it would have 90");
}

#[test]
fn no_decision_is_opaque_what_is_left_out_says_why_with_numbers() {
    let table = json!({ "dead_band": 0.05, "max_step": 0.1, "warm_up_samples": 2 });
    let mut guard = Guard::new(told(Resource::Bandwidth, &[&[520, 480], &[520, 480], &[800, 200]]), safety(table));
    let mut directory = pair();
    let plan = step(&mut guard, &mut directory, &egress(1, &[Some(1), Some(1)]), 1);
    assert_eq!(rules(&plan), ["warming up: too few samples"; 2]);
    assert_eq!(plan.refusals[0].reason.facts[..], [("samples".into(), 1.0), ("planned".into(), 520.0)]);
    let plan = step(&mut guard, &mut directory, &egress(2, &[Some(1), Some(1)]), 2);
    assert_eq!(rules(&plan), ["within the dead band"; 2]);
    let plan = step(&mut guard, &mut directory, &egress(3, &[Some(1), Some(1)]), 3);
    assert_eq!(desired(&directory), [600, 400]);
    assert_eq!(&*plan.actions[0].reason.rule, "told, shortened: the largest step");
    assert_eq!(plan.actions[0].reason.facts[..], [("planned".into(), 800.0)]);
}

#[test]
fn a_warm_up_observes_and_changes_nothing() {
    let mut guard = Guard::new(told(Resource::Bandwidth, &[&[600, 400]]), safety(json!({ "warm_up": "30s" })));
    let mut directory = pair();
    for (second, changes) in [(100, 0), (129, 0), (130, 2)] {
        let plan = step(&mut guard, &mut directory, &egress(second, &[Some(1), Some(1)]), second);
        assert_eq!(plan.actions.len(), changes, "{second}");
    }
}

#[test]
fn a_vm_whose_samples_are_too_old_is_not_changed_and_the_others_share_what_is_left() {
    let mut guard = Guard::new(told(Resource::Bandwidth, &[&[500, 500], &[300, 700]]), Safety::default());
    let mut directory = pair();
    step(&mut guard, &mut directory, &egress(1, &[Some(1), Some(1)]), 1);
    // vm0 would have been lowered; of it nothing is heard any more.
    let usage = UsageWindow([(id("vm1"), egress(20 * SECOND, &[Some(1)]).samples(&id("vm0")).to_vec())].into());
    let plan = step(&mut guard, &mut directory, &usage, 20);
    assert_eq!(desired(&directory), [500, 500]);
    assert_eq!(rules(&plan), ["no new sample for too long", "what would have made room was left out"]);
}

/// A policy that moves vm0 to the host that it is told.
struct Mover(Vec<&'static str>);

impl Policy for Mover {
    fn name(&self) -> &'static str {
        "mover"
    }

    fn resource(&self) -> Resource {
        Resource::Bandwidth
    }

    fn moves(&self) -> bool {
        true
    }

    fn decide(&mut self, view: &View<'_>, _now: Timestamp) -> Plan {
        let (vm, to): (VmId, HostId) = (id("vm0"), id(self.0.remove(0)));
        let from = view.snapshot().vm(&vm).unwrap().host.clone();
        let moves = vec![Move { vm, from, to, reason: Reason::new("told") }];
        Plan { base: view.snapshot().revision(), moves, ..Plan::default() }
    }
}

#[test]
fn a_vm_is_not_moved_back_and_forth() {
    let mut directory = cluster(100, &[None, None], &[Seed::up(1, 50), Seed { host: 1, ..Seed::up(1, 50) }]);
    for host in ["h0", "h1"] {
        let report = vibra_model::UsageReport { host: id(host), vms: Vec::new() };
        run(&mut directory, vibra_model::Command::Report(report));
    }
    let mut guard = Guard::new(Box::new(Mover(vec!["h1", "h0", "h0", "h0"])), safety(json!({ "hold": "60s" })));
    let plan = step(&mut guard, &mut directory, &egress(1, &[Some(1)]), 1);
    assert_eq!(plan.moves.len(), 1);
    let mut moved = directory.vm(&id("vm0")).unwrap().clone();
    moved.host = id("h1");
    directory.apply(directory.revision().next(), &[vibra_model::Change::Vm(moved)]);
    for (second, moves) in [(4, 0), (60, 0), (61, 1)] {
        let plan = step(&mut guard, &mut directory, &egress(second, &[Some(1)]), second);
        assert_eq!(plan.moves.len(), moves, "after {second} s");
        assert!(moves > 0 || rules(&plan)[0].starts_with("no moves: it came from there"), "{plan:?}");
    }
}

#[test]
fn another_allocator_knows_for_how_long_what_holds() {
    let amounts: &[&[u64]] = &[&[700, 300], &[700, 300], &[300, 700]];
    let make = || Guard::new(told(Resource::Bandwidth, amounts), safety(json!({ "hold": "30s" })));
    let (mut first, mut directory) = (make(), pair());
    for second in [1, 4] {
        step(&mut first, &mut directory, &egress(second, &[Some(1), Some(1)]), second);
    }
    let mut second = make();
    second.restore(&first.save()).unwrap();
    second.policy = told(Resource::Bandwidth, &[&[300, 700]]);
    let plan = step(&mut second, &mut directory, &egress(7, &[Some(1), Some(1)]), 7);
    assert_eq!(rules(&plan), ["it was raised not long ago", "it was lowered not long ago"]);
    assert!(second.restore(&json!({ "policy": null })).is_err());
}

#[test]
fn a_table_that_makes_no_sense_is_refused() {
    let build = |safety: Value| {
        let built = Policies::shipped().build("static", Resource::Bandwidth, json!({ "safety": safety }));
        built.map(drop).unwrap_err().to_string()
    };
    for (table, says) in [
        (json!({ "hold": "10" }), "500ms"),
        (json!({ "holt": "10s" }), "hold"),
        (json!({ "hold": "10m" }), "max_hold"),
        (json!({ "max_step": 0.0 }), "more than 0"),
        (json!({ "dead_band": 1.0 }), "less than 1"),
        (json!({ "margin": -0.1 }), "0 to 10"),
        (json!(5), "safety"),
    ] {
        let message = build(table.clone());
        assert!(message.contains(says) && message.contains("static"), "{table}: {message}");
    }
}

prop_compose! {
    fn any_safety()(
        dead_band in 0.0..0.3f64,
        hold in 0..30u64,
        max_step in 0.01..1.0f64,
        warm_up_samples in 0..3u64,
        stale in 3..12u64,
    ) -> Safety {
        let (hold, stale) = (Duration::from_secs(hold), Duration::from_secs(stale));
        Safety { dead_band, hold, max_step, warm_up_samples, stale, max_hold: hold * 4, ..Safety::default() }
    }
}

proptest! {
    /// Whatever is left out of plans that keep the rules, what remains keeps them; and it keeps the guard's own.
    #[test]
    fn trimmed_plans_keep_the_rules(
        safety in any_safety(),
        hosts in proptest::collection::vec(proptest::option::of(200u64..600), 1..4),
        seeds in proptest::collection::vec((1u64..20, 20u64..100, 0usize..4), 2..8),
        demands in proptest::collection::vec(proptest::collection::vec(proptest::option::weighted(0.8, 0u64..500), 8), 1..12),
    ) {
        let seeds: Vec<_> =
            seeds.iter().map(|&(floor, initial, host)| Seed { host: host % hosts.len(), ..Seed::up(floor, initial) }).collect();
        // No host is too small for what its VMs have at first.
        let capacities: Vec<_> = hosts.iter().enumerate().map(|(number, capacity)| capacity.map(|capacity| {
            capacity + seeds.iter().filter(|seed| seed.host == number).map(|seed| seed.initial).sum::<u64>()
        })).collect();
        let bound = seeds.iter().map(|seed| seed.initial).sum::<u64>() + 50;
        let mut directory = cluster(bound, &capacities, &seeds);
        let policy = Policies::shipped().build("proportional", Resource::Bandwidth, json!({ "alpha": 0.0, "dead_band": 0.0 }));
        let mut guard = Guard::new(policy.unwrap(), safety);
        let mut last: BTreeMap<VmId, (bool, u64)> = BTreeMap::new();
        let mut heard: BTreeMap<VmId, u64> = BTreeMap::new();
        for (second, demand) in (0u64..).step_by(3).zip(&demands) {
            let mut usage = egress(second * SECOND + 1, &demand[..seeds.len()]);
            usage.0.retain(|_, samples| samples[0].egress.is_some());
            heard.extend(usage.0.keys().map(|vm| (vm.clone(), second)));
            // It panics where the checker finds a fault.
            let plan = step(&mut guard, &mut directory, &usage, second);
            for action in &plan.actions {
                let (vm, raised) = (&action.change.vm, action.change.to.raw() > action.from);
                let age = second - heard.get(vm).copied().unwrap_or(second);
                prop_assert!(age <= safety.stale.as_secs(), "{vm} was heard of {age} s ago");
                if let Some((before, at)) = last.insert(vm.clone(), (raised, second)).filter(|(before, _)| *before != raised) {
                    prop_assert!(second - at >= safety.hold.as_secs(), "{vm}: {before} at {at}, {raised} at {second}");
                }
            }
        }
    }
}
