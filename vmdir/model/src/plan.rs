//! Plans: what a policy wants changed, why, and what it refused to change.

use crate::{Amount, HostId, Revision, VmId};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::borrow::Cow;

/// One VM shall have this much of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllocationChange {
    /// Which VM.
    pub vm: VmId,
    /// How much of what.
    pub to: Amount,
}

/// A batch of changes: all of it happens, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// The revision that the proposer had seen.
    pub base: Revision,
    /// The changes; at most one for each VM and resource.
    pub changes: Vec<AllocationChange>,
}

/// Why: the rule that decided, and the numbers that went into it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The rule, in a few words.
    pub rule: Cow<'static, str>,
    /// The numbers, by name with unit, such as `("demand_bytes_per_s", 2.7e6)`.
    #[serde(default, skip_serializing_if = "SmallVec::is_empty")]
    pub facts: SmallVec<[(Cow<'static, str>, f64); 1]>,
}

impl Reason {
    /// A reason without numbers.
    pub fn new(rule: impl Into<Cow<'static, str>>) -> Self {
        Reason { rule: rule.into(), facts: SmallVec::new() }
    }

    /// Adds a number.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: f64) -> Self {
        self.facts.push((Cow::Borrowed(name), value));
        self
    }
}

/// A change with its reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// What shall change.
    pub change: AllocationChange,
    /// What the VM had, in the same unit.
    pub from: u64,
    /// Why.
    pub reason: Reason,
}

/// What a policy could have changed and did not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which VM.
    pub vm: VmId,
    /// Of what resource.
    pub resource: crate::Resource,
    /// Why.
    pub reason: Reason,
}

/// A VM shall go to another host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// Which VM.
    pub vm: VmId,
    /// Where it is when its turn comes.
    pub from: HostId,
    /// Where it shall go.
    pub to: HostId,
    /// Why.
    pub reason: Reason,
}

/// A policy's decision. Immutable: the checker and the directory judge it as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The revision of the snapshot that it was made from.
    pub base: Revision,
    /// What shall change.
    pub actions: Vec<Action>,
    /// What shall not, although one might expect it.
    pub refusals: Vec<Refusal>,
    /// Who shall go elsewhere: one after another in this order, each once the one before it is done and after the
    /// `actions`. A VM may move twice, such as by way of a scratch host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<Move>,
}

impl Plan {
    /// The batch that the directory is asked for.
    pub fn proposal(&self) -> Proposal {
        let changes = self.actions.iter().map(|action| action.change.clone()).collect();
        Proposal { base: self.base, changes }
    }
}
