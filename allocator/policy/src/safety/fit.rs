//! Making increases fit into what is left.

use super::refusal;
use crate::{View, room::Rooms};
use std::collections::BTreeMap;
use vibra_model::{Action, Plan, Reason, Resource, VmId};

/// Shrinks the increases of a plan, where they are too much, to what its decreases leave room for: on each host, and
/// then in the customer's bound. Between the VMs of a host, and then between all, in proportion. Increases of which
/// nothing is left become refusals.
pub(super) fn fit(plan: &mut Plan, view: &View<'_>, resource: Resource) {
    let changes: BTreeMap<&VmId, &Action> = plan.actions.iter().map(|action| (&action.change.vm, action)).collect();
    let mut free = view.bound(resource).unwrap_or(0);
    let mut rooms = Rooms::of(view, resource);
    let mut raises = BTreeMap::new();
    for (vm, has) in view.vms().filter_map(|vm| Some((vm, vm.desired(resource)?))) {
        let to = changes.get(&vm.id).map_or(has, |action| action.change.to.raw());
        free = free.saturating_sub(has.min(to));
        rooms.take(view.host_of(vm), has.min(to));
        if to > has {
            raises.insert(vm.id.clone(), Raise { by: to - has, host: view.host_of(vm) });
        }
    }
    let mut wanted = BTreeMap::new();
    for raise in raises.values() {
        let sum: &mut u64 = wanted.entry(raise.host).or_default();
        *sum = sum.saturating_add(raise.by);
    }
    for raise in raises.values_mut() {
        raise.shrink(rooms.left(raise.host).unwrap_or(u64::MAX), wanted[&raise.host]);
    }
    let wanted = raises.values().fold(0u64, |sum, raise| sum.saturating_add(raise.by));
    raises.values_mut().for_each(|raise| raise.shrink(free, wanted));
    rewrite(plan, resource, &raises);
}

struct Raise {
    by: u64,
    host: Option<usize>,
}

impl Raise {
    /// Its part of `room` where `wanted` of it is asked for. Rounding down keeps the sum within it.
    fn shrink(&mut self, room: u64, wanted: u64) {
        if wanted > room {
            // The quotient is at most `by`, which is a u64.
            self.by = (u128::from(self.by) * u128::from(room) / u128::from(wanted)) as u64;
        }
    }
}

fn rewrite(plan: &mut Plan, resource: Resource, raises: &BTreeMap<VmId, Raise>) {
    const WHY: &str = "what would have made room was left out";
    for mut action in std::mem::take(&mut plan.actions) {
        let planned = action.change.to.raw();
        let raise = raises.get(&action.change.vm).map(|raise| raise.by);
        match raise {
            Some(0) => {
                let reason = Reason::new(WHY).with("planned", planned as f64);
                plan.refusals.push(refusal(&action.change.vm, resource, reason));
                continue;
            }
            Some(by) if action.from.saturating_add(by) < planned => {
                action.change.to = resource.amount(action.from + by);
                action.reason.rule = format!("{}, shortened: {WHY}", action.reason.rule).into();
                action.reason = action.reason.with("planned", planned as f64);
            }
            _ => {}
        }
        plan.actions.push(action);
    }
}
