//! The compact format of traces.
//!
//! It keeps all that a [`crate::Trace`] has, in some 5 bytes a request (less when gzipped, which readers see through),
//! can be written and read in one pass, and shows every damage. `docs/trace-format.md` has the whole of it; in short:
//!
//! ```text
//! trace  = magic block*                      magic = 89 "VTR" 0D 0A 1A version
//! block  = kind:u8 length:u32le crc:u32le payload     (crc: CRC-32 of kind and payload)
//! H      = name start resolution origin      what the trace is; again at the end, if it was not known at first
//! O      = first count (url size)*           objects, numbered on from `first`
//! S      = count (object size)*              sizes that were not known when the objects were written
//! R      = count unit (step client object bytes method status)*       requests
//! E      = requests objects                  the end; without it, the trace was cut
//! ```
//!
//! Numbers are LEB128 varints, texts are their length and UTF-8.

pub(crate) mod read;
mod wire;
mod write;

pub use write::Writer;

use crate::{Objects, Origin, Trace};
use std::time::Duration;
use vibra_model::Timestamp;

/// The first bytes; the last of them is the version. The odd ones show a transfer that took the trace for text.
const MAGIC: [u8; 8] = *b"\x89VTR\r\n\x1a\x01";

/// Largest payload of a block, in bytes.
const MAX_PAYLOAD: usize = 1 << 24;

pub(crate) fn is_magic(head: &[u8]) -> bool {
    // Whatever the version is: its decoder refuses it with a better message than "unknown format".
    head.starts_with(&MAGIC[..7])
}

/// What a trace is, beside its objects and requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What it is called.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Its first second, if it has a place in time.
    pub start: Option<Timestamp>,
    /// The step of its clock.
    pub resolution: Duration,
}

impl From<&Trace> for Header {
    fn from(trace: &Trace) -> Self {
        Header { name: trace.name.clone(), origin: trace.origin, start: trace.start, resolution: trace.resolution }
    }
}

/// Writes a whole trace.
///
/// # Errors
///
/// What `output` fails with; [`std::io::ErrorKind::InvalidInput`] for a time beyond 584 years or a URL beyond 16 MiB.
pub fn write(trace: &Trace, output: impl std::io::Write) -> std::io::Result<()> {
    let mut writer = Writer::new(output, Header::from(trace))?;
    for request in &trace.requests {
        writer.push(request, &trace.objects)?;
    }
    writer.finish(&trace.objects, Header::from(trace)).map(drop)
}

/// Index of the object block's first new object, for a table that grows.
fn next_id(objects: &Objects) -> u64 {
    objects.len() as u64
}
