//! Maglev hashing.

use crate::{candidates::Candidates, circle::Circle, cluster::Server, hash::mix, ring::distinct};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The least table size, that of the paper's small table. At least 100 entries a server keep the shares even.
const LEAST_SIZE: usize = 65_537;

/// Maglev's look-up table (Eisenbud et al., NSDI 2016, section 3.4): each server fills the next free entry of its own
/// permutation of the table in turn. Weights make turns more frequent: the heaviest server has a turn in every round,
/// the others as often as their weight is of its.
#[derive(Debug, Clone)]
pub(crate) struct Maglev {
    /// The server of each entry; a prime number of them, or none if no server serves.
    entries: Vec<u32>,
}

/// One server while the table is filled.
struct Filler {
    server: u32,
    /// The next entry of its permutation, and the step to the one after: (offset + j · skip) mod M.
    next: usize,
    skip: usize,
    weight: u64,
    /// What it has saved up for its next turn, which costs the largest weight.
    credit: u64,
}

impl Maglev {
    pub(crate) fn new(servers: &[Server]) -> Self {
        let size = prime_from(LEAST_SIZE.max(100 * servers.len()));
        let serving = (0..).zip(servers).filter(|(_, server)| server.state.serves());
        let mut fillers: Vec<Filler> = serving.map(|(i, server)| Filler::new(i, server, size)).collect();
        let Some(turn) = fillers.iter().map(|filler| filler.weight).max() else {
            return Maglev { entries: Vec::new() };
        };
        let mut entries = vec![u32::MAX; size];
        let mut free = size;
        while free > 0 {
            for filler in &mut fillers {
                filler.credit += filler.weight;
                if filler.credit >= turn && free > 0 {
                    filler.credit -= turn;
                    filler.fill(&mut entries);
                    free -= 1;
                }
            }
        }
        Maglev { entries }
    }

    /// The serving servers of a hash in order of preference: that of its entry, then those of the entries after it.
    pub(crate) fn preferred(&self, hash: u64, count: usize, circle: &Circle) -> Candidates {
        if self.entries.is_empty() {
            return Candidates::new();
        }
        let entry = (mix(hash) % self.entries.len() as u64) as usize;
        let (before, after) = self.entries.split_at(entry);
        distinct(after.iter().chain(before).map(|&server| server as usize), count, circle)
    }
}

impl Filler {
    fn new(server: u32, of: &Server, size: usize) -> Self {
        let hash = |seed, range: usize| (xxh3_64_with_seed(of.name.as_str().as_bytes(), seed) % range as u64) as usize;
        let (next, skip) = (hash(0, size), hash(1, size - 1) + 1);
        Filler { server, next, skip, weight: u64::from(of.weight), credit: 0 }
    }

    /// Takes the next free entry of the permutation. There is one: the permutation goes over the whole table.
    fn fill(&mut self, entries: &mut [u32]) {
        while entries[self.next] != u32::MAX {
            self.next = (self.next + self.skip) % entries.len();
        }
        entries[self.next] = self.server;
    }
}

/// The first prime at or after `n`.
fn prime_from(n: usize) -> usize {
    let is_prime = |&n: &usize| n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    // There is always one before twice n (Bertrand's postulate).
    (n..).find(is_prime).unwrap_or(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::servers;
    use proptest::prelude::*;

    /// How many entries each server has.
    fn counts(servers: &[Server]) -> Vec<usize> {
        let mut counts = vec![0; servers.len()];
        Maglev::new(servers).entries.iter().for_each(|&server| counts[server as usize] += 1);
        counts
    }

    #[test]
    fn primes_are_found() {
        assert_eq!(prime_from(LEAST_SIZE), LEAST_SIZE);
        assert_eq!([prime_from(2), prime_from(90), prime_from(100_000)], [2, 97, 100_003]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Section 3.4: servers differ by one entry at most, as each has the same number of turns.
        #[test]
        fn equal_servers_have_equal_parts(up in prop::collection::vec(prop::bool::weighted(0.9), 1..60)) {
            prop_assume!(up.contains(&true));
            let counts: Vec<usize> = counts(&servers(&up)).into_iter().filter(|&count| count > 0).collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }

        #[test]
        fn parts_follow_weights(weights in prop::collection::vec(1u32..20, 2..30)) {
            let mut servers = servers(&vec![true; weights.len()]);
            servers.iter_mut().zip(&weights).for_each(|(server, &weight)| server.weight = weight);
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts(&servers).into_iter().zip(&weights) {
                let share = LEAST_SIZE as f64 * f64::from(*weight) / f64::from(total);
                // Turns are whole: each server may still owe one, which is made up for by up to N turns more that go
                // by weight; and the last round may end early.
                let tolerance = weights.len() as f64 * f64::from(*weight) / f64::from(total) + 2.0;
                prop_assert!((count as f64 - share).abs() <= tolerance, "{} for {}", count, share);
            }
        }

        /// Figure 12 of the paper: with M = 65,537 and one server of many failing, few of the others' entries change.
        #[test]
        fn a_failure_moves_few_other_entries(n in 3usize..60, failed in 0usize..60) {
            let failed = failed % n;
            let before = Maglev::new(&servers(&vec![true; n])).entries;
            let up: Vec<bool> = (0..n).map(|i| i != failed).collect();
            let after = Maglev::new(&servers(&up)).entries;
            let pairs = before.iter().zip(&after);
            let moved = pairs.filter(|(old, new)| **old != failed as u32 && old != new).count();
            prop_assert!((moved as f64) < 0.02 * LEAST_SIZE as f64, "{} moved", moved);
        }
    }
}
