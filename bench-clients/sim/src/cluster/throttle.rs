//! A limit of reads a second, as the kernel keeps it (`blk-throttle.c`, blkio `throttle.read_iops_device`, `io.max`).

use super::{Nanos, hardware::Throttle};

/// Reads wait here in the order of coming. They are counted by slices of time: in each so many whole reads pass as it has
/// room for, as fast as they come, and the others wait for the next one. So a limit of 117 a second, in slices of 100 ms,
/// is one of 110, and idle time of up to a slice is made up for.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    slice: Nanos,
    /// Reads that pass in a slice.
    room: u64,
    /// When this slice began, and what has passed in it.
    start: Nanos,
    passed: u64,
    /// When the last read passed.
    last: Nanos,
}

impl Gate {
    pub(super) fn new(limit: Throttle) -> Self {
        let apart = 1_000_000_000 / Nanos::from(limit.reads_per_s.max(1));
        // Where that is too short for a read, a slice is as long as it has to be.
        let slice = (limit.slice.as_nanos() as Nanos).max(apart).max(1);
        Gate { slice, room: (slice / apart.max(1)).max(1), start: 0, passed: 0, last: 0 }
    }

    /// When a read that comes at `now` passes.
    pub(super) fn pass(&mut self, now: Nanos) -> Nanos {
        let mut at = self.last.max(now);
        if self.passed == 0 || at > self.last + self.slice {
            // Nobody has come so far, or for a slice: the next one begins here.
            (self.start, self.passed) = (at, 0);
        }
        let over = (at - self.start) / self.slice;
        if over > 0 {
            (self.start, self.passed) = (self.start + over * self.slice, 0);
        }
        if self.passed == self.room {
            (self.start, self.passed) = (self.start + self.slice, 0);
            at = self.start;
        }
        self.passed += 1;
        self.last = at;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MS: Nanos = 1_000_000;

    fn gate(reads_per_s: u32) -> Gate {
        Gate::new(Throttle { reads_per_s, slice: Duration::from_millis(100) })
    }

    #[test]
    fn a_slice_passes_what_it_has_room_for_at_once_and_the_next_ones_what_follows() {
        // Measured on Linux 6.18 with a limit of 117 a second: 11 at once, then 11 or 12 every 100 ms, 110 a second.
        let mut gate = gate(117);
        let passed: Vec<_> = (0..25).map(|_| gate.pass(5 * MS) / MS).collect();
        assert_eq!(passed[..11], [5; 11]);
        assert_eq!(passed[11..22], [105; 11]);
        assert_eq!(passed[22..], [205; 3]);
    }

    #[test]
    fn reads_that_keep_below_the_limit_never_wait() {
        let mut gate = gate(100);
        for step in 0..1_000 {
            assert_eq!(gate.pass(step * 11 * MS), step * 11 * MS);
        }
    }

    #[test]
    fn after_a_pause_a_whole_slice_passes_at_once() {
        let mut gate = gate(100);
        (0..15).for_each(|_| assert!(gate.pass(0) <= 100 * MS));
        let passed: Vec<_> = (0..11).map(|_| gate.pass(301 * MS) / MS).collect();
        assert_eq!((passed[9], passed[10]), (301, 401));
    }

    #[test]
    fn a_slow_limit_passes_one_at_a_time() {
        let mut slow = gate(2);
        assert_eq!([0, 0, 0].map(|now| slow.pass(now) / MS), [0, 500, 1_000]);
    }
}
