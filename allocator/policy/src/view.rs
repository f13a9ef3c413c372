//! What a policy sees.

use vibra_model::{CustomerId, Resource, Snapshot, UsageWindow, Vm};

/// What a policy decides on: the directory at one revision, the usage since the last decision, and whose VMs.
#[derive(Debug, Clone)]
pub struct View<'a> {
    snapshot: &'a Snapshot,
    customer: &'a CustomerId,
    usage: &'a UsageWindow,
    vms: Vec<&'a Vm>,
}

impl<'a> View<'a> {
    /// The view of one customer. `usage` may repeat samples that were seen before.
    pub fn new(snapshot: &'a Snapshot, customer: &'a CustomerId, usage: &'a UsageWindow) -> Self {
        // In the order of ids, not of the cluster: usage and states are sorted so too, and are joined by merging. For
        // 100,000 VMs a look-up each would cost more than the whole decision.
        let vms = snapshot.vms().filter(|vm| vm.customer == *customer).collect();
        View { snapshot, customer, usage, vms }
    }

    /// The directory.
    pub fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// Whose VMs are decided on.
    pub fn customer(&self) -> &'a CustomerId {
        self.customer
    }

    /// What the VMs used.
    pub fn usage(&self) -> &'a UsageWindow {
        self.usage
    }

    /// The customer's VMs, by id.
    pub fn vms(&self) -> &[&'a Vm] {
        &self.vms
    }

    /// The customer's VMs whose share of `resource` is managed, by id, each with what it shall have now.
    pub fn managed(&self, resource: Resource) -> impl Iterator<Item = (&'a Vm, u64)> + '_ {
        self.vms.iter().filter_map(move |vm| Some((*vm, vm.desired(resource)?)))
    }

    /// How much of `resource` the customer bought, in its base unit; `None` if he did not buy it.
    pub fn bound(&self, resource: Resource) -> Option<u64> {
        self.snapshot.customer(self.customer)?.bounds.get(resource)
    }
}
