//! The requests that are under way.

use super::{Nanos, catalogue::Arrival, egress::Slot};

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// This entry is free.
    Nowhere,
    /// At its server, which has sent nothing yet.
    Server,
    /// At its server, which sends.
    Sending,
    /// On the way back to its client.
    Return,
}

/// A request under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) arrival: Arrival,
    /// Since when its server has it.
    pub(super) since: Nanos,
    /// Tells it from others that had the same slot.
    pub(super) number: u64,
    pub(super) server: u32,
    pub(super) dispatcher: u32,
    pub(super) place: Place,
    /// Nobody waits for it any more.
    pub(super) gone: bool,
}

/// A table of requests whose slots are used again.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests {
    entries: Vec<Request>,
    free: Vec<Slot>,
    begun: u64,
}

impl Requests {
    #[inline]
    pub(super) fn begin(&mut self, arrival: Arrival, dispatcher: u32) -> Slot {
        self.begun += 1;
        let request =
            Request { arrival, since: 0, number: self.begun, server: 0, dispatcher, place: Place::Server, gone: false };
        match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = request;
                slot
            }
            None => {
                self.entries.push(request);
                self.entries.len() as Slot - 1
            }
        }
    }

    #[inline]
    pub(super) fn end(&mut self, slot: Slot) {
        self.entries[slot as usize].place = Place::Nowhere;
        self.free.push(slot);
    }

    #[inline]
    pub(super) fn get(&self, slot: Slot) -> &Request {
        &self.entries[slot as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Request {
        &mut self.entries[slot as usize]
    }

    /// Whether the request of this number still has this slot, and somebody waits for it.
    #[inline]
    pub(super) fn waited_for(&self, slot: Slot, number: u64) -> bool {
        let request = self.get(slot);
        request.number == number && request.place != Place::Nowhere && !request.gone
    }

    /// How many were ever begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// How many are under way.
    pub(super) fn under_way(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Those that are at this server.
    pub(super) fn at(&self, server: usize) -> Vec<Slot> {
        let there = |request: &Request| {
            request.server as usize == server && matches!(request.place, Place::Server | Place::Sending)
        };
        let slots = self.entries.iter().zip(0..).filter(|(request, _)| there(request));
        slots.map(|(_, slot)| slot).collect()
    }
}
