//! Rendezvous hashing: the servers with the highest random weights for a name.

use crate::{
    candidates::{Candidates, best},
    circle::Circle,
    cluster::Server,
    hash::mix,
};
use std::cmp::Reverse;
use xxhash_rust::xxh3::xxh3_64;

/// Highest random weight (Thaler and Ravishankar, IEEE/ACM Transactions on Networking, 1998), with weights by the
/// logarithmic method (Schindelhauer and Schomaker, SPAA 2005): for each name every server draws u, uniform in (0, 1),
/// and the servers with the lowest -ln(u) / w come first. A pick costs time in proportion to N.
#[derive(Debug, Clone)]
pub(crate) struct Rendezvous {
    /// A number for each server, from its name.
    seeds: Vec<u64>,
    /// The weights; `None` where all are equal, which needs no logarithm.
    weights: Option<Vec<f64>>,
}

impl Rendezvous {
    pub(crate) fn new(servers: &[Server]) -> Self {
        let equal = servers.iter().all(|server| server.weight == servers[0].weight);
        let weights = || servers.iter().map(|server| f64::from(server.weight)).collect();
        Rendezvous {
            seeds: servers.iter().map(|server| xxh3_64(server.name.as_str().as_bytes())).collect(),
            weights: (!equal).then(weights),
        }
    }

    /// The serving servers of a hash in order of preference.
    pub(crate) fn preferred(&self, hash: u64, count: usize, circle: &Circle) -> Candidates {
        let serving = circle.serving().iter().map(|&server| server as usize);
        let place = mix(hash);
        let draw = |server: usize| mix(place ^ self.seeds[server]);
        match &self.weights {
            // -ln(u) falls as u grows.
            None => best(serving, count, |server| Reverse(draw(server))),
            Some(weights) => best(serving, count, |server| exponential(draw(server), weights[server])),
        }
    }
}

/// -ln(u) / w as an ordered number; u is the middle of the 2^-53 wide interval that `draw` falls into.
fn exponential(draw: u64, weight: f64) -> u64 {
    const STEP: f64 = 1.0 / (1u64 << 53) as f64;
    let u = ((draw >> 11) as f64 + 0.5) * STEP;
    // libm's logarithm is the same on every platform, which dispatchers that must agree need. The value is not
    // negative, so its bits are ordered as it is.
    (-libm::log(u) / weight).max(0.0).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_order_as_their_logarithms() {
        assert!(exponential(0, 1.0) > exponential(1 << 62, 1.0));
        assert!(exponential(1 << 62, 1.0) > exponential(1 << 62, 2.0));
        assert!(f64::from_bits(exponential(u64::MAX, 1.0)) >= 0.0);
        assert!((f64::from_bits(exponential(1 << 63, 1.0)) - std::f64::consts::LN_2).abs() < 1e-12);
    }
}
