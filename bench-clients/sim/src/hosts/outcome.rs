//! What came of a run.

use std::collections::BTreeMap;
use vibra_model::{HostId, Resource, VmId};

/// A move that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// In which interval it began.
    pub began: usize,
    /// With which the VM is at its destination.
    pub done: usize,
    /// Which VM.
    pub vm: VmId,
    /// From where.
    pub from: HostId,
    /// Where to.
    pub to: HostId,
}

/// What VMs wanted of a resource, and got of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Service {
    /// By VM: wanted and got, each summed over the intervals, in the resource's base unit.
    pub vms: BTreeMap<VmId, (f64, f64)>,
    /// How often a share changed.
    pub changes: u64,
    /// How often a share changed the other way than the VM's time before.
    pub reversals: u64,
}

impl Service {
    /// The part of what was wanted that was not got; `None` if nothing was wanted.
    pub fn unmet(&self) -> Option<f64> {
        let (wanted, got) = self.vms.values().fold((0.0, 0.0), |sum, vm| (sum.0 + vm.0, sum.1 + vm.1));
        (wanted > 0.0).then(|| 1.0 - got / wanted)
    }

    /// Jain's index of the parts of their demands that VMs got: 1 if all got the same part.
    pub fn fairness(&self) -> Option<f64> {
        let parts: Vec<f64> = self.vms.values().filter(|vm| vm.0 > 0.0).map(|vm| vm.1 / vm.0).collect();
        let (sum, squares) = parts.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
        (squares > 0.0).then(|| sum * sum / (parts.len() as f64 * squares))
    }
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// The hosts, in the order of `utilisation`.
    pub hosts: Vec<HostId>,
    /// By interval and host: the utilisations of CPU and bandwidth, what moving takes included. 0 where a host has no
    /// limit.
    pub utilisation: Vec<Vec<[f64; 2]>>,
    /// By interval and host: what its VMs wanted of CPU and bandwidth, as a share of what it has.
    pub wanted: Vec<Vec<[f64; 2]>>,
    /// The moves, in their order.
    pub moves: Vec<Moved>,
    /// Moves that were planned and could not be carried out.
    pub failed_moves: u64,
    /// By resource: what VMs wanted and got.
    pub service: BTreeMap<Resource, Service>,
    /// Every fault of a plan, every refusal of the directory, and every bound, floor or capacity found broken.
    pub violations: Vec<String>,
    /// When each plan with moves was made.
    pub planned: Vec<usize>,
}

impl Outcome {
    /// The number of hosts that are in sustained overload, by interval: above `threshold` of CPU or bandwidth in this
    /// interval and in at least `k` of the last `n`.
    pub fn overloaded(&self, threshold: f64, (k, n): (usize, usize)) -> Vec<usize> {
        let above = |interval: usize, host: usize| self.utilisation[interval][host].iter().any(|u| *u > threshold);
        let sustained = |interval: usize, host: usize| {
            let recent = (interval + 1).saturating_sub(n)..=interval;
            above(interval, host) && recent.filter(|&interval| above(interval, host)).count() >= k
        };
        let count = |interval| (0..self.hosts.len()).filter(|&host| sustained(interval, host)).count();
        (0..self.utilisation.len()).map(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spike_is_no_sustained_overload() {
        let high = [0.8, 0.1];
        let series = [high, [0.1, 0.1], high, high, [0.1, 0.9], [0.1, 0.1]];
        let outcome = Outcome {
            hosts: vec!["a".parse().unwrap()],
            utilisation: series.iter().map(|u| vec![*u]).collect(),
            ..Outcome::default()
        };
        assert_eq!(outcome.overloaded(0.75, (3, 5)), [0, 0, 0, 1, 1, 0]);
    }

    #[test]
    fn fairness_is_of_the_parts_that_were_got() {
        let service = |vms: [(f64, f64); 2]| Service {
            vms: vms.into_iter().enumerate().map(|(i, vm)| (format!("vm{i}").parse().unwrap(), vm)).collect(),
            ..Service::default()
        };
        assert_eq!(service([(10.0, 5.0), (2.0, 1.0)]).fairness(), Some(1.0));
        assert_eq!(service([(10.0, 10.0), (10.0, 0.0)]).fairness(), Some(0.5));
        assert_eq!(service([(10.0, 10.0), (10.0, 5.0)]).unmet(), Some(0.25));
        assert_eq!(service([(0.0, 0.0), (0.0, 0.0)]).unmet(), None);
    }
}
