//! The parts of a running system, started from a configuration: what `vibra up` runs together and the other commands
//! run alone.

pub(crate) mod allocator;
pub(crate) mod directory;
pub(crate) mod dispatcher;
pub(crate) mod host;
pub(crate) mod stop;
