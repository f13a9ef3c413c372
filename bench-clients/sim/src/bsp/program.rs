//! A parallel program.

use super::Topology;
use std::time::Duration;
use vibra_model::MilliCpu;

/// A program of which each node computes, tells its neighbours, and waits for them, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Who tells whom.
    pub topology: Topology,
    /// The CPU time that each node takes an iteration.
    pub work: Vec<Duration>,
    /// How often.
    pub iterations: u32,
    /// What each VM shall have at first; all of them together are what the program's owner bought.
    pub shares: Vec<MilliCpu>,
    /// The number of the host on which each VM begins.
    pub hosts: Vec<usize>,
}
