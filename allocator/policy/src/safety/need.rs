//! How much memory VMs need.

use crate::View;
use std::collections::BTreeMap;
use vibra_model::{Bytes, VmId};

/// What each VM was last measured to need.
#[derive(Debug, Clone, Default)]
pub(super) struct Need(BTreeMap<VmId, Bytes>);

impl Need {
    /// Takes in the newest measurements of the view; forgets VMs that are gone.
    pub(super) fn take_in(&mut self, view: &View<'_>) {
        self.0.retain(|vm, _| view.snapshot().vm(vm).is_some());
        for (vm, samples) in &view.usage().0 {
            let measured = samples.iter().rev().find_map(|sample| sample.working_set.or(sample.memory_in_use));
            if let Some(needs) = measured {
                self.0.insert(vm.clone(), needs);
            }
        }
    }

    /// The least memory, in bytes, that `vm` can be left with: what it needs and `margin` as a share of that; or why it
    /// cannot be shrunk at all.
    pub(super) fn least(&self, vm: &VmId, view: &View<'_>, margin: f64) -> Result<u64, &'static str> {
        let mut swapped = view.usage().samples(vm).iter().filter_map(|sample| sample.swapped);
        if swapped.any(|swapped| swapped > Bytes::ZERO) {
            return Err("it swaps: its memory is not shrunk");
        }
        let needs = self.0.get(vm).ok_or("what it needs of its memory is not known: it is not shrunk")?;
        Ok(needs.0.saturating_add((needs.0 as f64 * margin).ceil() as u64))
    }
}
