//! What one VM shall have and has: the rules of adoption and of the order of changes, without any I/O.

use std::collections::BTreeMap;
use vibra_model::{Allocation, Amount, Applied, Resource, Resources, Snapshot, VmId};

/// An actuator may fall short of what it was asked for by one part in this many: it may be coarser than the unit.
const ROUNDING: u64 = 100;

/// One VM's adopted allocation and what its actuators say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// What the newest snapshot desires; `None` where the VM is not this host's.
    pub(super) adopted: Option<Allocation>,
    /// What is in force, as last read back: the most that it may be. `None` until it is known.
    actual: Option<Resources>,
    /// What the actuators were last set to.
    asked: Resources,
}

impl Standing {
    /// Whether the VM is this host's.
    pub(super) fn is_own(&self) -> bool {
        self.adopted.is_some()
    }

    /// Whether its actuators were read back.
    pub(super) fn is_known(&self) -> bool {
        self.actual.is_some()
    }

    /// All actuators were read back.
    pub(super) fn has(&mut self, actual: Resources) {
        self.actual = Some(actual);
    }

    /// One actuator was set to `asked`, and `actual` was read back.
    pub(super) fn was_set(&mut self, asked: Amount, actual: Amount) {
        self.asked.set(asked);
        self.has_now(actual);
    }

    fn has_now(&mut self, amount: Amount) {
        if let Some(actual) = &mut self.actual {
            actual.set(amount);
        }
    }

    /// An actuator failed to be set to `amount`: nobody knows whether it acted. Until it is read back the larger of
    /// both counts, so that the directory does not give away what may still be in force.
    pub(super) fn may_have(&mut self, amount: Amount) {
        if self.get(amount.resource()).is_some_and(|actual| actual < amount.raw()) {
            self.has_now(amount);
        }
    }

    fn get(&self, resource: Resource) -> Option<u64> {
        self.actual?.get(resource)
    }

    /// What to tell the directory: the actual amounts of what it manages. Nothing as long as they are not known: it
    /// would take a resource without an amount for one that has come down to what is desired.
    pub(super) fn applied(&self) -> Option<Applied> {
        let (adopted, actual) = (self.adopted?, self.actual?);
        let mut resources = Resources::NONE;
        for wanted in adopted.resources.amounts() {
            if let Some(actual) = actual.get(wanted.resource()) {
                resources.set(wanted.resource().amount(actual));
            }
        }
        Some(Applied { resources, generation: adopted.generation })
    }

    fn exceeds(&self, wanted: Amount) -> bool {
        self.get(wanted.resource()).is_some_and(|actual| actual > wanted.raw())
    }

    /// Whether there is less than is wanted, and more to be had by asking. An amount that could not be read back counts
    /// as too little.
    fn lacks(&self, wanted: Amount) -> bool {
        let (resource, wanted) = (wanted.resource(), wanted.raw());
        let asked_for = self.asked.get(resource) == Some(wanted);
        self.get(resource).is_none_or(|actual| short(wanted, actual) || (actual < wanted && !asked_for))
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
    steps(standings, Standing::exceeds)
}

/// What is to be raised, and may be by `snapshot`.
pub(super) fn increases(standings: &BTreeMap<VmId, Standing>, snapshot: &Snapshot) -> Vec<(VmId, Amount)> {
    let mut found = steps(standings, Standing::lacks);
    found.retain(|(vm, to)| may_raise(snapshot, vm, to.resource()));
    found
}

fn may_raise(snapshot: &Snapshot, vm: &VmId, resource: Resource) -> bool {
    snapshot.vm(vm).is_some_and(|vm| snapshot.may_raise(vm, resource))
}

fn steps(standings: &BTreeMap<VmId, Standing>, due: impl Fn(&Standing, Amount) -> bool) -> Vec<(VmId, Amount)> {
    let of = |(vm, standing): (&VmId, &Standing)| -> Vec<_> {
        let wanted = standing.adopted.iter().flat_map(|adopted| adopted.resources.amounts());
        wanted.filter(|wanted| due(standing, *wanted)).map(|wanted| (vm.clone(), wanted)).collect()
    };
    standings.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vibra_model::{Bytes, BytesPerSec, Generation};

    fn bandwidth(rate: u64) -> Resources {
        Resources { bandwidth: Some(BytesPerSec(rate)), ..Resources::NONE }
    }

    fn allocation(generation: u64, rate: u64) -> Allocation {
        Allocation { resources: bandwidth(rate), generation: Generation(generation) }
    }

    #[test]
    fn only_what_is_managed_and_known_is_told_and_as_it_is() {
        let mut standing = Standing { adopted: Some(allocation(1, 10)), ..Standing::default() };
        standing.has_now(Amount::Bandwidth(BytesPerSec(7)));
        assert_eq!(standing.applied(), None, "the other actuators are not known");
        standing.has(Resources { memory: Some(Bytes(9)), ..bandwidth(7) });
        assert_eq!(standing.applied(), Some(Applied { resources: bandwidth(7), generation: Generation(1) }));
        standing.adopted = None;
        assert_eq!(standing.applied(), None);
    }

    #[test]
    fn an_actuator_that_failed_may_have_the_larger_amount() {
        let mut standing =
            Standing { adopted: Some(allocation(1, 10)), actual: Some(bandwidth(7)), ..Standing::default() };
        for (tried, counts) in [(5, 7), (9, 9), (8, 9)] {
            standing.may_have(Amount::Bandwidth(BytesPerSec(tried)));
            assert_eq!(standing.applied().unwrap().resources, bandwidth(counts));
        }
        standing.may_have(Amount::Memory(Bytes(1)));
        assert_eq!(standing.actual, Some(bandwidth(9)), "there is no such actuator");
    }

    #[test]
    fn decreases_and_increases_are_told_apart() {
        let vm: VmId = "a".parse().unwrap();
        let with =
            |actual| Standing { adopted: Some(allocation(1, 1_000)), actual: Some(actual), asked: bandwidth(1_000) };
        let lowered = |actual| decreases(&[(vm.clone(), with(actual))].into());
        let one = vec![(vm.clone(), Amount::Bandwidth(BytesPerSec(1_000)))];
        assert_eq!(lowered(bandwidth(1_001)), one);
        assert_eq!(lowered(bandwidth(1_000)), []);
        assert_eq!(lowered(Resources::NONE), []);
        let raised = |actual| steps(&[(vm.clone(), with(actual))].into(), Standing::lacks);
        assert_eq!(raised(bandwidth(989)), one);
        assert_eq!(raised(bandwidth(990)), []);
        assert_eq!(raised(Resources::NONE), one);
        let mut coarse = Standing { asked: bandwidth(990), ..with(bandwidth(990)) };
        assert_eq!(steps(&[(vm.clone(), coarse)].into(), Standing::lacks), one, "a small raise is carried out, too");
        coarse.was_set(Amount::Bandwidth(BytesPerSec(1_000)), Amount::Bandwidth(BytesPerSec(995)));
        assert_eq!(steps(&[(vm.clone(), coarse)].into(), Standing::lacks), [], "it gives no more");
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
