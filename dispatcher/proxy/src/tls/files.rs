//! Reading certificates and keys.

use super::certificate::Facts;
use super::{Authorities, CertificateFiles, TlsError, provider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error, InconsistentKeys, RootCertStore};
use std::{fs, path::Path, sync::Arc};

/// A certificate with its key, ready for use, and what it says.
pub(super) struct Identity {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) facts: Facts,
}

impl Identity {
    /// Reads both files, and sees that they belong together.
    pub(super) fn load(files: &CertificateFiles) -> Result<Self, TlsError> {
        let chain = certificates(&files.chain)?;
        let first = |reason: String| TlsError::Malformed { path: files.chain.clone(), position: 1, reason };
        let facts = Facts::read(&chain[0], files.chain.clone()).map_err(|e| first(e.to_string()))?;
        let key = CertifiedKey::new(chain, signing_key(&files.key)?);
        match key.keys_match() {
            Ok(()) => Ok(Identity { key: Arc::new(key), facts }),
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                Err(TlsError::Mismatch { key: files.key.clone(), chain: files.chain.clone() })
            }
            Err(error) => Err(first(error.to_string())),
        }
    }
}

/// The authorities in a file, or the system's.
pub(super) fn authorities(from: &Authorities) -> Result<RootCertStore, TlsError> {
    match from {
        Authorities::File(path) => authorities_in(path),
        Authorities::System => system_authorities(),
    }
}

/// The authorities in a file.
pub(super) fn authorities_in(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (certificate, position) in certificates(path)?.into_iter().zip(1..) {
        let malformed = |e: Error| TlsError::Malformed { path: path.to_owned(), position, reason: e.to_string() };
        roots.add(certificate).map_err(malformed)?;
    }
    Ok(roots)
}

fn system_authorities() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Old and odd ones stand in every system's list; whoever they issued for is not trusted.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let reason = found.errors.first().map_or_else(|| "the list is empty".to_owned(), ToString::to_string);
        return Err(TlsError::System { reason });
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// The certificates in a file: one or more.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let malformed = |(certificate, position): (Result<_, pem::Error>, usize)| {
        let reason = |e: pem::Error| TlsError::Malformed { path: path.to_owned(), position, reason: e.to_string() };
        certificate.map_err(reason)
    };
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text).zip(1..).map(malformed).collect::<Result<_, _>>()?;
    if found.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned() });
    }
    Ok(found)
}

fn signing_key(path: &Path) -> Result<Arc<dyn SigningKey>, TlsError> {
    // What the parser would say of a file that it cannot make out is not repeated: it may quote the file.
    let key = PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| TlsError::NoKey { path: path.to_owned() })?;
    let unusable = |source| TlsError::Key { path: path.to_owned(), source };
    provider().key_provider.load_private_key(key).map_err(unusable)
}
