//! What a policy sees.

use foldhash::fast::FixedState;
use std::{collections::HashMap, sync::Arc};
use vibra_model::{Action, CustomerId, Host, HostId, Resource, Resources, Snapshot, UsageWindow, Vm, VmId};

/// What a policy decides on: the directory at one revision, the usage since the last decision, and whose VMs.
///
/// It copies nothing of the VMs: for 100,000 of them reading their records is most of a decision, so that a policy
/// should do it once.
#[derive(Debug, Clone)]
pub struct View<'a> {
    snapshot: &'a Snapshot,
    customer: &'a CustomerId,
    usage: &'a UsageWindow,
    /// Both, where they can be kept beyond the view.
    shared: Option<(&'a Arc<Snapshot>, &'a Arc<UsageWindow>)>,
    /// The hosts that have a limit, each with what VMs of other customers, and VMs on their way there, shall have.
    hosts: Vec<(&'a Host, Resources)>,
    /// Where in `hosts` a host is, by the address of its id's text in the snapshot, which its VMs share: to read and
    /// hash the text for each VM costs more than the rest of the look-up.
    numbers: HashMap<usize, usize, FixedState>,
    /// The shares that are planned already, in the resource's base unit.
    planned: HashMap<(&'a VmId, Resource), u64, FixedState>,
    /// The actions that say so.
    actions: &'a [Action],
}

impl<'a> View<'a> {
    /// The view of one customer. `usage` may repeat samples that were seen before.
    pub fn new(snapshot: &'a Snapshot, customer: &'a CustomerId, usage: &'a UsageWindow) -> Self {
        // The directory's own text of the id: its VMs have that one.
        let customer = snapshot.customer(customer).map_or(customer, |known| &known.id);
        let limited = snapshot.hosts().filter(|host| host.capacity != Resources::NONE);
        let hosts: Vec<_> = limited.map(|host| (host, Resources::NONE)).collect();
        let numbers = hosts.iter().zip(0..).map(|((host, _), number)| (address(&host.id), number)).collect();
        let planned = HashMap::default();
        let mut view = View { snapshot, customer, usage, shared: None, hosts, numbers, planned, actions: &[] };
        if snapshot.customers().any(|other| other.id != *customer) {
            for vm in snapshot.vms().filter(|vm| vm.customer != *customer) {
                let Some(host) = view.host_of(vm) else { continue };
                let others = &mut view.hosts[host].1;
                *others = sum(others, &vm.desired.resources);
            }
        }
        // Where a VM is going it takes its place already, whosever it is.
        for vm in snapshot.moving() {
            let Some(host) = vm.moving.as_ref().and_then(|to| view.number_of(to)) else { continue };
            let others = &mut view.hosts[host].1;
            *others = sum(others, &vm.desired.resources);
        }
        view
    }

    /// The same as [`new`](Self::new), of what can be kept beyond the view without being copied.
    pub fn shared(snapshot: &'a Arc<Snapshot>, customer: &'a CustomerId, usage: &'a Arc<UsageWindow>) -> Self {
        View { shared: Some((snapshot, usage)), ..View::new(snapshot, customer, usage) }
    }

    /// The directory and the usage, for longer than the view lives. They are copied unless the view is of
    /// [shared](Self::shared) ones.
    pub fn kept(&self) -> (Arc<Snapshot>, Arc<UsageWindow>) {
        match self.shared {
            Some((snapshot, usage)) => (snapshot.clone(), usage.clone()),
            None => (Arc::new(self.snapshot.clone()), Arc::new(self.usage.clone())),
        }
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

    /// The same view for a policy that decides after others, and so knows what they have planned.
    pub fn after(&self, planned: &'a [Action]) -> View<'a> {
        let shares = planned.iter().map(|Action { change, .. }| ((&change.vm, change.to.resource()), change.to.raw()));
        let mut view = self.clone();
        view.planned.extend(shares);
        view.actions = planned;
        view
    }

    /// What others have planned: empty but for a policy that decides after them.
    pub fn planned(&self) -> &'a [Action] {
        self.actions
    }

    /// What `vm` will have of `resource` once what is planned already is done, in the resource's base unit; `None` if it
    /// is not managed for it.
    pub fn share(&self, vm: &Vm, resource: Resource) -> Option<u64> {
        let has = vm.desired(resource)?;
        if self.planned.is_empty() {
            return Some(has);
        }
        Some(self.planned.get(&(&vm.id, resource)).copied().unwrap_or(has))
    }

    /// The hosts that have a limit of any kind, in the order of their numbers.
    pub fn hosts(&self) -> impl ExactSizeIterator<Item = &'a Host> {
        self.hosts.iter().map(|(host, _)| *host)
    }

    /// The customer's VMs, by id. That is the order of usage and of saved states too, which are so joined by merging:
    /// for 100,000 VMs a look-up each would cost more than the whole decision.
    pub fn vms(&self) -> impl Iterator<Item = &'a Vm> {
        let customer = self.customer;
        self.snapshot.vms().filter(move |vm| vm.customer == *customer)
    }

    /// The number of the host of `vm`, if that host has a limit of any kind.
    pub fn host_of(&self, vm: &Vm) -> Option<usize> {
        self.number_of(&vm.host)
    }

    /// The number of a host, if it has a limit of any kind.
    pub(crate) fn number_of(&self, host: &HostId) -> Option<usize> {
        if self.numbers.is_empty() {
            return None;
        }
        let number = |host| self.numbers.get(&address(host)).copied();
        number(host).or_else(|| number(&self.snapshot.host(host)?.id))
    }

    /// What each host that has a limit leaves the customer of `resource`, by the host's number and in the resource's
    /// base unit: its capacity without what other customers' VMs shall have. `None`: as much as he likes.
    pub fn rooms(&self, resource: Resource) -> Vec<Option<u64>> {
        self.hosts.iter().map(|host| self.left(host, resource)).collect()
    }

    fn left(&self, (host, others): &(&Host, Resources), resource: Resource) -> Option<u64> {
        host.capacity.get(resource).map(|capacity| capacity.saturating_sub(others.get(resource).unwrap_or(0)))
    }

    /// What one host leaves the customer of `resource`, as [`rooms`](Self::rooms) tells of all. `None`: as much as he
    /// likes, or the host is not known.
    pub fn room(&self, host: &HostId, resource: Resource) -> Option<u64> {
        self.left(&self.hosts[self.number_of(host)?], resource)
    }

    /// How much of `resource` the customer bought, in its base unit; `None` if he did not buy it.
    pub fn bound(&self, resource: Resource) -> Option<u64> {
        self.snapshot.customer(self.customer)?.bounds.get(resource)
    }
}

fn address(host: &HostId) -> usize {
    host.as_str().as_ptr().addr()
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
    fn what_is_shared_is_kept_without_a_copy() {
        let directory = Arc::new(cluster(100, &[None], &[Seed::up(1, 10)]));
        let (shop, usage): (CustomerId, _) = (id("shop"), Arc::new(UsageWindow::default()));
        let view = View::shared(&directory, &shop, &usage);
        let (one, other) = (view.after(&[]).kept(), View::new(&directory, &shop, &usage).kept());
        assert!(Arc::ptr_eq(&one.0, &directory) && Arc::ptr_eq(&one.1, &usage));
        assert!(!Arc::ptr_eq(&other.0, &directory) && *other.0 == *directory);
    }

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
        assert_eq!(view.vms().map(|vm| vm.id.as_str()).collect::<Vec<_>>(), ["vm0", "vm1"]);
        assert_eq!(view.vms().map(|vm| view.host_of(vm)).collect::<Vec<_>>(), [None, Some(0)]);
        assert_eq!(view.rooms(Resource::Bandwidth), [Some(55)]);
        assert_eq!(view.rooms(Resource::Memory), [None]);
        let room = |host| view.room(&id(host), Resource::Bandwidth);
        assert_eq!([room("h0"), room("h1"), room("h2")], [None, Some(55), None]);
        assert_eq!((view.bound(Resource::Bandwidth), view.bound(Resource::Memory)), (Some(100), None));
    }
}
