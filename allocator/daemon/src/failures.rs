//! Hearing of failures when they happen: what a VM leaves shall be where its work goes before the next interval.

use std::{collections::BTreeSet, future::pending, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use vibra_client::Follower;
use vibra_model::{CustomerId, Snapshot, VmId, VmState};

/// The least time between two of them: a host fails with all its VMs, and a VM that flaps shall not keep the allocator
/// busy.
const APART: Duration = Duration::from_millis(100);

/// The failures and returns of a customer's VMs.
pub(crate) struct Failures {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    customer: CustomerId,
    down: BTreeSet<VmId>,
    last: Option<Instant>,
}

impl Failures {
    /// Those that `follower` hears of from now on.
    pub(crate) fn new(follower: &Follower, customer: CustomerId) -> Self {
        let snapshots = follower.snapshots();
        let down = down(&snapshots.borrow(), &customer);
        Failures { snapshots, customer, down, last: None }
    }

    /// Waits until other VMs are down than when it last returned. It can be given up at any time.
    pub(crate) async fn next(&mut self) {
        let (customer, before) = (&self.customer, &self.down);
        let changed = self.snapshots.wait_for(|snapshot| down(snapshot, customer) != *before).await.is_ok();
        if !changed {
            // Nothing is heard any more.
            return pending().await;
        }
        if let Some(last) = self.last {
            sleep_until(last + APART).await;
        }
        self.down = down(&self.snapshots.borrow(), &self.customer);
        self.last = Some(Instant::now());
    }
}

fn down(snapshot: &Snapshot, customer: &CustomerId) -> BTreeSet<VmId> {
    let down = snapshot.vms_of(customer).filter(|vm| vm.state == VmState::Down);
    down.map(|vm| vm.id.clone()).collect()
}
