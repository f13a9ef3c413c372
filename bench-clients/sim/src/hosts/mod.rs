//! Hosts with VMs whose demand for CPU, network and memory is scripted or comes from traces: the world that policies which
//! resize and move VMs are tried in.
//!
//! Time goes by measurement intervals. In each, a host divides what it has among its VMs; what they used is measured
//! as an agent would; the policies decide on that, through [`View`](vibra_policy::View), the plan checker and the
//! directory's rules; and the plan's moves are carried out one after another, each for as many intervals as copying the
//! VM's memory takes.

mod hindsight;
mod outcome;
mod scenario;
mod supply;
mod world;

pub use hindsight::{Hindsight, best_fixed, best_of_all};
pub use outcome::{Moved, Outcome, Service};
pub use scenario::{
    Overload, Resolved, Scenario, Spread, figure_5_5, hot_hosts, prototype, resolved_by, steady_window, table_5_1,
};
pub use world::{Settings, World};

use vibra_model::VmSpec;

/// What a VM would use in an interval if nothing held it back.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Demand {
    /// In thousandths of a core.
    pub cpu: f64,
    /// Egress in bytes a second.
    pub bandwidth: f64,
    /// In bytes.
    pub memory: f64,
    /// Requests a second, where its CPU is used for such; those that find no CPU are dropped.
    pub requests: Option<f64>,
}

/// A VM with what it will want.
#[derive(Debug, Clone, PartialEq)]
pub struct Guest {
    /// How it is registered.
    pub spec: VmSpec,
    /// What it wants, by interval; the last goes on.
    pub demand: Vec<Demand>,
}

impl Guest {
    /// What it wants in an interval.
    pub fn at(&self, interval: usize) -> Demand {
        self.demand.get(interval).or(self.demand.last()).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
