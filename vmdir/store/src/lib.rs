//! Where the directory keeps what it acknowledged.
//!
//! The directory's rules are pure and know no disk; this crate is the disk. A [`Store`] has keys with values, a revision
//! that grows with every commit, transactions over several keys with conditions, watches, and leases: what an embedded
//! database ([`RedbStore`], one file) and etcd have in common. Telemetry is never stored.
//!
//! A disk syncs a few hundred times a second, a busy directory commits a thousand times: [`Store::commit`] therefore
//! takes a group of transactions, each with its own conditions, outcome and revision, and syncs once for all of them.
//!
//! ```
//! use vibra_store::*;
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = MemoryStore::new();
//! let put = |key: &str| Write::Put { key: key.into(), value: "1".into(), lease: None };
//! let absent = |key: &str| Compare { key: key.into(), modified: None };
//! let group = vec![
//!     Transaction { compare: vec![absent("a")], writes: vec![put("a"), put("b")] },
//!     Transaction { compare: vec![absent("b")], writes: vec![put("c")] },
//! ];
//! let outcomes = store.commit(group).await?;
//! assert_eq!(outcomes[0].as_ref().unwrap().0, 1);
//! assert!(matches!(outcomes[1], Err(Refusal::Conflict { .. })));
//! assert_eq!(store.contents().await?.entries.len(), 2);
//! # Ok::<_, StoreError>(()) }).unwrap();
//! ```

mod contract;
mod embedded;
mod events;
mod feed;
mod memory;
mod rules;

pub use contract::{
    Compare, Contents, Entry, LeaseId, Outcome, Refusal, Store, StoreError, StoreEvent, Transaction, Watch, Write,
};
pub use embedded::RedbStore;
pub use feed::{Feed, Follow, Gone};
pub use memory::MemoryStore;
