//! When VMs were changed and moved, and for how long that holds.

use super::Safety;
use crate::View;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use vibra_model::{HostId, Move, Reason, Resource, Timestamp, VmId, VmState};

/// What each VM had and where it was when it was last looked at, and how it came to that.
///
/// Changes are seen in the directory, not in plans: only what was carried out counts, whoever asked for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct History {
    vms: BTreeMap<VmId, Known>,
    /// When was last looked.
    looked: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// In the resource's base unit.
    has: u64,
    host: HostId,
    turn: Option<Turn>,
    left: Option<Left>,
}

/// A change of what a VM has.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    raised: bool,
    at: Timestamp,
    /// How many changes went the other way soon after one before.
    reversals: u32,
}

/// A move from `host`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Left {
    host: HostId,
    at: Timestamp,
}

impl Turn {
    /// For how long it holds: doubled with each reversal, up to the bound.
    fn hold(&self, safety: &Safety) -> Duration {
        safety.hold.saturating_mul(2u32.saturating_pow(self.reversals)).min(safety.max_hold)
    }

    /// What another change at `at` makes of it.
    fn then(self, raised: bool, at: Timestamp, safety: &Safety) -> Turn {
        let since = at.since(self.at);
        let reversals = match raised == self.raised {
            true => self.reversals,
            false if since < self.hold(safety).saturating_mul(2) => self.reversals.saturating_add(1),
            false => 0,
        };
        Turn { raised, at, reversals }
    }
}

impl History {
    /// Notes what has changed since it last looked. What the directory took from a VM that is down, and what that gets
    /// back, are no one's decisions: such a VM is forgotten.
    pub(super) fn observe(&mut self, view: &View<'_>, resource: Resource, safety: &Safety, now: Timestamp) {
        // It happened after the last look; to take it for as old as that makes the hold an interval shorter at most.
        let at = self.looked.replace(now).unwrap_or(now);
        let mut before = std::mem::take(&mut self.vms);
        let present = view.vms().filter(|vm| vm.state != VmState::Down);
        for (vm, has) in present.filter_map(|vm| Some((vm, vm.desired(resource)?))) {
            let mut known =
                before.remove(&vm.id).unwrap_or_else(|| Known { has, host: vm.host.clone(), turn: None, left: None });
            if known.has != has {
                let raised = has > known.has;
                let first = Turn { raised, at, reversals: 0 };
                known.turn = Some(known.turn.map_or(first, |turn| turn.then(raised, at, safety)));
                known.has = has;
            }
            if known.host != vm.host {
                known.left = Some(Left { host: std::mem::replace(&mut known.host, vm.host.clone()), at });
            }
            self.vms.insert(vm.id.clone(), known);
        }
    }

    /// Why `vm` may not be changed this way now.
    pub(super) fn held(&self, vm: &VmId, raise: bool, safety: &Safety, now: Timestamp) -> Option<Reason> {
        let turn = self.vms.get(vm)?.turn.filter(|turn| turn.raised != raise)?;
        let rule = if turn.raised { "it was raised not long ago" } else { "it was lowered not long ago" };
        held(rule, now.since(turn.at), turn.hold(safety))
    }

    /// Why a VM may not go back to where it came from now.
    pub(super) fn moved_back(&self, step: &Move, safety: &Safety, now: Timestamp) -> Option<Reason> {
        let left = self.vms.get(&step.vm)?.left.as_ref().filter(|left| left.host == step.to)?;
        held("it came from there not long ago", now.since(left.at), safety.hold)
    }
}

fn held(rule: &'static str, since: Duration, hold: Duration) -> Option<Reason> {
    let reason = || Reason::new(rule).with("since_s", since.as_secs_f64()).with("hold_s", hold.as_secs_f64());
    (since < hold).then(reason)
}
