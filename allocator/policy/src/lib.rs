//! How resources move between the VMs of a customer.
//!
//! A [`Policy`] looks at an immutable [`View`] (the directory's snapshot, what VMs used, whose VMs) and returns a
//! [`Plan`](vibra_model::Plan): what shall change and what shall not, each with its reason. [`check`] judges a plan by rules that no
//! policy wrote. A [`Guard`] trims any policy's plans to what is [safe](Safety),
//! and [`Takeover`] adds to any policy what becomes of a failed VM's resources. The crate is pure: no I/O, no clock, no randomness. Time is passed in, so that the same code decides
//! for the allocator and for a simulator.
//!
//! | name | it |
//! | --- | --- |
//! | `static` | keeps what each VM has, or shares equally: [`Fixed`] |
//! | `proportional` | equalises utilisation: [`Proportional`], section 3.3.2 |
//! | `dps-distributed` | VMs send what they do not use to those they wait for: [`Distributed`], section 5.3.3 |
//! | `dps-bank` | a bank takes what VMs do not use and pays those that lack it: [`Bank`], section 5.3.4 |
//! | `sandpiper` | resolves hot spots by resizing and migration, black-box: [`Sandpiper`] |
//! | `sandpiper-gray` | the same, from memory in use and requests too |
//!
//! ```
//! use serde_json::json;
//! use vibra_model::*;
//! use vibra_policy::{Limits, Policies, View, check};
//!
//! let shop: CustomerId = "shop".parse().unwrap();
//! let rate = |n| Resources { bandwidth: Some(BytesPerSec(n)), ..Resources::NONE };
//! let mut directory = Snapshot::default();
//! let mut run = |command| {
//!     let changes = directory.decide(&command).unwrap();
//!     directory.apply(directory.revision().next(), &changes);
//! };
//! run(Command::PutCustomer(Customer { id: shop.clone(), bounds: rate(1000) }));
//! run(Command::PutHost(HostSpec { id: "h".parse().unwrap(), capacity: Resources::NONE }));
//! for (order, name) in [(1, "hot"), (2, "cold")] {
//!     run(Command::PutVm(VmSpec {
//!         id: name.parse().unwrap(),
//!         customer: shop.clone(),
//!         host: "h".parse().unwrap(),
//!         address: "10.0.0.1:80".into(),
//!         order,
//!         weight: 1,
//!         floor: rate(100),
//!         initial: rate(500),
//!     }));
//!     run(Command::SetVmState { vm: name.parse().unwrap(), state: VmState::Up });
//! }
//!
//! let sample = |egress| vec![UsageSample { at: Timestamp(1), egress: Some(BytesPerSec(egress)), ..Default::default() }];
//! let usage = UsageWindow([("hot".parse().unwrap(), sample(900)), ("cold".parse().unwrap(), sample(300))].into());
//!
//! let mut policy = Policies::shipped().build("proportional", Resource::Bandwidth, json!({ "alpha": 0.9 })).unwrap();
//! let plan = policy.decide(&View::new(&directory, &shop, &usage), Timestamp(1));
//! let granted: Vec<_> = plan.actions.iter().map(|action| action.change.to.raw()).collect();
//! assert_eq!(granted, [250, 750], "cold and hot use the same share of what they have");
//! assert!(check(&plan, &directory, &Limits::of(&shop, &[Resource::Bandwidth])).is_ok());
//! ```

mod check;
mod composition;
mod demand;
mod divide;
mod dps;
mod fixed;
mod freshness;
pub mod fvm;
mod policy;
mod proportional;
mod registry;
mod room;
mod safety;
mod sandpiper;
pub mod takeover;
#[cfg(test)]
mod testing;
mod view;

pub use check::{Checked, Fault, Limits, check};
pub use composition::{Composition, TwoPolicies};
pub use dps::{
    Account, Bank, BankParameters, Banker, Bankers, Distributed, DistributedParameters, EXPIRY, ExchangeRates, Member,
    Upstream,
};
pub use fixed::{Fixed, FixedParameters, Share};
pub use freshness::Freshness;
pub use policy::{Failure, Policy, RestoreError};
pub use proportional::{ALPHA, DEAD_BAND, Proportional, ProportionalParameters};
pub use registry::{BuildError, Constructor, Policies};
pub use safety::{Guard, Safety};
pub use sandpiper::{Sandpiper, SandpiperParameters, Sla};
pub use takeover::{Takeover, TakeoverParameters};
pub use view::View;
