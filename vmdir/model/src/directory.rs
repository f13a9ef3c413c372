//! The directory's state and its rules: which commands are accepted, and what they change.

use crate::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Something the directory is asked to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Register a customer, or change his bounds.
    PutCustomer(Customer),
    /// Register a host, or change its capacity.
    PutHost(HostSpec),
    /// Register a VM, or change its place, address, weight or floor. A move that it was about to make is called off.
    PutVm(VmSpec),
    /// Remove a customer who has no VMs.
    RemoveCustomer(CustomerId),
    /// Remove a host that has no VMs.
    RemoveHost(HostId),
    /// Remove a VM.
    RemoveVm(VmId),
    /// Put a VM into a state, such as draining.
    SetVmState {
        /// Which.
        vm: VmId,
        /// The new state.
        state: VmState,
    },
    /// Hosts of the same pool can take over one another's VMs. A host that is registered anew is in none.
    JoinPool {
        /// Which host.
        host: HostId,
        /// Which pool.
        pool: PoolId,
    },
    /// Send a VM to another host. To its own: it stays there, if it has not left yet.
    MoveVm {
        /// The revision that the sender had seen.
        base: Revision,
        /// Which VM.
        vm: VmId,
        /// Where to.
        to: HostId,
    },
    /// Change allocations.
    Propose(Proposal),
    /// A host tells of itself and its VMs.
    Report(UsageReport),
    /// A host was silent past the deadline.
    HostSilent(HostId),
}

impl Command {
    /// What it does, as in "may not …".
    pub fn verb(&self) -> &'static str {
        match self {
            Command::PutCustomer(_) => "register customers",
            Command::PutHost(_) => "register hosts",
            Command::PutVm(_) => "register VMs",
            Command::RemoveCustomer(_) => "remove customers",
            Command::RemoveHost(_) => "remove hosts",
            Command::RemoveVm(_) => "remove VMs",
            Command::SetVmState { .. } => "change the state of VMs",
            Command::JoinPool { .. } => "say who can take over VMs",
            Command::MoveVm { .. } => "move VMs",
            Command::Propose(_) => "change allocations",
            Command::Report(_) => "report usage",
            Command::HostSilent(_) => "declare hosts silent",
        }
    }
}

/// A record's new value, or its removal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "nearly every change is of a VM, and boxing would cost just that case")]
pub enum Change {
    /// A customer's new value.
    Customer(Customer),
    /// A host's new value.
    Host(Host),
    /// A VM's new value.
    Vm(Vm),
    /// The customer is gone.
    CustomerRemoved(CustomerId),
    /// The host is gone.
    HostRemoved(HostId),
    /// The VM is gone.
    VmRemoved(VmId),
}

/// One commit: what changed at a revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The revision that the directory has after it.
    pub revision: Revision,
    /// What changed, in order.
    pub changes: Vec<Change>,
}

/// The directory at one revision.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Records", into = "Records")]
pub struct Snapshot {
    revision: Revision,
    customers: BTreeMap<CustomerId, Customer>,
    hosts: BTreeMap<HostId, Host>,
    vms: BTreeMap<VmId, Vm>,
    clusters: BTreeMap<CustomerId, BTreeSet<(u32, VmId)>>,
    /// The VMs on each host and on their way to it.
    placed: BTreeMap<HostId, BTreeSet<VmId>>,
    /// The VMs on their way.
    moving: BTreeSet<VmId>,
    /// When a customer's bounds, VMs or desired allocations last changed. After a transfer as [`Records`] it is the
    /// snapshot's own revision: older bases are then refused although they might be fresh, never the reverse.
    allocated: BTreeMap<CustomerId, Revision>,
}

/// A snapshot on the wire and in the store: the records alone.
#[derive(Serialize, Deserialize)]
struct Records {
    revision: Revision,
    customers: Vec<Customer>,
    hosts: Vec<Host>,
    vms: Vec<Vm>,
}

impl From<Records> for Snapshot {
    fn from(records: Records) -> Self {
        let customers = records.customers.into_iter().map(Change::Customer);
        let hosts = records.hosts.into_iter().map(Change::Host);
        let vms = records.vms.into_iter().map(Change::Vm);
        let mut snapshot = Snapshot::default();
        snapshot.apply(records.revision, &customers.chain(hosts).chain(vms).collect::<Vec<_>>());
        snapshot
    }
}

impl From<Snapshot> for Records {
    fn from(snapshot: Snapshot) -> Self {
        Records {
            revision: snapshot.revision,
            customers: snapshot.customers.into_values().collect(),
            hosts: snapshot.hosts.into_values().collect(),
            vms: snapshot.vms.into_values().collect(),
        }
    }
}

impl Snapshot {
    /// The revision.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// A customer.
    pub fn customer(&self, id: &CustomerId) -> Option<&Customer> {
        self.customers.get(id)
    }

    /// A host.
    pub fn host(&self, id: &HostId) -> Option<&Host> {
        self.hosts.get(id)
    }

    /// A VM.
    pub fn vm(&self, id: &VmId) -> Option<&Vm> {
        self.vms.get(id)
    }

    /// Every customer, by id.
    pub fn customers(&self) -> impl ExactSizeIterator<Item = &Customer> {
        self.customers.values()
    }

    /// Every host, by id.
    pub fn hosts(&self) -> impl ExactSizeIterator<Item = &Host> {
        self.hosts.values()
    }

    /// Every VM, by id.
    pub fn vms(&self) -> impl ExactSizeIterator<Item = &Vm> {
        self.vms.values()
    }

    /// A customer's VMs in their cluster order: VM_1, …, VM_N of section 3.3.1.
    pub fn vms_of(&self, customer: &CustomerId) -> impl Iterator<Item = &Vm> {
        self.clusters.get(customer).into_iter().flatten().map(|(_, vm)| &self.vms[vm])
    }

    /// The VMs on a host and those on their way to it, by id.
    pub fn vms_on(&self, host: &HostId) -> impl Iterator<Item = &Vm> {
        self.placed.get(host).into_iter().flatten().map(|vm| &self.vms[vm])
    }

    /// The VMs on their way to another host, by id.
    pub fn moving(&self) -> impl ExactSizeIterator<Item = &Vm> {
        self.moving.iter().map(|vm| &self.vms[vm])
    }

    /// Whether the host of `vm` may now raise `resource` to the desired amount: what all VMs of its customer may
    /// have, counting decreases only once they are confirmed, is within the bound, and likewise on its host. So the
    /// sum stays within the bound at every instant, across hosts (section 3.3.2: first reduce, then increase).
    pub fn may_raise(&self, vm: &Vm, resource: Resource) -> bool {
        let held = |vm: &Vm, r: Resource| vm.held.get(r);
        self.over_bound(&vm.customer, resource, &held, 0).is_none()
            && self.over_capacity(&vm.host, resource, &held, 0).is_none()
    }

    /// What `command` changes. Nothing is changed yet: commit the changes and [`apply`](Self::apply) them. Empty if
    /// everything is so already.
    ///
    /// # Errors
    /// The [`Rejection`], with every rule that it would break.
    pub fn decide(&self, command: &Command) -> Result<Vec<Change>, Rejection> {
        match command {
            Command::PutCustomer(customer) => self.put_customer(customer),
            Command::PutHost(spec) => self.put_host(spec),
            Command::PutVm(spec) => self.put_vm(spec),
            Command::RemoveCustomer(customer) => {
                self.known_customer(customer)?;
                unused(format!("customer {customer}"), self.vms_of(customer))?;
                Ok(vec![Change::CustomerRemoved(customer.clone())])
            }
            Command::RemoveHost(host) => {
                self.known_host(host)?;
                unused(format!("host {host}"), self.vms_on(host))?;
                Ok(vec![Change::HostRemoved(host.clone())])
            }
            Command::RemoveVm(vm) => Ok(vec![Change::VmRemoved(self.known_vm(vm)?.id.clone())]),
            Command::SetVmState { vm, state } => {
                let vm = self.known_vm(vm)?;
                let up = self.host(&vm.host).is_some_and(|host| host.state == HostState::Up);
                Ok(changed(vm, if up { in_state(vm.clone(), *state) } else { unheard(vm.clone(), *state) }))
            }
            Command::JoinPool { host, pool } => {
                Ok(self.changed_host(Host { pool: Some(pool.clone()), ..self.known_host(host)?.clone() }))
            }
            Command::MoveVm { base, vm, to } => self.move_vm(*base, vm, to),
            Command::Propose(proposal) => self.propose(proposal),
            Command::Report(report) => self.report(report),
            Command::HostSilent(host) => {
                let mut host = self.known_host(host)?.clone();
                host.state = HostState::Down;
                let lost = |vm: &Vm| match vm.host == host.id {
                    true => unheard(vm.clone(), VmState::Down),
                    false => staying(vm.clone()),
                };
                let vms = self.vms_on(&host.id).flat_map(|vm| changed(vm, lost(vm)));
                let mut changes: Vec<_> = vms.collect();
                changes.extend(self.changed_host(host));
                Ok(changes)
            }
        }
    }

    /// Takes over committed changes; the directory is then at `revision`.
    pub fn apply(&mut self, revision: Revision, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Customer(customer) => {
                    self.allocated.insert(customer.id.clone(), revision);
                    self.customers.insert(customer.id.clone(), customer.clone());
                }
                Change::Host(host) => {
                    self.hosts.insert(host.id.clone(), host.clone());
                }
                Change::Vm(vm) => self.apply_vm(revision, vm),
                Change::CustomerRemoved(id) => {
                    self.customers.remove(id);
                    self.allocated.remove(id);
                }
                Change::HostRemoved(id) => {
                    self.hosts.remove(id);
                }
                Change::VmRemoved(id) => self.remove_vm(revision, id),
            }
        }
        self.revision = revision;
    }

    fn apply_vm(&mut self, revision: Revision, vm: &Vm) {
        let old = self.vms.get(&vm.id);
        let place = |vm: &Vm| (vm.host.clone(), vm.moving.clone());
        if old.is_none_or(|old| old.desired != vm.desired || old.floor != vm.floor || place(old) != place(vm)) {
            self.allocated.insert(vm.customer.clone(), revision);
        }
        // The usual change leaves the VM where it is, and the indexes with it.
        if old.is_none_or(|old| (&old.customer, old.order, place(old)) != (&vm.customer, vm.order, place(vm))) {
            self.remove_vm(revision, &vm.id);
            self.clusters.entry(vm.customer.clone()).or_default().insert((vm.order, vm.id.clone()));
            for host in [&vm.host].into_iter().chain(&vm.moving) {
                self.placed.entry(host.clone()).or_default().insert(vm.id.clone());
            }
            if vm.moving.is_some() {
                self.moving.insert(vm.id.clone());
            }
        }
        // Every VM came with its own text of these ids. One text each stays in the caches of who walks over all VMs.
        let customer = self.customer(&vm.customer).map_or(&vm.customer, |known| &known.id).clone();
        let host = self.host(&vm.host).map_or(&vm.host, |known| &known.id).clone();
        self.vms.insert(vm.id.clone(), Vm { customer, host, ..vm.clone() });
    }

    fn remove_vm(&mut self, revision: Revision, id: &VmId) {
        let Some(vm) = self.vms.remove(id) else { return };
        self.allocated.insert(vm.customer.clone(), revision);
        if let Some(cluster) = self.clusters.get_mut(&vm.customer) {
            cluster.remove(&(vm.order, vm.id.clone()));
        }
        for host in [&vm.host].into_iter().chain(&vm.moving) {
            if let Some(placed) = self.placed.get_mut(host) {
                placed.remove(&vm.id);
            }
        }
        self.moving.remove(&vm.id);
    }

    fn known_customer(&self, id: &CustomerId) -> Result<&Customer, Violation> {
        self.customer(id).ok_or_else(|| Violation::UnknownCustomer { customer: id.clone() })
    }

    fn known_host(&self, id: &HostId) -> Result<&Host, Violation> {
        self.host(id).ok_or_else(|| Violation::UnknownHost { host: id.clone() })
    }

    fn known_vm(&self, id: &VmId) -> Result<&Vm, Violation> {
        self.vm(id).ok_or_else(|| Violation::UnknownVm { vm: id.clone() })
    }

    fn put_customer(&self, customer: &Customer) -> Result<Vec<Change>, Rejection> {
        if self.customer(&customer.id) == Some(customer) {
            return Ok(Vec::new());
        }
        let mut after = self.clone_cluster(&customer.id);
        after.customers.insert(customer.id.clone(), customer.clone());
        let violations = after.cluster_violations(&customer.id);
        if violations.is_empty() { Ok(vec![Change::Customer(customer.clone())]) } else { Err(violations.into()) }
    }

    fn put_host(&self, spec: &HostSpec) -> Result<Vec<Change>, Rejection> {
        let state = self.host(&spec.id).map_or(HostState::Down, |host| host.state);
        let host = Host { id: spec.id.clone(), capacity: spec.capacity, state, pool: None };
        let mut after = Snapshot::default();
        after.apply(self.revision, &[Change::Host(host.clone())]);
        after.apply(self.revision, &self.vms_on(&spec.id).cloned().map(Change::Vm).collect::<Vec<_>>());
        let violations = after.host_violations(&spec.id);
        if violations.is_empty() { Ok(self.changed_host(host)) } else { Err(violations.into()) }
    }

    fn changed_host(&self, host: Host) -> Vec<Change> {
        if self.host(&host.id) == Some(&host) { Vec::new() } else { vec![Change::Host(host)] }
    }

    fn put_vm(&self, spec: &VmSpec) -> Result<Vec<Change>, Rejection> {
        self.known_customer(&spec.customer)?;
        self.known_host(&spec.host)?;
        let mut found = Vec::new();
        if let Some(old) = self.vm(&spec.id).filter(|old| old.customer != spec.customer) {
            found.push(Violation::OtherOwner { vm: old.id.clone(), customer: old.customer.clone() });
        }
        if let Some(other) = self.vms_of(&spec.customer).find(|vm| vm.order == spec.order && vm.id != spec.id) {
            found.push(Violation::PlaceTaken {
                customer: spec.customer.clone(),
                order: spec.order,
                vm: other.id.clone(),
            });
        }
        if spec.weight == 0 {
            found.push(Violation::NoWeight { vm: spec.id.clone() });
        }
        if !found.is_empty() {
            return Err(found.into());
        }
        let vm = registered(spec, self.vm(&spec.id));
        let mut after = self.clone_cluster(&spec.customer);
        after.apply(self.revision, &[Change::Host(self.hosts[&spec.host].clone())]);
        after.apply(self.revision, &self.vms_on(&spec.host).cloned().map(Change::Vm).collect::<Vec<_>>());
        after.apply(self.revision, &[Change::Vm(vm.clone())]);
        found.extend(below_floor(&vm));
        found.extend(after.cluster_violations(&spec.customer));
        found.extend(after.host_violations(&spec.host));
        if !found.is_empty() {
            return Err(found.into());
        }
        Ok(if self.vm(&spec.id) == Some(&vm) { Vec::new() } else { vec![Change::Vm(vm)] })
    }

    /// One customer and his VMs alone: enough to judge what concerns them.
    fn clone_cluster(&self, customer: &CustomerId) -> Snapshot {
        let own = self.customer(customer).cloned().map(Change::Customer);
        let vms = self.vms_of(customer).cloned().map(Change::Vm);
        let mut part = Snapshot::default();
        part.apply(self.revision, &own.into_iter().chain(vms).collect::<Vec<_>>());
        part
    }

    fn cluster_violations(&self, customer: &CustomerId) -> Vec<Violation> {
        let floors = |resource| {
            let floor = |vm: &Vm, r: Resource| vm.floor.get(r);
            match self.over_bound(customer, resource, &floor, 0)? {
                Violation::BoundExceeded { customer, bound, total } => {
                    Some(Violation::FloorsExceedBound { customer, bound, total })
                }
                other => Some(other),
            }
        };
        let desired = |resource| self.over_bound(customer, resource, &Vm::desired, 0);
        Resource::ALL.into_iter().filter_map(|r| floors(r).or_else(|| desired(r))).collect()
    }

    fn host_violations(&self, host: &HostId) -> Vec<Violation> {
        Resource::ALL.into_iter().filter_map(|r| self.over_capacity(host, r, &Vm::desired, 0)).collect()
    }

    fn propose(&self, proposal: &Proposal) -> Result<Vec<Change>, Rejection> {
        let mut vms: BTreeMap<&VmId, Vm> = BTreeMap::new();
        for change in &proposal.changes {
            let Some(vm) = self.vm(&change.vm) else { continue };
            vms.entry(&change.vm).or_insert_with(|| vm.clone()).desired.resources.set(change.to);
        }
        vms.retain(|id, vm| self.vms[id].desired != vm.desired);
        // Staleness first: what an outdated proposer breaks may be no fault of his.
        let newest = vms.values().filter_map(|vm| self.allocated.get(&vm.customer)).max();
        if let Some(&changed) = newest.filter(|&&changed| changed > proposal.base) {
            return Err(Rejection::Stale { base: proposal.base, changed });
        }
        let violations = self.violations(&proposal.changes);
        if !violations.is_empty() {
            return Err(violations.into());
        }
        Ok(vms.into_values().map(with_new_desired).map(Change::Vm).collect())
    }

    fn move_vm(&self, base: Revision, vm: &VmId, to: &HostId) -> Result<Vec<Change>, Rejection> {
        let (vm, host) = (self.known_vm(vm)?, self.known_host(to)?);
        if vm.host == *to {
            return Ok(changed(vm, staying(vm.clone())));
        }
        if vm.moving.as_ref() == Some(to) {
            return Ok(Vec::new());
        }
        if let Some(&changed) = self.allocated.get(&vm.customer).filter(|&&changed| changed > base) {
            return Err(Rejection::Stale { base, changed });
        }
        if let Some(other) = &vm.moving {
            return Err(Violation::Moving { vm: vm.id.clone(), to: other.clone() }.into());
        }
        self.may_take(vm, &vm.host, to)?;
        let why = match (host.state, vm.state) {
            (HostState::Down, _) => Some("that host is down"),
            (_, VmState::Up | VmState::Warming) => None,
            _ => Some("only a VM that serves is moved"),
        };
        if let Some(why) = why {
            return Err(cannot_move(vm, &vm.host, to, why).into());
        }
        // What its host may give it now is what it may have there: nothing is lowered on the way.
        let share = |vm: &Vm, r: Resource| Some(vm.desired(r).unwrap_or(0).max(vm.held.get(r)?));
        let over = |r: Resource| self.over_capacity(to, r, &share, share(vm, r).unwrap_or(0).into());
        let violations: Vec<_> = Resource::ALL.into_iter().filter_map(over).collect();
        if !violations.is_empty() {
            return Err(violations.into());
        }
        Ok(vec![Change::Vm(Vm { moving: Some(to.clone()), state: VmState::Draining, ..vm.clone() })])
    }

    /// Whether the agent of host `to` can take over `vm` from that of host `from`: whether they are of one pool.
    ///
    /// # Errors
    /// [`Violation::CannotMove`] if not.
    pub fn may_take(&self, vm: &Vm, from: &HostId, to: &HostId) -> Result<(), Violation> {
        let pool = |host| self.host(host).and_then(|host| host.pool.as_ref());
        match (pool(from), pool(to)) {
            (Some(one), Some(other)) if one == other => Ok(()),
            _ => {
                let why = "the agents of these hosts cannot take over VMs from one another: only hosts that one process \
                           runs (vibra up) can";
                Err(cannot_move(vm, from, to, why))
            }
        }
    }

    fn report(&self, report: &UsageReport) -> Result<Vec<Change>, Rejection> {
        let mut host = self.known_host(&report.host)?.clone();
        host.state = HostState::Up;
        let mut changes = self.changed_host(host);
        // A VM that was removed or moved while the report was under way is no longer this host's to speak of.
        let own = |told: &&VmReport| self.vm(&told.vm).is_some_and(|vm| vm.host == report.host);
        for told in report.vms.iter().filter(own) {
            let old = &self.vms[&told.vm];
            changes.extend(changed(old, reported(old.clone(), told)));
        }
        Ok(changes)
    }
}

fn cannot_move(vm: &Vm, from: &HostId, to: &HostId, why: &str) -> Violation {
    Violation::CannotMove { vm: vm.id.clone(), from: from.clone(), to: to.clone(), why: why.to_owned() }
}

/// The VM without the move that it was about to make.
fn staying(mut vm: Vm) -> Vm {
    if vm.moving.take().is_some() && vm.state == VmState::Draining {
        vm.state = VmState::Up;
    }
    vm
}

/// The VM at the host where it was going, once its own has stopped it. Nothing of it is in force anywhere; what it shall
/// have was counted there since the move began.
fn handed_over(mut vm: Vm, to: HostId) -> Vm {
    vm.host = to;
    vm.state = VmState::Starting;
    vm.desired.generation = vm.desired.generation.next();
    vm.held = vm.desired.resources;
    vm.applied = None;
    vm.level = None;
    vm
}

fn unused<'a>(what: String, mut vms: impl Iterator<Item = &'a Vm>) -> Result<(), Violation> {
    match vms.next() {
        Some(vm) => Err(Violation::InUse { what, vm: vm.id.clone() }),
        None => Ok(()),
    }
}

fn changed(old: &Vm, new: Vm) -> Vec<Change> {
    if *old == new { Vec::new() } else { vec![Change::Vm(new)] }
}

fn below_floor(vm: &Vm) -> impl Iterator<Item = Violation> + '_ {
    let below = |to: &Amount| vm.floor.get(to.resource()).is_some_and(|floor| to.raw() < floor);
    vm.desired.resources.amounts().filter(below).map(|to| Violation::BelowFloor {
        vm: vm.id.clone(),
        floor: to.resource().amount(vm.floor.get(to.resource()).unwrap_or(0)),
        to,
    })
}

/// The VM that a registration makes of `old`. What it was allocated, and its state, stay.
fn registered(spec: &VmSpec, old: Option<&Vm>) -> Vm {
    let first = Allocation { resources: spec.initial, generation: Generation(1) };
    Vm {
        id: spec.id.clone(),
        customer: spec.customer.clone(),
        host: spec.host.clone(),
        address: spec.address.clone(),
        order: spec.order,
        weight: spec.weight,
        // Who is registered anew runs where it is registered, whatever it was about to do before.
        state: old.filter(|vm| vm.moving.is_none()).map_or(VmState::Starting, |vm| vm.state),
        moving: None,
        floor: spec.floor,
        desired: old.map_or(first, |vm| vm.desired),
        applied: old.and_then(|vm| vm.applied),
        held: old.map_or(spec.initial, |vm| vm.held),
        level: old.and_then(|vm| vm.level),
    }
}

/// Counts a new desired allocation: it gets the next generation, and the host may from now on give that much.
fn with_new_desired(mut vm: Vm) -> Vm {
    vm.desired.generation = vm.desired.generation.next();
    vm.held = vm.held.max(&vm.desired.resources);
    vm
}

/// The VM in another state. One that goes down keeps its floor for its return, and credits the rest to its cluster
/// (section 4.3.1: "credit BW_j back"). What its host may give it counts until that has taken it back: a server that
/// looks dead may still send.
fn in_state(mut vm: Vm, state: VmState) -> Vm {
    if state == VmState::Down && vm.state != VmState::Down {
        for amount in vm.desired.resources.amounts().collect::<Vec<_>>() {
            let resource = amount.resource();
            vm.desired.resources.set(resource.amount(vm.floor.get(resource).unwrap_or(0)));
        }
        vm.desired.generation = vm.desired.generation.next();
        vm.level = None;
        vm.moving = None;
    }
    vm.state = state;
    vm
}

/// The same where its host is not heard of, which could confirm nothing: failures are fail-stop (section 4.2.5), so a VM
/// that goes down with its host holds no more than is kept for it.
fn unheard(vm: Vm, state: VmState) -> Vm {
    let mut vm = in_state(vm, state);
    if state == VmState::Down {
        vm.held = vm.desired.resources;
        vm.applied = None;
    }
    vm
}

/// The VM after its host spoke of it.
fn reported(mut vm: Vm, told: &VmReport) -> Vm {
    if told.state == Some(VmState::Down)
        && let Some(to) = vm.moving.take()
    {
        return handed_over(vm, to);
    }
    if let Some(applied) = told.applied {
        // Once the newest generation is adopted no older one can be carried out any more.
        vm.held = if applied.generation == vm.desired.generation {
            applied.resources.max(&vm.desired.resources)
        } else {
            vm.held.max(&applied.resources)
        };
        vm.applied = Some(applied);
    }
    vm.level = told.level.filter(|_| told.state != Some(VmState::Down));
    match told.state {
        // Draining was asked for by an operator; that the server still runs does not end it.
        Some(VmState::Up | VmState::Warming) if vm.state == VmState::Draining => vm,
        Some(state) => in_state(vm, state),
        None => vm,
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
