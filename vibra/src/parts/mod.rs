//! The parts of a running system, started from a configuration: what `vibra up` runs together and the other commands
//! run alone.

pub(crate) mod allocator;
pub(crate) mod attached;
pub(crate) mod directory;
pub(crate) mod dispatcher;
pub(crate) mod host;
pub(crate) mod signals;
pub(crate) mod stop;
pub(crate) mod systemd;
pub(crate) mod takeover;

/// Lets this process have as many file descriptors as it may: each connection takes one, and the usual limit of 1,024 is
/// there for programs that cannot cope with more.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
}
