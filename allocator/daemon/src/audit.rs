//! What was decided, from what, and what became of it.

use crate::Inputs;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use vibra_model::{HostId, Plan, Resource, Revision, Timestamp, VmId};

/// How many entries are kept in memory.
const ENTRIES: usize = 256;
/// How many actions and refusals the entries in memory have together at most; the newest entry is always kept.
const PARTS: usize = 200_000;

/// What became of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The directory accepted the plan.
    Accepted {
        /// Its revision with the plan carried out.
        revision: Revision,
    },
    /// There was nothing to change.
    Nothing,
    /// It is a dry run: the plan was good, and nothing was changed.
    DryRun,
    /// No decision was made: the directory or the usage was not heard of for too long.
    Held {
        /// What was not heard.
        why: String,
    },
    /// Allocations had changed meanwhile; it was decided anew, or at last given up until the next interval.
    Stale {
        /// What the directory says.
        why: String,
    },
    /// The plan checker found faults. Nothing was proposed.
    Faulty {
        /// Each fault.
        faults: Vec<String>,
    },
    /// The directory refused the plan. Nothing was changed.
    Refused {
        /// What the directory says.
        why: String,
    },
    /// No decision of its own: how a move of an earlier plan goes.
    Move {
        /// The decision that planned it.
        decision: u64,
        /// Who goes.
        vm: VmId,
        /// From where.
        from: HostId,
        /// Where to.
        to: HostId,
        /// How far it is.
        stage: Stage,
    },
    /// The directory could not be asked, or did not answer. A proposal may have been carried out all the same.
    Failed {
        /// What happened.
        why: String,
    },
}

/// How far a move is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It begins.
    Begun,
    /// The VM serves where it went.
    Done {
        /// How long that took, in milliseconds.
        took_ms: u64,
    },
    /// It failed, and the plan's later moves are left out.
    Failed {
        /// What happened.
        why: String,
        /// How many are left out.
        left_out: usize,
    },
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number: from 1, or where the log file leaves off.
    pub id: u64,
    /// When it was made, by the allocator's clock.
    pub at: Timestamp,
    /// What it was made from.
    pub inputs: Inputs,
    /// What was planned.
    pub plan: Plan,
    /// What became of it.
    pub outcome: Outcome,
    /// Policies that failed, and which of them were replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
    /// What policies in the shadow would have done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<Shadowed>,
}

/// What policies in the shadow planned. Nothing of it was carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shadowed {
    /// Which, such as "dps-bank for bandwidth".
    pub policies: String,
    /// What they planned.
    pub plan: Plan,
    /// Why the checker would have refused it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
}

/// Counts over all decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Decisions, whatever became of them.
    pub decisions: u64,
    /// Plans that the directory accepted.
    pub accepted: u64,
    /// Plans that came too late.
    pub stale: u64,
    /// Plans that the checker or the directory refused.
    pub refused: u64,
    /// Intervals without a decision.
    pub held: u64,
    /// Requests to the directory that failed.
    pub failed: u64,
    /// Good plans that were not proposed since it is a dry run.
    pub dry_runs: u64,
    /// VMs that were moved.
    pub moves: u64,
    /// Moves that failed.
    pub failed_moves: u64,
    /// Failures of policies.
    pub alarms: u64,
    /// Lines that could not be written to the log file.
    pub lost_lines: u64,
    moved: BTreeMap<Resource, u64>,
}

impl Summary {
    /// How much of a resource was moved: the sum of all accepted increases, in the resource's base unit.
    pub fn moved(&self, resource: Resource) -> u64 {
        self.moved.get(&resource).copied().unwrap_or(0)
    }

    fn count(&mut self, entry: &Entry) {
        self.decisions += u64::from(!matches!(entry.outcome, Outcome::Move { .. }));
        self.alarms += entry.alarms.len() as u64;
        match &entry.outcome {
            Outcome::Accepted { .. } => self.accepted += 1,
            Outcome::Nothing => {}
            Outcome::DryRun => self.dry_runs += 1,
            Outcome::Move { stage: Stage::Begun, .. } => {}
            Outcome::Move { stage: Stage::Done { .. }, .. } => self.moves += 1,
            Outcome::Move { stage: Stage::Failed { .. }, .. } => self.failed_moves += 1,
            Outcome::Held { .. } => self.held += 1,
            Outcome::Stale { .. } => self.stale += 1,
            Outcome::Faulty { .. } | Outcome::Refused { .. } => self.refused += 1,
            Outcome::Failed { .. } => self.failed += 1,
        }
        if let Outcome::Accepted { .. } = entry.outcome {
            for action in &entry.plan.actions {
                let raised = action.change.to.raw().saturating_sub(action.from);
                let moved = self.moved.entry(action.change.to.resource()).or_default();
                *moved = moved.saturating_add(raised);
            }
        }
    }
}

/// The newest decisions, and counts over all of them. Clones are the same log.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<Arc<Entry>>,
    parts: usize,
    summary: Summary,
    last_id: u64,
}

impl Log {
    /// The newest decisions, oldest first.
    pub fn recent(&self) -> Vec<Arc<Entry>> {
        self.lock().entries.iter().cloned().collect()
    }

    /// The counts over all decisions.
    pub fn summary(&self) -> Summary {
        self.lock().summary.clone()
    }

    /// Takes a decision in, and gives it its number.
    pub(crate) fn record(&self, mut entry: Entry) -> Arc<Entry> {
        let mut kept = self.lock();
        kept.summary.count(&entry);
        kept.last_id += 1;
        entry.id = kept.last_id;
        let entry = Arc::new(entry);
        kept.parts += parts(&entry);
        kept.entries.push_back(entry.clone());
        while kept.entries.len() > 1 && (kept.entries.len() > ENTRIES || kept.parts > PARTS) {
            let oldest = kept.entries.pop_front();
            kept.parts -= oldest.map_or(0, |oldest| parts(&oldest));
        }
        entry
    }

    /// The next decision gets the number after `id`.
    pub(crate) fn go_on_after(&self, id: u64) {
        self.lock().last_id = id;
    }

    /// Counts a line that could not be written.
    pub(crate) fn line_lost(&self) {
        self.lock().summary.lost_lines += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing that holds the lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parts(entry: &Entry) -> usize {
    let plans = std::iter::once(&entry.plan).chain(entry.shadows.iter().map(|shadow| &shadow.plan));
    plans.map(|plan| plan.actions.len() + plan.refusals.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vibra_model::{Action, AllocationChange, Reason};

    fn entry(outcome: Outcome, changes: &[(u64, u64)]) -> Entry {
        let action = |&(from, to): &(u64, u64)| Action {
            change: AllocationChange { vm: "v".parse().unwrap(), to: Resource::Bandwidth.amount(to) },
            from,
            reason: Reason::new("test"),
        };
        let plan = Plan { actions: changes.iter().map(action).collect(), ..Plan::default() };
        let (inputs, alarms, shadows) = (Inputs::default(), Vec::new(), Vec::new());
        Entry { id: 0, at: Timestamp(1), inputs, plan, outcome, alarms, shadows }
    }

    #[test]
    fn only_accepted_increases_are_moved() {
        let log = Log::default();
        log.record(entry(Outcome::Accepted { revision: Revision(2) }, &[(10, 5), (10, 14), (10, 11)]));
        log.record(entry(Outcome::Refused { why: "full".into() }, &[(10, 99)]));
        let summary = log.summary();
        assert_eq!((summary.moved(Resource::Bandwidth), summary.moved(Resource::Memory)), (5, 0));
        assert_eq!((summary.decisions, summary.accepted, summary.refused), (2, 1, 1));
    }

    #[test]
    fn the_log_is_bounded_by_entries_and_by_their_size() {
        let log = Log::default();
        for _ in 0..ENTRIES + 5 {
            log.record(entry(Outcome::Nothing, &[]));
        }
        let ids: Vec<_> = log.recent().iter().map(|entry| entry.id).collect();
        assert_eq!((ids.len(), ids[0]), (ENTRIES, 6));
        let large = vec![(1, 2); PARTS];
        log.record(entry(Outcome::Nothing, &large));
        assert_eq!(log.recent().len(), ENTRIES);
        log.record(entry(Outcome::Nothing, &[(1, 2)]));
        assert_eq!(log.recent().len(), 1);
    }

    #[test]
    fn an_entry_is_one_line_of_json() {
        let entry = entry(Outcome::Faulty { faults: vec!["bad\nplan".into()] }, &[(1, 2)]);
        let line = serde_json::to_string(&entry).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Entry>(&line).unwrap(), entry);
    }
}
