//! Follows the rule on a control group, for a bounded time.

use super::{Next, Pain, Seen, Shrink, Signs, WATCH};
use crate::host::cgroup::Cgroup;
use std::{
    fs, io,
    thread::sleep,
    time::{Duration, Instant},
};
use vibra_guest::stat::Pressure;
use vibra_model::Bytes;

/// How long one order may take: less than the agent waits for an actuator. What is missing then goes on at the next.
const LONGEST: Duration = Duration::from_millis(1_500);

/// What keeps memory from being taken. What is in force is read back, as ever.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Held {
    /// The VM did not bear it.
    #[error("it does not bear less than {borne}: {pain}")]
    Pain {
        /// What it bears.
        borne: Bytes,
        /// What it showed.
        #[source]
        pain: Pain,
    },
    /// No more can be taken.
    #[error("its memory stands still above {0}: it cannot give up more")]
    Stuck(Bytes),
}

/// The memory of one control group, and where it is on its way to.
#[derive(Debug, Default)]
pub(crate) struct Limit {
    shrink: Option<Shrink>,
    began: Option<Instant>,
}

impl Limit {
    /// Limits the memory of `group`: what is given is given at once, what is taken goes as far as the VM bears it and
    /// as the time allows. To be asked for again, as long as more is in force.
    ///
    /// # Errors
    /// Those of the kernel's files.
    pub(crate) fn set(&mut self, group: &dyn Cgroup, limit: Bytes) -> io::Result<Result<(), Held>> {
        if group.memory()?.is_some_and(|actual| actual <= limit) {
            self.shrink = None;
            return group.set_memory(limit).map(Ok);
        }
        let begun = self.shrink.take().filter(|shrink| shrink.target() == limit);
        let mut shrink = begun.unwrap_or_else(|| Shrink::new(limit));
        let origin = *self.began.get_or_insert_with(Instant::now);
        let until = Instant::now() + LONGEST;
        let mut held = Ok(());
        while Instant::now() < until {
            match shrink.next(see(group, origin)?) {
                Next::Ask(amount) => ask(group, amount)?,
                Next::Watch => {}
                Next::Revert(amount, pain) => {
                    group.set_memory(amount)?;
                    held = Err(Held::Pain { borne: amount, pain });
                    break;
                }
                Next::Rest(_) => break,
                Next::Done => return Ok(Ok(())),
                Next::Stuck(asked) => {
                    // The kernel tries for the moment of the order only.
                    ask(group, asked)?;
                    held = Err(Held::Stuck(asked));
                    break;
                }
            }
            sleep(WATCH.min(until.saturating_duration_since(Instant::now())));
        }
        self.shrink = Some(shrink);
        Ok(held)
    }
}

/// Asks the kernel; that it cannot just now shows in what is read back.
fn ask(group: &dyn Cgroup, amount: Bytes) -> io::Result<()> {
    match group.set_memory(amount) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        done => done,
    }
}

fn see(group: &dyn Cgroup, origin: Instant) -> io::Result<Seen> {
    let memory = group.memory_statistics()?;
    let signs = Signs {
        stalled: pressure(group).map(Signs::stalled),
        major_faults: memory.major_faults,
        refaults: memory.refaults,
        swapped: memory.swapped_in,
    };
    let floor = Bytes(memory.in_use.0.saturating_sub(memory.active_file.0 + memory.inactive_file.0));
    let actual = group.memory()?.unwrap_or(Bytes(u64::MAX));
    Ok(Seen { at: origin.elapsed(), actual, in_use: memory.in_use, floor, signs })
}

/// The group's own pressure, or the whole host's where groups have none (version 1).
fn pressure(group: &dyn Cgroup) -> Option<Pressure> {
    let own = group.pressure();
    own.or_else(|| Pressure::parse(&fs::read_to_string("/proc/pressure/memory").ok()?))
}
