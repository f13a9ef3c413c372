//! TLS to servers.

use super::certificate::Facts;
use super::files::{self, Identity};
use super::{BackTls, HTTP_2, Stream, TlsError, TlsVersion, TlsWarning, protocols, provider, versions};
use crate::config::Protocol;
use arc_swap::ArcSwapOption;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use std::{fmt, io, sync::Arc, time::SystemTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Servers whose sessions are remembered.
const SESSIONS: usize = 4096;

/// Makes TLS connections of connections to servers. All threads share one.
pub(crate) struct Connector {
    /// `None` while no server is to be reached by TLS.
    back: ArcSwapOption<Back>,
}

impl Connector {
    /// Works with `back`, if there is one.
    pub(crate) fn new(back: Option<Back>) -> Self {
        Connector { back: ArcSwapOption::from_pointee(back) }
    }

    /// New connections use `back` from now on.
    pub(crate) fn install(&self, back: Option<Back>) {
        self.back.store(back.map(Arc::new));
    }

    /// Shakes hands with the server at `host`, a name or an IP address, and verifies its certificate; tells also what the
    /// two agreed to speak, which is HTTP/1.1 unless both want HTTP/2. It waits for the server for as long as that keeps
    /// it waiting.
    ///
    /// # Errors
    /// Those of the connection, and the faults of the handshake; the message names what is wrong with a certificate.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
        wanted: Protocol,
    ) -> io::Result<(Stream, Protocol)> {
        let back = self.back.load_full().ok_or_else(|| io::Error::other(TlsError::NotConfigured))?;
        let name = match &back.name {
            Some(name) => name.clone(),
            None => server_name(host).map_err(io::Error::other)?,
        };
        let config = match wanted {
            Protocol::Http1 => &back.http1,
            Protocol::Http2 => &back.http2,
        };
        let stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
        let agreed = match stream.get_ref().1.alpn_protocol() {
            Some(HTTP_2) => Protocol::Http2,
            _ => Protocol::Http1,
        };
        Ok((stream.into(), agreed))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.back.load().fmt(f)
    }
}

/// What is loaded from files, and as a whole.
pub(crate) struct Back {
    /// For servers that are spoken to by HTTP/1.1.
    http1: Arc<ClientConfig>,
    /// For servers that are spoken to by HTTP/2, if they agree.
    http2: Arc<ClientConfig>,
    /// What every server's certificate must say; `None`: the server's own host.
    name: Option<ServerName<'static>>,
    certificate: Option<Facts>,
}

impl Back {
    /// Loads and checks what `settings` name.
    pub(crate) fn load(settings: &BackTls) -> Result<Self, TlsError> {
        let roots = files::authorities(&settings.authorities)?;
        let identity = settings.certificate.as_ref().map(Identity::load).transpose()?;
        let name = settings.server_name.as_deref().map(server_name).transpose()?;
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(versions(TlsVersion::Tls12)).map_err(TlsError::Setup)?;
        let builder = builder.with_root_certificates(roots);
        let mut config = match &identity {
            Some(Identity { key, .. }) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())))
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        config.alpn_protocols = protocols(false);
        let mut http2 = config.clone();
        http2.alpn_protocols = protocols(true);
        Ok(Back {
            http1: Arc::new(config),
            http2: Arc::new(http2),
            name,
            certificate: identity.map(|identity| identity.facts),
        })
    }

    /// What is odd about the certificate.
    pub(crate) fn warnings(&self) -> Vec<TlsWarning> {
        self.certificate.iter().filter_map(|facts| facts.warning(SystemTime::now())).collect()
    }
}

impl fmt::Debug for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Back").field("name", &self.name).field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name { name: host.to_owned() })
}
