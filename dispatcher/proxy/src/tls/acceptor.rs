//! TLS to clients.

use super::certificate::Facts;
use super::chooser::Chooser;
use super::files::{self, Identity};
use super::{FrontTls, Handshake, Stream, TlsError, TlsWarning, protocols, provider, versions};
use arc_swap::ArcSwap;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::TrustAnchor;
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use std::{fmt, io, sync::Arc, time::SystemTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// Sessions that are remembered for clients that cannot keep a ticket (TLS 1.2 alone).
const SESSIONS: usize = 4096;

/// Makes TLS connections of clients' connections. All threads share one.
pub(crate) struct Acceptor {
    front: ArcSwap<Front>,
}

impl Acceptor {
    /// Works with `front`.
    pub(crate) fn new(front: Front) -> Self {
        Acceptor { front: ArcSwap::from_pointee(front) }
    }

    /// What is in use.
    pub(crate) fn front(&self) -> Arc<Front> {
        self.front.load_full()
    }

    /// New connections use `front` from now on.
    pub(crate) fn install(&self, front: Front) {
        self.front.store(Arc::new(front));
    }

    /// Shakes hands with a client. It waits for him for as long as he keeps it waiting.
    ///
    /// # Errors
    /// [`Fault::of`](super::Fault::of) tells what they mean; the client has been told as far as he listens.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<(Stream, Handshake)> {
        let config = self.front.load().config.clone();
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let handshake = Handshake::of(stream.get_ref().1);
        Ok((Stream::from(stream), handshake))
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.front.load().fmt(f)
    }
}

/// What is loaded from files, and as a whole.
pub(crate) struct Front {
    config: Arc<ServerConfig>,
    /// What the certificates say.
    pub(crate) certificates: Vec<Facts>,
    trust: Option<Trust>,
}

/// Which clients count.
#[derive(PartialEq, Eq)]
struct Trust {
    authorities: Vec<TrustAnchor<'static>>,
    required: bool,
}

impl Front {
    /// Loads and checks what `settings` name; HTTP/2 is offered if `http2`.
    ///
    /// Clients can resume the sessions that they had with the `former`, unless other client certificates count now:
    /// who resumes is not asked for one again.
    pub(crate) fn load(settings: &FrontTls, http2: bool, former: Option<&Front>) -> Result<Self, TlsError> {
        if settings.certificates.is_empty() {
            return Err(TlsError::NoCertificates);
        }
        let identities: Vec<_> = settings.certificates.iter().map(Identity::load).collect::<Result<_, _>>()?;
        let (verifier, trust) = match &settings.client_auth {
            None => (WebPkiClientVerifier::no_client_auth(), None),
            Some(auth) => {
                let roots = files::authorities_in(&auth.ca)?;
                let trust = Trust { authorities: roots.roots.clone(), required: auth.required };
                (verifier(roots, auth.required)?, Some(trust))
            }
        };
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(versions(settings.min_version)).map_err(TlsError::Setup)?;
        let builder = builder.with_client_cert_verifier(verifier);
        let mut config = builder.with_cert_resolver(Arc::new(Chooser::new(&identities)));
        config.alpn_protocols = protocols(http2);
        match former.filter(|former| former.trust == trust) {
            Some(former) => {
                config.session_storage = former.config.session_storage.clone();
                config.ticketer = former.config.ticketer.clone();
            }
            None => {
                config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
                // Its keys change every six hours and are forgotten after twelve.
                config.ticketer = Ticketer::new().map_err(TlsError::Setup)?;
            }
        }
        let certificates = identities.into_iter().map(|identity| identity.facts).collect();
        Ok(Front { config: Arc::new(config), certificates, trust })
    }

    /// What is odd about the certificates.
    pub(crate) fn warnings(&self) -> Vec<TlsWarning> {
        let now = SystemTime::now();
        self.certificates.iter().filter_map(|facts| facts.warning(now)).collect()
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

fn verifier(
    roots: RootCertStore,
    required: bool,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| TlsError::Setup(rustls::Error::General(error.to_string())))
}
