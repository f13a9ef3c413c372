//! What is asked for, and when.

use crate::stream;
use rand_chacha::rand_core::Rng;
use std::{sync::Arc, time::Duration};
use vibra_routing::object_name;
use vibra_trace::{Method, Objects, Request};

/// Time since the simulation's beginning, in nanoseconds.
pub type Nanos = u64;

/// The objects of a trace: their names as the dispatcher hashes them, and their sizes.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    pub(super) names: Vec<Arc<str>>,
    pub(super) sizes: Vec<u64>,
}

impl Catalogue {
    /// Of these objects, by their ids.
    pub fn new(objects: &Objects) -> Self {
        let names = objects.iter().map(|(_, object)| match object_name(&object.url) {
            whole if whole.len() == object.url.len() => object.url.clone(),
            part => part.into(),
        });
        Catalogue { names: names.collect(), sizes: objects.iter().map(|(_, object)| object.size).collect() }
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }
}

/// A request of the simulation. 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it is due.
    pub at: Nanos,
    /// Bytes of the body that answers it.
    pub bytes: u64,
    /// For which object of the catalogue.
    pub object: u32,
    /// Who asks: a number that stands for a client.
    pub client: u32,
    /// Whether the server needs the object's data: not for a 304, nor for a HEAD.
    pub reads: bool,
}

impl Arrival {
    /// What `request`, due at this time, is when it is replayed; `None` if it is not replayed, as methods other than GET
    /// and HEAD are not.
    pub fn new(request: &Request, due: Duration, catalogue: &Catalogue) -> Option<Arrival> {
        let size = *catalogue.sizes.get(request.object.0 as usize)?;
        let (bytes, reads) = match (request.method, request.status, request.bytes.get()) {
            (Method::Head, ..) => (0, false),
            (Method::Get, 304, _) => (0, false),
            (Method::Get, 206, Some(bytes @ 1..)) => (bytes, true),
            (Method::Get, ..) => (size, true),
            _ => return None,
        };
        let at = u64::try_from(due.as_nanos()).unwrap_or(u64::MAX);
        Some(Arrival { at, bytes, object: request.object.0, client: request.client, reads })
    }
}

/// The same requests, each later by an exponentially distributed time of this mean, in the order of their new times.
pub fn late_by(arrivals: impl Iterator<Item = Arrival>, mean: Duration, seed: u64) -> Vec<Arrival> {
    let (mean, mut random) = (mean.as_nanos() as f64, stream(seed, 0));
    let delayed = arrivals.map(|arrival| {
        // In (0, 1], so that its logarithm is finite.
        let uniform = 1.0 - (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        Arrival { at: arrival.at + (mean * -uniform.ln()) as u64, ..arrival }
    });
    let mut arrivals: Vec<_> = delayed.collect();
    arrivals.sort_by_key(|arrival| arrival.at);
    arrivals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_has_its_mean_and_keeps_the_order_of_times() {
        let arrivals =
            (0..10_000).map(|at| Arrival { at: at * 1_000, bytes: 1, object: 0, client: at as u32, reads: false });
        assert_eq!(late_by(arrivals.clone(), Duration::ZERO, 1), arrivals.clone().collect::<Vec<_>>());
        let late = late_by(arrivals.clone(), Duration::from_micros(100), 1);
        assert!(late.is_sorted_by_key(|arrival| arrival.at));
        let later: u64 = late.iter().map(|arrival| arrival.at - u64::from(arrival.client) * 1_000).sum();
        assert!((later as f64 / 1e4 / 100_000.0 - 1.0).abs() < 0.05, "{later}");
        assert_ne!(late, late_by(arrivals, Duration::from_micros(100), 2));
    }
}
