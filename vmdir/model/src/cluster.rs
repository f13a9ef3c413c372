//! Customers, hosts and VMs.

use crate::{CustomerId, Generation, HostId, PoolId, Resource, Resources, VmId};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

/// Who bought resources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Customer {
    /// Who.
    pub id: CustomerId,
    /// What he bought: the most that his VMs may have together. `None`: not bought, so never allocated.
    pub bounds: Resources,
}

/// A host as an operator registers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSpec {
    /// Which.
    pub id: HostId,
    /// What it has; `None`: not limited.
    pub capacity: Resources,
}

/// Whether a host is heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostState {
    /// It reports.
    Up,
    /// It was silent past the deadline, or never reported.
    Down,
}

/// A host as the directory keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Which.
    pub id: HostId,
    /// What it has; `None`: not limited.
    pub capacity: Resources,
    /// Whether it is heard of.
    pub state: HostState,
    /// With whose agents its own can exchange VMs; `None`: with nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolId>,
}

/// Where a VM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VmState {
    /// Registered, not yet able to serve.
    Starting,
    /// Serving.
    Up,
    /// Finishing what it has; no new requests.
    Draining,
    /// Serving again after a failure, with a cold cache.
    Warming,
    /// Failed or stopped.
    Down,
}

impl VmState {
    /// Whether the dispatcher may send it new requests.
    pub fn serves(self) -> bool {
        matches!(self, VmState::Up | VmState::Warming)
    }
}

/// A VM as it is registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// Which.
    pub id: VmId,
    /// Whose.
    pub customer: CustomerId,
    /// Where.
    pub host: HostId,
    /// Where it serves HTTP: `host:port`.
    pub address: String,
    /// Its place in its cluster: VM_1, …, VM_N of section 3.3.1. Unique within the customer.
    pub order: u32,
    /// Its share under weighted dispatching; at least 1.
    #[serde(default = "one")]
    pub weight: u32,
    /// The least it is ever allocated.
    pub floor: Resources,
    /// What it is allocated when it is first registered; later registrations leave the allocation as it is.
    pub initial: Resources,
}

fn one() -> u32 {
    1
}

/// What one VM shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allocation {
    /// How much; `None`: not managed for this VM.
    pub resources: Resources,
    /// Grows with each change.
    pub generation: Generation,
}

/// What a host has in force for one VM, as it read it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applied {
    /// The values of the actuators.
    pub resources: Resources,
    /// The newest desired allocation that the host has adopted: it never again carries out an older one, but may
    /// still wait for leave to raise what is to be raised.
    pub generation: Generation,
}

/// A VM as the directory keeps it.
///
/// In memory its fields lie in this order, so that what a policy reads of it shares cache lines.
#[repr(C)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// Which.
    pub id: VmId,
    /// Whose.
    pub customer: CustomerId,
    /// Where.
    pub host: HostId,
    /// Where it serves HTTP: `host:port`.
    pub address: String,
    /// Its place in its cluster.
    pub order: u32,
    /// Its share under weighted dispatching.
    pub weight: u32,
    /// Where it is in its life.
    pub state: VmState,
    /// The least it is ever allocated.
    pub floor: Resources,
    /// What it shall have.
    pub desired: Allocation,
    /// What its host last said it has.
    pub applied: Option<Applied>,
    /// The most that its host may have given it: the applied allocation, and every desired one since. An increase
    /// waits until the sum of these is within the bound (see [`crate::Snapshot::may_raise`]).
    pub held: Resources,
    /// The most requests that it is to have in flight at once, as its host last said; `None`: no limit. Who sends it
    /// requests keeps to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<NonZeroU32>,
    /// Where it is going: its host stops it, then that host has it. Until then both hosts count it, and what it shall
    /// have does not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<HostId>,
}

impl Vm {
    /// The desired amount of one resource, in its base unit.
    pub fn desired(&self, resource: Resource) -> Option<u64> {
        self.desired.resources.get(resource)
    }
}
