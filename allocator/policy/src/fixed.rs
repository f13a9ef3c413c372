//! Fixed shares: what other load balancers have.

use crate::{
    BuildError, Policy, RestoreError, View,
    divide::{Claim, divide},
    policy::restored,
    room::Rooms,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use vibra_model::{Action, AllocationChange, Amount, Plan, Reason, Refusal, Resource, Timestamp, Vm, VmId, VmState};

/// Which shares [`Fixed`] holds VMs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    /// Each keeps what it has; one that comes back from a failure gets what it had before, as far as that is free.
    #[default]
    Kept,
    /// All that are not down have the same. So a failed VM's share goes to the others evenly, and comes back with it
    /// (section 4.3.2, as for LARD).
    Equal,
}

/// How [`Fixed`] decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FixedParameters {
    /// Which shares it holds VMs to.
    pub share: Share,
}

/// Shares that do not follow the demand: the policy `static`. It looks at no usage at all.
#[derive(Debug, Clone)]
pub struct Fixed {
    resource: Resource,
    share: Share,
    /// Under [`Share::Kept`]: what each VM had when it was last seen in service.
    kept: BTreeMap<VmId, Kept>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    amount: u64,
    /// It was down since, and has not got its amount back yet.
    owed: bool,
}

impl Fixed {
    /// Its name in configuration.
    pub const NAME: &'static str = "static";

    /// The policy for `resource`.
    pub fn new(resource: Resource, parameters: FixedParameters) -> Self {
        Fixed { resource, share: parameters.share, kept: BTreeMap::new() }
    }

    /// The policy for `resource`, with parameters from configuration.
    ///
    /// # Errors
    /// [`BuildError::Parameters`] if the parameters are not a [`FixedParameters`].
    pub fn build(resource: Resource, parameters: Value) -> Result<Self, BuildError> {
        let parsed: Result<FixedParameters, _> = serde_json::from_value(parameters);
        let refuse = |why| BuildError::Parameters { policy: Self::NAME, resource, why };
        Ok(Self::new(resource, parsed.map_err(|error| refuse(error.to_string()))?))
    }

    /// Gives those that came back from a failure what they had.
    fn restore_returned(&mut self, view: &View<'_>, bound: u64, plan: &mut Plan) {
        let resource = self.resource;
        let managed = || view.vms().filter_map(|vm| Some((vm, vm.desired(resource)?)));
        let (mut free, mut rooms) = (bound, Rooms::of(view, resource));
        for (vm, has) in managed() {
            free = free.saturating_sub(has);
            rooms.take(view.host_of(vm), has);
        }
        self.kept.retain(|id, _| view.snapshot().vm(id).is_some_and(|vm| vm.customer == *view.customer()));
        for (vm, has) in managed() {
            let kept = self.kept.entry(vm.id.clone()).or_insert(Kept { amount: has, owed: false });
            if vm.state == VmState::Down {
                kept.owed = true;
                continue;
            }
            if !kept.owed || has >= kept.amount {
                *kept = Kept { amount: has, owed: false };
                continue;
            }
            let (host, lacking) = (view.host_of(vm), kept.amount - has);
            if lacking > rooms.left(host).map_or(free, |left| free.min(left)) {
                let reason = Reason::new("what it had before its failure is not free").with("lacking", lacking as f64);
                plan.refusals.push(Refusal { vm: vm.id.clone(), resource, reason });
                continue;
            }
            free -= lacking;
            rooms.take(host, lacking);
            plan.actions.push(action(vm, has, resource.amount(kept.amount), "back from a failure"));
        }
    }

    /// Holds all that are not down to the same share.
    fn equalise(&self, view: &View<'_>, bound: u64, plan: &mut Plan) {
        let (mut free, mut rooms) = (bound, Rooms::of(view, self.resource));
        let (mut present, mut claims) = (Vec::new(), Vec::new());
        for vm in view.vms() {
            let Some(has) = vm.desired(self.resource) else { continue };
            let host = view.host_of(vm);
            if vm.state != VmState::Down {
                present.push((vm, has));
                claims.push(Claim { weight: 1.0, floor: vm.floor.get(self.resource).unwrap_or(0), host });
                continue;
            }
            free = free.saturating_sub(has);
            rooms.take(host, has);
        }
        let shares = divide(free, &claims, &rooms).unwrap_or_default();
        let changed = present.iter().zip(shares).filter(|((_, has), to)| has != to);
        let actions = changed.map(|((vm, has), to)| action(vm, *has, self.resource.amount(to), "equal shares"));
        plan.actions.extend(actions);
    }
}

fn action(vm: &Vm, from: u64, to: Amount, rule: &'static str) -> Action {
    Action { change: AllocationChange { vm: vm.id.clone(), to }, from, reason: Reason::new(rule) }
}

impl Policy for Fixed {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn resource(&self) -> Resource {
        self.resource
    }

    fn decide(&mut self, view: &View<'_>, _now: Timestamp) -> Plan {
        let mut plan = Plan { base: view.snapshot().revision(), ..Plan::default() };
        if let Some(bound) = view.bound(self.resource) {
            match self.share {
                Share::Kept => self.restore_returned(view, bound, &mut plan),
                Share::Equal => self.equalise(view, bound, &mut plan),
            }
        }
        plan
    }

    fn save(&self) -> Value {
        let kept = self
            .kept
            .iter()
            .map(|(vm, kept)| (vm.to_string(), serde_json::json!({ "amount": kept.amount, "owed": kept.owed })));
        Value::Object(kept.collect())
    }

    fn restore(&mut self, state: &Value) -> Result<(), RestoreError> {
        self.kept = restored(Self::NAME, state)?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "fixed_tests.rs"]
mod tests;
