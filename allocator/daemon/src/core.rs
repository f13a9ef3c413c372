//! One decision, as a pure function of what is known.

use serde::{Deserialize, Serialize};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};
use vibra_model::{CustomerId, Plan, Revision, Snapshot, Timestamp, UsageWindow, VmId};
use vibra_policy::{
    Checked, Composition, Failure, Fault, Fixed, FixedParameters, Freshness, Limits, Policy, RestoreError, View, check,
};

/// Without any new sample for longer than this nothing is changed: what is known is too old to act on.
pub const SILENCE: Duration = Duration::from_secs(10);

/// What decides for one customer: his policies, and the limits that their plans are held to.
#[derive(Debug)]
pub struct Core {
    policies: Composition,
    limits: Limits,
    freshness: Freshness,
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

impl Inputs {
    fn of(view: &View<'_>) -> Self {
        let mut inputs = Inputs { revision: view.snapshot().revision(), vms: view.vms().count(), ..Inputs::default() };
        let own = |vm: &VmId| view.snapshot().vm(vm).is_some_and(|vm| vm.customer == *view.customer());
        for (_, samples) in view.usage().0.iter().filter(|(vm, samples)| own(vm) && !samples.is_empty()) {
            inputs.measured += 1;
            inputs.samples += samples.len();
            inputs.newest = inputs.newest.max(samples.iter().map(|sample| sample.at).max());
        }
        inputs
    }
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
    /// When it was made.
    pub at: Timestamp,
    /// What it was made from.
    pub inputs: Inputs,
    /// What the policies planned.
    pub plan: Plan,
    /// What came of it.
    pub verdict: Verdict,
    /// What an operator must know: policies that failed, and which of them were replaced.
    pub alarms: Vec<String>,
}

impl Core {
    /// The policies of one customer, with steps of any size allowed.
    pub fn new(customer: CustomerId, policies: Composition) -> Self {
        let limits = Limits::of(&customer, &policies.resources()).with_moves(policies.moves());
        Core { policies, limits, freshness: Freshness::default() }
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

    /// Decides at `now` on a snapshot and the usage, as [`decide`](Self::decide) does.
    pub fn step(&mut self, snapshot: &Snapshot, usage: &UsageWindow, now: Timestamp) -> Decision {
        let customer = self.customer().clone();
        self.decide(&View::new(snapshot, &customer, usage), now)
    }

    /// Decides at `now` on a view of its customer. A policy that has no plan changes nothing this time. One that panics, or
    /// fails for good, is replaced by `static`, with an alarm.
    pub fn decide(&mut self, view: &View<'_>, now: Timestamp) -> Decision {
        debug_assert_eq!(view.customer(), self.customer());
        let (inputs, snapshot) = (Inputs::of(view), view.snapshot());
        self.freshness.take_in(view, now);
        let nothing = Plan { base: snapshot.revision(), ..Plan::default() };
        if self.freshness.heard().is_none_or(|heard| now.since(heard) > SILENCE) {
            return Decision { at: now, inputs, plan: nothing, verdict: Verdict::TooOld, alarms: Vec::new() };
        }
        let mut alarms = Vec::new();
        let plan = self.policies.decide_each(view, |policy, view| {
            attempt(policy, view, now).unwrap_or_else(|failure| {
                alarms.push(alarm(&**policy, &failure));
                if let Failure::Lasting(_) = failure {
                    *policy = Box::new(Fixed::new(policy.resource(), FixedParameters::default()));
                }
                nothing.clone()
            })
        });
        let verdict = match check(&plan, snapshot, &self.limits) {
            Ok(_) if plan.actions.is_empty() && plan.moves.is_empty() => Verdict::Nothing,
            Ok(checked) => Verdict::Propose(checked),
            Err(faults) => Verdict::Faulty(faults),
        };
        Decision { at: now, inputs, plan, verdict, alarms }
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

/// The policy's plan; a panic is a failure for good.
fn attempt(policy: &mut Box<dyn Policy>, view: &View<'_>, now: Timestamp) -> Result<Plan, Failure> {
    let decided = catch_unwind(AssertUnwindSafe(|| policy.attempt(view, now)));
    decided.unwrap_or_else(|panic| Err(Failure::Lasting(format!("it panicked: {}", message(&*panic)))))
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message")
}

fn alarm(policy: &dyn Policy, failure: &Failure) -> String {
    let (name, resource) = (policy.name(), policy.resource());
    match failure {
        Failure::Passing(why) => format!("policy {name} for {resource} has no plan this time: {why}"),
        Failure::Lasting(why) => format!("policy {name} for {resource} is replaced by static: {why}"),
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
