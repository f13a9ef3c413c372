//! What holds for every cluster and every usage.

use super::*;
use proptest::prelude::*;
use vibra_model::{BytesPerSec, Command, UsageSample, VmId};

/// What a VM used and whom it waited for, if it was measured at all.
type Told = Option<(u64, Option<u32>)>;

/// A cluster as the directory allows it, and rounds of usage.
#[derive(Debug, Clone)]
struct Case {
    directory: Snapshot,
    rounds: Vec<Vec<Told>>,
    parameters: Value,
}

const HOSTS: usize = 3;

fn case(spare: impl Strategy<Value = Option<u64>>, rate: impl Strategy<Value = f64>) -> impl Strategy<Value = Case> {
    let state = prop_oneof![6 => Just(VmState::Up), 1 => Just(VmState::Down), 1 => Just(VmState::Warming)];
    let amount = || prop_oneof![0..1000u64, 0..1u64 << 40];
    let seed = (amount(), amount(), 0..HOSTS, state).prop_map(|(floor, more, host, state)| Seed {
        floor,
        initial: floor + more,
        host,
        state,
    });
    let hosts = (prop::array::uniform3(spare), prop::array::uniform3(rate));
    (prop::collection::vec(seed, 1..10), amount(), hosts, any::<bool>()).prop_flat_map(
        |(seeds, slack, (spare, rates), migrate)| {
            let sum_on = |host| seeds.iter().filter(|seed| seed.host == host).map(|seed| seed.initial).sum::<u64>();
            let capacities: Vec<_> = (0..HOSTS).map(|host| spare[host].map(|spare| sum_on(host) + spare)).collect();
            let bound = seeds.iter().map(|seed| seed.initial).sum::<u64>() + slack;
            let mut directory = cluster(bound, &capacities, &seeds);
            for host in 0..HOSTS {
                let report = vibra_model::UsageReport { host: id(&format!("h{host}")), vms: Vec::new() };
                run(&mut directory, Command::Report(report));
            }
            let rates: Value = (0..HOSTS).map(|host| (format!("h{host}"), json!(rates[host]))).collect();
            let parameters = json!({ "rates": rates, "migrate": migrate });
            let used = prop_oneof![Just(0), 0..1000u64, 0..1u64 << 41, Just(u64::MAX)];
            let told = prop::option::weighted(0.8, (used, prop::option::of(0..12u32)));
            let rounds = prop::collection::vec(prop::collection::vec(told, seeds.len()), 1..6);
            rounds.prop_map(move |rounds| Case { directory: directory.clone(), rounds, parameters: parameters.clone() })
        },
    )
}

fn anywhere() -> impl Strategy<Value = Case> {
    case(prop::option::of(prop_oneof![Just(0), 0..1u64 << 41]), prop_oneof![Just(1.0), 0.1..10.0f64])
}

/// Without limits of hosts, all of which are alike.
fn unlimited() -> impl Strategy<Value = Case> {
    case(Just(None), Just(1.0))
}

/// Hosts with and without limits, all of which are alike.
fn alike() -> impl Strategy<Value = Case> {
    case(prop::option::of(prop_oneof![Just(0), 0..1u64 << 41]), Just(1.0))
}

fn usage(at: u64, round: &[Told]) -> UsageWindow {
    let sample = |told: &Told| {
        let (used, upstream) = told.map_or((None, None), |(used, upstream)| (Some(used), upstream));
        vec![UsageSample { at: Timestamp(at), egress: used.map(BytesPerSec), upstream, ..UsageSample::default() }]
    };
    let named = |(number, told)| (id::<VmId>(&format!("vm{number}")), sample(told));
    UsageWindow(round.iter().enumerate().map(named).collect())
}

fn both(parameters: &Value) -> [Box<dyn Policy>; 2] {
    [
        Box::new(Distributed::build(Resource::Bandwidth, parameters.clone()).unwrap()),
        Box::new(Bank::build(Resource::Bandwidth, parameters.clone()).unwrap()),
    ]
}

/// Plays a case, every plan of which must pass the checker and the directory; `each` sees what VMs had, what they
/// used, and what they have then.
fn play(case: &Case, policy: &mut dyn Policy, mut each: impl FnMut(&[u64], &[Option<u64>], &[u64])) -> Snapshot {
    let mut directory = case.directory.clone();
    for (at, round) in (1..).zip(&case.rounds) {
        let before = desired(&directory);
        let plan = decide(policy, &directory, &usage(at, round));
        carry_out(&mut directory, &plan);
        let used: Vec<_> = round.iter().map(|told| told.map(|(used, _)| used)).collect();
        each(&before, &used, &desired(&directory));
    }
    directory
}

fn bound(case: &Case) -> u64 {
    case.directory.customer(&id("shop")).and_then(|shop| shop.bounds.get(Resource::Bandwidth)).unwrap()
}

proptest! {
    #[test]
    fn every_plan_keeps_bounds_floors_and_capacities(case in anywhere()) {
        for mut policy in both(&case.parameters) {
            play(&case, &mut *policy, |_, _, _| {});
        }
    }

    #[test]
    fn the_distributed_exchange_conserves_the_sum(case in alike()) {
        let [mut policy, _] = both(&case.parameters);
        play(&case, &mut *policy, |before, _, after| {
            let (was, is) = (before.iter().sum::<u64>(), after.iter().sum::<u64>());
            assert!(was <= is && is <= bound(&case), "{was} became {is} of {}", bound(&case));
        });
    }

    #[test]
    fn where_hosts_have_no_limits_the_bank_gives_everything_out(case in unlimited()) {
        let [_, mut policy] = both(&case.parameters);
        let down = |number: usize| case.directory.vm(&id(&format!("vm{number}"))).unwrap().state == VmState::Down;
        play(&case, &mut *policy, |before, used, after| {
            let takes_part = |i: usize| used[i].is_some() && !down(i);
            let sum = after.iter().sum::<u64>();
            if (0..before.len()).any(takes_part) {
                assert_eq!(sum, bound(&case));
            } else {
                assert_eq!(before, after);
            }
        });
    }

    #[test]
    fn who_uses_all_it_has_loses_nothing_and_nobody_goes_below_its_use(case in anywhere()) {
        for mut policy in both(&case.parameters) {
            play(&case, &mut *policy, |before, used, after| {
                for i in 0..before.len() {
                    let least = before[i].min(used[i].unwrap_or(u64::MAX));
                    assert!(after[i] >= least, "VM {i} had {before:?}, used {used:?}, has {after:?}");
                }
            });
        }
    }

    #[test]
    fn a_saved_and_restored_policy_decides_as_the_one_that_went_on(case in anywhere()) {
        for number in 0..2 {
            let policy = &mut both(&case.parameters)[number];
            let mut directory = case.directory.clone();
            for (at, round) in (1..).zip(&case.rounds) {
                let mut other = both(&case.parameters).into_iter().nth(number).unwrap();
                other.restore(&serde_json::from_str(&policy.save().to_string()).unwrap()).unwrap();
                let plan = decide(&mut **policy, &directory, &usage(at, round));
                prop_assert_eq!(&plan, &decide(&mut *other, &directory, &usage(at, round)));
                carry_out(&mut directory, &plan);
            }
        }
    }

    #[test]
    fn under_a_steady_load_the_bank_brings_shares_in_proportion_to_use(
        used in prop::collection::vec(1u64 << 19..1 << 20, 1..10)
    ) {
        let seeds: Vec<_> = used.iter().map(|_| Seed::up(0, 1 << 20)).collect();
        let bound = seeds.len() as u64 * (1 << 20);
        let steady = used.iter().map(|&used| Some((used, None))).collect();
        let directory = cluster(bound, &[None], &seeds);
        let case = Case { directory, rounds: vec![steady; 40], parameters: json!({}) };
        let [_, mut policy] = both(&case.parameters);
        let end = desired(&play(&case, &mut *policy, |_, _, _| {}));
        let sum = used.iter().sum::<u64>() as f64;
        for (has, used) in end.iter().zip(&used) {
            let due = *used as f64 / sum * bound as f64;
            prop_assert!((*has as f64 - due).abs() <= 0.001 * due, "{has} instead of {due}: {end:?}");
        }
    }
}
