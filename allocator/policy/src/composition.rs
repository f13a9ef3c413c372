//! Several policies, each for its own resource, as one.

use crate::{Policy, RestoreError, View};
use serde_json::{Map, Value};
use std::fmt;
use vibra_model::{Plan, Resource, Timestamp};

/// At most one policy a resource, of which at most one moves VMs; their plans are made from the same view and merged.
/// The one that moves VMs decides last, and is told what the others have planned: whether a VM fits on a host depends on
/// that.
#[derive(Default)]
pub struct Composition {
    parts: Vec<Box<dyn Policy>>,
}

/// Two policies for what one must do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TwoPolicies {
    /// For one resource.
    #[error("{first} and {second} would both divide the {resource}: name one policy a resource")]
    Divide {
        /// What both divide.
        resource: Resource,
        /// One of them.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// For moving VMs.
    #[error("the policies for {first} and for {second} would both move VMs: set migrate = false for one of them")]
    Move {
        /// What one of them divides.
        first: Resource,
        /// What the other divides.
        second: Resource,
    },
}

impl Composition {
    /// The policies together, in the order of their resources; the one that moves VMs comes last.
    ///
    /// # Errors
    /// [`TwoPolicies`] if two of them divide the same resource, or move VMs.
    pub fn new(mut parts: Vec<Box<dyn Policy>>) -> Result<Self, TwoPolicies> {
        parts.sort_by_key(|part| part.resource());
        if let Some(pair) = parts.windows(2).find(|pair| pair[0].resource() == pair[1].resource()) {
            let (resource, first, second) = (pair[0].resource(), pair[0].name(), pair[1].name());
            return Err(TwoPolicies::Divide { resource, first, second });
        }
        let movers: Vec<_> = parts.iter().filter(|part| part.moves()).map(|part| part.resource()).collect();
        if let [first, second, ..] = movers[..] {
            return Err(TwoPolicies::Move { first, second });
        }
        parts.sort_by_key(|part| part.moves());
        Ok(Composition { parts })
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
        self.decide_each(view, |part, view| part.decide(view, now))
    }

    /// As [`decide`](Self::decide), where `decide` asks each policy with the view that it is to decide on, and may
    /// replace it by another for the same resource.
    pub fn decide_each(
        &mut self,
        view: &View<'_>,
        mut decide: impl FnMut(&mut Box<dyn Policy>, &View<'_>) -> Plan,
    ) -> Plan {
        let mut all = Plan { base: view.snapshot().revision(), ..Plan::default() };
        for part in &mut self.parts {
            let plan = if part.moves() { decide(part, &view.after(&all.actions)) } else { decide(part, view) };
            all.actions.extend(plan.actions);
            all.refusals.extend(plan.refusals);
            all.moves.extend(plan.moves);
        }
        all
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
    use vibra_model::{Action, AllocationChange, CustomerId, Reason, UsageWindow};

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
    fn one_policy_moves_vms_and_decides_last() {
        let movers = |migrate: bool| {
            let other = json!({ "migrate": migrate });
            let build = |resource, parameters| Policies::shipped().build("sandpiper", resource, parameters).unwrap();
            vec![build(Resource::Bandwidth, json!({})), build(Resource::Cpu, other), policy("static", Resource::Memory)]
        };
        let message = Composition::new(movers(true)).unwrap_err().to_string();
        assert!(message.contains("bandwidth and for cpu") && message.contains("migrate = false"), "{message}");
        let mut all = Composition::new(movers(false)).unwrap();
        assert_eq!(all.resources(), [Resource::Memory, Resource::Cpu, Resource::Bandwidth]);
        let directory = cluster(100, &[None], &[Seed::up(1, 50)]);
        let (shop, usage): (CustomerId, _) = (id("shop"), UsageWindow::default());
        let view = View::new(&directory, &shop, &usage);
        let (mut seen, vm) = (Vec::new(), directory.vms().next().unwrap());
        all.decide_each(&view, |_, view| {
            seen.push(view.share(vm, Resource::Bandwidth));
            let change = AllocationChange { vm: vm.id.clone(), to: Resource::Bandwidth.amount(7) };
            Plan { actions: vec![Action { change, from: 50, reason: Reason::new("test") }], ..Plan::default() }
        });
        assert_eq!(seen, [Some(50), Some(50), Some(7)], "the last one knows what the others have planned");
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
