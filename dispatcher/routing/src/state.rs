//! What the algorithms remember between picks.

use crate::{
    lard::History,
    slots::SlotMap,
    table::Table,
    turn::{Owed, Turn},
};
use std::{borrow::Cow, collections::HashMap, sync::Arc};
use vibra_model::VmId;

/// The mutable memory of the algorithms that have one, such as whose turn it is or which server has served an object.
///
/// It outlives tables: at the first pick from another table it is carried over by server name. Whether the threads
/// of a dispatcher must share one, [`Table::shares_state`] says. Carrying over costs time in proportion to N (and to
/// the number of slots), so those who share a state should change tables together, not in turns.
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
    Owed(Owed),
    Slots(SlotMap),
    History(Box<History>),
}

impl PickState {
    /// How many distinct objects are remembered: 0 except under LARD.
    pub fn objects(&self) -> usize {
        if let Memory::History(history) = &self.memory { history.objects() } else { 0 }
    }

    /// Carries the memory over to `table`, unless it is for that one already.
    #[inline]
    pub(crate) fn adapt(&mut self, table: &Table) {
        if !self.fits(table) {
            self.carry(table);
        }
    }

    /// This memory as it is for `table`.
    pub(crate) fn adapted(&self, table: &Table) -> Cow<'_, PickState> {
        let mut state = Cow::Borrowed(self);
        if !self.fits(table) {
            state.to_mut().carry(table);
        }
        state
    }

    fn fits(&self, table: &Table) -> bool {
        self.mark == Some(table.mark())
    }

    #[cold]
    fn carry(&mut self, table: &Table) {
        let places: HashMap<&VmId, usize> = table.names().iter().zip(0..).collect();
        let moved: Vec<Option<usize>> = self.names.iter().map(|name| places.get(name).copied()).collect();
        self.memory = table.carry(std::mem::take(&mut self.memory), &moved);
        self.names = table.names().clone();
        self.mark = Some(table.mark());
    }
}
