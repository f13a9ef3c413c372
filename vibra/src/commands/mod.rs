//! The subcommands, one file each.

pub(crate) mod check;
pub(crate) mod dispatcher;
pub(crate) mod explain;
pub(crate) mod replay;
pub(crate) mod status;
pub(crate) mod trace;
pub(crate) mod up;
