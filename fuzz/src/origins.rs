//! What peers say of where a request came from.

use crate::forwarded::{self, Claims, Forwarding, Hop};
use crate::proxy_protocol::{self, Ends, ProxyVersion};
use crate::trust::Trust;
use crate::via::Pseudonym;
use std::net::IpAddr;

pub(crate) const PROXY_WORDS: &[&str] = &[
    "PROXY ",
    "TCP4 ",
    "TCP6 ",
    "UNKNOWN",
    "\r\n",
    "192.0.2.1 ",
    "2001:db8::1 ",
    " 80",
    "65535",
    "\r\n\r\n\0\r\nQUIT\n",
    "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
    "\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24",
    "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    "\x03\0\x04",
    "\x04\0\0",
];

/// A header is read the same however its bytes come, and what was read can be written and read again.
pub(crate) fn proxy_header(data: &[u8]) {
    let whole = proxy_protocol::read(data);
    let decided = (0..=data.len()).find_map(|cut| match proxy_protocol::read(&data[..cut]) {
        Ok(None) => None,
        decided => Some((cut, decided)),
    });
    match decided {
        Some((cut, decided)) => {
            assert_eq!(decided, whole, "decided after {cut} bytes, and otherwise with more");
            if let Ok(Some(header)) = decided {
                assert_eq!(header.length, cut, "a header was whole before its end, or not at its end");
            }
        }
        None => assert!(data.len() < 4096, "{} bytes and no decision", data.len()),
    }
    if let Ok(Some(header)) = whole
        && let Some(ends) = header.ends
    {
        let canonical = |ends: &Ends| (ends.source.ip().to_canonical(), ends.source.port(), ends.destination.port());
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let mut written = Vec::new();
            proxy_protocol::write(version, &ends, &mut written);
            let again = proxy_protocol::read(&written).expect("what is written is a header").expect("a whole one");
            assert_eq!(again.length, written.len());
            let again = again.ends.expect("with both ends");
            assert_eq!(canonical(&again), canonical(&ends), "{version:?}");
        }
    }
}

pub(crate) const FORWARDED_WORDS: &[&str] = &[
    "\n",
    "for=",
    "proto=https",
    "host=",
    "by=",
    ";",
    ",",
    "\"",
    "\\",
    "[2001:db8::1]",
    "192.0.2.7",
    "10.0.0.2",
    ":80",
    "unknown",
    "_x",
    "1.1 edge",
    "1.0 ",
    "(",
    ")",
    " ",
    "\t",
];

/// The lines of the input are values of fields, each line of the next kind. What servers get is one line a field, and the
/// dispatcher's own word is the last in it.
pub(crate) fn forwarded(data: &[u8]) {
    // The reader of heads lets no control character into a value.
    if data.iter().any(|&byte| byte.is_ascii_control() && !matches!(byte, b'\n' | b'\t')) {
        return;
    }
    let lines: Vec<&[u8]> = data.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).collect();
    let values = |kind: usize| lines.iter().skip(kind).step_by(4).copied();
    let claims = Claims { x_for: values(0), x_proto: values(1), x_host: values(2), forwarded: values(3) };
    let trust: Trust = ["10.0.0.0/8".parse().expect("a network")].into_iter().collect();
    let host = lines.last().copied().filter(|host| !host.is_empty());
    for (address, forwarding) in [
        ("10.0.0.1", Forwarding::XForwarded),
        ("10.0.0.1", Forwarding::Rfc7239),
        ("10.0.0.1", Forwarding::Both),
        ("192.0.2.9", Forwarding::Both),
        ("2001:db8::9", Forwarding::Rfc7239),
    ] {
        let peer: IpAddr = address.parse().expect("an address");
        let trusted = trust.covers(peer);
        let mut out = Vec::new();
        forwarded::write(forwarding, &Hop { address, trusted, scheme: "http", host }, &claims, &mut out);
        let lines = lines_of(&out);
        let told = |name: &str| {
            lines.iter().filter(|(key, _)| *key == name.as_bytes()).map(|(_, value)| *value).collect::<Vec<_>>()
        };
        for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"] {
            assert!(told(name).len() <= 1, "{name} is told twice");
        }
        // Whoever reads from the right finds the peer first, and a stranger's claims not at all.
        if let [value] = told("x-forwarded-for")[..] {
            let mut nodes = value.rsplit(|&byte| byte == b',').map(<[u8]>::trim_ascii);
            assert_eq!(nodes.next(), Some(address.as_bytes()));
            assert!(trusted || nodes.next().is_none(), "a stranger was believed");
        }
        if let [value] = told("forwarded")[..] {
            let nodes: Vec<_> = forwarded::elements(value).map(|element| element.expect("a sound value")).collect();
            let own = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            assert_eq!(nodes.last(), Some(&Some(own.as_bytes())));
            assert!(trusted || nodes.len() == 1, "a stranger was believed");
        }
    }
    let name: Pseudonym = "edge".parse().expect("a name");
    let mut out = Vec::new();
    name.write(values(0), "1.1", &mut out);
    let written = lines_of(&out);
    assert_eq!(written.len(), 1);
    assert!(name.is_among(written.iter().map(|(_, value)| *value)), "a loop would not be seen");
}

/// The names and values of lines that were written, each of which must end in CR LF and hold no other.
fn lines_of(out: &[u8]) -> Vec<(&[u8], &[u8])> {
    let text = out.strip_suffix(b"\r\n").unwrap_or(out);
    let lines = text.split(|&byte| byte == b'\n').filter(|_| !text.is_empty());
    let split = lines.map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(!line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "a line in a line");
        let colon = line.windows(2).position(|pair| pair == b": ").expect("a name and a value");
        (&line[..colon], &line[colon + 2..])
    });
    split.collect()
}
