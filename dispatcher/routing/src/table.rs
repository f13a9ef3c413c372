//! The routing table: built once for every change of the cluster, then only read.

use crate::{
    candidates::{Candidates, Loads, Request, rank},
    circle::Circle,
    cluster::Cluster,
    digest::digest,
    error::BuildError,
    lard::{Decision, History},
    method::{Hashed, Method, indexes},
    settings::Settings,
    slots::SlotMap,
    state::{Memory, PickState},
    turn::{Owed, Turn},
    warmth::{Warming, demote},
};
use std::{collections::HashMap, num::NonZeroUsize, sync::Arc, time::Duration};
use vibra_model::{Timestamp, VmId};

/// Which servers may get a request, as an immutable function of the object name, the loads and a [`PickState`].
#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) cluster: Cluster,
    pub(crate) settings: Settings,
    pub(crate) names: Arc<[VmId]>,
    mark: u128,
    digest: String,
    pub(crate) circle: Circle,
    pub(crate) method: Method,
    pub(crate) warming: Warming,
}

impl Table {
    /// Builds the table of a cluster.
    ///
    /// A cluster without a serving server is fine: the table then yields no candidates.
    ///
    /// # Errors
    /// An empty list, a name that occurs twice, a weight of 0, R of 0 or (with an algorithm that uses it) over N, or
    /// a setting that makes no sense.
    pub fn build(cluster: &Cluster, settings: &Settings) -> Result<Table, BuildError> {
        settings.check()?;
        check(cluster)?;
        let (replicas, servers) = (settings.replicas, cluster.servers.len());
        if settings.algorithm.uses_replicas() && replicas > servers {
            return Err(BuildError::TooManyReplicas { replicas, servers });
        }
        let mark = digest(settings, &cluster.servers);
        Ok(Table {
            method: Method::build(&cluster.servers, settings)?,
            circle: Circle::new(&cluster.servers),
            warming: Warming::new(&cluster.servers),
            names: cluster.servers.iter().map(|server| server.name.clone()).collect(),
            digest: format!("{mark:032x}"),
            mark,
            cluster: cluster.clone(),
            settings: settings.clone(),
        })
    }

    /// The cluster that it was built from.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The settings that it was built by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// 32 hexadecimal digits over everything that picks depend on: settings, and servers in order with weights,
    /// states and warmths. Two dispatchers with the same digest have the same table.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Whether all threads of a dispatcher must share one [`PickState`]: it then is about objects, and threads that
    /// do not know of each other would send one object to different servers.
    pub fn shares_state(&self) -> bool {
        matches!(self.method, Method::Lard(_) | Method::Slots)
    }

    /// S of LARD and LARD/R: the most active requests that its paper lets into the cluster, all servers together,
    /// (n - 1) T_high + T_low - 1 for n serving servers. `None` for other algorithms, and without a serving server.
    ///
    /// A pick does not enforce it, for a table has no queue: who wants it holds requests back over S.
    pub fn most_active(&self) -> Option<u64> {
        if let Method::Lard(lard) = &self.method { lard.limit(self.circle.serving().len()) } else { None }
    }

    /// Ranks servers for a request of the object `name` (see [`object_name`](crate::object_name)) at the time `now`,
    /// and notes the first of them in `state` as the one that gets it.
    ///
    /// `loads` are the active requests by server index. With R and [`Settings::fallbacks`] at 8 or less together, a
    /// pick allocates nothing, except that LARD remembers an object that it has not seen, and that `slots` looks
    /// after the balance from time to time.
    #[inline]
    pub fn pick(&self, state: &mut PickState, name: &str, loads: &(impl Loads + ?Sized), now: Timestamp) -> Candidates {
        match &self.method {
            Method::Hashed(hashed) => self.hashed(hashed, name, loads),
            Method::Bounded(bounded) => self
                .first_ready(name, self.single(), |count| bounded.choose(self.hash(name), count, &self.circle, loads)),
            _ => {
                state.adapt(self);
                self.pick_and_note(&mut state.memory, &Request { name, loads, now })
            }
        }
    }

    #[inline]
    fn hashed(&self, hashed: &Hashed, name: &str, loads: &(impl Loads + ?Sized)) -> Candidates {
        self.ranked(name, loads, |count| hashed.preferred(self.hash(name), count, &self.circle))
    }

    fn pick_and_note(&self, memory: &mut Memory, request: &Request<'_, impl Loads + ?Sized>) -> Candidates {
        let (circle, loads) = (&self.circle, request.loads);
        match (&self.method, memory) {
            // Whose turn it is has had it, also where another stands in for him while he warms up.
            (Method::InTurn(rule), Memory::Turn(turn)) => self.first_ready(request.name, self.single(), |count| {
                let candidates = rule.choose(turn, circle, count, loads);
                candidates.first().into_iter().for_each(|&first| turn.taken(first, circle));
                candidates
            }),
            (Method::Owed(weights), Memory::Owed(owed)) => self.first_ready(request.name, self.single(), |count| {
                let candidates = owed.choose(weights, circle, count);
                candidates.first().into_iter().for_each(|&first| owed.taken(first, weights, circle));
                candidates
            }),
            (Method::Slots, Memory::Slots(map)) => {
                let interval = Duration::from_millis(self.settings.slots.interval_ms);
                map.tick(interval, request.now, &self.cluster.servers, circle);
                let slot = map.slot(self.hash(request.name));
                map.count(slot);
                self.ranked(request.name, loads, |count| indexes(map.preferred(slot, circle, count)))
            }
            (Method::Lard(lard), Memory::History(history)) => self.decided(history.pick(lard, circle, request)),
            _ => unreachable!("the state was carried over to this table, so its memory is the algorithm's"),
        }
    }

    /// The candidates of LARD: its decision, then the next servers in cluster order.
    pub(crate) fn decided(&self, decision: Option<Decision>) -> Candidates {
        decision.map_or_else(Candidates::new, |decision| indexes(self.circle.from(decision.server, self.single())))
    }

    /// The first servers that `preferred` has for an object, the subset of R at the front ranked by load.
    #[inline]
    fn ranked(
        &self,
        name: &str,
        loads: &(impl Loads + ?Sized),
        preferred: impl FnOnce(usize) -> Candidates,
    ) -> Candidates {
        let (mut candidates, ready) = self.ready(name, self.shared(), preferred);
        rank(&mut candidates[..ready.min(self.settings.replicas)], loads);
        candidates
    }

    /// The first `count` servers that `ordered` has for an object.
    fn first_ready(&self, name: &str, count: usize, ordered: impl FnOnce(usize) -> Candidates) -> Candidates {
        self.ready(name, count, ordered).0
    }

    /// The first `count` servers that `ordered` has for an object, those that do not serve it yet behind all others, and
    /// how many others there are.
    #[inline]
    pub(crate) fn ready(
        &self,
        name: &str,
        count: usize,
        ordered: impl FnOnce(usize) -> Candidates,
    ) -> (Candidates, usize) {
        let mut candidates = ordered(count.saturating_add(self.warming.len()));
        let ready = demote(&mut candidates, &self.warming.spared(name));
        candidates.truncate(count);
        (candidates, ready.min(count))
    }

    #[inline]
    pub(crate) fn hash(&self, name: &str) -> u64 {
        self.settings.hash.of(name)
    }

    /// How many candidates a request has where one server is chosen.
    fn single(&self) -> usize {
        self.settings.fallbacks.saturating_add(1)
    }

    /// How many candidates a request has where R servers share an object.
    #[inline]
    fn shared(&self) -> usize {
        self.settings.fallbacks.saturating_add(self.settings.replicas)
    }

    pub(crate) fn mark(&self) -> u128 {
        self.mark
    }

    pub(crate) fn names(&self) -> &Arc<[VmId]> {
        &self.names
    }

    /// What of `memory` holds for this table, or a new memory if it was another algorithm's. `moved` has for each
    /// server of the memory's table its index in this one.
    pub(crate) fn carry(&self, memory: Memory, moved: &[Option<usize>]) -> Memory {
        let (servers, circle) = (&self.cluster.servers, &self.circle);
        match &self.method {
            Method::Hashed(_) | Method::Bounded(_) => Memory::Nothing,
            Method::InTurn(_) => {
                let mut turn = if let Memory::Turn(turn) = memory { turn } else { Turn::default() };
                turn.carry(moved);
                Memory::Turn(turn)
            }
            Method::Owed(_) => {
                let owed = if let Memory::Owed(owed) = memory { owed } else { Owed::default() };
                Memory::Owed(owed.carried(moved, circle))
            }
            Method::Slots => Memory::Slots(match memory {
                Memory::Slots(mut map) if map.slots() == self.settings.slots.per_server * servers.len() => {
                    map.carry(|old| moved[old], servers, circle);
                    map
                }
                _ => SlotMap::new(&self.settings.slots, servers, circle),
            }),
            Method::Lard(lard) => {
                let objects = NonZeroUsize::new(lard.settings.objects).unwrap_or(NonZeroUsize::MIN);
                Memory::History(match memory {
                    Memory::History(mut history) => {
                        history.carry(objects, moved, servers);
                        history
                    }
                    _ => Box::new(History::new(objects, servers)),
                })
            }
        }
    }
}

fn check(cluster: &Cluster) -> Result<(), BuildError> {
    if cluster.servers.is_empty() {
        return Err(BuildError::Empty);
    }
    let mut seen = HashMap::new();
    for (position, server) in (1..).zip(&cluster.servers) {
        if let Some(first) = seen.insert(&server.name, position) {
            return Err(BuildError::Duplicate { name: server.name.clone(), first, second: position });
        }
        if server.weight == 0 {
            return Err(BuildError::ZeroWeight { name: server.name.clone(), position });
        }
    }
    Ok(())
}
