//! Runs on each host: drives the actuators of its VMs by what the directory desires, and tells the directory what its
//! sensors see.

mod agent;
mod catalogue;
mod inprocess;
mod machine;
mod namespace;

pub use agent::{Agent, AgentSettings, register};
pub use catalogue::{Catalogue, LAST_MODIFIED, Object, ObjectId, PathError};
pub use inprocess::{DiskModel, InProcessHost, OriginSettings};
pub use machine::{Machine, MachineError, MachineSpec, Reading};
pub use namespace::{
    Capabilities, CgroupVersion, CommandError, DiskLimit, HostError, MOST_VMS, NamespaceHost, NamespaceSettings,
    Reason, RunError, cleanup_stale, probe,
};
