//! What every kind of VM on a real host shares: the host's network and its shaper, control groups, the tools that change
//! both, and the life of a run. Nothing here knows what runs in a VM.

pub(crate) mod cgroup;
pub(crate) mod claim;
pub(crate) mod command;
pub(crate) mod docroot;
pub(crate) mod memory;
pub(crate) mod netlink;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod run;
pub(crate) mod shaper;
pub(crate) mod working_set;

use std::error::Error;

/// Why something cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Reason(pub(crate) String);

impl Reason {
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        Reason(crate::machine::chain(error))
    }
}
