//! The directory's vocabulary: ids, units, customers, VMs, hosts, allocations, usage, plans and bounds.
//!
//! Every other crate speaks in these types and this crate knows none of them. It is pure: no I/O, no clock, no
//! randomness. The directory's rules live here too ([`Snapshot::decide`]), so that the service and the in-memory fake
//! that tests use cannot differ.
//!
//! ```
//! use vibra_model::*;
//!
//! let mut directory = Snapshot::default();
//! let mut run = |command| {
//!     let changes = directory.decide(&command)?;
//!     directory.apply(directory.revision().next(), &changes);
//!     Ok::<_, Rejection>(())
//! };
//! let megabyte = |n: u64| Resources { bandwidth: Some(BytesPerSec(n * 1_000_000)), ..Resources::NONE };
//! run(Command::PutCustomer(Customer { id: "shop".parse().unwrap(), bounds: megabyte(10) })).unwrap();
//! run(Command::PutHost(HostSpec { id: "h1".parse().unwrap(), capacity: megabyte(100) })).unwrap();
//! run(Command::PutVm(VmSpec {
//!     id: "vm1".parse().unwrap(),
//!     customer: "shop".parse().unwrap(),
//!     host: "h1".parse().unwrap(),
//!     address: "10.0.0.1:80".into(),
//!     order: 1,
//!     weight: 1,
//!     floor: megabyte(1),
//!     initial: megabyte(4),
//! })).unwrap();
//! assert_eq!(directory.vms().len(), 1);
//! ```

pub mod api;
mod bounds;
mod cluster;
mod directory;
mod id;
mod plan;
mod resource;
mod role;
pub mod text;
mod units;
mod usage;

pub use bounds::{Rejection, Violation};
pub use cluster::{Allocation, Applied, Customer, Host, HostSpec, HostState, Vm, VmSpec, VmState};
pub use directory::{Change, Command, Event, Snapshot};
pub use id::{CustomerId, Generation, HostId, IdError, PoolId, Revision, VmId};
pub use plan::{Action, AllocationChange, Move, Plan, Proposal, Reason, Refusal};
pub use resource::{Amount, Resource, Resources};
pub use role::{Forbidden, Role};
pub use units::{Bytes, BytesPerSec, MilliCpu, Timestamp, UnitError};
pub use usage::{UsageReport, UsageSample, UsageWindow, VmReport};
