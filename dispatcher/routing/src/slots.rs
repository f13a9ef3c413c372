//! Many more sub-namespaces than servers, mapped to servers by load (section 3.6.1).

use crate::{circle::Circle, cluster::Server, settings::SlotSettings};
use std::{cmp::Reverse, time::Duration};
use vibra_model::Timestamp;

/// One request, in the unit of loads: fine enough that a slot's load fades over 16 intervals.
const REQUEST: u64 = 1 << 16;

/// The balance is left alone while the most and the least loaded server differ by less than this part of the mean
/// load, 1/8: a moved slot is a cold cache.
const DEAD_BAND: u64 = 8;

/// At each interval, at most one slot for so many servers is moved.
const SERVERS_A_MOVE: usize = 4;

/// Which server has which slot, and the load by slot.
///
/// Loads are numbers of requests, halved at the end of each interval. It is the load that the dispatcher sees; bytes
/// and CPU time it does not know. All arithmetic is on whole numbers, so that equal histories give equal maps.
#[derive(Debug, Clone)]
pub(crate) struct SlotMap {
    /// The server of each slot, by index.
    owners: Vec<u32>,
    /// The smoothed load of each slot, up to the beginning of this interval.
    loads: Vec<u64>,
    /// The requests for each slot in this interval.
    fresh: Vec<u32>,
    /// When this interval began; `None` before the first request.
    began: Option<Timestamp>,
}

/// The sums over one server's slots.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    load: u64,
    slots: u64,
    weight: u64,
}

impl Share {
    /// The load for one unit of weight, and with it the slots, in thousandths: they decide where there is no load yet.
    fn level(self) -> (u64, u64) {
        (self.load / self.weight, self.slots * 1000 / self.weight)
    }

    fn add(&mut self, load: u64) {
        self.load += load;
        self.slots += 1;
    }

    fn remove(&mut self, load: u64) {
        self.load -= load;
        self.slots -= 1;
    }
}

impl SlotMap {
    /// M slots for N servers; slot s begins at server s mod N, as under `url-hash`.
    pub(crate) fn new(settings: &SlotSettings, servers: &[Server], circle: &Circle) -> Self {
        let slots = settings.per_server * servers.len();
        let mut map = SlotMap {
            owners: (0..slots).map(|slot| (slot % servers.len()) as u32).collect(),
            loads: vec![0; slots],
            fresh: vec![0; slots],
            began: None,
        };
        map.carry(Some, servers, circle);
        map
    }

    /// M.
    pub(crate) fn slots(&self) -> usize {
        self.owners.len()
    }

    /// The slot of a hash: the hash modulo M.
    pub(crate) fn slot(&self, hash: u64) -> usize {
        (hash % self.owners.len() as u64) as usize
    }

    /// The serving servers for a slot: its own, and the next ones in cluster order.
    pub(crate) fn preferred<'a>(&self, slot: usize, circle: &'a Circle, count: usize) -> &'a [u32] {
        circle.from(self.owners[slot] as usize, count)
    }

    /// Counts a request.
    pub(crate) fn count(&mut self, slot: usize) {
        self.fresh[slot] = self.fresh[slot].saturating_add(1);
    }

    /// Goes over to new servers, of which `place` has the index by the old one: slots follow their servers, and those
    /// of servers that do not serve go, the most loaded first, each to the server that then has the least.
    pub(crate) fn carry(&mut self, place: impl Fn(usize) -> Option<usize>, servers: &[Server], circle: &Circle) {
        let mut shares = shares(servers);
        let mut homeless = Vec::new();
        for slot in 0..self.slots() {
            let owner = place(self.owners[slot] as usize);
            // Where nobody serves it stays; where its server has left, anywhere is as good.
            self.owners[slot] = owner.unwrap_or(0) as u32;
            match owner {
                Some(owner) if servers[owner].state.serves() => shares[owner].add(self.load(slot)),
                _ => homeless.push(slot),
            }
        }
        homeless.sort_by_key(|&slot| Reverse(self.load(slot)));
        for slot in homeless {
            let Some(&least) = circle.serving().iter().min_by_key(|&&server| shares[server as usize].level()) else {
                return;
            };
            self.owners[slot] = least;
            shares[least as usize].add(self.load(slot));
        }
    }

    /// The load of a slot, with what this interval has brought so far.
    fn load(&self, slot: usize) -> u64 {
        (self.loads[slot] / 2).saturating_add(u64::from(self.fresh[slot]) * REQUEST)
    }

    /// Ends the interval if it is over at `now`: loads are brought up to date, and slots moved.
    pub(crate) fn tick(&mut self, interval: Duration, now: Timestamp, servers: &[Server], circle: &Circle) {
        let began = *self.began.get_or_insert(now);
        let elapsed = now.since(began);
        if elapsed < interval {
            return;
        }
        // Intervals without a pick have passed unnoticed; each has halved what was there.
        let intervals = elapsed.as_micros() / interval.as_micros().max(1);
        let halvings = u32::try_from(intervals - 1).unwrap_or(u32::MAX).min(63);
        for slot in 0..self.slots() {
            self.loads[slot] = self.load(slot) >> halvings;
            self.fresh[slot] = 0;
        }
        self.began = Some(now);
        self.balance(servers, circle);
    }

    /// Moves slots from the most to the least loaded server: each time the heaviest whose move does not turn the two
    /// around.
    fn balance(&mut self, servers: &[Server], circle: &Circle) {
        let mut shares = shares(servers);
        let mut held: Vec<Vec<u32>> = vec![Vec::new(); servers.len()];
        for (slot, &owner) in (0u32..).zip(&self.owners) {
            shares[owner as usize].add(self.loads[slot as usize]);
            held[owner as usize].push(slot);
        }
        for _ in 0..servers.len().div_ceil(SERVERS_A_MOVE) {
            let serving = || circle.serving().iter().map(|&server| server as usize);
            let level = |&server: &usize| shares[server].level().0;
            let mean = serving().map(|server| level(&server)).sum::<u64>() / serving().count().max(1) as u64;
            let (Some(least), Some(most)) = (serving().min_by_key(level), serving().max_by_key(level)) else {
                return;
            };
            if level(&most) - level(&least) <= mean / DEAD_BAND {
                return;
            }
            let Some(place) = self.movable(&held[most], shares[most], shares[least]) else {
                return;
            };
            let slot = held[most].swap_remove(place);
            held[least].push(slot);
            shares[most].remove(self.loads[slot as usize]);
            shares[least].add(self.loads[slot as usize]);
            self.owners[slot as usize] = least as u32;
        }
    }

    /// Where in `held` the heaviest slot stands that leaves the giver no less loaded than the taker.
    fn movable(&self, held: &[u32], giver: Share, taker: Share) -> Option<usize> {
        let load = |slot: u32| self.loads[slot as usize];
        let fits = |slot: u32| {
            let (rest, grown) = (giver.load - load(slot), taker.load + load(slot));
            load(slot) > 0 && rest / giver.weight >= grown / taker.weight
        };
        let candidates = held.iter().enumerate().filter(|&(_, &slot)| fits(slot));
        // Among equals the lowest slot: the order in `held` is no matter.
        candidates.max_by_key(|&(_, &slot)| (load(slot), Reverse(slot))).map(|(place, _)| place)
    }
}

fn shares(servers: &[Server]) -> Vec<Share> {
    servers.iter().map(|server| Share { weight: u64::from(server.weight), ..Share::default() }).collect()
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
