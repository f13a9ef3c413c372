//! Locality-aware request distribution (LARD) and LARD with replication (LARD/R).
//!
//! V. S. Pai et al., "Locality-Aware Request Distribution in Cluster-based Network Servers", ASPLOS 1998, figures 2 and
//! 3. A server's load is its number of active requests. Where the paper leaves open which of several least loaded
//! servers is meant, it is the first from the one after the last that was so chosen, so that an idle cluster is used
//! evenly; among the members of a server set, the least loaded is the first and the most loaded the last of equals.

use crate::{
    candidates::{Loads, Request, best},
    circle::Circle,
    cluster::Server,
    roster::{Roster, Ticket},
    settings::LardSettings,
    turn::Turn,
};
use lru::LruCache;
use smallvec::SmallVec;
use std::{num::NonZeroUsize, time::Duration};
use vibra_model::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

/// Whether an object may have several servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// LARD: one.
    Single,
    /// LARD/R: a set that grows under load and shrinks with time.
    Replicated,
}

/// The decisions of LARD and LARD/R.
#[derive(Debug, Clone)]
pub(crate) struct Lard {
    pub(crate) variant: Variant,
    pub(crate) settings: LardSettings,
}

/// Members of a server set by index, those that are left.
type Members = SmallVec<[usize; 2]>;

/// The servers of one object: the paper's `serverSet[target]`, and for LARD `server[target]`.
#[derive(Debug, Clone)]
struct ServerSet {
    members: SmallVec<[Ticket; 2]>,
    /// When a member was last added or removed.
    last_mod: Timestamp,
}

/// What a decision goes by.
struct View<'a, L: ?Sized> {
    roster: &'a Roster,
    /// The serving servers, in the order of ties.
    order: &'a [u32],
    loads: &'a L,
    now: Timestamp,
}

impl<'a, L: Loads + ?Sized> View<'a, L> {
    fn new(roster: &'a Roster, order: &'a [u32], request: &Request<'a, L>) -> Self {
        View { roster, order, loads: request.loads, now: request.now }
    }

    fn least_loaded(&self) -> Option<usize> {
        best(self.order.iter().map(|&server| server as usize), 1, |server| self.loads.active(server)).first().copied()
    }
}

/// How an object came to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// No server of it is known: the least loaded one gets it.
    Assigned,
    /// It stays where it was served before.
    Kept,
    /// Its server is overloaded: it goes to the least loaded one instead (LARD), or also there (LARD/R).
    Relieved,
}

/// What is to be done with a request.
#[derive(Debug, Clone)]
pub(crate) struct Decision {
    pub(crate) server: usize,
    pub(crate) step: Step,
    /// The object's servers from now on, if they change.
    changed: Option<ServerSet>,
}

impl Lard {
    /// S, the paper's limit on the active requests of all servers together: (n - 1) T_high + T_low - 1.
    pub(crate) fn limit(&self, serving: usize) -> Option<u64> {
        let others = u64::try_from(serving.checked_sub(1)?).ok()?;
        Some(others * u64::from(self.settings.t_high) + u64::from(self.settings.t_low) - 1)
    }

    /// Decides for an object of which `known` is remembered; `None` if no server serves.
    fn decide(&self, known: Option<&ServerSet>, view: &View<'_, impl Loads + ?Sized>) -> Option<Decision> {
        let remembered = known.map_or(&[][..], |set| &set.members);
        let members: Members = remembered.iter().filter_map(|&member| view.roster.index(member)).collect();
        match (known, self.variant) {
            (Some(set), Variant::Replicated) if !members.is_empty() => self.replicated(members, set.last_mod, view),
            (Some(_), Variant::Single) if !members.is_empty() => Some(self.single(members[0], view)),
            _ => view.least_loaded().map(|server| Decision::moved(server, Step::Assigned, view)),
        }
    }

    /// The least loaded server, if one is to be used instead of `server`: that is over T_high while another one idles,
    /// or at 2 T_high whatever the others are.
    fn relief(&self, server: usize, view: &View<'_, impl Loads + ?Sized>) -> Option<usize> {
        let LardSettings { t_low, t_high, .. } = self.settings;
        let load = view.loads.active(server);
        if load <= t_high {
            return None;
        }
        let least = view.least_loaded()?;
        (view.loads.active(least) < t_low || load >= t_high.saturating_mul(2)).then_some(least)
    }

    /// Figure 2 of the paper.
    fn single(&self, server: usize, view: &View<'_, impl Loads + ?Sized>) -> Decision {
        match self.relief(server, view) {
            Some(least) if least != server => Decision::moved(least, Step::Relieved, view),
            _ => Decision { server, step: Step::Kept, changed: None },
        }
    }

    /// Figure 3 of the paper: n is the least and m the most loaded of the set, p the least loaded of all.
    fn replicated(
        &self,
        mut members: Members,
        last_mod: Timestamp,
        view: &View<'_, impl Loads + ?Sized>,
    ) -> Option<Decision> {
        let load = |server: &usize| view.loads.active(*server);
        let mut n = members.iter().copied().min_by_key(load)?;
        let m = members.iter().copied().max_by_key(load)?;
        let (mut step, mut changed) = (Step::Kept, false);
        if let Some(p) = self.relief(n, view) {
            if !members.contains(&p) {
                members.push(p);
                changed = true;
            }
            n = p;
            step = Step::Relieved;
        }
        if members.len() > 1 && view.now.since(last_mod) > Duration::from_secs(self.settings.k_s) {
            members.retain(|server| *server != m);
            changed = true;
        }
        let set = || ServerSet::new(&members, view);
        Some(Decision { server: n, step, changed: changed.then(set) })
    }
}

impl ServerSet {
    fn new(members: &[usize], view: &View<'_, impl Loads + ?Sized>) -> Self {
        let members = members.iter().map(|&server| view.roster.ticket(server)).collect();
        ServerSet { members, last_mod: view.now }
    }
}

impl Decision {
    /// The object goes over to `server` alone.
    fn moved(server: usize, step: Step, view: &View<'_, impl Loads + ?Sized>) -> Self {
        Decision { server, step, changed: Some(ServerSet::new(&[server], view)) }
    }
}

/// Which servers have served which objects: the state of LARD and LARD/R.
///
/// Objects are known by the XXH3 of their names, so that an entry has the same size however long names a client makes
/// up; two names of one hash share their servers. At the limit the least recently requested object is forgotten.
#[derive(Debug, Clone)]
pub(crate) struct History {
    /// The standard hasher, whose key is secret: with a known one, a client could make up names that collide.
    sets: LruCache<u64, ServerSet>,
    roster: Roster,
    turn: Turn,
}

impl History {
    pub(crate) fn new(objects: NonZeroUsize, servers: &[Server]) -> Self {
        let mut roster = Roster::default();
        roster.carry(&[], servers);
        History { sets: LruCache::sparse(objects), roster, turn: Turn::default() }
    }

    /// How many objects are remembered.
    pub(crate) fn objects(&self) -> usize {
        self.sets.len()
    }

    /// Goes over to new servers; `moved` has for each of the old ones its new index.
    pub(crate) fn carry(&mut self, objects: NonZeroUsize, moved: &[Option<usize>], servers: &[Server]) {
        self.sets.resize(objects);
        self.turn.carry(moved);
        self.roster.carry(moved, servers);
    }

    /// Decides for an object, and remembers it.
    pub(crate) fn pick(
        &mut self,
        lard: &Lard,
        circle: &Circle,
        request: &Request<'_, impl Loads + ?Sized>,
    ) -> Option<Decision> {
        let object = xxh3_64(request.name.as_bytes());
        let view = View::new(&self.roster, self.turn.order(circle, circle.servers()), request);
        let mut decision = lard.decide(self.sets.get(&object), &view)?;
        if let Some(set) = decision.changed.take() {
            self.sets.put(object, set);
        }
        if decision.step != Step::Kept {
            self.turn.taken(decision.server, circle);
        }
        Some(decision)
    }

    /// What [`pick`](History::pick) would decide.
    pub(crate) fn look(
        &self,
        lard: &Lard,
        circle: &Circle,
        request: &Request<'_, impl Loads + ?Sized>,
    ) -> Option<Decision> {
        let view = View::new(&self.roster, self.turn.order(circle, circle.servers()), request);
        lard.decide(self.sets.peek(&xxh3_64(request.name.as_bytes())), &view)
    }
}

#[cfg(test)]
#[path = "lard_tests.rs"]
mod tests;
