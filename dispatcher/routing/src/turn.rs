//! Algorithms that go by whose turn it is: round-robin, least-connection, and their weighted forms.

use crate::{
    candidates::{Candidates, Loads, best},
    circle::Circle,
};
use std::cmp::{Ordering, Reverse};

/// Whose turn it is: all of round-robin's state, and elsewhere the order of ties.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turn {
    /// The server at which the next search begins.
    next: usize,
}

impl Turn {
    /// The first `count` serving servers, from the one whose turn it is.
    pub(crate) fn order<'a>(&self, circle: &'a Circle, count: usize) -> &'a [u32] {
        circle.from(self.next, count)
    }

    /// `chosen` had its turn.
    pub(crate) fn taken(&mut self, chosen: usize, circle: &Circle) {
        self.next = (chosen + 1) % circle.servers();
    }

    /// The servers have moved to new places.
    pub(crate) fn carry(&mut self, moved: &[Option<usize>]) {
        self.next = moved.get(self.next).copied().flatten().unwrap_or(0);
    }
}

/// How those whose turn it is are ranked.
#[derive(Debug, Clone)]
pub(crate) enum InTurn {
    /// Round-robin: by turn alone.
    Any,
    /// Least-connection: by active requests.
    Least,
    /// Weighted least-connection: by the active requests for each unit of weight, this one counted in.
    LeastWeighted(Vec<u32>),
}

impl InTurn {
    /// The best `count` servers. Among equals, the one whose turn it is: an idle cluster is used evenly.
    pub(crate) fn choose(
        &self,
        turn: &Turn,
        circle: &Circle,
        count: usize,
        loads: &(impl Loads + ?Sized),
    ) -> Candidates {
        let all = || turn.order(circle, circle.servers()).iter().map(|&server| server as usize);
        match self {
            InTurn::Any => turn.order(circle, count).iter().map(|&server| server as usize).collect(),
            InTurn::Least => best(all(), count, |server| loads.active(server)),
            InTurn::LeastWeighted(weights) => best(all(), count, |server| Ratio {
                part: u64::from(loads.active(server)) + 1,
                whole: u64::from(weights[server]),
            }),
        }
    }
}

/// A fraction of 33-bit by 32-bit numbers, compared exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ratio {
    part: u64,
    whole: u64,
}

impl Ord for Ratio {
    fn cmp(&self, other: &Self) -> Ordering {
        let cross = |a: u64, b: u64| u128::from(a) * u128::from(b);
        cross(self.part, other.whole).cmp(&cross(other.part, self.whole))
    }
}

impl PartialOrd for Ratio {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The state of weighted round-robin: what each server is owed. At each pick every serving server is owed its weight
/// more, the one that is owed most has its turn, and pays the sum of the weights. So the turns are spread evenly over
/// a round, as in nginx's smooth weighted round-robin.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owed(Vec<i64>);

impl Owed {
    /// The `count` servers that are owed most, ties in cluster order.
    pub(crate) fn choose(&self, weights: &[u32], circle: &Circle, count: usize) -> Candidates {
        let serving = circle.serving().iter().map(|&server| server as usize);
        best(serving, count, |server| Reverse(self.0[server] + i64::from(weights[server])))
    }

    /// `chosen` had its turn.
    pub(crate) fn taken(&mut self, chosen: usize, weights: &[u32], circle: &Circle) {
        for &server in circle.serving() {
            let weight = i64::from(weights[server as usize]);
            self.0[server as usize] += weight;
            self.0[chosen] -= weight;
        }
    }

    /// The servers have moved to new places. Those that do not serve forget what they were owed: it is paid to nobody.
    pub(crate) fn carried(&self, moved: &[Option<usize>], circle: &Circle) -> Owed {
        let mut owed = vec![0; circle.servers()];
        for (&amount, place) in self.0.iter().zip(moved) {
            if let Some(place) = *place {
                owed[place] = amount;
            }
        }
        let mut kept = vec![0; circle.servers()];
        for &server in circle.serving() {
            kept[server as usize] = owed[server as usize];
        }
        Owed(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::servers;

    fn run(weights: &[u32], picks: usize) -> Vec<usize> {
        let circle = Circle::new(&servers(&vec![true; weights.len()]));
        let mut owed = Owed::default().carried(&[], &circle);
        let mut one = || {
            let chosen = owed.choose(weights, &circle, 1)[0];
            owed.taken(chosen, weights, &circle);
            chosen
        };
        (0..picks).map(|_| one()).collect()
    }

    #[test]
    fn heavy_servers_are_not_served_in_bursts() {
        assert_eq!(run(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn the_largest_weights_do_not_overflow() {
        assert_eq!(run(&[u32::MAX, u32::MAX, 1], 4), [0, 1, 0, 1]);
    }

    #[test]
    fn ratios_compare_exactly() {
        let ratio = |part, whole| Ratio { part, whole };
        assert!(ratio(1, 3) < ratio(3_333_334, 10_000_000));
        assert!(ratio(2, 6).cmp(&ratio(1, 3)).is_eq());
        assert!(ratio(1 << 32, 1) > ratio(1 << 32, u64::from(u32::MAX)));
    }
}
