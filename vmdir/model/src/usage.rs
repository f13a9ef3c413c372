//! What VMs were measured to use.

use crate::{Applied, Bytes, BytesPerSec, HostId, Timestamp, VmId, VmState};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

/// What one VM used in the interval that ends at `at`. What was not measured is `None`, never 0.
///
/// In memory its fields lie in this order, so that what a policy reads of it shares a cache line.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageSample {
    /// The end of the measured interval.
    pub at: Timestamp,
    /// Egress to outside, measured where packets are enqueued, before the shaper (section 3.4.5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<BytesPerSec>,
    /// CPU time used in the interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_time: Option<Duration>,
    /// Memory in use at `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_in_use: Option<Bytes>,
    /// Estimated working set (section 3.4.6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_set: Option<Bytes>,
    /// Requests completed in the interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Requests in flight at `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
    /// Mean service time of the requests completed in the interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_time: Option<Duration>,
    /// Packets or requests dropped in the interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drops: Option<u64>,
    /// Disk blocks of 512 bytes read in the interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_blocks: Option<u64>,
    /// Bytes that the VM's system moved to and from swap in the interval: a sign of too little memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swapped: Option<Bytes>,
    /// The length of the measured interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// The place in its cluster ([`order`](crate::VmSpec::order)) of the VM whose message last unblocked this one in
    /// the interval: its upstream (section 5.4.4). Only the VM's own system can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<u32>,
}

impl UsageSample {
    /// The CPU used over the interval, in thousandths of a core: `cpu_time` over `interval`. `None` where either was
    /// not measured, or the interval is empty.
    pub fn cpu(&self) -> Option<f64> {
        let interval = self.interval.filter(|interval| !interval.is_zero())?;
        Some(self.cpu_time?.as_secs_f64() / interval.as_secs_f64() * 1000.0)
    }
}

/// What a host says of one of its VMs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmReport {
    /// The VM.
    pub vm: VmId,
    /// The newest sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageSample>,
    /// The allocation as read back from the actuators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// The VM's state as the host sees it; `None` leaves it as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<VmState>,
    /// The most requests that it is to have in flight at once; `None`: no limit is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<NonZeroU32>,
}

/// A host's periodic report; it is also the host's sign of life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageReport {
    /// Who reports.
    pub host: HostId,
    /// Its VMs.
    pub vms: Vec<VmReport>,
}

/// The recent samples of each VM, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UsageWindow(pub BTreeMap<VmId, Vec<UsageSample>>);

impl UsageWindow {
    /// The samples of one VM, oldest first; empty if it never reported.
    pub fn samples(&self, vm: &VmId) -> &[UsageSample] {
        self.0.get(vm).map_or(&[], Vec::as_slice)
    }
}
