//! One decision, as a pure function of what is known.

use serde::{Deserialize, Serialize};
use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};
use vibra_model::{CustomerId, Plan, Revision, Snapshot, Timestamp, UsageWindow, VmId};
use vibra_policy::{Checked, Composition, Fault, Fixed, FixedParameters, Limits, Policy, RestoreError, View, check};

/// Without any new sample for longer than this nothing is changed: what is known is too old to act on.
pub const SILENCE: Duration = Duration::from_secs(10);

/// What decides for one customer: his policies, and the limits that their plans are held to.
#[derive(Debug)]
pub struct Core {
    policies: Composition,
    limits: Limits,
    /// The newest sample of each VM that was seen so far.
    newest: BTreeMap<VmId, Timestamp>,
    /// When any of them was first seen. Hosts' clocks differ from the allocator's and from one another: so only the
    /// time of seeing tells how old the knowledge is, and only samples of one VM can be told older and newer.
    heard: Option<Timestamp>,
}

/// What a decision was made from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// The snapshot's revision.
    pub revision: Revision,
    /// How many VMs the customer has.
    pub vms: usize,
    /// How many of them the usage window tells of.
    pub measured: usize,
    /// How many samples it has of them, including those seen before.
    pub samples: usize,
    /// The newest of these.
    pub newest: Option<Timestamp>,
}

/// What came of a decision.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The plan may be proposed.
    Propose(Checked),
    /// There is nothing to change.
    Nothing,
    /// Nothing is decided, since there was no new sample for so long ([`SILENCE`]).
    TooOld,
    /// The plan breaks rules; it is not proposed.
    Faulty(Vec<Fault>),
}

/// A decision with what it was made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What it was made from.
    pub inputs: Inputs,
    /// What the policies planned.
    pub plan: Plan,
    /// What came of it.
    pub verdict: Verdict,
    /// What an operator must know: policies that failed and were replaced.
    pub alarms: Vec<String>,
}

impl Core {
    /// The policies of one customer, with steps of any size allowed.
    pub fn new(customer: CustomerId, policies: Composition) -> Self {
        let limits = Limits::of(&customer, &policies.resources()).with_moves(policies.moves());
        Core { policies, limits, newest: BTreeMap::new(), heard: None }
    }

    /// Holds plans to steps of at most this share of the customer's bound.
    #[must_use]
    pub fn with_max_step(mut self, share: f64) -> Self {
        self.limits.max_step = share;
        self
    }

    /// Whose VMs it decides on.
    pub fn customer(&self) -> &CustomerId {
        &self.limits.customer
    }

    /// Decides at `now`. A policy that panics is replaced by `static` for good, with an alarm; its part of the plan
    /// is empty.
    pub fn step(&mut self, snapshot: &Snapshot, usage: &UsageWindow, now: Timestamp) -> Decision {
        let customer = self.limits.customer.clone();
        let view = View::new(snapshot, &customer, usage);
        let inputs = self.take_in(&view, now);
        let nothing = Plan { base: snapshot.revision(), ..Plan::default() };
        if self.heard.is_none_or(|heard| now.since(heard) > SILENCE) {
            return Decision { inputs, plan: nothing, verdict: Verdict::TooOld, alarms: Vec::new() };
        }
        let mut alarms = Vec::new();
        let plan = self.policies.decide_each(&view, |policy| {
            let decided = catch_unwind(AssertUnwindSafe(|| policy.decide(&view, now)));
            decided.unwrap_or_else(|panic| {
                alarms.push(replace(policy, &*panic));
                nothing.clone()
            })
        });
        let verdict = match check(&plan, snapshot, &self.limits) {
            Ok(_) if plan.actions.is_empty() && plan.moves.is_empty() => Verdict::Nothing,
            Ok(checked) => Verdict::Propose(checked),
            Err(faults) => Verdict::Faulty(faults),
        };
        Decision { inputs, plan, verdict, alarms }
    }

    /// Notes what is new in the usage window, and says what there is in it.
    fn take_in(&mut self, view: &View<'_>, now: Timestamp) -> Inputs {
        let mut inputs = Inputs { revision: view.snapshot().revision(), vms: view.vms().count(), ..Inputs::default() };
        let own = |vm: &VmId| view.snapshot().vm(vm).is_some_and(|vm| vm.customer == *view.customer());
        self.newest.retain(|vm, _| own(vm));
        for (vm, samples) in view.usage().0.iter().filter(|(vm, _)| own(vm)) {
            let Some(newest) = samples.iter().map(|sample| sample.at).max() else { continue };
            inputs.measured += 1;
            inputs.samples += samples.len();
            inputs.newest = inputs.newest.max(Some(newest));
            if self.newest.get(vm).is_none_or(|&known| known < newest) {
                self.newest.insert(vm.clone(), newest);
                self.heard = Some(now);
            }
        }
        inputs
    }

    /// The policies' state, for [`restore`](Self::restore) by another allocator.
    pub fn save(&self) -> serde_json::Value {
        self.policies.save()
    }

    /// Takes over the policies' state.
    ///
    /// # Errors
    /// [`RestoreError`] if it is not the state of such policies.
    pub fn restore(&mut self, state: &serde_json::Value) -> Result<(), RestoreError> {
        self.policies.restore(state)
    }
}

/// Puts `static` in the place of a policy that panicked, and says so.
fn replace(policy: &mut Box<dyn Policy>, panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let (name, resource) = (policy.name(), policy.resource());
    *policy = Box::new(Fixed::new(resource, FixedParameters::default()));
    format!("policy {name} for {resource} panicked and is replaced by static: {}", text.unwrap_or("no message"))
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
