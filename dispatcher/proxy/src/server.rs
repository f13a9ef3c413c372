//! What all threads share about one server.

use crate::admission::gate::{self, Gate};
use crate::config::Manner;
use crate::endpoint::Endpoint;
use crate::metrics::Tally;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use vibra_model::VmId;

/// What all threads share about one server: where it is and how it fares. It lives on from one routing snapshot to the
/// next for as long as the server's name and address stay.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: VmId,
    /// Where it is, as it was given.
    pub(crate) endpoint: Endpoint,
    /// Its address; `None` while the name cannot be resolved.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) manner: Manner,
    /// Who has entered and not left: the requests that are not complete.
    pub(crate) gate: Gate,
    /// Failed requests in a row.
    failures: AtomicU32,
    /// One from each thread. Locked when a thread first sees the server and when counters are read.
    tallies: Mutex<Vec<Arc<Tally>>>,
}

impl Server {
    pub(crate) fn new(
        name: VmId,
        endpoint: Endpoint,
        address: Option<SocketAddr>,
        manner: Manner,
        size: gate::Size,
    ) -> Self {
        Server {
            name,
            endpoint,
            address,
            manner,
            gate: Gate::new(size),
            failures: AtomicU32::new(0),
            tallies: Mutex::default(),
        }
    }

    /// Requests that are not complete.
    pub(crate) fn active(&self) -> u32 {
        self.gate.active()
    }

    /// A request got a response.
    pub(crate) fn succeeded(&self) {
        // Nearly always 0 already: a load leaves the cache line shared.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// A request failed; returns how many have in a row.
    pub(crate) fn failed(&self) -> u32 {
        let before = self.failures.fetch_add(1, Relaxed);
        before.saturating_add(1)
    }

    /// Failed requests in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures.load(Relaxed)
    }

    /// Starts counting failures anew.
    pub(crate) fn forget_failures(&self) {
        self.failures.store(0, Relaxed);
    }

    /// Counters for one thread to write.
    pub(crate) fn new_tally(&self) -> Arc<Tally> {
        let tally = Arc::new(Tally::default());
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).push(tally.clone());
        tally
    }

    /// The counters of all threads, to read.
    pub(crate) fn tallies(&self) -> Vec<Arc<Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
