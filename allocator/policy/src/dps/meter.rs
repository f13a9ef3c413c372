//! What VMs used since the last decision.

use crate::{
    View,
    demand::{FUTURE, demand, matching},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vibra_model::{Resource, Timestamp, UsageSample, Vm, VmId};

/// Remembers which samples were taken in, so that each counts once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<VmId, Timestamp>", into = "BTreeMap<VmId, Timestamp>")]
pub(super) struct Meter {
    /// The newest sample of each VM that was taken in; by id, like usage.
    newest: Vec<(VmId, Timestamp)>,
}

impl From<BTreeMap<VmId, Timestamp>> for Meter {
    fn from(newest: BTreeMap<VmId, Timestamp>) -> Self {
        Meter { newest: newest.into_iter().collect() }
    }
}

impl From<Meter> for BTreeMap<VmId, Timestamp> {
    fn from(meter: Meter) -> Self {
        meter.newest.into_iter().collect()
    }
}

impl Meter {
    /// Goes through the VMs of the view: `each` gets the VM, its samples that are new, and what it used on the mean of
    /// them, if any of them tells.
    pub(super) fn read<'a>(
        &mut self,
        resource: Resource,
        view: &View<'a>,
        now: Timestamp,
        mut each: impl FnMut(&'a Vm, &[&UsageSample], Option<f64>),
    ) {
        let mut known = std::mem::take(&mut self.newest).into_iter().peekable();
        let mut usage = view.usage().0.iter().peekable();
        let latest = now.after(FUTURE);
        for vm in view.vms() {
            let old = matching(&mut known, &vm.id, |(id, _)| id);
            let samples = matching(&mut usage, &vm.id, |(id, _)| id).map_or(&[][..], |(_, samples)| samples);
            let after = old.as_ref().map(|(_, at)| *at);
            let is_new = |sample: &&UsageSample| after.is_none_or(|after| sample.at > after) && sample.at <= latest;
            let new: Vec<_> = samples.iter().filter(is_new).collect();
            each(vm, &new, mean(new.iter().filter_map(|sample| demand(resource, sample))));
            if let Some(newest) = new.iter().map(|sample| sample.at).max().or(after) {
                self.newest.push((old.map_or_else(|| vm.id.clone(), |(id, _)| id), newest));
            }
        }
    }
}

/// The mean of all; `None` of none.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}
