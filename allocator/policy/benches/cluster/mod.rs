//! The clusters that decisions are timed on: one customer, `shop`, and all hosts have limits.

use std::str::FromStr;
use vibra_model::*;

pub(crate) fn id<T: FromStr<Err = IdError>>(text: String) -> T {
    text.parse().expect("an id")
}

/// A customer who has bought `bounds`, hosts of these `capacities`, and `vms`: what each has, and its floor. Neighbours in
/// the order of ids are not neighbours on a host.
pub(crate) fn directory(bounds: Resources, capacities: Vec<Resources>, vms: Vec<(Resources, Resources)>) -> Snapshot {
    let hosts = capacities.len();
    let host = |(number, capacity)| {
        Change::Host(Host { id: id(format!("host{number}")), capacity, state: HostState::Up, pool: None })
    };
    let vm = |(number, (resources, floor)): (usize, (Resources, Resources))| {
        Change::Vm(Vm {
            id: id(format!("vm{number}")),
            customer: id("shop".into()),
            host: id(format!("host{}", number % hosts)),
            address: "10.0.0.1:80".into(),
            order: number as u32,
            weight: 1,
            state: VmState::Up,
            floor,
            desired: Allocation { resources, generation: Generation(1) },
            applied: None,
            held: resources,
            level: None,
            moving: None,
        })
    };
    let shop = Change::Customer(Customer { id: id("shop".into()), bounds });
    let hosts = capacities.into_iter().enumerate().map(host);
    let changes: Vec<_> = std::iter::once(shop).chain(hosts).chain(vms.into_iter().enumerate().map(vm)).collect();
    let mut snapshot = Snapshot::default();
    snapshot.apply(Revision(1), &changes);
    snapshot
}
