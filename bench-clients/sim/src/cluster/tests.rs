//! Small clusters whose behaviour is known beforehand.

use super::*;
use crate::stream;
use proptest::prelude::*;
use rand_chacha::rand_core::Rng;
use std::sync::Arc;
use vibra_model::{Bytes, BytesPerSec, Resource, Resources};
use vibra_policy::{Composition, Policies};
use vibra_routing::{Algorithm, HashKind};
use vibra_trace::Objects;

const SECOND: Nanos = 1_000_000_000;

fn bandwidth(rate: u64) -> Resources {
    Resources { bandwidth: Some(BytesPerSec(rate)), ..Resources::NONE }
}

/// So many VMs on one host, each with this bandwidth; nothing but the shaper takes time, and its bucket holds nothing.
fn scenario(vms: u32, rate: u64) -> Scenario {
    let vm = |order: u32| VmSpec {
        id: format!("vm{order}").parse().expect("a name"),
        customer: "shop".parse().expect("a name"),
        host: "h".parse().expect("a name"),
        address: "10.0.0.1:80".into(),
        order,
        weight: 1,
        floor: bandwidth(rate / 100),
        initial: bandwidth(rate),
    };
    let settings = Settings { hash: HashKind::Charsum, replicas: 1, ..Settings::default() };
    let shaper = Shaper {
        piece: Bytes(u64::MAX),
        first: Bytes(u64::MAX),
        depth: Bytes::ZERO,
        slack: Duration::ZERO,
        ..Shaper::default()
    };
    let hardware = Hardware { latency: Duration::ZERO, head: Bytes::ZERO, shaper, ..Hardware::default() };
    let customer = Customer { id: "shop".parse().expect("a name"), bounds: bandwidth(rate * u64::from(vms)) };
    let hosts = vec![HostSpec { id: "h".parse().expect("a name"), capacity: Resources::NONE }];
    Scenario { vms: (1..=vms).map(vm).collect(), hosts, settings, hardware, ..Scenario::new(customer) }
}

fn policies(name: &str) -> Composition {
    let policy = Policies::shipped().build(name, Resource::Bandwidth, serde_json::json!({})).expect("a policy");
    Composition::new(vec![policy]).expect("one policy")
}

/// Objects /0, /1, ..., of these sizes. By Charsum, /0 is in sub-namespace 95 modulo N.
fn catalogue(sizes: &[u64]) -> Arc<Catalogue> {
    let mut objects = Objects::new();
    for (number, &size) in sizes.iter().enumerate() {
        let id = objects.intern(&format!("/{number}"));
        objects.set_size(id, size);
    }
    Arc::new(Catalogue::new(&objects))
}

fn run(scenario: &Scenario, policy: &str, sizes: &[u64], arrivals: &[Arrival]) -> Outcome {
    let mut simulation = Simulation::new(scenario, policies(policy), catalogue(sizes)).expect("a scenario");
    let outcome = simulation.run(arrivals.iter().copied());
    assert_eq!(outcome.requests, outcome.completed + outcome.errors.total());
    outcome
}

/// Exponentially distributed, of mean 1.
fn exponential(random: &mut impl Rng) -> f64 {
    -(1.0 - random.next_u64() as f64 / 2f64.powi(64)).max(f64::MIN_POSITIVE).ln()
}

/// Poisson arrivals, so many a second, of answers from memory whose sizes `size` draws.
fn poisson(count: usize, rate: f64, mut size: impl FnMut(&mut rand_chacha::ChaCha8Rng) -> u64) -> Vec<Arrival> {
    let mut random = stream(1998, 0);
    let mut at = 0.0;
    let arrivals = (0..count).map(|_| {
        at += exponential(&mut random) / rate;
        let bytes = size(&mut random);
        Arrival { at: (at * 1e9) as Nanos, bytes, object: 0, client: 0, reads: false }
    });
    arrivals.collect()
}

fn mean(outcome: &Outcome) -> f64 {
    outcome.response_time.expect("answers").mean_ms
}

#[track_caller]
fn assert_near(measured: f64, expected: f64, tolerance: f64) {
    assert!((measured / expected - 1.0).abs() < tolerance, "{measured} is not {expected} within {tolerance}");
}

#[test]
fn m_d_1_waits_as_pollaczek_and_khinchine_say() {
    // 10 ms of service each, 70 % utilised: R = D (1 + ρ / (2 (1 - ρ))).
    let arrivals = poisson(300_000, 70.0, |_| 10_000);
    let expected = 10.0 * (1.0 + 0.7 / 0.6);
    let shaped = run(&scenario(1, 1_000_000), "static", &[10_000], &arrivals);
    assert_near(mean(&shaped), expected, 0.02);
    let mut computed = scenario(1, u64::MAX / 1_000);
    computed.hardware.cpu.request = Duration::from_millis(10);
    assert_near(mean(&run(&computed, "static", &[10_000], &arrivals)), expected, 0.02);
}

#[test]
fn m_m_1_has_one_mean_whatever_the_order_of_service() {
    // 1 / (μ - λ) = 1 / (100 - 70) s, in the order of coming as by turns of small pieces, or one at a time.
    let arrivals = poisson(400_000, 70.0, |random| (10_000.0 * exponential(random)) as u64 + 1);
    for (piece, mpl) in [(u64::MAX, None), (500, None), (500, Some(1))] {
        let mut scenario = scenario(1, 1_000_000);
        let shaper = &mut scenario.hardware.shaper;
        (shaper.piece, shaper.first, scenario.hardware.mpl) = (Bytes(piece), Bytes(piece), mpl);
        assert_near(mean(&run(&scenario, "static", &[0], &arrivals)), 1e3 / 30.0, 0.05);
    }
}

#[test]
fn sessions_obey_the_response_time_law() {
    // N = X (R + Z), as Little has it.
    let mut scenario = scenario(1, 1_000_000);
    scenario.clients = Clients::Closed { sessions: 80, think: Duration::from_secs(1) };
    let outcome = run(&scenario, "static", &[0], &poisson(100_000, 1.0, |_| 10_000));
    let throughput = outcome.completed as f64 / outcome.duration.as_secs_f64();
    assert_near(throughput * (mean(&outcome) / 1e3 + 1.0), 80.0, 0.02);
    assert!(throughput < 100.0, "{throughput}");
}

#[test]
fn an_object_is_read_once_while_memory_has_room() {
    let mut scenario = scenario(2, u64::MAX / 1_000);
    let memory = Resources { memory: Some(Bytes((16 << 20) + 2_500)), ..scenario.vms[0].initial };
    scenario.vms.iter_mut().for_each(|vm| vm.initial = memory);
    scenario.customer.bounds.memory = Some(Bytes(1 << 30));
    // Two objects for each server, as their names end on even and odd figures.
    let arrivals = |objects: u32| -> Vec<_> {
        let ask = |step: u32| Arrival {
            at: u64::from(step) * SECOND,
            bytes: 1_000,
            object: step % objects,
            client: 0,
            reads: true,
        };
        (0..objects * 10).map(ask).collect()
    };
    let fits = run(&scenario, "static", &[1_000; 4], &arrivals(4));
    assert_eq!((fits.misses, fits.hits, fits.disk_blocks), (4, 36, 8));
    // Three each in turn, where there is room for two: the least recently used always leaves just before it is asked for.
    let cycles = run(&scenario, "static", &[1_000; 6], &arrivals(6));
    assert_eq!((cycles.misses, cycles.hits), (60, 0));
}

#[test]
fn a_failed_server_comes_back_cold_and_its_neighbour_takes_over() {
    let mut scenario = scenario(2, u64::MAX / 1_000);
    scenario.faults = vec!["vm2:down@10500ms..20500ms".parse().expect("a fault")];
    let ask =
        |step: u64| Arrival { at: step * SECOND + SECOND * 3 / 4, bytes: 1_000, object: 0, client: 0, reads: true };
    let outcome = run(&scenario, "static", &[1_000], &(0..40).map(ask).collect::<Vec<_>>());
    // VM 2 reads it, VM 1 while VM 2 is away, and VM 2 again. The first request after the failure finds VM 2 gone: hosts
    // report once a second.
    assert_eq!((outcome.completed, outcome.misses), (40, 3));
    assert_eq!(outcome.retries, 1);
}

#[test]
fn each_dispatcher_goes_by_its_own_view() {
    let mut scenario = scenario(2, u64::MAX / 1_000);
    (scenario.dispatchers, scenario.view_delay) = (2, Duration::from_secs(8));
    scenario.faults = vec!["vm2:down@10500ms".parse().expect("a fault")];
    let ask = |step: u64| Arrival {
        at: step / 2 * 100_000_000 + 50_000_000,
        bytes: 0,
        object: 0,
        client: step as u32 % 2,
        reads: false,
    };
    let outcome = run(&scenario, "static", &[0], &(0..600).map(ask).collect::<Vec<_>>());
    // The host tells at 11 s; one dispatcher hears it at 15 s, the other at 19 s. Until then each request, ten a second,
    // finds VM 2 gone and goes to the next candidate.
    assert_eq!((outcome.completed, outcome.retries), (600, 45 + 85));
}

#[test]
fn each_dispatcher_counts_its_own_requests() {
    // Two long answers at once from two servers. Who knows of both sends them to different ones.
    let arrivals = [0, 1].map(|client| Arrival { at: 0, bytes: 1_000, object: 0, client, reads: false });
    for (dispatchers, expected) in [(1, 1_000.0), (2, 1_500.0)] {
        let mut scenario = scenario(2, 1_000);
        scenario.settings.algorithm = Algorithm::LeastConnection;
        scenario.dispatchers = dispatchers;
        assert_near(mean(&run(&scenario, "static", &[1_000], &arrivals)), expected, 1e-6);
    }
}

/// One server of four is asked for three quarters of what all have together.
fn hot() -> Vec<Arrival> {
    poisson(30_000, 300.0, |_| 10_000)
}

#[test]
fn bandwidth_follows_the_load_within_the_bound() {
    let scenario = scenario(4, 1_000_000);
    let (fixed, moved) = (run(&scenario, "static", &[0], &hot()), run(&scenario, "proportional", &[0], &hot()));
    assert!(fixed.errors.timeout > 10_000, "{:?}", fixed.errors);
    assert!(moved.errors.timeout < fixed.errors.timeout / 10, "{:?}", moved.errors);
    assert!(moved.allocator.moved(Resource::Bandwidth) > 2_000_000, "{:?}", moved.allocator);
    assert_eq!(moved.allocator.refused, 0);
    for given in &moved.allocations {
        assert!(given.amounts.iter().sum::<u64>() <= 4_000_000, "{given:?}");
    }
}

#[test]
fn nothing_is_raised_on_what_a_stuck_actuator_keeps() {
    let mut scenario = scenario(4, 1_000_000);
    for vm in ["vm1", "vm2", "vm3", "vm4"] {
        scenario.faults.push(format!("{vm}:stuck-bandwidth@0s").parse().expect("a fault"));
    }
    let outcome = run(&scenario, "proportional", &[0], &hot());
    assert!(outcome.allocator.accepted > 0);
    assert_eq!(outcome.allocations, []);
    scenario.faults.truncate(1);
    let outcome = run(&scenario, "proportional", &[0], &hot());
    assert!(outcome.allocations.iter().all(|given| given.amounts.iter().sum::<u64>() <= 4_000_000));
    assert!(!outcome.allocations.is_empty());
}

#[test]
fn sensors_that_are_stale_mislead() {
    let mut scenario = scenario(4, 1_000_000);
    let fresh = run(&scenario, "proportional", &[0], &hot());
    // By Charsum the object is the fourth server's; its sensor says for ever that there was nothing to do.
    scenario.faults = vec!["vm4:stale@0s".parse().expect("a fault")];
    let stale = run(&scenario, "proportional", &[0], &hot());
    assert!(stale.errors.timeout > fresh.errors.timeout, "{:?} {:?}", stale.errors, fresh.errors);
}

#[test]
fn overcommitted_memory_slows_down() {
    let arrivals = poisson(5_000, 50.0, |_| 10_000);
    let mut scenario = scenario(1, 1_000_000);
    scenario.hardware.cpu.request = Duration::from_millis(5);
    let memory = Resources { memory: Some(Bytes(20 << 20)), ..scenario.vms[0].initial };
    scenario.vms[0].initial = memory;
    scenario.customer.bounds.memory = memory.memory;
    let enough = mean(&run(&scenario, "static", &[0], &arrivals));
    scenario.hardware.per_request = Bytes(3 << 20);
    let scarce = mean(&run(&scenario, "static", &[0], &arrivals));
    assert!(scarce > 2.0 * enough, "{scarce} {enough}");
    // With one at a time memory suffices again.
    scenario.hardware.mpl = Some(1);
    let admitted = mean(&run(&scenario, "static", &[0], &arrivals));
    assert!(admitted < scarce, "{admitted} {scarce}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refusal = |change: &dyn Fn(&mut Scenario)| {
        let mut scenario = scenario(2, 1_000);
        change(&mut scenario);
        let refused = Simulation::new(&scenario, policies("static"), catalogue(&[1])).err();
        refused.expect("refused").to_string()
    };
    assert!(refusal(&|s| s.dispatchers = 0).contains("dispatchers"));
    assert!(refusal(&|s| s.hardware.mpl = Some(0)).contains("multiprogramming"));
    assert!(refusal(&|s| s.settings.replicas = 3).contains("routing table"));
    assert!(refusal(&|s| s.customer.bounds = bandwidth(1)).contains("directory refuses"));
    assert!(refusal(&|s| s.faults = vec!["vm9:down@1s".parse().expect("a fault")]).contains("vm9"));
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let kinds =
        prop_oneof![Just(FaultKind::Down), Just(FaultKind::Stale), Just(FaultKind::Stuck(Resource::Bandwidth)),];
    let names = prop_oneof![Just("vm1"), Just("vm2"), Just("vm3"), Just("h")];
    let fault = (names, kinds, 0u64..20, prop::option::of(1u64..20)).prop_map(|(of, kind, from, length)| Fault {
        of: of.into(),
        kind,
        from: Duration::from_secs(from),
        until: length.map(|length| Duration::from_secs(from + length)),
    });
    prop::collection::vec(fault, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens: each request ends once, the bound holds at every instant, and the same seed gives the same run.
    #[test]
    fn requests_are_conserved_and_runs_are_repeatable(
        algorithm in prop::sample::select(Algorithm::ALL),
        faults in faults(),
        dispatchers in 1usize..4,
        mpl in prop::option::of(1usize..20),
        sessions in prop::option::of(1u32..30),
        seed in 0u64..4,
    ) {
        let mut scenario = scenario(3, 400_000);
        scenario.settings.algorithm = algorithm;
        (scenario.faults, scenario.dispatchers, scenario.hardware.mpl, scenario.seed) = (faults, dispatchers, mpl, seed);
        scenario.hardware.shaper = Shaper::default();
        scenario.view_delay = Duration::from_millis(1_500);
        scenario.actuator_lag = Duration::from_millis(300);
        if let Some(sessions) = sessions {
            scenario.clients = Clients::Closed { sessions, think: Duration::from_millis(50) };
        }
        let sizes = [30_000, 9_000, 500, 0, 80_000];
        let mut random = stream(seed, 7);
        let arrivals: Vec<_> = poisson(1_500, 60.0, |random| random.next_u64() % 20_000)
            .into_iter()
            .map(|arrival| Arrival { object: random.next_u32() % 5, client: random.next_u32(), reads: true, ..arrival })
            .collect();
        let outcome = run(&scenario, "proportional", &sizes, &arrivals);
        prop_assert_eq!(outcome.requests, 1_500);
        for given in &outcome.allocations {
            prop_assert!(given.amounts.iter().sum::<u64>() <= 1_200_000, "{:?}", given);
        }
        prop_assert_eq!(&run(&scenario, "proportional", &sizes, &arrivals), &outcome);
    }
}
