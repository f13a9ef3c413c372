//! What a pick costs: N = 1,000 servers, R = 2, an object name of 40 bytes.
//!
//! `cargo bench -p vibra-routing`. `lookup` has 90,000 names, as Table 3.2 has.

use divan::{Bencher, black_box};
use vibra_model::{Revision, Timestamp, VmState};
use vibra_routing::*;

const NAME: &str = "/english/competition/statistics/page.htm";
const OBJECTS: usize = 90_000;

fn main() {
    assert_eq!(NAME.len(), 40);
    divan::main();
}

fn table(servers: usize, settings: &Settings) -> Table {
    let server = |i| Server::new(format!("vm{i}").parse().expect("an id"), 1, VmState::Up);
    let cluster = Cluster { revision: Revision(1), servers: (0..servers).map(server).collect() };
    Table::build(&cluster, settings).expect("a table")
}

fn loads(servers: usize) -> Vec<u32> {
    (0..servers as u32).map(|i| i * 7 % 23).collect()
}

/// By algorithm, with the default hash.
#[divan::bench(args = Algorithm::ALL)]
fn algorithm(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let (table, loads) = (table(1000, &Settings { algorithm, ..Settings::default() }), loads(1000));
    let mut state = PickState::default();
    // The first pick sets the state up.
    table.pick(&mut state, NAME, &loads, Timestamp(0));
    bencher.bench_local(|| table.pick(&mut state, black_box(NAME), &loads, Timestamp(0)));
}

/// By hash, under `url-hash`.
#[divan::bench(args = HashKind::ALL)]
fn hash(bencher: Bencher<'_, '_>, hash: HashKind) {
    let (table, loads) = (table(1000, &Settings { hash, ..Settings::default() }), loads(1000));
    let mut state = PickState::default();
    bencher.bench_local(|| table.pick(&mut state, black_box(NAME), &loads, Timestamp(0)));
}

/// 90,000 names.
fn names() -> Vec<String> {
    (0..OBJECTS).map(|i| format!("/english/competition/statistics/{i:08}")).collect()
}

/// Table 3.2: four servers, and 90,000 names that LARD all knows. The cost of reading the names is in each row; that
/// of round-robin shows it.
#[divan::bench(args = [Algorithm::RoundRobin, Algorithm::UrlHash, Algorithm::Lard, Algorithm::LardR])]
fn lookup(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let settings = Settings { algorithm, hash: HashKind::Charsum, ..Settings::default() };
    let (table, loads, names) = (table(4, &settings), loads(4), names());
    let mut state = PickState::default();
    for name in &names {
        table.pick(&mut state, name, &loads, Timestamp(0));
    }
    // They are asked for in another order than they came: 44,987 has no factor in common with their number.
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 44_987) % OBJECTS;
        let name = &names[next];
        black_box(name.as_bytes().iter().fold(0, |all, byte| all | byte));
        table.pick(&mut state, name, &loads, Timestamp(0))
    });
}

/// The tables themselves: what a change of the cluster costs, off the request path.
#[divan::bench(args = Algorithm::ALL, sample_count = 10)]
fn build(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    bencher.bench_local(|| table(1000, &Settings { algorithm, ..Settings::default() }));
}
