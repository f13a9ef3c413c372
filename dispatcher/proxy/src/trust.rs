//! Whom to believe: the networks whose word about where a request came from is taken.

use ipnet::{IpNet, Ipv4Net};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The networks of trusted peers. An IPv4 address that comes mapped into IPv6 (`::ffff:192.0.2.1`, as a socket for
/// both reports it) counts as the IPv4 address that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust(Vec<Network>);

impl Trust {
    /// Whether the host at `address` is believed.
    pub fn covers(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.0.contains(&address))
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nobody");
        }
        for (n, Network(network)) in self.0.iter().enumerate() {
            write!(f, "{}{network}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl FromIterator<Network> for Trust {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Trust(networks.into_iter().collect())
    }
}

/// A network such as `10.0.0.0/8` or `2001:db8::/32`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadNetwork {
    /// It is neither an address nor a network.
    #[error("{entry:?} is no network: write an address or a network, such as \"10.0.0.0/8\" or \"2001:db8::/32\"")]
    Malformed {
        /// The text.
        entry: String,
    },
    /// It names a host and the size of a network: was the host meant, or the network?
    #[error("{entry:?} has bits after its prefix: write \"{network}\" for the network, \"{host}\" for the one host")]
    HostBits {
        /// The text.
        entry: String,
        /// The network that it is in.
        network: IpNet,
        /// The host that it names.
        host: IpAddr,
    },
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(entry: &str) -> Result<Self, BadNetwork> {
        if let Ok(address) = IpAddr::from_str(entry) {
            return Ok(Network(IpNet::from(address.to_canonical())));
        }
        let network = parsed(entry).ok_or_else(|| BadNetwork::Malformed { entry: entry.to_owned() })?;
        if network.addr() != network.network() {
            return Err(BadNetwork::HostBits {
                entry: entry.to_owned(),
                network: network.trunc(),
                host: network.addr(),
            });
        }
        Ok(Network(canonical(network)))
    }
}

/// The network that is written there. Addresses are read by the standard library: [`IpNet`] reads `010.0.0.0` as
/// `10.0.0.0`, which others take for octal.
fn parsed(entry: &str) -> Option<IpNet> {
    let (address, length) = entry.split_once('/')?;
    let length = length.parse().ok().filter(|_| length.bytes().all(|byte| byte.is_ascii_digit()))?;
    IpNet::new(address.parse().ok()?, length).ok()
}

/// A network of IPv4 addresses that are mapped into IPv6, as the IPv4 network that it is.
fn canonical(network: IpNet) -> IpNet {
    let unmapped = match network {
        IpNet::V6(mapped) => mapped.addr().to_ipv4_mapped().zip(mapped.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    unmapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(entries: &[&str]) -> Trust {
        entries.iter().map(|entry| entry.parse::<Network>().unwrap()).collect()
    }

    fn covers(trust: &Trust, address: &str) -> bool {
        trust.covers(address.parse().unwrap())
    }

    #[test]
    fn networks_and_single_addresses_are_believed() {
        let trust = trust(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"]);
        for believed in ["10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8:ffff::1", "::1"] {
            assert!(covers(&trust, believed), "{believed}");
        }
        for stranger in ["11.0.0.0", "9.255.255.255", "192.0.2.8", "2001:db9::", "::2", "::"] {
            assert!(!covers(&trust, stranger), "{stranger}");
        }
    }

    #[test]
    fn by_default_nobody_is_believed() {
        assert!(!covers(&Trust::default(), "127.0.0.1"));
        assert_eq!(Trust::default().to_string(), "nobody");
        assert_eq!(trust(&["10.0.0.0/8", "::1"]).to_string(), "10.0.0.0/8, ::1/128");
    }

    #[test]
    fn an_ipv4_address_is_the_same_mapped_into_ipv6_and_not() {
        for entry in ["10.0.0.0/8", "::ffff:10.0.0.0/104"] {
            assert!(covers(&trust(&[entry]), "10.1.2.3"), "{entry}");
            assert!(covers(&trust(&[entry]), "::ffff:10.1.2.3"), "{entry}");
            assert!(!covers(&trust(&[entry]), "::ffff:11.1.2.3"), "{entry}");
        }
        assert!(covers(&trust(&["::ffff:192.0.2.7"]), "192.0.2.7"));
        assert!(!covers(&trust(&["::/0"]), "::ffff:192.0.2.7"), "all of IPv6 is not all of IPv4");
        assert!(covers(&trust(&["0.0.0.0/0"]), "::ffff:192.0.2.7"));
    }

    #[test]
    fn an_entry_that_is_no_network_is_named() {
        for bad in
            ["", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/", "::/129", "localhost", "10.0.0.0/8 ", "010.0.0.0/8", "::/+1"]
        {
            assert_eq!(bad.parse::<Network>(), Err(BadNetwork::Malformed { entry: bad.to_owned() }));
        }
        let error = "10.1.2.3/8".parse::<Network>().unwrap_err().to_string();
        assert!(error.contains("\"10.1.2.3/8\"") && error.contains("\"10.0.0.0/8\""), "{error}");
    }
}
