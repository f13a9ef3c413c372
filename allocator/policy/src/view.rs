//! What a policy sees.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};
use vibra_model::{CustomerId, Host, Resource, Resources, Snapshot, UsageWindow, Vm};

/// What a policy decides on: the directory at one revision, the usage since the last decision, and whose VMs.
#[derive(Debug, Clone)]
pub struct View<'a> {
    snapshot: &'a Snapshot,
    customer: &'a CustomerId,
    usage: &'a UsageWindow,
    vms: Vec<&'a Vm>,
    /// The number of the host of each of `vms`, if that has a limit. Empty if none has.
    host_of: Vec<Option<usize>>,
    /// The hosts that have a limit, each with what VMs of other customers shall have there.
    hosts: Vec<(&'a Host, Resources)>,
}

impl<'a> View<'a> {
    /// The view of one customer. `usage` may repeat samples that were seen before.
    pub fn new(snapshot: &'a Snapshot, customer: &'a CustomerId, usage: &'a UsageWindow) -> Self {
        let limited = snapshot.hosts().filter(|host| host.capacity != Resources::NONE);
        let mut hosts: Vec<_> = limited.map(|host| (host, Resources::NONE)).collect();
        let named = hosts.iter().zip(0..).map(|((host, _), number)| (host.id.as_str(), number));
        let numbers: HashMap<_, _, BuildHasherDefault<Quick>> = named.collect();
        let number_of = |vm: &Vm| if numbers.is_empty() { None } else { numbers.get(vm.host.as_str()).copied() };
        // In the order of ids, not of the cluster: usage and states are sorted so too, and are joined by merging. For
        // 100,000 VMs a look-up each would cost more than the whole decision.
        let (mut vms, mut host_of) = (Vec::with_capacity(snapshot.vms().len()), Vec::new());
        host_of.reserve_exact(if numbers.is_empty() { 0 } else { vms.capacity() });
        for vm in snapshot.vms() {
            let host: Option<usize> = number_of(vm);
            if vm.customer != *customer {
                if let Some(host) = host {
                    hosts[host].1 = sum(&hosts[host].1, &vm.desired.resources);
                }
                continue;
            }
            vms.push(vm);
            if !numbers.is_empty() {
                host_of.push(host);
            }
        }
        View { snapshot, customer, usage, vms, host_of, hosts }
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

    /// The number of the host of the VM `self.vms()[vm]`, if that host has a limit of any kind.
    pub fn host_of(&self, vm: usize) -> Option<usize> {
        self.host_of.get(vm).copied().flatten()
    }

    /// What each host that has a limit leaves the customer of `resource`, by the host's number and in the resource's
    /// base unit: its capacity without what other customers' VMs shall have. `None`: as much as he likes.
    pub fn rooms(&self, resource: Resource) -> Vec<Option<u64>> {
        let left = |(host, others): &(&Host, Resources)| {
            host.capacity.get(resource).map(|capacity| capacity.saturating_sub(others.get(resource).unwrap_or(0)))
        };
        self.hosts.iter().map(left).collect()
    }

    /// How much of `resource` the customer bought, in its base unit; `None` if he did not buy it.
    pub fn bound(&self, resource: Resource) -> Option<u64> {
        self.snapshot.customer(self.customer)?.bounds.get(resource)
    }
}

/// A hash of short names that costs next to nothing: eight bytes a multiplication. Names of hosts come from operators,
/// so that no one has an interest in collisions.
#[derive(Debug, Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
    }

    fn finish(&self) -> u64 {
        // The table looks at the top and the bottom; multiplication mixes upwards only.
        self.0 ^ (self.0 >> 32)
    }
}

fn sum(one: &Resources, other: &Resources) -> Resources {
    let mut sum = *one;
    for amount in other.amounts() {
        let resource = amount.resource();
        sum.set(resource.amount(sum.get(resource).unwrap_or(0).saturating_add(amount.raw())));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;
    use vibra_model::{Command, Customer, VmSpec};

    #[test]
    fn a_host_leaves_what_other_customers_do_not_have() {
        let mut directory = cluster(100, &[None, Some(70)], &[Seed::up(1, 10), Seed { host: 1, ..Seed::up(1, 20) }]);
        run(&mut directory, Command::PutCustomer(Customer { id: id("other"), bounds: rate(50) }));
        for (order, name) in ["a", "vm00", "z"].iter().enumerate() {
            let vm = VmSpec {
                id: id(name),
                customer: id("other"),
                host: id("h1"),
                address: "10.0.0.1:80".into(),
                order: order as u32,
                weight: 1,
                floor: rate(1),
                initial: rate(5),
            };
            run(&mut directory, Command::PutVm(vm));
        }
        let (shop, usage): (CustomerId, _) = (id("shop"), UsageWindow::default());
        let view = View::new(&directory, &shop, &usage);
        assert_eq!(view.vms().iter().map(|vm| vm.id.as_str()).collect::<Vec<_>>(), ["vm0", "vm1"]);
        assert_eq!([view.host_of(0), view.host_of(1)], [None, Some(0)]);
        assert_eq!(view.rooms(Resource::Bandwidth), [Some(55)]);
        assert_eq!(view.rooms(Resource::Memory), [None]);
        assert_eq!((view.bound(Resource::Bandwidth), view.bound(Resource::Memory)), (Some(100), None));
    }
}
