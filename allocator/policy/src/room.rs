//! How much room hosts have.

use crate::View;
use vibra_model::Resource;

/// What is left of a resource on the hosts of a view, in the resource's base unit; `None` where there is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rooms(pub Vec<Option<u64>>);

impl Rooms {
    /// What the VMs of other customers leave.
    pub(crate) fn of(view: &View<'_>, resource: Resource) -> Self {
        Rooms(view.rooms(resource))
    }

    /// Counts an amount as used. Nothing happens for a VM whose host has no number.
    pub(crate) fn take(&mut self, host: Option<usize>, amount: u64) {
        if let Some(Some(left)) = host.map(|host| &mut self.0[host]) {
            *left = left.saturating_sub(amount);
        }
    }

    /// Counts an amount as no longer used. Nothing happens for a VM whose host has no number.
    pub(crate) fn give(&mut self, host: Option<usize>, amount: u64) {
        if let Some(Some(left)) = host.map(|host| &mut self.0[host]) {
            *left = left.saturating_add(amount);
        }
    }

    /// What is left, where there is a limit.
    pub(crate) fn left(&self, host: Option<usize>) -> Option<u64> {
        self.0[host?]
    }
}
