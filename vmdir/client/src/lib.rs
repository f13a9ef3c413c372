//! Typed access to the directory, and an in-memory fake of it for tests.
//!
//! Everything that talks to the directory does so through the [`Directory`] trait, so that a dispatcher, an agent or
//! an allocator can be tested without a service. [`HttpDirectory`] is the real thing, [`FakeDirectory`] follows the
//! same rules ([`vibra_model::Snapshot::decide`]) in memory and fails when it is told to. [`follow`] keeps a local
//! snapshot current through reconnects and resyncs.
//!
//! ```
//! use std::sync::Arc;
//! use vibra_client::{Directory, FakeDirectory, follow};
//! use vibra_model::{Command, Customer, Resources};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let directory: Arc<dyn Directory> = Arc::new(FakeDirectory::new());
//! let follower = follow(directory.clone());
//! let shop = Customer { id: "shop".parse().unwrap(), bounds: Resources::NONE };
//! directory.command(Command::PutCustomer(shop)).await.unwrap();
//!
//! let mut snapshots = follower.snapshots();
//! let newest = snapshots.wait_for(|snapshot| snapshot.customers().len() == 1).await.unwrap();
//! assert_eq!(newest.revision().0, 1);
//! # });
//! ```

mod error;
mod fake;
mod follow;
mod http;
mod lines;
mod watch;

pub use self::http::{HttpDirectory, Timeouts};
pub use error::{ClientError, Fault};
pub use fake::{FakeDirectory, Operation};
pub use follow::{Follower, Link, follow};
pub use watch::{EventSource, Watch};

use async_trait::async_trait;
use vibra_model::{Command, Revision, Snapshot, Timestamp, UsageWindow, api::Accepted};

/// Access to a directory.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// The newest snapshot.
    ///
    /// # Errors
    /// [`ClientError`] where the directory cannot be reached or does not allow it.
    async fn snapshot(&self) -> Result<Snapshot, ClientError>;

    /// Every commit after `from`, in order and without gaps.
    ///
    /// # Errors
    /// [`ClientError::Resync`] where the directory no longer knows what came after `from`; others as above.
    async fn watch(&self, from: Revision) -> Result<Watch, ClientError>;

    /// The usage samples after `since`.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot).
    async fn usage(&self, since: Timestamp) -> Result<UsageWindow, ClientError>;

    /// Gives a command; once it returns, what it changed is durable.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] with the violations a program can read; others as above.
    async fn command(&self, command: Command) -> Result<Accepted, ClientError>;
}
