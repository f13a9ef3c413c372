//! The routing snapshot: what the request path knows of the cluster, swapped whole.

use crate::config::Config;
use crate::members::Order;
use crate::server::Server;
use std::sync::Arc;
use vibra_model::VmState;
use vibra_routing::{Cluster, Loads, Table};

/// One version of everything a pick needs. Immutable, but for the counts inside the servers.
#[derive(Debug)]
pub(crate) struct Routes {
    /// The configuration that holds.
    pub(crate) config: Arc<Config>,
    /// `None` while there is nothing to pick from.
    pub(crate) table: Option<Table>,
    /// What the table was built from: a server that is not to be used is down here.
    pub(crate) cluster: Cluster,
    /// The servers, at the same indexes.
    pub(crate) servers: Vec<Arc<Server>>,
    /// What the source and the checks say of them, at the same indexes.
    pub(crate) verdicts: Vec<Verdict>,
    /// Whether unhealthy servers are used for want of healthy ones.
    pub(crate) panic: bool,
    /// Why there is no table.
    pub(crate) error: Option<String>,
}

/// Why a server is used or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What the source says.
    pub(crate) state: VmState,
    /// What an operator says.
    pub(crate) order: Option<Order>,
    /// What the checks say.
    pub(crate) healthy: bool,
}

impl Loads for Routes {
    fn active(&self, server: usize) -> u32 {
        self.servers[server].active()
    }
}
