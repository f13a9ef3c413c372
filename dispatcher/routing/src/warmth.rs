//! Servers whose caches are cold, and the objects that they serve already.

use crate::{candidates::Candidates, cluster::Server, hash::mix};
use serde::{Deserialize, Serialize};
use std::fmt;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The share of its objects that a server serves already, in thousandths. One that comes back has a cold cache: it
/// begins with a small share, and its understudies, which have served its objects meanwhile, keep the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "u16")]
pub struct Warmth(u16);

impl Warmth {
    /// All of its objects: the server is like any other.
    pub const FULL: Warmth = Warmth(1000);

    /// So many thousandths; [`FULL`](Warmth::FULL) at most.
    pub const fn per_mille(share: u16) -> Self {
        if share < Self::FULL.0 { Warmth(share) } else { Self::FULL }
    }

    /// In thousandths.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl From<u16> for Warmth {
    fn from(share: u16) -> Self {
        Warmth::per_mille(share)
    }
}

impl Default for Warmth {
    fn default() -> Self {
        Warmth::FULL
    }
}

impl fmt::Display for Warmth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ‰", self.0)
    }
}

/// Keeps the draws for warm-up apart from XXH3 as a hash of names.
const SEED: u64 = 0x7761_726d;

/// The serving servers that are not warm, as far as there are warm ones to spare them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Warming(Vec<Cold>);

#[derive(Debug, Clone)]
struct Cold {
    server: usize,
    /// A number for the server, from its name.
    seed: u64,
    warmth: Warmth,
}

impl Warming {
    pub(crate) fn new(servers: &[Server]) -> Self {
        let serving = || servers.iter().enumerate().filter(|(_, server)| server.state.serves());
        // Where none is warm, there is nobody to serve the others' objects better.
        if !serving().any(|(_, server)| server.warmth == Warmth::FULL) {
            return Warming::default();
        }
        let cold = |(index, server): (usize, &Server)| Cold {
            server: index,
            seed: xxh3_64(server.name.as_str().as_bytes()),
            warmth: server.warmth,
        };
        Warming(serving().filter(|(_, server)| server.warmth < Warmth::FULL).map(cold).collect())
    }

    /// The warmth of the server at `index`.
    pub(crate) fn of(&self, index: usize) -> Warmth {
        self.0.iter().find(|cold| cold.server == index).map_or(Warmth::FULL, |cold| cold.warmth)
    }

    /// How many there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The servers that do not yet serve the object `name`. Each draws a number for each object, whatever the algorithm
    /// and its hash, and serves those objects whose number is below its share: as the share rises, objects only come.
    #[inline]
    pub(crate) fn spared(&self, name: &str) -> Candidates {
        if self.0.is_empty() {
            return Candidates::new();
        }
        let object = xxh3_64_with_seed(name.as_bytes(), SEED);
        let is_spared = |cold: &&Cold| {
            let draw = (u128::from(mix(object ^ cold.seed)) * u128::from(Warmth::FULL.0)) >> 64;
            draw >= u128::from(cold.warmth.0)
        };
        self.0.iter().filter(is_spared).map(|cold| cold.server).collect()
    }
}

/// Puts the servers of `spared` behind all others, the order being kept otherwise; returns how many others there are.
#[inline]
pub(crate) fn demote(candidates: &mut Candidates, spared: &[usize]) -> usize {
    if spared.is_empty() {
        return candidates.len();
    }
    let (mut ready, cold): (Candidates, Candidates) =
        candidates.iter().copied().partition(|candidate| !spared.contains(candidate));
    let others = ready.len();
    ready.extend(cold);
    *candidates = ready;
    others
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::servers;

    #[test]
    fn a_share_is_a_share_of_the_objects() {
        let mut servers = servers(&[true; 4]);
        for share in [0, 1, 100, 500, 900, 999] {
            servers[2].warmth = Warmth::per_mille(share);
            let warming = Warming::new(&servers);
            let served = (0..20_000).filter(|i| warming.spared(&format!("/object/{i}")).is_empty()).count();
            let expected = f64::from(share) / 1000.0;
            // Four standard deviations of a binomial share are 0.0142 at most.
            assert!(
                (served as f64 / 20_000.0 - expected).abs() <= 0.0142 * (expected * 4.0).sqrt(),
                "{share}: {served}"
            );
        }
    }

    #[test]
    fn servers_draw_independently() {
        let mut servers = servers(&[true; 3]);
        (servers[0].warmth, servers[1].warmth) = (Warmth::per_mille(500), Warmth::per_mille(500));
        let warming = Warming::new(&servers);
        let both = (0..20_000).filter(|i| warming.spared(&format!("/object/{i}")).len() == 2).count();
        assert!(both.abs_diff(5000) < 250, "{both}");
    }

    #[test]
    fn where_none_is_warm_none_is_spared() {
        let mut servers = servers(&[true, true, false]);
        servers[0].warmth = Warmth::per_mille(0);
        assert_eq!(Warming::new(&servers).len(), 1);
        servers[1].warmth = Warmth::per_mille(1);
        assert_eq!(Warming::new(&servers).len(), 0, "the third is warm, but does not serve");
    }

    #[test]
    fn the_spared_come_last_in_their_order() {
        let demoted = |spared: &[usize]| {
            let mut candidates = Candidates::from_slice(&[3, 1, 2, 0]);
            let ready = demote(&mut candidates, spared);
            (candidates.to_vec(), ready)
        };
        assert_eq!(demoted(&[]), (vec![3, 1, 2, 0], 4));
        assert_eq!(demoted(&[2, 3]), (vec![1, 0, 3, 2], 2));
        assert_eq!(demoted(&[7]), (vec![3, 1, 2, 0], 4));
    }
}
