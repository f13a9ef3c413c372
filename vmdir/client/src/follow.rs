//! A local snapshot that is kept current.

use crate::{ClientError, Directory, Watch};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use vibra_model::Snapshot;

/// The wait after the second failure in a row; after the first there is none, and it doubles with each further one.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
/// The longest wait between two attempts. What lasted longer than this before it failed starts a new row of failures.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);
/// How many commits that are there already are taken over before the snapshot is published.
const COMMITS_AT_ONCE: usize = 256;

/// Whether the follower hears from the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Nothing was heard yet; the snapshot is the empty one at revision 0.
    Connecting,
    /// The snapshot is current.
    Live,
    /// The snapshot is the last that was heard of; new attempts go on.
    Lost {
        /// What happened, and its causes.
        why: String,
        /// Failures in a row; what worked for a while in between starts a new row.
        failures: u32,
    },
}

/// A task that keeps a snapshot current; it ends when this is dropped.
#[derive(Debug)]
pub struct Follower {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    link: watch::Receiver<Link>,
    task: JoinHandle<()>,
}

impl Follower {
    /// The newest snapshot, now and whenever it changes. Its revision never goes back, save where the directory
    /// itself lost its past. Closed once the follower is dropped.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Whether the directory is heard, now and whenever that changes.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// The newest snapshot, once the directory is heard; waits for that.
    pub async fn current(&self) -> Arc<Snapshot> {
        let mut link = self.link.clone();
        let heard = link.wait_for(|link| *link == Link::Live).await.is_ok();
        debug_assert!(heard, "the task lives as long as the follower");
        self.snapshots.borrow().clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps a snapshot of `directory` current: takes one, applies every commit after it, and starts anew after a gap, a
/// resync or a lost connection, waiting ever longer between failures. Call it within a tokio runtime.
pub fn follow(directory: Arc<dyn Directory>) -> Follower {
    let (snapshot_sender, snapshots) = watch::channel(Arc::default());
    let (link_sender, link) = watch::channel(Link::Connecting);
    let task = tokio::spawn(async move {
        let (snapshots, link) = (snapshot_sender, link_sender);
        let mut failures: u32 = 0;
        loop {
            let began = Instant::now();
            let error = session(&*directory, &snapshots, &link).await;
            let lasted = began.elapsed() > LONGEST_BACK_OFF;
            failures = if lasted { 1 } else { failures.saturating_add(1) };
            let why = chain(&error);
            let pause = back_off(failures);
            tracing::warn!(failures, ?pause, "directory lost: {why}");
            link.send_replace(Link::Lost { why, failures });
            tokio::time::sleep(pause).await;
        }
    });
    Follower { snapshots, link, task }
}

/// Follows until something breaks.
async fn session(
    directory: &dyn Directory,
    snapshots: &watch::Sender<Arc<Snapshot>>,
    link: &watch::Sender<Link>,
) -> ClientError {
    let (mut snapshot, mut watch) = match begin(directory).await {
        Ok(begun) => begun,
        Err(error) => return error,
    };
    loop {
        snapshots.send_replace(Arc::new(snapshot.clone()));
        link.send_if_modified(|link| std::mem::replace(link, Link::Live) != Link::Live);
        if let Err(error) = advance(&mut snapshot, &mut watch).await {
            return error;
        }
    }
}

async fn begin(directory: &dyn Directory) -> Result<(Snapshot, Watch), ClientError> {
    let snapshot = directory.snapshot().await?;
    let watch = directory.watch(snapshot.revision()).await?;
    Ok((snapshot, watch))
}

/// Waits for a commit and applies it, with those that are there already: publishing costs a copy of the snapshot.
async fn advance(snapshot: &mut Snapshot, watch: &mut Watch) -> Result<(), ClientError> {
    let mut event = watch.next().await?;
    for _ in 1..COMMITS_AT_ONCE {
        snapshot.apply(event.revision, &event.changes);
        event = tokio::select! {
            biased;
            next = watch.next() => next?,
            () = std::future::ready(()) => return Ok(()),
        };
    }
    snapshot.apply(event.revision, &event.changes);
    Ok(())
}

/// The wait after so many failures in a row: none after the first.
fn back_off(failures: u32) -> Duration {
    match failures.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => FIRST_BACK_OFF.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST_BACK_OFF),
    }
}

/// An error with its causes, for a log line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
