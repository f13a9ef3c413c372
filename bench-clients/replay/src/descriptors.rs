//! Room for connections in the process's table of open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that a process has open besides its connections, generously.
const OTHERS: u64 = 256;

/// Raises the soft limit on open files, which is often 1,024, so that `connections` more fit in; the hard limit allowing.
///
/// Where it does not, opening a connection may fail later, and the requests concerned are counted as not sent.
pub(crate) fn make_room(connections: usize) {
    let needed = connections as u64 + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < needed) {
        let current = Some(maximum.map_or(needed, |maximum| maximum.min(needed)));
        // A limit that stays as it is shows when it is reached.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    }
}
