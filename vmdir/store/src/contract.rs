//! What every store promises.

use crate::Gone;
use async_trait::async_trait;
use bytes::Bytes;
use std::{collections::BTreeMap, fmt, time::Duration};
use vibra_model::{Revision, Timestamp};

/// A lease: keys attached to it vanish with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a key has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its value.
    pub value: Bytes,
    /// The revision at which it was last put.
    pub modified: Revision,
    /// The lease with which it vanishes.
    pub lease: Option<LeaseId>,
}

/// Everything in the store at one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The revision: how many transactions have changed something.
    pub revision: Revision,
    /// The entries, by key.
    pub entries: BTreeMap<String, Entry>,
}

/// A condition of a transaction: the key was last put at `modified`; `None`: it does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// What it must have.
    pub modified: Option<Revision>,
}

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Gives a key a value, and attaches it to a lease or to none.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Bytes,
        /// The lease with which it shall vanish.
        lease: Option<LeaseId>,
    },
    /// Removes a key, if it is there.
    Delete {
        /// The key.
        key: String,
    },
}

/// Writes that all happen, in order, or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must hold before.
    pub compare: Vec<Compare>,
    /// What is written then.
    pub writes: Vec<Write>,
}

/// Why a transaction did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A condition does not hold.
    #[error("{key:?} was last put at {}, not at {}", at(found), at(wanted))]
    Conflict {
        /// The key of the condition.
        key: String,
        /// The revision that it asked for.
        wanted: Option<Revision>,
        /// The revision of the key.
        found: Option<Revision>,
    },
    /// A key was to be attached to a lease that is not (or no longer) granted.
    #[error("lease {lease} is not granted")]
    NoLease {
        /// Which.
        lease: LeaseId,
    },
}

fn at(modified: &Option<Revision>) -> String {
    modified.map_or("no revision (it does not exist)".into(), |revision| format!("revision {revision}"))
}

/// What came of a transaction: the store's revision after it.
pub type Outcome = Result<Revision, Refusal>;

/// What one transaction, or the end of leases, changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreEvent {
    /// The revision of the store after it.
    pub revision: Revision,
    /// Each changed key with its new entry; `None`: it is gone.
    pub changes: BTreeMap<String, Option<Entry>>,
}

/// Why a store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error("{place} is in use by another process: stop that one first, or use another path")]
    Locked {
        /// Which store.
        place: String,
    },
    /// What is there is no store, or is damaged.
    #[error("{place} is damaged, or no store of this program: {what}; restore it from a backup, or move it away")]
    Damaged {
        /// Which store.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// It cannot be opened, read or written. After a failed write it is unknown whether the writes are durable.
    #[error("{place} failed: {source}")]
    Failed {
        /// Which store.
        place: String,
        /// How.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A watch cannot begin or go on.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// A lease is not, or no longer, granted.
    #[error("lease {lease} is not granted: its time is over, or it never was")]
    NoLease {
        /// Which.
        lease: LeaseId,
    },
}

/// The running changes of a store.
#[async_trait]
pub trait Watch: Send + fmt::Debug {
    /// The next event. Revisions only grow. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the watch fell behind what the store remembers; [`StoreError::Failed`].
    async fn next(&mut self) -> Result<std::sync::Arc<StoreEvent>, StoreError>;
}

/// Keys with values, revisions, and transactions over several keys.
///
/// The shape is what redb and etcd both can do. What a call acknowledges is durable and cannot be undone by `kill -9`
/// (a [`MemoryStore`](crate::MemoryStore) is durable while it lives). Time is passed in; a store that keeps time by
/// itself, as etcd does, uses its own.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Everything, at one revision.
    ///
    /// # Errors
    /// [`StoreError::Failed`], [`StoreError::Damaged`].
    async fn contents(&self) -> Result<Contents, StoreError>;

    /// Carries out a group of transactions, each seeing those before it, and makes all of them durable at once; the
    /// outcomes come in the same order. Each transaction that changes something has a revision of its own, one above
    /// the last. One that is refused changes nothing and keeps none of the others back. One that changes nothing (no
    /// writes, or removals of what is not there) keeps the revision. Once begun, the group is carried out even if the
    /// future is dropped.
    ///
    /// # Errors
    /// [`StoreError::Failed`]: of none of the transactions it is known whether it happened.
    async fn commit(&self, group: Vec<Transaction>) -> Result<Vec<Outcome>, StoreError>;

    /// Watches everything that changes after `from`.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if `from` is yet to come, or further back than the store remembers.
    async fn watch(&self, from: Revision) -> Result<Box<dyn Watch>, StoreError>;

    /// Grants a lease that ends `length` after `now` unless it is kept alive.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    async fn grant(&self, length: Duration, now: Timestamp) -> Result<LeaseId, StoreError>;

    /// Lets a lease end its length after `now`.
    ///
    /// # Errors
    /// [`StoreError::NoLease`] if it has ended already; [`StoreError::Failed`].
    async fn keep_alive(&self, lease: LeaseId, now: Timestamp) -> Result<(), StoreError>;

    /// Ends a lease; its keys vanish, in one revision. Returns the store's revision after it.
    ///
    /// # Errors
    /// [`StoreError::NoLease`] if it has ended already; [`StoreError::Failed`].
    async fn revoke(&self, lease: LeaseId) -> Result<Revision, StoreError>;

    /// Ends every lease whose time is over at `now`, each as [`revoke`](Self::revoke) does, and tells which.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    async fn expire(&self, now: Timestamp) -> Result<Vec<LeaseId>, StoreError>;
}
