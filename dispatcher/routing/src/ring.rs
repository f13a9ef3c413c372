//! Consistent hashing on a ring of virtual nodes, plain and with bounded loads.

use crate::{
    candidates::{Candidates, Loads},
    circle::Circle,
    cluster::Server,
    hash::mix,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Virtual nodes for a server of average weight, as in ketama.
const NODES: u64 = 160;

/// How many places of a ring or table a search for one more server looks at before it goes on in cluster order.
const STEPS: usize = 16;

/// Takes the first `count` distinct servers of a walk. A walk that keeps meeting the same few (with very unequal
/// weights) is cut short, and the rest follows in cluster order after the first.
pub(crate) fn distinct(walk: impl Iterator<Item = usize>, count: usize, circle: &Circle) -> Candidates {
    let mut found = Candidates::new();
    let count = count.min(circle.serving().len());
    for server in walk.take(STEPS * count) {
        if !found.contains(&server) {
            found.push(server);
        }
        if found.len() == count {
            break;
        }
    }
    fill(found, count, circle)
}

/// Adds serving servers in cluster order after the first, until there are `count`.
fn fill(mut found: Candidates, count: usize, circle: &Circle) -> Candidates {
    let first = found.first().copied().unwrap_or(0);
    for &server in circle.from(first, circle.servers()) {
        if found.len() >= count {
            break;
        }
        if !found.contains(&(server as usize)) {
            found.push(server as usize);
        }
    }
    found
}

/// The ring, after ketama (R. Jones, "libketama", 2007, and Karger et al., "Consistent Hashing and Random Trees",
/// STOC 1997): server i has ⌊160 N w_i / W⌋ points (at least one), and a name belongs to the first point at or after
/// its own. Points come from XXH3 of the server's name with the point's number as seed (ketama: MD5). The numbers of
/// points count unavailable servers in, so that a failure moves no point of the others.
#[derive(Debug, Clone)]
pub(crate) struct Ring {
    /// The points of serving servers, ascending.
    points: Vec<u64>,
    /// Their owners.
    owners: Vec<u32>,
}

impl Ring {
    pub(crate) fn new(servers: &[Server]) -> Self {
        let total: u64 = servers.iter().map(|server| u64::from(server.weight)).sum();
        let mut nodes = Vec::new();
        for (i, server) in (0u32..).zip(servers).filter(|(_, server)| server.state.serves()) {
            let share = u128::from(NODES) * servers.len() as u128 * u128::from(server.weight) / u128::from(total);
            let points = (share as u64).max(1);
            nodes.extend((0..points).map(|k| (xxh3_64_with_seed(server.name.as_str().as_bytes(), k), i)));
        }
        nodes.sort_unstable();
        let (points, owners) = nodes.into_iter().unzip();
        Ring { points, owners }
    }

    /// The owners of the points from the hash's on, once around.
    fn walk(&self, hash: u64) -> impl Iterator<Item = usize> {
        let place = mix(hash);
        let start = self.points.partition_point(|&point| point < place);
        let (before, after) = self.owners.split_at(start);
        after.iter().chain(before).map(|&server| server as usize)
    }

    /// The serving servers of a hash in order of preference.
    pub(crate) fn preferred(&self, hash: u64, count: usize, circle: &Circle) -> Candidates {
        distinct(self.walk(hash), count, circle)
    }
}

/// Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, SODA 2018): no server gets a request
/// that would bring it over c times its share of all active requests, ⌈c (m + 1) w_i / W⌉, where m are active now.
/// The request goes on along the ring instead, to the first server with room.
#[derive(Debug, Clone)]
pub(crate) struct Bounded {
    ring: Ring,
    weights: Vec<u32>,
    /// W: the sum of the serving servers' weights.
    total_weight: f64,
    /// c.
    balance: f64,
}

impl Bounded {
    pub(crate) fn new(servers: &[Server], balance: f64) -> Self {
        let serving = servers.iter().filter(|server| server.state.serves());
        Bounded {
            ring: Ring::new(servers),
            weights: servers.iter().map(|server| server.weight).collect(),
            total_weight: serving.map(|server| f64::from(server.weight)).sum(),
            balance,
        }
    }

    /// The most active requests that each server may have, this one counted in, for `active` requests in all.
    fn bound(&self, active: u64, server: usize) -> f64 {
        (self.balance * (active + 1) as f64 * f64::from(self.weights[server]) / self.total_weight).ceil()
    }

    /// [`bound`](Self::bound) at these loads.
    pub(crate) fn bound_now(&self, server: usize, circle: &Circle, loads: &(impl Loads + ?Sized)) -> f64 {
        self.bound(total(circle, loads), server)
    }

    /// The first server from the hash on that has room, then more with room, then any: a retry is better served late
    /// than refused.
    pub(crate) fn choose(&self, hash: u64, count: usize, circle: &Circle, loads: &(impl Loads + ?Sized)) -> Candidates {
        let active = total(circle, loads);
        let has_room = |server: &usize| f64::from(loads.active(*server)) + 1.0 <= self.bound(active, *server);
        let mut rest = self.ring.walk(hash);
        // The bounds sum up to more than all active requests, so someone has room; it may be far along the ring.
        let Some(first) = rest.find(has_room) else {
            return self.ring.preferred(hash, count, circle);
        };
        distinct(std::iter::once(first).chain(rest.filter(has_room)), count, circle)
    }
}

/// m: the active requests of all serving servers.
fn total(circle: &Circle, loads: &(impl Loads + ?Sized)) -> u64 {
    circle.serving().iter().map(|&server| u64::from(loads.active(server as usize))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::servers;

    #[test]
    fn a_name_belongs_to_the_next_point() {
        let ring = Ring { points: vec![1 << 62, 2 << 62], owners: vec![7, 8] };
        let owner = |place: u64| {
            // The walk starts from the mixed hash; search one that lands where the test wants it.
            let hash = (0..).find(|&hash| mix(hash) >> 62 == place).unwrap();
            ring.walk(hash).collect::<Vec<_>>()
        };
        assert_eq!(owner(0), [7, 8]);
        assert_eq!(owner(1), [8, 7]);
        assert_eq!(owner(3), [7, 8]);
    }

    #[test]
    fn a_server_with_a_tiny_share_is_still_a_fall_back() {
        let mut servers = servers(&[true, true, true]);
        servers[0].weight = 1_000_000_000;
        let circle = Circle::new(&servers);
        let ring = Ring::new(&servers);
        assert_eq!(ring.owners.iter().filter(|&&owner| owner != 0).count(), 2);
        for hash in 0..100 {
            let mut all = ring.preferred(hash, 3, &circle).to_vec();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2]);
        }
    }

    #[test]
    fn bounds_leave_room_for_one_more() {
        let bounded = Bounded::new(&servers(&[true, true, true]), 1.0);
        for active in 0..100u64 {
            let room: f64 = (0..3).map(|server| bounded.bound(active, server)).sum();
            assert!(room >= (active + 1) as f64, "{active}");
        }
    }
}
