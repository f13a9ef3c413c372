//! What TLS is to do.

use super::acceptor::Front;
use super::connector::Back;
use super::{TlsError, TlsWarning};
use std::{net::SocketAddr, path::PathBuf};

/// How clients are served by TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontTls {
    /// Where clients connect by TLS, while they connect without it at [`Config::listen`](crate::Config::listen). Default:
    /// nowhere else, and TLS is what is spoken there.
    pub listen: Vec<SocketAddr>,
    /// Whether connections to [`listen`](FrontTls::listen) must begin with a PROXY header, before TLS, as
    /// [`Peers::demand_header`](crate::Peers::demand_header) says of those to the other addresses. Default: no.
    pub demand_header: bool,
    /// The certificates of the sites. A client gets the first that has the name he asks for (SNI, RFC 6066, section 3),
    /// as it is before one with a wildcard in its place; who asks for no name, or for one that is in none, gets the first
    /// of all. Where several have a name, the first whose key the client understands. At least one.
    pub certificates: Vec<CertificateFiles>,
    /// Whether clients are asked for certificates of their own. Default: they are not.
    pub client_auth: Option<ClientAuth>,
    /// The oldest version that is spoken. Default: TLS 1.2.
    pub min_version: TlsVersion,
}

impl FrontTls {
    /// Reads all the files as a dispatcher does when it starts.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn check(&self) -> Result<Vec<TlsWarning>, TlsError> {
        Ok(Front::load(self, false, None)?.warnings())
    }
}

/// A certificate and its private key, as files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, followed by those that link it to its authority.
    pub chain: PathBuf,
    /// Its private key, not encrypted: PKCS #8, PKCS #1 or SEC 1. May be the same file as `chain`.
    pub key: PathBuf,
}

/// Which certificates of clients count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// The authorities that issue them, as a file in PEM.
    pub ca: PathBuf,
    /// Whether clients without one are refused. Those with one that does not count always are.
    pub required: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl TlsVersion {
    pub(crate) const ALL: [TlsVersion; 2] = [TlsVersion::Tls12, TlsVersion::Tls13];

    /// Its name, as TLS's own specifications and logs have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            TlsVersion::Tls12 => "TLSv1.2",
            TlsVersion::Tls13 => "TLSv1.3",
        }
    }
}

/// How servers are reached by TLS. Their certificates are always verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackTls {
    /// Who issues the servers' certificates. Default: [`Authorities::System`].
    pub authorities: Authorities,
    /// The name that the servers' certificates must have, and that servers are asked for by SNI. Default: the host of
    /// each server's address.
    pub server_name: Option<String>,
    /// What the dispatcher shows to servers that ask for a certificate. Default: nothing.
    pub certificate: Option<CertificateFiles>,
}

impl BackTls {
    /// Reads all the files as a dispatcher does when it starts.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn check(&self) -> Result<Vec<TlsWarning>, TlsError> {
        Ok(Back::load(self)?.warnings())
    }
}

/// Who may issue certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authorities {
    /// The authorities that this system trusts, as its administrator has chosen them.
    #[default]
    System,
    /// Those in this PEM file alone.
    File(PathBuf),
}
