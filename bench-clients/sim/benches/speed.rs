//! How many requests a second of one core's time are simulated: `cargo bench -p vibra-sim`.

use divan::{Bencher, counter::ItemsCount};
use std::sync::Arc;
use vibra_model::{Bytes, BytesPerSec, Customer, HostSpec, Resource, Resources, VmSpec};
use vibra_policy::{Composition, Policies};
use vibra_routing::{Algorithm, HashKind, Settings};
use vibra_sim::cluster::{Arrival, Catalogue, Scenario, Simulation};
use vibra_trace::{
    Spread,
    generate::{Params, generate},
};

fn main() {
    divan::main();
}

/// Sixteen servers that have, together, what the reconstructed World Cup window asks of them and a third more.
fn scenario(algorithm: Algorithm) -> Scenario {
    let share = Resources { bandwidth: Some(BytesPerSec(550_000)), memory: Some(Bytes(24 << 20)), cpu: None };
    let total = Resources { bandwidth: Some(BytesPerSec(8_800_000)), memory: Some(Bytes(16 * (24 << 20))), cpu: None };
    let vm = |order: u32| VmSpec {
        id: format!("vm{order}").parse().expect("a name"),
        customer: "shop".parse().expect("a name"),
        host: "h".parse().expect("a name"),
        address: "10.0.0.1:80".into(),
        order,
        weight: 1,
        floor: Resources { bandwidth: Some(BytesPerSec(50_000)), ..Resources::NONE },
        initial: share,
    };
    Scenario {
        vms: (1..=16).map(vm).collect(),
        hosts: vec![HostSpec { id: "h".parse().expect("a name"), capacity: Resources::NONE }],
        settings: Settings { algorithm, hash: HashKind::Xxh3, replicas: 2, ..Settings::default() },
        ..Scenario::new(Customer { id: "shop".parse().expect("a name"), bounds: total })
    }
}

#[divan::bench(args = [Algorithm::UrlHash, Algorithm::LeastConnection, Algorithm::Lard], sample_count = 5, sample_size = 1)]
fn worldcup_on_16_servers(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let trace = generate("worldcup", &Params { seed: 1998, ..Params::default() }).expect("a trace");
    let catalogue = Arc::new(Catalogue::new(&trace.objects));
    let schedule = trace.schedule(1.0, Spread::Poisson { seed: 1998 });
    let arrivals: Vec<_> = schedule.filter_map(|(request, due)| Arrival::new(&request, due, &catalogue)).collect();
    let scenario = scenario(algorithm);
    bencher.counter(ItemsCount::new(arrivals.len())).bench_local(|| {
        let policy = Policies::shipped().build("proportional", Resource::Bandwidth, serde_json::json!({}));
        let policies = Composition::new(vec![policy.expect("a policy")]).expect("one policy");
        let mut simulation = Simulation::new(&scenario, policies, catalogue.clone()).expect("a scenario");
        simulation.run(arrivals.iter().copied())
    });
}
