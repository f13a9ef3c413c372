//! What a working set is estimated from. Pure.

use crate::stat::PAGE;

/// What was seen at the end of a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Observation {
    /// Memory in use, page cache included, in bytes.
    pub in_use: u64,
    /// Of it page cache, in bytes.
    pub page_cache: u64,
    /// Of that what was not used in the period, in bytes.
    pub idle: u64,
    /// Pages of files that were given up and read again in the period.
    pub refaults: u64,
}

/// The working set, in bytes: all that is in use but the page cache that was not used in the period, and what was used
/// but did not fit. The second number is the page cache's part.
pub fn estimate(seen: Observation) -> (u64, u64) {
    // A page that was read again is in use and not idle by now, unless others pushed it out once more: what did not fit
    // is at most what is idle less than the pages that were read again.
    let again = seen.refaults.saturating_mul(PAGE);
    let idle = seen.idle.min(seen.page_cache).min(seen.in_use);
    let missing = again.saturating_sub(seen.page_cache - idle);
    (seen.in_use - idle + missing, seen.page_cache - idle + missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_was_not_used_does_not_count() {
        let seen = Observation { in_use: 100 * MIB, page_cache: 60 * MIB, idle: 45 * MIB, refaults: 0 };
        assert_eq!(estimate(seen), (55 * MIB, 15 * MIB));
    }

    #[test]
    fn what_did_not_fit_counts() {
        // 60 MiB of cache, all used, and 80 MiB read again: the files in turn are more than the cache.
        let seen = Observation { in_use: 100 * MIB, page_cache: 60 * MIB, idle: 0, refaults: 80 * 256 };
        assert_eq!(estimate(seen), (120 * MIB, 80 * MIB));
    }

    proptest! {
        #[test]
        fn no_numbers_overflow(in_use: u64, page_cache: u64, idle: u64, refaults in 0..u64::MAX / PAGE / 4) {
            let limit = u64::MAX / 4;
            let seen = Observation { in_use: in_use % limit, page_cache: page_cache % limit, idle, refaults };
            let (whole, cached) = estimate(seen);
            prop_assert!(whole >= seen.in_use.saturating_sub(seen.page_cache));
            prop_assert!(cached >= seen.page_cache - idle.min(seen.page_cache));
        }
    }
}
