//! HTTP/1.1 messages as bytes (RFC 9112): strict readers that know no socket, and the changes that a gateway makes.
//!
//! Heads are kept as the bytes that came, with the places of their fields: what is passed on is copied in runs, and
//! nothing is built that nobody asks for. [`httparse`] takes heads apart; what it is lenient about (line ends, lengths,
//! codings, targets) is refused here, since two readers that disagree about where a message ends can be played against
//! each other.

pub(crate) mod chunked;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod rewrite;
pub(crate) mod scan;

pub(crate) use chunked::Chunked;
pub(crate) use framing::Length;
pub(crate) use head::{Bad, RequestHead, ResponseHead};
pub(crate) use scan::Scan;
