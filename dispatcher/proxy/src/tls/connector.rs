//! TLS to servers.

use super::certificate::Facts;
use super::files::{self, Identity};
use super::{BackTls, Stream, TlsError, TlsVersion, TlsWarning, protocols, provider, versions};
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

    /// Shakes hands with the server at `host`, a name or an IP address, and verifies its certificate. It waits for the
    /// server for as long as that keeps it waiting.
    ///
    /// # Errors
    /// Those of the connection, and the faults of the handshake; the message names what is wrong with a certificate.
    pub(crate) async fn connect(&self, stream: TcpStream, host: &str) -> io::Result<Stream> {
        let back = self.back.load_full().ok_or_else(|| io::Error::other(TlsError::NotConfigured))?;
        let name = match &back.name {
            Some(name) => name.clone(),
            None => server_name(host).map_err(io::Error::other)?,
        };
        Ok(Stream::from(TlsConnector::from(back.config.clone()).connect(name, stream).await?))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.back.load().fmt(f)
    }
}

/// What is loaded from files, and as a whole.
pub(crate) struct Back {
    config: Arc<ClientConfig>,
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
        config.alpn_protocols = protocols(false);
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Back { config: Arc::new(config), name, certificate: identity.map(|identity| identity.facts) })
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
