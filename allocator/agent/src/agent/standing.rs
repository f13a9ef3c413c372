//! What one VM shall have and has: the rules of adoption and of the order of changes, without any I/O.

use std::collections::BTreeMap;
use vibra_model::{Allocation, Amount, Applied, Generation, Resource, Resources, Snapshot, VmId};

/// An actuator may fall short of what was asked by one part in this many: it may be coarser than the unit.
const ROUNDING: u64 = 100;

/// One VM's adopted allocation and what its actuators say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// The newest allocation that was adopted; `None` until the first.
    adopted: Option<Allocation>,
    /// What is in force, as last read back.
    pub(super) actual: Resources,
}

/// An older allocation than the adopted one was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("generation {offered} was refused: {adopted} is adopted already")]
pub(super) struct Outdated {
    offered: Generation,
    adopted: Generation,
}

impl Standing {
    /// Adopts an allocation.
    pub(super) fn adopt(&mut self, desired: Allocation) -> Result<(), Outdated> {
        match self.adopted {
            Some(adopted) if adopted.generation > desired.generation => {
                Err(Outdated { offered: desired.generation, adopted: adopted.generation })
            }
            _ => {
                self.adopted = Some(desired);
                Ok(())
            }
        }
    }

    /// Forgets what was adopted: the directory that said so is no more.
    pub(super) fn forget(&mut self) {
        self.adopted = None;
    }

    /// What to tell the directory: the actual amounts of what it manages.
    pub(super) fn applied(&self) -> Option<Applied> {
        let adopted = self.adopted?;
        let mut resources = Resources::NONE;
        for wanted in adopted.resources.amounts() {
            if let Some(actual) = self.actual.get(wanted.resource()) {
                resources.set(wanted.resource().amount(actual));
            }
        }
        Some(Applied { resources, generation: adopted.generation })
    }

    fn wanted(&self) -> impl Iterator<Item = (Amount, Option<u64>)> + '_ {
        let amounts = self.adopted.iter().flat_map(|adopted| adopted.resources.amounts());
        amounts.map(|wanted| (wanted, self.actual.get(wanted.resource())))
    }
}

/// Whether an actuator that has `actual` has done what it can for `wanted`: no more than that, and hardly less.
pub(super) fn settles(wanted: Amount, actual: u64) -> bool {
    actual <= wanted.raw() && !short(wanted.raw(), actual)
}

fn short(wanted: u64, actual: u64) -> bool {
    actual < wanted - wanted / ROUNDING
}

/// What is to be lowered.
pub(super) fn decreases(standings: &BTreeMap<VmId, Standing>) -> Vec<(VmId, Amount)> {
    steps(standings, |wanted, actual| actual.is_some_and(|actual| actual > wanted))
}

/// What is to be raised, and may be by `snapshot`. An amount that could not be read back counts as an increase.
pub(super) fn increases(standings: &BTreeMap<VmId, Standing>, snapshot: &Snapshot) -> Vec<(VmId, Amount)> {
    let mut found = steps(standings, |wanted, actual| actual.is_none_or(|actual| short(wanted, actual)));
    found.retain(|(vm, to)| may_raise(snapshot, vm, to.resource()));
    found
}

fn may_raise(snapshot: &Snapshot, vm: &VmId, resource: Resource) -> bool {
    snapshot.vm(vm).is_some_and(|vm| snapshot.may_raise(vm, resource))
}

fn steps(standings: &BTreeMap<VmId, Standing>, due: impl Fn(u64, Option<u64>) -> bool) -> Vec<(VmId, Amount)> {
    let of = |(vm, standing): (&VmId, &Standing)| -> Vec<_> {
        let due = standing.wanted().filter(|(wanted, actual)| due(wanted.raw(), *actual));
        due.map(|(wanted, _)| (vm.clone(), wanted)).collect()
    };
    standings.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vibra_model::{Bytes, BytesPerSec};

    fn bandwidth(rate: u64) -> Resources {
        Resources { bandwidth: Some(BytesPerSec(rate)), ..Resources::NONE }
    }

    fn allocation(generation: u64, rate: u64) -> Allocation {
        Allocation { resources: bandwidth(rate), generation: Generation(generation) }
    }

    #[test]
    fn an_older_generation_is_never_adopted() {
        let mut standing = Standing::default();
        standing.adopt(allocation(5, 10)).unwrap();
        let refused = standing.adopt(allocation(4, 99)).unwrap_err();
        assert_eq!(refused, Outdated { offered: Generation(4), adopted: Generation(5) });
        assert_eq!(standing.applied().unwrap().generation, Generation(5));
        standing.adopt(allocation(5, 10)).unwrap();
        standing.adopt(allocation(6, 11)).unwrap();
        standing.forget();
        standing.adopt(allocation(1, 10)).unwrap();
    }

    #[test]
    fn only_what_is_managed_is_told_and_as_it_is() {
        let mut standing = Standing { adopted: None, actual: bandwidth(7) };
        standing.actual.memory = Some(Bytes(9));
        assert_eq!(standing.applied(), None);
        standing.adopt(allocation(1, 10)).unwrap();
        assert_eq!(standing.applied(), Some(Applied { resources: bandwidth(7), generation: Generation(1) }));
    }

    #[test]
    fn decreases_and_increases_are_told_apart() {
        let vm: VmId = "a".parse().unwrap();
        let with = |actual| Standing { adopted: Some(allocation(1, 1_000)), actual };
        let lowered = |actual| decreases(&[(vm.clone(), with(actual))].into());
        let one = vec![(vm.clone(), Amount::Bandwidth(BytesPerSec(1_000)))];
        assert_eq!(lowered(bandwidth(1_001)), one);
        assert_eq!(lowered(bandwidth(1_000)), []);
        assert_eq!(lowered(Resources::NONE), []);
        let raised = |actual| steps(&[(vm.clone(), with(actual))].into(), |w, a| a.is_none_or(|a| short(w, a)));
        assert_eq!(raised(bandwidth(989)), one);
        assert_eq!(raised(bandwidth(990)), []);
        assert_eq!(raised(Resources::NONE), one);
        // A directory that does not know the VM gives no leave.
        assert_eq!(increases(&[(vm.clone(), with(bandwidth(1)))].into(), &Snapshot::default()), []);
    }

    #[test]
    fn an_actuator_settles_when_it_is_at_or_just_below_what_was_asked() {
        let wanted = Amount::Bandwidth(BytesPerSec(1_000));
        let settled: Vec<_> = [989, 990, 1_000, 1_001].map(|actual| settles(wanted, actual)).into();
        assert_eq!(settled, [false, true, true, false]);
    }
}
