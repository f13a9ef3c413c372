//! A cluster in a fake directory.

use std::time::Duration;
use vibra_client::FakeDirectory;
use vibra_model::*;
use vibra_policy::{Composition, Policies, Policy};

pub(crate) fn id<T: std::str::FromStr<Err = IdError>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(crate) fn rate(amount: u64) -> Resources {
    Resources { bandwidth: Some(BytesPerSec(amount)), ..Resources::NONE }
}

/// Customer "shop" with a bound of 1000 and VMs hot and cold on host h, 500 each, with a floor of 10.
pub(crate) fn directory() -> FakeDirectory {
    let directory = FakeDirectory::new();
    directory.run(Command::PutCustomer(Customer { id: id("shop"), bounds: rate(1000) })).unwrap();
    directory.run(Command::PutHost(HostSpec { id: id("h"), capacity: Resources::NONE })).unwrap();
    for (order, name) in ["hot", "cold"].iter().enumerate() {
        let vm = VmSpec {
            id: id(name),
            customer: id("shop"),
            host: id("h"),
            address: "10.0.0.1:80".into(),
            order: order as u32,
            weight: 1,
            floor: rate(10),
            initial: rate(500),
        };
        directory.run(Command::PutVm(vm)).unwrap();
    }
    directory
}

/// The host's report of what the VMs send at `at`.
pub(crate) fn report(at: Timestamp, rates: &[(&str, u64)]) -> UsageReport {
    let told = |&(vm, rate): &(&str, u64)| VmReport {
        vm: id(vm),
        usage: Some(UsageSample { at, egress: Some(BytesPerSec(rate)), ..UsageSample::default() }),
        applied: None,
        state: Some(VmState::Up),
        level: None,
    };
    UsageReport { host: id("h"), vms: rates.iter().map(told).collect() }
}

pub(crate) fn desired(snapshot: &Snapshot, vm: &str) -> u64 {
    snapshot.vm(&id(vm)).unwrap().desired(Resource::Bandwidth).unwrap()
}

pub(crate) fn proportional_policy() -> Box<dyn Policy> {
    Policies::shipped().build("proportional", Resource::Bandwidth, serde_json::json!({})).unwrap()
}

pub(crate) fn proportional() -> Composition {
    Composition::new(vec![proportional_policy()]).unwrap()
}

/// What the VMs sent, as a window.
pub(crate) fn usage(at: u64, rates: &[(&str, u64)]) -> UsageWindow {
    let samples = report(Timestamp(at), rates).vms.into_iter().map(|told| (told.vm, told.usage.into_iter().collect()));
    UsageWindow(samples.collect())
}

/// A policy that does what it is given to do.
pub(crate) struct Scripted<F>(pub F);

impl<F: FnMut(&vibra_policy::View<'_>) -> Plan + Send> Policy for Scripted<F> {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn resource(&self) -> Resource {
        Resource::Bandwidth
    }

    fn decide(&mut self, view: &vibra_policy::View<'_>, _now: Timestamp) -> Plan {
        (self.0)(view)
    }
}

pub(crate) fn scripted(decide: impl FnMut(&vibra_policy::View<'_>) -> Plan + Send + 'static) -> Composition {
    Composition::new(vec![Box::new(Scripted(decide))]).unwrap()
}

/// A plan that changes one VM's bandwidth from 500.
pub(crate) fn single(base: Revision, vm: &str, to: u64) -> Plan {
    let change = AllocationChange { vm: id(vm), to: Resource::Bandwidth.amount(to) };
    let action = Action { change, from: 500, reason: Reason::new("test") };
    Plan { base, actions: vec![action], ..Plan::default() }
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);
