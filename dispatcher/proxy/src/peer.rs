//! Who is at the other end of a client's connection, which a trusted proxy before it may tell by a PROXY header.

use crate::proxy_protocol::{self, BadHeader, Ends, LONGEST};
use crate::socket::Socket;
use crate::trust::Trust;
use std::io;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Who is at the other end of a client's connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Both ends of the connection: its own or, behind a proxy that tells, the client's with the proxy.
    pub(crate) ends: Ends,
    /// The IP address of its source, as text.
    pub(crate) address: String,
    /// Whether what comes from there is believed.
    pub(crate) trusted: bool,
}

impl Peer {
    pub(crate) fn new(ends: Ends, trust: &Trust) -> Self {
        Self::known(ends, trust.covers(ends.source.ip().to_canonical()))
    }

    /// One of whom it is known whether he is believed.
    pub(crate) fn known(ends: Ends, trusted: bool) -> Self {
        Peer { ends, address: ends.source.ip().to_canonical().to_string(), trusted }
    }
}

/// Why a connection to a listener that wants a PROXY header is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoHeader {
    #[error("it comes from a peer that is not trusted")]
    Stranger,
    #[error("its PROXY header did not come within {0:?}")]
    Late(Duration),
    #[error("it ended before its PROXY header did: {0}")]
    Ended(#[from] io::Error),
    #[error("{0}")]
    Bad(#[from] BadHeader),
}

impl NoHeader {
    /// The kinds, by their names as labels.
    pub(crate) const KINDS: [&str; 4] = ["stranger", "late", "ended", "bad"];

    /// Its place among the kinds.
    pub(crate) fn kind(&self) -> usize {
        match self {
            NoHeader::Stranger => 0,
            NoHeader::Late(_) => 1,
            NoHeader::Ended(_) => 2,
            NoHeader::Bad(_) => 3,
        }
    }
}

/// Takes the PROXY header off the front of a connection with those own `ends`, waiting for it for at most so long;
/// returns the ends that count from now on.
///
/// # Errors
/// [`NoHeader`]. The connection must then be closed.
pub(crate) async fn announced(socket: &mut Socket, own: Ends, trust: &Trust, wait: Duration) -> Result<Ends, NoHeader> {
    if !trust.covers(own.source.ip()) {
        return Err(NoHeader::Stranger);
    }
    let header = timeout(wait, take_header(socket.watched()?)).await.map_err(|_| NoHeader::Late(wait))??;
    Ok(header.ends.unwrap_or(own))
}

/// Takes no more than the header: what follows is for others to read.
async fn take_header(stream: &mut TcpStream) -> Result<proxy_protocol::Header, NoHeader> {
    let mut bytes = vec![0; LONGEST];
    let mut taken = 0;
    loop {
        let come = taken + stream.peek(&mut bytes[taken..]).await?;
        if come == taken {
            return Err(NoHeader::Ended(io::ErrorKind::UnexpectedEof.into()));
        }
        let header = proxy_protocol::read(&bytes[..come])?;
        let end = header.map_or(come, |header| header.length);
        stream.read_exact(&mut bytes[taken..end]).await?;
        taken = end;
        if let Some(header) = header {
            return Ok(header);
        }
    }
}
