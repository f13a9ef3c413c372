//! Ranked servers, and the loads that rank them.

use smallvec::SmallVec;
use vibra_model::Timestamp;

/// Server indexes, the best first, no index twice, all of them serving. On the stack up to 8.
pub type Candidates = SmallVec<[usize; INLINE]>;

/// How many candidates fit without allocation.
pub(crate) const INLINE: usize = 8;

/// The servers' active requests, as the dispatcher counts them: sent, and not yet answered to the end.
pub trait Loads {
    /// The active requests of the server at this index.
    fn active(&self, server: usize) -> u32;
}

impl Loads for [u32] {
    #[inline]
    fn active(&self, server: usize) -> u32 {
        self[server]
    }
}

impl<const N: usize> Loads for [u32; N] {
    #[inline]
    fn active(&self, server: usize) -> u32 {
        self[server]
    }
}

impl Loads for Vec<u32> {
    #[inline]
    fn active(&self, server: usize) -> u32 {
        self[server]
    }
}

/// Every server idle.
#[derive(Debug, Clone, Copy, Default)]
pub struct Idle;

impl Loads for Idle {
    #[inline]
    fn active(&self, _: usize) -> u32 {
        0
    }
}

/// What a pick goes by, besides table and state.
#[derive(Debug)]
pub(crate) struct Request<'a, L: ?Sized> {
    /// The object name.
    pub(crate) name: &'a str,
    pub(crate) loads: &'a L,
    pub(crate) now: Timestamp,
}

/// Ranks `subset` by active requests, ties in the order they stand in. Each load is read once: it may change meanwhile.
#[inline]
pub(crate) fn rank(subset: &mut [usize], loads: &(impl Loads + ?Sized)) {
    match subset {
        [] | [_] => {}
        [a, b] => {
            if loads.active(*b) < loads.active(*a) {
                std::mem::swap(a, b);
            }
        }
        _ => {
            let ranked = best(subset.iter().copied(), subset.len(), |server| loads.active(server));
            subset.copy_from_slice(&ranked);
        }
    }
}

/// The `count` servers with the lowest keys, ties in the order they come in.
#[inline]
pub(crate) fn best<K: Ord>(
    servers: impl Iterator<Item = usize>,
    count: usize,
    mut key: impl FnMut(usize) -> K,
) -> Candidates {
    let mut ranked: SmallVec<[(K, usize); INLINE]> = SmallVec::new();
    for server in servers {
        let key = key(server);
        if ranked.len() == count {
            match ranked.last() {
                Some((worst, _)) if key < *worst => ranked.pop(),
                _ => continue,
            };
        }
        let place = ranked.partition_point(|(better, _)| *better <= key);
        ranked.insert(place, (key, server));
    }
    ranked.into_iter().map(|(_, server)| server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_best_are_the_first_of_a_stable_sort(loads in prop::collection::vec(0u32..6, 0..30), count in 0usize..30) {
            let mut sorted: Vec<usize> = (0..loads.len()).collect();
            sorted.sort_by_key(|&i| loads[i]);
            sorted.truncate(count);
            prop_assert_eq!(best(0..loads.len(), count, |i| loads[i]).to_vec(), sorted);
        }

        #[test]
        fn ranking_is_a_stable_sort(loads in prop::collection::vec(0u32..4, 0..12)) {
            let mut ranked: Vec<usize> = (0..loads.len()).collect();
            let mut sorted = ranked.clone();
            rank(&mut ranked, &loads);
            sorted.sort_by_key(|&i| loads[i]);
            prop_assert_eq!(ranked, sorted);
        }
    }
}
