//! How much memory a stream of accesses needs: LRU stack distances.

use foldhash::fast::FixedState;
use std::collections::HashMap;

/// Counts for each access the bytes of the distinct objects asked for since the last access to its own, itself included:
/// its stack distance (Mattson et al. 1970). An LRU cache of whole objects that is at least as large has it. In the space of
/// the distinct objects, and in time logarithmic in their number for each access.
///
/// ```
/// let mut reuse = vibra_sim::Reuse::default();
/// for object in [1, 2, 3, 1, 2, 3, 3] {
///     reuse.access(object, 100);
/// }
/// // With room for one object the last access alone finds its own; with room for three all but the first three do.
/// assert_eq!(reuse.hit_share(100), Some(1.0 / 7.0));
/// assert_eq!(reuse.hit_share(300), Some(4.0 / 7.0));
/// assert_eq!((reuse.memory_for(1.0), reuse.distinct_bytes()), (300, 300));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Reuse {
    /// A Fenwick tree of sizes by the position of each object's last access.
    tree: Vec<u64>,
    last: HashMap<u32, (usize, u64), FixedState>,
    next: usize,
    /// Distances with how often they were found; large ones in steps of 0.2 %.
    distances: HashMap<u64, u64, FixedState>,
    accesses: u64,
    distinct: u64,
}

/// The least room for positions.
const LEAST: usize = 1 << 10;

impl Reuse {
    /// An access to an object of `size` bytes. A size that changes counts from then on.
    pub fn access(&mut self, object: u32, size: u64) {
        self.accesses += 1;
        if self.next == self.tree.len() {
            self.renumber();
        }
        match self.last.get(&object).copied() {
            Some((position, before)) => {
                let distance = self.sum(self.next) - self.sum(position) + size.max(before);
                *self.distances.entry(step(distance)).or_default() += 1;
                self.add(position, before, false);
                self.distinct = self.distinct - before + size;
            }
            None => self.distinct += size,
        }
        self.last.insert(object, (self.next, size));
        self.add(self.next, size, true);
        self.next += 1;
    }

    /// Gives the objects the first positions, in the order of their last accesses, and leaves as many free.
    fn renumber(&mut self) {
        let mut order: Vec<_> = self.last.iter().map(|(&object, &(position, size))| (position, object, size)).collect();
        order.sort_unstable();
        self.tree = vec![0; (2 * order.len()).max(LEAST)];
        self.next = order.len();
        for (position, (_, object, size)) in order.into_iter().enumerate() {
            self.last.insert(object, (position, size));
            self.add(position, size, true);
        }
    }

    fn add(&mut self, position: usize, size: u64, more: bool) {
        let mut node = position + 1;
        while node <= self.tree.len() {
            let sum = &mut self.tree[node - 1];
            *sum = if more { *sum + size } else { *sum - size };
            node += node & node.wrapping_neg();
        }
    }

    /// Of the sizes at the positions up to this one, itself included.
    fn sum(&self, position: usize) -> u64 {
        let (mut node, mut sum) = ((position + 1).min(self.tree.len()), 0);
        while node > 0 {
            sum += self.tree[node - 1];
            node -= node & node.wrapping_neg();
        }
        sum
    }

    /// The share of all accesses that an LRU cache of so many bytes would have had; `None` if there were none. Distances
    /// over a kilobyte are kept to 0.2 %.
    pub fn hit_share(&self, memory: u64) -> Option<f64> {
        let had: u64 = self.distances.iter().filter(|(distance, _)| **distance <= memory).map(|(_, count)| count).sum();
        (self.accesses > 0).then(|| had as f64 / self.accesses as f64)
    }

    /// How large a cache must be to have this share of what the largest would have.
    pub fn memory_for(&self, share: f64) -> u64 {
        let mut distances: Vec<_> = self.distances.iter().map(|(&distance, &count)| (distance, count)).collect();
        distances.sort_unstable();
        let all: u64 = distances.iter().map(|(_, count)| count).sum();
        let mut had = 0;
        for (distance, count) in distances {
            had += count;
            if had as f64 >= share * all as f64 {
                return distance.min(self.distinct);
            }
        }
        self.distinct
    }

    /// Bytes of all objects.
    pub fn distinct_bytes(&self) -> u64 {
        self.distinct
    }

    /// Accesses to objects that were not asked for before: what even the largest cache does not have.
    pub fn first_accesses(&self) -> u64 {
        self.last.len() as u64
    }
}

/// The end of the step in which a distance lies: small ones are exact, others have ten significant bits.
fn step(distance: u64) -> u64 {
    let digits = 64 - distance.leading_zeros();
    let below = digits.saturating_sub(10);
    if below == 0 { distance } else { ((distance >> below) << below).saturating_add((1 << below) - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_what_an_lru_list_of_that_size_has(
            accesses in prop::collection::vec(0u32..40, 1..400),
            room in 1usize..45,
        ) {
            let mut reuse = Reuse::default();
            let (mut list, mut hits) = (Vec::new(), 0);
            for &object in &accesses {
                reuse.access(object, 8);
                let place = list.iter().position(|&other| other == object);
                hits += u32::from(place.is_some_and(|place| list.len() - place <= room));
                place.map(|place| list.remove(place));
                list.push(object);
            }
            prop_assert_eq!(reuse.hit_share(8 * room as u64), Some(f64::from(hits) / accesses.len() as f64));
        }
    }

    #[test]
    fn positions_are_used_again_and_large_distances_are_near() {
        let mut reuse = Reuse::default();
        for step in 0..100_000u32 {
            reuse.access(step % 100, 1_000_000);
        }
        assert!(reuse.tree.len() <= LEAST, "{}", reuse.tree.len());
        assert_eq!(reuse.hit_share(99_000_000), Some(0.0));
        assert_eq!(reuse.hit_share(100_200_000), Some(0.999));
        assert_eq!((reuse.memory_for(0.9), reuse.first_accesses()), (100_000_000, 100));
    }
}
