//! What is asked for, and when.

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
