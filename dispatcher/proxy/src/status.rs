//! How a dispatcher and its servers fare.

use crate::dispatcher::Shared;
use crate::members::Order;
use crate::metrics::{CLASSES, Counter, Failure, Tally};
use crate::reload::Reload;
use crate::routes::Routes;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Acquire;
use vibra_client::Link;
use vibra_model::{Revision, VmId, VmState};
use vibra_routing::{Settings, Warmth};

/// How a dispatcher and its servers fare at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The number of its process, by which it is told from one that takes over from it.
    pub process: u32,
    /// The directory's revision that the routes follow; 0 with a fixed list.
    pub revision: Revision,
    /// Whether the directory is heard; with a fixed list it always is.
    pub directory: DirectoryStatus,
    /// The routing table's digest: equal digests, equal tables. `None` while there is no table.
    pub digest: Option<String>,
    /// Why there is no table although there are servers.
    pub error: Option<String>,
    /// Whether unhealthy servers get requests for want of healthy ones.
    pub panic: bool,
    /// What the table is built by.
    pub settings: Settings,
    /// The last reload of the configuration; `None` where there was none yet.
    pub reload: Option<Reload>,
    /// Whether it accepts no more connections and ends once those that are open are done.
    pub draining: bool,
    /// Client connections that are open.
    pub connections: u64,
    /// The servers in cluster order.
    pub servers: Vec<ServerStatus>,
}

/// Whether the directory is heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectoryStatus {
    /// Nothing was heard yet.
    Connecting,
    /// What is known is current.
    Live,
    /// What is known may be out of date.
    Lost {
        /// What happened.
        why: String,
    },
}

/// How one server fares.
#[derive(Clone, Debug, Serialize)]
pub struct ServerStatus {
    /// Its name.
    pub name: VmId,
    /// `host:port`, as it was given.
    pub address: String,
    /// Its share under weighted algorithms.
    pub weight: u32,
    /// What the source says of it.
    pub state: VmState,
    /// What an operator wants of it, until that is taken back.
    pub order: Option<Order>,
    /// What the checks say of it.
    pub healthy: bool,
    /// Whether requests are sent there.
    pub used: bool,
    /// The share of its objects that it gets already: below 1 while it warms up.
    pub warmth: f64,
    /// Requests that are not complete.
    pub active: u32,
    /// The most requests that it may have at once: the dispatcher's own limit, or what its host asks for if that is less.
    pub limit: u32,
    /// Requests that wait for a place there.
    pub waiting: usize,
    /// Requests that were sent there, or tried to.
    pub picks: u64,
    /// Connections made.
    pub connects: u64,
    /// Responses by status class: "2xx", ….
    pub responses: BTreeMap<&'static str, u64>,
    /// Failed requests by kind: "connect", "closed", "garbage", "timeout", "broken", "client".
    pub failures: BTreeMap<&'static str, u64>,
}

impl Status {
    pub(crate) fn of(shared: &Shared) -> Self {
        // Before the routes, so that these are no older.
        let revision = Revision(shared.revision.load(Acquire));
        let routes = shared.routes.load();
        let open = |count: &Counter, less: &Counter| count.get().saturating_sub(less.get());
        Status {
            process: std::process::id(),
            revision,
            directory: match &*shared.link.borrow() {
                Link::Connecting => DirectoryStatus::Connecting,
                Link::Live => DirectoryStatus::Live,
                Link::Lost { why, .. } => DirectoryStatus::Lost { why: why.clone() },
            },
            digest: routes.table.as_ref().map(|table| table.digest().to_string()),
            error: routes.error.clone(),
            panic: routes.panic,
            settings: routes.config.settings.clone(),
            reload: shared.reloads.lock().unwrap_or_else(PoisonError::into_inner).last.clone(),
            draining: shared.is_stopping(),
            connections: shared.clients.iter().map(|tally| open(&tally.opened, &tally.closed)).sum(),
            servers: (0..routes.servers.len()).map(|index| ServerStatus::of(&routes, index)).collect(),
        }
    }

    /// The server of this name, if there is one.
    pub fn server(&self, name: &str) -> Option<&ServerStatus> {
        self.servers.iter().find(|server| server.name.as_str() == name)
    }
}

impl ServerStatus {
    fn of(routes: &Routes, index: usize) -> Self {
        let (server, verdict, routed) =
            (&routes.servers[index], routes.verdicts[index], &routes.cluster.servers[index]);
        let tallies = server.tallies();
        let sum = |counter: &dyn Fn(&Tally) -> &Counter| tallies.iter().map(|tally| counter(tally).get()).sum::<u64>();
        ServerStatus {
            name: server.name.clone(),
            address: server.endpoint.to_string(),
            weight: routed.weight,
            state: verdict.state,
            order: verdict.order,
            healthy: verdict.healthy,
            used: routed.state.serves(),
            warmth: f64::from(routed.warmth.get()) / f64::from(Warmth::FULL.get()),
            active: server.active(),
            limit: server.gate.most(),
            waiting: server.gate.waiting(),
            picks: sum(&|tally| &tally.picks),
            connects: sum(&|tally| &tally.connects),
            responses: CLASSES.iter().enumerate().map(|(i, &name)| (name, sum(&|tally| &tally.responses[i]))).collect(),
            failures: Failure::ALL.iter().map(|&f| (f.name(), sum(&|tally| &tally.failures[f as usize]))).collect(),
        }
    }
}
