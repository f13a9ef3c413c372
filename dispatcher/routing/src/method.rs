//! An algorithm with what it lays out beforehand.

use crate::{
    candidates::Candidates,
    circle::Circle,
    cluster::Server,
    error::BuildError,
    lard::{Lard, Variant},
    maglev::Maglev,
    rendezvous::Rendezvous,
    ring::{Bounded, Ring},
    settings::{Algorithm, Remap, Settings, SlotSettings},
    turn::InTurn,
    url_hash,
};

/// The algorithms, by what they remember and how they are asked.
#[derive(Debug, Clone)]
pub(crate) enum Method {
    /// A subset of R servers from the hash alone.
    Hashed(Hashed),
    /// One server from hash and loads.
    Bounded(Bounded),
    /// By turn, with the memory of whose turn it is.
    InTurn(InTurn),
    /// Weighted round-robin, with the memory of what each server is owed.
    Owed(Vec<u32>),
    /// A subset of R servers from the hash and the map of slots.
    Slots,
    /// One server from the history of the object.
    Lard(Lard),
}

/// The algorithms that order servers by the hash alone.
#[derive(Debug, Clone)]
pub(crate) enum Hashed {
    UrlHash(Remap),
    Ring(Ring),
    Rendezvous(Rendezvous),
    Maglev(Maglev),
}

impl Hashed {
    /// The serving servers in the order in which the hash prefers them, at most `count`.
    #[inline]
    pub(crate) fn preferred(&self, hash: u64, count: usize, circle: &Circle) -> Candidates {
        match self {
            Hashed::UrlHash(remap) => indexes(url_hash::preferred(hash, circle, *remap, count)),
            Hashed::Ring(ring) => ring.preferred(hash, count, circle),
            Hashed::Rendezvous(rendezvous) => rendezvous.preferred(hash, count, circle),
            Hashed::Maglev(maglev) => maglev.preferred(hash, count, circle),
        }
    }
}

/// Candidates from a slice of the [`Circle`].
#[inline]
pub(crate) fn indexes(servers: &[u32]) -> Candidates {
    servers.iter().map(|&server| server as usize).collect()
}

impl Method {
    pub(crate) fn build(servers: &[Server], settings: &Settings) -> Result<Self, BuildError> {
        let weights = || servers.iter().map(|server| server.weight).collect();
        let lard = |variant| Method::Lard(Lard { variant, settings: settings.lard });
        Ok(match settings.algorithm {
            Algorithm::RoundRobin => Method::InTurn(InTurn::Any),
            Algorithm::WeightedRoundRobin => Method::Owed(weights()),
            Algorithm::LeastConnection => Method::InTurn(InTurn::Least),
            Algorithm::WeightedLeastConnection => Method::InTurn(InTurn::LeastWeighted(weights())),
            Algorithm::Lard => lard(Variant::Single),
            Algorithm::LardR => lard(Variant::Replicated),
            Algorithm::UrlHash => Method::Hashed(Hashed::UrlHash(settings.remap)),
            Algorithm::Slots => slots(servers.len(), settings.slots)?,
            Algorithm::Ring => Method::Hashed(Hashed::Ring(Ring::new(servers))),
            Algorithm::Rendezvous => Method::Hashed(Hashed::Rendezvous(Rendezvous::new(servers))),
            Algorithm::Maglev => Method::Hashed(Hashed::Maglev(Maglev::new(servers))),
            Algorithm::BoundedLoads => Method::Bounded(Bounded::new(servers, settings.balance)),
        })
    }
}

fn slots(servers: usize, settings: SlotSettings) -> Result<Method, BuildError> {
    match settings.per_server.checked_mul(servers) {
        Some(1..=SlotSettings::MOST) => Ok(Method::Slots),
        _ => Err(BuildError::Setting {
            setting: "slots.per_server",
            value: settings.per_server.to_string(),
            hint: "use so many that there are at most 1048576 slots for all servers together",
        }),
    }
}
