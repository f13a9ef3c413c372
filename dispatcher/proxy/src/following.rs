//! A directory that is followed.

use crate::config::Source;
use crate::dispatcher::Shared;
use std::future::pending;
use std::sync::Arc;
use tokio::sync::watch;
use vibra_client::{Follower, Link, follow};
use vibra_model::{CustomerId, Snapshot};

/// A directory that is followed.
pub(crate) struct Following {
    /// Ends when this is dropped.
    _follower: Follower,
    customer: CustomerId,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    link: watch::Receiver<Link>,
}

impl Following {
    pub(crate) fn begin(source: &Source) -> Option<Self> {
        let Source::Directory { directory, customer } = source else { return None };
        let follower = follow(directory.clone());
        let (snapshots, link) = (follower.snapshots(), follower.link());
        Some(Following { _follower: follower, customer: customer.clone(), snapshots, link })
    }

    /// Waits for a snapshot; on the way it passes on whether the directory is heard.
    async fn next(&mut self, shared: &Shared) -> Arc<Snapshot> {
        loop {
            tokio::select! {
                Ok(()) = self.snapshots.changed() => return self.snapshots.borrow_and_update().clone(),
                Ok(()) = self.link.changed() => {
                    shared.link.send_replace(self.link.borrow_and_update().clone());
                }
                // The follower lives as long as this: neither channel closes.
                else => return pending().await,
            }
        }
    }
}

/// What the directory says next; nothing ever where there is none.
pub(crate) async fn heard(directory: &mut Option<Following>, shared: &Shared) -> (Arc<Snapshot>, CustomerId) {
    match directory {
        Some(directory) => (directory.next(shared).await, directory.customer.clone()),
        None => pending().await,
    }
}
