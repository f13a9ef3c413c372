//! Where a server is.

use std::fmt;
use std::net::SocketAddr;

const TLS: &str = "https://";

/// Where a server is: `host:port`, with a name or an IP address as host, after `https://` where TLS is spoken there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    tls: bool,
    /// `host:port`.
    authority: String,
}

impl Endpoint {
    /// What `text` says, whether or not it [makes sense](Endpoint::makes_sense).
    pub(crate) fn new(text: &str) -> Self {
        let authority = text.strip_prefix(TLS);
        Endpoint { tls: authority.is_some(), authority: authority.unwrap_or(text).to_owned() }
    }

    /// Whether it has a host and a port.
    pub(crate) fn makes_sense(&self) -> bool {
        is_authority(&self.authority)
    }

    /// Whether TLS is spoken there.
    pub(crate) fn has_tls(&self) -> bool {
        self.tls
    }

    /// `host:port`.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The host: a name, or an IP address without brackets.
    pub(crate) fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// The address, unless a name must be looked up for it.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.authority.parse().ok()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.tls { TLS } else { "" }, self.authority)
    }
}

fn is_authority(text: &str) -> bool {
    let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0);
    let host = |host: &str| !host.is_empty() && host.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._".contains(&c));
    match text.parse::<SocketAddr>() {
        Ok(address) => address.port() != 0,
        Err(_) => text.rsplit_once(':').is_some_and(|(name, number)| host(name) && port(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_a_host_and_a_port() {
        for good in ["127.0.0.1:80", "[::1]:8080", "localhost:1", "web-1.shop.example:8080", "https://[::1]:443"] {
            let endpoint = Endpoint::new(good);
            assert!(endpoint.makes_sense(), "{good}");
            assert_eq!(endpoint.to_string(), good);
        }
        let bad = ["", "127.0.0.1", "localhost:", ":80", "localhost:0", "127.0.0.1:0", "a b:80", "::1:80", "h:99999"];
        for bad in bad.into_iter().chain(["https://", "https://h", "http://h:80", "https://h:443/", "HTTPS://h:443"]) {
            assert!(!Endpoint::new(bad).makes_sense(), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_is_taken_apart() {
        let parts = |text: &str| {
            let endpoint = Endpoint::new(text);
            (endpoint.has_tls(), endpoint.host().to_owned(), endpoint.authority().to_owned(), endpoint.address())
        };
        assert_eq!(parts("web:80"), (false, "web".into(), "web:80".into(), None));
        let address = "[::1]:443".parse().ok();
        assert_eq!(parts("https://[::1]:443"), (true, "::1".into(), "[::1]:443".into(), address));
    }
}
