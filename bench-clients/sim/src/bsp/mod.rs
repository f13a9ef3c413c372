//! Bulk-synchronous parallel programs in VMs whose hosts share CPU by credit (sections 5.5.4 to 5.5.6).
//!
//! Each node of a [`Program`] runs in a VM of its own: it computes, sends a message to each of its neighbours in the
//! [`Topology`], and waits for theirs before it goes on. Hosts have one CPU each, which Xen's credit scheduler divides
//! by weights; a weight is what the directory says that the VM shall have. Every T the policy of each program looks at
//! the directory and at what VMs used, and its plan is checked and carried out, as the allocator does it.
//!
//! What the text leaves open, and what is chosen here: messages take no time (the text's own simulator has no network
//! either); VMs report once a second; a migrated VM runs on where it was until its migration time is over, as live
//! migration has it, and, unless it is said otherwise, one VM migrates at a time; the VMs of a program that has ended are gone.

mod credit;
mod directory;
mod experiments;
mod program;
mod topology;
mod world;

pub use credit::Debits;
pub use experiments::{CYCLE, LARGE, MIGRATION, half_booked, large, patterns, two_copies};
pub use program::Program;
pub use topology::Topology;
pub use world::{Exchange, Migrated, Outcome, Setup, Shares, run};

#[cfg(test)]
mod tests;
