//! The servers that requests are divided among.

use serde::{Deserialize, Serialize};
use vibra_model::{CustomerId, Revision, Snapshot, VmId, VmState};

/// A server VM as dispatching sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its name, unique in the cluster.
    pub name: VmId,
    /// Its share under weighted algorithms, relative to the other servers'; at least 1.
    pub weight: u32,
    /// Whether it takes new requests ([`VmState::serves`]).
    pub state: VmState,
}

/// The servers of a cluster, in cluster order: the one at index `i` is VM_{i+1} of section 3.3.1.
///
/// All of them, the unavailable ones too: a server that fails keeps its place, and so do the others theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The directory's revision that this was read at; 0 for a static list.
    pub revision: Revision,
    /// The servers.
    pub servers: Vec<Server>,
}

impl Cluster {
    /// The cluster of a customer; without servers if he has none.
    pub fn of(snapshot: &Snapshot, customer: &CustomerId) -> Self {
        let server = |vm: &vibra_model::Vm| Server { name: vm.id.clone(), weight: vm.weight, state: vm.state };
        Cluster { revision: snapshot.revision(), servers: snapshot.vms_of(customer).map(server).collect() }
    }
}
