//! A cluster of web servers: clients, dispatchers, server VMs on hosts, and the allocator, request by request.
//!
//! Dispatching is that of `vibra-routing` (tables and picks), allocation that of `vibra-policy` and the directory's rules of
//! `vibra-model`: nothing of them is copied here. What is modelled is all else:
//!
//! - **Clients** replay a trace in open loop (each request when it is due), or as a number of sessions in closed loop,
//!   each with the next request once it has its answer and has thought for a while.
//! - **Dispatchers**, several of them, each of which hears of changes with its own delay and counts its own requests.
//! - **Servers**: CPU, a cache of whole objects in memory over a disk, a token bucket at which responses take turns, a
//!   multiprogramming level, and slowness where memory is overcommitted. [`Hardware`] has the constants, which by default
//!   are those of the agent's in-process VMs.
//! - **Agents and allocator** on the real times: a report a second, a decision every interval, decreases before
//!   increases. [`Fault`]s let VMs and hosts fail and restart cold, actuators be stuck and sensors stale.
//!
//! CPU and disk serve in the order of coming, so that the end of a visit is known when it begins; only the shaper, whose
//! rate changes, has events. Memory is bounded by the cluster, its catalogue of objects and the requests under way: the
//! trace is a stream.

mod catalogue;
mod control;
mod dispatcher;
mod egress;
mod fault;
mod hardware;
mod lru;
mod outcome;
mod requests;
mod run;
mod server;
mod storage;
#[cfg(test)]
mod tests;
mod throttle;
mod tournament;

pub use catalogue::{Arrival, Catalogue, Nanos, late_by};
pub use fault::{Fault, FaultError, FaultKind};
pub use hardware::{CpuCost, Disk, Hardware, Migration, Shaper, Throttle};
pub use outcome::{CHANGES, Decisions, Errors, Given, Outcome, PARTS, Part, Times};
pub use run::Simulation;

use std::time::Duration;
use vibra_model::{Customer, HostSpec, Rejection, VmSpec};
use vibra_routing::Settings;

/// What is simulated, but for the policies and the requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Whose cluster it is, and what he bought.
    pub customer: Customer,
    /// The hosts.
    pub hosts: Vec<HostSpec>,
    /// His VMs.
    pub vms: Vec<VmSpec>,
    /// How requests are dispatched.
    pub settings: Settings,
    /// How many dispatchers there are; clients keep to one each.
    pub dispatchers: usize,
    /// After how long the last of the dispatchers hears of a change; the k-th of n does after k/n of it.
    pub view_delay: Duration,
    /// The time between the allocator's decisions.
    pub interval: Duration,
    /// The time between a decision and what the actuators do.
    pub actuator_lag: Duration,
    /// What VMs are like.
    pub hardware: Hardware,
    /// Over which time VMs measure their working sets; `None`: not at all, which is faster.
    pub working_set_window: Option<Duration>,
    /// Who asks.
    pub clients: Clients,
    /// Requests that are due before this are simulated and not counted.
    pub warm_up: Duration,
    /// After how long a client gives up.
    pub timeout: Duration,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Of all random numbers.
    pub seed: u64,
}

/// Who asks for what the trace has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clients {
    /// Each request comes when it is due, whatever became of those before it.
    Open,
    /// So many sessions; each takes the next request of the trace once it has its answer and has thought.
    Closed {
        /// How many.
        sessions: u32,
        /// Mean of the exponentially distributed time that they think.
        think: Duration,
    },
}

/// Why there is nothing to simulate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The directory would not have this cluster.
    #[error("the directory refuses the cluster")]
    Refused(#[from] Rejection),
    /// Requests cannot be dispatched so.
    #[error("there is no routing table for the cluster")]
    Routing(#[from] vibra_routing::BuildError),
    /// A number makes no sense.
    #[error("{what} must be {must}")]
    Number {
        /// Which.
        what: &'static str,
        /// What it must be.
        must: &'static str,
    },
    /// A fault strikes nobody.
    #[error("the fault {fault} names neither a VM nor a host")]
    Nobody {
        /// The fault.
        fault: String,
    },
}

impl Scenario {
    /// A customer's cluster without hosts and VMs as yet, with all else as usual: url-hash with R = 2, one dispatcher that
    /// hears of changes at once, a decision every 3 s, the default hardware, an open loop, 10 s until a client gives up.
    pub fn new(customer: Customer) -> Self {
        Scenario {
            customer,
            hosts: Vec::new(),
            vms: Vec::new(),
            settings: Settings::default(),
            dispatchers: 1,
            view_delay: Duration::ZERO,
            interval: Duration::from_secs(3),
            actuator_lag: Duration::ZERO,
            hardware: Hardware::default(),
            working_set_window: None,
            clients: Clients::Open,
            warm_up: Duration::ZERO,
            timeout: Duration::from_secs(10),
            faults: Vec::new(),
            seed: 0,
        }
    }

    fn check(&self) -> Result<(), SetupError> {
        let numbers = [
            ("the number of dispatchers", "1 or more", self.dispatchers > 0),
            ("the interval between decisions", "above zero", !self.interval.is_zero()),
            ("the time after which a client gives up", "above zero", !self.timeout.is_zero()),
            ("the number of sessions", "1 or more", !matches!(self.clients, Clients::Closed { sessions: 0, .. })),
            ("the multiprogramming level", "1 or more", self.hardware.mpl != Some(0)),
            ("the number of threads", "1 or more", self.hardware.threads != Some(0)),
        ];
        match numbers.into_iter().find(|(.., right)| !right) {
            Some((what, must, _)) => Err(SetupError::Number { what, must }),
            None => Ok(()),
        }
    }
}
