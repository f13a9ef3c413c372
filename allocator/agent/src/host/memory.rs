//! Takes memory from a VM, as far as it bears that.
//!
//! Memory that holds nothing is taken at once. What holds something is taken in steps, and after each the VM is watched:
//! where it waits for memory, reads again what it had given up, or swaps, and more than before the first step, the last
//! step is taken back, and nothing is taken for a while. What cannot be given up at all is never asked for.
//!
//! [`Shrink`] is the rule, and knows neither clock nor kernel: control groups and balloons follow it alike.

pub(crate) mod drive;

use std::time::Duration;
use vibra_guest::stat::Pressure;
use vibra_model::Bytes;

/// The largest step, unless the VM is large.
const STEP: Bytes = Bytes(16 << 20);
/// The largest step of a large VM: one part in this many of what it uses.
const PART: u64 = 16;
/// How long a step is watched before the next.
pub(crate) const WATCH: Duration = Duration::from_millis(200);
/// How long nothing is taken after a step that was taken back.
const REST: Duration = Duration::from_secs(10);
/// How long an actuator may stand still without having what it was asked for before it counts as stuck.
const STANDSTILL: Duration = Duration::from_secs(2);

/// What is too much over what there was before the first step: waiting for memory, as a part of the time.
const MOST_STALL: f64 = 0.1;
/// Faults that had to read from a disk, a second.
const MOST_MAJOR_FAULTS: f64 = 50.0;
/// Pages that were given up and read again, a second: 4 MiB/s.
const MOST_REFAULTS: f64 = 1024.0;
/// Pages moved from and to swap, a second: 1 MiB/s.
const MOST_SWAPPED: f64 = 256.0;

/// Counters that grow when memory is short; `None`: nobody counts that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Signs {
    /// Time that tasks waited for memory.
    pub(crate) stalled: Option<Duration>,
    /// Faults that had to read from a disk.
    pub(crate) major_faults: Option<u64>,
    /// Pages that were given up and read again.
    pub(crate) refaults: Option<u64>,
    /// Pages moved from and to swap.
    pub(crate) swapped: Option<u64>,
}

impl Signs {
    /// The time that tasks waited, of what a kernel says.
    pub(crate) fn stalled(pressure: Pressure) -> Duration {
        Duration::from_micros(pressure.some_us)
    }
}

/// How fast signs grow, a second; what nobody counts does not grow.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Strain {
    stall: f64,
    major_faults: f64,
    refaults: f64,
    swapped: f64,
}

impl Strain {
    fn between(before: &Signs, after: &Signs, elapsed: Duration) -> Strain {
        let seconds = elapsed.as_secs_f64();
        let rate = |before: Option<u64>, after: Option<u64>| {
            before.zip(after).map_or(0.0, |(before, after)| after.saturating_sub(before) as f64 / seconds)
        };
        let stalled = before.stalled.zip(after.stalled).map(|(before, after)| after.saturating_sub(before));
        Strain {
            stall: stalled.map_or(0.0, |stalled| stalled.as_secs_f64() / seconds),
            major_faults: rate(before.major_faults, after.major_faults),
            refaults: rate(before.refaults, after.refaults),
            swapped: rate(before.swapped, after.swapped),
        }
    }

    /// What has become too much, compared with `usual`.
    fn exceeds(&self, usual: &Strain) -> Option<Pain> {
        let too_much = |now: f64, usual: f64, most: f64| now > usual + most;
        let percent = self.stall * 100.0;
        if too_much(self.stall, usual.stall, MOST_STALL) {
            return Some(Pain { what: "% of the time waiting for memory", now: percent, usual: usual.stall * 100.0 });
        }
        let rates = [
            ("major faults a second", self.major_faults, usual.major_faults, MOST_MAJOR_FAULTS),
            ("pages a second read again", self.refaults, usual.refaults, MOST_REFAULTS),
            ("pages a second swapped", self.swapped, usual.swapped, MOST_SWAPPED),
        ];
        let worst = rates.into_iter().find(|&(_, now, usual, most)| too_much(now, usual, most));
        worst.map(|(what, now, usual, _)| Pain { what, now, usual })
    }
}

/// Why a step was taken back.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{now:.0} {what}, and {usual:.0} before")]
pub(crate) struct Pain {
    what: &'static str,
    now: f64,
    usual: f64,
}

/// What is seen of a VM at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Since any moment, the same for all that one shrink sees.
    pub(crate) at: Duration,
    /// What is in force.
    pub(crate) actual: Bytes,
    /// What the VM uses, page cache included.
    pub(crate) in_use: Bytes,
    /// What the VM could not give up.
    pub(crate) floor: Bytes,
    /// What its host and its guest count.
    pub(crate) signs: Signs,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Next {
    /// Ask the actuator for so much, and look again after [`WATCH`].
    Ask(Bytes),
    /// Look again after [`WATCH`].
    Watch,
    /// The VM did not bear the last step: ask for so much, which it bore, and see when it has rested.
    Revert(Bytes, Pain),
    /// Nothing is taken before that moment.
    Rest(Duration),
    /// The VM has what it shall have, or its floor.
    Done,
    /// The actuator stands still above what it was asked for. It is left alone for a while.
    Stuck(Bytes),
}

/// Memory on its way down.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shrink {
    target: Bytes,
    /// What the actuator was last asked for, and what the VM had borne before that.
    asked: Option<(Bytes, Bytes)>,
    /// When the watching began, and with which signs.
    mark: Option<(Duration, Signs)>,
    /// How it was before the first step.
    usual: Option<Strain>,
    /// The least that the actuator had since it was asked, and since when.
    moved: Option<(Bytes, Duration)>,
    rests_until: Option<Duration>,
}

impl Shrink {
    /// To `target`.
    pub(crate) fn new(target: Bytes) -> Self {
        Shrink { target, asked: None, mark: None, usual: None, moved: None, rests_until: None }
    }

    /// Where to.
    pub(crate) fn target(&self) -> Bytes {
        self.target
    }

    /// What to do, by what is seen now.
    pub(crate) fn next(&mut self, seen: Seen) -> Next {
        if let Some(until) = self.rests_until {
            if seen.at < until {
                return Next::Rest(until);
            }
            // A VM that has rested begins anew: what is usual may have changed.
            *self = Shrink::new(self.target);
        }
        let goal = self.target.max(seen.floor);
        if self.asked.is_none() && seen.actual <= goal {
            return Next::Done;
        }
        if self.asked.is_none() && seen.in_use <= goal {
            return self.ask(goal, seen);
        }
        let Some((since, before)) = self.mark else {
            self.mark = Some((seen.at, seen.signs));
            return Next::Watch;
        };
        let elapsed = seen.at.saturating_sub(since);
        if elapsed < WATCH {
            return Next::Watch;
        }
        let strain = Strain::between(&before, &seen.signs, elapsed);
        let usual = *self.usual.get_or_insert(strain);
        if let (Some((_, borne)), Some(pain)) = (self.asked, strain.exceeds(&usual)) {
            self.rests_until = Some(seen.at + REST);
            return Next::Revert(borne.max(seen.actual), pain);
        }
        self.follow(goal, seen)
    }

    /// The next step, once the last has been followed.
    fn follow(&mut self, goal: Bytes, seen: Seen) -> Next {
        match self.asked {
            Some((asked, _)) if seen.actual > asked => {
                let (least, since) = self.moved.unwrap_or((seen.actual, seen.at));
                let moved = self.moved.is_none() || seen.actual < least;
                self.moved = Some(if moved { (seen.actual, seen.at) } else { (least, since) });
                self.mark = Some((seen.at, seen.signs));
                if moved || seen.at.saturating_sub(since) < STANDSTILL {
                    return Next::Watch;
                }
                self.rests_until = Some(seen.at + REST);
                Next::Stuck(asked)
            }
            _ if seen.actual <= goal => Next::Done,
            _ => {
                let step = STEP.max(Bytes(seen.in_use.0 / PART));
                // What holds nothing goes with the first step.
                let from = seen.actual.min(seen.in_use);
                self.ask(goal.max(from.saturating_sub(step)), seen)
            }
        }
    }

    fn ask(&mut self, amount: Bytes, seen: Seen) -> Next {
        self.asked = Some((amount, seen.actual));
        self.mark = Some((seen.at, seen.signs));
        self.moved = None;
        Next::Ask(amount)
    }
}

#[cfg(test)]
mod tests;
