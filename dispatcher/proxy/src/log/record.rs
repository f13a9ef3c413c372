//! What is known of one request.

use crate::trace::Hop;
use vibra_model::{Timestamp, VmId};

/// What is known of one request once it has ended. What comes from the network is as it came; formatters escape it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The client's IP address, as text.
    pub client: &'a str,
    /// When the request began.
    pub time: Timestamp,
    /// Its first line; `None` where that was never understood.
    pub request: Option<RequestLine<'a>>,
    /// The response's status; `None` where nothing was answered.
    pub status: Option<u16>,
    /// Bytes of the response's body that were sent to the client.
    pub sent: u64,
    /// Bytes of the request's body that were received.
    pub received: u64,
    /// The request's `Referer`.
    pub referer: Option<&'a [u8]>,
    /// The request's `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// The host that was asked.
    pub host: Option<&'a [u8]>,
    /// The request's id.
    pub id: Option<&'a [u8]>,
    /// The server that answered, or was asked when it ended.
    pub server: Option<&'a VmId>,
    /// The servers that were passed over before it.
    pub skipped: &'a [Skipped<'a>],
    /// How many servers were asked.
    pub attempts: u32,
    /// Where the time went.
    pub phases: Phases,
    /// How it ended.
    pub end: End,
    /// The version of TLS towards the client; `None` without TLS.
    pub tls: Option<&'static str>,
    /// Its place in a trace.
    pub trace: Option<Hop>,
}

impl<'a> Record<'a> {
    /// A complete request of which nothing else is known.
    pub fn new(client: &'a str, time: Timestamp) -> Self {
        Record {
            client,
            time,
            request: None,
            status: None,
            sent: 0,
            received: 0,
            referer: None,
            user_agent: None,
            host: None,
            id: None,
            server: None,
            skipped: &[],
            attempts: 0,
            phases: Phases::default(),
            end: End::Complete,
            tls: None,
            trace: None,
        }
    }
}

/// A request's first line.
#[derive(Clone, Copy, Debug)]
pub struct RequestLine<'a> {
    /// The method.
    pub method: &'a [u8],
    /// What was asked for, as it came.
    pub target: &'a [u8],
    /// The protocol: `HTTP/1.1`.
    pub version: &'static str,
}

/// A server that was passed over for a request.
#[derive(Clone, Copy, Debug)]
pub struct Skipped<'a> {
    /// The server.
    pub server: &'a VmId,
    /// Why, in a word: letters, digits and `-`.
    pub reason: &'static str,
}

/// How long a request spent where, in microseconds. `None`: it never came so far, or needed none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Waiting for a server with room for it.
    pub queue: Option<u64>,
    /// Making a connection to the server that was chosen.
    pub connect: Option<u64>,
    /// From its first byte to the first byte of the response.
    pub first_byte: Option<u64>,
    /// From its first byte to its end.
    pub total: Option<u64>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client got the whole response.
    Complete,
    /// The client went away, or sent or took no more.
    ClientGone,
    /// The server broke off.
    ServerBroke,
    /// The dispatcher answered itself, and why, in a word.
    Refused(&'static str),
    /// The dispatcher stopped in the middle.
    CutOff,
}

impl End {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            End::Complete => "complete",
            End::ClientGone => "client-gone",
            End::ServerBroke => "server-broke",
            End::Refused(_) => "refused",
            End::CutOff => "cut-off",
        }
    }
}
