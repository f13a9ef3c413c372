//! What the dispatcher makes of those that requests come from, and how it is known to them.

use crate::forwarded::Forwarding;
use crate::trust::Trust;
use crate::via::Pseudonym;

/// Whom the dispatcher believes, what it tells servers of clients, and how it is known to both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// Whose word about where a request came from is taken. Default: nobody's.
    pub trusted: Trust,
    /// Whether every connection of a client to [`Config::listen`](crate::Config::listen) must begin with a PROXY header,
    /// and come from a trusted peer. Default: no, and none may.
    pub demand_header: bool,
    /// Which fields tell servers where a request came from. Default: [`Forwarding::XForwarded`].
    pub forwarding: Forwarding,
    /// The dispatcher's name in `Via`. Default: [`Pseudonym::random`].
    pub via: Pseudonym,
}

impl Default for Peers {
    fn default() -> Self {
        Peers {
            trusted: Trust::default(),
            demand_header: false,
            forwarding: Forwarding::default(),
            via: Pseudonym::random(),
        }
    }
}
