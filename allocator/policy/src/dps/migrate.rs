//! The cluster manager: relief for full hosts (section 5.2.2).

use super::{
    meter::mean,
    peers::{Peer, Peers},
};
use crate::{View, demand::demand};
use std::collections::BTreeMap;
use vibra_model::{Host, HostId, HostState, Move, Reason, Resource, Vm};

/// What is used to this part is fully used: what is measured never quite reaches the whole.
const FULLY_USED: f64 = 0.95;

/// How much of a host with a limit is used.
struct Load<'a> {
    host: &'a Host,
    used: f64,
    capacity: f64,
}

impl Load<'_> {
    fn utilisation(&self) -> f64 {
        self.used / self.capacity
    }

    fn with(&self, more: f64) -> f64 {
        (self.used + more) / self.capacity
    }
}

/// Sends the least used VM of the most used bottleneck to the least used host that can take it, if any is then used less
/// than the bottleneck is now: otherwise the VM would soon come back. One move a decision; the next one sees what came
/// of it.
///
/// A bottleneck is a host that refused a share, and one that is [fully used](FULLY_USED) while a VM there uses all it has.
pub(super) fn relieve(view: &View<'_>, peers: &mut Peers<'_>, resource: Resource) {
    let in_need = |peer: &&Peer<'_>| peer.refused > 0 || peer.used as f64 >= FULLY_USED * peer.had as f64;
    let needy: BTreeMap<&HostId, bool> = peers.peers.iter().filter(in_need).fold(BTreeMap::new(), |mut needy, peer| {
        *needy.entry(&peer.vm.host).or_default() |= peer.refused > 0;
        needy
    });
    if needy.is_empty() {
        return;
    }
    let mut loads = loads(view, peers, resource);
    loads.sort_by(|a, b| a.utilisation().total_cmp(&b.utilisation()).then_with(|| a.host.id.cmp(&b.host.id)));
    let is_bottleneck =
        |load: &&Load<'_>| needy.get(&load.host.id).is_some_and(|refused| *refused || load.utilisation() >= FULLY_USED);
    let mut bottlenecks = loads.iter().rev().filter(is_bottleneck);
    let relief = bottlenecks.find_map(|bottleneck| {
        let own = (0..).zip(&peers.peers).filter(|(_, peer)| peer.vm.host == bottleneck.host.id);
        let (number, least) = own.min_by_key(|(_, peer)| peer.used)?;
        let to = loads.iter().find(|load| {
            load.host.id != bottleneck.host.id
                && load.with(least.used as f64) < bottleneck.utilisation()
                && fits(view, peers, least, (load.host, resource))
        })?;
        let reason = Reason::new("least used VM of a full host to the least used host")
            .with("used", least.used as f64)
            .with("host_utilisation", bottleneck.utilisation())
            .with("other_utilisation", to.utilisation());
        let (vm, from, to) = (least.vm.id.clone(), bottleneck.host.id.clone(), to.host.id.clone());
        Some((number, Move { vm, from, to, reason }))
    });
    if let Some((number, step)) = relief {
        let to = view.number_of(&step.to);
        peers.send_away(number, step, to);
    }
}

/// The loads of all hosts that are up and have a limit. A VM that takes no part counts with the mean of its samples, or
/// else with what it has.
fn loads<'a>(view: &View<'a>, peers: &Peers<'_>, resource: Resource) -> Vec<Load<'a>> {
    let snapshot = view.snapshot();
    let mut used: BTreeMap<&HostId, f64> = BTreeMap::new();
    let mut taking_part = peers.peers.iter().peekable();
    for vm in snapshot.vms() {
        let peer = taking_part.next_if(|peer| peer.vm.id == vm.id);
        let measured = || mean(view.usage().samples(&vm.id).iter().filter_map(|sample| demand(resource, sample)));
        let has = || vm.desired(resource).unwrap_or(0) as f64;
        let load = peer.map_or_else(|| measured().unwrap_or_else(has), |peer| peer.used as f64);
        *used.entry(&vm.host).or_default() += load;
    }
    let hosts = snapshot.hosts().filter(|host| host.state == HostState::Up);
    let load = |host: &'a Host| {
        let capacity = host.capacity.get(resource).filter(|capacity| *capacity > 0)?;
        Some(Load { host, used: used.get(&host.id).copied().unwrap_or(0.0), capacity: capacity as f64 })
    };
    hosts.filter_map(load).collect()
}

/// Whether `host` has room for all that the VM has, in whatever resource, once the exchange is done. Of other resources VMs
/// count with the larger of what they have and what their policies have planned, of which the guard may leave things out.
fn fits(view: &View<'_>, peers: &Peers<'_>, moved: &Peer<'_>, (host, resource): (&Host, Resource)) -> bool {
    Resource::ALL.into_iter().all(|kind| {
        let Some(capacity) = host.capacity.get(kind) else { return true };
        let share = |vm: &Vm| match peers.number(&vm.id).filter(|_| kind == resource) {
            Some(number) => peers.peers[number].share,
            None => vm.desired(kind).max(view.share(vm, kind)).unwrap_or(0),
        };
        let taken = view.snapshot().vms_on(&host.id).map(share).fold(0, u64::saturating_add);
        taken.saturating_add(share(moved.vm)) <= capacity
    })
}
