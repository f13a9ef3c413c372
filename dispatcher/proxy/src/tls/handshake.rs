//! What a handshake agreed on, or why it did not.

use super::{HTTP_2, TlsVersion, certificate};
use crate::metrics::Counter;
use rustls::{Error, HandshakeKind, ProtocolVersion, ServerConnection};
use std::io;

/// What a handshake with a client agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// The version of TLS.
    pub(crate) version: TlsVersion,
    /// Whether an earlier session was resumed, with no signature made or verified.
    pub(crate) resumed: bool,
    /// Whether HTTP/2 is spoken (ALPN); else HTTP/1.1.
    pub(crate) http2: bool,
    /// The name that he asked for, in lower case.
    pub(crate) server_name: Option<Box<str>>,
    /// Whose certificate he has shown, as RFC 4514 writes it: `CN=alice,O=Example`.
    pub(crate) client: Option<Box<str>>,
}

impl Handshake {
    pub(super) fn of(connection: &ServerConnection) -> Self {
        let shown = connection.peer_certificates().and_then(<[_]>::first);
        Handshake {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
                _ => TlsVersion::Tls13,
            },
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            http2: connection.alpn_protocol() == Some(HTTP_2),
            server_name: connection.server_name().map(Into::into),
            client: shown.and_then(|shown| certificate::subject(shown)).map(Into::into),
        }
    }
}

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection ended.
    Closed,
    /// No version, cipher suite or protocol in common.
    Incompatible,
    /// The peer's certificate is missing, or is not accepted.
    Certificate,
    /// The peer gave up: it does not accept our certificate, as a rule.
    Refused,
    /// What came is not TLS, or not as it must be.
    Malformed,
    /// The peer took too long.
    TimedOut,
}

impl Fault {
    pub(crate) const ALL: [Fault; 6] =
        [Fault::Closed, Fault::Incompatible, Fault::Certificate, Fault::Refused, Fault::Malformed, Fault::TimedOut];

    /// Its name as a label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Fault::Closed => "closed",
            Fault::Incompatible => "incompatible",
            Fault::Certificate => "certificate",
            Fault::Refused => "refused",
            Fault::Malformed => "malformed",
            Fault::TimedOut => "timeout",
        }
    }

    /// The fault behind the error of a handshake.
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            None => Fault::Closed,
            Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => Fault::Incompatible,
            Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => Fault::Certificate,
            Some(Error::AlertReceived(_)) => Fault::Refused,
            Some(_) => Fault::Malformed,
        }
    }
}

/// What one thread counts of handshakes with clients.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    /// By version, then whole ones and resumed ones.
    made: [[Counter; 2]; TlsVersion::ALL.len()],
    failed: [Counter; Fault::ALL.len()],
}

impl Handshakes {
    /// Counts one that was made.
    pub(crate) fn made(&self, handshake: &Handshake) {
        self.made[handshake.version as usize][usize::from(handshake.resumed)].add(1);
    }

    /// Counts one that was not.
    pub(crate) fn failed(&self, fault: Fault) {
        self.failed[fault as usize].add(1);
    }

    pub(crate) fn made_so_far(&self, version: TlsVersion, resumed: bool) -> u64 {
        self.made[version as usize][usize::from(resumed)].get()
    }

    pub(crate) fn failed_so_far(&self, fault: Fault) -> u64 {
        self.failed[fault as usize].get()
    }
}
