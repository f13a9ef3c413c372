//! The subcommands, one file each.

pub(crate) mod check;
mod decision_log;
pub(crate) mod dispatcher;
pub(crate) mod explain;
mod explain_decision;
pub(crate) mod replay;
pub(crate) mod replay_decisions;
pub(crate) mod status;
pub(crate) mod trace;
pub(crate) mod up;
