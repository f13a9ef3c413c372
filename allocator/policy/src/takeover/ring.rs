//! Who stands in for whom on the ring of a cluster.

/// For each absent VM of a cluster those that take its place, each for an equal part of its work; nobody for a VM that
/// is present, and nobody at all where none is. `present` has the VMs in cluster order: VM_1, …, VM_N of section 3.3.1.
///
/// When all are well, subset i serves sub-namespace i: the R VMs from VM_i on. With VMs absent it is the next R available
/// ones (section 4.3.3). So each place of an absent VM goes to one newcomer of that subset, those nearest first; with one
/// VM absent these are the next R VMs, each once. Where fewer than R are left all of them serve every sub-namespace.
pub fn heirs(present: &[bool], replicas: usize) -> Vec<Vec<usize>> {
    let (servers, replicas) = (present.len(), replicas.min(present.len()));
    let available: Vec<usize> = (0..servers).filter(|&vm| present[vm]).collect();
    let of = |absent: usize| -> Vec<usize> {
        if present[absent] || available.is_empty() {
            return Vec::new();
        }
        if available.len() < replicas {
            return available.clone();
        }
        let firsts = (0..replicas).rev().map(|back| (absent + servers - back) % servers);
        firsts.map(|first| newcomer(present, &available, first, replicas, absent)).collect()
    };
    (0..servers).map(of).collect()
}

/// Who serves the sub-namespace of VM `first` in place of `absent`. At least `replicas` VMs are available.
fn newcomer(present: &[bool], available: &[usize], first: usize, replicas: usize, absent: usize) -> usize {
    let servers = present.len();
    let subset = (0..replicas).map(|step| (first + step) % servers);
    let remaining = subset.clone().filter(|&vm| present[vm]).count();
    let earlier = subset.take_while(|&vm| vm != absent).filter(|&vm| !present[vm]).count();
    // Those that remain are the first available ones from `first` on; the newcomers follow them.
    let start = available.partition_point(|&vm| vm < first);
    available[(start + remaining + earlier) % available.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_next_r_take_over_from_one() {
        assert_eq!(heirs(&[false, true, true, true], 2), [vec![1, 2], vec![], vec![], vec![]], "Figure 4.2");
        assert_eq!(heirs(&[true, true, true, false], 2)[3], [0, 1]);
        assert_eq!(heirs(&[true, false, true, true], 1)[1], [2]);
    }

    #[test]
    fn the_places_of_neighbours_that_fail_together_go_to_different_vms() {
        // N = 6, R = 2, and VM_2 and VM_3 fail. Subset 1 is VM_1, VM_4; subset 2, which lost both, VM_4, VM_5; subset 3 too.
        let heirs = heirs(&[true, false, false, true, true, true], 2);
        assert_eq!((&heirs[1], &heirs[2]), (&vec![3, 3], &vec![4, 4]));
    }

    #[test]
    fn the_last_ones_take_over_all_and_nobody_nothing() {
        assert_eq!(heirs(&[false, true, false], 2), [vec![1], vec![], vec![1]]);
        assert_eq!(heirs(&[false, true, true], 3)[0], [1, 2]);
        assert_eq!(heirs(&[false, false], 2), [vec![], Vec::<usize>::new()]);
        assert!(heirs(&[], 2).is_empty());
    }

    proptest! {
        /// What each place of each subset becomes is the walk of section 4.3.3, and nothing else.
        #[test]
        fn newcomers_are_those_that_skipping_finds(present in prop::collection::vec(any::<bool>(), 1..12), replicas in 1usize..12) {
            let available = present.iter().filter(|&&present| present).count();
            let (servers, replicas) = (present.len(), replicas.min(available));
            let heirs = heirs(&present, replicas);
            let mut found: Vec<usize> = heirs.concat();
            let walk = |first: usize| (0..servers).map(move |step| (first + step) % servers);
            let mut expected = Vec::new();
            for first in 0..servers {
                let before: Vec<_> = walk(first).take(replicas).collect();
                expected.extend(walk(first).filter(|&vm| present[vm]).take(replicas).filter(|vm| !before.contains(vm)));
            }
            found.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
