//! Section 4.3.3's rule, what faults make of it, and its laws.

use super::*;
use crate::{Limits, Policies, check, testing::*};
use proptest::prelude::*;
use vibra_model::{Command, CustomerId, HostSpec};

const SECOND: u64 = 1_000_000;

/// A cluster, its policy with takeover, and the time.
struct Scene {
    directory: Snapshot,
    policy: Box<dyn Policy>,
    now: u64,
    usage: Vec<Option<u64>>,
}

fn policy(name: &str, takeover: Value) -> Box<dyn Policy> {
    Policies::shipped().build(name, Resource::Bandwidth, json!({ "takeover": takeover })).unwrap()
}

impl Scene {
    fn of(directory: Snapshot, name: &str, takeover: Value) -> Self {
        let usage = vec![Some(10); directory.vms().len()];
        let mut scene = Scene { directory, policy: policy(name, takeover), now: 0, usage };
        scene.tick(0);
        scene
    }

    /// `count` VMs under `static` with 100 each of the bound, of which 10 are the floor; R = 2, warm after 30 s.
    fn with(count: usize) -> Self {
        Scene::of(cluster(100 * count as u64, &[None], &vec![Seed::up(10, 100); count]), "static", json!({}))
    }

    /// What the policy plans so many seconds later, checked.
    fn plan(&mut self, seconds: u64) -> Plan {
        self.now += seconds;
        let shop: CustomerId = id("shop");
        let usage = egress(self.now * SECOND, &self.usage);
        let plan = self.policy.decide(&View::new(&self.directory, &shop, &usage), Timestamp(self.now * SECOND));
        let limits = Limits::of(&shop, &[Resource::Bandwidth]);
        check(&plan, &self.directory, &limits).unwrap_or_else(|faults| panic!("{faults:?}: {plan:#?}"));
        plan
    }

    /// The shares once that is carried out.
    fn tick(&mut self, seconds: u64) -> Vec<u64> {
        let plan = self.plan(seconds);
        carry_out(&mut self.directory, &plan);
        desired(&self.directory)
    }

    fn fails(&mut self, vm: usize) {
        set_state(&mut self.directory, &format!("vm{vm}"), VmState::Down);
    }

    fn returns(&mut self, vm: usize) {
        set_state(&mut self.directory, &format!("vm{vm}"), VmState::Up);
    }
}

#[test]
fn the_next_r_get_one_rth_each_at_once_and_give_it_back_as_the_vm_warms_up() {
    let mut scene = Scene::with(4);
    assert_eq!(scene.tick(3), [100, 100, 100, 100]);
    scene.fails(1);
    assert_eq!(scene.tick(0), [100, 10, 145, 145]);
    assert_eq!(scene.tick(600), [100, 10, 145, 145], "for as long as it takes");
    scene.returns(1);
    assert_eq!(scene.tick(1), [100, 10, 145, 145], "its cache is cold");
    assert_eq!(scene.tick(10), [100, 40, 130, 130]);
    assert_eq!(scene.tick(10), [100, 70, 115, 115]);
    assert_eq!(scene.tick(10), [100, 100, 100, 100]);
    assert!(scene.plan(3).actions.is_empty());
}

#[test]
fn every_step_says_why() {
    let mut scene = Scene::with(4);
    scene.fails(3);
    let plan = scene.plan(1);
    let said: Vec<_> = plan.actions.iter().map(|action| (action.change.vm.as_str(), &*action.reason.rule)).collect();
    assert_eq!(said, [("vm0", "takes over from VMs that failed"), ("vm1", "takes over from VMs that failed")]);
    assert_eq!(plan.actions[0].reason.facts[0], ("received".into(), 45.0));
    carry_out(&mut scene.directory, &plan);
    scene.returns(3);
    scene.tick(1);
    let plan = scene.plan(15);
    let said: Vec<_> = plan.actions.iter().map(|action| &*action.reason.rule).collect();
    assert_eq!(
        said,
        ["gives back what it took over", "gives back what it took over", "back from a failure, warming up"]
    );
}

#[test]
fn a_plan_that_was_not_carried_out_is_made_again() {
    let mut scene = Scene::with(4);
    scene.fails(0);
    let lost = scene.plan(1);
    assert_eq!(scene.plan(1).actions, lost.actions);
    assert_eq!(scene.tick(1), [10, 145, 145, 100]);
    scene.returns(0);
    scene.tick(1);
    scene.plan(10);
    assert_eq!(scene.tick(20), [100, 100, 100, 100]);
}

#[test]
fn a_vm_that_fails_while_it_warms_up_loses_what_it_got_back_and_a_flapping_one_moves_little() {
    let mut scene = Scene::with(4);
    scene.fails(1);
    scene.tick(1);
    scene.returns(1);
    scene.tick(1);
    assert_eq!(scene.tick(10), [100, 40, 130, 130]);
    scene.fails(1);
    assert_eq!(scene.tick(1), [100, 10, 145, 145]);
    for _ in 0..20 {
        scene.returns(1);
        scene.tick(1);
        let most = scene.tick(2)[1];
        assert_eq!(most, 10 + 90 * 2 / 30, "two seconds of thirty");
        scene.fails(1);
        assert_eq!(scene.tick(1), [100, 10, 145, 145]);
    }
    scene.returns(1);
    scene.tick(1);
    assert_eq!(scene.tick(30), [100, 100, 100, 100], "nothing got lost on the way");
}

#[test]
fn neighbours_that_fail_together_are_taken_over_from_by_those_who_get_their_objects() {
    let mut scene = Scene::with(6);
    scene.fails(1);
    scene.fails(2);
    assert_eq!(scene.tick(1), [100, 10, 10, 190, 190, 100]);
    scene.returns(2);
    scene.tick(1);
    assert_eq!(scene.tick(30), [100, 10, 145, 145, 100, 100], "as if it had never failed");
    scene.returns(1);
    scene.tick(1);
    assert_eq!(scene.tick(30), [100; 6]);
}

#[test]
fn what_an_heir_took_over_goes_on_when_it_fails_too() {
    let mut scene = Scene::with(4);
    scene.fails(1);
    assert_eq!(scene.tick(1), [100, 10, 145, 145]);
    scene.fails(2);
    assert_eq!(scene.tick(1), [190, 10, 10, 190]);
    scene.fails(3);
    assert_eq!(scene.tick(1), [370, 10, 10, 10], "the last one has it all");
    scene.fails(0);
    assert_eq!(scene.tick(1), [10, 10, 10, 10], "nobody is left");
    scene.returns(2);
    assert_eq!(scene.tick(1), [10, 10, 370, 10], "nobody else can: it does not wait until it is warm");
    for vm in [0, 1, 3] {
        scene.returns(vm);
    }
    scene.tick(1);
    assert_eq!(scene.tick(60), [100; 4]);
}

#[test]
fn a_host_without_room_gets_no_more_and_that_is_said() {
    let on = |host| Seed { host, ..Seed::up(10, 100) };
    let directory = cluster(400, &[None, Some(120)], &[on(0), on(0), on(1), on(0)]);
    let mut scene = Scene::of(directory, "static", json!({}));
    scene.fails(1);
    let plan = scene.plan(1);
    assert_eq!(plan.refusals.iter().map(|refusal| refusal.vm.as_str()).collect::<Vec<_>>(), ["vm2"]);
    assert_eq!(plan.refusals[0].reason.facts[0], ("lacking".into(), 25.0));
    carry_out(&mut scene.directory, &plan);
    assert_eq!(desired(&scene.directory), [100, 10, 120, 145]);
    scene.returns(1);
    scene.tick(1);
    assert_eq!(scene.tick(30), [100, 100, 100, 100]);
}

#[test]
fn who_comes_back_gets_its_own_although_somebody_else_was_given_what_it_left() {
    let mut scene = Scene::with(4);
    scene.fails(1);
    // An operator is faster than the policy.
    let change = action(&id("vm0"), 100, Resource::Bandwidth.amount(190), Reason::new("operator"));
    let plan = Plan { base: scene.directory.revision(), actions: vec![change], ..Plan::default() };
    carry_out(&mut scene.directory, &plan);
    assert_eq!(scene.tick(1), [190, 10, 100, 100]);
    scene.returns(1);
    scene.tick(1);
    let shares = scene.tick(30);
    assert_eq!((shares[1], shares.iter().sum::<u64>()), (100, 400), "{shares:?}: all made room for it");
}

#[test]
fn a_policy_that_follows_demand_leaves_the_heirs_what_they_got_until_demand_can_tell() {
    let directory = || cluster(400, &[None], &[Seed::up(10, 100); 4]);
    let mut scene = Scene::of(directory(), "proportional", json!({}));
    scene.usage = vec![Some(50), Some(50), Some(50), Some(50)];
    scene.tick(3);
    scene.fails(1);
    scene.usage = vec![Some(50), None, Some(50), Some(50)];
    assert_eq!(scene.tick(0), [100, 10, 145, 145], "old demand would say 130 for each");
    assert_eq!(scene.tick(3), [100, 10, 145, 145]);
    scene.usage = vec![Some(50), None, Some(100), Some(50)];
    for _ in 0..30 {
        scene.tick(3);
    }
    let shares = desired(&scene.directory);
    assert!((190..200).contains(&shares[2]) && shares[3] < 100, "{shares:?}: as demand has it, in the end");
    scene.returns(1);
    scene.tick(1);
    scene.usage = vec![Some(50); 4];
    let warming = scene.tick(15);
    assert_eq!(warming[1], 55, "{warming:?}: its demand of old does not count before it is warm");
    for _ in 0..60 {
        scene.tick(3);
    }
    let shares = desired(&scene.directory);
    assert!(shares.iter().all(|share| (97..=103).contains(share)), "{shares:?}");
}

#[test]
fn another_allocator_goes_on_where_one_stopped() {
    let mut scene = Scene::with(4);
    scene.fails(1);
    let lost = scene.plan(1);
    let saved = scene.policy.save();
    scene.policy = policy("static", json!({}));
    scene.policy.restore(&serde_json::from_str(&saved.to_string()).unwrap()).unwrap();
    assert_eq!(scene.plan(1).actions, lost.actions);
    assert!(scene.policy.restore(&json!({ "takeover": { "away": 5 } })).is_err());
}

#[test]
fn of_one_that_was_never_seen_in_service_an_equal_share_is_taken_over_as_far_as_nobody_has_it() {
    let mut scene = Scene::with(4);
    scene.fails(1);
    scene.policy = policy("static", json!({}));
    assert_eq!(scene.tick(1), [100, 10, 145, 145]);
    scene.returns(1);
    scene.tick(1);
    assert_eq!(scene.tick(30), [100; 4]);
    scene.fails(2);
    scene.tick(1);
    scene.policy = policy("static", json!({}));
    assert_eq!(scene.tick(1), [145, 100, 10, 145], "others have it already");
}

#[test]
fn parameters_out_of_range_are_refused() {
    let build = |takeover| {
        let built = Policies::shipped().build("static", Resource::Memory, json!({ "takeover": takeover }));
        built.map(|_| ()).unwrap_err().to_string()
    };
    assert!(build(json!({ "replicas": 0 })).contains("use 1 or more"));
    assert!(build(json!({ "warmup": "3s" })).contains("warm_up"));
}

/// What may happen to a cluster.
#[derive(Debug, Clone)]
enum Event {
    Fails(usize),
    Returns(usize),
    /// So many seconds pass; the plan is carried out.
    Decides(u64),
    /// The plan is stale: nothing of it happens.
    Loses(u64),
    /// The host has so much now, if its VMs do not have more.
    Capacity(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0usize..6).prop_map(Event::Fails),
        3 => (0usize..6).prop_map(Event::Returns),
        4 => (0u64..40).prop_map(Event::Decides),
        1 => (0u64..10).prop_map(Event::Loses),
        1 => (200u64..1000).prop_map(Event::Capacity),
    ]
}

fn happen(scene: &mut Scene, event: &Event) {
    let count = scene.usage.len();
    match *event {
        Event::Fails(vm) => scene.fails(vm % count),
        Event::Returns(vm) => scene.returns(vm % count),
        Event::Decides(seconds) => drop(scene.tick(seconds)),
        Event::Loses(seconds) => drop(scene.plan(seconds)),
        Event::Capacity(amount) => {
            let host = Command::PutHost(HostSpec { id: id("h0"), capacity: rate(amount) });
            if let Ok(changes) = scene.directory.decide(&host) {
                scene.directory.apply(scene.directory.revision().next(), &changes);
            }
        }
    }
}

proptest! {
    /// Whatever fails and returns, and whichever plans are lost: every plan passes the checker (`Scene::plan`), so that
    /// no bound, floor or capacity is ever broken.
    #[test]
    fn every_plan_keeps_the_rules(
        events in prop::collection::vec(event(), 1..60),
        shares in prop::collection::vec(10u64..200, 2..6),
        replicas in 1usize..5,
        name in prop::sample::select(vec!["static", "proportional", "dps-bank", "dps-distributed", "sandpiper"]),
    ) {
        let seeds: Vec<_> = shares.iter().map(|&share| Seed::up(10, share)).collect();
        let directory = cluster(shares.iter().sum(), &[None], &seeds);
        let mut scene = Scene::of(directory, name, json!({ "replicas": replicas, "warm_up": "10s" }));
        scene.usage = shares.iter().map(|share| Some(share / 2)).collect();
        for event in &events {
            happen(&mut scene, event);
        }
    }

    /// Under a policy that moves nothing, everybody has his own again once all are back and warm.
    #[test]
    fn nothing_is_lost_on_the_way(
        events in prop::collection::vec(event(), 1..60),
        shares in prop::collection::vec(10u64..200, 2..6),
        replicas in 1usize..5,
    ) {
        let seeds: Vec<_> = shares.iter().map(|&share| Seed::up(10, share)).collect();
        let directory = cluster(shares.iter().sum(), &[None], &seeds);
        let mut scene = Scene::of(directory, "static", json!({ "replicas": replicas, "warm_up": "10s" }));
        for event in events.iter().filter(|event| !matches!(event, Event::Capacity(_))) {
            happen(&mut scene, event);
        }
        (0..shares.len()).for_each(|vm| scene.returns(vm));
        scene.tick(1);
        scene.tick(10);
        scene.tick(10);
        prop_assert_eq!(scene.tick(1), shares);
        prop_assert!(scene.plan(1).actions.is_empty());
    }
}
