//! What is known of the window 1998-06-30 18:10-18:20 (GMT+2), and what is measured on its relatives.

use super::COLUMNS;

/// The window's first second: 1998-06-30 16:10:00 UTC, in seconds since 1970.
pub(super) const START: u64 = 899_223_000;

/// Requests and bytes of each minute, from the Internet Traffic Archive's counts by minute: 1,483,126 requests and
/// 3,725,375,085 bytes.
pub(super) const MINUTES: [(u64, u64); 10] = [
    (141_269, 357_903_821),
    (147_232, 363_672_942),
    (150_255, 376_750_439),
    (149_626, 374_652_917),
    (147_021, 372_257_785),
    (146_507, 363_123_737),
    (147_921, 381_726_120),
    (149_779, 364_360_655),
    (148_398, 388_785_636),
    (155_118, 382_141_033),
];

/// Table 3.1, Charsum, percent of the requests.
pub(super) const REQUESTS: [u64; COLUMNS] = [27, 27, 20, 26];

/// Table 3.1, Charsum, percent of the bytes.
pub(super) const BYTES: [u64; COLUMNS] = [14, 64, 10, 12];

/// Table 3.1, Charsum, distinct objects.
pub(super) const OBJECTS: [usize; COLUMNS] = [1167, 1159, 1143, 1187];

/// Table 3.1, Charsum, bytes of the distinct objects together.
pub(super) const DISTINCT_BYTES: [u64; COLUMNS] = [15_000_000, 13_000_000, 14_000_000, 14_000_000];

/// Percent of all bytes of each of the eight hot files, in the order of [`super::HOT`].
///
/// Section 3.5.1 has two of the facts: 24 for the English splash screen, and 57.6 for all together (90% of the 64% of
/// sub-namespace 2). How the other seven divide the rest shows in the rows of Table 3.1 for MD5 and SHA-1, which put these
/// files into different sub-namespaces: beside the bytes of the other objects, eight equations. This is their least-squares
/// solution, with the two images in the proportion of their bytes in the evening sample, and program to statistics the same
/// in both languages. It meets the eight percentages to within 2.1 points.
pub(super) const HOT_BYTES: [f64; 8] = [24.0, 4.8, 7.73, 4.35, 4.94, 2.78, 5.3, 3.7];

/// Spread of the requests of a second around those of its minute, beyond what independent clients would give: the
/// standard deviation of a second's expected requests, divided by their mean. From the archive's counts by second of
/// 1998-06-25 to 27: in the 201 minutes with 2,000 to 3,100 requests a second, the variance of a second's requests is
/// 2.43 times their mean (median), and 2,472 is the window's mean: sqrt((2.43 - 1) / 2472).
pub(super) const SECOND_SPREAD: f64 = 0.0241;

/// Requests a client: 10,000 requests of 1,026 clients in the evening sample.
pub(super) const REQUESTS_A_CLIENT: f64 = 10_000.0 / 1_026.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_add_up() {
        let sum = |part: fn(&(u64, u64)) -> u64| MINUTES.iter().map(part).sum::<u64>();
        assert_eq!((sum(|minute| minute.0), sum(|minute| minute.1)), (1_483_126, 3_725_375_085));
        assert!((HOT_BYTES.iter().sum::<f64>() - 0.9 * 64.0).abs() < 1e-9);
        assert_eq!((REQUESTS.iter().sum::<u64>(), BYTES.iter().sum::<u64>()), (100, 100));
    }
}
