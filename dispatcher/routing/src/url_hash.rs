//! URL hashing as the dissertation has it: N sub-namespaces, each served by R consecutive servers (section 3.3.1).

use crate::{circle::Circle, hash::mix, settings::Remap};

/// The sub-namespace of a hash, 0 to N-1: the hash modulo N.
#[inline]
pub(crate) fn sub_namespace(hash: u64, servers: usize) -> usize {
    (hash % servers as u64) as usize
}

/// The serving servers of a hash in order of preference, at most `count`: its subset of R, then the next ones.
#[inline]
pub(crate) fn preferred(hash: u64, circle: &Circle, remap: Remap, count: usize) -> &[u32] {
    match remap {
        Remap::Skip => circle.from(sub_namespace(hash, circle.servers()), count),
        Remap::Naive if circle.serving().is_empty() => &[],
        Remap::Naive => circle.from(circle.serving()[naive_sub_namespace(hash, circle)] as usize, count),
    }
}

/// The sub-namespace of a hash when the names are divided anew among the n available servers: 0 to n-1.
///
/// Figure 4.1 is about dividing one unit interval into n equal ranges (its 50 % in the worst case and 37 % on average
/// for N = 10 follow from nothing else). So that this is the hash modulo N as long as all servers are available, a
/// name's place in the interval is (hash mod N + v) / N, where v, in [0, 1), is its place within its sub-namespace.
pub(crate) fn naive_sub_namespace(hash: u64, circle: &Circle) -> usize {
    let (all, available) = (circle.servers(), circle.serving().len());
    let within = u128::from(mix(hash));
    let place = ((sub_namespace(hash, all) as u128) << 64) + within;
    ((place * available as u128 / all as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::servers;
    use proptest::prelude::*;

    /// The subset of a sub-namespace under `skip`, by index.
    fn subset(i: usize, up: &[bool], replicas: usize) -> Vec<usize> {
        let circle = Circle::new(&servers(up));
        preferred(i as u64, &circle, Remap::Skip, replicas).iter().map(|&server| server as usize).collect()
    }

    #[test]
    fn figure_4_2() {
        // N = 4, R = 2, and VM_1 fails: namespace 4 goes to VM_4 or VM_2, 1 and 2 to VM_2 or VM_3, 3 stays.
        let before: Vec<_> = (0..4).map(|i| subset(i, &[true; 4], 2)).collect();
        let after: Vec<_> = (0..4).map(|i| subset(i, &[false, true, true, true], 2)).collect();
        assert_eq!(before, [[0, 1], [1, 2], [2, 3], [3, 0]]);
        assert_eq!(after, [[1, 2], [1, 2], [2, 3], [3, 1]]);
        assert_eq!(lost(&before, &after), 2);
    }

    /// How many instances of sub-namespaces are no longer where they were.
    fn lost(before: &[Vec<usize>], after: &[Vec<usize>]) -> usize {
        before.iter().zip(after).map(|(old, new)| old.iter().filter(|server| !new.contains(server)).count()).sum()
    }

    #[test]
    fn under_skip_one_failure_moves_exactly_one_nth() {
        for n in 1..=24 {
            for replicas in 1..=n {
                let before: Vec<_> = (0..n).map(|i| subset(i, &vec![true; n], replicas)).collect();
                for failed in 0..n {
                    let up: Vec<bool> = (0..n).map(|i| i != failed).collect();
                    let after: Vec<_> = (0..n).map(|i| subset(i, &up, replicas)).collect();
                    // R of the R N instances: 1/N. Each is found anew as long as there are R servers.
                    assert_eq!(lost(&before, &after), replicas, "N = {n}, R = {replicas}, VM_{} fails", failed + 1);
                    assert!(after.iter().all(|subset| subset.len() == replicas.min(n - 1)));
                }
            }
        }
    }

    proptest! {
        /// With any number of failures, only what the failed servers held is lost.
        #[test]
        fn under_skip_what_others_hold_stays(up in prop::collection::vec(any::<bool>(), 1..40), replicas in 1usize..40) {
            let n = up.len();
            let replicas = replicas.min(n);
            let before: Vec<_> = (0..n).map(|i| subset(i, &vec![true; n], replicas)).collect();
            let after: Vec<_> = (0..n).map(|i| subset(i, &up, replicas)).collect();
            let failed = up.iter().filter(|&&up| !up).count();
            prop_assert_eq!(lost(&before, &after), failed * replicas);
        }

        #[test]
        fn without_a_failure_both_remaps_are_the_same(n in 1usize..50, hash in any::<u64>()) {
            let circle = Circle::new(&servers(&vec![true; n]));
            let by = |remap| preferred(hash, &circle, remap, n);
            prop_assert_eq!(by(Remap::Skip), by(Remap::Naive));
        }
    }

    /// The part of all instances that `naive` loses when `failed` fails, over many hashes.
    fn naive_loss(n: usize, replicas: usize, failed: usize) -> f64 {
        const HASHES: u64 = 20_000;
        let all = Circle::new(&servers(&vec![true; n]));
        let left = Circle::new(&servers(&(0..n).map(|i| i != failed).collect::<Vec<_>>()));
        let lost = |hash| {
            let new = preferred(hash, &left, Remap::Naive, replicas);
            preferred(hash, &all, Remap::Naive, replicas).iter().filter(|server| !new.contains(server)).count()
        };
        (0..HASHES).map(lost).sum::<usize>() as f64 / (HASHES * replicas as u64) as f64
    }

    fn average(n: usize, replicas: usize) -> f64 {
        (0..n).map(|failed| naive_loss(n, replicas, failed)).sum::<f64>() / n as f64
    }

    /// For R = 1 the average over all failures: of the ranges [s/N, (s+1)/N) and, with VM_j gone, [s/(N-1), (s+1)/(N-1))
    /// for s < j and one place earlier for s > j, the common parts are (N-1-s)/(N(N-1)) and s/(N(N-1)). Their sum, over
    /// all j, leaves (N+1)/(3N) lost.
    fn closed_form(n: usize) -> f64 {
        (n + 1) as f64 / (3 * n) as f64
    }

    #[test]
    fn figure_4_1_one_replica() {
        assert!((closed_form(10) - 0.37).abs() < 0.005);
        for n in [2, 3, 4, 5, 10, 16, 20] {
            assert!((average(n, 1) - closed_form(n)).abs() < 0.01, "N = {n}: {}", average(n, 1));
            // The worst case, for all N: the first or the last fails.
            for failed in [0, n - 1] {
                assert!((naive_loss(n, 1, failed) - 0.5).abs() < 0.015, "N = {n}, VM_{}", failed + 1);
            }
        }
    }

    /// The average over all failures for any R, exactly: both divisions are constant on each of N (N-1) equal cells.
    fn exact(n: usize, replicas: usize) -> f64 {
        let cells = n * (n - 1);
        let lost = |failed: usize, cell: usize| {
            let left: Vec<usize> = (0..n).filter(|&server| server != failed).collect();
            let new: Vec<usize> = (0..replicas).map(|k| left[(cell / n + k) % (n - 1)]).collect();
            (0..replicas).filter(|k| !new.contains(&((cell / (n - 1) + k) % n))).count()
        };
        let total: usize = (0..n).map(|failed| (0..cells).map(|cell| lost(failed, cell)).sum::<usize>()).sum();
        total as f64 / (n * cells * replicas) as f64
    }

    #[test]
    fn figure_4_1_more_replicas() {
        for n in [6, 10, 16] {
            assert!((exact(n, 1) - closed_form(n)).abs() < 1e-12);
            for replicas in 1..=4 {
                let loss = average(n, replicas);
                assert!((loss - exact(n, replicas)).abs() < 0.01, "N = {n}, R = {replicas}: {loss}");
                assert!(loss > 1.1 / n as f64, "N = {n}, R = {replicas}: {loss} is hardly over the optimum");
                assert!(exact(n, replicas + 1) < exact(n, replicas), "N = {n}: more replicas lose less");
            }
        }
    }

    #[test]
    fn charsum_divides_anew_as_well() {
        // Few and small values: the names of a sub-namespace must not all stay or go together.
        use crate::HashKind::Charsum;
        let left = Circle::new(&servers(&[true, true, true, false]));
        let mut seen = [0; 3];
        for i in 0..300 {
            seen[naive_sub_namespace(Charsum.of(&format!("/object/{i}.html")), &left)] += 1;
        }
        assert!(seen.iter().all(|&names| names > 50), "{seen:?}");
    }
}
