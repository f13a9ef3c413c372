//! The routing table: built once for every change of the cluster, then only read.

use crate::{
    candidates::{Candidates, Loads, rank},
    circle::Circle,
    cluster::Cluster,
    digest::digest,
    error::BuildError,
    explain::{Explanation, Judged},
    least::least_connection,
    settings::{Algorithm, Settings},
    state::{Memory, PickState},
    turn::round_robin,
    url_hash,
};
use std::{collections::HashMap, sync::Arc};
use vibra_model::{Reason, Timestamp, VmId};

/// Which servers may get a request, as an immutable function of the object name, the loads and a [`PickState`].
#[derive(Debug, Clone)]
pub struct Table {
    cluster: Cluster,
    settings: Settings,
    names: Arc<[VmId]>,
    mark: u128,
    digest: String,
    circle: Circle,
    method: Method,
}

/// The algorithm with what it laid out beforehand.
#[derive(Debug, Clone)]
enum Method {
    RoundRobin,
    LeastConnection,
    UrlHash,
}

impl Method {
    fn build(_cluster: &Cluster, settings: &Settings) -> Result<Self, BuildError> {
        Ok(match settings.algorithm {
            Algorithm::RoundRobin => Method::RoundRobin,
            Algorithm::LeastConnection => Method::LeastConnection,
            Algorithm::UrlHash => Method::UrlHash,
            other => {
                return Err(BuildError::Setting {
                    setting: "algorithm",
                    value: other.to_string(),
                    hint: "not available yet",
                });
            }
        })
    }
}

impl Table {
    /// Builds the table of a cluster.
    ///
    /// A cluster without a serving server is fine: the table then yields no candidates.
    ///
    /// # Errors
    /// An empty list, a name that occurs twice, a weight of 0, R of 0 or over N, or a setting that makes no sense.
    pub fn build(cluster: &Cluster, settings: &Settings) -> Result<Table, BuildError> {
        settings.check()?;
        check(cluster)?;
        if settings.algorithm.uses_replicas() && settings.replicas > cluster.servers.len() {
            let (replicas, servers) = (settings.replicas, cluster.servers.len());
            return Err(BuildError::TooManyReplicas { replicas, servers });
        }
        let mark = digest(settings, &cluster.servers);
        Ok(Table {
            method: Method::build(cluster, settings)?,
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
        matches!(self.settings.algorithm, Algorithm::Lard | Algorithm::LardR | Algorithm::Slots)
    }

    /// Ranks servers for a request of the object `name` (see [`object_name`](crate::object_name)) at the time `now`,
    /// and notes the first of them in `state` as the one that gets it.
    ///
    /// `loads` are the active requests by server index. With R and [`Settings::fallbacks`] at 8 or less together, a
    /// pick allocates nothing, except that LARD remembers an object that it has not seen.
    #[inline]
    pub fn pick(&self, state: &mut PickState, name: &str, loads: &(impl Loads + ?Sized), now: Timestamp) -> Candidates {
        let _ = now;
        if let Method::UrlHash = self.method {
            return self.hashed(name, loads);
        }
        if !state.fits(self) {
            state.adapt(self);
        }
        let (candidates, turn) = match (&self.method, &mut state.memory) {
            (Method::RoundRobin, Memory::Turn(turn)) => (round_robin(turn, &self.circle, self.single()), turn),
            (Method::LeastConnection, Memory::Turn(turn)) => {
                (least_connection(turn, &self.circle, self.single(), loads), turn)
            }
            _ => return Candidates::new(),
        };
        if let Some(&chosen) = candidates.first() {
            turn.taken(chosen, &self.circle);
        }
        candidates
    }

    /// How many candidates a request has where one server is chosen.
    fn single(&self) -> usize {
        1 + self.settings.fallbacks
    }

    #[inline]
    fn hashed(&self, name: &str, loads: &(impl Loads + ?Sized)) -> Candidates {
        let hash = self.settings.hash.of(name);
        let count = self.settings.replicas + self.settings.fallbacks;
        let preferred = url_hash::preferred(hash, &self.circle, self.settings.remap, count);
        let mut candidates: Candidates = preferred.iter().map(|&server| server as usize).collect();
        let subset = self.settings.replicas.min(candidates.len());
        rank(&mut candidates[..subset], loads);
        candidates
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
        match self.method {
            Method::RoundRobin | Method::LeastConnection => {
                let mut turn = if let Memory::Turn(turn) = memory { turn } else { Default::default() };
                turn.carry(moved);
                Memory::Turn(turn)
            }
            Method::UrlHash => Memory::Nothing,
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

impl Table {
    /// What [`pick`](Table::pick) would do now, and why. It changes nothing.
    pub fn explain(&self, state: &PickState, name: &str, loads: &(impl Loads + ?Sized), now: Timestamp) -> Explanation {
        let candidates = self.pick(&mut state.clone(), name, loads, now);
        let judged = |index: usize, rule: &'static str| Judged {
            server: self.names[index].clone(),
            index,
            active: loads.active(index),
            reason: Reason::new(rule),
        };
        let hash = self.settings.algorithm.uses_hash().then_some(self.settings.hash);
        let others = (0..self.names.len()).filter(|index| !candidates.contains(index));
        Explanation {
            name: name.to_owned(),
            algorithm: self.settings.algorithm,
            revision: self.cluster.revision,
            digest: self.digest.clone(),
            hash,
            hash_value: hash.map(|hash| hash.of(name)),
            how: Reason::new(""),
            subset: Vec::new(),
            candidates: candidates.iter().map(|&index| judged(index, "candidate")).collect(),
            passed_over: others.map(|index| judged(index, "passed over")).collect(),
        }
    }
}
