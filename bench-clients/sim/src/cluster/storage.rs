//! Memory and disk of a VM: whole objects, the least recently used leave first, in front of a disk with one arm, by the same
//! rules as in the in-process VMs of the agent; or of a disk whose reads the kernel throttles.

use super::{Nanos, hardware::Disk, lru::Lru, throttle::Gate};
use foldhash::fast::FixedState;
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};
use vibra_model::Bytes;

/// The disk's block, in bytes.
const BLOCK: u64 = 512;

/// When an object's data is at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// It is in memory.
    Now,
    /// It is read from disk until then.
    At(Nanos),
    /// The disk has too much to do.
    Refused,
}

#[derive(Debug, Clone)]
pub(super) struct Storage {
    cached: Lru<u64>,
    used: u64,
    capacity: u64,
    disk: Disk,
    /// The reads under way: whoever asks for the same object waits for the same read.
    reading: HashMap<u32, Nanos, FixedState>,
    /// The same reads in the order of their ends.
    ends: VecDeque<(Nanos, u32, u64)>,
    free_at: Nanos,
    gate: Option<Gate>,
    /// By how much reads take longer than the disk alone would: 1 unless memory is overcommitted.
    pub(super) slowdown: f64,
    blocks: u64,
    hits: u64,
    misses: u64,
    touched: Option<Touched>,
}

impl Storage {
    /// Empty. The working set is what was touched within `window`; `None`: it is not measured.
    pub(super) fn new(capacity: u64, disk: Disk, window: Option<Duration>) -> Self {
        Storage {
            cached: Lru::new(),
            used: 0,
            capacity,
            disk,
            reading: HashMap::default(),
            ends: VecDeque::new(),
            free_at: 0,
            gate: disk.throttle.map(Gate::new),
            slowdown: 1.0,
            blocks: 0,
            hits: 0,
            misses: 0,
            touched: window.map(|window| Touched { window: window.as_nanos() as u64, last: Lru::new(), bytes: 0 }),
        }
    }

    /// Asks for the data of an object of `size` at `now`.
    #[inline]
    pub(super) fn access(&mut self, object: u32, size: u64, now: Nanos) -> Access {
        let size = size.next_multiple_of(self.disk.page.0.max(1));
        self.finish_reads(now);
        if let Some(touched) = &mut self.touched {
            touched.touch(object, size, now);
        }
        if size == 0 || self.cached.touch(object).is_some() {
            self.hits += 1;
            return Access::Now;
        }
        self.misses += 1;
        self.read(object, size, now)
    }

    fn read(&mut self, object: u32, size: u64, now: Nanos) -> Access {
        if let Some(&end) = self.reading.get(&object) {
            return Access::At(end);
        }
        let takes = (self.disk.service_time(Bytes(size)).as_nanos() as f64 * self.slowdown) as u64;
        let end = if let Some(gate) = &mut self.gate {
            // One after another where sizes differ much: reads are found in the order of their ends.
            self.free_at = self.free_at.max(gate.pass(now) + takes);
            self.free_at
        } else {
            let start = self.free_at.max(now);
            if start - now > self.disk.longest_wait.as_nanos() as u64 {
                return Access::Refused;
            }
            self.free_at = start + takes;
            self.free_at
        };
        self.blocks += size.div_ceil(BLOCK);
        self.reading.insert(object, end);
        self.ends.push_back((end, object, size));
        Access::At(end)
    }

    /// Moves what was read by `now` into memory.
    #[inline]
    fn finish_reads(&mut self, now: Nanos) {
        while let Some(&(end, object, size)) = self.ends.front()
            && end <= now
        {
            self.ends.pop_front();
            self.reading.remove(&object);
            // What can never fit would only push everything else out.
            if size <= self.capacity {
                self.cached.put(object, size);
                self.used += size;
                self.shrink();
            }
        }
    }

    /// Changes the capacity; what no longer fits leaves at once, the least recently used first.
    pub(super) fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.used > self.capacity
            && let Some((_, size)) = self.cached.pop_oldest()
        {
            self.used -= size;
        }
    }

    /// Bytes in memory.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Blocks of 512 bytes that were read from disk, those under way included.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How many accesses found their object in memory, and how many did not.
    pub(super) fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }

    /// Bytes of the distinct objects that were touched within the window that ends at `now`, if that is measured.
    pub(super) fn working_set(&mut self, now: Nanos) -> Option<u64> {
        let touched = self.touched.as_mut()?;
        touched.forget(now);
        Some(touched.bytes)
    }
}

/// The objects touched within a window.
#[derive(Debug, Clone)]
struct Touched {
    window: Nanos,
    last: Lru<(Nanos, u64)>,
    bytes: u64,
}

impl Touched {
    fn touch(&mut self, object: u32, size: u64, now: Nanos) {
        self.forget(now);
        if self.last.put(object, (now, size)).is_none() {
            self.bytes += size;
        }
    }

    fn forget(&mut self, now: Nanos) {
        while let Some((_, (at, size))) = self.last.oldest()
            && now - at > self.window
        {
            self.last.pop_oldest();
            self.bytes -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::hardware::Throttle, *};
    use proptest::prelude::*;
    use vibra_model::BytesPerSec;

    const MS: Nanos = 1_000_000;
    const DISK: Disk = Disk {
        seek: Duration::from_millis(10),
        transfer: BytesPerSec(1_000_000),
        longest_wait: Duration::from_secs(1),
        throttle: None,
        page: Bytes(1),
    };

    fn storage(capacity: u64) -> Storage {
        Storage::new(capacity, DISK, Some(Duration::from_secs(60)))
    }

    // The cases and numbers are those of the in-process VM's tests: both models mean the same.

    #[test]
    fn reads_follow_one_another_and_the_same_read_serves_all_who_wait() {
        let mut storage = storage(100_000);
        assert_eq!(storage.access(1, 40_000, 0), Access::At(50 * MS));
        assert_eq!(storage.access(2, 10_000, MS), Access::At(70 * MS));
        assert_eq!(storage.access(1, 40_000, 2 * MS), Access::At(50 * MS));
        assert_eq!(storage.access(1, 40_000, 50 * MS), Access::Now);
        assert_eq!(storage.access(3, 10_000, 100 * MS), Access::At(120 * MS));
        assert_eq!(storage.blocks(), 79 + 20 + 20);
    }

    #[test]
    fn the_least_recently_used_leave_first_and_a_decrease_acts_at_once() {
        let mut storage = storage(30);
        for object in [1, 2, 3] {
            storage.access(object, 10, 0);
        }
        assert_eq!(storage.access(1, 10, 100 * MS), Access::Now);
        storage.set_capacity(19);
        assert_eq!(storage.used(), 10);
        assert_eq!(storage.access(1, 10, 100 * MS), Access::Now);
        assert!(matches!(storage.access(3, 10, 100 * MS), Access::At(_)));
    }

    #[test]
    fn a_throttled_disk_reads_by_slices_and_counts_pages() {
        let throttle = Some(Throttle { reads_per_s: 20, slice: Duration::from_millis(100) });
        let disk = Disk { throttle, page: Bytes(4_096), ..DISK };
        let mut storage = Storage::new(10_000, disk, None);
        // Each takes 14.096 ms, all at the same time; two pass in a slice.
        let ends = [1, 2, 3].map(|object| storage.access(object, 1, 0));
        assert_eq!(ends, [Access::At(14_096_000), Access::At(14_096_000), Access::At(114_096_000)]);
        assert_eq!(storage.blocks(), 24);
        let later = [3, 2].map(|object| storage.access(object, 1, MS * 120));
        assert_eq!(later, [Access::Now; 2], "there is room for two pages");
    }

    #[test]
    fn a_disk_with_too_much_to_do_refuses() {
        let mut storage = storage(0);
        let taken = (0..200).filter(|&object| storage.access(object, 1_000, 0) != Access::Refused).count();
        assert_eq!((taken, storage.blocks()), (91, 182));
    }

    #[test]
    fn the_working_set_is_what_was_touched_lately() {
        let mut storage = storage(0);
        storage.access(1, 10, 0);
        storage.access(2, 5, 30_000 * MS);
        storage.access(2, 5, 40_000 * MS);
        assert_eq!(storage.working_set(60_000 * MS), Some(15));
        assert_eq!(storage.working_set(61_000 * MS), Some(5));
        assert_eq!(storage.working_set(101_000 * MS), Some(0));
    }

    #[test]
    fn a_cycle_larger_than_memory_never_hits_and_a_smaller_one_always() {
        for (objects, misses) in [(10, 10), (11, 110)] {
            let mut storage = storage(10 * 100);
            let missed =
                (0..110).filter(|step| storage.access(step % objects, 100, u64::from(*step) * 100 * MS) != Access::Now);
            assert_eq!(missed.count(), misses, "{objects} objects, room for 10");
        }
    }

    proptest! {
        #[test]
        fn memory_never_exceeds_its_capacity(
            steps in prop::collection::vec((0u32..20, 0u64..200, prop::option::of(0u64..500)), 1..200)
        ) {
            let (mut storage, mut now, mut capacity) = (storage(300), 0, 300);
            for (object, pause, resize) in steps {
                now += pause * MS;
                storage.access(object, u64::from(object) * 13, now);
                if let Some(to) = resize {
                    storage.set_capacity(to);
                    capacity = to;
                }
                prop_assert!(storage.used() <= capacity);
                prop_assert_eq!(storage.reading.len(), storage.ends.len());
            }
        }
    }
}
