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
