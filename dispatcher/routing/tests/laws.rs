//! Laws that every algorithm keeps, seen from outside.

use proptest::prelude::*;
use std::time::Duration;
use vibra_model::{Revision, Timestamp, VmState};
use vibra_routing::*;

/// A cluster of servers `s1`, `s2`, … with these weights and states.
fn cluster(servers: &[(u32, VmState)]) -> Cluster {
    let server = |(i, &(weight, state))| Server::new(format!("s{}", i + 1).parse().unwrap(), weight, state);
    Cluster { revision: Revision(1), servers: servers.iter().enumerate().map(server).collect() }
}

/// `n` servers of weight 1 that are up.
fn even(n: usize) -> Cluster {
    cluster(&vec![(1, VmState::Up); n])
}

fn states() -> impl Strategy<Value = VmState> {
    use VmState::{Down, Draining, Starting, Up, Warming};
    prop_oneof![6 => Just(Up), 1 => Just(Starting), 1 => Just(Draining), 1 => Just(Warming), 2 => Just(Down)]
}

fn warmths() -> impl Strategy<Value = Warmth> {
    prop_oneof![3 => Just(Warmth::FULL), 1 => (0u16..=1000).prop_map(Warmth::per_mille)]
}

fn clusters() -> impl Strategy<Value = Cluster> {
    prop::collection::vec((1u32..9, states(), warmths()), 1..12).prop_map(|servers| {
        let mut cluster = cluster(&servers.iter().map(|&(weight, state, _)| (weight, state)).collect::<Vec<_>>());
        cluster.servers.iter_mut().zip(servers).for_each(|(server, (_, _, warmth))| server.warmth = warmth);
        cluster
    })
}

fn settings(servers: usize, algorithms: Vec<Algorithm>) -> impl Strategy<Value = Settings> {
    let choices =
        (prop::sample::select(algorithms), prop::sample::select(HashKind::ALL), prop::sample::select(Remap::ALL));
    (choices, 1..=servers, 0usize..4).prop_map(|((algorithm, hash, remap), replicas, fallbacks)| Settings {
        algorithm,
        hash,
        remap,
        replicas,
        fallbacks,
        ..Settings::default()
    })
}

/// A cluster with settings that fit it, by one of these algorithms.
fn setups_by(algorithms: Vec<Algorithm>) -> impl Strategy<Value = (Cluster, Settings)> {
    clusters().prop_flat_map(move |cluster| {
        let servers = cluster.servers.len();
        (Just(cluster), settings(servers, algorithms.clone()))
    })
}

fn setups() -> impl Strategy<Value = (Cluster, Settings)> {
    setups_by(Algorithm::ALL.to_vec())
}

fn setups_with_subsets() -> impl Strategy<Value = (Cluster, Settings)> {
    setups_by(Algorithm::ALL.iter().copied().filter(|algorithm| algorithm.uses_replicas()).collect())
}

/// A request: an object, what the servers have to do meanwhile, and the seconds since the one before.
#[derive(Debug, Clone)]
struct Request {
    name: String,
    loads: Vec<u32>,
    wait: u64,
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let request = ("/[a-c]{0,2}", prop::collection::vec(0u32..200, 12), 0u64..9);
    prop::collection::vec(request.prop_map(|(name, loads, wait)| Request { name, loads, wait }), 1..40)
}

/// What each request gets, and what was said of it beforehand.
fn run(table: &Table, state: &mut PickState, requests: &[Request]) -> Vec<(Candidates, Explanation)> {
    let mut now = Timestamp(0);
    let mut one = |request: &Request| {
        now = now.after(Duration::from_secs(request.wait));
        let explanation = table.explain(state, &request.name, &request.loads, now);
        (table.pick(state, &request.name, &request.loads, now), explanation)
    };
    requests.iter().map(&mut one).collect()
}

proptest! {
    #[test]
    fn identical_snapshots_give_identical_tables_and_picks((cluster, settings) in setups(), requests in requests()) {
        let copy: Cluster = serde_json::from_str(&serde_json::to_string(&cluster).unwrap()).unwrap();
        let set: Settings = serde_json::from_str(&serde_json::to_string(&settings).unwrap()).unwrap();
        let (a, b) = (Table::build(&cluster, &settings).unwrap(), Table::build(&copy, &set).unwrap());
        prop_assert_eq!(a.digest(), b.digest());
        let picks = |table: &Table| run(table, &mut PickState::default(), &requests);
        prop_assert_eq!(picks(&a), picks(&b));
    }

    #[test]
    fn candidates_are_distinct_and_serving_and_as_many_as_asked((cluster, settings) in setups(), requests in requests()) {
        let table = Table::build(&cluster, &settings).unwrap();
        let serving = cluster.servers.iter().filter(|server| server.state.serves()).count();
        let first = if settings.algorithm.uses_replicas() { settings.replicas } else { 1 };
        for (candidates, _) in run(&table, &mut PickState::default(), &requests) {
            prop_assert!(candidates.iter().all(|&server| cluster.servers[server].state.serves()));
            prop_assert!((1..candidates.len()).all(|i| !candidates[..i].contains(&candidates[i])));
            prop_assert_eq!(candidates.len(), serving.min(first + settings.fallbacks));
        }
    }

    #[test]
    fn an_explanation_is_of_the_pick_that_follows((cluster, settings) in setups(), requests in requests()) {
        let table = Table::build(&cluster, &settings).unwrap();
        for (candidates, explanation) in run(&table, &mut PickState::default(), &requests) {
            let explained: Vec<usize> = explanation.candidates.iter().map(|judged| judged.index).collect();
            prop_assert_eq!(&explained[..], &candidates[..]);
            prop_assert_eq!(explained.len() + explanation.passed_over.len(), cluster.servers.len());
            let mut all = explanation.candidates.iter().chain(&explanation.passed_over);
            prop_assert!(all.all(|judged| !judged.reason.rule.is_empty()));
            prop_assert_eq!(explanation.hash_value.is_some(), settings.algorithm.uses_hash());
            let text = serde_json::to_string(&explanation).unwrap();
            prop_assert_eq!(serde_json::from_str::<Explanation>(&text).unwrap(), explanation);
        }
    }

    /// The subset's servers come before all others, ranked by load. They are R where all are warm and so many serve;
    /// where others are warming, they are all that serve the object already.
    #[test]
    fn the_subset_comes_first_and_the_least_loaded_leads(
        (cluster, settings) in setups_with_subsets(),
        requests in requests(),
    ) {
        let table = Table::build(&cluster, &settings).unwrap();
        let picks = run(&table, &mut PickState::default(), &requests);
        for ((candidates, explanation), request) in picks.iter().zip(&requests) {
            let warming = cluster.servers.iter().any(|server| server.warmth < Warmth::FULL);
            prop_assert!(warming || explanation.subset.len() == settings.replicas.min(candidates.len()));
            let subset = &candidates[..explanation.subset.len()];
            let names: Vec<_> = subset.iter().map(|&server| &cluster.servers[server].name).collect();
            prop_assert!(subset.is_sorted_by_key(|&server| request.loads[server]));
            prop_assert!(explanation.subset.iter().all(|name| names.contains(&name)));
            prop_assert!(explanation.subset.len() <= settings.replicas);
            prop_assert_eq!(explanation.subset.is_empty(), candidates.is_empty());
        }
    }

    /// Whatever changes about the cluster, a state goes with it: picks stay distinct and serving, and the memory of
    /// another algorithm is no obstacle.
    #[test]
    fn states_survive_changes_of_the_table(steps in prop::collection::vec((setups(), requests()), 1..6), names in any::<u64>()) {
        let mut state = PickState::default();
        for (step, ((mut cluster, settings), requests)) in steps.into_iter().enumerate() {
            // Servers change places from step to step.
            let places = cluster.servers.len();
            cluster.servers.rotate_left((names as usize).wrapping_add(step) % places);
            let table = Table::build(&cluster, &settings).unwrap();
            for (candidates, _) in run(&table, &mut state, &requests) {
                prop_assert!(candidates.iter().all(|&server| cluster.servers[server].state.serves()));
            }
        }
    }

    /// What does not change the semantics does not change the digest, and what does, does.
    #[test]
    fn digests_tell_tables_apart((cluster, settings) in setups(), (other, by) in setups()) {
        let digest = |cluster: &Cluster, settings: &Settings| Table::build(cluster, settings).unwrap().digest().to_owned();
        let later = Cluster { revision: Revision(99), ..cluster.clone() };
        prop_assert_eq!(digest(&cluster, &settings), digest(&later, &settings));
        let same = cluster.servers == other.servers && settings == by;
        prop_assert_eq!(digest(&cluster, &settings) == digest(&other, &by), same);
    }

    /// As a server warms up, objects only move to it; before, all is as if it were not there, and after, as if it had
    /// always been.
    #[test]
    fn objects_only_move_to_a_server_that_warms_up(
        (mut cluster, settings) in setups_by(
            [Algorithm::UrlHash, Algorithm::Ring, Algorithm::Rendezvous, Algorithm::Slots].into(),
        ),
        server in any::<prop::sample::Index>(),
        mut shares in prop::collection::vec(0u16..=1000, 1..5),
    ) {
        let settings = Settings { remap: Remap::Skip, ..settings };
        let server = server.index(cluster.servers.len());
        let names: Vec<String> = (0..100).map(|i| format!("/object/{i}")).collect();
        let picks = |cluster: &Cluster| -> Vec<Candidates> {
            let table = Table::build(cluster, &settings).unwrap();
            let mut state = PickState::default();
            names.iter().map(|name| table.pick(&mut state, name, &Idle, Timestamp(0))).collect()
        };
        cluster.servers[server].state = VmState::Up;
        cluster.servers[server].warmth = Warmth::FULL;
        // Where nobody else is warm, nobody is spared.
        cluster.servers.push(Server::new("warm".parse().unwrap(), 1, VmState::Up));
        let warm = picks(&cluster);
        shares.extend([0, 1000]);
        shares.sort_unstable();
        let mut before: Option<Vec<Candidates>> = None;
        for share in shares {
            cluster.servers[server].warmth = Warmth::per_mille(share);
            let now = picks(&cluster);
            for (old, new) in before.iter().flatten().zip(&now) {
                prop_assert!(old[0] == new[0] || new[0] == server, "{old:?} to {new:?} at {share}");
            }
            before = Some(now);
        }
        prop_assert_eq!(before.unwrap(), warm);
    }

    /// Understudies keep what they had while the server was away.
    #[test]
    fn a_cold_server_is_as_good_as_none(
        algorithm in prop::sample::select(&[Algorithm::UrlHash, Algorithm::Ring, Algorithm::Rendezvous][..]),
        n in 2usize..12,
        replicas in 1usize..4,
        cold in any::<prop::sample::Index>(),
    ) {
        let settings = Settings { algorithm, replicas: replicas.min(n - 1), fallbacks: 0, ..Settings::default() };
        let cold = cold.index(n);
        let mut cluster = even(n);
        cluster.servers[cold].state = VmState::Down;
        let away = Table::build(&cluster, &settings).unwrap();
        (cluster.servers[cold].state, cluster.servers[cold].warmth) = (VmState::Up, Warmth::per_mille(0));
        let back = Table::build(&cluster, &settings).unwrap();
        let (mut state, now) = (PickState::default(), Timestamp(0));
        for name in (0..200).map(|i| format!("/object/{i}")) {
            prop_assert_eq!(away.pick(&mut state, &name, &Idle, now), back.pick(&mut state, &name, &Idle, now));
        }
    }

    /// When one server fails, the first choice of a name changes only if it was that server. Not so under Maglev (few
    /// others move), and under `url-hash` by design as well.
    #[test]
    fn one_failure_moves_only_what_the_failed_server_had(
        algorithm in prop::sample::select(&[Algorithm::UrlHash, Algorithm::Ring, Algorithm::Rendezvous, Algorithm::Slots][..]),
        weights in prop::collection::vec(1u32..9, 2..12),
        failed in any::<prop::sample::Index>(),
    ) {
        let mut servers: Vec<_> = weights.into_iter().map(|weight| (weight, VmState::Up)).collect();
        let settings = Settings { algorithm, replicas: 1, ..Settings::default() };
        let before = Table::build(&cluster(&servers), &settings).unwrap();
        let failed = failed.index(servers.len());
        servers[failed].1 = VmState::Down;
        let after = Table::build(&cluster(&servers), &settings).unwrap();
        let (mut state, now) = (PickState::default(), Timestamp(0));
        let names: Vec<String> = (0..200).map(|i| format!("/object/{i}")).collect();
        let old: Vec<_> = names.iter().map(|name| before.pick(&mut state, name, &Idle, now)[0]).collect();
        for (name, old) in names.iter().zip(old) {
            let new = after.pick(&mut state, name, &Idle, now)[0];
            prop_assert!(new == old || old == failed);
        }
    }

    /// Mirrokni et al., theorem 1 in its plain part: no server is over ⌈c m w / W⌉ when it gets a request.
    #[test]
    fn bounded_loads_keep_their_bound(
        weights in prop::collection::vec(1u32..9, 1..12),
        balance in 1.0f64..3.0,
        objects in prop::collection::vec(0u32..4, 1..400),
    ) {
        let servers: Vec<_> = weights.iter().map(|&weight| (weight, VmState::Up)).collect();
        let settings = Settings { algorithm: Algorithm::BoundedLoads, balance, ..Settings::default() };
        let table = Table::build(&cluster(&servers), &settings).unwrap();
        let total = f64::from(weights.iter().sum::<u32>());
        let (mut loads, mut state) = (vec![0u32; weights.len()], PickState::default());
        for (m, object) in (1..).zip(objects) {
            let chosen = table.pick(&mut state, &format!("/{object}"), &loads, Timestamp(0))[0];
            loads[chosen] += 1;
            let bound = (balance * f64::from(m) * f64::from(weights[chosen]) / total).ceil();
            prop_assert!(f64::from(loads[chosen]) <= bound, "{} over {}", loads[chosen], bound);
        }
    }
}

/// How many of `requests` requests each server gets. They all stay active.
fn shares(algorithm: Algorithm, weights: &[u32], requests: usize) -> Vec<u32> {
    let servers: Vec<_> = weights.iter().map(|&weight| (weight, VmState::Up)).collect();
    let settings = Settings { algorithm, replicas: 1, ..Settings::default() };
    let table = Table::build(&cluster(&servers), &settings).unwrap();
    let (mut counts, mut state) = (vec![0; weights.len()], PickState::default());
    for i in 0..requests {
        let chosen = table.pick(&mut state, &format!("/object/{i}"), &counts, Timestamp(0))[0];
        counts[chosen] += 1;
    }
    counts
}

#[test]
fn counting_algorithms_share_exactly_by_weight() {
    for algorithm in [Algorithm::WeightedRoundRobin, Algorithm::WeightedLeastConnection] {
        assert_eq!(shares(algorithm, &[4, 2, 1], 700), [400, 200, 100], "{algorithm}");
    }
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnection] {
        assert_eq!(shares(algorithm, &[4, 2, 1], 300), [100, 100, 100], "{algorithm}");
    }
}

#[test]
fn hashing_algorithms_share_by_weight_on_average() {
    // Of 20,000 names: rendezvous and Maglev err by sampling alone (four standard deviations are 0.014); a ring's
    // parts, of 160 points a server, by some 1/√160 of the share as well.
    for (algorithm, tolerance) in [(Algorithm::Rendezvous, 0.014), (Algorithm::Maglev, 0.014), (Algorithm::Ring, 0.08)]
    {
        let counts = shares(algorithm, &[4, 2, 1, 1], 20_000);
        for (count, share) in counts.iter().zip([0.5, 0.25, 0.125, 0.125]) {
            let found = f64::from(*count) / 20_000.0;
            assert!((found - share).abs() < tolerance, "{algorithm}: {found} for {share}");
        }
    }
}

#[test]
fn equal_servers_share_names_evenly() {
    for algorithm in [Algorithm::UrlHash, Algorithm::Slots, Algorithm::Rendezvous, Algorithm::Maglev] {
        for (server, count) in shares(algorithm, &[1; 8], 40_000).into_iter().enumerate() {
            // Four standard deviations of a binomial count of mean 5,000.
            assert!(count.abs_diff(5000) < 265, "{algorithm}: server {server} has {count}");
        }
    }
}

#[test]
fn a_warming_server_has_its_share_of_what_it_will_have() {
    for &algorithm in Algorithm::ALL.iter().filter(|algorithm| !matches!(algorithm, Algorithm::Lard | Algorithm::LardR))
    {
        let settings = Settings { algorithm, replicas: 1, ..Settings::default() };
        let had = |warmth: u16| {
            let mut cluster = even(4);
            cluster.servers[1].warmth = Warmth::per_mille(warmth);
            let table = Table::build(&cluster, &settings).unwrap();
            let mut state = PickState::default();
            let names = (0..8000).map(|i| format!("/object/{i}"));
            names.filter(|name| table.pick(&mut state, name, &Idle, Timestamp(0))[0] == 1).count()
        };
        let whole = had(1000) as f64;
        for warmth in [100, 300, 700] {
            let share = had(warmth) as f64 / whole;
            // Four standard deviations of a binomial share, at most.
            let tolerance = 4.0 * (0.25 / whole).sqrt();
            assert!((share - f64::from(warmth) / 1000.0).abs() < tolerance, "{algorithm}: {share} at {warmth}");
        }
    }
}

#[test]
fn an_explanation_tells_who_is_warming() {
    let mut cluster = even(3);
    cluster.servers[1].warmth = Warmth::per_mille(250);
    let settings = Settings { replicas: 1, fallbacks: 1, ..Settings::default() };
    let table = Table::build(&cluster, &settings).unwrap();
    let told = |name: &str| {
        let explanation = table.explain(&PickState::default(), name, &Idle, Timestamp(0));
        let all = explanation.candidates.into_iter().chain(explanation.passed_over);
        all.filter(|judged| judged.index == 1).map(|judged| judged.reason).next().unwrap()
    };
    let reasons: Vec<_> = (0..100).map(|i| told(&format!("/{i}"))).collect();
    assert!(reasons.iter().all(|reason| reason.facts.contains(&("warmth".into(), 0.25))), "{reasons:?}");
    let spared = reasons.iter().filter(|reason| reason.rule == "warming: this object is not of its share yet").count();
    assert!((60..90).contains(&spared), "{spared}");
}

#[test]
fn round_robin_goes_on_where_it_was_when_servers_change() {
    let settings = Settings { algorithm: Algorithm::RoundRobin, ..Settings::default() };
    let mut servers = even(4);
    let mut state = PickState::default();
    let mut pick = |cluster: &Cluster| {
        let table = Table::build(cluster, &settings).unwrap();
        let first = table.pick(&mut state, "/", &Idle, Timestamp(0))[0];
        cluster.servers[first].name.as_str().to_owned()
    };
    assert_eq!([pick(&servers), pick(&servers)], ["s1", "s2"]);
    servers.servers[2].state = VmState::Down;
    assert_eq!(pick(&servers), "s4");
    servers.servers.remove(0);
    servers.servers[1].state = VmState::Up;
    assert_eq!([pick(&servers), pick(&servers), pick(&servers)], ["s2", "s3", "s4"]);
}

#[test]
fn only_lard_remembers_objects() {
    for &algorithm in Algorithm::ALL {
        let table = Table::build(&even(4), &Settings { algorithm, ..Settings::default() }).unwrap();
        let mut state = PickState::default();
        for i in 0..1000 {
            table.pick(&mut state, &format!("/{i}"), &Idle, Timestamp(0));
        }
        let lard = matches!(algorithm, Algorithm::Lard | Algorithm::LardR);
        assert_eq!(state.objects(), if lard { 1000 } else { 0 }, "{algorithm}");
        assert_eq!(table.shares_state(), lard || algorithm == Algorithm::Slots);
        assert_eq!(table.most_active(), lard.then_some(3 * 65 + 24));
    }
}

#[test]
fn without_a_serving_server_there_is_no_candidate() {
    let down = cluster(&[(1, VmState::Down), (2, VmState::Draining), (1, VmState::Starting)]);
    for &algorithm in Algorithm::ALL {
        for &remap in Remap::ALL {
            let table = Table::build(&down, &Settings { algorithm, remap, ..Settings::default() }).unwrap();
            let mut state = PickState::default();
            assert!(table.pick(&mut state, "/a", &Idle, Timestamp(0)).is_empty(), "{algorithm}");
            let explanation = table.explain(&state, "/a", &Idle, Timestamp(0));
            assert_eq!(explanation.passed_over[1].reason.rule, "draining: takes no new requests");
            assert!(explanation.to_string().contains("no server is available"));
        }
    }
}

#[test]
fn an_explanation_reads_well() {
    let mut cluster = even(4);
    cluster.servers[0].state = VmState::Down;
    let settings = Settings { hash: HashKind::Charsum, fallbacks: 0, ..Settings::default() };
    let table = Table::build(&cluster, &settings).unwrap();
    // The codes of "/english/prog.html" add up to 1763, 3 modulo 4: VM_4, and VM_2 instead of the failed VM_1.
    let text = table.explain(&PickState::default(), "/english/prog.html", &[0, 2, 0, 3], Timestamp(0)).to_string();
    let lines: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "  charsum hash: 1763",
            "  sub-namespace = hash mod N [sub_namespace 3, N 4, R 2]",
            "  subset: s4, s2",
            "  1. s2 (2 active): the least active requests in the subset",
            "  2. s4 (3 active): in the subset; more to do, or as much and later in order",
            "  -  s1 (0 active): down: takes no new requests",
            "  -  s3 (0 active): further on in cluster order",
        ]
    );
}
