//! Memory and disk of an in-process VM, as one state machine that is told the time.

use crate::ObjectId;
use lru::LruCache;
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use tokio::time::Instant;
use vibra_model::{Bytes, BytesPerSec};

/// The disk's block, in bytes.
const BLOCK: u64 = 512;

/// A disk with one arm: a read costs a seek and the transfer, and reads follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskModel {
    /// Time to get to the data: seek and half a turn.
    pub seek: Duration,
    /// Transfer rate.
    pub transfer: BytesPerSec,
    /// A read that would have to wait longer than this is refused, and its request with it.
    pub longest_wait: Duration,
}

impl Default for DiskModel {
    /// A SATA disk of 2009 at 7,200 turns a minute: 8.5 ms and 60 MB/s; waits up to 30 s.
    fn default() -> Self {
        DiskModel {
            seek: Duration::from_micros(8_500),
            transfer: BytesPerSec(60_000_000),
            longest_wait: Duration::from_secs(30),
        }
    }
}

impl DiskModel {
    /// How long the arm is busy with a read of `size`.
    pub fn service_time(&self, size: Bytes) -> Duration {
        self.seek + Duration::from_secs_f64(size.0 as f64 / self.transfer.0.max(1) as f64)
    }
}

/// When an object's data is at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It is in memory.
    Now,
    /// It is read from disk until then.
    At(Instant),
    /// The disk has too much to do.
    Refused,
}

/// A whole-object LRU cache in front of a disk, and the working set beside it.
pub(crate) struct Storage {
    cached: LruCache<ObjectId, Bytes>,
    used: Bytes,
    capacity: Bytes,
    disk: DiskModel,
    /// The reads under way: whoever asks for the same object waits for the same read.
    reading: HashMap<ObjectId, (Instant, Bytes)>,
    /// The same reads by their end, so that those that are done are found at once.
    ends: BTreeMap<(Instant, ObjectId), Bytes>,
    free_at: Option<Instant>,
    blocks: u64,
    touched: Touched,
}

impl Storage {
    /// An empty cache of `capacity` in front of `disk`; the working set is what was touched within `window`.
    pub(crate) fn new(capacity: Bytes, disk: DiskModel, window: Duration) -> Self {
        Storage {
            cached: LruCache::unbounded(),
            used: Bytes::ZERO,
            capacity,
            disk,
            reading: HashMap::new(),
            ends: BTreeMap::new(),
            free_at: None,
            blocks: 0,
            touched: Touched { window, last: LruCache::unbounded(), bytes: 0 },
        }
    }

    /// Asks for the data of an object of `size` at `now`.
    pub(crate) fn access(&mut self, object: ObjectId, size: Bytes, now: Instant) -> Access {
        self.finish_reads(now);
        self.touched.touch(object, size, now);
        if size == Bytes::ZERO || self.cached.get(&object).is_some() {
            return Access::Now;
        }
        if let Some(&(end, _)) = self.reading.get(&object) {
            return Access::At(end);
        }
        let start = self.free_at.map_or(now, |free| free.max(now));
        if start.duration_since(now) > self.disk.longest_wait {
            return Access::Refused;
        }
        let end = start + self.disk.service_time(size);
        self.free_at = Some(end);
        self.blocks += size.0.div_ceil(BLOCK);
        self.reading.insert(object, (end, size));
        self.ends.insert((end, object), size);
        Access::At(end)
    }

    /// Moves what was read by `now` into the cache.
    fn finish_reads(&mut self, now: Instant) {
        while let Some(entry) = self.ends.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, object), size) = entry.remove_entry();
            self.reading.remove(&object);
            // What can never fit would only push everything else out.
            if size <= self.capacity {
                self.cached.put(object, size);
                self.used.0 += size.0;
                self.shrink();
            }
        }
    }

    /// Changes the cache's capacity; what no longer fits leaves at once, the least recently used first.
    pub(crate) fn set_capacity(&mut self, capacity: Bytes) {
        self.capacity = capacity;
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.used > self.capacity
            && let Some((_, size)) = self.cached.pop_lru()
        {
            self.used = self.used.saturating_sub(size);
        }
    }

    /// Bytes in the cache.
    pub(crate) fn used(&self) -> Bytes {
        self.used
    }

    /// Blocks of 512 bytes that were read from disk, those under way included.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Bytes of the distinct objects that were touched within the window that ends at `now`.
    pub(crate) fn working_set(&mut self, now: Instant) -> Bytes {
        self.touched.forget(now);
        Bytes(self.touched.bytes)
    }
}

/// The objects touched within a window, the longest untouched last.
struct Touched {
    window: Duration,
    last: LruCache<ObjectId, (Instant, u64)>,
    bytes: u64,
}

impl Touched {
    fn touch(&mut self, object: ObjectId, size: Bytes, now: Instant) {
        self.forget(now);
        if self.last.put(object, (now, size.0)).is_none() {
            self.bytes += size.0;
        }
    }

    fn forget(&mut self, now: Instant) {
        while self.last.peek_lru().is_some_and(|(_, (at, _))| now.duration_since(*at) > self.window) {
            if let Some((_, (_, size))) = self.last.pop_lru() {
                self.bytes -= size;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: Duration = Duration::from_secs(60);
    const DISK: DiskModel = DiskModel {
        seek: Duration::from_millis(10),
        transfer: BytesPerSec(1_000_000),
        longest_wait: Duration::from_secs(1),
    };

    fn storage(capacity: u64) -> (Storage, Instant) {
        (Storage::new(Bytes(capacity), DISK, WINDOW), Instant::now())
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_miss_costs_seek_and_transfer_and_a_hit_nothing() {
        let (mut storage, t) = storage(100_000);
        assert_eq!(storage.access(ObjectId(1), Bytes(40_000), t), Access::At(t + ms(50)));
        assert_eq!(storage.access(ObjectId(1), Bytes(40_000), t + ms(50)), Access::Now);
        assert_eq!((storage.used(), storage.blocks()), (Bytes(40_000), 79));
    }

    #[test]
    fn reads_follow_one_another_and_the_same_read_serves_all_who_wait() {
        let (mut storage, t) = storage(100_000);
        assert_eq!(storage.access(ObjectId(1), Bytes(40_000), t), Access::At(t + ms(50)));
        assert_eq!(storage.access(ObjectId(2), Bytes(10_000), t + ms(1)), Access::At(t + ms(70)));
        assert_eq!(storage.access(ObjectId(1), Bytes(40_000), t + ms(2)), Access::At(t + ms(50)));
        assert_eq!(storage.access(ObjectId(3), Bytes(10_000), t + ms(100)), Access::At(t + ms(120)));
        assert_eq!(storage.blocks(), 79 + 20 + 20);
    }

    #[test]
    fn the_least_recently_used_leave_first_and_a_decrease_acts_at_once() {
        let (mut storage, t) = storage(30);
        for object in [1, 2, 3] {
            storage.access(ObjectId(object), Bytes(10), t);
        }
        let later = t + ms(100);
        assert_eq!(storage.access(ObjectId(1), Bytes(10), later), Access::Now);
        storage.set_capacity(Bytes(19));
        assert_eq!(storage.used(), Bytes(10));
        assert_eq!(storage.access(ObjectId(1), Bytes(10), later), Access::Now);
        assert!(matches!(storage.access(ObjectId(3), Bytes(10), later), Access::At(_)));
    }

    #[test]
    fn what_exceeds_the_memory_passes_through() {
        let (mut storage, t) = storage(30);
        storage.access(ObjectId(1), Bytes(10), t);
        storage.access(ObjectId(2), Bytes(31), t + ms(50));
        assert!(matches!(storage.access(ObjectId(2), Bytes(31), t + ms(200)), Access::At(_)));
        assert_eq!(storage.access(ObjectId(1), Bytes(10), t + ms(200)), Access::Now);
    }

    #[test]
    fn a_disk_with_too_much_to_do_refuses() {
        let (mut storage, t) = storage(0);
        let accesses = (0..200).map(|object| storage.access(ObjectId(object), Bytes(1_000), t));
        let taken = accesses.filter(|access| *access != Access::Refused).count();
        // Each takes 11 ms, and the last to be taken waits no longer than 1 s.
        assert_eq!((taken, storage.blocks()), (91, 182));
    }

    #[test]
    fn the_working_set_is_what_was_touched_lately() {
        let (mut storage, t) = storage(0);
        storage.access(ObjectId(1), Bytes(10), t);
        storage.access(ObjectId(2), Bytes(5), t + ms(30_000));
        storage.access(ObjectId(2), Bytes(5), t + ms(40_000));
        assert_eq!(storage.working_set(t + WINDOW), Bytes(15));
        assert_eq!(storage.working_set(t + ms(61_000)), Bytes(5));
        assert_eq!(storage.working_set(t + ms(101_000)), Bytes::ZERO);
    }

    proptest! {
        #[test]
        fn the_cache_never_exceeds_its_capacity(
            steps in prop::collection::vec((0u32..20, 0u64..200, prop::option::of(0u64..500)), 1..200)
        ) {
            let (mut storage, mut now) = storage(300);
            let mut capacity = 300;
            for (object, pause, resize) in steps {
                now += ms(pause);
                storage.access(ObjectId(object), Bytes(u64::from(object) * 13), now);
                if let Some(to) = resize {
                    storage.set_capacity(Bytes(to));
                    capacity = to;
                }
                prop_assert!(storage.used().0 <= capacity);
                let held: u64 = storage.cached.iter().map(|(_, size)| size.0).sum();
                prop_assert_eq!(storage.used().0, held);
                prop_assert_eq!(storage.reading.len(), storage.ends.len());
            }
        }
    }
}
