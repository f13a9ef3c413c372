//! How much room hosts have.

use std::collections::HashMap;
use vibra_model::{HostId, Resource, Snapshot, Vm};

/// What is left of a resource on each host that has a limit, in the resource's base unit.
#[derive(Debug)]
pub(crate) struct Rooms<'a> {
    index: HashMap<&'a HostId, usize>,
    capacity: Vec<u64>,
    used: Vec<u64>,
}

impl<'a> Rooms<'a> {
    /// What the desired allocations of all VMs, of all customers, leave.
    pub(crate) fn of(snapshot: &'a Snapshot, resource: Resource) -> Self {
        let limited = snapshot.hosts().filter_map(|host| Some((&host.id, host.capacity.get(resource)?)));
        let (hosts, capacity): (Vec<_>, Vec<_>) = limited.unzip();
        let used = vec![0; hosts.len()];
        let index = hosts.into_iter().zip(0..).collect();
        let mut rooms = Rooms { index, capacity, used };
        if !rooms.index.is_empty() {
            for vm in snapshot.vms() {
                let Some(host) = rooms.host(vm) else { continue };
                rooms.take(host, vm.desired(resource).unwrap_or(0));
            }
        }
        rooms
    }

    /// The number of the VM's host, if that has a limit.
    pub(crate) fn host(&self, vm: &Vm) -> Option<usize> {
        if self.index.is_empty() { None } else { self.index.get(&vm.host).copied() }
    }

    /// Counts an amount as used.
    pub(crate) fn take(&mut self, host: usize, amount: u64) {
        self.used[host] = self.used[host].saturating_add(amount);
    }

    /// Counts an amount as used no more.
    pub(crate) fn give_back(&mut self, host: usize, amount: u64) {
        self.used[host] = self.used[host].saturating_sub(amount);
    }

    /// How many hosts have a limit.
    pub(crate) fn len(&self) -> usize {
        self.capacity.len()
    }

    /// What is left.
    pub(crate) fn left(&self, host: usize) -> u64 {
        self.capacity[host].saturating_sub(self.used[host])
    }
}
