//! `proportional` by example and as laws.

use super::*;
use crate::{Limits, check, testing::*};
use proptest::prelude::*;
use serde_json::json;
use vibra_model::{BytesPerSec, CustomerId, Snapshot, UsageWindow};

fn with(parameters: ProportionalParameters) -> Proportional {
    Proportional::new(Resource::Bandwidth, parameters).unwrap()
}

/// Without dead band, so that every rounding shows.
fn exact() -> Proportional {
    with(ProportionalParameters { dead_band: 0.0, ..ProportionalParameters::default() })
}

fn decide(policy: &mut Proportional, directory: &Snapshot, usage: &UsageWindow) -> Plan {
    let shop: CustomerId = id("shop");
    policy.decide(&View::new(directory, &shop, usage), Timestamp(1_000_000))
}

fn settled(policy: &mut Proportional, directory: &Snapshot, usage: &UsageWindow) -> Vec<u64> {
    let mut after = directory.clone();
    let plan = decide(policy, directory, usage);
    carry_out(&mut after, &plan);
    desired(&after)
}

fn four() -> Snapshot {
    cluster(1000, &[None], &[Seed::up(10, 250); 4])
}

#[test]
fn shares_follow_the_demand() {
    let usage = egress(1, &[Some(14), Some(64), Some(10), Some(12)]);
    assert_eq!(settled(&mut exact(), &four(), &usage), [140, 640, 100, 120]);
}

#[test]
fn the_demand_is_a_moving_average_of_every_sample_once() {
    let mut policy = exact();
    let directory = cluster(1000, &[None], &[Seed::up(0, 500), Seed::up(0, 500)]);
    decide(&mut policy, &directory, &egress(1, &[Some(100), Some(100)]));
    let mut usage = egress(2, &[Some(200), None]);
    // The window repeats old samples, and misses one of vm1.
    usage.0.get_mut(&id("vm0")).unwrap().insert(0, UsageSample { at: Timestamp(1), ..UsageSample::default() });
    for _ in 0..3 {
        decide(&mut policy, &directory, &usage);
    }
    decide(&mut policy, &directory, &UsageWindow::default());
    let demands: Vec<_> = policy.estimates.iter().map(|(_, estimate)| estimate.demand).collect();
    // 0.9 · 100 + 0.1 · 200
    assert!((demands[0] - 110.0).abs() < 1e-9 && demands[1] == 100.0, "{demands:?}");
}

#[test]
fn who_is_down_or_was_never_measured_takes_no_part() {
    let mut directory = four();
    set_state(&mut directory, "vm0", VmState::Down);
    let usage = egress(1, &[Some(500), None, Some(10), Some(30)]);
    let mut policy = exact();
    // 10 stay with vm0, 250 with vm1; 740 are divided as 1 to 3.
    assert_eq!(settled(&mut policy, &directory, &usage), [10, 250, 185, 555]);
    let plan = decide(&mut policy, &directory, &usage);
    let refused: Vec<_> = plan.refusals.iter().map(|refusal| (refusal.vm.as_str(), &*refusal.reason.rule)).collect();
    assert_eq!(refused, [("vm0", "down: keeps its floor"), ("vm1", "never measured: keeps what it has")]);
}

#[test]
fn a_vm_that_returns_gets_its_part_again() {
    let mut directory = four();
    let mut policy = exact();
    decide(&mut policy, &directory, &egress(1, &[Some(10); 4]));
    set_state(&mut directory, "vm0", VmState::Down);
    let plan = decide(&mut policy, &directory, &UsageWindow::default());
    carry_out(&mut directory, &plan);
    assert_eq!(desired(&directory), [10, 330, 330, 330]);
    set_state(&mut directory, "vm0", VmState::Warming);
    assert_eq!(settled(&mut policy, &directory, &UsageWindow::default()), [250; 4]);
}

#[test]
fn without_evidence_nothing_changes() {
    for usage in [egress(1, &[None; 4]), egress(1, &[Some(0); 4])] {
        let plan = decide(&mut exact(), &four(), &usage);
        assert!(plan.actions.is_empty());
        assert_eq!(plan.refusals.len(), 4);
    }
}

#[test]
fn a_sample_from_the_far_future_is_not_believed() {
    let far = Timestamp(1_000_000).after(FUTURE).0 + 1;
    let mut policy = exact();
    decide(&mut policy, &four(), &egress(far, &[Some(1), Some(1), Some(1), Some(97)]));
    assert!(policy.estimates.is_empty());
}

#[test]
fn small_moves_are_not_made() {
    let mut policy = with(ProportionalParameters::default());
    // It would move 9 of 1000 from the others to vm0.
    let plan = decide(&mut policy, &four(), &egress(1, &[Some(259), Some(247), Some(247), Some(247)]));
    assert!(plan.actions.is_empty());
    assert_eq!(plan.refusals[0].reason.rule, "within the dead band");
    // And here 12.
    let mut policy = with(ProportionalParameters::default());
    let plan = decide(&mut policy, &four(), &egress(1, &[Some(262), Some(246), Some(246), Some(246)]));
    assert_eq!(plan.actions.len(), 4);
}

#[test]
fn large_steps_are_shortened_alike() {
    let mut policy = with(ProportionalParameters { max_step: 0.3, ..ProportionalParameters::default() });
    let usage = egress(1, &[Some(0), Some(0), Some(15), Some(85)]);
    // The goal is [10, 10, 147, 833]; the longest way is 583, of which 300 may be gone.
    assert_eq!(settled(&mut policy, &four(), &usage), [126, 126, 196, 550]);
}

#[test]
fn a_full_host_leaves_the_rest_to_others() {
    let seeds = [Seed::up(10, 250), Seed::up(10, 250), Seed { host: 1, ..Seed::up(10, 250) }, Seed::up(10, 250)];
    let directory = cluster(1000, &[None, Some(300)], &seeds);
    let usage = egress(1, &[Some(10), Some(10), Some(900), Some(80)]);
    assert_eq!(settled(&mut exact(), &directory, &usage), [70, 70, 300, 560]);
}

#[test]
fn cpu_follows_the_cpu_used() {
    let mut policy = Proportional::new(Resource::Cpu, ProportionalParameters::default()).unwrap();
    let directory = cluster_of(Resource::Cpu, 1000, &[None], &[Seed::up(10, 500), Seed::up(10, 500)]);
    let plan = decide(&mut policy, &directory, &cpu(1, &[300, 100]));
    assert_eq!(plan.actions.iter().map(|action| action.change.to.raw()).collect::<Vec<_>>(), [750, 250]);
}

#[test]
fn parameters_and_states_that_make_no_sense_are_refused() {
    for bad in [
        json!({ "alpha": 1.0 }),
        json!({ "alpha": -0.1 }),
        json!({ "alpha": "0.9" }),
        json!({ "dead_band": 1.0 }),
        json!({ "max_step": 0.0 }),
        json!({ "gamma": 1 }),
        json!(3),
    ] {
        assert!(Proportional::build(Resource::Bandwidth, bad.clone()).is_err(), "{bad}");
    }
    for bad in [json!({ "vm0": { "demand": -1.0, "at": 1 } }), json!({ "a/b": { "demand": 1.0, "at": 1 } }), json!(0)] {
        assert!(exact().restore(&bad).is_err(), "{bad}");
    }
}

/// A cluster as the directory allows it, and rounds of usage.
#[derive(Debug, Clone)]
struct Case {
    directory: Snapshot,
    rounds: Vec<Vec<Option<u64>>>,
}

/// What is left on a host: no limit.
fn unlimited() -> impl Strategy<Value = Option<u64>> {
    Just(None)
}

/// What is left on a host: perhaps a limit.
fn limited() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(0..1u64 << 41)
}

fn case(spare: impl Strategy<Value = Option<u64>>) -> impl Strategy<Value = Case> {
    let state = prop_oneof![4 => Just(VmState::Up), 1 => Just(VmState::Down), 1 => Just(VmState::Draining)];
    let amount = || prop_oneof![0..1000u64, 0..1u64 << 40];
    let seed = (amount(), amount(), 0..3usize, state).prop_map(|(floor, more, host, state)| Seed {
        floor,
        initial: floor + more,
        host,
        state,
    });
    let spare = prop::array::uniform3(spare);
    (prop::collection::vec(seed, 1..12), amount(), spare).prop_flat_map(|(seeds, slack, spare)| {
        let sum_on = |host| seeds.iter().filter(|seed| seed.host == host).map(|seed| seed.initial).sum::<u64>();
        let capacities: Vec<_> = (0..3).map(|host| spare[host].map(|spare| sum_on(host) + spare)).collect();
        let bound = seeds.iter().map(|seed| seed.initial).sum::<u64>() + slack;
        let directory = cluster(bound, &capacities, &seeds);
        let used = prop::option::weighted(0.8, prop_oneof![Just(0), 0..1000u64, any::<u64>()]);
        let round = prop::collection::vec(used, seeds.len());
        let rounds = prop::collection::vec(round, 1..6);
        rounds.prop_map(move |rounds| Case { directory: directory.clone(), rounds })
    })
}

/// Plays a case with a policy; `each` sees every plan with the directory before it. Returns the directory at the end.
fn play(case: &Case, policy: &mut Proportional, mut each: impl FnMut(&Plan, &Snapshot, &Proportional)) -> Snapshot {
    let mut directory = case.directory.clone();
    for (at, rates) in (1..).zip(&case.rounds) {
        let plan = decide(policy, &directory, &egress(at, rates));
        each(&plan, &directory, policy);
        carry_out(&mut directory, &plan);
    }
    directory
}

proptest! {
    #[test]
    fn every_plan_passes_the_checker(case in case(limited()), max_step in 0.01..1.0f64) {
        for max_step in [1.0, max_step] {
            let mut policy = with(ProportionalParameters { dead_band: 0.0, max_step, ..Default::default() });
            let limits = Limits { max_step, ..Limits::of(&id("shop"), &[Resource::Bandwidth]) };
            play(&case, &mut policy, |plan, directory, _| {
                assert_eq!(check(plan, directory, &limits).err(), None);
            });
        }
    }

    #[test]
    fn all_of_the_bound_is_given_out_and_never_more(case in case(unlimited())) {
        let mut policy = exact();
        let end = play(&case, &mut policy, |_, _, _| {});
        let bound = end.customer(&id("shop")).unwrap().bounds.get(Resource::Bandwidth).unwrap();
        let total: u64 = desired(&end).iter().sum();
        prop_assert!(total <= bound);
        let takes_part = |vm: &&Vm| vm.state != VmState::Down;
        let demand = |vm: &Vm| policy.estimates.iter().find(|(id, _)| *id == vm.id).map_or(0.0, |(_, e)| e.demand);
        if end.vms().filter(takes_part).any(|vm| demand(vm) > 0.0) {
            prop_assert_eq!(total, bound);
        }
    }

    #[test]
    fn utilisation_is_equal_where_no_floor_binds(case in case(unlimited())) {
        let mut policy = exact();
        let end = play(&case, &mut policy, |_, _, _| {});
        let free: Vec<(f64, f64)> = policy.estimates.iter().filter_map(|(id, estimate)| {
            let vm = end.vm(id)?;
            let (has, floor) = (vm.desired(Resource::Bandwidth)?, vm.floor.get(Resource::Bandwidth)?);
            (vm.state != VmState::Down && has > floor).then_some((has as f64, estimate.demand))
        }).collect();
        let (sum_has, sum_demand) = free.iter().fold((0.0, 0.0), |(h, d), (has, demand)| (h + has, d + demand));
        let largest = free.iter().map(|(_, demand)| *demand).fold(0.0, f64::max);
        // Where no one has any demand nothing was divided.
        for (has, demand) in free.iter().filter(|_| sum_demand > 0.0) {
            let due = demand * sum_has / sum_demand;
            // One unit from rounding, each weight rounded down by at most 2⁻⁴⁰ of the largest.
            let tolerance = 1.0 + sum_has * 1e-12 * (1.0 + largest / sum_demand * free.len() as f64);
            prop_assert!((has - due).abs() <= tolerance + 1.0, "{has} instead of {due}: {free:?}");
        }
    }

    #[test]
    fn a_saved_and_restored_policy_decides_as_the_one_that_went_on(case in case(limited())) {
        let mut policy = exact();
        play(&case, &mut policy, |plan, directory, after| {
            let text = serde_json::to_string(&after.save()).unwrap();
            let mut other = exact();
            other.restore(&serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(other.estimates, after.estimates);
            let usage = egress(99, &case.rounds[0]);
            assert_eq!(decide(&mut other, directory, &usage), decide(&mut after.clone(), directory, &usage));
            assert_eq!(plan.base, directory.revision());
        });
    }

    #[test]
    fn the_unit_of_demand_does_not_matter(case in case(limited()), factor in 0u32..20) {
        let scaled = |rate: &Option<u64>| rate.map(|rate| (rate % (1 << 40)) << factor);
        let rounds = |scale: &dyn Fn(&Option<u64>) -> Option<u64>| {
            case.rounds.iter().map(|round| round.iter().map(scale).collect()).collect()
        };
        let small = Case { rounds: rounds(&|rate| rate.map(|rate| rate % (1 << 40))), ..case.clone() };
        let large = Case { rounds: rounds(&scaled), ..case.clone() };
        let (small, large) = (play(&small, &mut exact(), |_, _, _| {}), play(&large, &mut exact(), |_, _, _| {}));
        prop_assert_eq!(desired(&small), desired(&large));
    }
}

#[test]
fn rates_beyond_any_measure_are_divided_too() {
    let usage = egress(1, &[Some(u64::MAX), Some(u64::MAX), Some(0), Some(1)]);
    assert_eq!(settled(&mut exact(), &four(), &usage), [490, 490, 10, 10]);
    assert_eq!(BytesPerSec(u64::MAX).0 as f64, 2f64.powi(64));
}
