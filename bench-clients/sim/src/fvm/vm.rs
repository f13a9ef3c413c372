//! A VM of the testbed: its threads and its clock.

use super::{Testbed, VmFared, memory::Touched};
use rand_chacha::ChaCha8Rng;
use std::{collections::VecDeque, time::Duration};
use vibra_model::{Timestamp, VmId};
use vibra_policy::fvm::{Fvm, Monitor};

/// A thread.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Thread {
    /// The ticks that it has computed in this unit of work.
    pub(super) done: u32,
    pub(super) memory: Touched,
}

/// What a VM is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No thread of it is ready.
    Idle,
    /// It waits for the CPU, has it, or waits for pages.
    Busy,
    /// It sleeps between two ticks.
    Asleep,
}

pub(super) struct Vm {
    pub(super) id: VmId,
    pub(super) state: State,
    pub(super) random: ChaCha8Rng,
    /// How it adapts, if it does.
    pub(super) fvm: Option<Fvm>,
    /// The slowdown that it decided by in this period, which the host knows.
    pub(super) slowdown: Option<f64>,
    /// What the host knows of its ticks, if it does not adapt.
    pub(super) watch: Monitor,
    /// Since when it has waited for its next tick.
    pub(super) since: Timestamp,
    /// Threads that are ready to compute; the first one does, if any.
    pub(super) ready: VecDeque<Thread>,
    /// Threads that wait for files.
    pub(super) waiting: u32,
    /// Threads that were suspended.
    pub(super) suspended: Vec<Thread>,
    /// Threads that were never resumed.
    pub(super) fresh: u32,
    threads: u32,
    counted: Counted,
}

#[derive(Default)]
struct Counted {
    units: u64,
    ticks: u64,
    waited: Duration,
    levels: f64,
}

impl Vm {
    /// A VM none of whose threads has begun.
    pub(super) fn new(id: VmId, fvm: Option<Fvm>, watch: Monitor, testbed: &Testbed, random: ChaCha8Rng) -> Vm {
        Vm {
            id,
            state: State::Idle,
            random,
            fvm,
            slowdown: None,
            watch,
            since: Timestamp::ZERO,
            ready: VecDeque::new(),
            waiting: 0,
            suspended: Vec::new(),
            fresh: testbed.threads,
            threads: testbed.threads,
            counted: Counted::default(),
        }
    }

    /// Threads that are not suspended.
    pub(super) fn active(&self) -> u32 {
        self.ready.len() as u32 + self.waiting
    }

    /// How many may be active.
    pub(super) fn limit(&self) -> u32 {
        self.fvm.as_ref().map_or(self.threads, |fvm| fvm.level().get().min(self.threads))
    }

    /// Between how many seconds its ticks have to be apart at least.
    pub(super) fn pause(&self) -> Option<Duration> {
        self.fvm.as_ref()?.rate().map(|rate| Duration::from_secs_f64(1.0 / rate))
    }

    /// Takes note of a tick that took so long, for the result.
    pub(super) fn count_tick(&mut self, took: Duration) {
        self.counted.ticks += 1;
        self.counted.waited += took;
        self.counted.levels += f64::from(self.limit());
    }

    /// Takes note of a unit of work that is done, for the result.
    pub(super) fn count_unit(&mut self) {
        self.counted.units += 1;
    }

    /// How it fared over `length`.
    pub(super) fn fared(&self, length: Duration) -> VmFared {
        let Counted { units, ticks, waited, levels } = self.counted;
        VmFared {
            throughput: units as f64 / length.as_secs_f64(),
            vct: (ticks > 0).then(|| waited.div_f64(ticks as f64)),
            level: if ticks > 0 { levels / ticks as f64 } else { f64::from(self.limit()) },
        }
    }
}
