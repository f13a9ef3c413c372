//! What may not be: violations of bounds, capacities and floors, as a program can read them.

use crate::{AllocationChange, Amount, CustomerId, HostId, Resource, Revision, Snapshot, Vm, VmId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One rule that a command would break. Amounts are in the resource's base unit (bytes/s, bytes, thousandths of a core).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Violation {
    /// The customer is not registered.
    #[error("customer {customer} is not registered")]
    UnknownCustomer {
        /// Who.
        customer: CustomerId,
    },
    /// The host is not registered.
    #[error("host {host} is not registered")]
    UnknownHost {
        /// Which.
        host: HostId,
    },
    /// The VM is not registered.
    #[error("VM {vm} is not registered")]
    UnknownVm {
        /// Which.
        vm: VmId,
    },
    /// What is to be removed still has VMs.
    #[error("{what} still has VMs, such as {vm}: remove them first")]
    InUse {
        /// What is to be removed.
        what: String,
        /// One of its VMs.
        vm: VmId,
    },
    /// Two VMs of a customer claim the same place in the cluster.
    #[error("VM {vm} has place {order} in the cluster of {customer} already")]
    PlaceTaken {
        /// Whose cluster.
        customer: CustomerId,
        /// Which place.
        order: u32,
        /// Who has it.
        vm: VmId,
    },
    /// A registered VM cannot change hands.
    #[error("VM {vm} belongs to customer {customer}: remove it before it is registered for another")]
    OtherOwner {
        /// Which VM.
        vm: VmId,
        /// Its owner.
        customer: CustomerId,
    },
    /// A weight of zero.
    #[error("VM {vm} has weight 0: the least is 1")]
    NoWeight {
        /// Which VM.
        vm: VmId,
    },
    /// A batch names the same VM and resource twice.
    #[error("the {resource} of VM {vm} is changed twice in one batch")]
    Twice {
        /// Which VM.
        vm: VmId,
        /// Which resource.
        resource: Resource,
    },
    /// The resource is not bought by the VM's customer, or not managed for this VM.
    #[error("the {resource} of VM {vm} is not managed")]
    NotManaged {
        /// Which VM.
        vm: VmId,
        /// Which resource.
        resource: Resource,
    },
    /// A VM that is down cannot be given more than its floor.
    #[error("VM {vm} is down: it keeps its floor, and the rest of its share is free for others")]
    VmDown {
        /// Which VM.
        vm: VmId,
    },
    /// A VM that is on its way keeps what it has.
    #[error("VM {vm} is moving to host {to}: what it has does not change until it is there")]
    Moving {
        /// Which VM.
        vm: VmId,
        /// Where to.
        to: HostId,
    },
    /// The VM cannot go there.
    #[error("VM {vm} cannot move from host {from} to host {to}: {why}")]
    CannotMove {
        /// Which VM.
        vm: VmId,
        /// Where it is.
        from: HostId,
        /// Where it was to go.
        to: HostId,
        /// What is in the way.
        why: String,
    },
    /// Less than the floor.
    #[error("VM {vm} would have {} of {}, below its floor of {}", to, to.resource(), floor)]
    BelowFloor {
        /// Which VM.
        vm: VmId,
        /// Its floor.
        floor: Amount,
        /// What it would have.
        to: Amount,
    },
    /// More than the customer bought.
    #[error("the VMs of customer {customer} would have {total} of {}, above the bound of {bound}", bound.resource())]
    BoundExceeded {
        /// Whose VMs.
        customer: CustomerId,
        /// What he bought.
        bound: Amount,
        /// What they would have together.
        total: Amount,
    },
    /// The floors alone are more than the customer bought.
    #[error("the floors of the VMs of customer {customer} sum to {total} of {}, above the bound of {bound}", bound.resource())]
    FloorsExceedBound {
        /// Whose VMs.
        customer: CustomerId,
        /// What he bought.
        bound: Amount,
        /// The sum of the floors.
        total: Amount,
    },
    /// More than the host has.
    #[error("the VMs on host {host} would have {total} of {}, above its capacity of {capacity}", capacity.resource())]
    CapacityExceeded {
        /// Which host.
        host: HostId,
        /// What it has.
        capacity: Amount,
        /// What its VMs would have together.
        total: Amount,
    },
}

/// Why the directory refused a command. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Rejection {
    /// The customer's allocations changed after the base; look again and decide anew.
    #[error(
        "the proposal was made on revision {base}, but allocations changed at revision {changed}: take a new snapshot"
    )]
    Stale {
        /// The proposal's base.
        base: Revision,
        /// When the allocations changed.
        changed: Revision,
    },
    /// It would break these rules.
    #[error("{}", list(violations))]
    Refused {
        /// The broken rules.
        violations: Vec<Violation>,
    },
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(Violation::to_string).collect::<Vec<_>>().join("; ")
}

impl From<Vec<Violation>> for Rejection {
    fn from(violations: Vec<Violation>) -> Self {
        Rejection::Refused { violations }
    }
}

impl From<Violation> for Rejection {
    fn from(violation: Violation) -> Self {
        vec![violation].into()
    }
}

impl Snapshot {
    /// Every rule that `changes` would break: unknown or unmanaged targets, floors, the bounds of the customers and
    /// the capacities of the hosts concerned. Empty if the batch may be committed.
    pub fn violations(&self, changes: &[AllocationChange]) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut wanted = BTreeMap::new();
        // What all changes together add to what a customer's VMs have, and to what a host's have.
        let (mut added, mut placed) = (BTreeMap::new(), BTreeMap::new());
        for change in changes {
            let resource = change.to.resource();
            let earlier = wanted.insert((&change.vm, resource), change.to.raw());
            if earlier.is_some() {
                found.push(Violation::Twice { vm: change.vm.clone(), resource });
            }
            let Some(vm) = self.vm(&change.vm) else {
                found.push(Violation::UnknownVm { vm: change.vm.clone() });
                continue;
            };
            found.extend(self.target_violation(vm, change.to));
            let from = earlier.or_else(|| vm.desired(resource)).unwrap_or(0);
            let more = i128::from(change.to.raw()) - i128::from(from);
            *added.entry((&vm.customer, resource)).or_insert(0) += more;
            *placed.entry((&vm.host, resource)).or_insert(0) += more;
        }
        found.extend(added.into_iter().filter_map(|((owner, r), more)| self.over_bound(owner, r, &Vm::desired, more)));
        found
            .extend(placed.into_iter().filter_map(|((host, r), more)| self.over_capacity(host, r, &Vm::desired, more)));
        found
    }

    fn target_violation(&self, vm: &Vm, to: Amount) -> Option<Violation> {
        let resource = to.resource();
        let bought = self.customer(&vm.customer).and_then(|c| c.bounds.get(resource));
        if bought.is_none() || vm.desired(resource).is_none() {
            return Some(Violation::NotManaged { vm: vm.id.clone(), resource });
        }
        if let Some(host) = vm.moving.as_ref().filter(|_| vm.desired(resource) != Some(to.raw())) {
            return Some(Violation::Moving { vm: vm.id.clone(), to: host.clone() });
        }
        let floor = vm.floor.get(resource).unwrap_or(0);
        if to.raw() < floor {
            return Some(Violation::BelowFloor { vm: vm.id.clone(), floor: resource.amount(floor), to });
        }
        let down = vm.state == crate::VmState::Down && to.raw() > floor;
        down.then(|| Violation::VmDown { vm: vm.id.clone() })
    }

    /// The customer's VMs would have more of `resource` than he bought, where `share` tells what each has and `more`
    /// is added to that.
    pub(crate) fn over_bound(
        &self,
        customer: &CustomerId,
        resource: Resource,
        share: &dyn Fn(&Vm, Resource) -> Option<u64>,
        more: i128,
    ) -> Option<Violation> {
        let bound = self.customer(customer)?.bounds.get(resource)?;
        let total = total(self.vms_of(customer), resource, share, more);
        (total > bound).then(|| Violation::BoundExceeded {
            customer: customer.clone(),
            bound: resource.amount(bound),
            total: resource.amount(total),
        })
    }

    /// The VMs on `host` would have more of `resource` than it has, where `share` tells what each has and `more`
    /// is added to that.
    pub(crate) fn over_capacity(
        &self,
        host: &HostId,
        resource: Resource,
        share: &dyn Fn(&Vm, Resource) -> Option<u64>,
        more: i128,
    ) -> Option<Violation> {
        let capacity = self.host(host)?.capacity.get(resource)?;
        let total = total(self.vms_on(host), resource, share, more);
        (total > capacity).then(|| Violation::CapacityExceeded {
            host: host.clone(),
            capacity: resource.amount(capacity),
            total: resource.amount(total),
        })
    }
}

fn total<'a>(
    vms: impl Iterator<Item = &'a Vm>,
    resource: Resource,
    share: &dyn Fn(&Vm, Resource) -> Option<u64>,
    more: i128,
) -> u64 {
    let shares = vms.filter_map(|vm| share(vm, resource)).map(i128::from);
    u64::try_from((shares.sum::<i128>() + more).max(0)).unwrap_or(u64::MAX)
}
