//! TLS 1.2 and 1.3 on both sides: an [`Acceptor`] for clients, a [`Connector`] for servers.
//!
//! Both are shared by all threads, and what they work with is loaded from files as a whole, checked as a whole and
//! swapped as a whole: connections that exist go on with what they began with.
//!
//! # What who uses a [`Stream`] must know
//!
//! - What was written may still lie in the stream's own buffer when the socket takes no more: who has written all
//!   that he has must flush, and go on flushing until that is done.
//! - What was read may lie there too: only `poll_read` tells whether there is something, the socket's readiness
//!   does not.
//! - A peer that has sent all says so (`close_notify`, RFC 8446, section 6.1) and reading gives 0 bytes. A connection
//!   that ends without it fails with [`UnexpectedEof`](std::io::ErrorKind::UnexpectedEof): somebody on the way may
//!   have cut it, so a body that ends with its connection is whole in the first case alone. Shutting a stream down
//!   sends ours.

mod acceptor;
#[cfg(test)]
#[path = "../../tests/kit/authority.rs"]
mod authority;
mod certificate;
mod chooser;
mod connector;
mod error;
mod files;
mod handshake;
mod settings;
#[cfg(test)]
mod tests;

pub(crate) use acceptor::Acceptor;
pub(crate) use connector::Connector;
pub(crate) use handshake::{Fault, Handshakes};

pub use error::{TlsError, TlsWarning};
pub use settings::{Authorities, BackTls, CertificateFiles, ClientAuth, FrontTls, TlsVersion};

use acceptor::Front;
use connector::Back;
use handshake::Handshake;
use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, ring};
use rustls::version::{TLS12, TLS13};
use std::sync::{Arc, LazyLock};
use tokio::net::TcpStream;

/// What makes a dispatcher's connections TLS.
#[derive(Debug)]
pub(crate) struct Tls {
    /// Those of clients; `None` where they are served without.
    pub(crate) acceptor: Option<Arc<Acceptor>>,
    /// Those to servers.
    pub(crate) connector: Connector,
}

/// What is loaded from files, checked, and not in use yet.
pub(crate) struct Loaded {
    front: Option<Front>,
    back: Option<Back>,
}

impl Tls {
    /// Loads what the settings for clients (`front`) and for servers (`back`) name. HTTP/2 is offered to clients if
    /// `http2`.
    pub(crate) fn new(front: Option<&FrontTls>, back: Option<&BackTls>, http2: bool) -> Result<Self, TlsError> {
        let Loaded { front, back } = Loaded::load(front, back, http2, None)?;
        let acceptor = front.map(|front| Arc::new(Acceptor::new(front)));
        Ok(Tls { acceptor, connector: Connector::new(back) })
    }

    /// Loads and checks everything anew. Nothing changes before it is [installed](Tls::install).
    pub(crate) fn load(
        &self,
        front: Option<&FrontTls>,
        back: Option<&BackTls>,
        http2: bool,
    ) -> Result<Loaded, TlsError> {
        Loaded::load(front, back, http2, self.acceptor.as_ref().map(|acceptor| acceptor.front()).as_deref())
    }

    /// New connections use what was `loaded` from now on. Whether clients are served by TLS stays as it is.
    pub(crate) fn install(&self, loaded: Loaded) {
        if let (Some(acceptor), Some(front)) = (&self.acceptor, loaded.front) {
            acceptor.install(front);
        }
        self.connector.install(loaded.back);
    }
}

impl Loaded {
    fn load(
        front: Option<&FrontTls>,
        back: Option<&BackTls>,
        http2: bool,
        former: Option<&Front>,
    ) -> Result<Self, TlsError> {
        let front = front.map(|settings| Front::load(settings, http2, former)).transpose()?;
        let back = back.map(Back::load).transpose()?;
        for warning in front.iter().flat_map(Front::warnings).chain(back.iter().flat_map(Back::warnings)) {
            tracing::warn!("{warning}");
        }
        Ok(Loaded { front, back })
    }
}

/// A connection with TLS on it, of either side.
pub(crate) type Stream = tokio_rustls::TlsStream<TcpStream>;

/// The application protocols of this dispatcher, as ALPN (RFC 7301) names them.
const HTTP_1: &[u8] = b"http/1.1";
const HTTP_2: &[u8] = b"h2";

/// What does the cryptography, for every configuration.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));
    PROVIDER.clone()
}

/// The versions from `least` on.
fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match least {
        TlsVersion::Tls12 => &BOTH,
        TlsVersion::Tls13 => &BOTH[..1],
    }
}

/// The protocols to offer, the best first.
fn protocols(http2: bool) -> Vec<Vec<u8>> {
    let offered: &[&[u8]] = if http2 { &[HTTP_2, HTTP_1] } else { &[HTTP_1] };
    offered.iter().map(|protocol| protocol.to_vec()).collect()
}
