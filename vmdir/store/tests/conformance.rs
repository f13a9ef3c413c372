//! What every store promises, held against each of them.

use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tempfile::TempDir;
use vibra_model::{Revision, Timestamp};
use vibra_store::*;

fn put(key: &str, value: &str) -> Write {
    Write::Put { key: key.into(), value: value.to_owned().into(), lease: None }
}

fn leased(key: &str, lease: LeaseId) -> Write {
    Write::Put { key: key.into(), value: "leased".into(), lease: Some(lease) }
}

fn delete(key: &str) -> Write {
    Write::Delete { key: key.into() }
}

fn at(key: &str, modified: Option<u64>) -> Compare {
    Compare { key: key.into(), modified: modified.map(Revision) }
}

fn always(writes: Vec<Write>) -> Transaction {
    Transaction { compare: vec![], writes }
}

async fn commit(store: &dyn Store, group: Vec<Transaction>) -> Vec<Outcome> {
    store.commit(group).await.unwrap()
}

async fn keys(store: &dyn Store) -> Vec<String> {
    store.contents().await.unwrap().entries.into_keys().collect()
}

async fn a_group_has_a_revision_for_each_transaction(store: &dyn Store) {
    let group = vec![always(vec![put("a", "1"), put("b", "1")]), always(vec![put("a", "2")])];
    assert_eq!(commit(store, group).await, [Ok(Revision(1)), Ok(Revision(2))]);
    let contents = store.contents().await.unwrap();
    assert_eq!(contents.revision, Revision(2));
    let entry =
        |value: &'static str, modified| Entry { value: value.into(), modified: Revision(modified), lease: None };
    assert_eq!(contents.entries, BTreeMap::from([("a".into(), entry("2", 2)), ("b".into(), entry("1", 1))]));
}

async fn a_refused_transaction_changes_nothing_and_holds_nobody_up(store: &dyn Store) {
    commit(store, vec![always(vec![put("a", "1")])]).await;
    let group = vec![
        Transaction { compare: vec![at("a", Some(1)), at("b", Some(1))], writes: vec![put("c", "1"), delete("a")] },
        Transaction { compare: vec![at("a", Some(1)), at("b", None)], writes: vec![put("b", "1")] },
        Transaction { compare: vec![at("b", None)], writes: vec![put("d", "1")] },
    ];
    let outcomes = commit(store, group).await;
    let conflict = |wanted: Option<u64>, found: Option<u64>| {
        Err(Refusal::Conflict { key: "b".into(), wanted: wanted.map(Revision), found: found.map(Revision) })
    };
    assert_eq!(outcomes, [conflict(Some(1), None), Ok(Revision(2)), conflict(None, Some(2))]);
    assert_eq!(keys(store).await, ["a", "b"]);
}

async fn what_changes_nothing_keeps_the_revision(store: &dyn Store) {
    let group = vec![always(vec![]), always(vec![delete("nothing")]), always(vec![put("a", "1")]), always(vec![])];
    assert_eq!(commit(store, group).await, [Ok(Revision(0)), Ok(Revision(0)), Ok(Revision(1)), Ok(Revision(1))]);
}

async fn a_watch_tells_every_change_in_order(store: &dyn Store) {
    commit(store, vec![always(vec![put("a", "1")])]).await;
    let mut watch = store.watch(Revision(0)).await.unwrap();
    let mut late = store.watch(Revision(1)).await.unwrap();
    commit(store, vec![always(vec![put("b", "1"), delete("a")]), always(vec![delete("a")])]).await;
    let first = watch.next().await.unwrap();
    assert_eq!((first.revision, first.changes.len()), (Revision(1), 1));
    let second = watch.next().await.unwrap();
    assert_eq!(second.revision, Revision(2));
    assert_eq!(second.changes["a"], None);
    assert_eq!(second.changes["b"].as_ref().unwrap().value, "1");
    assert_eq!(late.next().await.unwrap(), second);
    let ahead = store.watch(Revision(3)).await.unwrap_err();
    assert!(matches!(ahead, StoreError::Gone(Gone::Ahead { .. })), "{ahead}");
}

async fn keys_vanish_with_their_lease(store: &dyn Store) {
    let second = Duration::from_secs(1);
    let start = Timestamp(1_000_000);
    let short = store.grant(second, start).await.unwrap();
    let kept = store.grant(second, start).await.unwrap();
    assert_ne!(short, kept);
    let writes = vec![leased("s1", short), leased("s2", short), leased("k", kept), leased("moved", short)];
    commit(store, vec![always(writes), always(vec![put("moved", "free")])]).await;
    let mut watch = store.watch(Revision(2)).await.unwrap();
    assert_eq!(store.expire(start.after(second / 2)).await.unwrap(), []);
    store.keep_alive(kept, start.after(second / 2)).await.unwrap();
    assert_eq!(store.expire(start.after(second)).await.unwrap(), [short]);
    assert_eq!(keys(store).await, ["k", "moved"]);
    let event = watch.next().await.unwrap();
    assert_eq!(event.revision, Revision(3));
    assert_eq!(event.changes, BTreeMap::from([("s1".into(), None), ("s2".into(), None)]));
    for gone in [store.keep_alive(short, start).await.err(), store.revoke(short).await.err()] {
        assert!(matches!(gone, Some(StoreError::NoLease { .. })), "{gone:?}");
    }
    // Its time is over, even if nobody has looked yet.
    assert!(store.keep_alive(kept, start.after(2 * second)).await.is_err());
    assert_eq!(store.revoke(kept).await.unwrap(), Revision(4));
    assert_eq!(keys(store).await, ["moved"]);
    let outcomes = commit(store, vec![always(vec![leased("x", kept)])]).await;
    assert_eq!(outcomes, [Err(Refusal::NoLease { lease: kept })]);
}

async fn concurrent_groups_are_one_after_the_other(store: &dyn Store) {
    let group = |n: u64| vec![Transaction { compare: vec![at("one", None)], writes: vec![put("one", &n.to_string())] }];
    let (a, b, c) = tokio::join!(store.commit(group(1)), store.commit(group(2)), store.commit(group(3)));
    let outcomes = [a, b, c].map(Result::unwrap);
    assert_eq!(outcomes.iter().filter(|outcomes| outcomes[0].is_ok()).count(), 1, "{outcomes:?}");
}

fn redb() -> (RedbStore, TempDir) {
    let folder = TempDir::new().unwrap();
    (RedbStore::open(folder.path().join("store.redb")).unwrap(), folder)
}

macro_rules! for_each_store {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $name() { super::$name(&super::MemoryStore::new()).await; })*
        }
        mod redb {
            $(#[tokio::test] async fn $name() { super::$name(&super::redb().0).await; })*
        }
    };
}

for_each_store!(
    a_group_has_a_revision_for_each_transaction,
    a_refused_transaction_changes_nothing_and_holds_nobody_up,
    what_changes_nothing_keeps_the_revision,
    a_watch_tells_every_change_in_order,
    keys_vanish_with_their_lease,
    concurrent_groups_are_one_after_the_other,
);

/// A step of a random history. Keys and leases are drawn from few, so that they meet.
#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Plan>),
    Grant(u64),
    KeepAlive(u64),
    Revoke(u64),
    Expire,
    /// Time passes, in microseconds.
    Pass(u64),
    /// The store is closed and opened again, where it can be.
    Reopen,
}

/// A transaction: for each compare a key and whether to ask for what it has; for each write a key, and with
/// `Some(lease)` a put (lease 0: none).
type Plan = (Vec<(u8, bool)>, Vec<(u8, Option<u64>)>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let compare = prop::collection::vec((0..4u8, prop::bool::weighted(0.8)), 0..3);
    let write = prop::collection::vec((0..4u8, prop::option::of(0..4u64)), 0..4);
    let step = prop_oneof![
        4 => prop::collection::vec((compare, write), 1..4).prop_map(Step::Commit),
        2 => (1..50u64).prop_map(Step::Grant),
        1 => (1..4u64).prop_map(Step::KeepAlive),
        1 => (1..4u64).prop_map(Step::Revoke),
        1 => Just(Step::Expire),
        1 => (1..30u64).prop_map(Step::Pass),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..20)
}

/// What a store should do, said as simply as possible.
#[derive(Debug, Default, Clone)]
struct Reference {
    contents: Contents,
    leases: BTreeMap<u64, (u64, u64)>,
    granted: u64,
    now: u64,
}

impl Reference {
    fn transact(&mut self, transaction: &Transaction) -> bool {
        let modified = |key: &str| self.contents.entries.get(key).map(|entry| entry.modified);
        let holds = transaction.compare.iter().all(|compare| modified(&compare.key) == compare.modified);
        let granted = transaction.writes.iter().all(|write| match write {
            Write::Put { lease: Some(lease), .. } => self.leases.contains_key(&lease.0),
            _ => true,
        });
        if !(holds && granted) {
            return false;
        }
        let next = self.contents.revision.next();
        let mut changed = false;
        for write in transaction.writes.clone() {
            changed |= match write {
                Write::Put { key, value, lease } => {
                    self.contents.entries.insert(key, Entry { value, modified: next, lease });
                    true
                }
                Write::Delete { key } => self.contents.entries.remove(&key).is_some(),
            };
        }
        if changed {
            self.contents.revision = next;
        }
        true
    }

    fn end(&mut self, lease: u64) -> bool {
        let known = self.leases.remove(&lease).is_some();
        let before = self.contents.entries.len();
        self.contents.entries.retain(|_, entry| entry.lease != Some(LeaseId(lease)));
        if self.contents.entries.len() < before {
            self.contents.revision = self.contents.revision.next();
        }
        known
    }

    fn transaction(&self, (compare, writes): &Plan) -> Transaction {
        let modified = |key: &str| self.contents.entries.get(key).map(|entry| entry.modified);
        let compare = compare.iter().map(|(key, right)| {
            let key = key.to_string();
            let modified = if *right { modified(&key) } else { Some(Revision(999)) };
            Compare { key, modified }
        });
        let writes = writes.iter().map(|(key, lease)| match lease {
            None => delete(&key.to_string()),
            Some(0) => put(&key.to_string(), &self.contents.revision.to_string()),
            Some(lease) => leased(&key.to_string(), LeaseId(*lease)),
        });
        Transaction { compare: compare.collect(), writes: writes.collect() }
    }
}

/// Does a step to the reference and to a store; both must say the same.
async fn step(reference: &mut Reference, store: &dyn Store, step: &Step) {
    let now = Timestamp(reference.now);
    match step {
        Step::Commit(plans) => {
            let group: Vec<_> = plans.iter().map(|plan| reference.transaction(plan)).collect();
            let outcomes = commit(store, group.clone()).await;
            for (transaction, outcome) in group.iter().zip(outcomes) {
                let done = reference.transact(transaction);
                assert_eq!(outcome.ok(), done.then_some(reference.contents.revision));
            }
        }
        Step::Grant(length) => {
            reference.granted += 1;
            reference.leases.insert(reference.granted, (*length, now.0 + length));
            let granted = store.grant(Duration::from_micros(*length), now).await.unwrap();
            assert_eq!(granted, LeaseId(reference.granted));
        }
        Step::KeepAlive(lease) => {
            let alive = reference.leases.get_mut(lease).filter(|(_, end)| now.0 < *end);
            let kept = alive.map(|(length, end)| *end = now.0 + *length);
            assert_eq!(store.keep_alive(LeaseId(*lease), now).await.is_ok(), kept.is_some());
        }
        Step::Revoke(lease) => {
            let known = reference.end(*lease);
            let revision = store.revoke(LeaseId(*lease)).await.ok();
            assert_eq!(revision, known.then_some(reference.contents.revision));
        }
        Step::Expire => {
            let over: Vec<_> =
                reference.leases.iter().filter(|(_, (_, end))| *end <= now.0).map(|(id, _)| *id).collect();
            over.iter().for_each(|lease| assert!(reference.end(*lease)));
            assert_eq!(store.expire(now).await.unwrap(), over.into_iter().map(LeaseId).collect::<Vec<_>>());
        }
        Step::Pass(micros) => reference.now += micros,
        Step::Reopen => {}
    }
    assert_eq!(store.contents().await.unwrap(), reference.contents);
}

/// Applies everything a watch tells to `contents`, until it is at `revision`.
async fn replay(watch: &mut dyn Watch, contents: &mut Contents, revision: Revision) {
    while contents.revision < revision {
        let event = watch.next().await.unwrap();
        assert_eq!(event.revision, contents.revision.next());
        contents.revision = event.revision;
        for (key, entry) in &event.changes {
            match entry {
                Some(entry) => contents.entries.insert(key.clone(), entry.clone()),
                None => contents.entries.remove(key),
            };
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_store_in_memory_does_what_the_reference_does(steps in steps()) {
        runtime().block_on(async {
            let (store, mut reference) = (MemoryStore::new(), Reference::default());
            let (mut watch, mut seen) = (store.watch(Revision(0)).await.unwrap(), Contents::default());
            for todo in &steps {
                step(&mut reference, &store, todo).await;
                replay(&mut *watch, &mut seen, reference.contents.revision).await;
                assert_eq!(seen, reference.contents);
            }
        });
    }
}

proptest! {
    // Every change waits for the disk.
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_redb_store_does_what_the_reference_does(steps in steps()) {
        runtime().block_on(async {
            let (store, folder) = redb();
            let (mut store, mut reference) = (Arc::new(store), Reference::default());
            let (mut watch, mut seen) = (store.watch(Revision(0)).await.unwrap(), Contents::default());
            for todo in &steps {
                if let Step::Reopen = todo {
                    drop(store);
                    store = Arc::new(RedbStore::open(folder.path().join("store.redb")).unwrap());
                    watch = store.watch(reference.contents.revision).await.unwrap();
                }
                step(&mut reference, &*store, todo).await;
                replay(&mut *watch, &mut seen, reference.contents.revision).await;
                assert_eq!(seen, reference.contents);
            }
        });
    }
}
