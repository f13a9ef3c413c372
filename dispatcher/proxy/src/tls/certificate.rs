//! What a certificate says.

use super::TlsWarning;
use std::path::PathBuf;
use std::time::SystemTime;
use x509_cert::Certificate;
use x509_cert::der::{self, Decode};
use x509_cert::ext::pkix::{SubjectAltName, name::GeneralName};

/// What is to be known of a certificate that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The file that it was read from.
    pub(crate) path: PathBuf,
    /// The DNS names that it is for, in lower case; `*` may stand for the first label. A common name is none of them
    /// (RFC 9525, section 2).
    pub(super) names: Vec<String>,
    pub(super) not_before: SystemTime,
    /// When it expires.
    pub(crate) not_after: SystemTime,
}

impl Facts {
    /// Reads `certificate`, which stands in the file `path`.
    pub(super) fn read(certificate: &[u8], path: PathBuf) -> Result<Self, der::Error> {
        let certificate = Certificate::from_der(certificate)?;
        let certificate = certificate.tbs_certificate();
        let names = match certificate.get_extension::<SubjectAltName>()? {
            Some((_, names)) => names.0.iter().filter_map(dns_name).collect(),
            None => Vec::new(),
        };
        let validity = certificate.validity();
        let (not_before, not_after) = (validity.not_before.to_system_time(), validity.not_after.to_system_time());
        Ok(Facts { path, names, not_before, not_after })
    }

    /// What is odd about it at the time `now`.
    pub(super) fn warning(&self, now: SystemTime) -> Option<TlsWarning> {
        let path = || self.path.clone();
        if now > self.not_after {
            Some(TlsWarning::Expired { path: path(), at: self.not_after })
        } else if now < self.not_before {
            Some(TlsWarning::Early { path: path(), at: self.not_before })
        } else {
            None
        }
    }
}

fn dns_name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        _ => None,
    }
}

/// Whose certificate it is, as RFC 4514 writes it: `CN=alice,O=Example`. Control characters are escaped.
pub(super) fn subject(certificate: &[u8]) -> Option<String> {
    Some(Certificate::from_der(certificate).ok()?.tbs_certificate().subject().to_string())
}
