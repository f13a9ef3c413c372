//! Runs on each host: drives the actuators of its VMs by what the directory desires, and tells the directory what its
//! sensors see.
//!
//! The allocator decides who gets what and knows no VM; the agent knows its VMs and decides nothing. In between stands
//! the directory. What the agent adds is the order: decreases before increases, over all hosts, so that the sum of what
//! is in force never exceeds what was bought (section 3.3.2). And the truth: what it reports is read back.
//!
//! An [`Agent`] drives anything that is a [`Machine`]. There are three kinds:
//!
//! | | [`InProcessHost`] | [`NamespaceHost`] | [`QemuHost`] |
//! | --- | --- | --- | --- |
//! | is | an HTTP server in this process | nginx in a network namespace | nginx in a QEMU virtual machine |
//! | bandwidth | a token bucket | an HTB class on the host's uplink | the same |
//! | memory | an LRU cache of objects | a control group | a balloon |
//! | disk | a model of one arm | the machine's, throttled | the same |
//! | needs | nothing | root, and what [`probe`] looks for | besides what [`probe_qemu`] looks for |
//!
//! All serve a [`Catalogue`] of objects with the same bodies, tags and dates. A fourth kind, [`AttachedHost`], is for VMs that
//! somebody else runs: it makes none, and holds those that there are to their allocation.
//!
//! ```
//! use std::sync::Arc;
//! use vibra_agent::{Catalogue, InProcessHost, MachineSpec, OriginSettings};
//! use vibra_model::{Amount, Bytes, BytesPerSec, Resources};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let catalogue = Arc::new(Catalogue::new([("/index.html", Bytes(5_000))]).unwrap());
//! let initial = Resources { bandwidth: Some(BytesPerSec(2_700_000)), memory: Some(Bytes(48 << 20)), cpu: None };
//! let specs = vec![MachineSpec { id: "vm1".parse().unwrap(), initial }];
//! let host = InProcessHost::start(OriginSettings::default(), catalogue, specs).await.unwrap();
//! let vm = &host.machines()[0];
//! let half = Amount::Bandwidth(BytesPerSec(1_350_000));
//! assert_eq!(vm.set(half).await.unwrap(), half);
//! assert_eq!(vm.read().await.unwrap().requests, Some(0));
//! # });
//! ```

mod agent;
mod attached;
mod catalogue;
mod host;
mod inprocess;
mod machine;
mod namespace;
mod qemu;

pub use agent::{Agent, AgentSettings, register};
pub use attached::{AttachedError, AttachedHost, AttachedSettings, AttachedSpec};
pub use catalogue::{Catalogue, LAST_MODIFIED, Object, ObjectId, PathError};
pub use host::{
    Reason,
    cgroup::{CgroupVersion, CpuControl, DiskLimit},
    command::CommandError,
    network::MOST_VMS,
    run::{RunError, cleanup_stale},
    shaper::ShaperError,
};
pub use inprocess::{DiskModel, InProcessHost, OriginSettings};
pub use machine::{Machine, MachineError, MachineSpec, Migration, Moved, Reading};
pub use namespace::{Capabilities, HostError, NamespaceHost, NamespaceSettings, probe};
pub use qemu::{Accelerator, QemuCapabilities, QemuHost, QemuSettings, probe_qemu};
/// What a working set is found out with.
pub use vibra_guest::{Method as WorkingSetMethod, Sampling as WorkingSetSampling};
