//! How many requests each VM takes at once: a monitor and a controller for each, which know nothing of one another.

use std::{collections::BTreeMap, num::NonZeroU32};
use vibra_model::{UsageSample, VmId};
use vibra_policy::fvm::{Fvm, Tick};

/// The VMs of a host, as far as they adapt.
pub(super) struct Levels {
    /// How a VM begins; `None`: none adapts.
    fresh: Option<Fvm>,
    /// Those of which a tick was measured. The others have no level: nothing is known of what they bear.
    vms: BTreeMap<VmId, Fvm>,
}

/// What keeps a VM from adapting as it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum LevelError {
    #[error("requests were served, but no sensor tells how long that took: how many it takes at once is not adapted")]
    NotMeasured,
    #[error(
        "{rate:.2} requests a second, one at a time, are all that it bears, but dispatchers do not go below one at once"
    )]
    BelowOne { rate: f64 },
}

impl Levels {
    /// Of VMs that begin as `fresh`; without it none adapts.
    pub(super) fn new(fresh: Option<Fvm>) -> Levels {
        Levels { fresh, vms: BTreeMap::new() }
    }

    /// Takes note of what `vm` did in the last interval. The mean service time of its requests is its tick.
    ///
    /// # Errors
    /// [`LevelError`]: what keeps its level from taking effect.
    pub(super) fn observe(&mut self, vm: &VmId, sample: &UsageSample) -> Result<(), LevelError> {
        let Some(fresh) = &self.fresh else { return Ok(()) };
        let in_use = sample.in_flight.map(|requests| requests.try_into().unwrap_or(u32::MAX));
        let tick = Tick { took: sample.service_time, in_use };
        let fvm = match self.vms.get_mut(vm) {
            Some(fvm) => fvm,
            None if tick.took.is_some() => self.vms.entry(vm.clone()).or_insert(fresh.clone()),
            None if sample.requests.is_some_and(|requests| requests > 0) => return Err(LevelError::NotMeasured),
            None => return Ok(()),
        };
        if let Some(made) = fvm.observe(sample.at, tick) {
            tracing::debug!(%vm, slowdown = made.slowdown.ratio, congested = made.congested, level = made.level, "level");
        }
        fvm.rate().map_or(Ok(()), |rate| Err(LevelError::BelowOne { rate }))
    }

    /// Forgets what `vm` was like: it has begun a new life, or nothing is heard of it.
    pub(super) fn forget(&mut self, vm: &VmId) {
        self.vms.remove(vm);
    }

    /// How many requests `vm` takes at once; `None`: that is not known, or not asked for.
    pub(super) fn of(&self, vm: &VmId) -> Option<NonZeroU32> {
        self.vms.get(vm).map(Fvm::level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use vibra_model::Timestamp;
    use vibra_policy::fvm::FvmParameters;

    fn sample(second: u64, milliseconds: Option<u64>) -> UsageSample {
        UsageSample {
            at: Timestamp(second * 1_000_000),
            requests: Some(10),
            service_time: milliseconds.map(Duration::from_millis),
            in_flight: Some(50),
            ..UsageSample::default()
        }
    }

    fn levels() -> Levels {
        Levels::new(Some(Fvm::new(FvmParameters::default()).unwrap()))
    }

    #[test]
    fn each_vm_follows_its_own_service_time() {
        let (mut levels, slow, fast): (_, VmId, VmId) = (levels(), "slow".parse().unwrap(), "fast".parse().unwrap());
        let level = |levels: &Levels, vm| levels.of(vm).map(NonZeroU32::get);
        assert_eq!(level(&levels, &slow), None, "nothing is known yet");
        for second in 0..31 {
            levels.observe(&slow, &sample(second, Some(if second < 11 { 10 } else { 100 }))).unwrap();
            levels.observe(&fast, &sample(second, Some(10))).unwrap();
        }
        assert_eq!((level(&levels, &slow), level(&levels, &fast)), (Some(2), Some(16)));
        levels.forget(&fast);
        assert_eq!(level(&levels, &fast), None);
    }

    #[test]
    fn who_is_not_measured_has_no_level_and_that_is_told() {
        let (mut levels, vm): (_, VmId) = (levels(), "vm".parse().unwrap());
        let idle = UsageSample { requests: Some(0), ..sample(1, None) };
        assert!(levels.observe(&vm, &idle).is_ok());
        let told = levels.observe(&vm, &sample(2, None)).unwrap_err().to_string();
        assert!(told.contains("no sensor"), "{told}");
        assert_eq!(levels.of(&vm), None);
        assert!(Levels::new(None).observe(&vm, &sample(3, None)).is_ok(), "nobody asked");
    }

    #[test]
    fn who_bears_less_than_one_at_once_is_told() {
        let (mut levels, vm): (_, VmId) = (levels(), "vm".parse().unwrap());
        let mut told = Ok(());
        for second in 0..60 {
            told = levels.observe(&vm, &sample(second, Some(if second < 6 { 10 } else { 1000 })));
        }
        assert_eq!(levels.of(&vm), Some(NonZeroU32::MIN));
        let told = told.unwrap_err().to_string();
        assert!(told.contains("one at a time"), "{told}");
    }
}
