//! The directory of a simulated cluster, and the policies that look at it.

use super::{Exchange, Program};
use std::time::Duration;
use vibra_model::{
    Command, Customer, CustomerId, HostId, HostSpec, IdError, MilliCpu, Move, Resource, Resources, Snapshot, Timestamp,
    UsageReport, UsageWindow, VmId, VmSpec, VmState,
};
use vibra_policy::{Limits, Policy, View, check};

/// The least that a VM has. The text lets shares fall to 0, and does not say what its schedulers make of that.
const FLOOR: MilliCpu = MilliCpu(10);

/// The directory, with a policy for each program.
pub(super) struct Directory {
    snapshot: Snapshot,
    policies: Vec<(CustomerId, Box<dyn Policy>)>,
}

fn id<T: std::str::FromStr<Err = IdError>>(text: &str) -> T {
    text.parse().expect("letters and digits are an id")
}

fn cpu(share: MilliCpu) -> Resources {
    Resources { cpu: Some(share), ..Resources::NONE }
}

/// The id of a host. Ids sort as numbers do.
pub(super) fn host_id(host: usize) -> HostId {
    id(&format!("host{host:03}"))
}

/// The number of the host with this [id](host_id).
pub(super) fn host_number(host: &HostId) -> usize {
    host.as_str()["host".len()..].parse().expect("an id of a simulated host")
}

/// The id of the VM of a node.
pub(super) fn vm_id(program: usize, node: usize) -> VmId {
    id(&format!("p{program:03}n{node:03}"))
}

impl Directory {
    /// The directory of hosts, each with such a capacity.
    pub(super) fn new(hosts: usize, capacity: MilliCpu) -> Self {
        let mut directory = Directory { snapshot: Snapshot::default(), policies: Vec::new() };
        for host in (0..hosts).map(host_id) {
            directory.run(&Command::PutHost(HostSpec { id: host.clone(), capacity: cpu(capacity) }));
            directory.run(&Command::Report(UsageReport { host, vms: Vec::new() }));
        }
        directory
    }

    /// Registers a program, with the policy that it has, if any.
    pub(super) fn admit(&mut self, number: usize, program: &Program, exchange: Option<&Exchange<'_>>) {
        let customer: CustomerId = id(&format!("p{number:03}"));
        let bought = program.shares.iter().map(|share| share.0).sum();
        self.run(&Command::PutCustomer(Customer { id: customer.clone(), bounds: cpu(MilliCpu(bought)) }));
        for (node, (share, host)) in program.shares.iter().zip(&program.hosts).enumerate() {
            let vm = vm_id(number, node);
            self.run(&Command::PutVm(VmSpec {
                id: vm.clone(),
                customer: customer.clone(),
                host: host_id(*host),
                address: "10.0.0.1:80".to_owned(),
                order: node as u32,
                weight: 1,
                floor: cpu(FLOOR),
                initial: cpu(*share),
            }));
            self.run(&Command::SetVmState { vm, state: VmState::Up });
        }
        self.policies.extend(exchange.map(|exchange| (customer, (exchange.policy)())));
    }

    /// Removes the VMs of a program that has ended; its policy has nothing more to decide.
    pub(super) fn dismiss(&mut self, number: usize, nodes: usize) {
        for node in 0..nodes {
            self.run(&Command::RemoveVm(vm_id(number, node)));
        }
        let customer: CustomerId = id(&format!("p{number:03}"));
        self.policies.retain(|(known, _)| *known != customer);
    }

    /// Lets every policy decide in its turn, and carries out what it plans. A move of which `begins` says that it can be made
    /// now, and for which there is room, takes its place at once, so that nobody else does; those are returned.
    ///
    /// # Panics
    /// If a plan breaks a rule: policies must not.
    pub(super) fn exchange(
        &mut self,
        usage: &UsageWindow,
        now: Timestamp,
        mut begins: impl FnMut(&Move, usize) -> bool,
    ) -> Vec<Move> {
        let mut moves = Vec::new();
        let mut policies = std::mem::take(&mut self.policies);
        for (customer, policy) in &mut policies {
            let plan = policy.decide(&View::new(&self.snapshot, customer, usage), now);
            let limits = Limits::of(customer, &[Resource::Cpu]).with_moves(policy.moves());
            let checked = check(&plan, &self.snapshot, &limits);
            let checked = checked.unwrap_or_else(|faults| panic!("{} broke rules: {faults:?}", policy.name()));
            self.run(&Command::Propose(checked.proposal()));
            for step in plan.moves {
                if begins(&step, moves.len()) && self.relocate(&step.vm, &step.to) {
                    moves.push(step);
                }
            }
        }
        self.policies = policies;
        moves
    }

    /// What a VM shall have.
    pub(super) fn share(&self, vm: &VmId) -> Option<u64> {
        self.snapshot.vm(vm)?.desired(Resource::Cpu)
    }

    /// Puts a VM on another host. `false` if there is no room for its share.
    fn relocate(&mut self, vm: &VmId, host: &HostId) -> bool {
        let Some(vm) = self.snapshot.vm(vm) else { return false };
        let command = Command::PutVm(VmSpec {
            id: vm.id.clone(),
            customer: vm.customer.clone(),
            host: host.clone(),
            address: vm.address.clone(),
            order: vm.order,
            weight: vm.weight,
            floor: vm.floor,
            initial: vm.desired.resources,
        });
        match self.snapshot.decide(&command) {
            Ok(changes) => {
                self.snapshot.apply(self.snapshot.revision().next(), &changes);
                true
            }
            Err(_) => false,
        }
    }

    fn run(&mut self, command: &Command) {
        let changes = self.snapshot.decide(command).unwrap_or_else(|rejection| panic!("{command:?}: {rejection}"));
        if !changes.is_empty() {
            self.snapshot.apply(self.snapshot.revision().next(), &changes);
        }
    }
}

/// Whole microseconds.
pub(super) fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}
