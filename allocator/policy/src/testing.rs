//! Clusters for tests.

use std::time::Duration;
use vibra_model::*;

pub(crate) fn id<T: std::str::FromStr<Err = IdError>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(crate) fn rate(amount: u64) -> Resources {
    Resources { bandwidth: Some(BytesPerSec(amount)), ..Resources::NONE }
}

/// So much of one resource, and nothing of the others.
pub(crate) fn only(resource: Resource, amount: u64) -> Resources {
    let mut only = Resources::NONE;
    only.set(resource.amount(amount));
    only
}

pub(crate) fn run(directory: &mut Snapshot, command: Command) {
    let changes = directory.decide(&command).unwrap();
    directory.apply(directory.revision().next(), &changes);
}

/// One VM of a cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed {
    pub floor: u64,
    pub initial: u64,
    /// The number of its host.
    pub host: usize,
    pub state: VmState,
}

impl Seed {
    /// A VM in service, on host 0.
    pub(crate) fn up(floor: u64, initial: u64) -> Self {
        Seed { floor, initial, host: 0, state: VmState::Up }
    }
}

/// Customer "shop" with VMs vm0, vm1, … on hosts h0, h1, … All amounts are of bandwidth.
pub(crate) fn cluster(bound: u64, capacities: &[Option<u64>], vms: &[Seed]) -> Snapshot {
    cluster_of(Resource::Bandwidth, bound, capacities, vms)
}

/// The same with amounts of another resource.
pub(crate) fn cluster_of(resource: Resource, bound: u64, capacities: &[Option<u64>], vms: &[Seed]) -> Snapshot {
    let rate = |amount| only(resource, amount);
    let mut directory = Snapshot::default();
    run(&mut directory, Command::PutCustomer(Customer { id: id("shop"), bounds: rate(bound) }));
    for (number, capacity) in capacities.iter().enumerate() {
        let capacity = capacity.map_or(Resources::NONE, rate);
        run(&mut directory, Command::PutHost(HostSpec { id: id(&format!("h{number}")), capacity }));
    }
    for (number, seed) in vms.iter().enumerate() {
        let vm = VmSpec {
            id: id(&format!("vm{number}")),
            customer: id("shop"),
            host: id(&format!("h{}", seed.host)),
            address: format!("10.0.0.{number}:80"),
            order: number as u32,
            weight: 1,
            floor: rate(seed.floor),
            initial: rate(seed.initial),
        };
        run(&mut directory, Command::PutVm(vm));
        set_state(&mut directory, &format!("vm{number}"), seed.state);
    }
    directory
}

pub(crate) fn set_state(directory: &mut Snapshot, vm: &str, state: VmState) {
    run(directory, Command::SetVmState { vm: id(vm), state });
}

/// What the VMs shall have, by id.
pub(crate) fn desired(directory: &Snapshot) -> Vec<u64> {
    directory.vms().filter_map(|vm| vm.desired(Resource::Bandwidth)).collect()
}

/// One sample a VM, at `at`; `None` is not measured.
pub(crate) fn egress(at: u64, rates: &[Option<u64>]) -> UsageWindow {
    let sample = |rate: &Option<u64>| {
        vec![UsageSample { at: Timestamp(at), egress: rate.map(BytesPerSec), ..UsageSample::default() }]
    };
    UsageWindow(rates.iter().enumerate().map(|(number, rate)| (id(&format!("vm{number}")), sample(rate))).collect())
}

/// One sample a VM, of the second that ends at `at`: the CPU used in it, in thousandths of a core.
pub(crate) fn cpu(at: u64, used: &[u64]) -> UsageWindow {
    let second = Duration::from_secs(1);
    let sample = |used: &u64| {
        let cpu_time = Some(Duration::from_millis(*used));
        vec![UsageSample { at: Timestamp(at), cpu_time, interval: Some(second), ..UsageSample::default() }]
    };
    UsageWindow(used.iter().enumerate().map(|(number, used)| (id(&format!("vm{number}")), sample(used))).collect())
}

/// Has the directory carry a plan out.
pub(crate) fn carry_out(directory: &mut Snapshot, plan: &Plan) {
    run(directory, Command::Propose(plan.proposal()));
}
