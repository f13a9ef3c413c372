//! The best that could have been done, by one who knows what will be wanted.

use super::Guest;
use std::collections::BTreeMap;
use vibra_model::{HostId, HostSpec, Resource, VmId};

/// The part of the demand for a resource that stays unmet at best.
#[derive(Debug, Clone, PartialEq)]
pub struct Hindsight {
    /// Unmet over wanted.
    pub unmet: f64,
    /// The shares, where they are the same all the time.
    pub shares: BTreeMap<VmId, f64>,
}

/// The best shares that are never changed, for VMs that are never moved: together within `bound`, and on each host within
/// what it has. What is met, summed over time, is concave in each VM's share, and grows with it by the number of
/// intervals in which the VM wants more; so the best shares have one such number for all, but where a host is full.
pub fn best_fixed(guests: &[Guest], hosts: &[HostSpec], resource: Resource, bound: f64, intervals: usize) -> Hindsight {
    let mut sorted: Vec<Vec<f64>> = Vec::new();
    for guest in guests {
        let mut wants: Vec<f64> = (0..intervals).map(|interval| guest.at(interval).of(resource)).collect();
        wants.sort_by(f64::total_cmp);
        sorted.push(wants);
    }
    // The share at which a VM wants more in `exceeded` of the intervals.
    let share =
        |vm: usize, exceeded: usize| if exceeded >= intervals { 0.0 } else { sorted[vm][intervals - 1 - exceeded] };
    let by_host = grouped(guests, hosts, resource);
    // A full host has a number of its own, the least for which its VMs fit.
    let fitting = |vms: &[usize], room: f64, least: usize| {
        (least..=intervals).find(|&exceeded| vms.iter().map(|&vm| share(vm, exceeded)).sum::<f64>() <= room)
    };
    let shares = |exceeded: usize| {
        let mut shares = vec![0.0; guests.len()];
        for (vms, capacity) in &by_host {
            let own = capacity.map_or(exceeded, |room| fitting(vms, room, exceeded).unwrap_or(intervals));
            vms.iter().for_each(|&vm| shares[vm] = share(vm, own));
        }
        shares
    };
    // The sum falls as the number grows.
    let (mut low, mut high) = (0, intervals);
    while low < high {
        let middle = (low + high) / 2;
        if shares(middle).iter().sum::<f64>() <= bound { high = middle } else { low = middle + 1 }
    }
    let (less, more) = (shares(low), shares(low.saturating_sub(1)));
    // Between two neighbouring numbers every unit is worth the same.
    let (sum, larger) = (less.iter().sum::<f64>(), more.iter().sum::<f64>());
    let part = if larger > sum { ((bound - sum) / (larger - sum)).clamp(0.0, 1.0) } else { 0.0 };
    let shares: Vec<f64> = less.iter().zip(&more).map(|(less, more)| less + part * (more - less)).collect();
    let total: f64 = sorted.iter().flatten().sum();
    let met: f64 =
        sorted.iter().zip(&shares).map(|(wants, share)| wants.iter().map(|w| w.min(*share)).sum::<f64>()).sum();
    let unmet = if total > 0.0 { 1.0 - met / total } else { 0.0 };
    Hindsight { unmet, shares: guests.iter().map(|guest| guest.spec.id.clone()).zip(shares).collect() }
}

/// The best of all: shares that are divided anew in each interval, knowing what will be wanted in it, for VMs that are never
/// moved.
pub fn best_of_all(
    guests: &[Guest],
    hosts: &[HostSpec],
    resource: Resource,
    bound: f64,
    intervals: usize,
) -> Hindsight {
    let by_host = grouped(guests, hosts, resource);
    let (mut total, mut met) = (0.0, 0.0);
    for interval in 0..intervals {
        let mut here = 0.0;
        for (vms, capacity) in &by_host {
            let wanted: f64 = vms.iter().map(|&vm| guests[vm].at(interval).of(resource)).sum();
            total += wanted;
            here += capacity.map_or(wanted, |room| wanted.min(room));
        }
        met += f64::min(here, bound);
    }
    Hindsight { unmet: if total > 0.0 { 1.0 - met / total } else { 0.0 }, shares: BTreeMap::new() }
}

/// The VMs on each host, with what it has.
fn grouped(guests: &[Guest], hosts: &[HostSpec], resource: Resource) -> Vec<(Vec<usize>, Option<f64>)> {
    let mut vms: BTreeMap<&HostId, Vec<usize>> = BTreeMap::new();
    guests.iter().enumerate().for_each(|(vm, guest)| vms.entry(&guest.spec.host).or_default().push(vm));
    let capacity = |host: &HostId| hosts.iter().find(|spec| spec.id == *host)?.capacity.get(resource);
    vms.into_iter().map(|(host, vms)| (vms, capacity(host).map(|capacity| capacity as f64))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::Demand;
    use vibra_model::{MilliCpu, Resources, VmSpec};

    fn guest(name: &str, host: &str, cpu: &[f64]) -> Guest {
        let spec = VmSpec {
            id: name.parse().unwrap(),
            customer: "shop".parse().unwrap(),
            host: host.parse().unwrap(),
            address: "10.0.0.1:80".into(),
            order: 0,
            weight: 1,
            floor: Resources::NONE,
            initial: Resources::NONE,
        };
        Guest { spec, demand: cpu.iter().map(|&cpu| Demand { cpu, ..Demand::default() }).collect() }
    }

    fn hosts(cpu: u64) -> Vec<HostSpec> {
        let capacity = Resources { cpu: Some(MilliCpu(cpu)), ..Resources::NONE };
        ["a", "b"].map(|id| HostSpec { id: id.parse().unwrap(), capacity }).into()
    }

    #[test]
    fn who_knows_the_future_gives_each_what_it_wants_when_it_wants_it() {
        let guests = [guest("x", "a", &[10.0, 0.0]), guest("y", "b", &[0.0, 10.0])];
        assert_eq!(best_of_all(&guests, &hosts(100), Resource::Cpu, 10.0, 2).unmet, 0.0);
        assert_eq!(best_of_all(&guests, &hosts(5), Resource::Cpu, 10.0, 2).unmet, 0.5);
        assert_eq!(best_fixed(&guests, &hosts(100), Resource::Cpu, 20.0, 2).unmet, 0.0);
    }

    #[test]
    fn fixed_shares_go_to_those_who_want_them_most_often() {
        let guests = [guest("x", "a", &[10.0, 10.0, 10.0, 10.0]), guest("y", "b", &[9.0, 1.0, 1.0, 1.0])];
        let best = best_fixed(&guests, &hosts(100), Resource::Cpu, 12.0, 4);
        // A twelfth unit helps y once.
        assert_eq!(best.shares.values().copied().collect::<Vec<_>>(), [10.0, 2.0]);
        assert!((best.unmet - 7.0 / 52.0).abs() < 1e-12);
    }
}
