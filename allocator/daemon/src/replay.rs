//! A decision log, decided again: by the same policies, or by others.

use crate::{Core, Decision, Line, Player, Recipe, RecipeError, Recorded, TIME_LIMIT};
use serde::Serialize;
use std::collections::BTreeMap;
use vibra_model::{HostId, Plan, Resource, Snapshot, VmId};
use vibra_policy::RestoreError;

/// Decides again what stands in a log.
///
/// It is open loop: each decision is made from what was recorded, which followed from what the real policies decided
/// before. So it tells what other policies would have done at that moment, not where they would have led.
pub struct Replayer {
    /// What decides instead of the recorded policies of these resources.
    others: Recipe,
    player: Player,
    deciding: Option<(Recipe, Core)>,
}

/// Why a log cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A policy cannot be made, or does not go together with the others.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A policy cannot go on from the recorded state.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl Replayer {
    /// With `others` in the place of the recorded policies of their resources.
    pub fn new(others: Recipe) -> Self {
        Replayer { others, player: Player::default(), deciding: None }
    }

    /// Decides again what was decided on a line; `None` where nothing was, or what it was made from is not known.
    ///
    /// # Errors
    /// [`ReplayError`] if a policy cannot be made, or cannot go on from its recorded state.
    pub fn play(&mut self, line: &Line) -> Result<Option<Decision>, ReplayError> {
        let Some(recorded) = &line.recorded else { return Ok(None) };
        if let Recorded::Whole(whole) = recorded {
            let mut recipe = whole.recipe.clone();
            recipe.0.extend(self.others.0.clone());
            let goes_on = self.deciding.as_ref().is_some_and(|(deciding, _)| *deciding == recipe);
            if !goes_on {
                let core = Core::new(whole.customer.clone(), recipe.build(TIME_LIMIT)?);
                self.deciding = Some((recipe, core));
            }
            if let (Some((_, core)), Some(state)) = (&mut self.deciding, &whole.state) {
                core.restore(state)?;
            }
        }
        if !self.player.play(line.entry.id, recorded) {
            return Ok(None);
        }
        let Some((_, core)) = &mut self.deciding else { return Ok(None) };
        Ok(Some(core.step(&self.player.snapshot, &self.player.usage, line.entry.at)))
    }

    /// What the last decision was made from.
    pub fn known(&self) -> &Player {
        &self.player
    }
}

/// Where two plans differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// In what a VM shall have, in the resource's base unit.
    Amount {
        /// Which VM.
        vm: VmId,
        /// Of what.
        resource: Resource,
        /// What it had.
        has: u64,
        /// What it shall have by the recorded plan.
        recorded: u64,
        /// What it shall have by the other.
        other: u64,
    },
    /// In where a VM shall be at last.
    Place {
        /// Which VM.
        vm: VmId,
        /// Where it shall be by the recorded plan; `None`: where it is.
        recorded: Option<HostId>,
        /// Where it shall be by the other.
        other: Option<HostId>,
    },
}

/// Where `other` differs from `recorded`; both were made from `snapshot`.
pub fn differences(recorded: &Plan, other: &Plan, snapshot: &Snapshot) -> Vec<Difference> {
    let (one, two) = (amounts(recorded), amounts(other));
    let has = |vm: &VmId, resource| snapshot.vm(vm).and_then(|vm| vm.desired(resource)).unwrap_or(0);
    let mut found = Vec::new();
    let both: BTreeMap<_, _> = one.iter().chain(&two).collect();
    for &(vm, resource) in both.into_keys() {
        let has = has(vm, resource);
        let of = |plan: &BTreeMap<(&VmId, Resource), u64>| plan.get(&(vm, resource)).copied().unwrap_or(has);
        let (recorded, other) = (of(&one), of(&two));
        if recorded != other {
            found.push(Difference::Amount { vm: vm.clone(), resource, has, recorded, other });
        }
    }
    let (one, two) = (places(recorded), places(other));
    let both: BTreeMap<_, _> = one.iter().chain(&two).collect();
    for vm in both.into_keys() {
        let (recorded, other) = (one.get(vm).copied().cloned(), two.get(vm).copied().cloned());
        if recorded != other {
            found.push(Difference::Place { vm: (*vm).clone(), recorded, other });
        }
    }
    found
}

fn amounts(plan: &Plan) -> BTreeMap<(&VmId, Resource), u64> {
    let change = |action: &vibra_model::AllocationChange| action.to;
    let each = plan.actions.iter().map(|action| (&action.change.vm, change(&action.change)));
    each.map(|(vm, to)| ((vm, to.resource()), to.raw())).collect()
}

fn places(plan: &Plan) -> BTreeMap<&VmId, &HostId> {
    plan.moves.iter().map(|step| (&step.vm, &step.to)).collect()
}

/// What plans come to together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Plans that change something.
    pub plans: u64,
    /// Changes of a VM.
    pub changes: u64,
    /// The sum of all increases, in the resource's base unit.
    pub moved: BTreeMap<Resource, u64>,
    /// Changes of a VM in the other direction than its change before.
    pub reversals: u64,
    /// Moves of a VM to another host.
    pub moves: u64,
    #[serde(skip)]
    raised: BTreeMap<(VmId, Resource), bool>,
}

impl Tally {
    /// Counts a plan in.
    pub fn count(&mut self, plan: &Plan) {
        self.plans += u64::from(!plan.actions.is_empty() || !plan.moves.is_empty());
        self.moves += plan.moves.len() as u64;
        for action in &plan.actions {
            let (resource, to) = (action.change.to.resource(), action.change.to.raw());
            self.changes += 1;
            *self.moved.entry(resource).or_default() += to.saturating_sub(action.from);
            let raised = to > action.from;
            let before = self.raised.insert((action.change.vm.clone(), resource), raised);
            self.reversals += u64::from(before.is_some_and(|before| before != raised));
        }
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
