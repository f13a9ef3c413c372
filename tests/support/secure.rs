//! Clients that speak TLS, by HTTP/1 or by HTTP/2.

use super::{Client, Response, connect};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::{
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

#[path = "../../dispatcher/proxy/tests/kit/authority.rs"]
mod authority;
#[path = "../../dispatcher/proxy/tests/kit/http2.rs"]
#[allow(unreachable_pub)]
mod frames;

pub(crate) use authority::Authority;
use frames::{ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS};
use {super::PATIENCE, vibra_proxy::CertificateFiles};

/// A connection under TLS.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// The name that is asked for.
const NAME: &str = "shop.example";

/// Connects as a client that trusts `authority` and speaks these protocols, the first if it can be.
///
/// # Errors
/// That there is no connection, or no certificate that counts.
pub(crate) fn connect_securely(to: SocketAddr, authority: &Authority, protocols: &[&str]) -> io::Result<Tls> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("the defaults are possible");
    let mut config = builder.with_root_certificates(authority.roots()).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(NAME).expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let mut tls = StreamOwned::new(connection, connect(to)?);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

/// One request by HTTP/1 on a connection of its own.
pub(crate) fn get_securely(from: SocketAddr, authority: &Authority, target: &str) -> io::Result<Response> {
    let mut client = Client::over(connect_securely(from, authority, &[])?, from);
    client.send("GET", target, "connection: close\r\n", b"")?;
    client.receive()
}

/// A connection of HTTP/2 under TLS, with one request at a time.
pub(crate) struct Streams {
    tls: Tls,
    /// The number of the next stream.
    next: u32,
    /// Whether the other side takes no more.
    leaves: bool,
}

impl Streams {
    pub(crate) fn connect(to: SocketAddr, authority: &Authority) -> io::Result<Streams> {
        let mut tls = connect_securely(to, authority, &["h2"])?;
        assert_eq!(tls.conn.alpn_protocol(), Some(&b"h2"[..]));
        tls.write_all(&[PREFACE, &frames::frame(SETTINGS, 0, 0, &[])].concat())?;
        Ok(Streams { tls, next: 1, leaves: false })
    }

    /// Whether the other side has said that it takes no more requests here (RFC 9113, section 6.8).
    pub(crate) fn leaves(&self) -> bool {
        self.leaves
    }

    /// Sends a request; returns the number of its stream.
    pub(crate) fn send(&mut self, path: &str) -> io::Result<u32> {
        let stream = self.next;
        self.next += 2;
        let fields = [(":method", "GET"), (":scheme", "https"), (":authority", NAME), (":path", path)];
        let head = frames::frame(HEADERS, END_HEADERS | END_STREAM, stream, &frames::block(&fields));
        self.tls.write_all(&head).map(|()| stream)
    }

    /// Waits for the body of the response on `stream`; `None` where the other side did not look at the request.
    pub(crate) fn receive(&mut self, stream: u32) -> io::Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        loop {
            let frame = frames::read_frame(&mut self.tls)?;
            match frame.kind {
                SETTINGS | PING if frame.flags & ACK == 0 => {
                    let payload = if frame.kind == PING { &frame.payload[..] } else { &[] };
                    self.tls.write_all(&frames::frame(frame.kind, ACK, 0, payload))?;
                }
                GOAWAY => {
                    self.leaves = true;
                    assert_eq!(frame.code(), 0, "it goes for no fault of ours");
                    let last = u32::from_be_bytes(frame.payload[..4].try_into().expect("a number"));
                    if last < stream {
                        return Ok(None);
                    }
                }
                RST_STREAM => return Err(io::Error::other(format!("the stream is reset: {}", frame.code()))),
                DATA if frame.stream == stream => {
                    body.extend(&frame.payload);
                    if frame.flags & END_STREAM != 0 {
                        return Ok(Some(body));
                    }
                }
                _ => {}
            }
        }
    }
}
