//! What decisions were made from, compactly: once whole, then what changed.

use crate::Recipe;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use vibra_model::{Change, CustomerId, Revision, Snapshot, Timestamp, UsageSample, UsageWindow, VmId};

/// What one decision was made from, as a line of the decision log has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recorded {
    /// All of it: a log begins with this, and goes on with it where a line was lost.
    Whole(Box<Whole>),
    /// What changed since the decision before.
    Since(Since),
    /// It was too large for the log.
    LeftOut {
        /// How many bytes it would have taken.
        bytes: u64,
    },
}

/// Everything that a decision was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Whole {
    /// Whose VMs were decided on.
    pub customer: CustomerId,
    /// The policies that decided.
    pub recipe: Recipe,
    /// Their state before the decision, where a file begins; `None`: they go on with the one that they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Value>,
    /// The directory.
    pub snapshot: Snapshot,
    /// What the VMs used.
    pub usage: UsageWindow,
}

/// What a decision was made from, compared with the one before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Since {
    /// The decision before, which this goes on from.
    pub after: u64,
    /// The directory's revision.
    pub revision: Revision,
    /// What changed in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Samples up to this time were in the window no more.
    pub from: Timestamp,
    /// The samples that came in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub usage: BTreeMap<VmId, Vec<UsageSample>>,
}

/// What was known at one decision after another, as their lines are read.
#[derive(Debug, Clone, Default)]
pub struct Player {
    /// The directory.
    pub snapshot: Snapshot,
    /// What the VMs used.
    pub usage: UsageWindow,
    /// The decision that these belong to; `None` where that is not known.
    at: Option<u64>,
}

impl Player {
    /// Goes on to decision `id`. False if what it was made from is not known: then the next [`Recorded::Whole`] must be
    /// waited for.
    pub fn play(&mut self, id: u64, recorded: &Recorded) -> bool {
        match recorded {
            Recorded::Whole(whole) => {
                *self = Player { snapshot: whole.snapshot.clone(), usage: whole.usage.clone(), at: Some(id) };
            }
            Recorded::Since(since) if self.at == Some(since.after) => {
                self.snapshot.apply(since.revision, &since.changes);
                for (vm, samples) in &since.usage {
                    self.usage.0.entry(vm.clone()).or_default().extend(samples);
                }
                for samples in self.usage.0.values_mut() {
                    samples.retain(|sample| sample.at > since.from);
                }
                self.usage.0.retain(|_, samples| !samples.is_empty());
                self.at = Some(id);
            }
            Recorded::Since(_) | Recorded::LeftOut { .. } => self.at = None,
        }
        self.at.is_some()
    }

    /// What leads from here to `snapshot` and `usage`, of which samples up to `from` are no part; `None` if nothing
    /// that is smaller than the whole does.
    pub(crate) fn record(&mut self, id: u64, now: (&Snapshot, &UsageWindow), from: Timestamp) -> Option<Recorded> {
        let (snapshot, usage) = now;
        let new = |(vm, samples): (&VmId, &Vec<UsageSample>)| {
            let last = self.usage.samples(vm).last().map_or(from, |last| last.at);
            let new: Vec<_> = samples.iter().filter(|sample| sample.at > last).copied().collect();
            (!new.is_empty()).then(|| (vm.clone(), new))
        };
        let since = Recorded::Since(Since {
            after: self.at?,
            revision: snapshot.revision(),
            changes: changes(&self.snapshot, snapshot),
            from,
            usage: usage.0.iter().filter_map(new).collect(),
        });
        // What cannot be told so, such as a sample that came late, is told whole.
        let led = self.play(id, &since) && self.usage == *usage && changes(&self.snapshot, snapshot).is_empty();
        led.then_some(since)
    }
}

/// What turns the records of `from` into those of `to`.
fn changes(from: &Snapshot, to: &Snapshot) -> Vec<Change> {
    let customers = to.customers().filter(|new| from.customer(&new.id) != Some(new)).cloned().map(Change::Customer);
    let hosts = to.hosts().filter(|new| from.host(&new.id) != Some(new)).cloned().map(Change::Host);
    let vms = to.vms().filter(|new| from.vm(&new.id) != Some(new)).cloned().map(Change::Vm);
    let lost_vms = from.vms().filter(|old| to.vm(&old.id).is_none()).map(|old| Change::VmRemoved(old.id.clone()));
    let lost_hosts =
        from.hosts().filter(|old| to.host(&old.id).is_none()).map(|old| Change::HostRemoved(old.id.clone()));
    let lost_customers = from.customers().filter(|old| to.customer(&old.id).is_none());
    let lost_customers = lost_customers.map(|old| Change::CustomerRemoved(old.id.clone()));
    customers.chain(hosts).chain(vms).chain(lost_vms).chain(lost_hosts).chain(lost_customers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;
    use vibra_model::Command;

    fn whole(snapshot: &Snapshot, usage: &UsageWindow) -> Recorded {
        let whole = Whole {
            customer: id("shop"),
            recipe: Recipe::default(),
            state: None,
            snapshot: snapshot.clone(),
            usage: usage.clone(),
        };
        Recorded::Whole(Box::new(whole))
    }

    /// As it comes out of the log.
    fn read(recorded: &Recorded) -> Recorded {
        serde_json::from_str(&serde_json::to_string(recorded).unwrap()).unwrap()
    }

    #[test]
    fn differences_lead_to_what_was_known() {
        let directory = directory();
        let (mut recorder, mut player) = (Player::default(), Player::default());
        let first = whole(&directory.now(), &usage(1, &[("hot", 5)]));
        assert!(recorder.play(1, &first) && player.play(1, &read(&first)));
        for step in 2..6u64 {
            let to = Command::Propose(single(directory.now().revision(), "hot", 500 - step).proposal());
            directory.run(to).unwrap();
            if step == 4 {
                directory.run(Command::RemoveVm(id("cold"))).unwrap();
            }
            let (snapshot, mut now) = (directory.now(), usage(step, &[("hot", 5 + step)]));
            let before = recorder.usage.samples(&id("hot")).to_vec();
            now.0.get_mut(&id("hot")).unwrap().splice(..0, before.into_iter().filter(|s| s.at.0 + 2 > step));
            let recorded = recorder.record(step, (&snapshot, &now), Timestamp(step - 2)).unwrap();
            let text = serde_json::to_string(&recorded).unwrap();
            assert_eq!(text.matches("egress").count(), 1, "each sample once: {text}");
            assert!(player.play(step, &read(&recorded)));
            assert_eq!((&player.usage, player.snapshot.revision()), (&now, snapshot.revision()));
            assert!(player.snapshot.vms().eq(snapshot.vms()) && player.snapshot.hosts().eq(snapshot.hosts()));
        }
    }

    #[test]
    fn what_differences_do_not_lead_to_is_not_recorded_as_such() {
        let snapshot = directory().now();
        let mut recorder = Player::default();
        assert_eq!(
            recorder.record(1, (&snapshot, &usage(5, &[("hot", 5)])), Timestamp(0)),
            None,
            "nothing is known yet"
        );
        recorder.play(1, &whole(&snapshot, &usage(5, &[("hot", 5)])));
        let late = usage(4, &[("hot", 5)]);
        assert_eq!(
            recorder.record(2, (&snapshot, &late), Timestamp(0)),
            None,
            "an older sample instead of a newer one"
        );
    }

    #[test]
    fn after_a_lost_line_nothing_is_known_until_the_next_whole() {
        let snapshot = directory().now();
        let (mut recorder, mut player) = (Player::default(), Player::default());
        let window = |at| usage(at, &[("hot", 5)]);
        let first = whole(&snapshot, &window(1));
        recorder.play(1, &first);
        player.play(1, &first);
        recorder.record(2, (&snapshot, &window(2)), Timestamp(1)).unwrap();
        let third = recorder.record(3, (&snapshot, &window(3)), Timestamp(2)).unwrap();
        assert!(!player.play(3, &third), "the second is missing");
        assert!(!player.play(4, &Recorded::LeftOut { bytes: 1 }));
        assert!(player.play(5, &whole(&snapshot, &window(5))));
    }
}
