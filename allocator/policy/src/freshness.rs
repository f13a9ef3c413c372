//! How old what is known of VMs is.

use crate::View;
use std::collections::BTreeMap;
use vibra_model::{Timestamp, VmId};

/// When each VM of a customer was last heard of.
///
/// Hosts' clocks differ from the allocator's and from one another. So only the time of seeing tells how old the
/// knowledge is, and only samples of one VM can be told older and newer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freshness {
    vms: BTreeMap<VmId, Seen>,
    heard: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// The newest sample, by its host's clock.
    newest: Timestamp,
    /// When that was first seen.
    heard: Timestamp,
    samples: u64,
}

impl Freshness {
    /// Notes which samples of the view are new at `now`, and forgets VMs that are gone.
    pub fn take_in(&mut self, view: &View<'_>, now: Timestamp) {
        let own = |vm: &VmId| view.snapshot().vm(vm).is_some_and(|vm| vm.customer == *view.customer());
        self.vms.retain(|vm, _| own(vm));
        for (vm, samples) in view.usage().0.iter().filter(|(vm, _)| own(vm)) {
            let known = self.vms.get(vm).copied();
            let new = samples.iter().map(|sample| sample.at).filter(|at| known.is_none_or(|known| known.newest < *at));
            let (count, newest) = new.fold((0, None), |(count, newest), at| (count + 1, newest.max(Some(at))));
            let Some(newest) = newest else { continue };
            let samples = known.map_or(0, |known| known.samples) + count;
            self.vms.insert(vm.clone(), Seen { newest, heard: now, samples });
            self.heard = Some(now);
        }
    }

    /// When any VM was last heard of.
    pub fn heard(&self) -> Option<Timestamp> {
        self.heard
    }

    /// When `vm` was last heard of; `None` if it never was.
    pub fn heard_of(&self, vm: &VmId) -> Option<Timestamp> {
        Some(self.vms.get(vm)?.heard)
    }

    /// How many samples of `vm` were seen.
    pub fn samples_of(&self, vm: &VmId) -> u64 {
        self.vms.get(vm).map_or(0, |seen| seen.samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;
    use vibra_model::UsageWindow;

    #[test]
    fn a_sample_counts_when_it_is_first_seen_whatever_its_clock_says() {
        let directory = cluster(100, &[None], &[Seed::up(1, 50), Seed::up(1, 50)]);
        let shop = id("shop");
        let mut freshness = Freshness::default();
        let mut look = |usage: &UsageWindow, now| {
            freshness.take_in(&View::new(&directory, &shop, usage), Timestamp(now));
            (freshness.heard(), freshness.heard_of(&id("vm0")), freshness.samples_of(&id("vm0")))
        };
        assert_eq!(look(&UsageWindow::default(), 5), (None, None, 0));
        let (far_ahead, repeated) = (egress(1_000_000, &[Some(1)]), egress(1_000_000, &[Some(1)]));
        assert_eq!(look(&far_ahead, 10), (Some(Timestamp(10)), Some(Timestamp(10)), 1));
        assert_eq!(look(&repeated, 20), (Some(Timestamp(10)), Some(Timestamp(10)), 1));
        let other = UsageWindow([(id("vm1"), egress(3, &[Some(1)]).samples(&id("vm0")).to_vec())].into());
        assert_eq!(look(&other, 30), (Some(Timestamp(30)), Some(Timestamp(10)), 1));
        assert_eq!(look(&egress(1_000_001, &[Some(1)]), 40), (Some(Timestamp(40)), Some(Timestamp(40)), 2));
    }
}
