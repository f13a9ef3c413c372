//! Why a dispatcher does not start.

use crate::tls::TlsError;
use std::{error::Error, fmt, io, net::SocketAddr, path::PathBuf};
use vibra_model::VmId;
use vibra_routing::BuildError;

/// Why a dispatcher does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The servers or the algorithm's settings make no sense.
    #[error("the servers and settings make no routing table")]
    Routing(#[from] BuildError),
    /// A server's address is none.
    #[error("server {position} ({name}) has the address {address:?}: use host:port, or https://host:port")]
    Address {
        /// The server.
        name: VmId,
        /// Its place in the list, from 1.
        position: usize,
        /// What was given.
        address: String,
    },
    /// TLS cannot be spoken as the configuration wants.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Another part of the configuration makes no sense.
    #[error("{what} is out of range: {hint}")]
    Invalid {
        /// The field of [`Config`](crate::Config).
        what: &'static str,
        /// What is possible.
        hint: &'static str,
    },
    /// An address cannot be listened at.
    #[error("cannot listen at {address}: choose another address, or stop what listens there")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The access log's file cannot be opened.
    #[error("cannot write the access log to {path}: choose a path in a directory where this user may write", path = path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system refuses a thread or a socket.
    #[error("the system refuses what the dispatcher needs to run")]
    System(#[source] io::Error),
}

/// An error with all its causes, in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
