//! Vibra at work on this machine: VMs that are made for it, and the whole loop over them. For the demo and the figures.

mod cluster;
mod system;

pub(crate) use cluster::{Cluster, Equipment};
pub(crate) use system::{FLOOR, HOST, System, Way, directory};
