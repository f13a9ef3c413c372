//! Several policies, each for its own resource, as one.

use crate::{Policy, RestoreError, View};
use serde_json::{Map, Value};
use std::fmt;
use vibra_model::{Plan, Resource, Timestamp};

/// At most one policy a resource; their plans are made from the same view and merged.
#[derive(Default)]
pub struct Composition {
    parts: Vec<Box<dyn Policy>>,
}

/// Two policies for one resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{first} and {second} would both divide the {resource}: name one policy a resource")]
pub struct TwoPolicies {
    /// What both divide.
    pub resource: Resource,
    /// One of them.
    pub first: &'static str,
    /// The other.
    pub second: &'static str,
}

impl Composition {
    /// The policies together, in the order of their resources.
    ///
    /// # Errors
    /// [`TwoPolicies`] if two of them divide the same resource.
    pub fn new(mut parts: Vec<Box<dyn Policy>>) -> Result<Self, TwoPolicies> {
        parts.sort_by_key(|part| part.resource());
        let twice = parts.windows(2).find(|pair| pair[0].resource() == pair[1].resource());
        match twice {
            None => Ok(Composition { parts }),
            Some(pair) => {
                Err(TwoPolicies { resource: pair[0].resource(), first: pair[0].name(), second: pair[1].name() })
            }
        }
    }

    /// What the policies divide.
    pub fn resources(&self) -> Vec<Resource> {
        self.parts.iter().map(|part| part.resource()).collect()
    }

    /// Whether any of the policies may move VMs.
    pub fn moves(&self) -> bool {
        self.parts.iter().any(|part| part.moves())
    }

    /// What shall change at `now`: the plans of all, merged.
    pub fn decide(&mut self, view: &View<'_>, now: Timestamp) -> Plan {
        self.decide_each(view, |part| part.decide(view, now))
    }

    /// As [`decide`](Self::decide), where `decide` asks each policy, and may replace it by another for the same
    /// resource.
    pub fn decide_each(&mut self, view: &View<'_>, decide: impl FnMut(&mut Box<dyn Policy>) -> Plan) -> Plan {
        let plans = self.parts.iter_mut().map(decide);
        plans.fold(Plan { base: view.snapshot().revision(), ..Plan::default() }, |mut all, plan| {
            all.actions.extend(plan.actions);
            all.refusals.extend(plan.refusals);
            all.moves.extend(plan.moves);
            all
        })
    }

    /// The states of all, by resource and policy.
    pub fn save(&self) -> Value {
        Value::Object(self.parts.iter().map(|part| (key(&**part), part.save())).collect())
    }

    /// Takes over saved states. A policy whose state is not among them begins afresh.
    ///
    /// # Errors
    /// [`RestoreError`] of the first policy that cannot; those before it have taken over theirs.
    pub fn restore(&mut self, state: &Value) -> Result<(), RestoreError> {
        let none = Map::new();
        let states = state.as_object().unwrap_or(&none);
        self.parts.iter_mut().try_for_each(|part| match states.get(&key(&**part)) {
            Some(state) => part.restore(state),
            None => Ok(()),
        })
    }
}

fn key(part: &dyn Policy) -> String {
    format!("{}:{}", part.resource(), part.name())
}

impl fmt::Debug for Composition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts.iter().map(|part| key(&**part))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Policies, testing::*};
    use serde_json::json;
    use vibra_model::{CustomerId, UsageWindow};

    fn policy(name: &str, resource: Resource) -> Box<dyn Policy> {
        Policies::shipped().build(name, resource, json!({})).unwrap()
    }

    #[test]
    fn one_resource_has_one_policy() {
        let two = vec![policy("static", Resource::Memory), policy("proportional", Resource::Memory)];
        let message = Composition::new(two).unwrap_err().to_string();
        assert!(message.contains("memory") && message.contains("static"), "{message}");
    }

    #[test]
    fn plans_are_merged_and_states_kept_apart() {
        let parts = || vec![policy("static", Resource::Memory), policy("proportional", Resource::Bandwidth)];
        let directory = cluster(100, &[None], &[Seed::up(1, 50), Seed::up(1, 50)]);
        let (shop, usage): (CustomerId, _) = (id("shop"), egress(1, &[Some(9), Some(1)]));
        let mut all = Composition::new(parts()).unwrap();
        assert_eq!(all.resources(), [Resource::Bandwidth, Resource::Memory]);
        let plan = all.decide(&View::new(&directory, &shop, &usage), Timestamp(1));
        assert_eq!((plan.base, plan.actions.len()), (directory.revision(), 2));

        let mut other = Composition::new(parts()).unwrap();
        other.restore(&all.save()).unwrap();
        assert_eq!(other.save(), all.save());
        let nothing = UsageWindow::default();
        assert_eq!(other.decide(&View::new(&directory, &shop, &nothing), Timestamp(2)).actions, plan.actions);
        let error = other.restore(&json!({ "bandwidth:proportional": 5 })).unwrap_err();
        assert_eq!(error.policy, "proportional");
    }
}
