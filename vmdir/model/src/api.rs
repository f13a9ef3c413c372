//! What travels between the directory and its clients: HTTP/JSON under [`PREFIX`].
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `GET /v1/snapshot` | | [`Snapshot`](crate::Snapshot) |
//! | `GET /v1/watch?from=REVISION` | | a stream of JSON lines, each a [`WatchLine`]; 410 if REVISION is too old or unknown |
//! | `GET /v1/usage?since=TIMESTAMP` | | [`UsageWindow`](crate::UsageWindow), samples after TIMESTAMP |
//! | `POST /v1/usage` | [`UsageReport`](crate::UsageReport) | [`Accepted`] |
//! | `POST /v1/proposals` | [`Proposal`](crate::Proposal) | [`Accepted`]; 409 stale; 422 with the violations |
//! | `PUT /v1/customers` | [`Customer`](crate::Customer) | [`Accepted`] |
//! | `PUT /v1/hosts` | [`HostSpec`](crate::HostSpec) | [`Accepted`] |
//! | `PUT /v1/vms` | [`VmSpec`](crate::VmSpec) | [`Accepted`] |
//! | `DELETE /v1/customers/ID`, `/v1/hosts/ID`, `/v1/vms/ID` | | [`Accepted`] |
//! | `PUT /v1/hosts/ID/pool` | [`PoolId`](crate::PoolId) | [`Accepted`] |
//! | `POST /v1/vms/ID/move` | [`MoveRequest`] | [`Accepted`]; 409 stale; 422 with the violations |
//! | `PUT /v1/vms/ID/state` | [`VmState`](crate::VmState) | [`Accepted`] |
//!
//! Every request but `GET /v1/health` carries `Authorization: Bearer TOKEN`. Every error is an [`ErrorBody`].

use crate::{Event, HostId, Rejection, Revision};
use serde::{Deserialize, Serialize};

/// The path prefix of this version of the API.
pub const PREFIX: &str = "/v1";

/// The answer to an accepted command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The directory's revision with the command carried out; it is durable.
    pub revision: Revision,
}

/// Where a VM shall go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The revision that the sender had seen.
    pub base: Revision,
    /// Where to.
    pub to: HostId,
}

/// One line of a watch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchLine {
    /// A commit.
    Event(Event),
    /// Nothing happened for a while: the watch is alive, and this is the newest revision.
    Alive(Revision),
    /// The watcher fell too far behind: take a new snapshot and watch from there. The stream ends.
    Resync(Revision),
}

/// The body of every error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What happened, to what, and what to do; for people.
    pub message: String,
    /// Why the directory refused; for programs. Absent where the request itself was at fault (path, token, syntax).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<Rejection>,
}
