//! What becomes of a failed VM's resources: they go where its work goes, and come back as it warms up (section 4.3).

mod ledger;
mod ring;

pub use ring::heirs;

use crate::{Failure, Policy, RestoreError, View, policy::restored};
use ledger::{Ledger, Transfer};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use vibra_model::{
    Action, AllocationChange, Amount, Change, Plan, Reason, Refusal, Resource, Snapshot, Timestamp, UsageWindow, Vm,
    VmId, VmState, text,
};

/// How failed VMs are taken over from: the table `takeover` of a policy in configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TakeoverParameters {
    /// R, as the dispatcher has it: a failed VM's work goes to the next R in cluster order, and so do its resources, 1/R
    /// each. Default: 2.
    pub replicas: usize,
    /// For so long after a VM's return its resources come back to it bit by bit, as the dispatcher's `slow_start` gives
    /// it its objects back; and for so long after its failure the policy leaves the others what they took over, since
    /// their measured demand tells of the time before. Default: 30 s.
    #[serde(deserialize_with = "text::duration")]
    pub warm_up: Duration,
}

impl Default for TakeoverParameters {
    fn default() -> Self {
        TakeoverParameters { replicas: 2, warm_up: Duration::from_secs(30) }
    }
}

impl TakeoverParameters {
    /// Reads the table.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn read(table: Value) -> Result<Self, String> {
        let read: TakeoverParameters = serde_json::from_value(table).map_err(|error| format!("takeover: {error}"))?;
        if read.replicas == 0 {
            return Err("takeover.replicas = 0 is out of range: use 1 or more, as the dispatcher has it".to_owned());
        }
        Ok(read)
    }
}

/// Any policy, and beside it the rule of section 4.3.3: 1/R of what a failed VM had goes to each of those that take over
/// its sub-namespaces, before any demand has shown; and goes back as it warms up.
///
/// - A failed VM keeps its floor, which the directory holds for its return. The rest is handed out in the first decision
///   after the failure.
/// - With several VMs away, each place of each of them goes to whom the dispatcher sends that place's objects ([`heirs`]).
///   It depends on who is away, not on the order in which they failed.
/// - The policy decides on what is left by this: for it a VM that warms up is as one that is down, and for the warm-up's
///   time after a failure what others took over is as a floor of theirs.
/// - A VM that fails again before it is warm has lost only what it had got back: one that flaps moves little.
/// - What a host has no room for is not handed out to its VMs; the policy may give it to others.
pub struct Takeover {
    policy: Box<dyn Policy>,
    parameters: TakeoverParameters,
    ledger: Ledger,
}

impl Takeover {
    /// `policy`, with takeover.
    pub fn new(policy: Box<dyn Policy>, parameters: TakeoverParameters) -> Self {
        Takeover { policy, parameters, ledger: Ledger::default() }
    }

    /// The policy's plan for what the `transfer` leaves to it.
    fn inner(&mut self, transfer: &Transfer, view: &View<'_>, now: Timestamp) -> Result<Plan, Failure> {
        if transfer.is_idle() {
            return self.policy.attempt(view, now);
        }
        let after = carried_out(transfer, view.snapshot(), self.resource());
        let usage: &UsageWindow = view.usage();
        let planned = self.policy.attempt(&View::new(&after, view.customer(), usage).after(view.planned()), now);
        match planned {
            // The transfer must not wait until the policy has a plan again.
            Err(Failure::Passing(_)) if !transfer.changes.is_empty() => Ok(Plan::default()),
            other => other,
        }
    }
}

/// The directory as the policy is to see it: with the transfer made, and what it settles settled.
fn carried_out(transfer: &Transfer, snapshot: &Snapshot, resource: Resource) -> Snapshot {
    let mut changed = BTreeMap::new();
    let mut vm = |id: &VmId, change: &dyn Fn(&mut Vm)| {
        if let Some(known) = snapshot.vm(id) {
            change(changed.entry(id.clone()).or_insert_with(|| known.clone()));
        }
    };
    for (id, change) in &transfer.changes {
        vm(id, &|vm| vm.desired.resources.set(resource.amount(change.to)));
    }
    for (id, &share) in &transfer.kept {
        vm(id, &|vm| vm.floor.set(resource.amount(share)));
    }
    for id in &transfer.warming {
        vm(id, &|vm| {
            vm.state = VmState::Down;
            let share = vm.desired(resource).unwrap_or(0);
            vm.floor.set(resource.amount(share));
        });
    }
    let mut after = snapshot.clone();
    after.apply(snapshot.revision(), &changed.into_values().map(Change::Vm).collect::<Vec<_>>());
    after
}

/// The transfer, and on top of it what the policy planned on the directory that it leaves.
fn merged(transfer: &Transfer, policy: Plan, snapshot: &Snapshot, resource: Resource) -> Plan {
    let mut actions: BTreeMap<VmId, Action> = BTreeMap::new();
    for (vm, change) in &transfer.changes {
        actions.insert(vm.clone(), action(vm, change.from, resource.amount(change.to), change.reason.clone()));
    }
    let mut foreign = Vec::new();
    for planned in policy.actions {
        // What is not this policy's to change is for the checker to refuse.
        if planned.change.to.resource() != resource {
            foreign.push(planned);
            continue;
        }
        let AllocationChange { vm, to } = planned.change;
        let from = transfer.changes.get(&vm).map_or(planned.from, |change| change.from);
        if to.raw() == from {
            actions.remove(&vm);
        } else {
            actions.insert(vm.clone(), action(&vm, from, to, planned.reason));
        }
    }
    let refused = |(vm, reason): (&VmId, &Reason)| Refusal { vm: vm.clone(), resource, reason: reason.clone() };
    let refusals = transfer.refusals.iter().map(refused).chain(policy.refusals).collect();
    let actions = actions.into_values().chain(foreign).collect();
    Plan { base: snapshot.revision(), actions, refusals, moves: policy.moves }
}

fn action(vm: &VmId, from: u64, to: Amount, reason: Reason) -> Action {
    Action { change: AllocationChange { vm: vm.clone(), to }, from, reason }
}

impl Policy for Takeover {
    fn name(&self) -> &'static str {
        self.policy.name()
    }

    fn resource(&self) -> Resource {
        self.policy.resource()
    }

    fn moves(&self) -> bool {
        self.policy.moves()
    }

    fn decide(&mut self, view: &View<'_>, now: Timestamp) -> Plan {
        let nothing = || Plan { base: view.snapshot().revision(), ..Plan::default() };
        self.attempt(view, now).unwrap_or_else(|_| nothing())
    }

    fn attempt(&mut self, view: &View<'_>, now: Timestamp) -> Result<Plan, Failure> {
        let resource = self.resource();
        self.ledger.observe(view, resource, now);
        let transfer = self.ledger.transfer(view, resource, &self.parameters, now);
        let policy = self.inner(&transfer, view, now)?;
        let plan = merged(&transfer, policy, view.snapshot(), resource);
        self.ledger.plan(&plan, transfer, resource);
        Ok(plan)
    }

    fn save(&self) -> Value {
        json!({ "policy": self.policy.save(), "takeover": self.ledger })
    }

    fn restore(&mut self, state: &Value) -> Result<(), RestoreError> {
        let ledger = restored(self.policy.name(), &state["takeover"])?;
        self.policy.restore(&state["policy"])?;
        self.ledger = ledger;
        Ok(())
    }
}

#[cfg(test)]
#[path = "takeover_tests.rs"]
mod tests;
