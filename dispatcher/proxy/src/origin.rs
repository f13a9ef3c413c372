//! Where a request began: the client's address, as far as the word of trusted peers goes.

use crate::forwarded::{Claims, Forwarding, Malformed, elements};
use crate::peers::Peers;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where a request that came from `peer` began: from there back to the first that is not trusted, or of whom nobody says
/// where he got it from.
pub(crate) fn origin<'a, I>(peers: &Peers, peer: IpAddr, claims: &Claims<I>) -> IpAddr
where
    I: Iterator<Item = &'a [u8]> + Clone,
{
    let trusted = |node: IpAddr| peers.trusted.covers(node);
    if !trusted(peer) {
        return peer;
    }
    let claimed = match peers.forwarding {
        Forwarding::XForwarded | Forwarding::Both => {
            let nodes = claims.x_for.clone().flat_map(|value| value.split(|&byte| byte == b','));
            let nodes = nodes.map(<[u8]>::trim_ascii).filter(|node| !node.is_empty());
            farthest(nodes.map(|node| Ok(address(node))), trusted)
        }
        Forwarding::Rfc7239 => {
            let elements = claims.forwarded.clone().flat_map(elements);
            farthest(elements.map(|element| element.map(|node| node.and_then(address))), trusted)
        }
        Forwarding::Off => None,
    };
    claimed.unwrap_or(peer)
}

/// Of the nodes that a request passed, the client first, the one that is farthest away and still vouched for by
/// trusted ones all the way; `None` if the last does not tell who it is.
fn farthest(
    mut nodes: impl Iterator<Item = Result<Option<IpAddr>, Malformed>>,
    trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    // What is left of a node counts only if that node is trusted: this is the walk from right to left, from the left.
    let walked = nodes.try_fold(None, |before: Option<IpAddr>, node| {
        node.map(|node| node.map(|node| before.filter(|_| trusted(node)).unwrap_or(node)))
    });
    walked.unwrap_or(None)
}

/// The IP address of a node: alone, with brackets as in URLs, or with a port (RFC 7239, section 6). Nodes that do not
/// want to be known have none.
fn address(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(node).ok()?;
    let address = match node.strip_prefix('[') {
        Some(bracketed) => {
            let (address, port) = bracketed.split_once(']')?;
            let is_ported = port.is_empty() || port.starts_with(':');
            address.parse::<Ipv6Addr>().ok().filter(|_| is_ported)?.into()
        }
        None => match node.split_once(':') {
            Some((address, port)) if !port.contains(':') => address.parse::<Ipv4Addr>().ok()?.into(),
            _ => node.parse::<IpAddr>().ok()?,
        },
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a request of the trusted 10.0.0.1 is taken to have begun.
    fn began(forwarding: Forwarding, x_for: &[&str], forwarded: &[&str]) -> String {
        let trusted = ["10.0.0.0/8", "2001:db8:ffff::/48"].iter().map(|entry| entry.parse().unwrap()).collect();
        let peers = Peers { trusted, forwarding, ..Peers::default() };
        origin(&peers, "10.0.0.1".parse().unwrap(), &claims(x_for, forwarded)).to_string()
    }

    fn claims<'a>(x_for: &'a [&str], forwarded: &'a [&str]) -> Claims<impl Iterator<Item = &'a [u8]> + Clone> {
        let values = |list: &'a [&str]| list.iter().map(|value| value.as_bytes());
        Claims { x_for: values(x_for), x_proto: values(&[]), x_host: values(&[]), forwarded: values(forwarded) }
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_not_trusted() {
        for (x_for, expected) in [
            (&[][..], "10.0.0.1"),
            (&["192.0.2.7"], "192.0.2.7"),
            (&["192.0.2.7, 10.0.0.2"], "192.0.2.7"),
            (&["6.6.6.6, 192.0.2.7, 10.0.0.3, 10.0.0.2"], "192.0.2.7"),
            (&["6.6.6.6, 192.0.2.7", "10.0.0.2"], "192.0.2.7"),
            // Forged by the client: what is left of him counts for nothing.
            (&["10.0.0.9, 192.0.2.7"], "192.0.2.7"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (&["192.0.2.7, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["192.0.2.7, unknown"], "10.0.0.1"),
            (&["192.0.2.7, 999.0.0.1"], "10.0.0.1"),
            (&["192.0.2.7,, "], "192.0.2.7"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["192.0.2.7, 2001:db8:ffff::2"], "192.0.2.7"),
            (&["192.0.2.7, ::ffff:10.0.0.2"], "192.0.2.7"),
            (&["::ffff:192.0.2.7"], "192.0.2.7"),
            (&["6.6.6.6, 192.0.2.7:4711"], "192.0.2.7"),
            (&["[2001:db8::1]:443"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["[192.0.2.7]"], "10.0.0.1"),
            (&["[2001:db8::1"], "10.0.0.1"),
            (&["[2001:db8::1]x"], "10.0.0.1"),
        ] {
            assert_eq!(began(Forwarding::XForwarded, x_for, &[]), expected, "{x_for:?}");
            assert_eq!(began(Forwarding::Both, x_for, &["for=192.0.2.8"]), expected, "{x_for:?}");
            assert_eq!(began(Forwarding::Off, x_for, &[]), "10.0.0.1");
            assert_eq!(began(Forwarding::Rfc7239, x_for, &[]), "10.0.0.1");
        }
    }

    #[test]
    fn rfc7239_5_2_the_client_is_found_in_forwarded_too() {
        for (forwarded, expected) in [
            (&["for=192.0.2.7;proto=https"][..], "192.0.2.7"),
            (&["for=6.6.6.6, for=\"[2001:db8::1]:80\"", "for=10.0.0.2"], "2001:db8::1"),
            (&["for=192.0.2.7, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
            (&["for=192.0.2.7, proto=https"], "10.0.0.1"),
            (&["for=\"192.0.2.7\\\"\""], "10.0.0.1"),
            (&["for=192.0.2.7", "for=\"10.0.0.2"], "10.0.0.1"),
        ] {
            assert_eq!(began(Forwarding::Rfc7239, &[], forwarded), expected, "{forwarded:?}");
            assert_eq!(began(Forwarding::XForwarded, &[], forwarded), "10.0.0.1");
        }
    }

    #[test]
    fn strangers_are_not_heard() {
        let stranger = "192.0.2.7".parse().unwrap();
        let claims = claims(&["10.0.0.9"], &["for=10.0.0.9"]);
        for forwarding in [Forwarding::XForwarded, Forwarding::Rfc7239, Forwarding::Both] {
            assert_eq!(origin(&Peers { forwarding, ..Peers::default() }, stranger, &claims), stranger);
        }
    }
}
