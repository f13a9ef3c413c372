//! The servers that requests are divided among.

use crate::warmth::Warmth;
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
    /// The share of its objects that it serves already.
    #[serde(default)]
    pub warmth: Warmth,
}

impl Server {
    /// A server with a warm cache.
    pub fn new(name: VmId, weight: u32, state: VmState) -> Self {
        Server { name, weight, state, warmth: Warmth::FULL }
    }
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
        let server = |vm: &vibra_model::Vm| Server::new(vm.id.clone(), vm.weight, vm.state);
        Cluster { revision: snapshot.revision(), servers: snapshot.vms_of(customer).map(server).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vibra_model::{Command, Customer, HostSpec, Resources, VmSpec};

    #[test]
    fn servers_stand_in_cluster_order() {
        let mut directory = Snapshot::default();
        let mut run = |command| {
            let changes = directory.decide(&command).unwrap();
            directory.apply(directory.revision().next(), &changes);
        };
        for customer in ["shop", "other"] {
            run(Command::PutCustomer(Customer { id: customer.parse().unwrap(), bounds: Resources::NONE }));
        }
        run(Command::PutHost(HostSpec { id: "h".parse().unwrap(), capacity: Resources::NONE }));
        for (name, customer, order) in [("a", "shop", 9), ("b", "other", 1), ("c", "shop", 2), ("d", "shop", 5)] {
            run(Command::PutVm(VmSpec {
                id: name.parse().unwrap(),
                customer: customer.parse().unwrap(),
                host: "h".parse().unwrap(),
                address: "127.0.0.1:80".into(),
                order,
                weight: order,
                floor: Resources::NONE,
                initial: Resources::NONE,
            }));
        }
        let cluster = Cluster::of(&directory, &"shop".parse().unwrap());
        let servers: Vec<_> = cluster.servers.iter().map(|server| (server.name.as_str(), server.weight)).collect();
        assert_eq!(servers, [("c", 2), ("d", 5), ("a", 9)]);
        assert_eq!(cluster.revision, directory.revision());
        assert!(cluster.servers.iter().all(|server| !server.state.serves()), "none has reported yet");
        assert!(Cluster::of(&directory, &"nobody".parse().unwrap()).servers.is_empty());
    }
}
