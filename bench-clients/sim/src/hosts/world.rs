//! The run of a world of hosts.

use super::{Demand, Guest, Moved, Outcome, supply::divided};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use vibra_model::{
    Bytes, BytesPerSec, Command, Customer, CustomerId, HostId, HostSpec, Move, Plan, Rejection, Resource, Snapshot,
    Timestamp, UsageReport, UsageSample, UsageWindow, Vm, VmId, VmSpec, VmState,
};
use vibra_policy::{Composition, Limits, View, check};

/// What holds for all of a world.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The length of an interval.
    pub interval: Duration,
    /// How fast a VM's memory is copied to another host.
    pub copy_rate: BytesPerSec,
    /// Which part of its CPU a host spends on copying a VM away, for as long as it does.
    pub copy_cpu: f64,
}

impl Default for Settings {
    /// Intervals of 10 s; 20 MiB/s: Figure 5.5's VM of 256 MB takes 14 s. The part of the CPU is an assumption: the paper
    /// only shows that it rises.
    fn default() -> Self {
        Settings { interval: Duration::from_secs(10), copy_rate: BytesPerSec(20 << 20), copy_cpu: 0.2 }
    }
}

/// A customer's VMs on hosts.
#[derive(Debug, Clone)]
pub struct World {
    settings: Settings,
    customer: CustomerId,
    directory: Snapshot,
    guests: BTreeMap<VmId, Guest>,
    moves: Moves,
}

/// The moves that are to be carried out.
#[derive(Debug, Clone, Default)]
struct Moves {
    queue: VecDeque<Move>,
    /// The interval in which the first of them began and the one with which it is done.
    under_way: Option<(usize, usize)>,
}

impl World {
    /// A world in which all hosts and VMs are up.
    ///
    /// # Errors
    /// The directory's [`Rejection`], if bounds, capacities and shares do not fit.
    pub fn new(
        customer: Customer,
        hosts: &[HostSpec],
        guests: &[Guest],
        settings: Settings,
    ) -> Result<Self, Rejection> {
        let (id, all) = (customer.id.clone(), guests.iter().map(|guest| (guest.spec.id.clone(), guest.clone())));
        let (guests_by_id, directory, moves) = (all.collect(), Snapshot::default(), Moves::default());
        let mut world = World { settings, customer: id, directory, guests: guests_by_id, moves };
        world.order(&Command::PutCustomer(customer))?;
        for host in hosts {
            world.order(&Command::PutHost(host.clone()))?;
            world.order(&Command::Report(UsageReport { host: host.id.clone(), vms: Vec::new() }))?;
        }
        for guest in guests {
            world.order(&Command::PutVm(guest.spec.clone()))?;
            world.order(&Command::SetVmState { vm: guest.spec.id.clone(), state: VmState::Up })?;
        }
        Ok(world)
    }

    /// The directory as it is now.
    pub fn directory(&self) -> &Snapshot {
        &self.directory
    }

    fn order(&mut self, command: &Command) -> Result<(), Rejection> {
        let changes = self.directory.decide(command)?;
        self.directory.apply(self.directory.revision().next(), &changes);
        Ok(())
    }

    /// Goes through `intervals` under `policies`.
    pub fn run(&mut self, policies: &mut Composition, intervals: usize) -> Outcome {
        let hosts = self.directory.hosts().map(|host| host.id.clone()).collect();
        let mut outcome = Outcome { hosts, ..Outcome::default() };
        let limits = Limits::of(&self.customer, &policies.resources()).with_moves(policies.moves());
        let mut directions = BTreeMap::new();
        for interval in 0..intervals {
            let usage = self.pass(interval, &mut outcome);
            self.move_on(interval, &mut outcome);
            let (customer, now) = (self.customer.clone(), self.end_of(interval));
            let plan = policies.decide(&View::new(&self.directory, &customer, &usage), now);
            match check(&plan, &self.directory, &limits) {
                Ok(_) => self.carry_out(interval, plan, &mut directions, &mut outcome),
                Err(faults) => outcome.violations.extend(faults.iter().map(ToString::to_string)),
            }
            self.inspect(&mut outcome);
        }
        outcome
    }

    fn end_of(&self, interval: usize) -> Timestamp {
        Timestamp::ZERO.after(self.settings.interval * (interval as u32 + 1))
    }

    /// Lets an interval pass; returns what was measured in it.
    fn pass(&self, interval: usize, outcome: &mut Outcome) -> UsageWindow {
        let mut window = UsageWindow::default();
        let (mut utilisation, mut wanted) = (Vec::new(), Vec::new());
        for host in self.directory.hosts() {
            let vms: Vec<&Vm> = self.directory.vms_on(&host.id).collect();
            let demands: Vec<Demand> = vms.iter().map(|vm| self.guests[&vm.id].at(interval)).collect();
            let copying = if self.copies_from(&host.id) { self.settings.copy_cpu } else { 0.0 };
            let (mut used, mut full) = ([0.0; 2], [0.0; 2]);
            let mut got = vec![Demand::default(); vms.len()];
            for (r, resource) in [Resource::Cpu, Resource::Bandwidth].into_iter().enumerate() {
                let capacity = host.capacity.get(resource).map(|capacity| capacity as f64);
                let overhead = if resource == Resource::Cpu { copying } else { 0.0 };
                let wants = vms.iter().zip(&demands);
                let wants: Vec<_> =
                    wants.map(|(vm, d)| (d.of(resource), vm.desired(resource).map(|share| share as f64))).collect();
                let shares = divided(capacity.map(|capacity| capacity * (1.0 - overhead)), &wants);
                if let Some(capacity) = capacity.filter(|capacity| *capacity > 0.0) {
                    used[r] = shares.iter().sum::<f64>() / capacity + overhead;
                    full[r] = wants.iter().map(|want| want.0).sum::<f64>() / capacity;
                }
                got.iter_mut().zip(shares).for_each(|(got, share)| got.set(resource, share));
            }
            for ((vm, demand), got) in vms.iter().zip(demands).zip(&mut got) {
                let share = vm.desired(Resource::Memory).map(|share| share as f64);
                got.memory = share.map_or(demand.memory, |share| share.min(demand.memory));
                for resource in Resource::ALL {
                    let service = outcome.service.entry(resource).or_default().vms.entry(vm.id.clone()).or_default();
                    service.0 += demand.of(resource);
                    service.1 += got.of(resource);
                }
                window.0.insert(vm.id.clone(), vec![self.measured(vm, demand, got, interval)]);
            }
            utilisation.push(used);
            wanted.push(full);
        }
        outcome.utilisation.push(utilisation);
        outcome.wanted.push(wanted);
        window
    }

    /// What an agent would have measured: CPU as it was used; egress before the shaper, so the demand, where there is
    /// one, and what went out otherwise; what memory was missing, as swapped once.
    fn measured(&self, vm: &Vm, demand: Demand, got: &Demand, interval: usize) -> UsageSample {
        let seconds = self.settings.interval.as_secs_f64();
        let shaped = vm.desired(Resource::Bandwidth).is_some();
        let egress = if shaped { demand.bandwidth } else { got.bandwidth };
        let mut sample = UsageSample {
            at: self.end_of(interval),
            interval: Some(self.settings.interval),
            egress: Some(BytesPerSec(egress as u64)),
            cpu_time: Some(Duration::from_secs_f64(got.cpu / 1000.0 * seconds)),
            memory_in_use: Some(Bytes(got.memory as u64)),
            swapped: Some(Bytes((demand.memory - got.memory) as u64)),
            ..UsageSample::default()
        };
        if let Some(requests) = demand.requests.filter(|requests| *requests > 0.0) {
            // A request's work in thousandths of a core times seconds, and how fast the VM can work at most.
            let work = demand.cpu / requests;
            let host = self.directory.host(&vm.host);
            let most = vm.desired(Resource::Cpu).or_else(|| host?.capacity.get(Resource::Cpu));
            let served = got.cpu / work;
            sample.requests = Some((served * seconds) as u64);
            sample.drops = Some(((requests - served) * seconds) as u64);
            sample.service_time = most.map(|most| Duration::from_secs_f64(work / most as f64));
        }
        sample
    }

    fn copies_from(&self, host: &HostId) -> bool {
        self.moves.under_way.is_some() && self.moves.queue.front().is_some_and(|step| step.from == *host)
    }

    /// Ends the move that is due, and begins the next.
    fn move_on(&mut self, interval: usize, outcome: &mut Outcome) {
        if let Some((began, _)) = self.moves.under_way.filter(|(_, done)| *done <= interval) {
            self.moves.under_way = None;
            if let Some(step) = self.moves.queue.pop_front() {
                match self.place(&step) {
                    Ok(()) => {
                        outcome.moves.push(Moved { began, done: interval, vm: step.vm, from: step.from, to: step.to });
                    }
                    // What was to follow had counted on it.
                    Err(_) => {
                        outcome.failed_moves += 1 + self.moves.queue.len() as u64;
                        self.moves.queue.clear();
                    }
                }
            }
        }
        self.begin(interval);
    }

    /// Begins the first move in the queue after `interval`, unless one is under way.
    fn begin(&mut self, interval: usize) {
        if self.moves.under_way.is_some() {
            return;
        }
        if let Some(step) = self.moves.queue.front() {
            let share = self.directory.vm(&step.vm).and_then(|vm| vm.desired(Resource::Memory));
            let size = share.map_or_else(|| self.guests[&step.vm].at(interval).memory, |share| share as f64);
            let seconds = size / self.settings.copy_rate.0.max(1) as f64;
            let intervals = (seconds / self.settings.interval.as_secs_f64()).ceil().max(1.0);
            self.moves.under_way = Some((interval + 1, interval + intervals as usize));
        }
    }

    fn place(&mut self, step: &Move) -> Result<(), Rejection> {
        let Some(vm) = self.directory.vm(&step.vm).filter(|vm| vm.host == step.from) else { return Ok(()) };
        let moved = VmSpec {
            id: vm.id.clone(),
            customer: vm.customer.clone(),
            host: step.to.clone(),
            address: vm.address.clone(),
            order: vm.order,
            weight: vm.weight,
            floor: vm.floor,
            initial: vm.desired.resources,
        };
        self.order(&Command::PutVm(moved))
    }

    fn carry_out(
        &mut self,
        interval: usize,
        plan: Plan,
        directions: &mut BTreeMap<(VmId, Resource), bool>,
        outcome: &mut Outcome,
    ) {
        for action in &plan.actions {
            let (resource, up) = (action.change.to.resource(), action.change.to.raw() > action.from);
            let last = directions.insert((action.change.vm.clone(), resource), up);
            let service = outcome.service.entry(resource).or_default();
            service.changes += 1;
            service.reversals += u64::from(last.is_some_and(|last| last != up));
        }
        if let Err(rejection) = self.order(&Command::Propose(plan.proposal())) {
            outcome.violations.push(rejection.to_string());
        }
        if !plan.moves.is_empty() {
            outcome.planned.push(interval);
            self.moves.queue.extend(plan.moves);
            self.begin(interval);
        }
    }

    /// Looks for bounds, capacities and floors that are broken.
    fn inspect(&self, outcome: &mut Outcome) {
        for resource in Resource::ALL {
            let sum = |vms: &mut dyn Iterator<Item = &Vm>| vms.filter_map(|vm| vm.desired(resource)).sum::<u64>();
            let given = sum(&mut self.directory.vms_of(&self.customer));
            let bound = self.directory.customer(&self.customer).and_then(|customer| customer.bounds.get(resource));
            if bound.is_some_and(|bound| given > bound) {
                outcome.violations.push(format!("{given} of {resource} are given away, more than was bought"));
            }
            for host in self.directory.hosts() {
                let given = sum(&mut self.directory.vms_on(&host.id));
                if host.capacity.get(resource).is_some_and(|capacity| given > capacity) {
                    outcome.violations.push(format!("{given} of {resource} on host {}, more than it has", host.id));
                }
            }
        }
        let below = |vm: &&Vm| {
            let low =
                |r: Resource| vm.desired(r).is_some_and(|share| vm.floor.get(r).is_some_and(|floor| share < floor));
            Resource::ALL.into_iter().any(low)
        };
        let below = self.directory.vms().filter(below);
        outcome.violations.extend(below.map(|vm| format!("VM {} is below its floor", vm.id)));
    }
}

impl Demand {
    /// How much of `resource`, in its base unit.
    pub fn of(&self, resource: Resource) -> f64 {
        match resource {
            Resource::Cpu => self.cpu,
            Resource::Bandwidth => self.bandwidth,
            Resource::Memory => self.memory,
        }
    }

    /// The same with another amount of `resource`.
    pub(super) fn set(&mut self, resource: Resource, amount: f64) {
        match resource {
            Resource::Cpu => self.cpu = amount,
            Resource::Bandwidth => self.bandwidth = amount,
            Resource::Memory => self.memory = amount,
        }
    }
}
