//! Which of many comes first.

/// The least of a fixed number of values, each of which may change at any time: a winner tree. A change takes a number of
/// steps logarithmic in their number, and who comes first is known at once.
#[derive(Debug, Clone)]
pub(super) struct Tournament {
    /// The values, behind them [`NEVER`] up to a power of two.
    values: Vec<u64>,
    /// Nodes from the root, at 1, on: who wins below.
    winners: Vec<u32>,
}

/// Later than everything.
pub(super) const NEVER: u64 = u64::MAX;

impl Tournament {
    /// All of `count` at [`NEVER`].
    pub(super) fn new(count: usize) -> Self {
        let leaves = count.next_power_of_two().max(2);
        let mut tournament = Tournament { values: vec![NEVER; leaves], winners: vec![0; leaves] };
        for node in (1..leaves).rev() {
            tournament.play(node);
        }
        tournament
    }

    #[inline]
    pub(super) fn set(&mut self, index: usize, value: u64) {
        if self.values[index] == value {
            return;
        }
        self.values[index] = value;
        let mut node = (index + self.values.len()) / 2;
        while node > 0 {
            self.play(node);
            node /= 2;
        }
    }

    /// The least value, and whose it is; of equal ones the first.
    #[inline]
    pub(super) fn first(&self) -> (u64, usize) {
        let winner = self.winners[1] as usize;
        (self.values[winner], winner)
    }

    fn play(&mut self, node: usize) {
        let leaves = self.values.len();
        let winner = |child: usize| if child >= leaves { (child - leaves) as u32 } else { self.winners[child] };
        let (left, right) = (winner(2 * node), winner(2 * node + 1));
        let first = if self.values[right as usize] < self.values[left as usize] { right } else { left };
        self.winners[node] = first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_least_is_known_after_every_change(
            count in 1usize..40,
            changes in prop::collection::vec((0usize..40, 0u64..50), 1..100),
        ) {
            let mut tournament = Tournament::new(count);
            let mut values = vec![NEVER; count];
            for (index, value) in changes {
                let index = index % count;
                tournament.set(index, value);
                values[index] = value;
                let least = values.iter().copied().zip(0..).min().unwrap();
                prop_assert_eq!(tournament.first(), least);
            }
        }
    }
}
