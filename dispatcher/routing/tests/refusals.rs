//! What is no table, and how that is said.

use vibra_model::{Revision, VmState};
use vibra_routing::*;

fn cluster(names: &[&str]) -> Cluster {
    let server = |name: &&str| Server::new(name.parse().unwrap(), 1, VmState::Up);
    Cluster { revision: Revision(0), servers: names.iter().map(server).collect() }
}

fn refusal(cluster: &Cluster, settings: Settings) -> String {
    Table::build(cluster, &settings).unwrap_err().to_string()
}

#[test]
fn server_lists() {
    assert_eq!(refusal(&cluster(&[]), Settings::default()), "the server list is empty: name at least one server");
    assert_eq!(
        refusal(&cluster(&["a", "b", "a"]), Settings::default()),
        "servers 1 and 3 are both named a: give each server its own name"
    );
    let mut light = cluster(&["a", "b"]);
    light.servers[1].weight = 0;
    assert_eq!(refusal(&light, Settings::default()), "server 2 (b) has weight 0: use 1 or more, or drain the server");
}

#[test]
fn replicas() {
    let two = cluster(&["a", "b"]);
    let by = |algorithm, replicas| Settings { algorithm, replicas, ..Settings::default() };
    assert_eq!(
        refusal(&two, by(Algorithm::UrlHash, 3)),
        "replicas (R) is 3, over the 2 server(s) of the cluster: use 1 to 2"
    );
    for &algorithm in Algorithm::ALL {
        assert_eq!(Table::build(&two, &by(algorithm, 0)).unwrap_err(), BuildError::NoReplicas);
        let over = Table::build(&two, &by(algorithm, 3)).err();
        let refused = BuildError::TooManyReplicas { replicas: 3, servers: 2 };
        assert_eq!(over, algorithm.uses_replicas().then_some(refused), "{algorithm}");
    }
}

#[test]
fn numbers() {
    let one = cluster(&["a"]);
    let base = || Settings { replicas: 1, ..Settings::default() };
    let lard = |change: fn(&mut LardSettings)| {
        let mut settings = base();
        change(&mut settings.lard);
        refusal(&one, settings)
    };
    assert!(lard(|lard| lard.t_low = 65).starts_with("lard.t_low is 65"));
    assert!(lard(|lard| lard.t_low = 0).starts_with("lard.t_low is 0"));
    assert!(lard(|lard| lard.objects = 0).starts_with("lard.objects is 0"));
    for balance in [0.9, f64::NAN, f64::INFINITY, -1.0] {
        assert!(refusal(&one, Settings { balance, ..base() }).starts_with("balance is"));
    }
    let slots = |per_server, interval_ms| {
        let slots = SlotSettings { per_server, interval_ms };
        Settings { algorithm: Algorithm::Slots, slots, ..base() }
    };
    assert!(refusal(&one, slots(0, 1)).starts_with("slots.per_server is 0"));
    assert!(refusal(&one, slots(1, 0)).starts_with("slots.interval_ms is 0"));
    assert!(refusal(&one, slots(SlotSettings::MOST + 1, 1)).starts_with("slots.per_server is 1048577"));
    assert!(refusal(&cluster(&["a", "b"]), slots(SlotSettings::MOST, 1)).contains("at most 1048576 slots"));
}

#[test]
fn names_of_choices() {
    for &algorithm in Algorithm::ALL {
        assert_eq!(algorithm.name().parse(), Ok(algorithm));
        assert_eq!(serde_json::to_value(algorithm).unwrap(), algorithm.name());
    }
    let error = "url_hash".parse::<Algorithm>().unwrap_err().to_string();
    assert!(error.starts_with("\"url_hash\" is no algorithm: use one of round-robin, "), "{error}");
    assert!(serde_json::from_str::<Settings>(r#"{"replica": 2}"#).unwrap_err().to_string().contains("replica"));
    assert_eq!(serde_json::from_str::<Settings>("{}").unwrap(), Settings::default());
}
