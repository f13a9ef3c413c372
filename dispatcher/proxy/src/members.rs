//! The servers of the cluster as the control thread knows them.

use crate::admission::gate;
use crate::config::{Config, Manner, Source};
use crate::endpoint::Endpoint;
use crate::error::StartError;
use crate::health::Monitor;
use crate::server::Server;
use crate::tls::TlsError;
use crate::warmup::{Others, Warmup};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use vibra_model::{Revision, Snapshot, Vm, VmId, VmState};
use vibra_routing::{Cluster, Settings, Table, Warmth};

/// A server as its source describes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) name: VmId,
    endpoint: Endpoint,
    manner: Manner,
    weight: u32,
    state: VmState,
}

/// What operators want of servers, by the servers' names.
pub type Orders = BTreeMap<VmId, Order>;

/// What an operator wants of a server, whatever its source and its checks say; it holds until it is taken back, or the
/// dispatcher ends without a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// It gets no new requests, and ends those that it has.
    Drain,
    /// The same, and it is not checked: it may be stopped, and has lost its cache when it is back.
    Maintenance,
}

impl Order {
    /// Its name at the admin address.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Order::Drain => "drain",
            Order::Maintenance => "maintenance",
        }
    }
}

/// A server, and what the control thread knows of it.
pub(crate) struct Member {
    pub(crate) spec: Spec,
    pub(crate) server: Arc<Server>,
    pub(crate) monitor: Monitor,
    pub(crate) order: Option<Order>,
    /// The most requests that its source wants it to have at once.
    level: Option<NonZeroU32>,
    warmup: Warmup,
    /// Resolves its name, then checks it.
    pub(crate) attendant: Option<Attendant>,
}

/// A task that ends with its owner.
pub(crate) struct Attendant(pub(crate) JoinHandle<()>);

impl Drop for Attendant {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Member {
    pub(crate) fn new(spec: Spec, order: Option<Order>, size: gate::Size) -> Self {
        let address = spec.endpoint.address();
        let server = spec.server(address, size);
        let (monitor, warmup) = (Monitor::default(), Warmup::default());
        Member { spec, server, monitor, order, level: None, warmup, attendant: None }
    }

    /// Its source wants it to have at most so many requests at once. That is no reason to route anything otherwise.
    pub(crate) fn limit(&mut self, level: Option<NonZeroU32>) {
        if self.level != level {
            self.level = level;
            self.server.gate.limit(level);
        }
    }

    /// The same server as its source now describes it, with its counts and connections; a new one where it has moved, or
    /// is spoken to otherwise.
    pub(crate) fn becomes(self, spec: Spec, size: gate::Size) -> Self {
        let same = self.spec.endpoint == spec.endpoint && self.spec.manner == spec.manner;
        if same {
            return Member { spec, ..self };
        }
        let mut moved = Member::new(spec, self.order, size);
        moved.limit(self.level);
        moved
    }

    /// Its state as its source and the operator have it.
    pub(crate) fn state(&self) -> VmState {
        match self.order {
            Some(Order::Maintenance) => VmState::Down,
            Some(Order::Drain) if self.spec.state.serves() => VmState::Draining,
            _ => self.spec.state,
        }
    }

    /// What its source says of it.
    pub(crate) fn told(&self) -> VmState {
        self.spec.state
    }

    /// Whether requests would get there at all.
    pub(crate) fn is_reachable(&self) -> bool {
        self.state().serves() && self.server.address.is_some()
    }

    /// Its name was looked up.
    pub(crate) fn found_at(&mut self, address: SocketAddr, size: gate::Size) {
        self.server = self.spec.server(Some(address), size);
        self.server.gate.limit(self.level);
        self.attendant = None;
    }

    /// It as the routing table has it, in this state and at this warmth.
    pub(crate) fn routed(&self, state: VmState, warmth: Warmth) -> vibra_routing::Server {
        vibra_routing::Server { warmth, ..self.spec.routed(state) }
    }
}

impl Spec {
    /// What threads share about it, once its address is known.
    fn server(&self, address: Option<SocketAddr>, size: gate::Size) -> Arc<Server> {
        Arc::new(Server::new(self.name.clone(), self.endpoint.clone(), address, self.manner, size))
    }

    fn routed(&self, state: VmState) -> vibra_routing::Server {
        vibra_routing::Server::new(self.name.clone(), self.weight, state)
    }

    /// What a directory says of a VM.
    fn of(vm: &Vm, manner: Manner) -> Self {
        let (name, endpoint) = (vm.id.clone(), Endpoint::new(&vm.address));
        Spec { name, endpoint, manner, weight: vm.weight, state: vm.state }
    }

    /// The same server, spoken to otherwise.
    pub(crate) fn spoken_to(&self, manner: Manner) -> Self {
        Spec { name: self.name.clone(), endpoint: self.endpoint.clone(), manner, ..*self }
    }
}

/// Follows which members are used from `now` on, and says how warm each is; `whole` is how long it takes to become warm.
pub(crate) fn warmths(members: &mut [Member], used: &[bool], now: Instant, whole: Duration) -> Vec<Warmth> {
    let all = || members.iter().zip(used);
    let seasoned = all().any(|(member, &used)| used && member.warmup.is_seasoned(now, whole));
    let up = all().any(|(member, &used)| used && member.state() == VmState::Up);
    for (member, &used) in members.iter_mut().zip(used) {
        match member.state() {
            // Who has just started may be as warm as those who started with it; the directory knows of the others.
            VmState::Warming if used => member.warmup.begin(now, if up { Others::Warm } else { Others::Cold }),
            _ if used => member.warmup.begin(now, if seasoned { Others::Warm } else { Others::Cold }),
            // It keeps its cache.
            VmState::Draining => {}
            _ => member.warmup.end(),
        }
    }
    members.iter().map(|member| member.warmup.warmth(now, whole)).collect()
}

/// What each server takes at once.
pub(crate) fn size(config: &Config) -> gate::Size {
    gate::Size { most: config.limits.requests_per_server, room: config.limits.queue_per_server }
}

/// The VMs of a customer in cluster order.
pub(crate) fn listed(snapshot: &Snapshot, customer: &vibra_model::CustomerId, manner: Manner) -> Vec<Spec> {
    snapshot.vms_of(customer).map(|vm| Spec::of(vm, manner)).collect()
}

/// The servers of a configuration's fixed list; `None` where it has none.
///
/// # Errors
/// What is wrong with them, or with the settings.
pub(crate) fn fixed(config: &Config) -> Result<Option<Vec<Spec>>, StartError> {
    config.settings.check()?;
    let Source::Static(servers) = &config.source else { return Ok(None) };
    let mut specs = Vec::with_capacity(servers.len());
    for (server, position) in servers.iter().zip(1..) {
        let (name, endpoint) = (server.name.clone(), Endpoint::new(&server.address));
        if !endpoint.makes_sense() {
            return Err(StartError::Address { name, position, address: server.address.clone() });
        }
        if endpoint.has_tls() && config.server_tls.is_none() {
            return Err(StartError::Tls(TlsError::NotConfigured));
        }
        let (manner, weight) = (server.manner, server.weight);
        specs.push(Spec { name, endpoint, manner, weight, state: VmState::Up });
    }
    let servers = specs.iter().map(|spec| spec.routed(spec.state)).collect();
    Table::build(&Cluster { revision: Revision(0), servers }, &config.settings)?;
    Ok(Some(specs))
}

/// The table; `None` without servers. A cluster that has shrunk below R servers keeps working with as many as it has:
/// who removes a VM shall not thereby stop the others.
pub(crate) fn table(cluster: &Cluster, settings: &Settings) -> Result<Option<Table>, vibra_routing::BuildError> {
    if cluster.servers.is_empty() {
        return Ok(None);
    }
    let replicas = settings.replicas.min(cluster.servers.len());
    Table::build(cluster, &Settings { replicas, ..settings.clone() }).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_overrules_the_source_only_to_take_requests_away() {
        let (name, endpoint): (VmId, _) = ("a".parse().unwrap(), Endpoint::new("127.0.0.1:1"));
        let spec = |state| Spec {
            name: name.clone(),
            endpoint: endpoint.clone(),
            manner: Manner::default(),
            weight: 1,
            state,
        };
        let size = gate::Size { most: 1, room: 0 };
        let state = |told, order| Member::new(spec(told), order, size).state();
        assert_eq!(state(VmState::Up, None), VmState::Up);
        assert_eq!(state(VmState::Up, Some(Order::Drain)), VmState::Draining);
        assert_eq!(state(VmState::Down, Some(Order::Drain)), VmState::Down);
        assert_eq!(state(VmState::Up, Some(Order::Maintenance)), VmState::Down);
    }
}
