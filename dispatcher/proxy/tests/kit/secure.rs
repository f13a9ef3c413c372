//! Clients that speak TLS.

use super::authority::Authority;
use super::{Message, PATIENCE, read_response};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned, crypto::ring};
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

/// A client's connection under TLS.
pub struct Secure(pub BufReader<StreamOwned<ClientConnection, TcpStream>>);

/// What a client of `authority` works with; it remembers its sessions.
pub fn trusting(authority: &Authority) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(authority.roots());
    Arc::new(builder.with_no_client_auth())
}

impl Secure {
    pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        Self::over(TcpStream::connect(address).unwrap(), config)
    }

    /// On a connection that is there already.
    pub fn over(stream: TcpStream, config: &Arc<ClientConfig>) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from("shop.example").unwrap();
        let connection = ClientConnection::new(config.clone(), name).unwrap();
        Secure(BufReader::new(StreamOwned::new(connection, stream)))
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    pub fn get(&mut self, path: &str) -> Message {
        self.try_get(path).unwrap()
    }

    /// A request; an error where there is no handshake, or no whole response.
    pub fn try_get(&mut self, path: &str) -> io::Result<Message> {
        self.0.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n").as_bytes())?;
        read_response(&mut self.0)
    }

    /// The certificate that the dispatcher has shown.
    pub fn shown(&self) -> CertificateDer<'static> {
        self.0.get_ref().conn.peer_certificates().unwrap()[0].clone()
    }
}
