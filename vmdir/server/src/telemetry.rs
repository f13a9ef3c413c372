//! The recent usage of each VM, in memory alone.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};
use vibra_model::{Timestamp, UsageSample, UsageWindow, VmId};

/// Readers hold one part at a time, so that a large window does not hold up the writer.
const PARTS: usize = 64;

type Rings = HashMap<VmId, VecDeque<UsageSample>>;

/// The newest samples of each VM. Times are those of the reporting hosts.
#[derive(Debug)]
pub(crate) struct Telemetry {
    parts: Vec<Mutex<Rings>>,
    hasher: RandomState,
    /// How many samples are kept of each VM.
    most: usize,
}

impl Telemetry {
    pub(crate) fn new(most: usize) -> Self {
        Telemetry { parts: (0..PARTS).map(|_| Mutex::default()).collect(), hasher: RandomState::new(), most }
    }

    fn part(&self, vm: &VmId) -> MutexGuard<'_, Rings> {
        lock(&self.parts[self.hasher.hash_one(vm) as usize % PARTS])
    }

    /// Takes in a sample. The samples of a VM stay in the order of time, one for each time.
    pub(crate) fn record(&self, vm: &VmId, sample: UsageSample) {
        let mut part = self.part(vm);
        let ring = match part.get_mut(vm) {
            Some(ring) => ring,
            None => part.entry(vm.clone()).or_default(),
        };
        // Before everything known: the reporter's clock was set back, and the old times are void.
        if ring.front().is_some_and(|oldest| sample.at < oldest.at) {
            ring.clear();
        }
        let place = ring.partition_point(|known| known.at < sample.at);
        match ring.get_mut(place).filter(|known| known.at == sample.at) {
            Some(known) => *known = sample,
            None => ring.insert(place, sample),
        }
        if ring.len() > self.most {
            ring.pop_front();
        }
    }

    /// Forgets a VM.
    pub(crate) fn forget(&self, vm: &VmId) {
        self.part(vm).remove(vm);
    }

    /// The samples after `since`; VMs without any are left out.
    pub(crate) fn window(&self, since: Timestamp) -> UsageWindow {
        let mut window = UsageWindow::default();
        for part in &self.parts {
            for (vm, ring) in lock(part).iter() {
                let start = ring.partition_point(|sample| sample.at <= since);
                if start < ring.len() {
                    window.0.insert(vm.clone(), ring.range(start..).copied().collect());
                }
            }
        }
        window
    }
}

fn lock(part: &Mutex<Rings>) -> MutexGuard<'_, Rings> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> VmId {
        name.parse().unwrap()
    }

    fn record(telemetry: &Telemetry, times: &[u64]) -> Vec<u64> {
        for &at in times {
            telemetry.record(&id("a"), UsageSample { at: Timestamp(at), ..UsageSample::default() });
        }
        telemetry.window(Timestamp(0)).samples(&id("a")).iter().map(|sample| sample.at.0).collect()
    }

    #[test]
    fn the_newest_samples_are_kept_in_order() {
        let telemetry = Telemetry::new(3);
        assert_eq!(record(&telemetry, &[1, 2, 3, 4]), [2, 3, 4]);
        assert_eq!(record(&telemetry, &[6, 5]), [4, 5, 6]);
        assert_eq!(record(&telemetry, &[5]), [4, 5, 6]);
        assert_eq!(telemetry.window(Timestamp(5)).samples(&id("a")).len(), 1);
        assert!(telemetry.window(Timestamp(6)).0.is_empty());
    }

    #[test]
    fn a_clock_that_was_set_back_begins_anew() {
        assert_eq!(record(&Telemetry::new(3), &[100, 101, 102, 7, 8]), [7, 8]);
    }

    #[test]
    fn a_removed_vm_is_forgotten() {
        let telemetry = Telemetry::new(3);
        record(&telemetry, &[1]);
        telemetry.forget(&id("a"));
        assert!(telemetry.window(Timestamp(0)).0.is_empty());
    }
}
