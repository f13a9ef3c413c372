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

    /// 32 hexadecimal digits over everything that picks depend on: settings, and servers in order with weights and
    /// states. Two dispatchers with the same digest have the same table.
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
            Method::Bounded(bounded) => bounded.choose(self.hash(name), self.single(), &self.circle, loads),
            _ => {
                state.adapt(self);
                self.pick_and_note(&mut state.memory, &Request { name, loads, now })
            }
        }
    }

    #[inline]
    fn hashed(&self, hashed: &Hashed, name: &str, loads: &(impl Loads + ?Sized)) -> Candidates {
        self.ranked(hashed.preferred(self.hash(name), self.shared(), &self.circle), loads)
    }

    fn pick_and_note(&self, memory: &mut Memory, request: &Request<'_, impl Loads + ?Sized>) -> Candidates {
        let (circle, loads) = (&self.circle, request.loads);
        match (&self.method, memory) {
            (Method::InTurn(rule), Memory::Turn(turn)) => {
                let candidates = rule.choose(turn, circle, self.single(), loads);
                candidates.first().into_iter().for_each(|&chosen| turn.taken(chosen, circle));
                candidates
            }
            (Method::Owed(weights), Memory::Owed(owed)) => {
                let candidates = owed.choose(weights, circle, self.single());
                candidates.first().into_iter().for_each(|&chosen| owed.taken(chosen, weights, circle));
                candidates
            }
            (Method::Slots, Memory::Slots(map)) => {
                let interval = Duration::from_millis(self.settings.slots.interval_ms);
                map.tick(interval, request.now, &self.cluster.servers, circle);
                let slot = map.slot(self.hash(request.name));
                map.count(slot);
                self.ranked(indexes(map.preferred(slot, circle, self.shared())), loads)
            }
            (Method::Lard(lard), Memory::History(history)) => self.decided(history.pick(lard, circle, request)),
            _ => unreachable!("the state was carried over to this table, so its memory is the algorithm's"),
        }
    }

    /// The candidates of LARD: its decision, then the next servers in cluster order.
    pub(crate) fn decided(&self, decision: Option<Decision>) -> Candidates {
        decision.map_or_else(Candidates::new, |decision| indexes(self.circle.from(decision.server, self.single())))
    }

    /// Ranks the subset of R servers at the front by load.
    #[inline]
    fn ranked(&self, mut candidates: Candidates, loads: &(impl Loads + ?Sized)) -> Candidates {
        let subset = self.settings.replicas.min(candidates.len());
        rank(&mut candidates[..subset], loads);
        candidates
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
