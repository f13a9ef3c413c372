//! Sandpiper in its own experiments, and worlds as such.

use super::*;
use serde_json::json;
use vibra_model::{Resource, Timestamp};
use vibra_policy::{Composition, Limits, Policies, View, check};

fn policies(name: &str, resource: Resource, parameters: serde_json::Value) -> Composition {
    Composition::new(vec![Policies::shipped().build(name, resource, parameters).unwrap()]).unwrap()
}

fn run(scenario: &Scenario, policies: &mut Composition) -> (World, Outcome) {
    let Scenario { customer, hosts, guests, intervals } = scenario;
    let mut world = World::new(customer.clone(), hosts, guests, Settings::default()).unwrap();
    let outcome = world.run(policies, *intervals);
    assert_eq!(outcome.violations, [""; 0]);
    assert_eq!(outcome.failed_moves, 0);
    (world, outcome)
}

fn moves(outcome: &Outcome) -> Vec<(&str, &str, &str)> {
    outcome.moves.iter().map(|step| (step.vm.as_str(), step.from.as_str(), step.to.as_str())).collect()
}

#[test]
fn the_phases_of_table_5_1_end_in_the_moves_of_figure_5_4() {
    let (_, outcome) = run(&table_5_1(), &mut policies("sandpiper", Resource::Memory, json!({})));
    assert_eq!(moves(&outcome), [("vm1", "pm1", "pm3"), ("vm4", "pm2", "pm1"), ("vm5", "pm3", "pm2")]);
    let hot = outcome.overloaded(0.75, (3, 5));
    assert!(hot.iter().any(|count| *count > 0) && hot.last() == Some(&0), "{hot:?}");
}

#[test]
fn figure_5_5_is_a_swap_by_way_of_the_scratch_host() {
    let sandpiper = json!({ "scratch": ["scratch"] });
    let (_, outcome) = run(&figure_5_5(), &mut policies("sandpiper", Resource::Memory, sandpiper));
    assert_eq!(moves(&outcome), [("vm4", "pm2", "scratch"), ("vm2", "pm1", "pm2"), ("vm4", "scratch", "pm1")]);
    assert_eq!(outcome.overloaded(0.75, (3, 5)).last(), Some(&0));
    assert_eq!(outcome.planned.len(), 1, "one plan, complete before its first move");
}

#[test]
fn static_shares_leave_the_prototype_overloaded_and_sandpiper_does_not() {
    let scenario = prototype(1, Overload { from: 30, intervals: 75 });
    let sum = |outcome: &Outcome| outcome.overloaded(0.75, (3, 5)).iter().sum::<usize>();
    let (_, still) = run(&scenario, &mut policies("static", Resource::Memory, json!({})));
    let sandpiper = json!({ "scratch": ["scratch"] });
    let (world, moved) = run(&scenario, &mut policies("sandpiper", Resource::Memory, sandpiper));
    assert!(still.moves.is_empty() && still.overloaded(0.75, (3, 5)).last() == Some(&6), "{still:?}");
    assert!(sum(&moved) < sum(&still) / 2, "{} of {}", sum(&moved), sum(&still));
    assert_eq!(moved.overloaded(0.75, (3, 5)).last(), Some(&0));
    assert_eq!(world.directory().vms_on(&"scratch".parse().unwrap()).count(), 0);
}

#[test]
fn every_draw_of_the_prototype_fits_its_hosts() {
    for seed in 0..300 {
        let Scenario { customer, hosts, guests, .. } = prototype(seed, Overload { from: 1, intervals: 2 });
        assert_eq!(guests.len(), 35);
        World::new(customer, &hosts, &guests, Settings::default())
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn half_of_fifty_hosts_are_relieved_by_one_move_each() {
    let scenario = hot_hosts(3, 20, Spread::default());
    let world = World::new(scenario.customer.clone(), &scenario.hosts, &scenario.guests, Settings::default()).unwrap();
    let mut policies = policies("sandpiper", Resource::Memory, json!({}));
    let usage = steady_window(&scenario, 5);
    let view = View::new(world.directory(), &scenario.customer.id, &usage);
    let plan = policies.decide(&view, Timestamp(50_000_000));
    let limits = Limits::of(&scenario.customer.id, &policies.resources()).with_moves(true);
    check(&plan, world.directory(), &limits).unwrap();
    let relief = Resolved { resolved: 20, left: 0, new: 0 };
    assert_eq!((plan.moves.len(), resolved_by(&scenario, &plan.moves, 0.75)), (20, relief));
}

#[test]
fn a_share_is_a_limit_and_what_is_missing_is_seen() {
    let mut scenario = table_5_1();
    scenario.guests.truncate(1);
    let guest = &mut scenario.guests[0];
    guest.demand = vec![Demand { cpu: 1500.0, memory: f64::from(300 << 20), ..Demand::default() }];
    let (_, outcome) = run(&scenario, &mut policies("static", Resource::Memory, json!({})));
    let service = |resource| outcome.service[&resource].unmet().unwrap();
    assert!((service(Resource::Cpu) - 1.0 / 3.0).abs() < 1e-9, "a core of one and a half");
    assert!((service(Resource::Memory) - 44.0 / 300.0).abs() < 1e-9, "256 MiB of 300");
    assert_eq!(outcome.service[&Resource::Bandwidth].unmet(), None);
}

#[test]
fn copying_takes_time_and_cpu() {
    let (_, outcome) = run(&table_5_1(), &mut policies("sandpiper", Resource::Memory, json!({})));
    let first = &outcome.moves[0];
    // 256 MiB at 20 MiB/s.
    assert_eq!(first.done - first.began, 1, "{first:?}");
    let source = outcome.utilisation[first.began][0][0];
    assert!(source > outcome.utilisation[first.began - 1][0][0], "the host that copies is busier: {source}");
}
