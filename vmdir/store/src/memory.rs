//! A store in memory, for tests and trials.

use crate::{
    Contents, Entry, Feed, LeaseId, Outcome, Store, StoreError, StoreEvent, Transaction, Watch, events,
    rules::{self, Lease, Records},
};
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use vibra_model::{Revision, Timestamp};

/// A store in memory; it ends with the process.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    feed: Feed<Arc<StoreEvent>>,
}

#[derive(Debug, Default)]
struct State {
    contents: Contents,
    leases: BTreeMap<LeaseId, Lease>,
    leased: BTreeMap<LeaseId, BTreeSet<String>>,
    last_lease: u64,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore { state: Mutex::default(), feed: events::history(Revision(0)) }
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `change`, and tells the watches of it before anything else can change.
    fn update<T>(&self, change: impl FnOnce(&mut State, &mut rules::Events) -> Result<T, Infallible>) -> T {
        let mut state = self.lock();
        let mut happened = rules::Events::new();
        let Ok(done) = change(&mut state, &mut happened);
        events::tell(&self.feed, happened);
        done
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn contents(&self) -> Result<Contents, StoreError> {
        Ok(self.lock().contents.clone())
    }

    async fn commit(&self, group: Vec<Transaction>) -> Result<Vec<Outcome>, StoreError> {
        Ok(self.update(|state, events| rules::commit(state, &group, events)))
    }

    async fn watch(&self, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(self.feed.follow(from)?))
    }

    async fn grant(&self, length: Duration, now: Timestamp) -> Result<LeaseId, StoreError> {
        Ok(self.update(|state, _| rules::grant(state, length, now)))
    }

    async fn keep_alive(&self, lease: LeaseId, now: Timestamp) -> Result<(), StoreError> {
        let kept = self.update(|state, _| rules::keep_alive(state, lease, now));
        kept.ok_or(StoreError::NoLease { lease })
    }

    async fn revoke(&self, lease: LeaseId) -> Result<Revision, StoreError> {
        let revision = self.update(|state, events| rules::revoke(state, lease, events));
        revision.ok_or(StoreError::NoLease { lease })
    }

    async fn expire(&self, now: Timestamp) -> Result<Vec<LeaseId>, StoreError> {
        Ok(self.update(|state, events| rules::expire(state, now, events)))
    }
}

impl Records for State {
    type Error = Infallible;

    fn revision(&self) -> Result<Revision, Infallible> {
        Ok(self.contents.revision)
    }

    fn set_revision(&mut self, revision: Revision) -> Result<(), Infallible> {
        self.contents.revision = revision;
        Ok(())
    }

    fn entry(&self, key: &str) -> Result<Option<Entry>, Infallible> {
        Ok(self.contents.entries.get(key).cloned())
    }

    fn set_entry(&mut self, key: &str, entry: Option<&Entry>) -> Result<(), Infallible> {
        let old = match entry {
            Some(entry) => self.contents.entries.insert(key.to_owned(), entry.clone()),
            None => self.contents.entries.remove(key),
        };
        if let Some(keys) = old.and_then(|old| self.leased.get_mut(&old.lease?)) {
            keys.remove(key);
        }
        if let Some(lease) = entry.and_then(|entry| entry.lease) {
            self.leased.entry(lease).or_default().insert(key.to_owned());
        }
        Ok(())
    }

    fn keys_of(&self, lease: LeaseId) -> Result<Vec<String>, Infallible> {
        Ok(self.leased.get(&lease).into_iter().flatten().cloned().collect())
    }

    fn lease(&self, id: LeaseId) -> Result<Option<Lease>, Infallible> {
        Ok(self.leases.get(&id).copied())
    }

    fn leases(&self) -> Result<Vec<(LeaseId, Lease)>, Infallible> {
        Ok(self.leases.iter().map(|(id, lease)| (*id, *lease)).collect())
    }

    fn set_lease(&mut self, id: LeaseId, lease: Option<Lease>) -> Result<(), Infallible> {
        match lease {
            Some(lease) => {
                self.leases.insert(id, lease);
            }
            None => {
                self.leases.remove(&id);
                self.leased.remove(&id);
            }
        }
        Ok(())
    }

    fn new_lease_id(&mut self) -> Result<LeaseId, Infallible> {
        self.last_lease += 1;
        Ok(LeaseId(self.last_lease))
    }
}
