//! The ways to serve the trace that the demo compares.

use vibra_model::BytesPerSec;
use vibra_routing::Algorithm;

/// What each VM has while everything is divided evenly: the bandwidth of section 3.5.3 at which Figure 3.7 compares.
pub(super) const BANDWIDTH: BytesPerSec = BytesPerSec(2_700_000);

/// How much less bandwidth the last variant has: the saving that section 3.5.3 states.
const SAVING: f64 = 0.2;

/// One way to serve the trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Variant {
    pub(super) algorithm: Algorithm,
    /// R, where the algorithm has one.
    pub(super) replicas: Option<usize>,
    /// The policy for bandwidth.
    pub(super) policy: &'static str,
    /// What each VM has at first.
    pub(super) bandwidth: BytesPerSec,
}

impl Variant {
    /// Its name in progress messages.
    pub(super) fn name(&self) -> String {
        match self.replicas {
            Some(r) => format!("{} R={r}, {}", self.algorithm, self.policy),
            None => format!("{}, {}", self.algorithm, self.policy),
        }
    }
}

/// The rows of the table, in its order: with equal total bandwidth.
pub(super) fn rows() -> Vec<Variant> {
    let fixed = |algorithm, replicas| Variant { algorithm, replicas, policy: "static", bandwidth: BANDWIDTH };
    vec![
        fixed(Algorithm::RoundRobin, None),
        fixed(Algorithm::LeastConnection, None),
        fixed(Algorithm::Lard, None),
        fixed(Algorithm::LardR, None),
        fixed(Algorithm::UrlHash, Some(1)),
        fixed(Algorithm::UrlHash, Some(2)),
        vibra(BANDWIDTH),
    ]
}

/// The whole of Vibra with less bandwidth than all the rows have.
pub(super) fn with_less() -> Variant {
    vibra(BytesPerSec((BANDWIDTH.0 as f64 * (1.0 - SAVING)).round() as u64))
}

fn vibra(bandwidth: BytesPerSec) -> Variant {
    Variant { algorithm: Algorithm::UrlHash, replicas: Some(2), policy: "proportional", bandwidth }
}
