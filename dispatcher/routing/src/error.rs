//! Why no table is built.

use vibra_model::VmId;

/// Why a cluster and settings make no table. Positions count from 1, in cluster order.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No server at all.
    #[error("the server list is empty: name at least one server")]
    Empty,
    /// Two servers of one name.
    #[error("servers {first} and {second} are both named {name}: give each server its own name")]
    Duplicate {
        /// The name.
        name: VmId,
        /// The position of the one.
        first: usize,
        /// The position of the other.
        second: usize,
    },
    /// A weight of 0.
    #[error("server {position} ({name}) has weight 0: use 1 or more, or drain the server")]
    ZeroWeight {
        /// The server's name.
        name: VmId,
        /// Its position.
        position: usize,
    },
    /// R of 0.
    #[error("replicas (R) is 0: every object needs at least one server")]
    NoReplicas,
    /// R over N.
    #[error("replicas (R) is {replicas}, over the {servers} server(s) of the cluster: use 1 to {servers}")]
    TooManyReplicas {
        /// R.
        replicas: usize,
        /// N.
        servers: usize,
    },
    /// A number outside of what its algorithm can work with.
    #[error("{setting} is {value}: {hint}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// The value that was found.
        value: String,
        /// What is possible.
        hint: &'static str,
    },
}
