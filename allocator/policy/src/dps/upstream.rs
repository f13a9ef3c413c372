//! Whom VMs wait for.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use vibra_model::{Timestamp, UsageSample, VmId};

/// How long a VM that was waited for stays on the list unless it is configured: the text's "certain period of
/// time". Ten of the allocator's default intervals.
pub const EXPIRY: Duration = Duration::from_secs(30);

/// Whom a VM gives its excess to where its samples do not tell whom it waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Upstream {
    /// To all that have no excess themselves: in a cluster without messages those hold up the rest (section 5.2.2).
    #[default]
    Peers,
    /// To those that are named for it; who is not named gives nothing away.
    #[serde(untagged)]
    Named(BTreeMap<VmId, Vec<VmId>>),
}

/// Whom each VM waited for lately, as its samples tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Inferred(BTreeMap<VmId, BTreeMap<u32, Timestamp>>);

impl Inferred {
    /// Takes in whom `vm` waited for, and forgets whom it has not waited for since `expiry` before its newest sample:
    /// only times of one host are compared, as hosts' clocks differ.
    pub(super) fn learn(&mut self, vm: &VmId, samples: &[&UsageSample], expiry: Duration) {
        for sample in samples {
            let Some(order) = sample.upstream else { continue };
            self.0.entry(vm.clone()).or_default().insert(order, sample.at);
        }
        let newest = samples.iter().map(|sample| sample.at).max();
        if let (Some(newest), Some(list)) = (newest, self.0.get_mut(vm)) {
            list.retain(|_, at| newest.since(*at) <= expiry);
        }
    }

    /// Forgets VMs that are gone.
    pub(super) fn retain(&mut self, known: impl Fn(&VmId) -> bool) {
        self.0.retain(|vm, _| known(vm));
    }

    /// The places in the cluster of those that `vm` waits for; `None` if it never told.
    pub(super) fn of(&self, vm: &VmId) -> Option<impl Iterator<Item = u32>> {
        Some(self.0.get(vm)?.keys().copied())
    }
}
