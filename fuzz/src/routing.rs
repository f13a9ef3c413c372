//! The routing key, and the servers that are picked for it.

use vibra_model::{Timestamp, VmState};
use vibra_routing::{Algorithm, Cluster, HashKind, PickState, Remap, Server, Settings, Table, object_name};

pub(crate) const WORDS: &[&str] =
    &["/", "?", "#", "//", "://", "http://", "https://a.example", "*", "/..", "%2f", ":", "@", "[::1]", "\u{e9}"];

/// How many bytes of the input choose servers and settings; the rest is the request's target.
const CHOICES: usize = 4;

pub(crate) fn check(data: &[u8]) {
    let Some((&[algorithm, hash, size, states], target)) = data.split_first_chunk::<CHOICES>() else { return };
    let Ok(target) = std::str::from_utf8(target) else { return };
    let name = object_name(target);
    assert!(target.contains(name), "the key {name:?} is no part of {target:?}");
    assert!(!name.contains(['?', '#']), "the key {name:?} holds a query or a fragment");
    assert_eq!(object_name(name), name, "the key of a key is another");

    let choose = |n: usize, of: u8| usize::from(of) % n;
    let settings = Settings {
        algorithm: Algorithm::ALL[choose(Algorithm::ALL.len(), algorithm)],
        hash: HashKind::ALL[choose(HashKind::ALL.len(), hash)],
        remap: Remap::ALL[choose(Remap::ALL.len(), hash / 4)],
        replicas: 1 + choose(3, hash / 16),
        ..Settings::default()
    };
    let servers = (0..1 + size % 7).map(|n| {
        let state = if states >> n & 1 == 0 { VmState::Up } else { VmState::Down };
        Server::new(format!("vm{n}").parse().expect("a plain name is one"), 1 + u32::from(n), state)
    });
    let cluster = Cluster { servers: servers.collect(), ..Cluster::default() };
    let Ok(table) = Table::build(&cluster, &settings) else { return };
    let loads = [u32::from(states); 7];
    let pick = |state: &mut PickState| table.pick(state, name, &loads[..cluster.servers.len()], Timestamp(0));
    let picked = pick(&mut PickState::default());
    assert_eq!(picked, pick(&mut PickState::default()), "the same request and state, another pick");
    for (rank, &server) in picked.iter().enumerate() {
        assert_eq!(cluster.servers[server].state, VmState::Up, "a server that does not serve was picked");
        assert!(!picked[..rank].contains(&server), "a server was picked twice");
    }
}
