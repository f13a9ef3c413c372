//! The serving servers in cluster order, wrapping.

use crate::cluster::Server;

/// Answers "the next k available servers from VM i" (section 4.3.3) with a slice that was laid out beforehand.
#[derive(Debug, Clone)]
pub(crate) struct Circle {
    /// The indexes of the serving servers in cluster order, twice in a row: what wraps is one slice.
    twice: Vec<u32>,
    /// For each server i, where in `twice` the first serving one at or after i stands.
    start: Vec<u32>,
}

impl Circle {
    pub(crate) fn new(servers: &[Server]) -> Self {
        let serving: Vec<u32> =
            (0..).zip(servers).filter(|(_, server)| server.state.serves()).map(|(i, _)| i).collect();
        let mut before = 0;
        let mut start = Vec::with_capacity(servers.len());
        for server in servers {
            start.push(before);
            before += u32::from(server.state.serves());
        }
        Circle { twice: [&serving[..], &serving[..]].concat(), start }
    }

    /// N: how many servers there are, serving or not.
    #[inline]
    pub(crate) fn servers(&self) -> usize {
        self.start.len()
    }

    /// The serving servers in cluster order.
    #[inline]
    pub(crate) fn serving(&self) -> &[u32] {
        &self.twice[..self.twice.len() / 2]
    }

    /// The first `count` serving servers from server `i` on; all of them if there are fewer.
    #[inline]
    pub(crate) fn from(&self, i: usize, count: usize) -> &[u32] {
        let start = self.start[i] as usize;
        &self.twice[start..start + count.min(self.twice.len() / 2)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::servers;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_the_walk_that_it_replaces(up in prop::collection::vec(any::<bool>(), 1..40), i in 0usize..40, count in 0usize..50) {
            let i = i % up.len();
            let circle = Circle::new(&servers(&up));
            let walk = (0..up.len()).map(|step| (i + step) % up.len()).filter(|&at| up[at]).take(count);
            prop_assert!(circle.from(i, count).iter().map(|&at| at as usize).eq(walk));
        }
    }
}
