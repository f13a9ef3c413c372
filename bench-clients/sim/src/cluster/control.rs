//! Directory, agents and allocator on virtual time: the real rules and policies, without network and clocks.

use super::{
    Nanos, Scenario, SetupError,
    fault::FaultKind,
    outcome::{Decisions, Given, History},
    server::Server,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use vibra_model::{
    Amount, Applied, Bytes, Command, CustomerId, HostId, Move, Resource, Resources, Snapshot, Timestamp, UsageReport,
    UsageSample, UsageWindow, VmId, VmReport, VmSpec, VmState,
};
use vibra_policy::{Composition, Limits, View, check};
use vibra_routing::{Cluster, Settings, Table};

/// How far back policies see, beyond the last decision.
const OVERLAP: Duration = Duration::from_secs(10);

/// The directory with what reports to it and decides by it.
#[derive(Debug)]
pub(super) struct Control {
    directory: Snapshot,
    customer: CustomerId,
    policies: Composition,
    limits: Limits,
    settings: Settings,
    usage: UsageWindow,
    /// When usage was last looked at.
    looked: Option<Timestamp>,
    /// The VMs by server index, and the reverse.
    vms: Vec<VmId>,
    indexes: HashMap<VmId, usize>,
    /// Where the VMs really are.
    places: Vec<HostId>,
    /// Actuators and sensors that do not work.
    stuck: BTreeSet<(usize, Resource)>,
    stale: BTreeMap<usize, Option<UsageSample>>,
    last: Vec<Option<UsageSample>>,
    silent: BTreeSet<HostId>,
    moves: VecDeque<Move>,
    pub(super) decisions: Decisions,
    pub(super) given: History,
    /// The states that the dispatchers' table was built for.
    routed: Vec<VmState>,
}

impl Control {
    pub(super) fn new(scenario: &Scenario, policies: Composition) -> Result<Self, SetupError> {
        let mut directory = Snapshot::default();
        let hosts = scenario.hosts.iter().cloned().map(Command::PutHost);
        let vms = scenario.vms.iter().cloned().map(Command::PutVm);
        for command in [Command::PutCustomer(scenario.customer.clone())].into_iter().chain(hosts).chain(vms) {
            let changes = directory.decide(&command)?;
            directory.apply(directory.revision().next(), &changes);
        }
        let customer = scenario.customer.id.clone();
        let vms: Vec<VmId> = directory.vms_of(&customer).map(|vm| vm.id.clone()).collect();
        Ok(Control {
            limits: Limits::of(&customer, &policies.resources()).with_moves(policies.moves()),
            indexes: vms.iter().cloned().zip(0..).collect(),
            places: directory.vms_of(&customer).map(|vm| vm.host.clone()).collect(),
            last: vec![None; vms.len()],
            settings: scenario.settings.clone(),
            directory,
            customer,
            policies,
            usage: UsageWindow::default(),
            looked: None,
            vms,
            stuck: BTreeSet::new(),
            stale: BTreeMap::new(),
            silent: BTreeSet::new(),
            moves: VecDeque::new(),
            decisions: Decisions::default(),
            given: History::default(),
            routed: Vec::new(),
        })
    }

    /// What a VM shall have.
    pub(super) fn desired(&self, index: usize) -> Resources {
        self.directory.vm(&self.vms[index]).map_or(Resources::NONE, |vm| vm.desired.resources)
    }

    /// The directory.
    pub(super) fn directory(&self) -> &Snapshot {
        &self.directory
    }

    pub(super) fn hosts(&self) -> Vec<HostId> {
        self.directory.hosts().map(|host| host.id.clone()).collect()
    }

    /// The VMs that a fault named so strikes; `None` if nobody has that name.
    pub(super) fn struck(&self, name: &str) -> Option<Vec<usize>> {
        if let Some(index) = self.vms.iter().position(|vm| vm.as_str() == name) {
            return Some(vec![index]);
        }
        let host = self.directory.hosts().find(|host| host.id.as_str() == name)?;
        Some((0..self.vms.len()).filter(|&vm| self.places[vm] == host.id).collect())
    }

    /// An actuator or a sensor stops working, or works again.
    pub(super) fn breaks(&mut self, vm: usize, kind: FaultKind, begins: bool) {
        match (kind, begins) {
            (FaultKind::Stuck(resource), true) => drop(self.stuck.insert((vm, resource))),
            (FaultKind::Stuck(resource), false) => drop(self.stuck.remove(&(vm, resource))),
            (FaultKind::Stale, true) => drop(self.stale.insert(vm, self.last[vm])),
            (FaultKind::Stale, false) => drop(self.stale.remove(&vm)),
            (FaultKind::Down, _) => {}
        }
    }

    /// A host is silent from now on, or speaks again.
    pub(super) fn silence(&mut self, name: &str, begins: bool) -> bool {
        let Some(host) = self.hosts().into_iter().find(|host| host.as_str() == name) else { return false };
        if begins { self.silent.insert(host) } else { self.silent.remove(&host) }
    }

    /// The directory finds that a host is silent.
    pub(super) fn host_silent(&mut self, name: &str) {
        let silent = self.silent.iter().find(|host| host.as_str() == name).cloned();
        if let Some(host) = silent {
            self.run(&Command::HostSilent(host));
        }
    }

    fn run(&mut self, command: &Command) -> bool {
        let Ok(changes) = self.directory.decide(command) else { return false };
        if !changes.is_empty() {
            self.directory.apply(self.directory.revision().next(), &changes);
        }
        true
    }

    fn on(&self, host: &HostId) -> Vec<usize> {
        (0..self.vms.len()).filter(|&vm| self.places[vm] == *host).collect()
    }

    /// A host's report of its VMs, `with_usage` each second and without it when an actuator changed.
    pub(super) fn report(&mut self, host: &HostId, servers: &mut [Server], now: Option<Nanos>) {
        if self.silent.contains(host) {
            return;
        }
        let reports = self.on(host).into_iter().map(|index| {
            let server = &mut servers[index];
            let usage = now.filter(|_| server.runs()).and_then(|now| self.sensed(index, server, now));
            if let Some(sample) = usage {
                self.usage.0.entry(self.vms[index].clone()).or_default().push(sample);
            }
            let desired = self.directory.vm(&self.vms[index]).map(|vm| vm.desired);
            let applied = desired.map(|desired| {
                let mut resources = Resources::NONE;
                // Of one that is down nothing is in force but what is kept for it.
                let has = if server.runs() { server.has() } else { desired.resources };
                desired.resources.amounts().for_each(|amount| {
                    if let Some(has) = has.get(amount.resource()) {
                        resources.set(amount.resource().amount(has));
                    }
                });
                Applied { resources, generation: desired.generation }
            });
            let state = if server.runs() { VmState::Up } else { VmState::Down };
            VmReport { vm: self.vms[index].clone(), usage: None, applied, state: Some(state), level: None }
        });
        let report = UsageReport { host: host.clone(), vms: reports.collect() };
        self.run(&Command::Report(report));
    }

    /// What a VM's sensors say.
    fn sensed(&mut self, index: usize, server: &mut Server, now: Nanos) -> Option<UsageSample> {
        let measured = server.sample(now);
        if let Some(told) = self.stale.get(&index) {
            return told.map(|told| UsageSample { at: Timestamp(now / 1000), ..told });
        }
        self.last[index] = measured.or(self.last[index]);
        measured
    }

    /// Brings the VMs of a host to what they shall have: every decrease first, then what may be raised. Whether something
    /// changed, for which the others may wait.
    pub(super) fn apply(&mut self, host: &HostId, servers: &mut [Server], now: Nanos) -> bool {
        if self.silent.contains(host) {
            return false;
        }
        let mut changed = false;
        for raise in [false, true] {
            for (index, to) in self.due(host, servers, raise) {
                servers[index].set(to, now);
                changed = true;
            }
            self.report(host, servers, None);
        }
        if changed {
            self.note_given(servers, now);
        }
        changed
    }

    /// What is to be lowered or raised, and can be.
    fn due(&self, host: &HostId, servers: &[Server], raise: bool) -> Vec<(usize, Amount)> {
        let mut due = Vec::new();
        for index in self.on(host) {
            let Some(vm) = self.directory.vm(&self.vms[index]) else { continue };
            for to in vm.desired.resources.amounts() {
                let resource = to.resource();
                let has = servers[index].has().get(resource);
                let wanted = has.is_some_and(|has| if raise { to.raw() > has } else { to.raw() < has });
                let works = !self.stuck.contains(&(index, resource));
                if wanted && works && (!raise || self.directory.may_raise(vm, resource)) {
                    due.push((index, to));
                }
            }
        }
        due
    }

    fn note_given(&mut self, servers: &[Server], now: Nanos) {
        for resource in self.policies.resources() {
            // Who is down has nothing.
            let has = |server: &Server| server.has().get(resource).filter(|_| server.runs()).unwrap_or_default();
            let amounts: Vec<u64> = servers.iter().map(has).collect();
            self.given.note(Given { at: Timestamp(now / 1000), resource, amounts });
        }
    }

    /// The allocator's decision; whether allocations shall change.
    pub(super) fn decide(&mut self, now: Nanos) -> bool {
        let now = Timestamp(now / 1000);
        let since = Timestamp(self.looked.unwrap_or(now).0.saturating_sub(OVERLAP.as_micros() as u64));
        for samples in self.usage.0.values_mut() {
            samples.retain(|sample| sample.at >= since);
        }
        self.looked = Some(now);
        self.decisions.made += 1;
        let view = View::new(&self.directory, &self.customer, &self.usage);
        let plan = self.policies.decide(&view, now);
        let Ok(checked) = check(&plan, &self.directory, &self.limits) else {
            self.decisions.refused += 1;
            return false;
        };
        if self.moves.is_empty() {
            self.moves.extend(plan.moves.iter().cloned());
        }
        if plan.actions.is_empty() {
            return false;
        }
        if !self.run(&Command::Propose(checked.proposal())) {
            self.decisions.refused += 1;
            return false;
        }
        self.decisions.accepted += 1;
        for action in &plan.actions {
            let (resource, to) = (action.change.to.resource(), action.change.to.raw());
            let increase = to.saturating_sub(action.from);
            match self.decisions.moved.iter_mut().find(|(of, _)| *of == resource) {
                Some((_, moved)) => *moved += increase,
                None => self.decisions.moved.push((resource, increase)),
            }
        }
        true
    }

    /// The memory that the VM has whose move is next.
    pub(super) fn next_move(&self, servers: &[Server]) -> Option<Bytes> {
        let next = self.moves.front()?;
        Some(servers[*self.indexes.get(&next.vm)?].has().memory.unwrap_or(Bytes::ZERO))
    }

    /// The VM whose move was next is where it shall be. Its index, if the directory took it.
    pub(super) fn moved(&mut self) -> Option<usize> {
        let Move { vm, to, .. } = self.moves.pop_front()?;
        let known = self.directory.vm(&vm)?;
        let spec = VmSpec {
            id: known.id.clone(),
            customer: known.customer.clone(),
            host: to.clone(),
            address: known.address.clone(),
            order: known.order,
            weight: known.weight,
            floor: known.floor,
            initial: known.desired.resources,
        };
        if !self.run(&Command::PutVm(spec)) {
            // What follows was planned for after this one.
            self.moves.clear();
            self.decisions.refused += 1;
            return None;
        }
        self.decisions.moves += 1;
        let index = *self.indexes.get(&vm)?;
        self.places[index] = to;
        Some(index)
    }

    /// The routing table, if the servers' states changed since it was last asked for.
    ///
    /// # Errors
    /// If there is none, for this cluster and these settings.
    pub(super) fn new_table(&mut self) -> Result<Option<Arc<Table>>, SetupError> {
        let states: Vec<VmState> = self.directory.vms_of(&self.customer).map(|vm| vm.state).collect();
        if states == self.routed {
            return Ok(None);
        }
        self.routed = states;
        let cluster = Cluster::of(&self.directory, &self.customer);
        Ok(Some(Arc::new(Table::build(&cluster, &self.settings)?)))
    }
}
