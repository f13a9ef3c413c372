//! What the algorithms remember between picks.

use crate::{table::Table, turn::Turn};
use std::{collections::HashMap, sync::Arc};
use vibra_model::VmId;

/// The mutable memory of the algorithms that have one, such as whose turn it is or which server has served an object.
///
/// It outlives tables: at the first pick from another table it is carried over by server name. Whether the threads
/// of a dispatcher must share one, [`Table::shares_state`] says.
#[derive(Debug, Clone, Default)]
pub struct PickState {
    /// The mark of the table that `memory` is for; `None` before the first.
    mark: Option<u128>,
    /// That table's servers.
    names: Arc<[VmId]>,
    pub(crate) memory: Memory,
}

/// Per algorithm, what it remembers.
#[derive(Debug, Clone, Default)]
pub(crate) enum Memory {
    #[default]
    Nothing,
    Turn(Turn),
}

impl PickState {
    /// Whether the memory is for this table.
    #[inline]
    pub(crate) fn fits(&self, table: &Table) -> bool {
        self.mark == Some(table.mark())
    }

    /// Carries the memory over to `table`.
    #[cold]
    pub(crate) fn adapt(&mut self, table: &Table) {
        let places: HashMap<&VmId, usize> = table.names().iter().zip(0..).collect();
        let moved: Vec<Option<usize>> = self.names.iter().map(|name| places.get(name).copied()).collect();
        self.memory = table.carry(std::mem::take(&mut self.memory), &moved);
        self.names = table.names().clone();
        self.mark = Some(table.mark());
    }
}
