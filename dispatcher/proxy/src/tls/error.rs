//! What is wrong with certificates, keys and names.

use std::{io, path::PathBuf, time::SystemTime};

/// Why TLS cannot be set up. No message contains anything of a private key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// No certificate for clients is named.
    #[error("TLS without a certificate: name at least one chain and its key")]
    NoCertificates,
    /// A file cannot be read.
    #[error("cannot read {}: see that it exists and that this process may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file has no certificate.
    #[error("no certificate in {}: it must be PEM, with -----BEGIN CERTIFICATE-----", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A certificate cannot be understood.
    #[error("certificate {position} in {} is malformed ({reason}): get it anew from its issuer", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which of those in the file, from 1.
        position: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A file has no private key.
    #[error("no private key in {}: it must be PEM, PKCS #8, PKCS #1 or SEC 1, not encrypted", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A private key is of a kind that is not known here.
    #[error("the private key in {} cannot be used: use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits or more",
        path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What the cryptography says.
        source: rustls::Error,
    },
    /// A private key is not that of its certificate.
    #[error("the private key in {} is not that of the first certificate in {}: name the key that belongs to it, or \
        put its certificate first", key.display(), chain.display())]
    Mismatch {
        /// The file with the key.
        key: PathBuf,
        /// The file with the certificate.
        chain: PathBuf,
    },
    /// The system has no list of certificate authorities.
    #[error(
        "this system names no certificate authorities ({reason}): install its package ca-certificates, or name \
        a file"
    )]
    System {
        /// What was found instead.
        reason: String,
    },
    /// A name cannot stand in a certificate.
    #[error("{name:?} is no name of a server: write a DNS name or an IP address")]
    Name {
        /// What was given.
        name: String,
    },
    /// A server is to be reached by TLS, but nothing says how.
    #[error("a server is to be reached by TLS, but nothing says how: configure TLS to servers (server_tls)")]
    NotConfigured,
    /// The library refuses what it was given.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// What is odd about a certificate that is used nevertheless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsWarning {
    /// It is no longer valid.
    #[error("the certificate in {} expired on {}: renew it, clients refuse it", path.display(), day(*.at))]
    Expired {
        /// The file.
        path: PathBuf,
        /// When.
        at: SystemTime,
    },
    /// It is not valid yet.
    #[error("the certificate in {} is not valid before {}: see that this machine's clock is right", path.display(),
        day(*.at))]
    Early {
        /// The file.
        path: PathBuf,
        /// When it will be.
        at: SystemTime,
    },
}

/// A time in UTC, as certificates have it: to the second.
fn day(time: SystemTime) -> String {
    httpdate::fmt_http_date(time)
}
