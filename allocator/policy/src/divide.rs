//! Dividing a whole number of units in proportion to weights, with floors and with room on hosts.

use crate::room::Rooms;
use std::cmp::Reverse;

/// Weights are rounded to this many parts of the largest. Shares are then exact in whole numbers; a VM with a demand
/// below 2⁻⁴⁰ of the largest counts as having none.
const WEIGHT_PARTS: f64 = (1u64 << 40) as f64;

/// One who takes part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Claim {
    /// How much he is due relative to others; finite and not negative.
    pub weight: f64,
    /// The least he gets.
    pub floor: u64,
    /// The number of his host, if it has one.
    pub host: Option<usize>,
}

/// Divides `total` among `claims` in proportion to their weights: share_i = max(floor_i, λ·weight_i), with the one λ
/// for which the shares sum to `total` exactly (equation 3.2 where no floor binds). Fractions go to the largest
/// remainders. A host's claims together get no more than `rooms` leaves there; what a full host cannot take goes to
/// the others, and only if every host is full is less than `total` given out.
///
/// `None` if the floors do not fit, or no one has a weight.
pub(crate) fn divide(total: u64, claims: &[Claim], rooms: &Rooms) -> Option<Vec<u64>> {
    let largest = claims.iter().map(|claim| claim.weight).fold(0.0, f64::max);
    if largest <= 0.0 || !largest.is_finite() {
        return None;
    }
    let mut division = Division {
        weights: claims.iter().map(|claim| (claim.weight / largest * WEIGHT_PARTS) as u64).collect(),
        shares: vec![0; claims.len()],
        claims,
    };
    let mut open: Vec<usize> = (0..claims.len()).collect();
    let mut free = total;
    loop {
        division.fill(free, &open)?;
        let (mut full, rest) = division.on_full_hosts(open, rooms);
        if full.is_empty() {
            return Some(division.shares);
        }
        full.sort_by_key(|&i| claims[i].host);
        for group in full.chunk_by(|&i, &j| claims[i].host == claims[j].host) {
            let room = rooms.left(claims[group[0]].host).unwrap_or(0);
            division.fill(room, group)?;
            free -= room;
        }
        open = rest;
    }
}

struct Division<'a> {
    claims: &'a [Claim],
    weights: Vec<u64>,
    shares: Vec<u64>,
}

impl Division<'_> {
    /// Divides `free` among the claims in `group`, by water-filling; `None` if their floors do not fit.
    ///
    /// All of it is whole numbers: free < 2⁶⁴, weights ≤ 2⁴⁰ and fewer than 2²⁴ claims, so that no product leaves
    /// 128 bits.
    fn fill(&mut self, free: u64, group: &[usize]) -> Option<()> {
        let (claims, weights) = (self.claims, &self.weights);
        let floors: u128 = group.iter().map(|&i| u128::from(claims[i].floor)).sum();
        if floors > u128::from(free) {
            return None;
        }
        let mut free = u128::from(free);
        let mut weight: u128 = group.iter().map(|&i| u128::from(weights[i])).sum();
        let bound_by_floor = |i: usize, free: u128, weight: u128| {
            weights[i] == 0 || free * u128::from(weights[i]) < u128::from(claims[i].floor) * weight
        };
        // Each floor that binds leaves relatively less to the others, so λ only falls, and those whose floor is
        // largest for their weight are bound first.
        let (mut bound, mut above): (Vec<usize>, Vec<usize>) =
            group.iter().copied().partition(|&i| bound_by_floor(i, free, weight));
        while !bound.is_empty() {
            for &i in &bound {
                self.shares[i] = claims[i].floor;
                free -= u128::from(claims[i].floor);
                weight -= u128::from(weights[i]);
            }
            (bound, above) = above.into_iter().partition(|&i| bound_by_floor(i, free, weight));
        }
        self.apportion(free, weight, above);
        Some(())
    }

    /// share_i = free·weight_i / weight, rounded so that they sum to `free` (largest remainders, then first come).
    fn apportion(&mut self, free: u128, weight: u128, group: Vec<usize>) {
        let mut given = 0;
        let mut remainders = Vec::with_capacity(group.len());
        for i in group {
            let product = free * u128::from(self.weights[i]);
            let share = product / weight;
            // The share is at most `free`, which came as 64 bits.
            self.shares[i] = share as u64;
            given += share;
            remainders.push((Reverse(product - share * weight), i));
        }
        // Fewer units are left over than there are claims.
        let left_over = (free - given) as usize;
        if left_over > 0 && left_over < remainders.len() {
            remainders.select_nth_unstable(left_over);
        }
        for &(_, i) in remainders.iter().take(left_over) {
            self.shares[i] += 1;
        }
    }

    /// Parts those whose host cannot take what they got together from the rest.
    fn on_full_hosts(&self, open: Vec<usize>, rooms: &Rooms) -> (Vec<usize>, Vec<usize>) {
        let mut wanted = vec![0u64; rooms.0.len()];
        for &i in &open {
            if let Some(host) = self.claims[i].host {
                wanted[host] = wanted[host].saturating_add(self.shares[i]);
            }
        }
        let full = |i: usize| {
            let host = self.claims[i].host;
            rooms.left(host).is_some_and(|left| host.is_some_and(|host| wanted[host] > left))
        };
        open.into_iter().partition(|&i| full(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(total: u64, claims: &[(f64, u64)]) -> Option<Vec<u64>> {
        let claims: Vec<_> = claims.iter().map(|&(weight, floor)| Claim { weight, floor, host: None }).collect();
        divide(total, &claims, &Rooms(Vec::new()))
    }

    #[test]
    fn shares_are_in_proportion_and_sum_to_the_total() {
        assert_eq!(divided(100, &[(1.0, 0), (3.0, 0)]), Some(vec![25, 75]));
        assert_eq!(divided(100, &[(1.0, 0), (1.0, 0), (1.0, 0)]), Some(vec![34, 33, 33]));
        assert_eq!(divided(1, &[(0.4, 0), (0.6, 0)]), Some(vec![0, 1]), "the largest remainder gets the odd unit");
        assert_eq!(divided(u64::MAX, &[(f64::MAX, 0), (f64::MAX, 1)]), Some(vec![u64::MAX / 2 + 1, u64::MAX / 2]));
    }

    #[test]
    fn what_a_floor_takes_the_others_lack_in_proportion() {
        // λ = 10 at first. The floor of 40 binds; it leaves λ = 60/9, at which the floor of 8 binds too.
        assert_eq!(divided(100, &[(1.0, 40), (1.0, 8), (8.0, 0)]), Some(vec![40, 8, 52]));
        assert_eq!(divided(100, &[(0.0, 5), (1.0, 0)]), Some(vec![5, 95]));
    }

    #[test]
    fn what_cannot_be_divided_is_not() {
        assert_eq!(divided(100, &[(1.0, 60), (1.0, 41)]), None);
        assert_eq!(divided(100, &[(0.0, 1), (0.0, 1)]), None);
        assert_eq!(divided(100, &[]), None);
        assert_eq!(divided(100, &[(f64::INFINITY, 0)]), None);
    }
}
