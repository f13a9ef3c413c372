//! Which certificate a client gets.

use super::files::Identity;
use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::{collections::HashMap, fmt, sync::Arc};

/// Finds a client's certificate by the name that he asks for.
pub(super) struct Chooser {
    /// All, in the order of preference.
    all: Vec<Arc<CertifiedKey>>,
    /// By name.
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows the `*.` of a wildcard, which stands for one label (RFC 9525, section 6.3).
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Chooser {
    pub(super) fn new(identities: &[Identity]) -> Self {
        let mut chooser = Chooser { all: Vec::new(), exact: HashMap::new(), wildcard: HashMap::new() };
        for Identity { key, facts } in identities {
            chooser.all.push(key.clone());
            for name in &facts.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut chooser.wildcard, parent),
                    None => (&mut chooser.exact, name.as_str()),
                };
                names.entry(name.to_owned()).or_default().push(key.clone());
            }
        }
        chooser
    }

    /// The best certificate for `name`, which is in lower case, whose key can sign in one of the ways in `schemes`.
    pub(super) fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let exact = name.and_then(|name| self.exact.get(name));
        let parent = name.and_then(|name| name.split_once('.'));
        let wildcard = parent.and_then(|(_, parent)| self.wildcard.get(parent));
        let ranked = exact.into_iter().chain(wildcard).chain([&self.all]).flatten();
        ranked.into_iter().find(|certified| certified.key.choose_scheme(schemes).is_some())
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes()).cloned()
    }
}

impl fmt::Debug for Chooser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chooser").field("certificates", &self.all.len()).finish_non_exhaustive()
    }
}
