//! Friendly virtual machines: each VM adapts its own demand to what the resources behind it bear, without coordination
//! (Zhang, Bestavros, Guirguis, Matta and West, "Friendly Virtual Machines", BUCS-TR-2004-030, whose sections and equations
//! are cited by number).
//!
//! A VM measures its *virtual clock time* (VCT): how long the host takes to advance it by a tick. Where that grows, some
//! resource is overloaded, whichever it is. [`Monitor`] turns ticks into a congestion signal; [`Controller`] answers with the
//! multiprogramming level, and at level 1 with a rate; [`Fvm`] is both, for one VM. No VM knows of another: that they come to
//! equal shares follows from the [`Rule`] by which they rise and fall.
//!
//! In Vibra a VM's level is how many requests it has in flight at once, and its tick is what its agent measures: the mean
//! service time of a request. It divides nothing that was bought, so that it is no [`Policy`](crate::Policy), which plans for
//! a customer: it runs in each agent.
//!
//! ```
//! use std::time::Duration;
//! use vibra_model::Timestamp;
//! use vibra_policy::fvm::{Fvm, FvmParameters, Tick};
//!
//! let mut vm = Fvm::new(FvmParameters::default()).unwrap();
//! let mut second = 0;
//! let mut run = |seconds: u64, milliseconds: u64| {
//!     for _ in 0..seconds {
//!         second += 1;
//!         let took = Some(Duration::from_millis(milliseconds));
//!         vm.observe(Timestamp(second * 1_000_000), Tick { took, in_use: None });
//!     }
//!     vm.level().get()
//! };
//! assert_eq!(run(26, 20), 15, "one more every 5 s");
//! assert_eq!(run(5, 80), 10, "four times slower: back by 1.5");
//! ```

mod adaptation;
mod controller;
mod fairness;
mod fluid;
mod monitor;
mod parameters;
mod police;
mod rule;

pub use adaptation::{Decision, Fvm, Tick};
pub use controller::Controller;
pub use fairness::fairness_index;
pub use fluid::{Admission, Equilibrium, Fluid, Point, Pole, simplified_poles};
pub use monitor::{Monitor, Slowdown};
pub use parameters::{FvmParameters, ParameterError};
pub use police::{Finding, Observation, Police, PoliceParameters};
pub use rule::Rule;
