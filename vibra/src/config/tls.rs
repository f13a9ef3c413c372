//! What the file says of TLS, resolved.

use super::error::Source;
use super::resolve::{Fault, beside};
use super::{Server, raw};
use toml::Spanned;
use vibra_proxy::{Authorities, BackTls, CertificateFiles, ClientAuth, FrontTls, TlsVersion};

/// How clients are served by TLS, but for what their connections begin with.
pub(super) fn front(source: &Source<'_>, spanned: &Spanned<raw::Tls>) -> Fault<FrontTls> {
    let raw = spanned.get_ref();
    if raw.certificate.is_empty() {
        let hint = "add [[dispatcher.tls.certificate]] with chain = \"FILE\" and key = \"FILE\"";
        return Err(source.fault(spanned.span(), "TLS without a certificate", Some(hint.into())));
    }
    let client_auth = match (&raw.client_ca, &raw.client_auth) {
        (None, None) => None,
        (Some(ca), auth) => {
            let required = auth.as_ref().is_none_or(|auth| *auth.get_ref() == raw::ClientAuth::Required);
            Some(ClientAuth { ca: beside(source, ca), required })
        }
        (None, Some(auth)) => {
            let hint = "add client_ca = \"FILE\" with the authorities that issue them";
            return Err(source.fault(auth.span(), "client certificates that nobody issues", Some(hint.into())));
        }
    };
    Ok(FrontTls {
        listen: raw.listen.into_iter().collect(),
        certificates: raw.certificate.iter().map(|files| certificate(source, files)).collect(),
        client_auth,
        min_version: match raw.min_version {
            Some(raw::TlsVersion::Tls13) => TlsVersion::Tls13,
            Some(raw::TlsVersion::Tls12) | None => TlsVersion::Tls12,
        },
        ..FrontTls::default()
    })
}

/// How servers are reached by TLS: with the defaults where one of them is, and the file says no more.
pub(super) fn back(source: &Source<'_>, raw: Option<&raw::ServerTls>, servers: &[Server]) -> Option<BackTls> {
    let Some(raw) = raw else {
        return servers.iter().any(|server| server.address.starts_with("https://")).then(BackTls::default);
    };
    Some(BackTls {
        authorities: raw.ca.as_ref().map_or(Authorities::System, |ca| Authorities::File(beside(source, ca))),
        server_name: raw.name.clone(),
        certificate: raw.certificate.as_ref().map(|files| certificate(source, files)),
    })
}

fn certificate(source: &Source<'_>, raw: &raw::Certificate) -> CertificateFiles {
    let chain = beside(source, &raw.chain);
    let key = raw.key.as_ref().map_or_else(|| chain.clone(), |key| beside(source, key));
    CertificateFiles { chain, key }
}
